"""What is done with a batch: readers decode its images, a captioner turns them into rows. On one machine or on many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from bulk.inputs import Source
from bulk.parts import Batch, Row
from data.images import ImageError
from data.transforms import Transform
from gallery.page import Entry
from models.captioner import Captioner
from models.checkpoint import load_checkpoint
from utils import use_device


@dataclass(frozen=True)
class Settings:
    """How to caption.

    Args:
        mirror: whether to read the mirror image too.
        precision, device: by their names, since other machines may choose others for "auto".
        rerank: on, off, or None: if the checkpoint can.
    """

    checkpoint: Path
    beam_size: int
    mirror: bool
    precision: str
    device: str
    rerank: str | None = None

    def captioner(self) -> Captioner:
        """Load the model."""
        device = use_device(self.device, self.precision)
        content = load_checkpoint(self.checkpoint)
        captioner = Captioner.from_checkpoint(content, self.checkpoint, self.precision).to(device).eval()
        captioner.use_reranker(self.rerank)
        return captioner


class Images(NamedTuple):
    """The images of a batch, decoded."""

    part: int
    first: int
    names: list[str]
    errors: list[str | None]  # why an image cannot be used
    tensors: torch.Tensor  # the others: (n, 3, S, S)


@dataclass(frozen=True)
class Reader:
    """Decodes batches.

    Args:
        transform: the captioner's.
        base: folder that relative paths are relative to.
    """

    transform: Transform
    base: Path

    def __call__(self, batch: Batch) -> Images:
        """Decode what can be decoded; nothing is raised for the rest."""
        errors: list[str | None] = []
        tensors: list[torch.Tensor] = []
        for source in batch.sources:
            try:
                tensors.append(self.transform(source.load(self.base)))
                errors.append(None)
            except ImageError as error:
                errors.append(f"{error.kind}{error.detail}")
            except OSError as error:
                errors.append(error.strerror or str(error))
        size = self.transform.image_size
        stacked = torch.stack(tensors) if tensors else torch.empty(0, 3, size, size)
        return Images(batch.part, batch.first, _names(batch.sources), errors, stacked)


def caption(captioner: Captioner, images: Images, settings: Settings) -> list[Row]:
    """The rows of a batch, in its order. An image that cannot be used has a row with the reason."""
    found = []
    if len(images.tensors):
        features = captioner.encode(images.tensors, mirror=settings.mirror)
        found = captioner.generate(features, settings.beam_size)
    candidates = iter(found)
    return [
        {"image": name, "caption": None, "log_prob": None, "candidates": [], "error": error}
        if error is not None
        else {**Entry.from_candidates(name, next(candidates)).record(), "error": None}
        for name, error in zip(images.names, images.errors, strict=True)
    ]


def _names(sources: Sequence[Source]) -> list[str]:
    return [source.name for source in sources]
