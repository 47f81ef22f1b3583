"""What is measured: a checkpoint, and the images and captions that it is measured on."""

from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import pandas as pd
import torch

from cli import ROOT, UserError
from config import ALL, DataConfig
from data.bad_images import check_image_dir
from data.captions import read_captions, references_of
from data.images import load_image
from models.captioner import Candidate, Captioner
from models.checkpoint import load_checkpoint
from models.pretrained import PRETRAINED, find_checkpoint
from tools.benchmark.limits import Operations, count_parts, exact_matmul, matmul_limit
from tools.benchmark.plain_captioner import PlainCaptioner
from tools.benchmark.plain_copy import plain_captioner
from utils import use_device

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: dict[torch.dtype, Precision] = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class TimedCaptioner(Captioner):
    """A captioner that adds up the seconds spent in its encoder and in beam search.

    Attributes:
        seconds: by method; to be cleared before a measurement.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def encode(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """See ``Captioner``."""
        began = perf_counter()
        features = super().encode(*arguments, **options)
        synchronize(self.device)  # or beam search would wait for it, at its own expense
        self.seconds["encode"] += perf_counter() - began
        return features

    def generate(self, *arguments: Any, **options: Any) -> list[list[Candidate]]:
        """See ``Captioner``."""
        began = perf_counter()
        found = super().generate(*arguments, **options)
        self.seconds["generate"] += perf_counter() - began
        return found


@dataclass(frozen=True)
class Subject:
    """A captioner in eval mode, its file, and a captions file with its images.

    Args:
        precision: what the user named; ``precision_name`` is what that means here.
        limit: the most images to use for anything; None: as many as each measurement wants.
    """

    captioner: TimedCaptioner
    path: Path
    table: pd.DataFrame
    split: str
    image_dir: Path
    beam_size: int
    precision: str
    limit: int | None

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.captioner.device

    @property
    def precision_name(self) -> Precision:
        """What the project computes in, as its options call it."""
        return PRECISIONS[self.captioner.precision]

    @property
    def views(self) -> int:
        """How many views of an image are encoded to caption it."""
        return 2 if self.captioner.config.generate.mirror else 1

    def capped(self, count: int) -> int:
        """``count``, or the limit if that is lower."""
        return count if self.limit is None else min(count, self.limit)

    def photos(self, count: int) -> list[Path]:
        """The first images of the split, at most ``count``.

        Raises:
            UserError: the split is empty.
        """
        return [self.image_dir / name for name in list(references_of(self.table, self.split))[: self.capped(count)]]

    def load(self, paths: Iterable[Path]) -> torch.Tensor:
        """Images as the encoder reads them, (B, 3, S, S)."""
        return torch.stack([self.captioner.transform(load_image(path)) for path in paths]).to(self.device)

    def images(self, count: int) -> torch.Tensor:
        """The first images of the split, see ``photos`` and ``load``."""
        return self.load(self.photos(count))

    @cached_property
    def plain(self) -> PlainCaptioner:
        """The plain captioner with the same weights."""
        return plain_captioner(self.captioner)

    @cached_property
    def operations(self) -> Operations:
        """Of the encoder and the decoder."""
        return count_parts(self.plain.model, self.images(1), self.views)

    @cached_property
    def limit_of_project(self) -> float:
        """Floating-point operations per second in matrix products, in the precision of the project."""
        return matmul_limit(self.captioner.precision, self.device)

    @cached_property
    def limit_of_plain(self) -> float:
        """The same in fp32, as the plain loop multiplies."""
        return self.exactly(lambda: matmul_limit(torch.float32, self.device))()

    def exactly(self, work: Callable[[], float]) -> Callable[[], float]:
        """``work`` of the plain loop: done in fp32 as PyTorch computes it unless told otherwise."""

        def exact() -> float:
            with exact_matmul(self.device, self.precision):
                return work()

        return exact


def open_subject(named: Path | None, options: Namespace) -> Subject:
    """The checkpoint and the images that the options of the command name.

    Args:
        named: None is the pretrained captioner: every clone of the repository has it.

    Raises:
        UserError: the checkpoint, the captions file or the folder of the images cannot be read.
    """
    path, content = find_checkpoint(named, photos=False) if named else (PRETRAINED, load_checkpoint(PRETRAINED))
    device = use_device(options.device, options.precision)
    captioner = TimedCaptioner.from_checkpoint(content, path, options.precision).to(device).eval()
    assert isinstance(captioner, TimedCaptioner)
    captioner.use_reranker("off")  # the plain loop does not rerank either
    table = read_captions(options.captions_file or ROOT / DataConfig.captions_file, captioner.config.train.seed)
    image_dir = options.image_dir or ROOT / DataConfig.image_dir
    if options.captions_file and not options.image_dir:
        raise UserError(f"--captions_file {options.captions_file}: name the folder of its images with --image_dir")
    check_image_dir(image_dir)
    beam_size = (options.beam_size or [captioner.config.generate.beam_size])[0]
    where = (table, options.split or ALL, image_dir)
    return Subject(captioner, path, *where, beam_size, options.precision, options.limit)
