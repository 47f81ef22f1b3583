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
# What browsers show, and HEIC, the format of iPhones, if pillow-heif is installed. Pillow's other decoders do not get
# untrusted files.
READS_HEIC = "HEIF" in images.PHOTO_FORMATS
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", *(("HEIF",) if READS_HEIC else ()))
SUFFIXES = ["jpg", "jpeg", "png", "webp", "gif", *(["heic", "heif"] if READS_HEIC else [])]  # that the page offers

TOO_MANY_BYTES = "This file is larger than 10 MB. Save a smaller copy and try again."
TOO_MANY_PIXELS = "This image has more than 50 megapixels. Scale it down and try again."
NAMES = "JPEG, PNG, WebP, GIF or HEIC" if READS_HEIC else "JPEG, PNG, WebP or GIF"
NOT_AN_IMAGE = f"This is not a {NAMES} image. Save it in one of these formats and try again."
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
