"""Damaged files: whole ones with bytes flipped, cut, doubled, swapped, or numbers that became extreme."""

import io
import random
from collections.abc import Callable

from PIL import Image

EXTREMES = (b"\x00", b"\xff", b"\x7f\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00\x00\x00", b"\x00\x01")


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3, 20))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def write_extremes(data: bytearray, rng: random.Random) -> None:
    """In place of sizes, counts and offsets, most of which are near the start."""
    for _ in range(rng.choice((1, 2, 5))):
        number, at = rng.choice(EXTREMES), _place(data, rng)
        data[at : at + len(number)] = number


def write_noise(data: bytearray, rng: random.Random) -> None:
    at, length = _place(data, rng), rng.randint(1, 64)
    data[at : at + length] = rng.randbytes(length)


def cut_off(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def remove_part(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.randint(1, 200)]


def double_part(data: bytearray, rng: random.Random) -> None:
    at, length = _place(data, rng), rng.randint(1, 200)
    data[at:at] = data[at : at + length] * rng.choice((1, 1, 50))


def swap_parts(data: bytearray, rng: random.Random) -> None:
    one, other = sorted(_place(data, rng) for _ in range(2))
    data[one : one + 16], data[other : other + 16] = data[other : other + 16], data[one : one + 16]


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    flip_bits, write_extremes, write_noise, cut_off, remove_part, double_part, swap_parts,
]  # fmt: skip


def _place(data: bytearray, rng: random.Random) -> int:
    """A position, half of the time in the header."""
    return rng.randrange(max(1, min(len(data), 200) if rng.random() < 0.5 else len(data)))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One or several changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if changed:  # a change before may have cut all of it off
            rng.choice(MUTATIONS)(changed, rng)
    return bytes(changed)


def encodings(photo: Image.Image) -> dict[str, bytes]:
    """A photograph as files of every format and of many modes: a name for each, which ends in its suffix -> bytes."""
    exif = Image.Exif()
    exif[274], exif[315] = 6, "somebody"
    second = photo.rotate(90)
    variants: dict[str, tuple[str, Image.Image, dict[str, object]]] = {
        "plain.jpg": ("JPEG", photo, {}),
        "progressive.jpg": ("JPEG", photo, {"progressive": True, "exif": exif, "comment": b"a comment"}),
        "cmyk.jpg": ("JPEG", photo.convert("CMYK"), {}),
        "several.jpg": ("MPO", photo, {"save_all": True, "append_images": [second]}),
        "plain.png": ("PNG", photo, {"exif": exif}),
        "grey16.png": ("PNG", photo.convert("I;16"), {}),
        "palette.png": ("PNG", photo.convert("P"), {"transparency": 3}),
        "moving.png": ("PNG", photo, {"save_all": True, "append_images": [second]}),
        "lossy.webp": ("WEBP", photo, {"exif": exif}),
        "alpha.webp": ("WEBP", photo.convert("RGBA"), {"lossless": True}),
        "moving.webp": ("WEBP", photo, {"save_all": True, "append_images": [second]}),
        "plain.gif": ("GIF", photo, {}),
        "moving.gif": ("GIF", photo, {"save_all": True, "append_images": [second], "loop": 0}),
        "plain.bmp": ("BMP", photo, {}),
        "palette.bmp": ("BMP", photo.convert("P"), {}),
        "plain.tiff": ("TIFF", photo, {"exif": exif}),
        "lzw.tiff": ("TIFF", photo, {"compression": "tiff_lzw"}),
        "jpeg.tiff": ("TIFF", photo, {"compression": "jpeg"}),
        "fax.tiff": ("TIFF", photo.convert("1"), {"compression": "group4"}),
        "float.tiff": ("TIFF", photo.convert("F"), {}),
        "plain.avif": ("AVIF", photo, {}),
        "plain.jp2": ("JPEG2000", photo, {}),
        "tiles.jp2": ("JPEG2000", photo, {"tile_size": (32, 32), "irreversible": True}),
    }
    return {name: _encode(image, kind, options) for name, (kind, image, options) in variants.items()}


def _encode(image: Image.Image, kind: str, options: dict[str, object]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
