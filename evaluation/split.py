"""The split of a captions file to caption or to score, as the options of evaluation/options.py ask for it."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pandas as pd

from cli import UserError
from config import ALL, Config
from data.annotations import PARSERS, read_json
from data.bad_images import check_image_dir, drop_bad_images
from data.captions import captions_source, read_captions, references_of
from data.features import FeatureCache
from data.formats import recognise
from data.images import ImageError
from evaluation.options import DEFAULT_SPLIT


@dataclass(frozen=True)
class Split:
    """The images of one split of a captions file.

    Args:
        name: train, val or test; "all" if the file is not divided.
        table: the whole captions file, with the columns image, caption and split.
        image_dir: the folder of the images, for scripts that read them.
        ids: COCO's image id -> image, if the file has such ids.
    """

    name: str
    table: pd.DataFrame
    image_dir: Path
    ids: Mapping[str | int, str] = field(default_factory=dict)

    def references(self, limit: int | None = None) -> dict[str, list[str]]:
        """Image name -> its captions, of all images of the split or the first ``limit``.

        Raises:
            UserError: the split is empty.
        """
        return dict(islice(references_of(self.table, self.name).items(), limit))

    def references_inside(self, limit: int | None = None) -> dict[str, list[str]]:
        """``references``, for results that show the images: all must be in the folder of the images.

        A captions file may come from a stranger and name any picture of the disk. Links in the folder are followed: its
        owner has made them.

        Raises:
            UserError: an image is outside.
        """
        references, folder = self.references(limit), Path(os.path.normpath(self.image_dir.absolute()))
        for name in references:
            if ".." in Path(name).parts or not (folder / name).is_relative_to(folder):
                raise UserError(
                    f"the image {name} is not in --image_dir {self.image_dir}, and a page that shows it may be passed "
                    "on. Name a folder that contains all images with --image_dir, or remove its rows"
                )
        return references

    def training_captions(self) -> list[str]:
        """The captions of the file's training split; none if it has no training split."""
        return list(self.table.loc[self.table["split"] == "train", "caption"])


def open_split(config: Config, options: Namespace) -> Split:
    """The split that ``add_split_options`` asks for; what they leave out comes from the config of the checkpoint.

    Raises:
        UserError: the captions file cannot be read, or there is no such folder of images.
    """
    table = read_captions(options.captions_file or captions_source(config.data), config.train.seed)
    image_dir = options.image_dir or Path(config.data.image_dir)
    check_image_dir(image_dir)
    return Split(options.split or DEFAULT_SPLIT, table, image_dir)


def open_references(captions_file: Path, split: str | None, seed: int | None) -> Split:
    """A split without a checkpoint, to score captions of any system.

    Args:
        captions_file: a captions.csv, COCO's own captions JSON or a Karpathy JSON.
        split: None is the test split, or all images if the file is not divided into splits.
        seed: ``train.seed`` of the run that divided a CSV without a split column.

    Raises:
        UserError: the captions file cannot be read, needs ``seed`` because it has no split column, or has one (or is a
            JSON) although ``seed`` is given.
    """
    table, ids = _read_references(captions_file)
    undivided = bool((table["split"] == ALL).all())
    if seed is not None:
        if not undivided:
            raise UserError(f"--seed {seed}: {captions_file} has a split column, so --seed has no effect. Leave it out")
        table, undivided = read_captions(captions_file, seed), False
    if undivided and split not in (None, ALL):
        raise UserError(
            f"--split {split}: {captions_file} has no split column. Leave out --split to score all images. If it is a "
            "CSV, you can also add the column, or name the train.seed that divided the images with --seed"
        )
    return Split(split or (ALL if undivided else DEFAULT_SPLIT), table, Path(), ids)


def _read_references(captions_file: Path) -> tuple[pd.DataFrame, Mapping[str | int, str]]:
    """The captions with their splits, ``ALL`` if there are none, and COCO's image ids."""
    if not captions_file.is_file() or recognise(captions_file) not in PARSERS:
        return read_captions(captions_file, None), {}
    annotations = read_json(captions_file)
    rows = [
        (image, caption, annotations.splits.get(image, "") if annotations.splits else ALL)
        for image, caption in annotations.captions
        if caption
    ]
    return pd.DataFrame(rows, columns=["image", "caption", "split"]), annotations.ids


def usable_images(
    references: dict[str, list[str]], image_dir: Path, caches: Sequence[FeatureCache]
) -> dict[str, list[str]]:
    """Compute the missing features; return the images that all ``caches`` have features of, and report the others.

    Raises:
        UserError: more than 5 % of the images cannot be read.
    """
    bad: dict[Path, ImageError] = {}
    for cache in caches:
        bad |= cache.build([image_dir / name for name in references])
    return drop_bad_images(references, image_dir, bad)
