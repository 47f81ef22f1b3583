"""data/images.py: any image file becomes an upright RGB image, or is refused with a clear message."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import images
from data.images import ImageError, load_image, load_image_bytes, photo_suffixes
from tests.support.helpers import draw
from tests.support.pictures import png

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


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path) -> None:
    whole = Image.linear_gradient("L").resize((4400, 2100)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    whole.save(tmp_path / "large.jpg", exif=exif)
    whole.crop((0, 0, 2200, 2040)).save(tmp_path / "too small to halve.jpg")
    whole.save(tmp_path / "large.png")
    large = load_image(tmp_path / "large.jpg")
    assert large.size == (1050, 2200)
    assert load_image(tmp_path / "too small to halve.jpg").size == (2200, 2040)
    assert load_image(tmp_path / "large.png").size == (4400, 2100)
    small = [image.resize((64, 64)) for image in (large, whole.rotate(-90, expand=True))]
    assert np.abs(np.subtract(*(np.asarray(image, np.float32) for image in small))).max() < 3


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


def test_unreadable_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = draw(tmp_path / "whole.jpg", "circle", "blue", (400, 300)).read_bytes()
    reasons = {
        "truncated.jpg": (whole[: len(whole) // 2], "damaged image"),
        "header.jpg": (whole[:30], "image"),
        "garbage.jpg": (bytes(range(256)) * 20, "not an image"),
        "empty.png": (b"", "not an image: the file is empty"),
        "text.jpg": (b"hello, I am a text", "not an image"),
        "page.gif": (b"<html>404 not found</html>", "not an image"),
        "claims.png": (png(20, 10, pixels=b""), "damaged image"),
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
    assert str(refused.value) == f"{tmp_path / 'folder.jpg'}: not a file but a folder"
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
    monkeypatch.setattr(images, "PHOTO_FORMATS", [name for name in images.PHOTO_FORMATS if name != "HEIF"])
    with pytest.raises(ImageError, match=r"a\.HEIC: HEIC needs another package: pip install -r requirements-heic\.txt"):
        load_image(tmp_path / "a.HEIC")
