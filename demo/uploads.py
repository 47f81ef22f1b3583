"""What strangers upload: is it a picture, and one that can be decoded in a moment? The answer is a picture or one of four fixed texts.

Fixed, because a decoder's own message may quote the file, and the file may say anything. Nothing is believed but the bytes: no name, no type
that the browser tells, no size in a header before it has been compared with the limit.
"""

import io
import re
import warnings

from PIL import Image

from cli import UserError
from data.images import ImageError, load_image_bytes

MAX_BYTES = 10_000_000  # as server.maxUploadSize in .streamlit/config.toml
MAX_PIXELS = 50_000_000  # more than phones take; while it is decoded 400 MB, with transparency 800
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # those with a segment behind them; ITU T.81, table B.1
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MAX_SCANS = 100  # of a JPEG, which may go over its pixels as often as it likes: usual are 1 to 10
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # what browsers show; Pillow's other readers stay out of strangers' reach

TOO_MANY_BYTES = "More than 10 MB. Save the picture smaller and try again."
TOO_MANY_PIXELS = "More than 50 megapixels. Scale the picture down and try again."
NO_PICTURE = "Not a JPEG, PNG, WebP or GIF picture, whatever its name says. Save it as one of these and try again."
DAMAGED = "The picture is damaged or cut short. Try another copy of it."


class UploadError(UserError):
    """An upload that cannot be used; the message is one of the texts above."""


def count_scans(data: bytes) -> int:
    """How often a JPEG goes over its pixels, up to its end: phones append videos, whose bytes mean nothing here. 0 for what is no JPEG."""
    scans, position = 0, 2 if data.startswith(b"\xff\xd8") else len(data)
    while (found := MARKER.search(data, position)) and found[0] != END_OF_IMAGE:
        scans += found[0] == START_OF_SCAN
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])  # a segment begins with its length
    return scans


def read_picture(data: bytes) -> Image.Image:
    """Check and decode an upload: RGB, upright as its EXIF tag says.

    Raises:
        UploadError: too large, no picture, or damaged.
    """
    if len(data) > MAX_BYTES:
        raise UploadError(TOO_MANY_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the check below decides
            with Image.open(io.BytesIO(data), formats=FORMATS) as header:
                pixels = header.width * header.height
    except Image.DecompressionBombError:  # Pillow's own limit
        raise UploadError(TOO_MANY_PIXELS) from None
    except Exception:  # whatever its readers raise
        raise UploadError(NO_PICTURE) from None
    if pixels > MAX_PIXELS:
        raise UploadError(TOO_MANY_PIXELS)
    if count_scans(data) > MAX_SCANS:
        raise UploadError(DAMAGED)
    try:
        return load_image_bytes(data, "upload", FORMATS)
    except ImageError:
        raise UploadError(DAMAGED) from None
