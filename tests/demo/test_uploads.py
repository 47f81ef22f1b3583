"""uploads.py: pictures are decoded, everything else gets one of four fixed texts."""

import io
import struct
import zlib

import pytest
from PIL import Image

from demo import uploads
from demo.uploads import UploadError, count_scans, read_picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def picture() -> Image.Image:
    image = Image.new("RGB", (60, 40), "white")
    image.paste("red", (0, 0, 20, 40))
    return image


@pytest.mark.parametrize("kind", uploads.FORMATS)
def test_pictures_are_decoded(kind: str) -> None:
    found = read_picture(encoded(picture(), kind))
    assert found.mode == "RGB" and found.size == (60, 40)
    red, green, blue = found.getpixel((5, 20))
    assert red > 200 and green < 60 and blue < 60


def test_a_photograph_taken_sideways_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn right
    found = read_picture(encoded(picture(), "JPEG", exif=exif))
    assert found.size == (40, 60)
    assert found.getpixel((20, 5))[1] < 60 < found.getpixel((20, 50))[1]  # the red edge is on top


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", uploads.NO_PICTURE),
        (b"<script>alert(1)</script>" * 100, uploads.NO_PICTURE),
        (b"%PDF-1.7 not a picture", uploads.NO_PICTURE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", uploads.NO_PICTURE),
        (
            encoded(picture(), "TIFF"),
            uploads.NO_PICTURE,
        ),  # a picture, but of a kind whose reader strangers may not reach
        (encoded(picture(), "BMP"), uploads.NO_PICTURE),
        (encoded(picture(), "JPEG")[:-20], uploads.DAMAGED),
        (encoded(picture(), "PNG")[:60], uploads.DAMAGED),
        (claiming(5000, 5000), uploads.DAMAGED),  # says 25 megapixels, holds one byte
        (claiming(10_000, 5_001), uploads.TOO_MANY_PIXELS),
        (claiming(60_000, 60_000), uploads.TOO_MANY_PIXELS),  # beyond Pillow's own limit
        (encoded(picture(), "JPEG") + b"\0" * uploads.MAX_BYTES, uploads.TOO_MANY_BYTES),
    ],
)
def test_everything_else_gets_a_fixed_text(data: bytes, message: str) -> None:
    with pytest.raises(UploadError) as refused:
        read_picture(data)
    assert str(refused.value) == message


def test_a_jpeg_that_would_be_decoded_for_an_hour_is_refused() -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff", data.index(b"\xff\xc4", first) if b"\xff\xc4" in data[first:] else first + 12)
    scan = data[first:second]
    slow = data[:first] + uploads.MAX_SCANS * scan + data[first:]
    assert (
        count_scans(data) <= 10
        and count_scans(slow) == uploads.MAX_SCANS + count_scans(data)
        and count_scans(b"GIF89a") == 0
    )
    with pytest.raises(UploadError, match="damaged"):
        read_picture(slow)
    assert read_picture(data + 2000 * scan).size == (60, 40)  # behind the end: a phone's video, say


def test_a_webp_that_is_also_a_photo_cd_is_read_as_what_was_checked() -> None:
    data = encoded(picture(), "WEBP")
    riff = data[12:]
    junk = b"JUNK" + struct.pack("<I", 4000) + (b"\0" * (2048 - 12 - len(riff) - 8) + b"PCD_").ljust(4000, b"\0")
    both = b"RIFF" + struct.pack("<I", 4 + len(riff) + len(junk)) + b"WEBP" + riff + junk
    assert both[2048:2052] == b"PCD_" and read_picture(both).size == (60, 40)


def test_as_many_bytes_and_pixels_as_allowed_are_taken() -> None:
    data = encoded(Image.new("L", (10_000, 5_000)), "PNG")
    assert read_picture(data + b"\0" * (uploads.MAX_BYTES - len(data))).size == (10_000, 5_000)
