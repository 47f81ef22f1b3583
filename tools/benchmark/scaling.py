"""How times grow: with the number of images, threads, beams and words."""

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from data.features import FeatureCache
from data.vocab import SPECIAL, Vocabulary
from models.captioner import Captioner
from tools.benchmark.captioning import CAPTIONED, ENCODED, encode, over_batches
from tools.benchmark.checkpoints import read_batches
from tools.benchmark.subject import Subject
from tools.benchmark.timing import Work, timed, typical
from tools.benchmark.training import IMAGES, Trainer, set_up_trainer
from utils import peak_ram

Row = dict[str, float | None]  # name of a column -> value

FOLDERS = (500, 2_000, 7_000)  # images
BEAMS = (1, 3, 5, 10)
VOCABULARIES = (2_500, 10_000, 30_000)  # words
CAPTIONED_ROW, TRAINED_ROW = "images captioned/s", "captions trained/s"  # names of columns


def by_images(subject: Subject, folder: Path) -> Iterator[Row]:
    """Seconds for the features, an epoch of training and the captions of more and more images; each is done once.

    Args:
        folder: an empty one, for the features.
    """
    for count in sorted({len(subject.photos(count)) for count in FOLDERS}):
        cache = folder / str(count)  # of its own, or all but the first would find features
        trainer = _trainer(subject, subject.captioner.vocabulary, count, cache)
        features = subject.captioner.feature_cache(cache, mirror=False)
        paths = subject.photos(count)
        bad = features.build(paths)  # training has reported them
        paths = [path for path in paths if path not in bad]
        yield {
            "images": count,
            "features, s": trainer.encoding * trainer.captions,
            "epoch, s": trainer.epoch() * trainer.captions,
            f"{subject.beam_size} beams, s": timed(partial(_caption_all, subject, features, paths), 1),
            "peak RAM so far, GB": peak_ram(),
        }
        del features, trainer  # which map the files
        shutil.rmtree(cache)


def _caption_all(subject: Subject, features: FeatureCache, paths: Sequence[Path]) -> None:
    for batch in read_batches(features, paths, CAPTIONED):
        subject.captioner.generate(batch, subject.beam_size)


def by_threads(subject: Subject, repeats: int, cache: Path) -> Iterator[Row]:
    """Rates with one thread and with one per core."""
    images, features = subject.images(ENCODED), encode(subject, CAPTIONED)
    trainer = _trainer(subject, subject.captioner.vocabulary, IMAGES, cache)
    before = torch.get_num_threads()
    encode_images = over_batches(partial(subject.captioner.encode, mirror=False), [images])
    try:
        for threads in sorted({1, os.cpu_count() or 1}):
            torch.set_num_threads(threads)
            yield {
                "threads": threads,
                "images encoded/s": _rate(encode_images, repeats),
                TRAINED_ROW: _rate(trainer.epoch, repeats),
                CAPTIONED_ROW: _rate(_search(subject.captioner, features, subject.beam_size), repeats),
            }
    finally:
        torch.set_num_threads(before)


def by_beams(subject: Subject, repeats: int) -> Iterator[Row]:
    """Images captioned per second from features, many at once, with more and more beams."""
    features = encode(subject, CAPTIONED)
    for beam_size in BEAMS:
        yield {"beams": beam_size, CAPTIONED_ROW: _rate(_search(subject.captioner, features, beam_size), repeats)}


def by_words(subject: Subject, repeats: int, cache: Path) -> Iterator[Row]:
    """Rates of decoders with random weights, whose captions have the greatest length, for larger vocabularies."""
    features = encode(subject, CAPTIONED)
    for words in VOCABULARIES:
        vocabulary = Vocabulary([*SPECIAL, *(f"word{number}" for number in range(words - len(SPECIAL)))])
        trainer = _trainer(subject, vocabulary, IMAGES, cache)
        trained = _rate(trainer.epoch, repeats)
        captioner = trainer.stage.averaged.eval()
        captioned = _rate(_search(captioner, features, subject.beam_size), repeats)
        yield {"words": words, TRAINED_ROW: trained, CAPTIONED_ROW: captioned}


def _trainer(subject: Subject, vocabulary: Vocabulary, images: int, cache: Path) -> Trainer:
    return set_up_trainer(subject, subject.captioner.config.decoder, vocabulary, images, cache)


def _search(captioner: Captioner, features: torch.Tensor, beam_size: int) -> Work:
    return over_batches(partial(captioner.generate, beam_size=beam_size), [features])


def _rate(work: Work, repeats: int) -> float:
    return 1 / typical(work, repeats)
