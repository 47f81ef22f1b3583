"""demo/uploads.py: images are decoded, everything else gets one of four fixed messages."""

import io
import struct
import zlib

import pytest
from PIL import Image

from demo import uploads
from demo.uploads import UploadError, read_upload


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def red_edge() -> Image.Image:
    image = Image.new("RGB", (60, 40), "white")
    image.paste("red", (0, 0, 20, 40))
    return image


@pytest.mark.parametrize("kind", uploads.FORMATS)
def test_images_are_decoded(kind: str) -> None:
    found = read_upload(encoded(red_edge(), kind))
    assert found.mode == "RGB" and found.size == (60, 40)
    red, green, blue = found.getpixel((5, 20))
    assert red > 200 and green < 60 and blue < 60


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    found = read_upload(encoded(red_edge(), "JPEG", exif=exif))
    assert found.size == (40, 60)
    assert found.getpixel((20, 5))[1] < 60 < found.getpixel((20, 50))[1]  # the red edge is on top


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", uploads.NOT_AN_IMAGE),
        (b"<script>alert(1)</script>" * 100, uploads.NOT_AN_IMAGE),
        (b"%PDF-1.7 not an image", uploads.NOT_AN_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", uploads.NOT_AN_IMAGE),
        (encoded(red_edge(), "TIFF"), uploads.NOT_AN_IMAGE),  # an image, but Pillow's TIFF decoder is not exposed
        (encoded(red_edge(), "BMP"), uploads.NOT_AN_IMAGE),
        (encoded(red_edge(), "JPEG")[:-20], uploads.DAMAGED),
        (encoded(red_edge(), "PNG")[:60], uploads.DAMAGED),
        (claiming(5000, 5000), uploads.DAMAGED),  # claims 25 megapixels, has one byte
        (claiming(10_000, 5_001), uploads.TOO_MANY_PIXELS),
        (claiming(60_000, 60_000), uploads.TOO_MANY_PIXELS),  # above Pillow's own limit
        (encoded(red_edge(), "JPEG") + b"\0" * uploads.MAX_UPLOAD_BYTES, uploads.TOO_MANY_BYTES),
    ],
)
def test_everything_else_gets_a_fixed_message(data: bytes, message: str) -> None:
    with pytest.raises(UploadError) as refused:
        read_upload(data)
    assert str(refused.value) == message


def test_a_jpeg_that_would_take_an_hour_to_decode_is_refused() -> None:
    data = encoded(red_edge(), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    scan = data[first : data.index(b"\xff\xc4", first)]
    with pytest.raises(UploadError, match="damaged"):
        read_upload(data[:first] + 5000 * scan + data[first:])
    assert read_upload(data + 2000 * scan).size == (60, 40)  # data after the end, such as a phone's video


def test_a_webp_that_is_also_a_photo_cd_is_decoded_as_webp() -> None:
    data = encoded(red_edge(), "WEBP")
    riff = data[12:]
    junk = b"JUNK" + struct.pack("<I", 4000) + (b"\0" * (2048 - 12 - len(riff) - 8) + b"PCD_").ljust(4000, b"\0")
    both = b"RIFF" + struct.pack("<I", 4 + len(riff) + len(junk)) + b"WEBP" + riff + junk
    assert both[2048:2052] == b"PCD_" and read_upload(both).size == (60, 40)


def test_uploads_at_the_limits_are_accepted() -> None:
    data = encoded(Image.new("L", (10_000, 5_000)), "PNG")
    assert read_upload(data + b"\0" * (uploads.MAX_UPLOAD_BYTES - len(data))).size == (10_000, 5_000)
