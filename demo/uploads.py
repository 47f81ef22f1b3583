"""Untrusted uploads: check that they are images that decode quickly. The result is an image or one of four messages.

The messages are fixed, because a decoder's message may quote the file. Only the bytes are trusted, not the file name
or the browser's content type, and the size in the header is checked before decoding.
"""

import io
import re
import warnings

from PIL import Image

from cli import UserError
from data.images import ImageError, load_image_bytes

MAX_UPLOAD_BYTES = 10_000_000  # as server.maxUploadSize in .streamlit/config.toml
MAX_UPLOAD_PIXELS = 50_000_000  # more than phones take; decoding needs up to 400 MB, with transparency 800 MB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # what browsers show; untrusted files do not reach Pillow's other decoders

MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # JPEG markers followed by a segment (ITU T.81, table B.1)
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
MAX_SCANS = 100  # a JPEG may have any number of passes over its pixels; 1 to 10 are usual

TOO_MANY_BYTES = "This file is larger than 10 MB. Save a smaller copy and try again."
TOO_MANY_PIXELS = "This image has more than 50 megapixels. Scale it down and try again."
NOT_AN_IMAGE = "This is not a JPEG, PNG, WebP or GIF image. Save it in one of these formats and try again."
DAMAGED = "This image is damaged or incomplete. Try another copy of it."


class UploadError(UserError):
    """An upload that cannot be used; the message is one of the four above."""


def count_scans(data: bytes) -> int:
    """How many scans a JPEG has. Data after the end of the image is ignored (phones append video). 0: not a JPEG."""
    scans, position = 0, 2 if data.startswith(b"\xff\xd8") else len(data)
    while (found := MARKER.search(data, position)) and found[0] != END_OF_IMAGE:
        scans += found[0] == START_OF_SCAN
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])  # a segment begins with its length
    return scans


def read_upload(data: bytes) -> Image.Image:
    """Check and decode an upload: RGB, rotated according to its EXIF orientation.

    Raises:
        UploadError: too large, not an image, or damaged.
    """
    if len(data) > MAX_UPLOAD_BYTES:
        raise UploadError(TOO_MANY_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large images; the check below decides
            with Image.open(io.BytesIO(data), formats=FORMATS) as header:
                pixels = header.width * header.height
    except Image.DecompressionBombError:  # Pillow's own limit
        raise UploadError(TOO_MANY_PIXELS) from None
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UploadError(NOT_AN_IMAGE) from None
    if pixels > MAX_UPLOAD_PIXELS:
        raise UploadError(TOO_MANY_PIXELS)
    if count_scans(data) > MAX_SCANS:
        raise UploadError(DAMAGED)
    try:
        return load_image_bytes(data, "upload", FORMATS)
    except ImageError:
        raise UploadError(DAMAGED) from None
