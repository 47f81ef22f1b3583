"""The JPGs of a gallery: captioned pictures, and strips of where the decoder looked."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont

from cli import atomic_open
from gallery import heatmap
from gallery.page import Entry

PICTURE_SIDE = 1024  # longest side of a captioned JPG, in pixels


PAGE_SIDE = 640  # of a picture in the page: a card is at most about 400 CSS pixels wide, phones have 2 to 3 pixels to each of those


STRIP_WIDTH = 224  # a narrower picture gets white margins, or its caption would be a column of single words


STRIP_LETTERS = 400  # a longer caption is cut in the JPG; page and captions.json have all of it


PANEL_SIDE = 312  # longest side of a picture in an attention strip


PANEL_GAP = 8  # six of them, and what is between, fill a slide of 1920


PANEL_COLUMNS = 6


FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


PANELS = 120  # more words are left out of the strip; JPGs end at 65,535 pixels


def file_name(image: str, taken: set[str]) -> str:
    """A JPG name for ``image`` that every file system takes and that is not among ``taken`` yet; adds it there.

    Windows keeps a few names for devices, whatever their suffix.

    Two folders may hold the same name, and macOS and Windows hold ``A.jpg`` and ``a.jpg`` for the same file: ``taken`` is in lower case.
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(image).stem).strip("._-")[:50] or "picture"
    stem = f"{stem}_" if re.fullmatch(r"con|prn|aux|nul|(com|lpt)\d", stem.split(".")[0], re.IGNORECASE) else stem
    name, number = f"{stem}.jpg", 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}.jpg"
    taken.add(name.lower())
    return name


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """A copy with at most ``side`` pixels on the longer side; never enlarged."""
    copy = picture.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` pixels, at blanks where there are any."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for letter in word:  # fits on a line of its own, or is broken where the line is full
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def with_caption(picture: Image.Image, caption: str) -> Image.Image:
    """The picture, at most PICTURE_SIDE pixels, with its caption on a white strip under it. Any text will do.

    Matplotlib brings DejaVu Sans, so the letters are the same everywhere: Latin (Pillow's own font has not even "é"), Greek, Cyrillic, Hebrew,
    Arabic and some emoji; what it lacks shows as boxes. Characters that only steer layout (line ends, RTL marks) become blanks.
    """
    picture = shrink(picture, PICTURE_SIDE)
    width = max(picture.width, STRIP_WIDTH)
    size = max(15, width // 28)  # about 25 letters a line on the narrowest strip, 45 on the widest
    margin = size * 3 // 4
    font = ImageFont.truetype(FONT, size)

    text = "".join(letter if letter.isprintable() else " " for letter in caption)
    text = text if len(text) <= STRIP_LETTERS else text[: STRIP_LETTERS - 1] + "…"
    lines = wrap(text, font, width - 2 * margin)
    line_height = size * 4 // 3
    result = Image.new("RGB", (width, picture.height + 2 * margin + line_height * len(lines)), "white")
    result.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(result)
    for number, line in enumerate(lines):
        draw.text((margin, picture.height + margin + number * line_height), line, fill="#1b1b1f", font=font)
    return result


def attention_strip(picture: Image.Image, words: Sequence[str], attention: torch.Tensor) -> Image.Image:
    """The picture, then once more for each word with its weights (words, P) over it and the word under it, in rows.

    As figure 3 of "Show, Attend and Tell" (Xu et al. 2015, https://arxiv.org/abs/1502.03044).
    """
    scale = PANEL_SIDE / max(picture.size)
    picture = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.LANCZOS
    )
    looks = zip(words[: PANELS - 1], attention, strict=False)
    panels = [picture, *(with_caption(heatmap.overlay(picture, weights), word) for word, weights in looks)]
    columns = math.ceil(len(panels) / math.ceil(len(panels) / PANEL_COLUMNS))  # rows of about equal length
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    width = max(panel.width for panel in panels)  # narrow pictures have margins, for their words
    height = sum(max(panel.height for panel in row) for row in rows)
    result = Image.new("RGB", (columns * (width + PANEL_GAP) - PANEL_GAP, height), "white")
    top = 0
    for row in rows:
        for column, panel in enumerate(row):
            result.paste(panel, (column * (width + PANEL_GAP) + (width - panel.width) // 2, top))
        top += max(panel.height for panel in row)
    return result


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Write a JPG atomically."""
    with atomic_open(path, "wb") as file:
        picture.save(file, "JPEG", quality=88, optimize=True)


def save_pictures(picture: Image.Image, entry: Entry, output_dir: Path, taken: set[str], strips: bool = False) -> Entry:
    """Write the captioned and the plain JPG of a picture, with ``strips`` its attention too; return its entry with file name and size."""
    name = file_name(entry.image, taken)
    save_jpeg(with_caption(picture, entry.caption), output_dir / name)
    plain = shrink(picture, PAGE_SIDE)
    save_jpeg(plain, output_dir / "pictures" / name)
    entry = replace(entry, file=name, width=plain.width, height=plain.height)
    if strips and entry.attention is not None and entry.words:
        save_jpeg(attention_strip(plain, entry.words, entry.attention), output_dir / "attention" / name)
        entry = replace(entry, strip=True)
    return entry
