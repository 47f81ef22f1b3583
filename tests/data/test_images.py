"""data/images.py: any image file becomes an upright RGB image, or is refused with a clear message."""

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli import UserError
from data import images
from data.images import ImageError, drop_bad_images, find_bad_images, load_image, load_image_bytes, photo_suffixes
from tests.support.helpers import draw

RED, WHITE = (255, 0, 0), (255, 255, 255)


def centre(image: Image.Image) -> tuple[int, ...]:
    colour = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(colour, tuple)
    return colour


def assert_near(colour: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 6) -> None:
    assert max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) <= tolerance, (colour, wanted)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "JPEG", "jfif", "jpe", "jp2", "avif"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    if f".{suffix.lower()}" not in photo_suffixes():
        pytest.skip("this Pillow cannot read it")
    image = load_image(draw(tmp_path / f"a.{suffix}", "square", "red"))
    assert image.mode == "RGB" and image.size == (40, 30)
    assert_near(centre(image), RED)
    assert_near(image.getpixel((1, 1)), WHITE, 20)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "colour", "name", "wanted"),
    [
        ("1", 1, "a.png", WHITE),
        ("L", 100, "a.jpg", (100, 100, 100)),
        ("CMYK", (0, 255, 255, 0), "a.jpg", RED),
        ("CMYK", (0, 255, 255, 0), "a.tif", RED),
        ("YCbCr", (76, 85, 255), "a.jpg", RED),
        ("LA", (100, 255), "a.png", (100, 100, 100)),
        ("LA", (100, 0), "a.png", WHITE),
        ("RGBA", (255, 0, 0, 255), "a.png", RED),
        ("RGBA", (255, 0, 0, 0), "a.png", WHITE),
        ("RGBA", (255, 0, 0, 128), "a.webp", (255, 127, 127)),
        ("I;16", 128 * 257, "a.png", (128, 128, 128)),
        ("I;16", 128 * 257, "a.tif", (128, 128, 128)),
        ("I;16B", 128 * 257, "a.tif", (128, 128, 128)),
        ("I", 128 * 257, "a.tif", (128, 128, 128)),
        ("I", 128, "a.tif", (128, 128, 128)),
        ("F", 0.5, "a.tif", (127, 127, 127)),
        ("F", 128.0, "a.tif", (128, 128, 128)),
    ],
)
def test_modes(tmp_path: Path, mode: str, colour: float | tuple[int, ...], name: str, wanted: tuple[int, ...]) -> None:
    Image.new(mode, (20, 10), colour).save(tmp_path / name)
    image = load_image(tmp_path / name)
    assert image.mode == "RGB" and image.size == (20, 10)
    assert_near(centre(image), wanted)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (20, 10), 1)
    image.putpalette([0, 0, 255, *RED])
    image.save(tmp_path / "a.png")
    assert_near(centre(load_image(tmp_path / "a.png")), RED)
    for name in ("b.png", "b.gif"):
        image.save(tmp_path / name, transparency=1)
        assert_near(centre(load_image(tmp_path / name)), WHITE)


def test_nan_becomes_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    assert centre(load_image(tmp_path / "nan.tif")) == (0, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.full((16, 24, 3), 255, np.uint8)
    upright[:8, :12] = RED  # a red corner, top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.jpg", "a.png"):
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, exif=exif)
        image = load_image(tmp_path / name)
        assert image.size == (24, 16)
        assert_near(image.getpixel((4, 3)), RED, 20)  # type: ignore[arg-type]
        for corner in ((20, 3), (4, 13), (20, 13)):
            assert_near(image.getpixel(corner), WHITE, 20)  # type: ignore[arg-type]


def test_an_image_with_broken_exif_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    sound = exif.tobytes()
    text_for_number = sound.replace(
        b"\x01\x0e\x00\x02", b"\x01\x1c\x00\x02"
    )  # the description becomes a "planar configuration"
    assert text_for_number != sound
    for broken in (b"Exif\0\0garbage", sound[: len(sound) // 2], text_for_number):
        Image.new("RGB", (20, 10), "red").save(tmp_path / "a.jpg", exif=broken)
        assert_near(centre(load_image(tmp_path / "a.jpg")), RED)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert_near(centre(load_image(tmp_path / name)), RED)


def test_comments_are_removed(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", comment=b"private " * 10_000)
    load_image(tmp_path / "a.gif").save(tmp_path / "a.jpg")  # JPEG's comments are shorter
    assert b"private" not in (tmp_path / "a.jpg").read_bytes()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_001, 10_000), (14_000, 14_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(*size))
    with pytest.raises(ImageError, match=r"bomb\.png: .*more than 100 megapixels. Scale it down"):
        load_image(tmp_path / "bomb.png")


def test_unreadable_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = draw(tmp_path / "whole.jpg", "circle", "blue", (400, 300)).read_bytes()
    reasons = {
        "truncated.jpg": (whole[: len(whole) // 2], "damaged image"),
        "header.jpg": (whole[:30], "image"),
        "garbage.jpg": (bytes(range(256)) * 20, "not an image"),
        "empty.png": (b"", "not an image"),
        "text.jpg": (b"hello, I am a text", "not an image"),
        "page.gif": (b"<html>404 not found</html>", "not an image"),
        "claims.png": (png_that_claims(20, 10), "damaged image"),
    }
    for name, (content, reason) in reasons.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name}: .*{reason}"):
            load_image(tmp_path / name)
        with pytest.raises(ImageError, match=rf"{name}: .*{reason}"):
            load_image_bytes(content, name)
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError) as refused:
        load_image(tmp_path / "folder.jpg")
    assert (
        "cannot be read" in str(refused.value) and str(refused.value).count(str(tmp_path)) == 1
    )  # the path is not repeated
    with pytest.raises(ImageError, match=r"none\.jpg: no such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError):
        load_image(tmp_path)


def test_open_files_and_bytes_are_read(tmp_path: Path) -> None:
    content = draw(tmp_path / "a.png", "square", "red").read_bytes()
    for image in (
        load_image(io.BytesIO(content)),
        load_image_bytes(content, "a.png"),
        load_image(str(tmp_path / "a.png")),
    ):
        assert_near(centre(image), RED)
    with pytest.raises(ImageError, match="image: not an image"):
        load_image(io.BytesIO(b"x"))


def test_photo_formats_are_those_that_pillow_reads_without_documents_and_films() -> None:
    suffixes = photo_suffixes()
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".jp2"} <= suffixes
    assert not {".pdf", ".eps", ".mpg", ".ico", ".svg", ".txt", ""} & suffixes


def test_heic_is_read_upright(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    stored = Image.new("RGB", (64, 32), "red")
    stored.getexif()[0x0112] = 6  # pillow-heif writes it as HEIC's own rotation, as phones do
    stored.save(tmp_path / "a.heic")
    image = load_image(tmp_path / "a.heic")
    assert image.mode == "RGB" and image.size == (32, 64) and ".heic" in photo_suffixes()
    assert_near(centre(image), RED, 20)


def test_without_pillow_heif_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr(images, "PHOTO_FORMATS", images.PHOTO_FORMATS - {"HEIF"})
    with pytest.raises(ImageError, match=r"a\.HEIC: HEIC needs another package: pip install -r requirements-heic\.txt"):
        load_image(tmp_path / "a.HEIC")


def make_images(folder: Path, count: int, bad: int) -> dict[str, list[str]]:
    """``count`` images of which the first ``bad`` are broken; each with a caption."""
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        if number < bad:
            (folder / name).write_bytes(b"not an image")
        else:
            draw(folder / name, "circle", "red", (8, 8))
    return {name: ["a circle"] for name in names}


def test_a_few_bad_images_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = make_images(tmp_path, 40, 2)  # exactly 5 %
    bad = find_bad_images([tmp_path / name for name in references], workers=3)
    assert list(bad) == [tmp_path / "0.png", tmp_path / "1.png"] and all(
        "not an image" in reason for reason in bad.values()
    )
    good = drop_bad_images(references, tmp_path, bad)
    assert list(good) == list(references)[2:]
    err = capsys.readouterr().err
    assert "0.png: not an image" in err and "1.png: not an image" in err
    assert find_bad_images([tmp_path / name for name in good], workers=0) == {}


def test_many_bad_images_stop_the_run(tmp_path: Path) -> None:
    references = make_images(tmp_path, 39, 2)
    bad = find_bad_images([tmp_path / name for name in references])
    with pytest.raises(UserError, match=r"2 of 39 images cannot be used .*0\.png: not an image.*image_dir"):
        drop_bad_images(references, tmp_path, bad)


def test_missing_images_count_as_bad(tmp_path: Path) -> None:
    bad = find_bad_images([tmp_path / "no.jpg"])
    assert "no such file" in bad[tmp_path / "no.jpg"]


def test_images_that_were_decoded_are_not_decoded_again_while_they_do_not_change(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in make_images(tmp_path, 5, 1)]
    old = time.time() - 3600
    for path in paths:
        os.utime(path, (old, old))
    cache = tmp_path / "cache"
    assert list(find_bad_images(paths, 2, cache)) == paths[:1]
    size = paths[1].stat().st_size
    paths[1].write_bytes(bytes(size))  # decoding it would fail now,
    os.utime(paths[1], (old, old))  # but it looks unchanged
    assert list(find_bad_images(paths, 2, cache)) == paths[:1]  # an unreadable image is decoded again each time
    os.utime(paths[1])
    assert list(find_bad_images(paths, 2, cache)) == paths[:2]
    assert list(find_bad_images(paths, 2)) == paths[:2]
    (cache / "sound_images.json").write_text("{")
    assert list(find_bad_images(paths, 2, cache)) == paths[:2]
