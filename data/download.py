"""Get archives onto the disk and images out of them: resumable downloads checked by md5, safe unpacking."""

import hashlib
import http.client
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cli import UserError, atomic_open

ATTEMPTS = 5  # connections a file before giving up; running the command again goes on from there
TIMEOUT = 30.0  # seconds without a byte before a connection counts as dropped
CHUNK = 1 << 18  # bytes a read: small enough for a lively bar, large enough not to be the bottleneck
MAX_BYTES = 50 * 2**20  # an image of 50 megapixels stays below this; a zip bomb does not
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


class Dropped(Exception):
    """The connection broke or the server is busy: trying again may help."""


def download_all(base_url: str, md5s: Mapping[str, str], folder: Path, pause: float = 1.0) -> list[Path]:
    """Download each file of ``md5s`` (name -> md5 in hex) from ``base_url`` into ``folder`` and return their paths.

    Files that are there and whole are kept. ``pause`` is the first wait in seconds before trying again; it doubles.

    Raises:
        UserError: no such file on the server, connection lost ``ATTEMPTS`` times, wrong md5.
    """
    if not base_url.startswith(("http://", "https://")):
        raise UserError(f"--base_url {base_url}: must start with http:// or https://")
    folder.mkdir(parents=True, exist_ok=True)
    return [download(f"{base_url.rstrip('/')}/{name}", folder / name, md5, pause) for name, md5 in md5s.items()]


def download(url: str, path: Path, md5: str, pause: float = 1.0) -> Path:
    """Download ``url`` to ``path`` by way of ``path.part``, which a later call goes on with. Errors as ``download_all``."""
    if path.exists():
        if md5_of(path) != md5:
            raise UserError(f"{path}: not the expected file (md5 is not {md5}). Delete it to download it again")
        return path
    part = path.with_name(f"{path.name}.part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            fetch_rest(url, part)
            break
        except Dropped as error:
            if attempt == ATTEMPTS:
                raise UserError(
                    f"{url}: {error}, {ATTEMPTS} times. Run the same command again to go on where it stopped, "
                    "or download the file in another way and name it with --source"
                ) from error
            wait = pause * 2 ** (attempt - 1)
            print(f"{path.name}: {error}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)
    found = md5_of(part)
    if found != md5:
        part.unlink()  # going on from damaged bytes would never end well
        raise UserError(
            f"{url}: wrong md5 ({found}, expected {md5}), so what was downloaded is removed. Run the same command again"
        )
    part.replace(path)
    return path


def fetch_rest(url: str, part: Path) -> None:
    """One connection: append to ``part`` what it still lacks, or start again when the server cannot go on midway.

    Raises:
        Dropped: the connection ended before the file did; what came is kept in ``part``.
        UserError: the server refuses the file (HTTP 4xx).
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return  # the server has nothing after `have`: the file is whole, or wrong, which its md5 will tell
        if error.code < 500 and error.code not in (408, 429):  # those two mean "later"
            raise UserError(
                f"{url}: HTTP {error.code} {error.reason}. Check --base_url, or use local copies with --source"
            ) from error
        raise Dropped(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(f"no connection ({getattr(error, 'reason', error)})") from error
    with response:
        if response.status != 206:  # 206 Partial Content; 200 sends the whole file whatever the Range asked for
            have = 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1024)
        with open(part, "ab" if have else "wb") as file, bar:
            while chunk := read_chunk(response):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise Dropped(f"connection closed at {part.stat().st_size:,} of {total:,} bytes")


def read_chunk(response: http.client.HTTPResponse) -> bytes:
    """What has arrived, ``b""`` at the end. A network error becomes ``Dropped``, unlike a full disk, which trying again cannot mend."""
    try:
        return response.read1(CHUNK)  # read() would wait for a full chunk and lose what it has when the line breaks
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(f"connection lost ({error})") from error


def md5_of(path: Path) -> str:
    """The md5 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One file in a folder or in a zip: its name without folders, size in bytes, place for messages, and how to read it."""

    name: str
    size: int
    place: str
    read: Callable[[], bytes]
    problem: str = ""  # why it must not be used; empty when it may


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def walk(sources: Iterable[Path]) -> Iterator[Entry]:
    """Every file of the given files, folders (with all below) and zips (given or found in a folder), in a fixed order.

    Hidden files and ``__MACOSX`` are passed over. Read an entry before taking the next: its zip is open only until then.

    Raises:
        UserError: a source does not exist, a zip is damaged or encrypted.
    """
    for source in sources:
        if not source.exists():
            raise UserError(f"--source {source}: no such file or folder")
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if is_hidden(path.relative_to(source).parts) or not path.is_file():
                continue
            if path.suffix.lower() == ".zip":
                yield from walk_zip(path)
            else:
                size = path.stat().st_size
                yield Entry(path.name, size, str(path), path.read_bytes, too_large(size))


def walk_zip(path: Path) -> Iterator[Entry]:
    """The files of one zip; see ``walk``. Members that try to leave the folder, links and huge ones carry a ``problem``."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a whole zip file ({error}). Download it again") from error
    with archive:
        for member in archive.infolist():
            parts = member.filename.replace("\\", "/").split("/")  # some Windows tools write backslashes
            if is_hidden(parts) or not parts[-1]:  # a folder's name ends in a slash
                continue
            # Only the last part is ever used as a file's name, so these could do no harm; but no honest archive has them.
            unsafe = (
                parts[0] == "" or ".." in parts or ":" in member.filename or stat.S_ISLNK(member.external_attr >> 16)
            )
            problem = "archive entries with an unsafe path" if unsafe else too_large(member.file_size)
            yield Entry(
                parts[-1], member.file_size, f"{path}/{member.filename}", partial(read_member, archive, member), problem
            )


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of one member, its checksum compared; never more than the size it declares."""
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive.filename}: {member.filename} cannot be read ({error}). Download the archive again"
        ) from error


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path leads through the clutter of an operating system: ``__MACOSX``, ``.DS_Store``, ``._a.jpg``."""
    return any(part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in parts)


def too_large(size: int) -> str:
    """The ``problem`` of an entry of ``size`` bytes."""
    return f"files over {MAX_BYTES // 2**20} MB" if size > MAX_BYTES else ""


def unpack_images(sources: Iterable[Path], image_dir: Path) -> dict[str, list[str]]:
    """Bring every image of ``sources`` into the flat folder ``image_dir``; return what was left out, reason -> names.

    An image appears whole or not at all, and one that is there with the right size is passed over: an interrupted call can be
    repeated. Of several images of one name the first is taken. Errors as ``walk``.
    """
    sources = list(sources)
    image_dir.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    total = sum(is_image(entry.name) for entry in walk(sources))
    for entry in tqdm(
        (entry for entry in walk(sources) if is_image(entry.name)), desc="images", total=total, unit="img"
    ):
        target = image_dir / entry.name
        if entry.problem:
            left_out[entry.problem].append(entry.name)
        elif sizes.setdefault(entry.name, entry.size) != entry.size:
            left_out["images of a name already taken by a different image"].append(entry.name)
        elif not (target.is_file() and target.stat().st_size == entry.size):
            with atomic_open(target, "wb") as file:
                file.write(entry.read())
    return dict(left_out)
