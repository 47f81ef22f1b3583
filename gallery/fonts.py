"""Fonts for captions in any script: Matplotlib's DejaVu Sans, or an installed font that has the letters it lacks."""

import unicodedata
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from cli import note

# Located without importing matplotlib, which takes as long as captioning a photo
DEFAULT = Path(str(distribution("matplotlib").locate_file("matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf")))
# Parts of the names of fonts that are used only if no other has the letters; those of macOS' LastResort are boxes.
UNUSUAL = ("bold", "italic", "oblique", "light", "thin", "black", "heavy", "mono", "serif", "unifont", "lastresort")


def find_font(text: str) -> Path | None:
    """A font that has all letters of ``text``; None, with a note on stderr, if none is installed.

    DEFAULT is preferred, so that results are the same on every system. It covers Latin (Pillow's own font lacks even
    "é"), Greek, Cyrillic, Hebrew, Arabic and some emoji. Symbols that a font lacks do not count: they become boxes.
    """
    if text.isascii() and DEFAULT.exists():
        return DEFAULT
    letters = frozenset(ord(letter) for letter in text if unicodedata.category(letter)[0] in "LM")
    if letters <= _letters(DEFAULT):
        return DEFAULT
    font = next((font for font in _installed() if letters <= _letters(font)), None)
    if font is None:
        _report()
    return font


@cache
def _installed() -> list[Path]:
    """All installed fonts, those for running text first."""
    from matplotlib.font_manager import findSystemFonts  # its first import on a system takes seconds

    def rank(font: Path) -> tuple[bool, int, str]:
        name = font.name.lower()
        return any(part in name for part in UNUSUAL), len(name), name

    return sorted(map(Path, findSystemFonts()), key=rank)


@cache
def _letters(font: Path) -> frozenset[int]:
    """The code points that a font has; none if it cannot be read or scaled."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(str(font))
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(face.get_charmap()) if face.scalable else frozenset()


@cache  # once is enough
def _report() -> None:
    note(
        "note: no installed font has the letters of these captions, so their JPGs show no text; the page does. "
        "Install one: apt install fonts-noto-cjk (Chinese, Japanese), apt install fonts-noto-core (other scripts)"
    )
