"""captions.csv: its rows, the splits, and the reference captions of each image."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cli import ROOT, UserError, did_you_mean, note, similar_files
from config import ALL, SPLITS, DataConfig
from data.formats import COMMAS, SPLIT_NAMES, conversion, is_image_name, metadata_files, recognise
from data.images import LearnedFrom
from data.rows import read_rows
from data.shards import find_shards, open_shards
from data.tables import as_table

LEFT_RIGHT = re.compile(r"\b(left|right)\b|[左右]|ซ้าย|ขวา")  # English, Chinese and Japanese, Thai
COLUMNS = ["image", "caption", "split"]


def captions_source(data: DataConfig) -> str:
    """The file of captions: where none is named and the images are in tars, the tars, which hold captions too."""
    default = data.captions_file == DataConfig.captions_file
    return data.image_dir if default and find_shards(Path(data.image_dir)) else data.captions_file


def read_captions(captions_file: str | Path, seed: int | None) -> pd.DataFrame:
    """Read a CSV with the columns image, caption and optionally split, one row per caption; or the captions in tars.

    Quoted commas, a byte order mark, CRLF and UTF-8 are supported. Splits may have any of ``SPLIT_NAMES``, in upper or
    lower case: train, training or restval; val, valid, validation or dev; test or testing.

    Args:
        captions_file: the CSV; or a tar, or a folder of tars, whose images have their captions beside them, see
            ``data.shards``. Images are named relative to it.
        seed: used if there is no split column. *Images* (never rows) are then divided into train / val / test
            (80 / 10 / 10) by a seeded hash of their names, so that adding images never moves the others to another
            split. A model must be tested with the seed it was trained with. None: all images stay in the split "all".

    Returns:
        a table with the columns image, caption and split, in file order.

    Raises:
        UserError: no such file, a column is missing, a cell is empty, a split is unknown, or an image is in two splits;
            the message names the row.
    """
    return _read_rows(Path(captions_file), seed)[COLUMNS]


def read_training_data(captions_file: str | Path, seed: int | None) -> tuple[pd.DataFrame, LearnedFrom]:
    """``read_captions``, and what a model learns from this file.

    "drawings" if the optional column ``medium`` calls every training image a "drawing", in upper or lower case, else
    "photographs". It is no part of the table, so a run can be resumed after the column has been added.
    """
    rows = _read_rows(Path(captions_file), seed)
    training = rows[rows["split"] == "train"]
    drawings_only = "medium" in rows and bool((training["medium"].str.casefold() == "drawing").all())
    return rows[COLUMNS], "drawings" if drawings_only else "photographs"


def _read_rows(path: Path, seed: int | None) -> pd.DataFrame:
    """The rows, with all columns of the file."""
    tars = find_shards(path)
    if not path.is_file() and not tars:
        raise UserError(_no_such_file(path))
    # its index is the line in the file, as an editor counts
    table = _read_shards(path, tars) if tars else _read_table(path)
    for column in ("image", "caption"):
        empty = table.index[table[column] == ""]
        if len(empty):
            raise UserError(f"{path}: row {empty[0]}: empty {column} ({len(empty)} in all). Fill in or delete")
    if "split" not in table:
        split_of = {image: ALL if seed is None else _hashed_split(image, seed) for image in table["image"].unique()}
        table["split"] = table["image"].map(split_of)
        return table.reset_index(drop=True)
    table["split"] = table["split"].map({name: SPLIT_NAMES.get(name.lower(), name) for name in table["split"].unique()})
    wrong = table.index[~table["split"].isin(SPLITS)]
    if len(wrong):
        raise UserError(
            f"{path}: row {wrong[0]}: split '{table['split'][wrong[0]]}' must be one of {', '.join(SPLITS)}"
        )
    twice = table.index[table["split"] != table.groupby("image")["split"].transform("first")]
    if len(twice):
        raise UserError(
            f"{path}: row {twice[0]}: image {table['image'][twice[0]]} is in more than one split. Keep it in one, "
            "because a model must not be tested on training images"
        )
    return table.reset_index(drop=True)


def _read_table(path: Path) -> pd.DataFrame:
    """The cells as stripped text, all columns of the file."""
    found = recognise(path)
    if found != COMMAS:
        raise UserError(
            f"{path}: {found.text}, not a CSV with the columns image,caption. Run (with --image_dir FOLDER if the "
            f"images are elsewhere): {conversion(path)}"
        )
    rows = read_rows(path)
    header = [name.lower() for name in rows.pop(min(rows))]
    _check_header(path, header)
    if not rows:
        raise UserError(f"{path}: no captions, only the header")
    return as_table(path, header, rows)


def _read_shards(path: Path, tars: Sequence[Path]) -> pd.DataFrame:
    """The captions in tars, in the order of the tars and of the images in them; with splits if all images have one.

    Raises:
        UserError: there are none, or some images have a split and some have none.
    """
    rows: list[tuple[str, str, str]] = []
    uncaptioned = 0
    for tar, shard in open_shards(tars):
        folder = "" if tar == path else f"{tar.name}/"
        uncaptioned += len(shard.images) - len(shard.captions)
        for image, captions in shard.captions.items():
            rows += [(folder + image, caption, shard.splits.get(image, "")) for caption in captions]
    if uncaptioned:
        note(f"{path}: images without a caption left out: {uncaptioned:,}")
    if not rows:
        raise UserError(f"{path}: no captions in the tars. Name a CSV of captions for their images: --captions_file")
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=str, index=range(1, len(rows) + 1))
    if (table["split"] == "").all():
        return table.drop(columns="split")
    return table


def _check_header(path: Path, header: list[str]) -> None:
    """Refuse a header without one column each for images and captions, or with two for splits or media."""
    twice = [column for column in ("image", "caption", "split", "medium") if header.count(column) > 1]
    missing = [column for column in ("image", "caption") if column not in header]
    if not twice and not missing:
        return
    problem = f"{header.count(twice[0]) if twice else 'no'} columns named {' and '.join(twice or missing)}"
    advice = "The first line must read image,caption"
    if missing and not any(map(is_image_name, header)):  # a table with other names for its columns
        advice += f". Or run: {conversion(path, header)}"
    raise UserError(f"{path}: {problem} in the header ({', '.join(header)}). {advice}")


def _no_such_file(path: Path) -> str:
    """What to do about a captions file that is not a file."""
    if not path.is_dir():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        advice = "Name yours with --captions_file"
        if (ROOT / path).is_file():  # a path of a recipe, and the script was started in another folder
            advice = f"There is one in the repository: run `cd {ROOT}` first. {advice}"
        elif near := did_you_mean(similar_files(path)):
            advice = f"{near[0].upper()}{near[1:]}"
        elif "flickr8k" in path.parts:
            advice = "Get Flickr8k: python -m data.prepare flickr8k. Or name your own --captions_file and --image_dir"
        return f"{path}: no such captions file{where}. {advice}"
    if metadata_files(path):
        return f"{path}: a folder (Hugging Face's imagefolder), not a captions file. Run: {conversion(path)}"
    inside = next(iter(sorted(path.glob("*.csv"))), path / "captions.csv")
    return f"{path}: a folder, not a captions file. Name the file in it, such as {inside}"


def _hashed_split(image: str, seed: int) -> str:
    share = int.from_bytes(hashlib.sha256(f"{seed}:{image}".encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def references_of(table: pd.DataFrame, split: str) -> dict[str, list[str]]:
    """The captions of every image of a split, or of ``ALL`` images, in file order: {image name: [caption, ...]}.

    Raises:
        UserError: the split is empty, or there are no captions at all.
    """
    if table.empty:
        raise UserError("there are no captions in the captions file. Name one that has some")
    rows = table if split == ALL else table[table["split"] == split]
    if rows.empty:
        others = sorted(table["split"].unique())
        raise UserError(
            f"no image is in the split '{split}' (there are: {', '.join(others)}). Assign images to {split} in a "
            f"column 'split' of the captions file; evaluations and galleries also take another: --split {others[-1]}"
        )
    references: dict[str, list[str]] = {}
    # As lists: to iterate over a column of text takes ten times as long.
    for image, caption in zip(rows["image"].tolist(), rows["caption"].tolist(), strict=True):
        references.setdefault(image, []).append(caption)
    return references


def find_left_right(references: dict[str, list[str]]) -> frozenset[str]:
    """The names of the images with a caption that mentions left or right, which flipping would make wrong."""
    return frozenset(
        name for name, captions in references.items() if any(LEFT_RIGHT.search(caption.lower()) for caption in captions)
    )
