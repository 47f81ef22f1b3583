"""data/transforms.py: a picture of any kind becomes the same upright RGB tensor, or is refused with a clear line."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli import UserError
from data.images import ImageError, find_images, load_image, load_image_bytes
from data.transforms import Transform
from tests.support.helpers import draw

RED, WHITE = (255, 0, 0), (255, 255, 255)


def centre(image: Image.Image) -> tuple[int, ...]:
    colour = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(colour, tuple)
    return colour


def assert_near(colour: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 6) -> None:
    assert max(abs(a - b) for a, b in zip(colour, wanted, strict=True)) <= tolerance, (colour, wanted)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "JPEG"])
def test_formats(tmp_path: Path, suffix: str) -> None:
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


def test_floats_that_are_no_numbers(tmp_path: Path) -> None:
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


def test_broken_exif_is_no_reason_to_refuse_a_picture(tmp_path: Path) -> None:
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


def test_a_comment_is_left_behind(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", comment=b"private " * 10_000)
    picture = load_image(tmp_path / "a.gif")
    picture.save(tmp_path / "a.jpg")  # JPEG's comments are shorter
    assert b"private" not in (tmp_path / "a.jpg").read_bytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_tiny_and_narrow_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    tensor = Transform(32)(load_image(tmp_path / "a.png"))
    assert tensor.shape == (3, 32, 32)
    assert torch.allclose(tensor[0], tensor[0, 0, 0]) and tensor[0, 0, 0] > 2


def test_50_megapixels_are_fine(tmp_path: Path) -> None:
    Image.new("P", (10_000, 5_000), 1).save(tmp_path / "a.png")
    assert Transform(32)(load_image(tmp_path / "a.png")).shape == (3, 32, 32)


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


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    whole = draw(tmp_path / "whole.jpg", "circle", "blue", (400, 300)).read_bytes()
    reasons = {
        "truncated.jpg": (whole[: len(whole) // 2], "damaged picture"),
        "header.jpg": (whole[:30], "picture"),
        "garbage.jpg": (bytes(range(256)) * 20, "not a picture"),
        "empty.png": (b"", "not a picture"),
        "text.jpg": (b"hello, I am a text", "not a picture"),
        "page.gif": (b"<html>404 not found</html>", "not a picture"),
        "claims.png": (png_that_claims(20, 10), "damaged picture"),
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
    )  # the reason tells no path
    with pytest.raises(ImageError, match=r"none\.jpg: no such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError):
        load_image(tmp_path)


def test_open_files_and_bytes_are_read_too(tmp_path: Path) -> None:
    content = draw(tmp_path / "a.png", "square", "red").read_bytes()
    for image in (
        load_image(io.BytesIO(content)),
        load_image_bytes(content, "a.png"),
        load_image(str(tmp_path / "a.png")),
    ):
        assert_near(centre(image), RED)
    with pytest.raises(ImageError, match="picture: not a picture"):
        load_image(io.BytesIO(b"x"))


def test_transform_normalises_as_imagenet_and_travels_as_plain_values() -> None:
    transform = Transform(64)
    tensor = transform(Image.new("RGB", (300, 100), RED))
    assert tensor.shape == (3, 64, 64) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    wanted = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert torch.allclose(tensor.amax(dim=(1, 2)), torch.tensor(wanted), atol=1e-5)
    assert Transform.from_dict(transform.to_dict()) == transform


def test_transform_keeps_what_stands_at_the_edge() -> None:
    pixels = np.zeros((100, 400, 3), np.uint8)
    pixels[:, :50] = 255
    tensor = Transform(32)(Image.fromarray(pixels))
    assert tensor[:, :, 0].min() > 1.5 and tensor[:, :, 16].max() < 0


def test_find_images(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "folder.jpg").mkdir()
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", "notes.txt", "deep/captions.csv"):
        (tmp_path / name).write_bytes(b"")
    inside = [tmp_path / name for name in ("a.PNG", "b.jpg", "deep/er/c.webp")]
    assert find_images([tmp_path]) == inside
    assert find_images([tmp_path / "b.jpg", tmp_path]) == [inside[1], inside[0], inside[2]]  # each file once
    assert find_images([tmp_path / "notes.txt"]) == [
        tmp_path / "notes.txt"
    ]  # a file that is named is taken at its word
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        find_images([tmp_path, tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"folder\.jpg: no picture there"):
        find_images([tmp_path / "folder.jpg"])
