"""captions.csv -> splits -> Flickr8kDataset -> batches of images, each with all its captions."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.data import Dataset, Sampler

from cli import UserError
from data.images import ImageError, load_image
from data.transforms import Augment, Transform
from data.vocab import PAD_ID, Vocabulary


@dataclass
class Batch:
    """B images with their captions. ``visual`` holds pictures (B, 3, S, S), or grid features (B, P, D) where those are cached."""

    visual: torch.Tensor
    tokens: (
        torch.Tensor
    )  # (B, K, T) int64, <start> ... <end>, filled up with <pad>; K captions per image, the longest has T tokens
    names: list[str]
    missing: dict[str, str] = field(default_factory=dict)  # images that belong here but could not be read -> why


Item = tuple[
    torch.Tensor | ImageError, list[list[int]], str
]  # of an image: its picture or features, or why there is none; captions; name


class Flickr8kDataset(Dataset[Item]):
    """Images, each with all its captions as ids. Any captions.csv will do; the name is of the data set it is made for.

    Args:
        references: image name -> its captions.
        load: (image name, seed) -> picture tensor (3, S, S), or cached features (P, D); see ``ImageLoader``, ``FeatureCache.loader``.
        vocabulary: turns captions into ids.
    """

    def __init__(
        self, references: dict[str, list[str]], load: Callable[[str, int | None], torch.Tensor], vocabulary: Vocabulary
    ) -> None:
        self.names = list(references)
        self.tokens = [[vocabulary.encode(caption) for caption in captions] for captions in references.values()]
        self.load = load

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """An index, or (index, seed) as ``EpochSampler`` gives it for training."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        visual: torch.Tensor | ImageError
        try:
            visual = self.load(self.names[index], seed)
        except ImageError as error:  # raised in a loader's worker it would end the run, with the worker's traceback
            visual = error
        return visual, self.tokens[index], self.names[index]


@dataclass(frozen=True)
class ImageLoader:
    """(name, seed) -> normalised picture (3, S, S), decoded afresh each time; augmented where there is a seed.

    Those named in ``sided`` are never mirrored.
    """

    image_dir: Path
    transform: Transform
    augment: Augment | None = None
    sided: frozenset[str] = frozenset()

    def __call__(self, name: str, seed: int | None = None) -> torch.Tensor:
        """Load one image; ImageError if it cannot be used."""
        image = load_image(self.image_dir / name)
        if self.augment is not None and seed is not None:
            image = self.augment(image, seed, may_flip=name not in self.sided)
        return self.transform(image)


def collate(items: Sequence[Item]) -> Batch:
    """Stack images; pad captions to (B, K, T) with <pad>, also where an image has fewer captions than another.

    Images that could not be read are left out and told in ``missing``; B may be 0.
    """
    missing = {name: str(visual) for visual, _, name in items if isinstance(visual, ImageError)}
    visuals = [visual for visual, _, _ in items if isinstance(visual, torch.Tensor)]
    read = [(captions, name) for _, captions, name in items if name not in missing]
    captions_each = max((len(captions) for captions, _ in read), default=0)
    longest = max((len(caption) for captions, _ in read for caption in captions), default=0)
    tokens = torch.full((len(read), captions_each, longest), PAD_ID, dtype=torch.long)
    for b, (captions, _) in enumerate(read):
        for k, caption in enumerate(captions):
            tokens[b, k, : len(caption)] = torch.tensor(caption)
    return Batch(torch.stack(visuals) if visuals else torch.empty(0), tokens, [name for _, name in read], missing)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed for its augmentation), in an order that depends on (seed, epoch) alone, and that can start in the middle: what exact resuming needs.

    A lone last image joins the batch before it: batch normalisation cannot learn from one image.

    Raises:
        UserError: fewer than two images.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        if length < 2:
            raise UserError(f"{length} training image: at least 2 are needed")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.epoch = self.first_step = 0

    def set_position(self, epoch: int, first_step: int) -> None:
        """Make the next iteration that of ``epoch``, without its first ``first_step`` batches."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        return math.ceil((self.length - 1) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator).tolist()
        seeds = torch.randint(2**31, (self.length,), generator=generator).tolist()
        items = list(zip(order, seeds, strict=True))
        for step in range(self.first_step, len(self)):
            end = (step + 1) * self.batch_size if step + 1 < len(self) else self.length
            yield items[step * self.batch_size : end]
