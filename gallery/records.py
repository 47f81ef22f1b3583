"""captions.jsonl: what a gallery folder holds, written image by image, so that a stopped run can be continued.

A line per captioned image::

    {"key": ..., "files": ["dog.jpg", "pictures/dog.jpg", "dog.txt"], "digests": {"dog.txt": ...}, "image": "dog.jpg",
     "caption": ..., "candidates": [...], "width": 640, "height": 480,
     "attention": {"rows": 7, "columns": 7, "weights": BASE64}}

The key is a hash of the image's path, size and modification time and of the captioner, so a changed image, checkpoint
or beam size is captioned anew, and the file reveals no folders. ``files`` are the files that were written for the
image; nothing else in the folder is ever overwritten or removed. ``digests`` are hashes of what was written to tables
and sidecars: one that holds anything else has been edited, and is kept. Lines are only added; of several with the same
key the last one counts. When a gallery is finished, the JPGs and cards of earlier galleries are removed, but no table,
sidecar or caption is.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import torch

import structured
from cli import UserError
from data.shards import file_state
from files import atomic_open, naming
from gallery import heatmap
from gallery.page import Entry

RECORDS = "captions.jsonl"
WHOLE_GALLERY = "gallery"  # the key of the files that belong to no single image, such as the page
FOLDERS = ("pictures", "attention", "cards")
CARDS_FILE = re.compile(r"cards/[0-9a-f]{16}\.js")
MAX_BYTES = 256 * structured.MB  # of captions.jsonl, which is held in memory: a line takes 1 to 2 KB, so 150,000 photos
MAX_LINE_BYTES = structured.MB  # of a line: 100 candidates of 100 words, with attention maps, take 50 KB
MAX_SIDE = 65_535  # pixels of a JPG
DIGEST_LENGTH = 32  # hexadecimal digits, 128 bits: no two of a million files are likely to share them


def captioner_identity(checkpoint: Path, beam_size: int, precision: torch.dtype, *, reranks: bool) -> str:
    """A hash of the checkpoint file, the beam size, whether it reranks, and the precision if it is not fp32."""
    with checkpoint.open("rb") as file:
        identity = f"{hashlib.file_digest(file, 'sha256').hexdigest()} {beam_size}{' reranked' if reranks else ''}"
    return identity if precision == torch.float32 else f"{identity} {precision}"


def photo_key(path: Path, captioner: str) -> str:
    """The identity of an image that ``captioner`` captions.

    Raises:
        OSError: there is no such file.
    """
    identity = repr((str(path), *file_state(path), captioner))
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]


class Records:
    """The records of ``folder``, which need not exist. A torn last line, from a killed run, is cut off.

    Raises:
        UserError: captions.jsonl cannot be that of a gallery, or a link in the folder leads elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RECORDS
        self._lines: dict[str, str] = {}  # key -> its JSON object; parsed when needed, which takes less memory
        self._owners: dict[str, str] = {}  # file -> the key it was written for
        self._digests: dict[str, list[str]] = {}  # table or sidecar -> hashes of what was written to it, in order
        self._captions: dict[str, set[str]] = {}  # file name of an image -> its captions by any model
        _check_folder(folder)
        whole = 0  # length of the complete lines
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                if line.endswith(b"\n"):
                    self._note(line.decode("utf-8", "replace"))
                    whole = file.tell()
            if whole < file.tell():
                os.truncate(self.path, whole)

    def _note(self, line: str) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # a damaged line counts as absent
            record = structured.parse_json(line, RECORDS)
            key = str(record["key"])
            owned = {str(file): key for file in record["files"] if _is_ours(str(file))}
            digests = {str(file): str(digest) for file, digest in record.get("digests", {}).items()}
            if "caption" in record:
                self._captions.setdefault(PurePath(record["image"]).name, set()).add(str(record["caption"]))
            self._lines[key] = line
            self._owners |= owned
            for file, digest in digests.items():
                self._digests.setdefault(file, []).append(digest)

    @property
    def empty(self) -> bool:
        """Whether no run has recorded anything."""
        return not self._lines

    def owns(self, file: str) -> bool:
        """Whether an earlier run has written ``file``, a path relative to the folder."""
        return file in self._owners

    def has(self, key: str, files: Iterable[str]) -> bool:
        """Whether all of ``files`` exist and were written for ``key``."""
        return all(self._owners.get(file) == key and (self.folder / file).is_file() for file in files)

    def covers(self, key: str, texts: Mapping[str, str]) -> bool:
        """Whether ``add`` has been told that these tables or sidecars (file -> content) are written for ``key``."""
        return all(
            self._owners.get(file) == key and _digest(text) in self._digests.get(file, ())
            for file, text in texts.items()
        )

    def recall(self, key: str) -> Entry | None:
        """What was recorded of an image, without references; None if nothing was."""
        try:
            return _entry(structured.parse_json(self._lines[key], RECORDS))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            return None

    def captions(self, image: Path) -> set[str]:
        """All captions that any model has generated for an image of this file name."""
        return self._captions.get(image.name, set())

    def add(
        self, key: str, files: Iterable[str], entry: Entry | None = None, texts: Mapping[str, str] | None = None
    ) -> None:
        """Append a line before the files of an image (or of the whole gallery) are written.

        JPGs of these names that show another image are removed first. So one that exists is that of the last line that
        names it, whenever the run is killed.

        Args:
            files: JPGs, and the page.
            texts: tables and sidecars: file -> what ``write_text`` shall write to it.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        files, texts = list(files), texts or {}
        for file in files if entry else []:
            if self._owners.get(file) != key:
                (self.folder / file).unlink(missing_ok=True)
        digests = {file: _digest(text) for file, text in texts.items()}
        self._append({"key": key, "files": [*files, *texts], "digests": digests} | (_record(entry) if entry else {}))

    def adopt(self, files: Iterable[str]) -> None:
        """Own the files of a gallery that was written without records, as version 1.0 did, as they are."""
        files = [file for file in files if (self.folder / file).is_file()]  # the end of a pipe or device may not come
        digests = {file: _digest((self.folder / file).read_bytes()) for file in files if not file.endswith(".jpg")}
        self._append({"key": WHOLE_GALLERY, "files": files, "digests": digests})

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record) + "\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                rest = line.encode("ascii")
                while rest:  # a disk that becomes full takes a part
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())  # or a power cut might leave the files, which are synced too, without an owner
            except BaseException:  # Ctrl-C too: the page that is then written needs a line of its own
                file.truncate(end)
                raise
        self._note(line)

    def write_text(self, file: str, content: str) -> bool:
        """Write a table or sidecar that ``add`` was told of, unless it has been edited.

        Returns:
            whether it holds ``content``; False if it holds something that no run has written, and was kept.

        Raises:
            OSError: it cannot be read or written.
        """
        path, wanted = self.folder / file, _digest(content)
        if path.exists() and not path.is_file():  # a folder, or a pipe, whose end would not come
            return False
        found = unwritten = _digest("")
        with contextlib.suppress(FileNotFoundError), path.open("rb") as existing:
            found = hashlib.file_digest(existing, "sha256").hexdigest()[:DIGEST_LENGTH]
        if found == wanted:
            return True
        if found not in [unwritten, *self._digests[file]]:
            return False
        with atomic_open(path) as output:
            output.write(content)
        return True

    def finish(self, files: Iterable[str]) -> int:
        """Make the folder hold one gallery: remove the other JPGs and cards that earlier runs have written.

        All captions are kept: a photo that is missing today, or belongs to another gallery, may be wanted again. So are
        tables and sidecars, which the user may have edited.
        Files are removed before the lines that name them, or a killed run would leave files that nobody owns.

        Args:
            files: all that belong to the gallery.

        Returns:
            how many JPGs were removed. Cards do not count: their files have other names whenever an image is added.
        """
        own: dict[str | None, list[str]] = {}
        for file in dict.fromkeys(files):
            own.setdefault(self._owners.get(file), []).append(file)
        current = {file for owned in own.values() for file in owned}
        earlier = [file for file in sorted(self._owners.keys() - current) if (self.folder / file).is_file()]
        stale = [file for file in earlier if file.endswith(".jpg") or CARDS_FILE.fullmatch(file)]
        for file in sorted(set(earlier).difference(stale)):  # what the user may have edited
            own.setdefault(self._owners[file], []).append(file)
        for file in stale:
            (self.folder / file).unlink(missing_ok=True)
        for folder in {(self.folder / file).parent for file in stale} - {self.folder}:
            with contextlib.suppress(OSError):  # it holds other files
                folder.rmdir()
        with atomic_open(self.path) as output:
            for key, line in self._lines.items():
                owned = own.get(key, [])
                digests = {file: self._digests[file][-1] for file in owned if file in self._digests}
                record = structured.parse_json(line, RECORDS) | {"files": owned, "digests": digests}
                output.write(json.dumps(record) + "\n")
        return sum(file.endswith(".jpg") for file in stale)


def _check_folder(folder: Path) -> None:
    """Refuse what a gallery of somebody else may hold to have files outside of it written, read or removed."""
    for name in (RECORDS, *FOLDERS):
        if (folder / name).is_symlink():
            raise UserError(
                f"{folder / name}: a link, and what it leads to would be changed. "
                "Remove it, or choose another --output_dir"
            )
    path = folder / RECORDS
    if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_BYTES):
        raise UserError(
            f"{path}: not a file of at most {MAX_BYTES // structured.MB} MB, as galleries have. "
            "Move it away, or choose another --output_dir"
        )


def _is_ours(file: str) -> bool:
    """Whether a recorded path is one that a gallery may have, so that it cannot lead out of the folder."""
    return re.fullmatch(rf"(({'|'.join(FOLDERS)})/)?\w[\w.-]{{0,99}}", file) is not None


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode("utf-8") if isinstance(content, str) else content).hexdigest()[:DIGEST_LENGTH]


def _record(entry: Entry) -> dict[str, Any]:
    record = Entry(entry.name, entry.candidates).record() | {"width": entry.width, "height": entry.height}
    if entry.attention is not None:
        rows, columns = entry.attention.shape[1:]
        record["attention"] = {"rows": rows, "columns": columns, "weights": heatmap.encode(entry.attention)}
    return record


def _entry(record: dict[str, Any]) -> Entry:
    """The entry that was recorded.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, OverflowError: the record is damaged.
    """
    candidates = [(str(found["caption"]), float(found["log_prob"])) for found in record["candidates"]]
    width, height = int(record["width"]), int(record["height"])
    if not (candidates and all(math.isfinite(log_prob) for _, log_prob in candidates)):
        raise ValueError("no caption, or one without a log-probability")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError("not the size of an image")
    attention = None
    if grid := record.get("attention"):
        attention = heatmap.decode(grid["weights"], (grid["rows"], grid["columns"]))
    return Entry(str(record["image"]), candidates, width=width, height=height, attention=attention)
