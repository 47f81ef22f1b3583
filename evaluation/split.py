"""The split of a captions file to caption or to score, as the options of evaluation/options.py ask for it."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from cli import UserError
from config import Config
from data.captions import ALL, read_captions, references_of
from data.features import FeatureCache
from data.images import drop_bad_images
from evaluation.options import DEFAULT_SPLIT


@dataclass(frozen=True)
class Split:
    """The images of one split of a captions file.

    Args:
        name: train, val or test; "all" if the file is not divided.
        table: the whole captions file, with the columns image, caption and split.
        image_dir: the folder of the images, for scripts that read them.
    """

    name: str
    table: pd.DataFrame
    image_dir: Path

    def references(self, limit: int | None = None) -> dict[str, list[str]]:
        """Image name -> its captions, of all images of the split or the first ``limit``.

        Raises:
            UserError: the split is empty.
        """
        return dict(islice(references_of(self.table, self.name).items(), limit))

    def training_captions(self) -> list[str]:
        """The captions of the file's training split; none if it has no training split."""
        return list(self.table.loc[self.table["split"] == "train", "caption"])


def open_split(config: Config, options: Namespace) -> Split:
    """The split that ``add_split_options`` asks for; what they leave out comes from the config of the checkpoint.

    Raises:
        UserError: the captions file cannot be read.
    """
    table = read_captions(options.captions_file or config.data.captions_file, config.train.seed)
    return Split(options.split or DEFAULT_SPLIT, table, options.image_dir or Path(config.data.image_dir))


def open_references(captions_file: Path, split: str | None, seed: int | None) -> Split:
    """A split without a checkpoint, to score captions of any system.

    Args:
        split: None is the test split, or all images if the file has no split column.
        seed: ``train.seed`` of the run that divided a file without a split column.

    Raises:
        UserError: the captions file cannot be read, needs ``seed`` because it has no split column, or has one although
            ``seed`` is given.
    """
    table = read_captions(captions_file, None)
    undivided = bool((table["split"] == ALL).all())
    if seed is not None:
        if not undivided:
            raise UserError(f"--seed {seed}: {captions_file} has a split column, so --seed has no effect. Leave it out")
        table, undivided = read_captions(captions_file, seed), False
    if undivided and split:
        raise UserError(
            f"--split {split}: {captions_file} has no split column. Add one, or leave out --split to score all images, "
            "or name the train.seed that divided the images with --seed"
        )
    return Split(split or (ALL if undivided else DEFAULT_SPLIT), table, Path())


def usable_images(
    references: dict[str, list[str]], image_dir: Path, caches: Sequence[FeatureCache]
) -> dict[str, list[str]]:
    """Compute the missing features; return the images that all ``caches`` have features of, and report the others.

    Raises:
        UserError: more than 5 % of the images cannot be read.
    """
    bad: dict[Path, str] = {}
    for cache in caches:
        bad |= cache.build([image_dir / name for name in references])
    return drop_bad_images(references, image_dir, bad)
