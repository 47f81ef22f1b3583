"""Captions of any system, in COCO results format: ``[{"image_id": ..., "caption": ...}, ...]``."""

import codecs
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import structured
from cli import UserError
from files import write_json

SHAPE = '[{"image_id": "a.jpg", "caption": "A dog."}, ...]'


def write_predictions(path: Path, captions: Mapping[str, str]) -> None:
    """Write image name -> caption in COCO results format."""
    write_json(path, [{"image_id": name, "caption": caption} for name, caption in captions.items()])


def read_predictions(
    path: Path, names: Collection[str], ids: Mapping[str | int, str] = MappingProxyType({})
) -> dict[str, str]:
    """Read one caption for each of the images ``names``, in any order.

    The file is in COCO results format or a captions.json of inference_visualize.py, in which an image_id is called
    image. An image_id is one of ``ids`` or a file name, with or without its folder and suffix.
    Without ``ids``, it may be the number at the end of exactly one file name (391895 is
    COCO_val2014_000000391895.jpg). Folders before a file name are ignored if ``names`` do not have them.

    Args:
        ids: image id -> image name, from the file of the references.

    Raises:
        UserError: another format, or an image_id that is unknown, ambiguous, duplicated or missing.
    """
    images = _images_by_id(names, ids)
    captions: dict[str, str] = {}
    for number, entry in enumerate(_read_list(path), start=1):
        where = f"{path}: entry {number}"
        image_id, caption = _id_and_caption(entry, where)
        found = _find(image_id, images)
        if not found:
            raise UserError(
                f"{where}: image_id {image_id!r} is not among the {len(names)} images to score. It may be in another "
                "split: choose it with --split, or --split all; else check --captions_file"
            )
        if len(found) > 1:
            raise UserError(f"{where}: image_id {image_id!r} may be {found[0]} or {found[1]}. Use the file name")
        if found[0] in captions:
            raise UserError(f"{where}: image_id {image_id!r}: {found[0]} has a caption already. Give each image one")
        captions[found[0]] = caption
    missing = [name for name in names if name not in captions]
    if missing:
        raise UserError(
            f"{path}: no caption for {len(missing)} of the {len(names)} images to score, such as {missing[0]}. "
            "Check --captions_file and --split"
        )
    return captions


def _read_list(path: Path) -> list[Any]:
    """The entries of the file: a list of any values."""
    place = f"--predictions {path}"
    data = structured.read_file(path, structured.MAX_JSON_BYTES, place)
    text = data.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text.startswith(b"["):
        problem = "not in COCO results format" if text else "is empty"
        raise UserError(f"{place}: {problem}. Name a JSON file with a list such as {SHAPE}")
    return list(structured.parse_json(data, place))


def _id_and_caption(entry: Any, where: str) -> tuple[str | int, str]:
    """An entry in COCO results format, or of captions.json."""
    if isinstance(entry, dict):
        image_id, caption = entry.get("image_id", entry.get("image")), entry.get("caption")
        if isinstance(image_id, str | int) and not isinstance(image_id, bool) and isinstance(caption, str):
            return image_id, caption
    raise UserError(
        f'{where}: must have an "image_id" (text or whole number) or an "image" (text), and a "caption" (text)'
    )


def _find(image_id: str | int, images: Mapping[str | int, Sequence[str]]) -> Sequence[str]:
    """The images that an id may refer to."""
    if image_id in images:
        return images[image_id]
    if isinstance(image_id, int):
        return ()
    if image_id.isdecimal():
        return images.get(int(image_id), ())
    parts = image_id.split("/")
    tails = ["/".join(parts[first:]) for first in range(1, len(parts))]
    return next(([tail] for tail in tails if images.get(tail) == [tail]), ())


def _images_by_id(names: Collection[str], known: Mapping[str | int, str]) -> dict[str | int, Sequence[str]]:
    """Every id an image may have -> the images it may refer to. A full name is that image's alone, as is a known id."""
    images: defaultdict[str | int, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        ids: set[str | int] = {str(path.with_suffix("")), path.name, path.stem}
        if not known and (number := re.search(r"[0-9]+$", path.stem)):
            ids.add(int(number[0]))
        for image_id in ids:
            images[image_id].append(name)
    alone = {image_id: [name] for image_id, name in known.items() if name in names} | {name: [name] for name in names}
    return {**images, **alone}
