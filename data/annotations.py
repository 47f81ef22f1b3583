"""Parsers for the annotation files of public data sets: Flickr8k's, COCO's JSON, Karpathy's JSON."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structured
from cli import UserError
from data.formats import COCO, KARPATHY, SPLIT_NAMES, Format, conversion, recognise

SPLIT_LISTS = {
    "Flickr_8k.trainImages.txt": "train",
    "Flickr_8k.devImages.txt": "val",
    "Flickr_8k.testImages.txt": "test",
}
CAPTION_FILES = ("Flickr8k.token.txt", "captions.txt")  # the same captions in two layouts
KARPATHY_FILE = "dataset_flickr8k.json"


@dataclass
class Annotations:
    """The contents of caption files and split lists; the images need not exist."""

    captions: list[tuple[str, str]] = field(default_factory=list)  # (image, caption), in file order
    splits: dict[str, str] = field(default_factory=dict)  # image -> train, val or test
    ids: dict[str | int, str] = field(default_factory=dict)  # COCO's image id -> image

    def assign(self, image: str, split: str, place: str) -> None:
        """Put an image into a split.

        Args:
            place: path, for error messages.

        Raises:
            UserError: it is in another one already; the model would be tested on a training image.
        """
        other = self.splits.setdefault(image, split)
        if other != split:
            raise UserError(f"{place}: {image} is in {split} here, but in {other} elsewhere. Remove one of the two")

    def images(self) -> list[str]:
        """All images, each once, in file order."""
        return list(dict.fromkeys([*self.ids.values(), *self.splits, *(image for image, _ in self.captions)]))


def inner_path(name: str, place: str) -> str:
    """``name`` as it is: the name of an image, which must not lead out of the folder of the images.

    Otherwise the file of a stranger could have any picture of the disk trained on, shown and passed on.

    Args:
        place: file and row, for the message.

    Raises:
        UserError: it is absolute, has a drive letter, or has ".." in it.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name):
        raise UserError(
            f"{place}: the image {name[:60]!r} is not in the folder of the images. Name images relative to --image_dir"
        )
    return name


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
            captions.append((inner_path(match[1].strip(), f"{place}, line {number}"), match[2].strip()))
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
                name = inner_path(row[image].strip(), f"{place}, line {reader.line_num}")
                captions.append((name, row[caption].strip()))
    except csv.Error as error:
        raise UserError(f"{place}, line {reader.line_num}: {error}. Correct the quotes there") from error
    return captions


def parse_split_list(data: bytes) -> list[str]:
    """The image names in a split list, one per line."""
    return [line.strip() for line in decode(data).splitlines() if line.strip()]


def parse_karpathy(data: bytes, place: str) -> Annotations:
    """Captions and splits of a Karpathy JSON; images are named ``filepath/filename``, or ``filename`` without a path.

    Images whose split is none of SPLIT_NAMES get none.

    Args:
        place: path for error messages.

    Raises:
        UserError: not JSON, or not of that layout; the message gives the position of the image.
    """
    found = Annotations()

    def add(image: Mapping[str, Any], where: str) -> None:
        name = f"{image['filepath']}/{image['filename']}" if image.get("filepath") else str(image["filename"])
        inner_path(name, where)
        found.captions += [(name, sentence["raw"].strip()) for sentence in image["sentences"]]
        if split := SPLIT_NAMES.get(image["split"]):
            found.splits[name] = split

    _for_each(_lists(data, place, "a Karpathy JSON", "images")["images"], "images", place, add)
    return found


def parse_coco(data: bytes, place: str) -> Annotations:
    """Captions and ids of COCO's own captions JSON (captions_train2017.json); it has no splits.

    An image without a file name is named by its id.

    Args:
        place: path for error messages.

    Raises:
        UserError: not JSON, or not of that layout; the message gives the position of the image or caption.
    """
    lists = _lists(data, place, "COCO captions", "images", "annotations")
    found = Annotations()

    def add_image(image: Mapping[str, Any], where: str) -> None:
        found.ids[image["id"]] = inner_path(str(image.get("file_name") or image["id"]), where)

    def add_caption(annotation: Mapping[str, Any], _: str) -> None:
        if annotation["image_id"] not in found.ids:
            raise UserError(f"{place}: annotation of image_id {annotation['image_id']!r}, which is not in 'images'")
        found.captions.append((found.ids[annotation["image_id"]], annotation["caption"].strip()))

    _for_each(lists["images"], "images", place, add_image)
    _for_each(lists["annotations"], "annotations", place, add_caption)
    return found


def _lists(data: bytes, place: str, what: str, *names: str) -> dict[str, list[Any]]:
    """The lists of a JSON object with these names."""
    wanted = f"{what}, which is an object with {' and '.join(f'a list {name!r}' for name in names)}"
    content = structured.parse_json(data, place)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in names):
        raise UserError(f"{place}: not {wanted}")
    return content


def _for_each(entries: list[Any], where: str, place: str, add: Callable[[Mapping[str, Any], str], None]) -> None:
    """Call ``add`` for each entry, with its place in the file.

    Raises:
        UserError: ``add`` misses a field of an entry, or finds one of the wrong type.
    """
    for index, entry in enumerate(entries):
        try:
            add(entry, f"{place}: {where}[{index}]")
        except KeyError as error:
            hint = ". Use the file of captions" if error.args[0] == "caption" else ""  # COCO's instances have none
            raise UserError(f"{place}: {where}[{index}] lacks the field {error}{hint}") from error
        except (TypeError, AttributeError) as error:
            raise UserError(f"{place}: {where}[{index}] has a field of the wrong type ({error})") from error


PARSERS: dict[Format, Callable[[bytes, str], Annotations]] = {COCO: parse_coco, KARPATHY: parse_karpathy}


def read_json(path: Path, expected: Format | None = None) -> Annotations:
    """Read the captions of COCO's or Karpathy's JSON.

    Args:
        expected: the format that the user named; None if either will do.

    Raises:
        UserError: no such file, or another format.
    """
    structured.check_file(path, structured.MAX_JSON_BYTES)
    found = recognise(path)
    if found not in PARSERS or expected not in (None, found):
        wanted = expected.text if expected else " or ".join(parser.text for parser in PARSERS)
        if not path.stat().st_size:
            raise UserError(f"{path}: the file is empty, not {wanted}. Name another one")
        raise UserError(f"{path}: {found.text}, not {wanted}. Run: {conversion(path)}")
    return PARSERS[found](path.read_bytes(), str(path))
