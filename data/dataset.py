"""captions.csv -> splits -> Flickr8kDataset -> batches of images, each with all its captions."""

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from data.transforms import Augment, ImageError, Transform, load_image
from data.vocab import PAD_ID, Vocabulary
from utils import UserError

SPLITS = ("train", "val", "test")
ALL = "all"  # the one split of a file that is not to be divided
MAX_BAD_SHARE = 0.05  # more bad images than this is a wrong folder or a broken download, not bad luck


def read_captions(captions_file: str | Path, seed: int | None = 0) -> pd.DataFrame:
    """Read ``image,caption[,split]``: one row a caption; quoted commas, BOM, CRLF and UTF-8 are fine.

    Without a split column, *images* (never rows) go to train / val / test, 80 / 10 / 10, by a seeded hash of their names,
    so that adding images never moves the others; where ``seed`` is None they stay together, in a split called "all".

    Returns:
        a table with the columns image, caption and split, in file order.

    Raises:
        UserError: no such file, no such column, an empty cell, an unknown split, an image in two splits; with the row's number.
    """
    path = Path(captions_file)
    if not path.is_file():
        raise UserError(f"{path}: no such captions file. Name yours with --data.captions_file (or --captions_file)")
    table = _read_table(path)  # its index: the row in the file, as an editor counts
    for column in ("image", "caption"):
        empty = table.index[table[column] == ""]
        if len(empty):
            raise UserError(f"{path}: row {empty[0]}: empty {column} ({len(empty)} such rows). Fill or delete")
    if "split" not in table:
        split_of = {image: ALL if seed is None else _hashed_split(image, seed) for image in table["image"].unique()}
        table["split"] = table["image"].map(split_of)
        return table[["image", "caption", "split"]].reset_index(drop=True)
    wrong = table.index[~table["split"].isin(SPLITS)]
    if len(wrong):
        raise UserError(f"{path}: row {wrong[0]}: split '{table['split'][wrong[0]]}' must be one of {', '.join(SPLITS)}")
    torn = table.index[table["split"] != table.groupby("image")["split"].transform("first")]
    if len(torn):
        raise UserError(
            f"{path}: row {torn[0]}: image {table['image'][torn[0]]} is in more than one split; "
            "a model must not be tested on what it has seen"
        )
    return table[["image", "caption", "split"]].reset_index(drop=True)


def _read_table(path: Path) -> pd.DataFrame:
    """The cells as stripped text. Not pandas.read_csv: it drops what follows an unquoted comma, and loses count of the rows."""
    content = path.read_bytes()
    rows, number = dict[int, list[str]](), 1
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True)
        for cells in reader:
            rows[number] = [cell.strip() for cell in cells]
            number = reader.line_num + 1
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: row {number}: not UTF-8 ({error.reason}). Save the file as CSV UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}: row {number}: not a readable CSV ({error}). Look at the double quotes") from error
    rows = {number: cells for number, cells in rows.items() if any(cells)}
    if not rows:
        raise UserError(f"{path}: empty. The first line must read image,caption")
    header = [name.lower() for name in rows.pop(min(rows))]
    for column, least in (("image", 1), ("caption", 1), ("split", 0)):
        if not least <= header.count(column) <= 1:
            found = f"{header.count(column) or 'no'} columns named {column}"
            raise UserError(f"{path}: {found} in the header ({', '.join(header)}). The first line must read image,caption")
    if not rows:
        raise UserError(f"{path}: no captions in it, only the header")
    for number, cells in rows.items():
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise UserError(
                f"{path}: row {number}: {len(cells)} cells, the header has {len(header)}. A caption with commas needs double quotes around it"
            )
    return pd.DataFrame([cells[: len(header)] for cells in rows.values()], columns=header, index=list(rows), dtype=str)


def _hashed_split(image: str, seed: int) -> str:
    share = int.from_bytes(hashlib.sha256(f"{seed}:{image}".encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def references_of(table: pd.DataFrame, split: str) -> dict[str, list[str]]:
    """The captions of each image of a split, in file order: {image name: [caption, ...]}.

    Raises:
        UserError: the split is empty.
    """
    rows = table[table["split"] == split]
    if rows.empty:
        raise UserError(
            f"no image is in the split '{split}' (there are: {', '.join(sorted(table['split'].unique()))}). "
            f"Write {split} into the split column of the captions file for some images, or use another split or captions file"
        )
    return {str(image): list(captions) for image, captions in rows.groupby("image", sort=False)["caption"]}


def find_bad_images(paths: Sequence[Path], workers: int = 2) -> dict[Path, str]:
    """Decode every image once, before hours are spent, and say which cannot be used and why."""

    def reason(path: Path) -> str | None:
        try:
            load_image(path)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max(workers, 1)) as pool:  # Pillow decodes outside the GIL
        reasons = tqdm(pool.map(reason, paths), total=len(paths), desc="checking images", unit="img", leave=False, disable=None)
        return {path: text for path, text in zip(paths, reasons, strict=True) if text is not None}


def drop_bad_images(references: dict[str, list[str]], image_dir: Path, bad: dict[Path, str]) -> dict[str, list[str]]:
    """Leave out the images in ``bad``, each named with its reason.

    Raises:
        UserError: more than 5 % of the images are bad.
    """
    here = {name: bad[image_dir / name] for name in references if image_dir / name in bad}
    if len(here) > MAX_BAD_SHARE * len(references):
        first = next(iter(here.values()))
        raise UserError(
            f"{len(here)} of {len(references)} images cannot be used (more than {MAX_BAD_SHARE:.0%}); the first: {first}. "
            f"Check --data.image_dir, or --image_dir ({image_dir})"
        )
    for reason in here.values():
        tqdm.write(f"skipped: {reason}")
    return {name: captions for name, captions in references.items() if name not in here}


def find_sided(references: dict[str, list[str]]) -> frozenset[str]:
    """The images with a caption that says left or right: their mirror images would make it wrong."""
    return frozenset(
        name for name, captions in references.items() if any(re.search(r"\b(left|right)\b", caption.lower()) for caption in captions)
    )


@dataclass
class Batch:
    """B images with their captions. ``visual`` holds pictures (B, 3, S, S), or grid features (B, P, D) where those are cached."""

    visual: torch.Tensor
    tokens: torch.Tensor  # (B, K, T) int64, <start> ... <end>, filled up with <pad>; K captions per image, the longest has T tokens
    names: list[str]
    missing: dict[str, str] = field(default_factory=dict)  # images that belong here but could not be read -> why


Item = tuple[torch.Tensor | ImageError, list[list[int]], str]  # of an image: its picture or features, or why there is none; captions; name


class Flickr8kDataset(Dataset[Item]):
    """Images, each with all its captions as ids. Any captions.csv will do; the name is of the data set it is made for.

    Args:
        references: image name -> its captions.
        load: (image name, seed) -> picture tensor (3, S, S), or cached features (P, D); see ``ImageLoader``, ``FeatureCache.loader``.
        vocabulary: turns captions into ids.
    """

    def __init__(self, references: dict[str, list[str]], load: Callable[[str, int | None], torch.Tensor], vocabulary: Vocabulary) -> None:
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
