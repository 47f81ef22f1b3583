"""Parsers for the annotation files of public data sets: Flickr8k's caption files and split lists, Karpathy's JSON."""

import csv
import io
import json
import re
from dataclasses import dataclass, field

from cli import UserError

SPLIT_LISTS = {
    "Flickr_8k.trainImages.txt": "train",
    "Flickr_8k.devImages.txt": "val",
    "Flickr_8k.testImages.txt": "test",
}
CAPTION_FILES = ("Flickr8k.token.txt", "captions.txt")  # the same captions in two layouts
KARPATHY_FILE = "dataset_flickr8k.json"
# COCO's "restval" is the part of its validation images that is commonly trained on.
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@dataclass
class Annotations:
    """The contents of caption files and split lists; the images need not exist."""

    captions: list[tuple[str, str]] = field(default_factory=list)  # (image, caption), in file order
    splits: dict[str, str] = field(default_factory=dict)  # image -> train, val or test


def decode(data: bytes) -> str:
    """Text in UTF-8 (with or without a byte order mark) or, failing that, in Latin-1."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_caption_file(data: bytes, place: str) -> list[tuple[str, str]]:
    """(image, caption) pairs of a caption file in one of the two public layouts, recognised by the first line.

    ``captions.txt`` is a CSV with the header ``image,caption``; ``Flickr8k.token.txt`` has lines of the form
    ``name.jpg#0<TAB>caption``.

    Args:
        place: path for error messages.

    Raises:
        UserError: a line has neither layout; the message names it.
    """
    text = decode(data)
    first = text.partition("\n")[0][:1000]  # cut off, because a binary file may have no line ends
    header = [name.strip().lower() for name in next(csv.reader([first]), [])]
    if "image" in header and "caption" in header:
        return _parse_csv(text, place, header.index("image"), header.index("caption"))
    captions = []
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):  # newline=None: CRLF is read as \n
        match = re.fullmatch(r"([^\t]+?)(?:#\d+)?\t(.*)\s*", line)
        if match:
            captions.append((match[1].strip(), match[2].strip()))
        elif line.strip():
            raise UserError(
                f"{place}, line {number}: {line.strip()[:60]!r} is not of the form 'name.jpg#0<TAB>caption'. "
                "Correct it, or write 'image,caption' as the first line if the file is a CSV"
            )
    return captions


def _parse_csv(text: str, place: str, image: int, caption: int) -> list[tuple[str, str]]:
    """(image, caption) pairs of a CSV with a header; ``image`` and ``caption`` are column numbers."""
    captions: list[tuple[str, str]] = []
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        width = len(next(reader))
        for row in reader:
            if row and (len(row) != width or "\n" in row[caption]):
                raise UserError(
                    f"{place}, line {reader.line_num}: a row must have {width} columns and be on one line. "
                    'Put double quotes around a caption with a comma, and write a quote inside them as ""'
                )
            if row:
                captions.append((row[image].strip(), row[caption].strip()))
    except csv.Error as error:
        raise UserError(f"{place}, line {reader.line_num}: {error}. Correct the quotes there") from error
    return captions


def parse_split_list(data: bytes) -> list[str]:
    """The image names in a split list, one per line."""
    return [line.strip() for line in decode(data).splitlines() if line.strip()]


def parse_karpathy(data: bytes, place: str) -> Annotations:
    """Captions and splits of a Karpathy JSON; images are named ``filepath/filename``, or ``filename`` without a path.

    Images whose split is not train, restval, val or test get none.

    Args:
        place: path for error messages.

    Raises:
        UserError: not JSON, or not of that layout; the message gives the position of the image.
    """
    try:
        images = list(json.loads(data)["images"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place}: not a Karpathy JSON, which is an object with a list 'images' ({error!r})") from error
    found = Annotations()
    for index, image in enumerate(images):
        try:
            name = f"{image['filepath']}/{image['filename']}" if image.get("filepath") else str(image["filename"])
            found.captions += [(name, sentence["raw"].strip()) for sentence in image["sentences"]]
            split = KARPATHY_SPLITS.get(image["split"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{place}: images[{index}] lacks a field, or has one of the wrong type ({error!r})"
            ) from error
        if split:
            found.splits[name] = split
    return found
