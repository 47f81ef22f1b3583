"""Image files of any kind -> upright RGB images, or the reason why they cannot be used.

The only module that opens image files. They may come from strangers, so everything that a file can claim has a limit:
Pillow bounds neither the time it searches a file nor what its decoders copy.
"""

import contextlib
import io
import re
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from cli import UserError
from data.pixels import to_rgb
from data.shards import open_shard, read_member, split_path

MAX_BYTES = 250_000_000  # of a file: the largest photos, uncompressed, have about 200 MB; decoders may copy it thrice
MAX_PIXELS = 100_000_000  # in memory at most twice, with 4 bytes each: 0.8 GB. Phones and most cameras have up to 61
MAX_PIXELS_COPIED = 50_000_000  # of the formats in COPIED; phones save them with up to 49
COPIED = {"WEBP", "AVIF", "JPEG2000", "HEIF"}  # their decoders hold an image up to five times
MAX_SIDE = 65_535  # pixels; JPEG's own limit. Tables per row or column of longer ones take gigabytes
MAX_METADATA_BYTES = 8_000_000  # before the pixels; profiles and previews have up to 4 MB. Pillow reads 10 MB a second
MAX_READS = 500_000  # of pieces of a file: 1 to 2 s. A photo takes thousands; a hostile file may take one per byte
MAX_SCANS = 50  # a JPEG may have any number of passes over its pixels; 1 to 10 are usual, 50 of 100 megapixels take 4 s
ENOUGH = 1024  # pixels that both sides of a JPEG keep if it is decoded at 1/2, 1/4 or 1/8 of its size, which is faster
MAX_CAUSE = 100  # characters of what a decoder says, which may be several lines
MAX_SEGMENTS = 10_000  # of a JPEG, such as its tables and comments; cameras write up to some hundreds

# Pillow's names of the formats in which people keep photos. It also reads documents, icons and films; for some of them
# it starts other programs, whatever the suffix of the file.
PHOTO_FORMATS = ["JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000"]
HEIC_SUFFIXES = {".heic", ".heif", ".hif"}
INSTALL_HEIC = "pip install -r requirements-heic.txt"

with contextlib.suppress(ImportError):  # optional: only HEIC and HEIF need it
    from pillow_heif import register_heif_opener

    register_heif_opener()
    PHOTO_FORMATS.append("HEIF")

MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # JPEG markers followed by a segment (ITU T.81, table B.1)
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"

TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT = 322, 323  # tags

# The kinds of an ImageError
MISSING, NOT_A_FILE, UNREADABLE = "no such file", "not a file", "cannot be read"
NOT_AN_IMAGE, DAMAGED, TOO_LARGE, TOO_COMPLEX = "not an image", "damaged image", "too large", "too complex"

ImageSource = str | Path | Image.Image  # a file, or an image in memory
LearnedFrom = Literal["drawings", "photographs"]  # what the training images of a model are


class ImageError(UserError):
    """An image that cannot be used, and why.

    Args:
        name: the file, for the message.
        kind: the reason in a few words that are the same for all such images.
        detail: the rest of the message.
    """

    def __init__(self, name: object, kind: str, detail: str = "") -> None:
        super().__init__(name, kind, detail)
        self.kind, self.detail = kind, detail

    def __str__(self) -> str:
        return "{}: {}{}".format(*self.args)


class Limits(NamedTuple):
    """What ``load_image`` accepts: Pillow's names of formats, and how large an image may be."""

    formats: tuple[str, ...] = tuple(PHOTO_FORMATS)
    pixels: int = MAX_PIXELS


def load_image(source: ImageSource | IO[bytes], limits: Limits | None = None) -> Image.Image:
    """Decode an image to 8-bit RGB, rotated as its EXIF tag demands; the first frame of an animation.

    Transparent pixels become white, 16-bit and floating-point greys are scaled to 8 bits. Comments and tags are
    removed, or Pillow would write them into every copy. A large JPEG is scaled down as it is decoded, see ``ENOUGH``.

    Args:
        source: a file, or an image of any mode, which is not changed.
        limits: None: all photo formats with up to 100 megapixels, those that decoders copy with up to 50.

    Raises:
        ImageError: no regular file, not an image, damaged, truncated, or beyond a limit.
    """
    with _open(source, limits or Limits()) as image:
        image.draft(None, (ENOUGH, ENOUGH))
        image.load()
        with contextlib.suppress(Exception):  # a damaged EXIF block is no reason to refuse an intact image
            ImageOps.exif_transpose(image, in_place=True)
        rgb = to_rgb(image)
        rgb.info = {}
        return rgb


def load_image_bytes(data: bytes, name: str, limits: Limits | None = None) -> Image.Image:
    """``load_image`` for bytes that were already read; ``name`` is for error messages."""
    file = io.BytesIO(data)
    file.name = name
    return load_image(file, limits)


@contextlib.contextmanager
def open_file(path: str | Path) -> Iterator[io.FileIO | io.BytesIO]:
    """Open an image file to read its bytes: a regular one, since a pipe or a device might have no end.

    Args:
        path: also "shard.tar/KEY.jpg", an image in a tar; see ``data.shards``.

    Raises:
        ImageError: there is no such file, it is not a regular one, too large, or cannot be read.
    """
    with _refusing(path):
        if inside := split_path(Path(path)):
            tar, member = inside
            place = open_shard(tar).images.get(member)
            if place is None:
                raise ImageError(path, MISSING, f": {tar} has no such image")
            yield io.BytesIO(read_member(tar, *place))
            return
        try:
            status = Path(path).stat()
        except ValueError as error:  # no file can have a name with a NUL, or with half a character
            raise ImageError(path, MISSING) from error
        if not stat.S_ISREG(status.st_mode):
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "device, pipe or socket"
            raise ImageError(path, NOT_A_FILE, f" but a {kind}")
        if status.st_size > MAX_BYTES:
            raise ImageError(path, TOO_LARGE, f": more than {MAX_BYTES // 10**6} MB. Save a smaller copy")
        with Path(path).open("rb", buffering=0) as file:
            yield file


def photo_suffixes() -> set[str]:
    """The suffixes of files that may be photos, such as ".jpg", as far as the installed packages can read them."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in PHOTO_FORMATS}


@contextlib.contextmanager
def _open(source: ImageSource | IO[bytes], limits: Limits) -> Iterator[Image.Image]:
    """The file, opened and checked but not decoded, or a copy of the image in memory.

    Whatever goes wrong while it is open becomes an ImageError.
    """
    name = source
    if not isinstance(source, str | Path):
        name = getattr(source, "name", None) or getattr(source, "filename", None) or "image"
    with _refusing(name), warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # Pillow warns about large images and odd tags; the limits decide
        if isinstance(source, Image.Image):
            image = source.copy()
        else:
            reader = _Reader(stack.enter_context(open_file(source)) if isinstance(source, str | Path) else source)
            stack.callback(reader.detach)  # or the end of the reader would close the caller's file
            reader.seek(0)
            if not reader.peek(1):
                raise ImageError(name, NOT_AN_IMAGE, ": the file is empty")
            _check_segments(reader)
            formats = [name for name in limits.formats if name != "MPO"]  # which Pillow opens as JPEG
            image = stack.enter_context(Image.open(reader, formats=formats))
            reader.is_opening = False
        _check_size(image, limits.pixels)
        yield image


@contextlib.contextmanager
def _refusing(name: object) -> Iterator[None]:
    """Raise whatever goes wrong with an image as an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except _LimitError as error:
        raise ImageError(name, *error.args) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, which it applies before the check here
        raise ImageError(name, *_too_many_pixels(MAX_PIXELS)) from error
    except UnidentifiedImageError as error:
        if Path(str(name)).suffix.lower() in HEIC_SUFFIXES - photo_suffixes():
            raise ImageError(name, "HEIC needs another package", f": {INSTALL_HEIC}") from error
        raise ImageError(name, NOT_AN_IMAGE) from error
    except FileNotFoundError as error:
        raise ImageError(name, MISSING) from error
    except MemoryError as error:
        raise ImageError(name, TOO_LARGE, " for the free memory") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        if isinstance(error, OSError) and error.strerror:  # str(error) would repeat the path
            raise ImageError(name, UNREADABLE, f" ({error.strerror})") from error
        raise ImageError(name, DAMAGED, f" ({' '.join(str(error).split())[:MAX_CAUSE]})") from error


class _LimitError(Exception):
    """A limit that an image exceeds: kind and detail for an ImageError."""


class _Reader(io.BufferedReader):
    """A file that can be read in a limited number of pieces, and with limited metadata while Pillow opens it.

    Metadata is all that is read in pieces of a given size before the image is decoded.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.is_opening, self.reads, self.metadata = True, 0, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As usual.

        Raises:
            _LimitError: too many pieces, or too much metadata.
        """
        self.reads += 1
        if self.reads > MAX_READS:
            raise _LimitError(TOO_COMPLEX, ": it has too many parts. Save a copy with an image editor")
        if self.is_opening and size is not None and size > 0:
            self.metadata += size
            if self.metadata > MAX_METADATA_BYTES:
                limit = f"more than {MAX_METADATA_BYTES // 10**6} MB of metadata"
                raise _LimitError(TOO_COMPLEX, f": {limit}. Save a copy without it")
        return super().read(size)


def _check_segments(file: IO[bytes]) -> None:
    """Refuse a JPEG that would take an hour to decode, since it has that many scans.

    Data after the end of the image is ignored; phones append video. Before it, decoders accept streams without a scan,
    which hold tables only (ITU T.81, B.5).
    """
    data = file.read() if file.read(2) == START_OF_IMAGE else b""
    scans = segments = position = 0
    while (found := MARKER.search(data, position)) and not (scans and found[0] == END_OF_IMAGE):
        segments, scans = segments + 1, scans + (found[0] == START_OF_SCAN)
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise _LimitError(TOO_COMPLEX, ": it has too many parts. Save a copy with an image editor")
        position = found.end()
        if found[0] != END_OF_IMAGE:
            position += int.from_bytes(data[position : position + 2])  # a segment begins with its length


def _check_size(image: Image.Image, most: int) -> None:
    if image.format in COPIED:
        most = min(most, MAX_PIXELS_COPIED)
    if image.width * image.height > most:
        raise _LimitError(*_too_many_pixels(most, f"{image.width} x {image.height} pixels, "))
    if image.format == "TIFF" and _tile_pixels(image) > most:  # a whole tile is decoded, however small the image
        raise _LimitError(*_too_many_pixels(most, "a tile of "))
    if max(image.size) > MAX_SIDE:
        raise _LimitError(TOO_LARGE, f": {image.width} x {image.height} pixels, more than {MAX_SIDE} on a side")


def _tile_pixels(image: Image.Image) -> int:
    """The pixels of a tile of a TIFF; 0 if it has no tiles."""
    width, height = (image.getexif().get(tag, 0) for tag in (TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT))
    return width * height if isinstance(width, int) and isinstance(height, int) else 0


def _too_many_pixels(most: int, size: str = "") -> tuple[str, str]:
    return TOO_LARGE, f": {size}more than {most // 10**6} megapixels. Scale it down"
