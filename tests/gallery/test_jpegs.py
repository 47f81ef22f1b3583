"""gallery/jpegs.py: captioned JPGs, attention strips, and their file names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gallery import jpegs
from gallery.fonts import DEFAULT
from gallery.jpegs import attention_strip, file_name, save_jpeg, with_caption
from tests.support.hostile import HOSTILE


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("size", [(1, 1), (224, 224), (1, 3000), (3000, 1), (1600, 900)])
def test_any_text_is_drawn_under_any_image(text: str, size: tuple[int, int]) -> None:
    result = with_caption(Image.new("RGB", size, "red"), text)
    assert jpegs.MIN_WIDTH <= result.width <= jpegs.CAPTIONED_SIDE
    assert result.height < 2 * jpegs.CAPTIONED_SIDE


def test_the_caption_is_below_the_image_and_does_not_change_it() -> None:
    result = with_caption(Image.new("RGB", (300, 200), "red"), "a red image")
    assert result.crop((0, 0, 300, 200)).getcolors() == [(300 * 200, (255, 0, 0))]
    strip = result.crop((0, 200, *result.size)).convert("L")
    assert strip.getextrema()[0] < 100 and strip.getpixel((0, 0)) == 255  # dark text on white


@pytest.mark.parametrize(("one", "other"), [("é", "ß"), ("Ж", "Ю"), ("Ω", "Σ"), ("א", "ש"), ("ع", "م"), ("😀", "😭")])
def test_letters_of_many_scripts_are_drawn_not_boxes(one: str, other: str) -> None:
    image = Image.new("RGB", (224, 10))
    assert with_caption(image, one) != with_caption(image, other)


@pytest.mark.parametrize("size", [(1, 1), (640, 3), (3000, 1), (1, 3000), (4032, 3024), (641, 999)])
def test_the_size_of_a_thumbnail_is_known_without_making_it(size: tuple[int, int]) -> None:
    expected = jpegs.thumbnail_size(size, 640)
    assert jpegs.thumbnail(Image.new("RGB", size), 640).size == expected
    assert max(expected) == min(640, max(size))


def test_wrapped_lines_fit_the_width() -> None:
    font = jpegs.ImageFont.truetype(DEFAULT, 16)
    text = "several short words and one " + "very" * 40 + " long one"
    lines = jpegs.wrap(text, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_lines_break_between_characters_of_scripts_without_spaces() -> None:
    font = jpegs.ImageFont.truetype(DEFAULT, 16)
    text = "run 一只穿着Adidas的狗，在草地上跑"
    lines = jpegs.wrap(text, font, round(font.getlength("run 一只穿")))
    assert len(lines) > 3 and lines[0] == "run 一只穿" and "".join(lines) == text
    assert any("Adidas" in line for line in lines) and not any(line.startswith("，") for line in lines)


def test_file_names_are_safe_and_unique() -> None:
    taken: set[str] = set()
    odd = ["../../etc/passwd", "..", "con\0<>:?*.jpg", "\ud800.jpg", "x" * 500]
    names = [file_name(name, taken) for name in ["a/dog.jpg", "b/dog.png", "c/DOG.gif", *odd]]
    assert names[:3] == ["dog.jpg", "dog-2.jpg", "DOG-3.jpg"]
    assert len({name.lower() for name in names}) == len(names)
    reserved = [file_name(name, set()) for name in ("con.png", "Lpt1.x.png", "cone.png")]
    assert reserved == ["con_.jpg", "Lpt1.x_.jpg", "cone.jpg"]
    assert all(name == Path(name).name and not name.startswith(".") and len(name) < 80 for name in names)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 12, 25])
@pytest.mark.parametrize("size", [(32, 24), (24, 32), (1600, 1200)])
@pytest.mark.parametrize("grid", [(7, 7), (2, 5)])
def test_a_strip_has_the_image_and_a_panel_for_each_word(
    count: int, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    image, attention = Image.new("RGB", size, "red"), torch.full((count, *grid), 1 / (grid[0] * grid[1]))
    result = attention_strip(image, ["word"] * count, attention)
    two = attention_strip(image, ["word"], attention[:1])  # the image and one panel
    step, height = (two.width + jpegs.PANEL_GAP) // 2, two.height
    columns, rows = result.width // step + 1, result.height // height
    assert (columns * step - jpegs.PANEL_GAP, rows * height) == result.size and columns <= jpegs.PANEL_COLUMNS
    assert rows == -(-(1 + count) // jpegs.PANEL_COLUMNS)  # as few as possible
    centres = [result.getpixel((x * step + step // 2, y * height + 110)) for y in range(rows) for x in range(columns)]
    assert centres[0] == (255, 0, 0)
    assert len([colour for colour in centres if colour != (255, 255, 255)]) == 1 + count
    words = np.asarray(result.convert("L"))[-30:, :step]  # the first panel of the last row has its word below it
    assert rows == 1 or words.min() < 100


@pytest.mark.parametrize("grid", [(7, 7), (2, 5), (5, 2)])
def test_each_panel_shows_the_attention_of_its_own_word(grid: tuple[int, int]) -> None:
    attention = torch.full((2, *grid), 0.01)
    attention[0, 0, 0] = attention[1, -1, -1] = 1.0
    result = attention_strip(Image.new("RGB", (320, 320), "gray"), ["left", "right"], attention)
    side, step = jpegs.PANEL_SIDE, jpegs.PANEL_SIDE + jpegs.PANEL_GAP
    panels = [result.crop((step * number, 0, step * number + side, side)).convert("L") for number in range(3)]
    cells = [np.asarray(panel.resize(grid[::-1], Image.Resampling.BOX), dtype=float) for panel in panels]  # (h, w)
    assert np.ptp(cells[0]) == 0
    assert [panel.argmax() for panel in cells[1:]] == [0, grid[0] * grid[1] - 1]


@pytest.mark.parametrize(
    "words", [["x" * 10_000] * 3, ["\u202e\u05e9", "\0", "\U0001f469\u200d\U0001f467", "<b>"], ["word"] * 2000]
)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_any_words_and_any_image_make_a_strip(words: list[str], size: tuple[int, int]) -> None:
    result = attention_strip(Image.new("RGB", size), words, torch.full((len(words), 3, 3), 1 / 9))
    assert max(result.size) < 65_000  # the limit of JPG is 65,535


def test_a_disk_without_room_for_the_last_bytes_leaves_no_jpg(tmp_path: Path) -> None:
    """Pillow's encoder would not notice it, if it wrote to the file itself."""
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    image = Image.effect_noise((300, 300), 90)
    save_jpeg(image, whole := tmp_path / "whole.jpg")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size - 6, before[1]))
    try:
        with pytest.raises(OSError, match=r"cut\.jpg"):
            save_jpeg(image, tmp_path / "cut.jpg")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.jpg"]
