"""Whose captions are scored, and against what: checkpoints, each with some beam sizes, a baseline, or files of any system's captions."""

import json
import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

import pandas as pd
import torch
from tqdm import tqdm

from data.dataset import ALL, drop_bad_images, read_captions, references_of
from data.features import FeatureCache
from models.captioner import Captioner
from nearest import nearest_captions, pool
from utils import UserError, pick_device

BATCH = 64  # images decoded at once; what an image gets does not depend on the others


@dataclass(frozen=True)
class System:
    """Something that captions, and what it said."""

    name: str
    captions: Mapping[str, str]  # image name -> caption
    checkpoint: Path | None = None
    beam_size: int | None = None
    predictions: Path | None = None  # the file that the captions came from


@dataclass(frozen=True)
class Task:
    """What all the systems are scored on."""

    split: str
    references: Mapping[str, Sequence[str]]  # image name -> what people wrote
    training: Collection[str]  # training captions; none where the captions file has none
    skipped: int = 0  # images that could not be used
    limit: int | None = None  # how many images were asked for, if the split has more


@dataclass(frozen=True)
class Run:
    """A checkpoint with one beam size, and the features that its encoder sees."""

    name: str
    checkpoint: Path
    captioner: Captioner
    cache: FeatureCache
    beam_size: int


def from_checkpoints(options: Namespace) -> tuple[Task, list[System]]:
    """Caption a split with every checkpoint and beam size, and by the baseline; ``options`` are evaluate.py's.

    Captions file, images and feature cache are those of the first checkpoint's config, unless the options name others.

    Raises:
        UserError: the checkpoints do not agree on the split; more than 5 % of its images cannot be used.
    """
    paths: list[Path] = options.checkpoint or [Path("checkpoints.pth")]
    captioners = [Captioner.load(path, pick_device(options.device)) for path in paths]
    configs = [captioner.config for captioner in captioners]
    tables = [read_captions(options.captions_file or config.data.captions_file, config.train.seed) for config in configs]
    split, image_dir = options.split or "test", options.image_dir or Path(configs[0].data.image_dir)
    every = references_of(tables[0], split)
    for path, table in zip(paths, tables, strict=True):
        if references_of(table, split) != every:  # another file; or a file without a split column, divided by another seed
            raise UserError(
                f"--checkpoint {path}: its split '{split}' is not that of {paths[0]}. Name one --captions_file, with a split column, for both"
            )
    lendable = references_of(tables[0], "train") if options.baseline else {}

    caches: dict[Path, FeatureCache] = {}  # checkpoints with the same encoder share one
    runs: list[Run] = []
    for name, path, captioner in zip(short_names(paths), paths, captioners, strict=True):
        root = options.feature_cache or configs[0].data.feature_cache
        cache = captioner.feature_cache(root, mirror=captioner.config.generate.mirror)
        cache = caches.setdefault(cache.folder, cache)
        for beam_size in options.beam_size or [captioner.config.generate.beam_size]:
            runs.append(Run(f"{name}, beam {beam_size}", path, captioner, cache, beam_size))
    asked = dict(list(every.items())[: options.limit])
    references = _usable(asked, image_dir, list(caches.values()))
    images = {name: image_dir / name for name in references}
    systems = [
        System(run.name, captions, run.checkpoint, run.beam_size) for run, captions in zip(runs, caption_images(images, runs), strict=True)
    ]
    if options.baseline:
        training = _usable(lendable, image_dir, [runs[0].cache])
        seen = pool(runs[0].cache, [image_dir / name for name in training])
        borrowed = nearest_captions(pool(runs[0].cache, list(images.values())), seen, list(training.values()))
        systems.append(System(options.baseline, dict(zip(images, borrowed, strict=True)), paths[0]))
    limit = options.limit if len(asked) < len(every) else None
    return Task(split, references, _training_captions(tables[0]), len(asked) - len(references), limit), systems


def from_files(options: Namespace) -> tuple[Task, list[System]]:
    """The captions of ``--predictions``, with references from ``--captions_file``; ``options`` are evaluate.py's.

    They are those of ``--split``; where none is named, of the test split, or of "all" images if the file has no split column.
    """
    table = read_captions(options.captions_file, 0 if options.split else None)
    split = options.split or (ALL if (table["split"] == ALL).all() else "test")
    references = references_of(table, split)
    systems = [
        System(name, read_predictions(path, references), predictions=path)
        for name, path in zip(short_names(options.predictions), options.predictions, strict=True)
    ]
    return Task(split, references, _training_captions(table)), systems


def caption_images(images: Mapping[str, Path], runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run, image name -> its best caption. The features of an image are read once for all runs with the same encoder."""
    captions: list[dict[str, str]] = [{} for _ in runs]
    names = list(images)
    with tqdm(total=len(names) * len(runs), desc="captioning", unit="img", disable=None) as bar:
        for first in range(0, len(names), BATCH):
            batch = names[first : first + BATCH]
            features: dict[Path, torch.Tensor] = {}  # (B, P, D) of each encoder
            for run, its_captions in zip(runs, captions, strict=True):
                if run.cache.folder not in features:
                    features[run.cache.folder] = torch.stack([run.cache[images[name]] for name in batch])
                found = run.captioner.caption_features(features[run.cache.folder], run.beam_size)
                its_captions |= {name: candidates[0].caption for name, candidates in zip(batch, found, strict=True)}
                bar.update(len(batch))
    return captions


def short_names(paths: Sequence[Path]) -> list[str]:
    """What to call files in a table: no suffix, and only the folders in which they differ."""
    whole = [path.resolve().with_suffix("") for path in paths]
    levels = zip(*(path.parent.parts for path in whole), strict=False)
    shared = len(list(takewhile(lambda folders: len(set(folders)) == 1, levels)))
    return ["/".join(path.parts[shared:]) for path in whole]


def _usable(references: dict[str, list[str]], image_dir: Path, caches: Sequence[FeatureCache]) -> dict[str, list[str]]:
    """The images whose features all caches have, or can compute; the others are named and left out."""
    bad: dict[Path, str] = {}
    for cache in caches:
        bad |= cache.build([image_dir / name for name in references])
    return drop_bad_images(references, image_dir, bad)


def _training_captions(table: pd.DataFrame) -> list[str]:
    return list(table.loc[table["split"] == "train", "caption"])


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
        raise UserError(f'{path}: not in COCO results format, which is a list [{{"image_id": ..., "caption": ...}}, ...]')
    images = _images_by_id(names)
    captions: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict) or type(entry.get("image_id")) not in (str, int) or not isinstance(entry.get("caption"), str):
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
            raise UserError(f"{where}: image_id {image_id!r} is {found[0]}, which has a caption already. One caption an image")
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
