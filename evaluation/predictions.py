"""Captions in COCO results format: ``[{"image_id": ..., "caption": ...}, ...]``."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cli import UserError, write_json


def write_predictions(path: Path, captions: Mapping[str, str]) -> None:
    """Write image name -> caption in COCO results format."""
    write_json(path, [{"image_id": name, "caption": caption} for name, caption in captions.items()])


def read_predictions(path: Path, names: Collection[str]) -> dict[str, str]:
    """Read one caption for each of the images ``names``, in any order.

    An image_id is a file name, with or without its folder and suffix, or the number at the end of exactly one file name
    (391895 is COCO_val2014_000000391895.jpg).

    Raises:
        UserError: another format, or an image_id that is unknown, ambiguous, duplicated or missing.
    """
    images = _images_by_id(names)
    captions: dict[str, str] = {}
    for number, entry in enumerate(_read_list(path), start=1):
        where = f"{path}: entry {number}"
        if not _is_result(entry):
            raise UserError(f'{where}: must have an "image_id" (text or whole number) and a "caption" (text)')
        image_id = entry["image_id"]
        found = [image_id] if image_id in names else images.get(image_id, [])
        if not found and isinstance(image_id, str) and image_id.isdecimal():
            found = images.get(int(image_id), [])
        if not found:
            raise UserError(
                f"{where}: image_id {image_id!r} is none of the {len(names)} images to score. "
                "Check --captions_file and --split"
            )
        if len(found) > 1:
            raise UserError(f"{where}: image_id {image_id!r} may be {found[0]} or {found[1]}. Use the file name")
        if found[0] in captions:
            raise UserError(f"{where}: image_id {image_id!r}: {found[0]} has a caption already. Give each image one")
        captions[found[0]] = entry["caption"]
    missing = [name for name in names if name not in captions]
    if missing:
        raise UserError(
            f"{path}: no caption for {len(missing)} of the {len(names)} images to score, such as {missing[0]}. "
            "Check --captions_file and --split"
        )
    return captions


def _read_list(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"--predictions {path}: no such file") from error
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(entries, list):
        raise UserError(
            f'{path}: not in COCO results format, which is a list [{{"image_id": ..., "caption": ...}}, ...]'
        )
    return entries


def _is_result(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry.get("image_id")) in (str, int)  # not bool, a subclass of int
        and isinstance(entry.get("caption"), str)
    )


def _images_by_id(names: Collection[str]) -> dict[str | int, list[str]]:
    """Every other id an image may have than its full name -> the images it may refer to."""
    images: defaultdict[str | int, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        ids: set[str | int] = {str(path.with_suffix("")), path.name, path.stem}
        if number := re.search(r"[0-9]+$", path.stem):
            ids.add(int(number[0]))
        for image_id in ids:
            images[image_id].append(name)
    return images
