"""The encoder and beam search, many images at once and one by one. The plain search takes one image at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from tools.benchmark.limits import exact_matmul
from tools.benchmark.measurement import Measurement, measured
from tools.benchmark.subject import Subject
from tools.benchmark.timing import Work, interleave, timed

ENCODED = 32  # images at once
CAPTIONED = 64  # images at once
SINGLE = 16  # images one by one


def over_batches(work: Callable[[torch.Tensor], object], batches: Sequence[torch.Tensor]) -> Work:
    """A function that does ``work`` on each batch, and returns the seconds per image."""

    def run() -> None:
        for batch in batches:
            work(batch)

    return lambda: timed(run, sum(map(len, batches)))


def measure_encoder(subject: Subject, repeats: int) -> Iterator[Measurement]:
    """Images encoded per second, a view each: in a batch, and one by one."""
    images, captioner, model = subject.images(ENCODED), subject.captioner, subject.plain.model

    def project(batch: torch.Tensor) -> torch.Tensor:
        return captioner.encode(batch, mirror=False).cpu()  # to the CPU: waits until a GPU is done

    @torch.no_grad()
    def plain(batch: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.encoder(batch)
        return features.cpu()

    singles = torch.split(images[:SINGLE], 1)
    for batches, how in (((images,), f"{len(images)} at once"), (singles, "one by one")):
        plain_work = subject.exactly(over_batches(plain, batches))
        pairs = interleave(over_batches(project, batches), plain_work, repeats)
        yield measured(subject, f"encoder, {how}", "images", pairs, subject.operations.encoder)


def measure_search(subject: Subject, repeats: int) -> Iterator[Measurement]:
    """Images captioned per second from their features: many at once, and one by one."""
    captioner, beam_size = subject.captioner, subject.beam_size
    features = encode(subject, CAPTIONED)
    singles = [each.float() for each in torch.split(features, 1)]
    captions = [candidates[0].caption for candidates in captioner.generate(features, beam_size)]
    with exact_matmul(subject.device, subject.precision):
        found = [subject.plain.search(each, beam_size) for each in singles]
    words = sum(plain.read for plain in found) / len(found)
    plain_captions = [captioner.vocabulary.decode(plain.tokens) for plain in found]
    same = sum(plain == caption for plain, caption in zip(plain_captions, captions, strict=True))
    remark = f"{same} of {len(found)} captions the same as the plain loop's"
    few = singles[:SINGLE]
    for batches, one_by_one, how, about in (
        ([features], singles, f"{len(features)} at once", remark),
        (few, few, "one by one", ""),
    ):
        project = over_batches(partial(captioner.generate, beam_size=beam_size), batches)
        plain = over_batches(partial(subject.plain.search, beam_size=beam_size), one_by_one)
        pairs = interleave(project, subject.exactly(plain), repeats)
        task = f"beam search, {beam_size} beams, {how}"
        yield measured(subject, task, "images", pairs, subject.operations.caption(words), about)


def encode(subject: Subject, count: int) -> torch.Tensor:
    """The features that the first images are captioned from, (B, P, D)."""
    batches = torch.split(subject.images(count), SINGLE)
    return torch.cat([subject.captioner.encode(batch, mirror=subject.views == 2) for batch in batches])
