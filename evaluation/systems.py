"""Whose captions are scored, and against what: checkpoints, each with some beam sizes, a baseline, or files of any system's captions."""

from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from cli import UserError
from data.captions import ALL, read_captions, references_of
from data.features import FeatureCache
from data.images import drop_bad_images
from evaluation.nearest import nearest_captions, pool
from evaluation.predictions import read_predictions
from models.captioner import Captioner
from utils import pick_device

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
    tables = [
        read_captions(options.captions_file or config.data.captions_file, config.train.seed) for config in configs
    ]
    split, image_dir = options.split or "test", options.image_dir or Path(configs[0].data.image_dir)
    every = references_of(tables[0], split)
    for path, table in zip(paths, tables, strict=True):
        if (
            references_of(table, split) != every
        ):  # another file; or a file without a split column, divided by another seed
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
        System(run.name, captions, run.checkpoint, run.beam_size)
        for run, captions in zip(runs, caption_images(images, runs), strict=True)
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
                found = run.captioner.generate(features[run.cache.folder], run.beam_size)
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
