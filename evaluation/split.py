"""The split to caption: options that evaluate.py, inference_visualize.py and tools/benchmark.py share."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from cli import OptionParser, UserError, positive_int
from config import Config
from data.captions import ALL, SPLITS, read_captions, references_of
from data.features import FeatureCache
from data.images import drop_bad_images

DEFAULT_SPLIT = "test"


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


def add_split_options(parser: OptionParser) -> None:
    """Add --split, --captions_file and --image_dir, which ``open_split`` reads, and --limit; none has a default."""
    parser.add_argument(
        "--split", choices=SPLITS, help=f"images of the captions file to use (default: {DEFAULT_SPLIT})"
    )
    parser.add_argument(
        "--captions_file", type=Path, help="captions.csv with the references (default: the checkpoint's)"
    )
    parser.add_argument("--image_dir", type=Path, help="folder of the images (default: the checkpoint's)")
    parser.add_argument("--limit", type=positive_int, help="use only the first LIMIT images")


def add_captioner_options(parser: OptionParser, *, several: bool) -> None:
    """Add --checkpoint and --beam_size, which have no default and with ``several`` are lists, and --device."""
    listed: dict[str, Any] = {"nargs": "+", "action": "extend"} if several else {}
    compared = ", or several to compare" if several else ""
    parser.add_argument("--checkpoint", type=Path, help=f"trained model{compared} (default: checkpoints.pth)", **listed)
    parser.add_argument(
        "--beam_size",
        type=positive_int,
        help=f"hypotheses kept at each step of beam search{compared}; 1 is greedy search (default: the checkpoint's)",
        **listed,
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")


def add_cache_option(parser: OptionParser) -> None:
    """Add --feature_cache, which has no default."""
    parser.add_argument("--feature_cache", help="folder of the cached features (default: the checkpoint's)")


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
