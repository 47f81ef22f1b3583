"""The JPG files of a gallery: captioned images, plain ones for the page, and strips of attention maps."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from data.tokenizer import CHARACTERS
from files import atomic_open
from gallery import heatmap
from gallery.fonts import find_font
from gallery.page import Entry

# Sizes in pixels.
CAPTIONED_SIDE = 1024  # longest side of the image in a captioned JPG
PAGE_SIDE = 640  # longest side of an image in the page: cards are up to 400 CSS pixels wide, each 1 to 3 device pixels
MIN_WIDTH = 224  # narrower images get white margins, or their caption would be a column of single words
MAX_LETTERS = 400  # longer captions are cut in the JPG; the page and captions.json have them whole

PANEL_SIDE = 312  # longest side of the image in a panel of an attention strip
PANEL_GAP = 8
PANEL_COLUMNS = 6  # with their gaps they fill a slide of 1920
MAX_PANELS = 120  # further words are left out of the strip: a JPG has at most 65,535 pixels a side


def file_name(name: str, taken: set[str]) -> str:
    """A JPG file name for the image ``name`` that is valid on every file system and not in ``taken``; adds it there.

    Images of two folders may have the same name, Windows reserves a few names whatever their suffix, and for macOS and
    Windows ``A.jpg`` and ``a.jpg`` are the same file, so ``taken`` holds lower-case names.
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("._-")[:50] or "image"
    stem = f"{stem}_" if re.fullmatch(r"con|prn|aux|nul|(com|lpt)\d", stem.split(".")[0], re.IGNORECASE) else stem
    result, number = f"{stem}.jpg", 1
    while result.lower() in taken:
        number += 1
        result = f"{stem}-{number}.jpg"
    taken.add(result.lower())
    return result


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Width and height times ``factor``, each at least one pixel."""
    width, height = size
    return max(1, round(width * factor)), max(1, round(height * factor))


def thumbnail_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height of a ``thumbnail`` of an image of this size."""
    return scaled(size, min(1.0, side / max(size)))


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """A copy with at most ``side`` pixels on the longer side; never enlarged."""
    # A large image is halved before it is resampled, as in Pillow's own thumbnail().
    return image.resize(thumbnail_size(image.size, side), Image.Resampling.LANCZOS, reducing_gap=2.0)


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` pixels: at spaces, between characters of scripts without spaces,
    or within a word that is longer than a line."""
    lines, gap = [""], ""
    for word, its_gap in CHARACTERS.pieces(text):
        joined, gap = lines[-1] + gap + word, its_gap
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for letter in word:  # the word fits on a line of its own, or is broken where the line is full
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def with_caption(image: Image.Image, caption: str) -> Image.Image:
    """The image, at most CAPTIONED_SIDE pixels, with its caption on a white strip below it. Any text is accepted.

    Control characters (line ends, RTL marks) become spaces. There is no strip if no font has the caption's letters,
    see ``find_font``.
    """
    image, file = thumbnail(image, CAPTIONED_SIDE), find_font(caption)
    if file is None:
        return image
    width = max(image.width, MIN_WIDTH)
    size = max(15, width // 28)  # about 25 letters a line on the narrowest strip, 45 on the widest
    margin = size * 3 // 4
    font = ImageFont.truetype(file, size)

    text = "".join(letter if letter.isprintable() else " " for letter in caption)
    text = text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 1] + "…"
    lines = wrap(text, font, width - 2 * margin)
    line_height = size * 4 // 3
    result = Image.new("RGB", (width, image.height + 2 * margin + line_height * len(lines)), "white")
    result.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(result)
    for number, line in enumerate(lines):
        draw.text((margin, image.height + margin + number * line_height), line, fill="#1b1b1f", font=font)
    return result


def attention_strip(image: Image.Image, words: Sequence[str], attention: torch.Tensor) -> Image.Image:
    """The image, then a panel for each word with its attention map (words, h, w) over the image, in rows.

    Like figure 3 of "Show, Attend and Tell" (Xu et al. 2015, https://arxiv.org/abs/1502.03044).
    """
    image = image.resize(scaled(image.size, PANEL_SIDE / max(image.size)), Image.Resampling.LANCZOS)
    maps = zip(words[: MAX_PANELS - 1], attention, strict=False)
    panels = [image, *(with_caption(heatmap.overlay(image, weights), word) for word, weights in maps)]
    columns = math.ceil(len(panels) / math.ceil(len(panels) / PANEL_COLUMNS))  # rows of about equal length
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    width = max(panel.width for panel in panels)  # panels of narrow images have margins, for their words
    height = sum(max(panel.height for panel in row) for row in rows)
    result = Image.new("RGB", (columns * (width + PANEL_GAP) - PANEL_GAP, height), "white")
    top = 0
    for row in rows:
        for column, panel in enumerate(row):
            result.paste(panel, (column * (width + PANEL_GAP) + (width - panel.width) // 2, top))
        top += max(panel.height for panel in row)
    return result


def save_jpeg(image: Image.Image, path: Path) -> None:
    """Write a JPG atomically.

    Encoded in memory: Pillow's encoder writes to an open file itself, and takes no notice of a disk that is full.
    """
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=88, optimize=True)
    with atomic_open(path, "wb") as file:
        file.write(jpeg.getbuffer())


def prepare(entry: Entry, image: Image.Image | None, file: str, *, strip: bool) -> Entry:
    """The entry with the name of its JPGs, the size of the plain one, and whether it gets an attention strip.

    Args:
        image: None if the entry has the size already.
    """
    width, height = thumbnail_size(image.size, PAGE_SIDE) if image else (entry.width, entry.height)
    return replace(entry, file=file, width=width, height=height, strip=strip and bool(entry.words))


def image_files(entry: Entry) -> list[str]:
    """The JPGs of an entry, relative to the output folder: captioned, plain and, if it has one, the attention strip."""
    return [entry.file, f"pictures/{entry.file}"] + [f"attention/{entry.file}"] * entry.strip


def save_images(image: Image.Image, entry: Entry, output_dir: Path) -> None:
    """Write the ``image_files`` of an entry that ``prepare`` returned."""
    size, image = thumbnail_size(image.size, PAGE_SIDE), thumbnail(image, CAPTIONED_SIDE)
    save_jpeg(with_caption(image, entry.caption), output_dir / entry.file)
    plain = image.resize(size, Image.Resampling.LANCZOS)  # once more from what is small already
    save_jpeg(plain, output_dir / "pictures" / entry.file)
    if entry.strip and entry.attention is not None:
        save_jpeg(attention_strip(plain, entry.words, entry.attention), output_dir / "attention" / entry.file)
