"""gallery/heatmap.py: the colours are where the weights are, whatever the shapes of grid and image."""

import base64

import numpy as np
import pytest
import torch
from PIL import Image

from gallery import heatmap

GRIDS = [(7, 7), (2, 5), (5, 2)]


def one_hot(row: int, column: int, grid: tuple[int, int] = (7, 7)) -> torch.Tensor:
    """Nearly all attention (h, w) on one cell."""
    weights = torch.full(grid, 0.1 / (grid[0] * grid[1]))
    weights[row, column] += 0.9
    return weights


def brightness(image: Image.Image, grid: tuple[int, int] = (7, 7)) -> np.ndarray:
    """The mean brightness of each cell (h, w)."""
    return np.asarray(image.convert("L").resize(grid[::-1], Image.Resampling.BOX), dtype=float)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(140, 140), (280, 70), (70, 280)])
@pytest.mark.parametrize("colour", ["black", "gray", "white"])
def test_the_brightest_cell_is_the_one_with_the_greatest_weight(
    grid: tuple[int, int], size: tuple[int, int], colour: str
) -> None:
    for row in range(grid[0]):
        for column in range(grid[1]):
            image = heatmap.overlay(Image.new("RGB", size, colour), one_hot(row, column, grid))
            cells = brightness(image, grid)
            assert image.size == size and cells.argmax() == row * grid[1] + column
            assert cells.max() - np.median(cells) > 40  # visible on dark and bright images alike


def test_equal_weights_have_equal_colours_and_similar_weights_similar_ones() -> None:
    grey = Image.new("RGB", (70, 70), "gray")
    assert len(heatmap.overlay(grey, torch.full((7, 7), 1 / 49)).getcolors()) == 1
    similar = torch.linspace(0.95, 1.0, 49).reshape(7, 7)
    cells = brightness(heatmap.overlay(grey, similar / similar.sum()))
    assert 0 < np.ptp(cells) < 0.1 * np.ptp(brightness(heatmap.overlay(grey, one_hot(3, 3))))


def test_the_image_stays_visible() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8).repeat(2), (140, 35))).convert("RGB")
    for weights in (one_hot(3, 3), torch.full((7, 7), 1 / 49)):
        row = np.asarray(heatmap.overlay(stripes, weights).convert("L"), dtype=float)[70]
        assert abs(np.diff(row))[1::2].min() > 0.4 * 255  # from each stripe to the next


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 1, 4), (3, 4, 1)])
def test_encoded_weights_are_bytes_relative_to_the_maximum_of_each_word(shape: tuple[int, ...]) -> None:
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.02, 0.0]])
    text = heatmap.encode(attention.reshape(shape))
    encoded = base64.b64decode(text)
    assert list(encoded) == [64, 128, 191, 255, 255, 255, 255, 255, 255, 3, 5, 0]
    decoded = heatmap.decode(text, shape[1:])
    assert decoded.shape == shape and decoded.max() == 1 and heatmap.encode(decoded) == text


def test_the_attention_of_an_empty_caption_is_empty() -> None:
    assert heatmap.decode(heatmap.encode(torch.rand(0, 2, 5)), (2, 5)).shape == (0, 2, 5)
