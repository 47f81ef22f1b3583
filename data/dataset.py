"""Flickr8kDataset and its batches: images, each with all its captions."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from cli import UserError
from data.images import ImageError, load_image
from data.packing import PackedTokens, pack
from data.shards import SUFFIX
from data.transforms import Augment, Transform
from data.vocab import Vocabulary
from distributed import ALONE, Processes

WINDOW = 8  # tars whose images are shuffled together: 40,000 to 80,000 images of tars of the usual size


@dataclass
class Batch:
    """B images with their captions."""

    visual: torch.Tensor  # images (B, 3, H, W), or grid features (B, P, D) where those are cached
    captions: PackedTokens
    names: list[str]
    missing: dict[str, str] = field(default_factory=dict)  # images that belong here but could not be read -> why
    seeds: list[int] = field(default_factory=list)  # of each image's random numbers in this epoch; in training

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory; ``DataLoader(pin_memory=True)`` calls this."""
        return replace(self, visual=self.visual.pin_memory(), captions=self.captions.pin_memory())

    def split(self, pieces: int) -> "list[Batch]":
        """The batch in so many pieces of about as many images each; at most as many as there are images."""
        if pieces == 1:
            return [self]
        count = len(self.names)
        bounds = [count * piece // pieces for piece in range(pieces + 1)]
        return [
            replace(
                self,
                visual=self.visual[first:end],
                captions=self.captions.of_images(first, end),
                names=self.names[first:end],
                seeds=self.seeds[first:end],
            )
            for first, end in pairwise(bounds)
        ]


Item = tuple[torch.Tensor | ImageError, list[np.ndarray], str, int | None]
"""One image: its tensor, or why it could not be read; its captions as token ids; its name; its seed in training."""


class Flickr8kDataset(Dataset[Item]):
    """Images, each with all its captions as token ids. Any captions.csv will do; the name is the default data set's.

    The token ids of all captions are one array: nested lists would be copied into every worker process as soon as it
    touches them (reference counts are written next to each object).

    Args:
        references: image name -> its captions.
        load: (image name, seed) -> image tensor (3, H, W), or cached features (P, D); see ``ImageLoader`` and
            ``FeatureCache.loader``.
        vocabulary: turns captions into token ids.
    """

    def __init__(
        self, references: dict[str, list[str]], load: Callable[[str, int | None], torch.Tensor], vocabulary: Vocabulary
    ) -> None:
        self.names = list(references)
        self.load = load
        # ``starts``: where each caption begins in ``tokens``
        self.tokens, self.starts = vocabulary.encode_all([text for texts in references.values() for text in texts])
        self.first = np.cumsum([0, *map(len, references.values())])  # the first caption of each image

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """An index, or (index, seed) as ``EpochSampler`` gives it for training."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        visual: torch.Tensor | ImageError
        try:
            visual = self.load(self.names[index], seed)
        except ImageError as error:  # raised in a worker it would end the run with the worker's traceback
            visual = error
        return visual, self.captions(index), self.names[index], seed

    def captions(self, index: int) -> list[np.ndarray]:
        """The captions of one image as token ids, ``<start> ... <end>``."""
        captions = range(self.first[index], self.first[index + 1])
        return [self.tokens[self.starts[caption] : self.starts[caption + 1]] for caption in captions]


@dataclass(frozen=True)
class ImageLoader:
    """(name, seed) -> normalised image tensor (3, H, W), decoded afresh each time; augmented where there is a seed.

    Those named in ``left_right`` are never flipped.
    """

    image_dir: Path
    transform: Transform
    augment: Augment | None = None
    left_right: frozenset[str] = frozenset()

    def __call__(self, name: str, seed: int | None = None) -> torch.Tensor:
        """Load one image.

        Raises:
            ImageError: it cannot be used.
        """
        image = load_image(self.image_dir / name)
        if self.augment is not None and seed is not None:
            image = self.augment(image, seed, may_flip=name not in self.left_right)
        return self.transform(image)


def collate(items: Sequence[Item]) -> Batch:
    """Stack the images and pack their captions, on the CPU.

    Images that could not be read are left out and listed in ``missing``; B may be 0.
    """
    missing = {name: str(visual) for visual, _, name, _ in items if isinstance(visual, ImageError)}
    visuals = [visual for visual, *_ in items if isinstance(visual, torch.Tensor)]
    read = [(captions, name, seed) for _, captions, name, seed in items if name not in missing]
    return Batch(
        torch.stack(visuals) if visuals else torch.empty(0),
        pack([captions for captions, _, _ in read]),
        [name for _, name, _ in read],
        missing,
        [seed for _, _, seed in read if seed is not None],
    )


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed for its augmentation and its sampled captions).

    The order depends on (seed, epoch) alone and can start in the middle of an epoch, which exact resuming needs.
    A single image left over at the end joins the batch before it: batch normalization cannot train on one image.

    Of several processes, each gets its share of every batch. A last batch that has fewer images than there are
    processes is not divided: each process computes it whole, and their mean is that of one process.

    Args:
        shards: how many of the images, one after the other, are in each tar. The tars are then permuted, and the
            images shuffled within WINDOW tars, which are read together: a disk reads in few places at a time.

    Raises:
        UserError: fewer than two images, or batches that are too small to be divided.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, shards: Sequence[int] = (), processes: Processes = ALONE
    ) -> None:
        if length < 2:
            raise UserError(f"{length} training image: at least 2 are needed")
        if batch_size < processes.size:
            raise UserError(
                f"--train.batch_size {batch_size}: the {processes.size} processes share each batch. Raise it, or start "
                "fewer of them"
            )
        self.length, self.batch_size, self.seed, self.processes = length, batch_size, seed, processes
        self.shards = shards or [length]
        self.epoch = self.first_step = 0

    def set_position(self, epoch: int, first_step: int) -> None:
        """Start the next iteration at batch ``first_step`` of ``epoch``."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        return math.ceil((self.length - 1) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = self._order(generator)
        seeds = torch.randint(2**31, (self.length,), generator=generator).tolist()
        items = list(zip(order, seeds, strict=True))
        for step in range(self.first_step, len(self)):
            first, end = self._bounds(step)
            batch = items[first:end]
            yield batch if self.copies(step) > 1 else [*self.processes.share(batch)]

    def copies(self, step: int) -> int:
        """How many processes compute all of the batch ``step``."""
        first, end = self._bounds(step)
        return self.processes.size if end - first < self.processes.size else 1

    def _bounds(self, step: int) -> tuple[int, int]:
        first = step * self.batch_size
        return first, first + self.batch_size if step + 1 < len(self) else self.length

    def _order(self, generator: torch.Generator) -> list[int]:
        """The images in a new order."""
        if len(self.shards) == 1:
            whole: list[int] = torch.randperm(self.length, generator=generator).tolist()
            return whole
        starts = np.cumsum([0, *self.shards]).tolist()
        shards = torch.randperm(len(self.shards), generator=generator).tolist()
        order: list[int] = []
        for first in range(0, len(shards), WINDOW):
            window = [image for shard in shards[first : first + WINDOW] for image in range(*starts[shard : shard + 2])]
            order += [window[place] for place in torch.randperm(len(window), generator=generator).tolist()]
        return order


def shard_lengths(names: Iterable[str]) -> list[int]:
    """How many images, one after the other, are in the same tar; none if they are files, or in one tar."""
    lengths = [len([*images]) for _, images in groupby(names, key=lambda name: name.rpartition(f"{SUFFIX}/")[0])]
    return lengths if len(lengths) > 1 else []
