"""Attention maps as colours over an image, for the gallery page, the JPG strips and the demo.

Attention is one weight per cell of the encoder's grid (h, w), such as 7 x 7; the weights of a word sum to 1. The grid
covers the whole image, which is resized to the encoder's input without cropping, so it is stretched over an image of
any shape.

Weights are divided by the maximum of their word. Zero keeps its colour, and nearly equal weights get nearly equal
colours; scaling from minimum to maximum would show structure where attention is uniform. Colours are therefore not
comparable between words.
"""

import base64

import numpy as np
import torch
from PIL import Image

# From dark blue to yellow, like cividis (Nunez et al. 2018, https://arxiv.org/abs/1712.01662): readable with colour
# blindness, and in greyscale print because brightness rises evenly. The page's script gets the same values.
COLD, HOT = (0, 34, 78), (255, 234, 70)
OPACITY = 0.55  # of the colours; the rest is the image


def relative(weights: torch.Tensor) -> torch.Tensor:
    """Weights (..., h, w) -> the same shape, divided by the maximum of each map."""
    return weights / weights.amax(dim=(-2, -1), keepdim=True)


def encode(attention: torch.Tensor) -> str:
    """Attention (words, h, w) as base64 for a data attribute: one byte per weight, row by row, 255 for the maximum."""
    return base64.b64encode((relative(attention) * 255).round().to(torch.uint8).numpy().tobytes()).decode("ascii")


def decode(encoded: str, grid: tuple[int, int]) -> torch.Tensor:
    """What ``encode`` returned -> attention (words, h, w), where the maximum of each word is 1.

    Raises:
        ValueError: it is not for such a grid, or a word has no weight at all.
    """
    weights = np.frombuffer(base64.b64decode(encoded), dtype=np.uint8).reshape(-1, *grid)
    if not weights.any(axis=(1, 2)).all():
        raise ValueError("a word without attention")
    return torch.from_numpy(weights / np.float32(255))


def overlay(image: Image.Image, weights: torch.Tensor) -> Image.Image:
    """An RGB image with the attention map (h, w) of one word over it, enlarged by bicubic interpolation."""
    grid = Image.fromarray(relative(weights).numpy().astype(np.float32))
    heat = np.asarray(grid.resize(image.size, Image.Resampling.BICUBIC)).clip(0, 1)  # bicubic overshoots
    colours = np.array(COLD) + heat[..., None] * (np.array(HOT) - np.array(COLD))  # (height, width, 3)
    mixed = (1 - OPACITY) * np.asarray(image, dtype=np.float32) + OPACITY * colours
    return Image.fromarray(mixed.round().astype(np.uint8))
