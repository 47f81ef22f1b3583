"""gallery/fonts.py: a font for captions in any script. The systems on which this runs have different fonts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from gallery import fonts
from gallery.fonts import DEFAULT, find_font
from gallery.jpegs import with_caption

HAN = find_font("一个红色的圆形")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is remembered from or for other tests."""
    for forget in (True, False):
        for function in (fonts._installed, fonts._letters, fonts._report):
            function.cache_clear()
        if forget:
            yield


@pytest.mark.parametrize("text", ["a dog", "é Ж Ω א ع", "😀 \ufffd \U0001f9ff。", ""])
def test_letters_of_the_default_font_need_no_other(text: str) -> None:
    assert find_font(text) == DEFAULT


def test_without_a_font_the_jpg_has_no_text_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.ttf").write_text("not a font")
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(tmp_path / "broken.ttf"), str(DEFAULT)])
    image = Image.new("RGB", (300, 200), "red")
    assert with_caption(image, "一个红色的圆形") == image == with_caption(image, "สุนัข")
    assert with_caption(image, "a dog").height > 200
    note = capsys.readouterr().err
    assert note.count("note: ") == 1 and "apt install fonts-noto-cjk" in note


@pytest.mark.skipif(HAN is None, reason="needs a font with Chinese letters, such as fonts-noto-cjk")
def test_an_installed_font_is_found_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert find_font("一个 red 圆形") == HAN
    image = Image.new("RGB", (300, 200), "red")
    one, other = with_caption(image, "一只狗"), with_caption(image, "一只猫")
    assert one.size == other.size and one.height > 200 and one != other
    assert not capsys.readouterr().err


def test_fonts_for_running_text_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["/a/NotoSansCJK-Bold.ttc", "/a/NotoSansCJK-Regular.ttc", "/b/wqy.ttc", "/b/LastResort.otf"]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: names)
    monkeypatch.setattr(fonts, "_letters", lambda font: frozenset(map(ord, "a" if font == DEFAULT else "a一")))
    assert find_font("一") == Path("/b/wqy.ttc")
