"""heatmap.py: colours that say where the decoder looked, and no more than that."""

import base64

import numpy as np
import pytest
import torch
from PIL import Image

from gallery import heatmap, pictures
from gallery.pictures import attention_strip

SIDE = 7


def one_hot(cell: int) -> torch.Tensor:
    """Nearly all attention (49,) on one cell."""
    return torch.nn.functional.one_hot(torch.tensor(cell), SIDE**2) * 0.9 + 0.1 / SIDE**2


def brightness(picture: Image.Image) -> np.ndarray:
    """The mean brightness of each cell: (7, 7)."""
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=float)


@pytest.mark.parametrize("cell", [0, 6, 9, 24, 42, 48])
@pytest.mark.parametrize("size", [(140, 140), (280, 70), (70, 280)])
@pytest.mark.parametrize("colour", ["black", "gray", "white"])
def test_the_colour_is_where_the_weight_is(cell: int, size: tuple[int, int], colour: str) -> None:
    cells = brightness(heatmap.overlay(Image.new("RGB", size, colour), one_hot(cell)))
    assert cells.argmax() == cell
    assert cells.max() - np.median(cells) > 40  # to be seen on dark and bright pictures alike


def test_like_weights_look_alike() -> None:
    grey = Image.new("RGB", (70, 70), "gray")
    assert len(heatmap.overlay(grey, torch.full((SIDE**2,), 1 / SIDE**2)).getcolors()) == 1
    nearly = torch.linspace(0.95, 1.0, SIDE**2)
    cells = brightness(heatmap.overlay(grey, nearly / nearly.sum()))
    assert 0 < np.ptp(cells) < 0.1 * np.ptp(brightness(heatmap.overlay(grey, one_hot(24))))


def test_the_photograph_stays_visible() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8).repeat(2), (140, 35))).convert("RGB")
    for weights in (one_hot(24), torch.full((SIDE**2,), 1 / SIDE**2)):
        row = np.asarray(heatmap.overlay(stripes, weights).convert("L"), dtype=float)[70]
        assert abs(np.diff(row))[1::2].min() > 0.4 * 255  # from each stripe to the next


def test_encoded_weights_are_bytes_relative_to_each_words_greatest() -> None:
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.02, 0.0]])
    assert list(base64.b64decode(heatmap.encode(attention))) == [64, 128, 191, 255, 255, 255, 255, 255, 255, 3, 5, 0]


@pytest.mark.parametrize("count", [1, 5, 6, 7, 12, 25])
@pytest.mark.parametrize("size", [(32, 24), (24, 32), (1600, 1200)])
def test_a_strip_has_the_picture_and_a_panel_for_each_word(count: int, size: tuple[int, int]) -> None:
    picture, attention = Image.new("RGB", size, "red"), torch.full((count, SIDE**2), 1 / SIDE**2)
    result = attention_strip(picture, ["word"] * count, attention)
    alone = attention_strip(picture, ["word"], attention[:1])  # picture and one panel
    step, height = (alone.width + pictures.PANEL_GAP) // 2, alone.height
    columns, rows = result.width // step + 1, result.height // height
    assert (columns * step - pictures.PANEL_GAP, rows * height) == result.size and columns <= pictures.PANEL_COLUMNS
    assert rows == -(-(1 + count) // pictures.PANEL_COLUMNS)  # no more than it takes
    middles = [result.getpixel((x * step + step // 2, y * height + 110)) for y in range(rows) for x in range(columns)]
    assert middles[0] == (255, 0, 0)
    assert len([middle for middle in middles if middle != (255, 255, 255)]) == 1 + count
    words = np.asarray(result.convert("L"))[-30:, :step]  # the first panel of the last row has its word under it
    assert rows == 1 or words.min() < 100


def test_each_panel_shows_its_own_word() -> None:
    result = attention_strip(
        Image.new("RGB", (320, 320), "gray"), ["left", "right"], torch.stack([one_hot(0), one_hot(48)])
    )
    side, step = pictures.PANEL_SIDE, pictures.PANEL_SIDE + pictures.PANEL_GAP
    panels = [result.crop((step * number, 0, step * number + side, side)) for number in range(3)]
    assert np.ptp(brightness(panels[0])) == 0
    assert [brightness(panel).argmax() for panel in panels[1:]] == [0, 48]


@pytest.mark.parametrize(
    "words", [["x" * 10_000] * 3, ["\u202e\u05e9", "\0", "\U0001f469\u200d\U0001f467", "<b>"], ["word"] * 2000]
)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_any_words_and_any_picture_make_a_strip(words: list[str], size: tuple[int, int]) -> None:
    result = attention_strip(Image.new("RGB", size), words, torch.full((len(words), 9), 1 / 9))
    assert max(result.size) < 65_000  # a JPG takes no more
