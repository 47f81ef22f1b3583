"""Resumable downloads checked by md5, and safe extraction of images from archives."""

import hashlib
import http.client
import os
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cli import UserError, note
from files import atomic_open, make_folder, naming

ATTEMPTS = 5  # connections per file before giving up; running the command again resumes there
TIMEOUT = 30.0  # seconds without a byte before a connection counts as lost
CHUNK = 1 << 18  # bytes per read: small enough for a smooth progress bar, large enough not to be the bottleneck
MAX_MEMBER_BYTES = 50 * 2**20  # an image of 50 megapixels is smaller; a zip bomb is not
MAX_RATIO = 100  # of unpacked to packed bytes: images are about 1, text 10; a zip bomb has 1,000
PIECE = 2**14  # bytes to unpack at once: a damaged member may hold more than it declares, at most 20,000 times as much
MAX_NAME_BYTES = 255  # of a file name, on all common file systems
SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")  # an image begins with one of these
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


class Dropped(Exception):
    """The connection was lost or the server is busy: trying again may help."""


def download_all(base_url: str, md5s: Mapping[str, str], folder: Path, pause: float = 1.0) -> list[Path]:
    """Download each file of ``md5s`` (name -> md5 in hex) from ``base_url`` into ``folder``.

    Complete files are not downloaded again.

    Args:
        pause: seconds before the second attempt; it doubles with every further one.

    Returns:
        the paths of the files.

    Raises:
        UserError: no such file on the server, connection lost ``ATTEMPTS`` times, wrong md5.
    """
    if not base_url.startswith(("http://", "https://")):
        raise UserError(f"--base_url {base_url}: must start with http:// or https://")
    make_folder(folder)
    return [download(f"{base_url.rstrip('/')}/{name}", folder / name, md5, pause) for name, md5 in md5s.items()]


def download(url: str, path: Path, md5: str, pause: float = 1.0) -> Path:
    """Download ``url`` to ``path`` via ``path.part``, which a later call resumes. Errors as ``download_all``."""
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
                    f"{url}: {error}, {ATTEMPTS} times. Run the same command again to resume, "
                    "or download the file in another way and pass it with --source"
                ) from error
            wait = pause * 2 ** (attempt - 1)
            note(f"{path.name}: {error}; trying again in {wait:g} s")
            time.sleep(wait)
    found = md5_of(part)
    if found != md5:
        part.unlink()  # resuming from damaged bytes could never succeed
        raise UserError(f"{url}: wrong md5 ({found}, expected {md5}); the download was removed. Run the command again")
    part.replace(path)
    return path


def fetch_rest(url: str, part: Path) -> None:
    """One connection: append the missing bytes to ``part``, or start again if the server does not support ranges.

    Raises:
        Dropped: the connection ended before the file did; the bytes received are kept in ``part``.
        UserError: the server refuses the file (HTTP 4xx).
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return  # nothing follows after `have` bytes: the file is complete, or wrong, which the md5 will show
        if error.code < 500 and error.code not in (408, 429):  # these two ask to try again later
            raise UserError(
                f"{url}: HTTP {error.code} {error.reason}. Check --base_url, or use local copies with --source"
            ) from error
        raise Dropped(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(f"no connection ({getattr(error, 'reason', error)})") from error
    with response:
        if response.status != 206:  # 206: partial content; 200: the server ignores Range and sends the whole file
            have = 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1024)
        with naming(part), open(part, "ab" if have else "wb") as file, bar:
            while chunk := read_chunk(response):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise Dropped(f"connection closed at {part.stat().st_size:,} of {total:,} bytes")


def read_chunk(response: http.client.HTTPResponse) -> bytes:
    """The bytes that have arrived, ``b""`` at the end.

    Raises:
        Dropped: a network error. Not raised for a full disk, where trying again would not help.
    """
    try:
        return response.read1(CHUNK)  # read() would wait for a full chunk and lose its bytes if the connection breaks
    except (OSError, http.client.HTTPException) as error:
        raise Dropped(f"connection lost ({error})") from error


def md5_of(path: Path) -> str:
    """The md5 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class ArchiveMember:
    """One file in a folder or in a zip."""

    name: str  # without folders
    size: int  # in bytes
    place: str  # path for messages
    read: Callable[[], bytes]
    problem: str = ""  # why it must not be used; empty if it may


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def walk(sources: Iterable[Path]) -> Iterator[ArchiveMember]:
    """All files in ``sources`` (files, folders with subfolders, zips; also zips in folders), in a fixed order.

    Hidden files and ``__MACOSX`` are skipped. Read a member before advancing: its zip is open only until then.

    Raises:
        UserError: a source does not exist, or a zip is damaged or encrypted.
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
                yield ArchiveMember(path.name, size, str(path), path.read_bytes, too_large(size))


def walk_zip(path: Path) -> Iterator[ArchiveMember]:
    """The files of one zip, see ``walk``. Paths out of the folder, links, bombs and huge files have a ``problem``."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory raises many types, such as struct.error and UnicodeDecodeError
        raise UserError(f"{path}: not a complete zip file ({error}). Download it again") from error
    with archive:
        for info in archive.infolist():
            parts = info.filename.replace("\\", "/").split("/")  # some Windows tools write backslashes
            if is_hidden(parts) or not parts[-1]:  # the name of a folder ends in a slash
                continue
            # Only the last part is ever used as a file name, so these are harmless; but a genuine archive has none.
            link = stat.S_ISLNK(info.external_attr >> 16)
            unsafe = parts[0] == "" or ".." in parts or ":" in info.filename or link
            problem = "archive members with an unsafe path" if unsafe else too_large(info.file_size)
            if info.file_size > max(info.compress_size * MAX_RATIO, PIECE):
                problem = problem or "archive members that unpack to more than images do"
            read = partial(read_member, archive, info)
            yield ArchiveMember(parts[-1], info.file_size, f"{path}/{info.filename}", read, problem)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of one member, at most as many as it declares, verified by its checksum."""
    try:
        with archive.open(info) as file:
            return b"".join(iter(partial(file.read, PIECE), b""))
    except Exception as error:  # each codec has its own: zlib.error, lzma.LZMAError, OSError, ...
        raise UserError(
            f"{archive.filename}: {info.filename} cannot be read ({error}). Download the archive again"
        ) from error


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path belongs to the operating system's own files: ``__MACOSX``, ``.DS_Store``, ``._a.jpg``."""
    return any(part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in parts)


def too_large(size: int) -> str:
    """The ``problem`` of a member of ``size`` bytes."""
    return f"files over {MAX_MEMBER_BYTES // 2**20} MB" if size > MAX_MEMBER_BYTES else ""


def unpack_images(sources: Iterable[Path], image_dir: Path) -> dict[str, list[str]]:
    """Copy every image in ``sources`` into the flat folder ``image_dir``.

    Images are written atomically, and those already there with the right size are skipped, so an interrupted call can
    be repeated. Of several images with the same name the first is used. Files that only have the name of an image are
    left out.

    Returns:
        what was left out: reason -> names.

    Raises:
        UserError: see ``walk``; or the images need more room than the disk has left.
    """
    sources = list(sources)
    make_folder(image_dir)
    sizes: dict[str, int] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    images = (member for member in walk(sources) if is_image(member.name))
    for image in tqdm(images, desc="images", total=_check_room(sources, image_dir), unit="img"):
        target = image_dir / image.name
        if image.problem:
            left_out[image.problem].append(image.name)
        elif len(os.fsencode(image.name)) > MAX_NAME_BYTES:
            left_out["images whose name is too long"].append(image.name)
        elif sizes.setdefault(image.name, image.size) != image.size:
            left_out["images whose name another image has"].append(image.name)
        elif not (target.is_file() and target.stat().st_size == image.size):
            data = image.read()
            if not data.startswith(SIGNATURES):
                left_out["files that are no images"].append(image.name)
                continue
            with atomic_open(target, "wb") as file:
                file.write(data)
    return dict(left_out)


def _check_room(sources: Iterable[Path], image_dir: Path) -> int:
    """The number of images in ``sources``; they must fit onto the disk, but for those that are in ``image_dir``."""
    wanted = [image for image in walk(sources) if is_image(image.name)]
    there = {path.name: path.stat().st_size for path in image_dir.iterdir() if path.is_file()}
    needed = sum(image.size for image in wanted if not image.problem and there.get(image.name) != image.size)
    free = shutil.disk_usage(image_dir).free
    if needed > free:
        raise UserError(
            f"{image_dir}: the images need {needed / 1e6:,.1f} MB, but the disk has {free / 1e6:,.1f} MB left. Make "
            "room, or choose another folder with --output_dir"
        )
    return len(wanted)
