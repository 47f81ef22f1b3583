"""Decoded images of any mode -> 8-bit RGB -> what an encoder reads, in NumPy, for inference without torch too."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image

BAND_PIXELS = 1_000_000  # converted at once: enough to be fast; the copies of a band take below 25 MB


def to_rgb(image: Image.Image) -> Image.Image:
    """A copy in RGB: transparent pixels become white, 16-bit and floating-point greys are scaled to 8 bits.

    It is converted in bands of rows, so that a large image is in memory at most twice.
    """
    convert = _conversion(image)
    width, height = image.size
    rows = max(BAND_PIXELS // max(width, 1), 1)
    if rows >= height:
        return convert(image)
    result = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        result.paste(convert(image.crop((0, top, width, min(top + rows, height)))), (0, top))
    return result


def normalised(image: Image.Image, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """RGB of any size -> (3, size, size) in fp32: resized to a square, each channel minus ``mean``, divided by ``std``.

    In NumPy, because torch's operations start threads of their own, too many if several images are decoded at once.
    """
    square = image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(square, dtype=np.float32) / np.float32(255)  # (S, S, 3)
    normal = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def _conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """How ``image`` and each band of it becomes RGB."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):  # Pillow's convert() would clip at 255: all white
        return partial(_scaled_grey, factor=_grey_factor(image))
    return _on_white if image.has_transparency_data else lambda band: band.convert("RGB")


def _grey_factor(image: Image.Image) -> float:
    if image.mode.startswith("I;16"):
        return 1 / 257
    _, brightest = image.getextrema()
    assert isinstance(brightest, int | float)
    if image.mode == "I":
        return 1 / 257 if brightest > 255 else 1.0
    return 255.0 if brightest <= 1 else 1.0


def _scaled_grey(image: Image.Image, factor: float) -> Image.Image:
    grey = np.asarray(image, dtype=np.float32) * np.float32(factor)
    return Image.fromarray(np.nan_to_num(grey).clip(0, 255).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
