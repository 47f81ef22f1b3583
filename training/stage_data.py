"""What one stage is trained and validated on: batches of cached features or of images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader

from cli import UserError, note
from config import StageConfig
from data.bad_images import MAX_BAD_SHARE, drop_bad_images, find_bad_images
from data.captions import find_left_right, references_of
from data.dataset import Batch, EpochSampler, Flickr8kDataset, ImageLoader, collate, shard_lengths
from data.images import ImageError
from data.transforms import Augment
from distributed import ALONE, Processes
from evaluation.metrics import Scorer
from models.captioner import Captioner
from training.interrupt import leave_signals_to_main

VALIDATION_BATCH = 64  # images
LOSS_CAPTIONS = 1000  # for the validation loss, or one per image: 5,000 of Flickr8k would take as long as beam search


@dataclass
class StageData:
    """The batches of a stage, and what its captions are compared with."""

    train: DataLoader[Any]
    sampler: EpochSampler
    val: DataLoader[Any]
    scorer: Scorer
    references: dict[str, list[str]]  # captions of the training images
    processes: Processes = ALONE
    missing: set[str] = field(default_factory=set)  # training images that have become unreadable since the stage began

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in an epoch."""
        return len(self.sampler)

    def train_batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of ``epoch`` (0, 1, ... over the whole run) from ``first_step`` on."""
        self.sampler.set_position(epoch, first_step)
        return self._together(self.train)

    def val_batches(self) -> Iterator[Batch]:
        """This process's batches of validation, then empty ones while another process has more."""
        return self._together(self.val)

    def _together(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """Read batches at the same time as the other processes, with which images that are missing are counted.

        Raises:
            RuntimeError: in each process, where the workers of one have died.
            UserError: too many images are missing, see ``skip``.
        """
        batches: Iterator[Batch] | None = None
        failure = None
        while True:
            try:
                batches = iter(loader) if batches is None else batches
                batch = next(batches, None)
            except RuntimeError as error:
                batch, failure = None, error
            missing = batch.missing if batch else {}
            failed, more, skipped = self.processes.any(failure is not None, batch is not None, bool(missing))
            if failed:
                raise failure or RuntimeError("another process can read no more batches")
            if skipped:
                self.skip({name: why for each in self.processes.gather(missing) for name, why in each.items()})
            if not more:
                return
            yield batch or collate([])

    def skip(self, missing: dict[str, str]) -> None:
        """Print and count the images missing from a batch: a few unreadable images must not abort a long run.

        Args:
            missing: image name -> why it cannot be read.

        Raises:
            UserError: it is an image of the validation split, or more than 5 % of the training images are missing.
        """
        for name, reason in missing.items():
            if name not in self.references:  # without it, scores would not be comparable with those before
                raise UserError(f"{reason}. It is a validation image: restore it")
            if name in self.missing:
                continue
            self.missing.add(name)
            count = f"{len(self.missing)} of {len(self.references)} training images can no longer be read"
            if len(self.missing) > MAX_BAD_SHARE * len(self.references):
                raise UserError(f"{count} (more than {MAX_BAD_SHARE:.0%}); the last: {reason}. Restore them")
            note(f"skipped: {reason} ({count})")


def some_captions(references: dict[str, list[str]], count: int) -> dict[str, list[str]]:
    """About ``count`` captions in all, equally many of each image, at least one.

    Data sets sort the captions of an image, so one image gives its first ones, the next those from the second on, ...
    """
    each = max(1, count // max(1, len(references)))
    chosen = {}
    for number, (name, captions) in enumerate(references.items()):
        start = number % len(captions) if each < len(captions) else 0
        chosen[name] = [*captions[start:], *captions[:start]][:each]
    return chosen


def prepare_data(
    captioner: Captioner, table: pd.DataFrame, stage: StageConfig, processes: Processes = ALONE
) -> StageData:
    """Cached features where the encoder is frozen and images are not augmented, else images, without the unreadable.

    Validation uses the features that captioning uses: with ``generate.mirror``, those of the mirror image too.

    Raises:
        UserError: more than 5 % of the images of a split cannot be read.
    """
    captioner.eval()  # as features are computed
    config = captioner.config
    image_dir = Path(config.data.image_dir)
    references = {split: references_of(table, split) for split in ("train", "val")}
    paths = {split: [image_dir / name for name in captions] for split, captions in references.items()}
    decoded = [split for split in paths if stage.encoder_lr > 0 or (split == "train" and stage.augments)]
    bad: dict[Path, ImageError] = {}
    load: dict[str, Callable[[str, int | None], torch.Tensor]] = {}
    if decoded:
        bad |= find_bad_images(
            [path for split in decoded for path in paths[split]], config.data.workers, Path(config.data.feature_cache)
        )
        left_right = find_left_right(references["train"]) if stage.flip else frozenset[str]()
        augment = Augment(stage.crop, stage.flip, stage.jitter)  # only where there is a seed: in training
        load |= dict.fromkeys(decoded, ImageLoader(image_dir, captioner.transform, augment, left_right))
    for split in (split for split in paths if split not in decoded):
        cache = captioner.feature_cache(config.data.feature_cache, mirror=split == "val" and config.generate.mirror)
        bad |= cache.build(paths[split])
        load[split] = cache.loader(image_dir)
    references = {split: drop_bad_images(captions, image_dir, bad) for split, captions in references.items()}
    captions = {**references, "val": some_captions(references["val"], LOSS_CAPTIONS)}
    shards = shard_lengths(captions["train"]) if "train" in decoded else []  # cached features are read from one file
    sampler = EpochSampler(len(captions["train"]), config.train.batch_size, config.train.seed, shards, processes)
    order = processes.share(range(len(captions["val"])))
    val_batches = [order[first : first + VALIDATION_BATCH] for first in range(0, len(order), VALIDATION_BATCH)]

    def loader(split: str, **batching: Any) -> DataLoader[Any]:
        dataset = Flickr8kDataset(captions[split], load[split], captioner.vocabulary)
        return _loader(dataset, captioner, from_images=split in decoded, **batching)

    return StageData(
        loader("train", batch_sampler=sampler),
        sampler,
        loader("val", batch_sampler=val_batches),
        Scorer(references["val"], captioner.vocabulary.tokenizer),
        references["train"],
        processes,
    )


def _loader(dataset: Flickr8kDataset, captioner: Captioner, *, from_images: bool, **batching: Any) -> DataLoader[Any]:
    on_gpu = captioner.device.type == "cuda"
    # Features are only copied from a memory map: on a CPU, workers would compete with training for its cores.
    workers = captioner.config.data.workers if from_images or on_gpu else 0
    return DataLoader(
        dataset,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=leave_signals_to_main,
        generator=torch.Generator(),  # dropout draws from the global one: resuming would shift its numbers
        persistent_workers=workers > 0,
        pin_memory=on_gpu,
        **batching,
    )
