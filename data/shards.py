"""WebDataset tars, read in place: the image KEY.jpg of a tar is the path "shard.tar/KEY.jpg", and opens like a file.

In a tar, the members of a key (the name up to its first dot) belong together: KEY.jpg and its captions, KEY.txt (one
caption) or KEY.json ("caption", or a list "captions", and "split"), as img2dataset and ``data.prepare shards`` write
them. Nothing is unpacked. The first use of a tar reads its headers and keeps where each image begins in INDEX_FOLDER;
after that, an image takes one read at that offset. So images can be read in any order, as files can.
"""

import dataclasses
import errno
import functools
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import structured
from cli import UserError, listed, note
from files import atomic_open

SUFFIX = ".tar"
IMAGE_SUFFIXES = (  # of members that are images, as far as data.images can read them
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".jp2", ".heic", ".heif"),
)
INDEX_FOLDER = Path(".cache/shards")  # in the current folder, beside the feature cache; it can be deleted at any time
INDEX_VERSION = 1  # another one is built again
BLOCK = 512  # bytes: members of a tar begin at multiples of it
MAX_READ = 2**20  # bytes read at once: a damaged header may ask for gigabytes. Captions and long names have less
MAX_CAPTION_BYTES = MAX_READ  # of KEY.txt or KEY.json; img2dataset's have 1 KB, with all metadata 10 KB
MAX_IMAGE_BYTES = 250_000_000  # as data.images.MAX_BYTES, which cannot be imported here
OPEN_SHARDS = 16  # whose index is in memory: 3 MB each for 10,000 images; two windows of the training order


class _Reader(io.BufferedReader):
    """A file that is read in pieces of a limited size."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most MAX_READ bytes."""
        return super().read(min(MAX_READ if size is None or size < 0 else size, MAX_READ))


@dataclass(frozen=True)
class Shard:
    """Where the images of a tar are, and what else is known of them."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)  # member -> offset and size of its bytes
    captions: dict[str, list[str]] = field(default_factory=dict)  # member -> its captions; none without any
    splits: dict[str, str] = field(default_factory=dict)  # member -> train, val or test, if that is known
    problems: list[str] = field(default_factory=list)  # what was left out, and why


def find_shards(path: Path) -> list[Path]:
    """The tar itself, or the tars in a folder, in order of their names; none if there are none."""
    if path.is_dir():
        return sorted(file for file in path.glob(f"*{SUFFIX}") if file.is_file() and not file.name.startswith("."))
    return [path] if path.suffix.lower() == SUFFIX and path.is_file() else []


def open_shards(tars: Sequence[Path]) -> Iterator[tuple[Path, Shard]]:
    """The index of each tar. A bar shows the progress, which matters where they are read for the first time.

    What cannot be used is left out and named on stderr, be it a member or one tar of several.

    Raises:
        UserError: the only tar holds no members.
        OSError: it cannot be read.
    """
    from tqdm import tqdm  # reading single images, as without torch, needs no bar

    for tar in tqdm(tars, desc="indexing shards", unit="tar", leave=False, disable=None):
        try:
            shard = open_shard(tar)
        except UserError as error:
            if len(tars) == 1:
                raise
            note(f"left out: {error}")
            continue
        if shard.problems:
            note(f"{tar}: left out: {listed(shard.problems)}")
        yield tar, shard


def open_shard(tar: Path) -> Shard:
    """The index of a tar, built if there is none, or if the size or modification time of the tar has changed.

    Raises:
        UserError: the file holds no members of a tar.
        OSError: it cannot be read.
    """
    status = tar.stat()
    return _indexed(tar.absolute(), status.st_size, status.st_mtime_ns)


def split_path(path: Path) -> tuple[Path, str] | None:
    """The tar and the member of the path "shard.tar/KEY.jpg"; None if no part of the path is a tar."""
    if SUFFIX not in str(path).lower():  # nearly every path
        return None
    for tar in reversed(path.parents):
        if tar.suffix.lower() == SUFFIX and tar.is_file():
            return tar, path.relative_to(tar).as_posix()
    return None


def file_state(path: Path) -> tuple[int, int]:
    """Size, and modification time in ns, by which a file is known to be unchanged; of an image in a tar too.

    Raises:
        OSError, ValueError: there is no such file, or can be none.
    """
    if inside := split_path(path):
        tar, member = inside
        if (place := open_shard(tar).images.get(member)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return place[1], tar.stat().st_mtime_ns
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def read_member(tar: Path, offset: int, size: int) -> bytes:
    """The bytes of an image in a tar, by its place in ``Shard.images``.

    Raises:
        OSError: the tar cannot be read, or was cut off since it was indexed.
    """
    with tar.open("rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(f"{tar} ends within it")
    return data


@functools.lru_cache(maxsize=OPEN_SHARDS)
def _indexed(tar: Path, size: int, modified: int) -> Shard:
    """The index of a tar of that size and modification time, from INDEX_FOLDER or from the tar."""
    name = hashlib.sha256(os.fsencode(tar)).hexdigest()[:32]
    file = INDEX_FOLDER / f"{name}.json"
    about = {"version": INDEX_VERSION, "size": size, "modified": modified}
    with suppress(OSError, ValueError, TypeError, KeyError):  # none, or a damaged one
        known = structured.read_json(file)
        if known.pop("about") == about:
            known["images"] = {member: (offset, length) for member, (offset, length) in known["images"].items()}
            return Shard(**known)
    shard = _scan(tar, size)
    with suppress(OSError, UserError), atomic_open(file) as output:  # a folder that cannot be written: again next time
        json.dump({"about": about, **dataclasses.asdict(shard)}, output)
    return shard


def _scan(tar: Path, size: int) -> Shard:
    """Read the headers of a tar, and the captions."""
    shard = Shard()
    texts: dict[str, list[str]] = {}  # key -> captions
    splits: dict[str, str] = {}  # key -> split
    with _Reader(tar.open("rb", buffering=0)) as file:
        for member in _members(file, size, shard.problems):
            name, place = PurePosixPath(member.name).as_posix(), (member.offset_data, member.size)
            if name.startswith("/") or ".." in name.split("/"):
                shard.problems.append(f"{name} (leads out of the tar)")
            elif name.lower().endswith(IMAGE_SUFFIXES):
                if member.size <= MAX_IMAGE_BYTES:
                    shard.images[name] = place
                else:
                    shard.problems.append(f"{name} (more than {MAX_IMAGE_BYTES // 10**6} MB)")
            elif name.endswith((".txt", ".json")):
                try:
                    _read_captions(file, member, texts, splits)
                except UserError as error:
                    shard.problems.append(f"{name} ({str(error).removeprefix(': ')})")
    shard.captions.update((name, texts[_key(name)]) for name in shard.images if _key(name) in texts)
    shard.splits.update((name, splits[_key(name)]) for name in shard.images if _key(name) in splits)
    if not shard.images and shard.problems:
        raise UserError(f"{tar}: not a tar with images ({listed(shard.problems)}). Copy it again")
    return shard


def _members(file: Any, size: int, problems: list[str]) -> Iterator[tarfile.TarInfo]:
    """The whole files in a tar; what is damaged is skipped and added to ``problems``.

    Args:
        size: of the tar in bytes.
    """
    end = 0  # of the last member
    try:
        with tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as tar:  # goes on after a damaged header
            while (member := _next(tar, size)) is not None:
                if member.offset < end or member.size < 0:  # it would be read for ever
                    problems.append(f"all after byte {end:,} (a damaged header)")
                    return
                if _holds_data(file, end, member.offset):
                    problems.append(f"what is at byte {end:,} (a damaged header)")
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK if member.isfile() else member.offset_data
                if member.isfile() and member.offset_data + member.size > size:
                    problems.append(f"{member.name} (the tar is cut off)")
                    return
                if member.isfile() and not member.issparse():
                    yield member
                elif not member.isdir():
                    problems.append(f"{member.name} (not a plain file)")
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        problems.append(f"all after byte {end:,} ({error})")
        return
    if size < end + BLOCK:
        problems.append(f"what may have followed byte {end:,} (the tar has no end mark: it is cut off)")
    elif _holds_data(file, end, size):
        problems.append(f"all after byte {end:,} (a damaged header)")


def _next(tar: tarfile.TarFile, size: int) -> tarfile.TarInfo | None:
    """The next member whose header is whole; tarfile itself stops where a header of several blocks is damaged."""
    while True:
        start = tar.offset
        try:
            return tar.next()
        except tarfile.ReadError:
            tar.offset = start + BLOCK
            if tar.offset >= size:
                return None


def _holds_data(file: Any, start: int, end: int) -> bool:
    """Whether there is anything but zeros between two members."""
    position = file.tell()
    file.seek(start)
    found = any(file.read(max(end - start, 0)))  # their beginning: padding is zero, what is left of a member is not
    file.seek(position)
    return found


def _key(name: str) -> str:
    """What the members of one sample have in common: the name up to the first dot of its last part."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def _read_captions(file: Any, member: tarfile.TarInfo, texts: dict[str, list[str]], splits: dict[str, str]) -> None:
    """Add the captions in KEY.txt or KEY.json to those of its key. A list in KEY.json has precedence over KEY.txt.

    Raises:
        UserError: too long, or not what such a file holds.
    """
    structured.check_size(member.size, MAX_CAPTION_BYTES, "")
    position = file.tell()
    file.seek(member.offset_data)
    data = file.read(member.size)
    file.seek(position)
    key = _key(member.name.removeprefix("./"))
    if member.name.endswith(".txt"):
        if captions := _texts([data.decode("utf-8-sig", "replace")]):
            texts.setdefault(key, captions)
        return
    record = structured.parse_json(data, "")
    if not isinstance(record, dict):
        raise UserError("not a JSON object")
    one, several = record.get("caption"), record.get("captions")
    if isinstance(several, list) and (captions := _texts(several)):
        texts[key] = captions
    elif captions := _texts([one]):
        texts.setdefault(key, captions)
    if isinstance(record.get("split"), str):
        splits[key] = record["split"]


def _texts(values: list[Any]) -> list[str]:
    """Those that are text, each in one line; none that are blank."""
    lines = [" ".join(value.split()) for value in values if isinstance(value, str)]
    return [line for line in lines if line]
