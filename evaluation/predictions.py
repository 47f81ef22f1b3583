"""Captions of any system, in COCO results format."""

import json
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from cli import UserError


def read_predictions(path: Path, names: Collection[str]) -> dict[str, str]:
    """Captions in COCO results format, ``[{"image_id": ..., "caption": ...}, ...]``, one for each of the images ``names``.

    An image_id is a file name, with or without its folder and suffix, or the number that only one file name ends in
    (391895 is COCO_val2014_000000391895.jpg).

    Raises:
        UserError: not that format; an image_id that is unknown, could be several images, comes twice, or is missing.
    """
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
    images = _images_by_id(names)
    captions: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        if (
            not isinstance(entry, dict)
            or type(entry.get("image_id")) not in (str, int)
            or not isinstance(entry.get("caption"), str)
        ):
            raise UserError(f'{where}: must have an "image_id" (text or whole number) and a "caption" (text)')
        image_id = entry["image_id"]
        found = [image_id] if image_id in names else images.get(image_id, [])
        if not found and isinstance(image_id, str) and image_id.isdecimal():
            found = images.get(int(image_id), [])
        if not found:
            raise UserError(
                f"{where}: image_id {image_id!r} is none of the {len(names)} images to score. Check --captions_file and --split"
            )
        if len(found) > 1:
            raise UserError(f"{where}: image_id {image_id!r} could be {found[0]} or {found[1]}. Use the file name")
        if found[0] in captions:
            raise UserError(
                f"{where}: image_id {image_id!r} is {found[0]}, which has a caption already. One caption an image"
            )
        captions[found[0]] = entry["caption"]
    missing = [name for name in names if name not in captions]
    if missing:
        raise UserError(
            f"{path}: no caption for {len(missing)} of the {len(names)} images to score, such as {missing[0]}. Check --captions_file and --split"
        )
    return captions


def _images_by_id(names: Collection[str]) -> dict[str | int, list[str]]:
    """What else than its full name an image may be called -> the images that may be meant."""
    images: defaultdict[str | int, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        aliases: set[str | int] = {str(path.with_suffix("")), path.name, path.stem}
        if number := re.search(r"[0-9]+$", path.stem):
            aliases.add(int(number[0]))
        for alias in aliases:
            images[alias].append(name)
    return images
