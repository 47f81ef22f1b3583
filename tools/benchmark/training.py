"""Training on a frozen encoder: an epoch of the project from cached features, a step of the plain loop from images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import pandas as pd
import torch

from cli import UserError
from config import DecoderConfig, StageConfig
from data.captions import references_of
from data.vocab import Vocabulary
from models.captioner import Captioner
from tools.benchmark.limits import count_parts
from tools.benchmark.measurement import Measurement, measured
from tools.benchmark.plain_copy import plain_copy
from tools.benchmark.plain_training import make_batch, train_step
from tools.benchmark.subject import Subject
from tools.benchmark.timing import interleave, timed
from training.engine import train_one_epoch
from training.progress import Progress
from training.stage_setup import Stage, set_up_stage

IMAGES = 160  # of the epoch: ten steps of 16 images
VALIDATION = 2  # images for validation, which a stage of training has; nothing is validated here


@dataclass(frozen=True)
class Trainer:
    """A stage of training on a frozen encoder, whose features are cached.

    Args:
        captions, words: of its training images.
        encoding: seconds per caption that computing the features took.
    """

    stage: Stage
    captions: int
    words: int
    encoding: float

    def epoch(self) -> float:
        """Train for an epoch; return the seconds per caption."""
        progress = Progress(stage=self.stage.config.name)
        batches = self.stage.data.train_batches(epoch=0, first_step=0)
        return timed(lambda: train_one_epoch(self.stage, batches, progress), self.captions)


def set_up_trainer(
    subject: Subject, decoder: DecoderConfig, vocabulary: Vocabulary, images: int, cache: Path
) -> Trainer:
    """A decoder with random weights on the encoder of ``subject``, ready to train on the first images.

    Args:
        cache: folder for the features; those that are not there are computed here.

    Raises:
        UserError: there is a single image.
    """
    torch.manual_seed(0)
    old = subject.captioner.config
    config = replace(
        old,
        decoder=decoder,
        data=replace(old.data, image_dir=str(subject.image_dir), feature_cache=str(cache)),
        train=replace(old.train, precision=subject.precision_name, stages=[StageConfig()]),
    )
    captioner = Captioner(config, vocabulary, load_weights=False).to(subject.device)
    captioner.encoder = subject.captioner.encoder
    references = dict(islice(references_of(subject.table, subject.split).items(), subject.capped(images)))
    if len(references) < 2:
        raise UserError("training needs 2 images. Raise --limit, or name other images with --split")
    lengths = [len(vocabulary.encode(text)) - 1 for texts in references.values() for text in texts]
    features = captioner.eval().feature_cache(cache, mirror=False)
    encoding = timed(lambda: features.build([subject.image_dir / name for name in references]), len(lengths))
    stage = set_up_stage(captioner, training_table(references), config.train.stages[0])
    return Trainer(stage, len(lengths), sum(lengths), encoding)


def training_table(references: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """A captions file that trains on all images; validation, which is not measured here, has two of them again."""
    splits = [(name, "train") for name in references] + [(name, "val") for name in list(references)[:VALIDATION]]
    rows = [(name, caption, split) for name, split in splits for caption in references[name]]
    return pd.DataFrame(rows, columns=["image", "caption", "split"])


def measure_training(subject: Subject, decoder: DecoderConfig, repeats: int, cache: Path) -> Measurement:
    """Captions per second in training a decoder of the kind and size of ``decoder``.

    Args:
        cache: folder for the features, in which there are none yet.
    """
    trainer = set_up_trainer(subject, decoder, subject.captioner.vocabulary, IMAGES, cache)
    captioner, stage = trainer.stage.captioner, trainer.stage.config
    images = len(trainer.stage.data.references)
    plain = plain_copy(captioner)
    operations = count_parts(plain, subject.images(1), views=1)
    names = list(trainer.stage.data.references)[: captioner.config.train.batch_size]
    pixels = subject.load([subject.image_dir / name for name in names])
    encode = captioner.vocabulary.encode
    batch = make_batch(pixels, [[encode(text) for text in trainer.stage.data.references[name]] for name in names])
    plain.decoder.train()
    options = captioner.config.train
    optimizer = torch.optim.AdamW(plain.decoder.parameters(), lr=stage.lr, weight_decay=options.weight_decay)

    def step() -> float:
        work = partial(train_step, plain, optimizer, batch, stage.label_smoothing, options.grad_clip)
        return timed(work, len(batch.lengths))

    pairs = interleave(trainer.epoch, subject.exactly(step), repeats)
    each = operations.train(images, trainer.words) / trainer.captions
    first = 1 / (pairs.medians[0] + trainer.encoding)
    remark = f"{first:,.0f} captions/s of the project in the first epoch, in which the features are computed too"
    return measured(subject, f"training, {decoder.name} decoder, frozen encoder", "captions", pairs, each, remark)
