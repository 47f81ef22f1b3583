"""What one stage of training learns from and is judged by: cached features or pictures, in batches."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from cli import UserError
from config import StageConfig
from data.captions import find_left_right, references_of
from data.dataset import EpochSampler, Flickr8kDataset, ImageLoader, collate
from data.images import MAX_BAD_SHARE, drop_bad_images, find_bad_images
from data.transforms import Augment
from evaluation.metrics import Scorer
from models.captioner import Captioner
from training.interrupt import leave_signals_to_main


@dataclass
class StageData:
    """What one stage learns from and is judged by."""

    train: DataLoader[Any]
    sampler: EpochSampler
    val: DataLoader[Any]
    scorer: Scorer
    references: dict[str, list[str]]  # of the training images
    missing: set[str] = field(
        default_factory=set
    )  # training images that could be read when the stage began, but no longer

    def skip(self, missing: dict[str, str]) -> None:
        """Name and count what is missing from a batch: a few pictures that vanish or break must not kill a long run.

        Raises:
            UserError: an image of validation, whose scores would not compare with those before; or more than 5 % of the training images.
        """
        for name, reason in missing.items():
            if name not in self.references:
                raise UserError(f"{reason}. Validation could read it before: put it back, and go on with --resume auto")
            if name in self.missing:
                continue
            self.missing.add(name)
            count = f"{len(self.missing)} of {len(self.references)} training images can no longer be read"
            if len(self.missing) > MAX_BAD_SHARE * len(self.references):
                raise UserError(
                    f"{count} (more than {MAX_BAD_SHARE:.0%}); the last: {reason}. Put them back, and go on with --resume auto"
                )
            tqdm.write(f"skipped: {reason} ({count})")


def prepare_data(captioner: Captioner, table: pd.DataFrame, stage: StageConfig) -> StageData:
    """Cached features where the encoder is frozen and pictures are always the same, else pictures; bad images left out.

    Validation sees images as captioning does, so with ``generate.mirror`` their mirror images too.
    """
    captioner.eval()  # as features are computed
    config = captioner.config
    image_dir = Path(config.data.image_dir)
    references = {split: references_of(table, split) for split in ("train", "val")}
    paths = {split: [image_dir / name for name in captions] for split, captions in references.items()}
    pictured = [split for split in paths if stage.encoder_lr > 0 or (split == "train" and stage.augments)]
    bad: dict[Path, str] = {}
    load: dict[str, Any] = {}
    if pictured:
        bad |= find_bad_images([path for split in pictured for path in paths[split]], config.data.workers)
        sided = find_left_right(references["train"]) if stage.flip else frozenset[str]()
        augment = Augment(stage.crop, stage.flip, stage.jitter)  # of training images alone: others have no seed
        load |= dict.fromkeys(pictured, ImageLoader(image_dir, captioner.transform, augment, sided))
    for split in (split for split in paths if split not in pictured):
        cache = captioner.feature_cache(config.data.feature_cache, mirror=split == "val" and config.generate.mirror)
        bad |= cache.build(paths[split])
        load[split] = cache.loader(image_dir)
    references = {split: drop_bad_images(captions, image_dir, bad) for split, captions in references.items()}
    train, val = (Flickr8kDataset(references[split], load[split], captioner.vocabulary) for split in ("train", "val"))
    sampler = EpochSampler(len(train), config.train.batch_size, config.train.seed)

    def loader(dataset: Flickr8kDataset, **batching: Any) -> DataLoader[Any]:
        workers = config.data.workers if isinstance(dataset.load, ImageLoader) else 0
        return DataLoader(
            dataset,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=leave_signals_to_main,
            generator=torch.Generator(),  # of its own, not the one that dropout draws from, or resuming would change its numbers
            persistent_workers=workers > 0,
            **batching,
        )

    return StageData(
        loader(train, batch_sampler=sampler),
        sampler,
        loader(val, batch_size=64),
        Scorer(references["val"]),
        references["train"],
    )
