"""captions.jsonl: what a gallery folder holds, written image by image, so that a stopped run can be continued.

A line per captioned image::

    {"key": ..., "files": ["dog.jpg", "pictures/dog.jpg"], "image": "dog.jpg", "caption": ..., "candidates": [...],
     "width": 640, "height": 480, "attention": {"rows": 7, "columns": 7, "weights": BASE64}}

The key is a hash of the image's path, size and modification time and of the captioner, so a changed image, checkpoint
or beam size is captioned anew, and the file reveals no folders. ``files`` are the files that were written for the
image; nothing else in the folder is ever overwritten or removed. Lines are only added; of several with the same key
the last one counts. When a gallery is finished, the JPGs of earlier galleries are removed, but no table, sidecar or
caption is.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import structured
from files import atomic_open, naming
from gallery import heatmap
from gallery.page import Entry

RECORDS = "captions.jsonl"
WHOLE_GALLERY = "gallery"  # the key of the files that belong to no single image, such as the page


def captioner_identity(checkpoint: Path, beam_size: int) -> str:
    """A hash of the checkpoint file, and the beam size."""
    with checkpoint.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()} {beam_size}"


def photo_key(path: Path, captioner: str) -> str:
    """The identity of an image that ``captioner`` captions.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    identity = repr((str(path), status.st_size, status.st_mtime_ns, captioner))
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Records:
    """The records of ``folder``, which need not exist. A torn last line, from a killed run, is cut off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RECORDS
        self._lines: dict[str, str] = {}  # key -> its JSON object; parsed when needed, which takes less memory
        self._owners: dict[str, str] = {}  # file -> the key it was written for
        self._captions: dict[str, set[str]] = {}  # file name of an image -> its captions by any model
        with contextlib.suppress(FileNotFoundError):
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                with self.path.open("r+b") as file:
                    file.truncate(len(whole))
            for line in whole.split(b"\n"):
                self._note(line.decode("utf-8", "replace"))

    def _note(self, line: str) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError):  # a damaged line counts as absent
            record = structured.parse_json(line, RECORDS)
            self._lines[str(record["key"])] = line
            self._owners |= {str(file): str(record["key"]) for file in record["files"] if _is_inside(str(file))}
            if "caption" in record:
                self._captions.setdefault(PurePath(record["image"]).name, set()).add(str(record["caption"]))

    def owns(self, file: str) -> bool:
        """Whether an earlier run has written ``file``, a path relative to the folder."""
        return file in self._owners

    def has(self, key: str, files: Iterable[str]) -> bool:
        """Whether all of ``files`` exist and were written for ``key``."""
        return all(self._owners.get(file) == key and (self.folder / file).is_file() for file in files)

    def recall(self, key: str) -> Entry | None:
        """What was recorded of an image, without references; None if nothing was."""
        try:
            return _entry(structured.parse_json(self._lines[key], RECORDS))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def captions(self, image: Path) -> set[str]:
        """All captions that any model has generated for an image of this file name."""
        return self._captions.get(image.name, set())

    def add(self, key: str, files: Iterable[str], entry: Entry | None = None) -> None:
        """Append a line before the files of an image (or of the whole gallery) are written.

        Earlier files of these names are removed first. So a file that exists is the one of the last line that names it,
        whenever the run is killed.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        files = list(files)
        for file in files if entry else []:
            (self.folder / file).unlink(missing_ok=True)
        line = json.dumps({"key": key, "files": files} | (_record(entry) if entry else {}))
        self.folder.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("ab") as file_:
            file_.write(f"{line}\n".encode("ascii"))
            file_.flush()
            os.fsync(file_.fileno())  # or a power cut might leave the files, which are synced too, without an owner
        self._note(line)

    def finish(self, files: Iterable[str]) -> int:
        """Make the folder hold one gallery: remove the other JPGs that earlier runs have written.

        All captions are kept: a photo that is missing today, or belongs to another gallery, may be wanted again. So are
        tables and sidecars, which the user may have edited.
        Files are removed before the lines that name them, or a killed run would leave files that nobody owns.

        Args:
            files: all that belong to the gallery.

        Returns:
            how many files were removed.
        """
        own: dict[str | None, list[str]] = {}
        for file in dict.fromkeys(files):
            own.setdefault(self._owners.get(file), []).append(file)
        current = {file for owned in own.values() for file in owned}
        earlier = [file for file in sorted(self._owners.keys() - current) if (self.folder / file).is_file()]
        stale = [file for file in earlier if file.endswith(".jpg")]
        for file in set(earlier).difference(stale):
            own.setdefault(self._owners[file], []).append(file)
        for file in stale:
            (self.folder / file).unlink(missing_ok=True)
        for folder in {(self.folder / file).parent for file in stale} - {self.folder}:
            with contextlib.suppress(OSError):  # it holds other files
                folder.rmdir()
        with atomic_open(self.path) as output:
            for key, line in self._lines.items():
                output.write(json.dumps(structured.parse_json(line, RECORDS) | {"files": own.get(key, [])}) + "\n")
        return len(stale)


def _is_inside(file: str) -> bool:
    """Whether a recorded path cannot lead out of the folder: a gallery may come from somebody else."""
    return re.fullmatch(r"((pictures|attention)/)?[^/\\:]+", file) is not None and not file.endswith("..")


def _record(entry: Entry) -> dict[str, Any]:
    record = Entry(entry.name, entry.candidates).record() | {"width": entry.width, "height": entry.height}
    if entry.attention is not None:
        rows, columns = entry.attention.shape[1:]
        record["attention"] = {"rows": rows, "columns": columns, "weights": heatmap.encode(entry.attention)}
    return record


def _entry(record: dict[str, Any]) -> Entry:
    candidates = [(str(found["caption"]), float(found["log_prob"])) for found in record["candidates"]]
    attention = None
    if grid := record.get("attention"):
        attention = heatmap.decode(grid["weights"], (grid["rows"], grid["columns"]))
    return Entry(
        record["image"], candidates, width=int(record["width"]), height=int(record["height"]), attention=attention
    )
