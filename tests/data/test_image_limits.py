"""data/images.py: files from strangers. Only photos in regular files are decoded, within limits of time and memory."""

import io
import os
import pickle
import random
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from data import images
from data.images import ImageError, Limits, load_image, load_image_bytes
from tests.support.helpers import ROOT, draw
from tests.support.pictures import bmp_rle, chunk, gif, gif_frame, png, segment, tiff

MB = 2**20


def encoded(kind: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def refusal(data: bytes) -> str:
    """The message for an image, without its name."""
    with pytest.raises(ImageError) as refused:
        load_image_bytes(data, "a.jpg")
    name, _, message = str(refused.value).partition(": ")
    assert name == "a.jpg" and "\n" not in message and len(message) < 200
    return message


# --- which files


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("linked", [False, True])
def test_only_regular_files_are_read(tmp_path: Path, linked: bool) -> None:
    """The others might have no end, or wait for a writer for ever."""
    pipe, plug = tmp_path / "pipe.jpg", tmp_path / "s.jpg"
    os.mkfifo(pipe)
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(plug))  # such an address has at most 108 bytes
    for special in (pipe, plug, Path("/dev/zero"), tmp_path):
        path = special
        if linked:
            path = tmp_path / f"link to {special.name}"
            path.symlink_to(special)
        with pytest.raises(ImageError, match=rf"{path.name}: not a file but a (folder|device, pipe or socket)$"):
            load_image(path)
    server.close()


@pytest.mark.parametrize("name", ["a\0b.jpg", "half \ud800.jpg", "x" * 300 + ".jpg"])
def test_impossible_names_are_refused(tmp_path: Path, name: str) -> None:
    for source in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ImageError) as refused:
            load_image(source)
        assert refused.value.kind == (images.UNREADABLE if name.startswith("x") else images.MISSING)


def test_a_link_to_an_image_is_read(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", "circle", "red")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.png")
    assert load_image(tmp_path / "b.jpg").size == (40, 30)


def test_files_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"large\.jpg: too large: more than 250 MB"):
        load_image(tmp_path / "large.jpg")


@pytest.mark.parametrize("kind", ["EPS", "ICO", "ICNS", "PCX", "PPM", "SGI", "SPIDER", "TGA", "DDS", "MSP", "XBM"])
def test_other_formats_are_refused_whatever_the_suffix(tmp_path: Path, kind: str) -> None:
    """EPS would start Ghostscript on a stranger's program."""
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(kind, "RGB")
    assert refusal(encoded(kind, (64, 64), mode)) == "not an image"


def test_errors_can_be_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "damaged image", " (cut off)")))
    assert str(error) == "a.jpg: damaged image (cut off)" and error.kind == "damaged image"


# --- what they claim


@pytest.mark.parametrize("size", [(10_001, 10_000), (14_000, 14_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs_are_refused_before_they_are_decoded(size: tuple[int, int]) -> None:
    assert refusal(png(*size, pixels=b"")).endswith("more than 100 megapixels. Scale it down")


def test_formats_that_are_copied_may_have_fewer_pixels() -> None:
    assert refusal(encoded("WEBP", (10_000, 5_001), "L", lossless=True, method=0)).startswith(
        "too large: 10000 x 5001 pixels, more than 50 megapixels"
    )


def test_a_caller_can_accept_fewer_formats_and_pixels() -> None:
    limits = Limits(("PNG",), 1000)
    assert load_image_bytes(encoded("PNG", (40, 25)), "a", limits).size == (40, 25)
    for data, message in ((encoded("PNG", (40, 26)), "more than 0 megapixels"), (encoded("JPEG", (4, 2)), "not an")):
        with pytest.raises(ImageError, match=message):
            load_image_bytes(data, "a", limits)


def test_an_image_in_memory_has_the_same_limits() -> None:
    with pytest.raises(ImageError, match="megapixels"):
        load_image(Image.new("1", (10_001, 10_000)))


def progressive(scans: int) -> bytes:
    """A progressive JPEG with ``scans`` more scans than usual."""
    data = encoded("JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    return data[:first] + data[first : data.index(b"\xff\xc4", first)] * scans + data[first:]


def test_scans_are_counted_up_to_the_end_of_the_image() -> None:
    assert load_image_bytes(progressive(40) + progressive(2000), "a.jpg").size == (60, 40)  # phones append video


JPEG, TOO_MANY, METADATA = encoded("JPEG"), "too complex: it has too many parts", "too complex: more than 1 MB of meta"
JFIF = JPEG.index(b"\xff\xdb")  # where the segment of the version ends
FEWER_READS, FEWER_BYTES = 10_000, 1_000_000  # the limits of this test, which makes it faster
COMPLEX = {  # at a hundred times the size, each would take minutes to hours, or gigabytes
    "scans": (progressive(images.MAX_SCANS), TOO_MANY),
    "scans after tables": (b"\xff\xd8\xff\xd9" + progressive(images.MAX_SCANS), TOO_MANY),
    "segments": (JPEG[:2] + segment(0xFE, b"") * (images.MAX_SEGMENTS + 1) + JPEG[JFIF:], TOO_MANY),
    "EXIF in parts": (JPEG[:2] + segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 16 + JPEG[JFIF:], METADATA),
    "tables": (JPEG[:2] + segment(0xDB, bytes(65) * 1000) * 16 + JPEG[JFIF:], METADATA),
    "ICC profile": (png(20, 20, extra=chunk(b"iCCP", b"a\0\0" + random.Random(0).randbytes(2 * MB))), METADATA),
    "EXIF": (png(20, 20, extra=chunk(b"eXIf", b"II*\0" + bytes(2 * MB))), METADATA),
    "chunks": (png(20, 20, extra=chunk(b"prVt", b"") * 10_000), TOO_MANY),
    "text bomb": (png(20, 20, extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50 * MB)))), "damaged image ("),
    "junk": (gif(20, 20, bytes(20_000) + gif_frame(0, 0, 20, 20)), TOO_MANY),
    "comments": (gif(20, 20, b"!\xfe\0" * 10_000 + gif_frame(0, 0, 20, 20)), TOO_MANY),
    "logical screen": (gif(65_535, 65_535, gif_frame(0, 0, 1, 1)), "too large: more than 100 megapixels"),
    "frame": (gif(1, 1, gif_frame(65_000, 65_000, 500, 500)), "too large: more than 100 megapixels"),
    "tags": (tiff([(number, 7, 500_000, 8) for number in (1000, 1001, 1002)], bytes(2 * MB)), METADATA),
    "runs": (bmp_rle(500, 500, b"\0\0" * 10_000), TOO_MANY),
    "row": (bmp_rle(99_000_000, 1, b"\0\2\xff\xff"), "too large: 99000000 x 1 pixels, more than 65535 on a side"),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_files_that_are_made_to_be_slow_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_READS", FEWER_READS)
    monkeypatch.setattr(images, "MAX_METADATA_BYTES", FEWER_BYTES)
    data, message = COMPLEX[name]
    assert refusal(data).startswith(message)


def test_many_frames_are_as_fast_as_one() -> None:
    assert load_image_bytes(gif(1000, 1000, gif_frame(0, 0, 1, 1) * 100_000), "a.gif").getpixel((0, 0)) == (255, 0, 0)
    frames = [Image.new("RGB", (8, 8), (number % 256, number // 256, 0)) for number in range(1000)]
    data = encoded("WEBP", (8, 8), save_all=True, append_images=frames)
    assert load_image_bytes(data, "a.webp").size == (8, 8)


PEAK = """
import re, sys
from data.images import load_image_bytes
load_image_bytes(sys.stdin.buffer.read(), "a")
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_images_are_in_memory_at_most_twice() -> None:
    """At 100 megapixels with 4 bytes each, that is 0.8 GB."""
    for data in (
        png(5000, 4000, extra=chunk(b"tRNS", bytes(6))),
        encoded("TIFF", (5000, 4000), "F", compression="packbits"),
    ):
        command = [sys.executable, "-c", PEAK]
        found = subprocess.run(command, input=data, capture_output=True, check=True, cwd=ROOT, timeout=120)
        assert int(found.stdout) * 1024 < 2 * 4 * 5000 * 4000 + 110e6  # Python, its modules and a band


# --- damaged files


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000"])
def test_mutated_images_are_decoded_or_refused(tmp_path: Path, kind: str) -> None:
    """Never another exception; ``refusal`` of a truncated one names the file."""
    file = io.BytesIO()
    load_image(draw(tmp_path / "a.png", "circle", "red", (64, 48))).save(file, kind)
    whole, rng = file.getvalue(), random.Random(kind)
    decoded = refused = 0
    for _ in range(60):
        data = bytearray(whole[: rng.randint(1, len(whole))] if rng.random() < 0.2 else whole)
        for _ in range(rng.choice((1, 2, 8))):
            place = rng.randrange(min(len(data), rng.choice((64, 10**9))))
            data[place : place + rng.randrange(4)] = rng.choice((b"", rng.randbytes(2), b"\xff\xff\xff\xff", b"\0"))
        try:
            assert load_image_bytes(bytes(data), "a.jpg").mode == "RGB"
            decoded += 1
        except ImageError as error:
            assert str(error).startswith("a.jpg: ")
            refused += 1
    assert decoded + refused == 60 and refused
