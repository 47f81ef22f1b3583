"""Untrusted uploads: check that they are images that decode quickly. The result is an image or one of four messages.

The messages are fixed, because a decoder's message may quote the file. Only the bytes are trusted, not the file name
or the browser's content type, and the size in the header is checked before decoding.
"""

from PIL import Image

from cli import UserError
from data import images
from data.images import ImageError, Limits, load_image_bytes

MAX_UPLOAD_BYTES = 10_000_000  # as server.maxUploadSize in .streamlit/config.toml
MAX_UPLOAD_PIXELS = 50_000_000  # more than phones take; decoding needs up to 400 MB, with transparency 800 MB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # what browsers show; untrusted files do not reach Pillow's other decoders

TOO_MANY_BYTES = "This file is larger than 10 MB. Save a smaller copy and try again."
TOO_MANY_PIXELS = "This image has more than 50 megapixels. Scale it down and try again."
NOT_AN_IMAGE = "This is not a JPEG, PNG, WebP or GIF image. Save it in one of these formats and try again."
DAMAGED = "This image is damaged or incomplete. Try another copy of it."
MESSAGES = {images.NOT_AN_IMAGE: NOT_AN_IMAGE, images.TOO_LARGE: TOO_MANY_PIXELS}  # of kinds of errors; else DAMAGED


class UploadError(UserError):
    """An upload that cannot be used; the message is one of the four above."""


def read_upload(data: bytes) -> Image.Image:
    """Check and decode an upload: RGB, rotated according to its EXIF orientation.

    Raises:
        UploadError: too large, not an image, or damaged.
    """
    if len(data) > MAX_UPLOAD_BYTES:
        raise UploadError(TOO_MANY_BYTES)
    try:
        return load_image_bytes(data, "upload", Limits(FORMATS, MAX_UPLOAD_PIXELS))
    except ImageError as error:
        raise UploadError(MESSAGES.get(error.kind, DAMAGED)) from None
