"""Captions of other layouts -> captions.csv: find the images, keep what is complete, say what is missing."""

import csv
import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cli import UserError
from config import SPLITS
from data.annotations import Annotations
from data.download import is_hidden
from data.formats import split_in_name, split_of_words
from data.rows import safe_cell
from files import atomic_open


@dataclass
class Prepared:
    """The rows written to the CSV, and what is missing from it."""

    rows: list[tuple[str, str, str]]  # (image, caption, split); every split is "" if none is known
    left_out: dict[str, list[str]]  # reason -> the image of each caption or image that was left out


def convert(files: Sequence[Path], parse: Callable[[Path], Annotations], image_dir: Path, output: Path) -> Prepared:
    """Write to ``output`` the captions in ``files`` whose images exist in ``image_dir``.

    Files without splits take the splits given by their names, if these differ: captions_train2017.json,
    captions_val2017.json.

    Raises:
        UserError: no such file or folder, a file that ``parse`` refuses, an image in two splits, none of the images
            exists, or ``output`` exists with other content.
    """
    if not image_dir.is_dir():
        raise UserError(f"--image_dir {image_dir}: no such folder")
    if output.resolve() in {file.resolve() for file in files}:
        raise UserError(f"--output {output}: would overwrite the file to convert. Choose another name")
    merged, images, named = Annotations(), set[str](), list[str]()
    for file, split in _splits_of(files).items():
        annotations = parse(file)
        names = annotations.images()
        places = find_images(names, image_dir, file.parent)
        splits = annotations.splits or (dict.fromkeys(names, split) if split else {})
        for name, its_split in splits.items():
            merged.assign(places.get(name, name), its_split, str(file))
        merged.captions += [(places.get(name, name), caption) for name, caption in annotations.captions]
        images.update(places.values())
        named += names
    prepared = join(merged, images)
    if not prepared.rows:
        raise UserError(
            f"--image_dir {image_dir}: of {len(named):,} images in {', '.join(map(str, files))}, none with a caption "
            f"and a split exists there ({named[0] if named else 'none named'}). Name their folder with --image_dir"
        )
    write_csv(prepared, output, replace=False)
    return prepared


def _splits_of(files: Sequence[Path]) -> dict[Path, str | None]:
    """The split that each file's name gives, or else that of its folder; None for all if they do not differ in that.

    Raises:
        UserError: some of the names give a split, and others do not.
    """
    splits = {file: split_in_name(file) for file in files}
    if not any(splits.values()):  # train/0000.parquet, test/0000.parquet
        by_folder = {file: split_of_words(file.absolute().parent.name) for file in files}
        splits = by_folder if all(by_folder.values()) else splits
    if len(set(splits.values())) < 2:
        return dict.fromkeys(files)
    for file, split in splits.items():
        if split is None:
            raise UserError(f"{file}: its name gives no split. Put train, val or test into its name, as in the others")
    return splits


def find_images(names: Iterable[str], image_dir: Path, folder: Path) -> dict[str, str]:
    """Find the image files that annotations name.

    A name is relative to ``image_dir`` or, if that lies within it, to ``folder``. A name without a folder is also found
    in any subfolder of ``image_dir``.

    Returns:
        name -> path relative to ``image_dir``, without images that do not exist.

    Raises:
        UserError: two subfolders have an image of that name.
    """
    inside = folder.resolve().is_relative_to(image_dir.resolve())
    prefix = Path(os.path.relpath(folder, image_dir)) if inside else Path()
    found: dict[str, str] = {}
    lost: list[str] = []
    for name in tqdm(names, desc="images", unit="img", disable=None):
        place = next((place for place in (prefix / name, Path(name)) if (image_dir / place).is_file()), None)
        if place:
            found[name] = place.as_posix()
        elif name:
            lost.append(name)
    bare = {name for name in lost if "/" not in name}
    places: dict[str, str] = {}
    for place in _walk(image_dir) if bare else ():
        if place.name in bare and places.setdefault(place.name, place.as_posix()) != place.as_posix():
            both = f"{places[place.name]} and {place.as_posix()}"
            raise UserError(f"--image_dir {image_dir}: there are {both}. Name the folder of the one to use")
    return found | places


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, relative to it, but for hidden ones."""
    for parent, folders, files in tqdm(os.walk(folder), desc="looking for images", unit=" folders", disable=None):
        folders[:] = sorted(name for name in folders if not is_hidden([name]))
        yield from (Path(os.path.relpath(parent, folder), name) for name in files)


def join(annotations: Annotations, images: set[str]) -> Prepared:
    """Keep the captions whose image exists (is in ``images``) and, if any splits are known, has a split."""
    splits, left_out = annotations.splits, defaultdict(list)
    rows, captioned, unsplit = [], set(), set()
    for image, caption in annotations.captions:
        if not caption:
            left_out["empty captions"].append(image)
        elif image not in images:
            left_out["captions without an image"].append(image)
        else:
            captioned.add(image)
            if splits and image not in splits:
                unsplit.add(image)
            else:
                rows.append((image, caption, splits.get(image, "")))
    left_out["images without a caption"] = sorted(images - captioned)
    left_out["images in no split"] = sorted(unsplit)
    for image, split in splits.items():
        if image not in images:
            left_out[f"images of the {split} split that do not exist"].append(image)
    return Prepared(rows, {reason: names for reason, names in left_out.items() if names})


def write_csv(prepared: Prepared, path: Path, *, replace: bool = True) -> None:
    """Write the rows atomically. If no split is known the column is omitted, and train.py splits the images itself.

    Raises:
        UserError: there is a file with other content, which may be the user's own, and ``replace`` is False.
    """
    columns = 3 if any(split for *_, split in prepared.rows) else 2
    with atomic_open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "caption", "split")[:columns])
        writer.writerows(map(safe_cell, row[:columns]) for row in prepared.rows)
        file.flush()
        if not replace and path.is_file() and not filecmp.cmp(file.name, path, shallow=False):
            raise UserError(
                f"{path}: exists already and has other content: name another --output, or move it away and run again"
            )


def summary(prepared: Prepared) -> list[str]:
    """Lines: images and captions in total and per split, then what was left out."""
    captions = Counter(split for *_, split in prepared.rows)
    images = Counter(split for split, _ in {(split, image) for image, _, split in prepared.rows})
    lines = [f"{'all':<6}{images.total():>8,} images {captions.total():>8,} captions"]
    if captions[""]:
        lines.append("no splits found: train.py will divide the images itself, 80 % train, 10 % val, 10 % test")
    else:
        lines += [f"{split:<6}{images[split]:>8,} images {captions[split]:>8,} captions" for split in SPLITS]
    return lines + left_out_lines(prepared)


def left_out_lines(prepared: Prepared) -> list[str]:
    """One line per reason: how many were left out, and up to three names."""
    lines = []
    for reason, names in prepared.left_out.items():
        shown = list(dict.fromkeys(names))
        lines.append(f"left out: {len(names):,} {reason} ({', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''})")
    return lines
