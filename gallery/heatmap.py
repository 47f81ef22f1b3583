"""Where a decoder looked as it said a word, in colours over the picture: for the gallery's page and for the JPG strips.

Attention is a weight for each position of the encoder's grid (7 x 7 for pictures of 224 pixels, row by row), which covers the whole
picture, squeezed to a square; so the grid is stretched over the picture whatever its shape. The weights of a word sum to 1.

Each word is scaled to its own maximum, not to its own range: 0 keeps its colour and hardly differing weights hardly differ in colour,
where stretching from the least to the greatest would draw a landscape into a decoder that looks everywhere alike. What it costs is that
colours tell nothing of how one word's weights compare with another's.
"""

import base64
import math

import numpy as np
import torch
from PIL import Image

# From dark blue to yellow, as cividis (Nunez et al. 2018, https://arxiv.org/abs/1712.01662): the same to colour-blind eyes, and as brightness
# rises evenly, readable in a grey print. Dark pictures turn bluish, bright ones dim, where the decoder did not look.
COLD, HOT = (0, 34, 78), (255, 234, 70)
OPACITY = 0.55  # of the colours; the rest is photograph


def relative(attention: torch.Tensor) -> torch.Tensor:
    """Weights (words, P) -> (words, P) from 0 to 1, the greatest weight of each word being 1."""
    return attention / attention.amax(dim=1, keepdim=True)


def encode(attention: torch.Tensor) -> str:
    """Weights (words, P) for a data attribute of the page: relative, a byte each (255 is the greatest), in base64."""
    return base64.b64encode((relative(attention) * 255).round().to(torch.uint8).numpy().tobytes()).decode("ascii")


def overlay(picture: Image.Image, weights: torch.Tensor) -> Image.Image:
    """The picture with the weights (P,) of one word over it, smoothly enlarged.

    Raises:
        ValueError: P is no square number.
    """
    side = math.isqrt(len(weights))
    grid = relative(weights.reshape(1, -1)).reshape(side, side).numpy().astype(np.float32)
    heat = np.asarray(Image.fromarray(grid).resize(picture.size, Image.Resampling.BICUBIC)).clip(
        0, 1
    )  # cubic curves overshoot
    colours = np.array(COLD) + heat[..., None] * (np.array(HOT) - np.array(COLD))  # (height, width, 3)
    mixed = (1 - OPACITY) * np.asarray(picture, dtype=np.float32) + OPACITY * colours
    return Image.fromarray(mixed.round().astype(np.uint8))
