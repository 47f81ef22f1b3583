"""Tables of captions in any format (CSV, TSV, JSON lines, Parquet, ...): their rows, and the captions in them."""

import ast
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from tqdm import tqdm

import structured
from cli import UserError
from config import SPLITS
from data.annotations import Annotations, inner_path, parse_caption_file
from data.formats import (
    BY_IMAGE,
    CAPTION_COLUMNS,
    COCO,
    IMAGE_COLUMNS,
    JSON_LINES,
    JSON_LIST,
    KARPATHY,
    PARQUET,
    SPLIT_COLUMNS,
    SPLIT_NAMES,
    TOKEN,
    conversion,
    find_column,
    is_image_name,
    recognise,
)
from data.rows import MAX_ROWS, MAX_TABLE_BYTES, read_rows
from files import atomic_open
from structured import MB

MAX_PARQUET_BYTES = 4096 * MB  # unpacked; the parts of data sets with images have up to 500 MB


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; None and () are found by the usual names."""

    image: str | None = None
    captions: Sequence[str] = ()
    split: str | None = None


def parse_table(path: Path, columns: Columns, image_dir: Path) -> Annotations:
    """The captions and splits of a table; a list in a cell, as in ``["A dog.", "It runs."]``, is several captions.

    Images that a Parquet file contains are saved in a folder with the name of the file, next to it or, if it is not in
    ``image_dir``, there. They replace no file.

    Raises:
        UserError: no such file, a damaged file, a column is missing or unclear, a split is unknown, an image is in two
            splits, or another file has the name of an image to save.
    """
    structured.check_file(path, MAX_TABLE_BYTES)
    if recognise(path) == TOKEN:
        return Annotations(parse_caption_file(structured.read_file(path, MAX_TABLE_BYTES), str(path)))
    table = _read(path)
    image, captions, split = _choose(path, list(table.columns), columns)
    found = Annotations()
    names = _image_names(path, table[image], image_dir)
    for column in captions:
        for row, name, cell in zip(table.index, names, table[column], strict=True):
            try:
                found.captions += [(name, caption) for caption in _texts(cell)]
            except ValueError as error:
                raise UserError(f"{path}: row {row}: {column}: {error}") from error
    if len(captions) > 1:  # all captions of an image together
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        found.captions.sort(key=lambda pair: order[pair[0]])
    if split:
        for row, name, cell in zip(table.index, names, table[split], strict=True):
            its_split = SPLIT_NAMES.get(_text(cell).lower())
            if its_split is None:
                raise UserError(f"{path}: row {row}: {split} '{_text(cell)}' must be one of {', '.join(SPLITS)}")
            found.assign(name, its_split, f"{path}: row {row}")
    return found


def _choose(path: Path, names: list[str], columns: Columns) -> tuple[str, list[str], str | None]:
    """The columns of the image, the captions and the split: those asked for, or those with one of the usual names."""
    if any(map(is_image_name, names)):
        raise UserError(f"{path}: its first line must name the columns, such as image,caption ({_listed(names)})")
    image = _column(path, names, columns.image) or find_column(names, IMAGE_COLUMNS)
    captions = [found for name in columns.captions if (found := _column(path, names, name))]
    if not captions and (usual := find_column(names, CAPTION_COLUMNS)):
        captions = [usual]
    if image is None or not captions:
        missing = ["image"] * (image is None) + ["caption"] * (not captions)
        options = " ".join(f"--{each}_column COLUMN" for each in missing)
        raise UserError(
            f"{path}: cannot tell which column holds the {missing[0]} (there are: {_listed(names)}). "
            f"Add to the command: {options}"
        )
    split = _column(path, names, columns.split) or find_column(names, SPLIT_COLUMNS)
    for column in (image, *captions, split or image):
        if names.count(column) > 1:
            raise UserError(f"{path}: {names.count(column)} columns named '{column}'. Rename all but one of them")
    return image, captions, split


def _column(path: Path, names: list[str], wanted: str | None) -> str | None:
    """The column that the user names, in upper or lower case."""
    if wanted is None:
        return None
    found = wanted if wanted in names else find_column(names, [wanted.strip().lower()])
    if found is None or names.count(found) > 1:
        raise UserError(f"{path}: {names.count(wanted) or 'no'} columns named '{wanted}' (there are: {_listed(names)})")
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names)


def _read(path: Path) -> pd.DataFrame:
    """The table in a file; its index is the number of the line, or of the row where there are no lines."""
    kind = recognise(path)
    if kind in (COCO, KARPATHY):
        raise UserError(f"{path}: {kind.text}, not a table. Run: {conversion(path)}")
    if kind == BY_IMAGE:
        raise UserError(
            f'{path}: {kind.text}. Write a list [{{"image": "a.jpg", "captions": ["...", "..."]}}, ...] instead, '
            "or one such object a line"
        )
    if kind == PARQUET:
        return _read_parquet(path)
    if kind in (JSON_LIST, JSON_LINES):
        records = dict(_json_records(path, lines=kind == JSON_LINES))
        return pd.DataFrame(list(records.values()), index=list(records), dtype=object)
    rows = read_rows(path, kind.separator)
    return as_table(path, rows.pop(min(rows)), rows)


def as_table(path: Path, header: Sequence[str], rows: Mapping[int, list[str]]) -> pd.DataFrame:
    """Rows as ``read_rows`` returns them, but for the header. Cells that are missing at the end of a row are empty.

    Raises:
        UserError: a row has more cells than the header.
    """
    for number, cells in rows.items():
        if any(cells[len(header) :]):
            raise UserError(
                f"{path}: row {number}: {len(cells)} cells, but the header has {len(header)}. "
                "Put double quotes around a caption that contains commas (or the separator of the file)"
            )
    padded = [cells[: len(header)] + [""] * (len(header) - len(cells)) for cells in rows.values()]
    return pd.DataFrame(padded, columns=header, index=list(rows), dtype=str)


def _json_records(path: Path, *, lines: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list or, with ``lines``, one of each line; numbered from 1."""
    for number, entry in structured.read_json_lines(path) if lines else enumerate(structured.read_json(path), start=1):
        if not isinstance(entry, dict):
            raise UserError(f'{path}: entry {number}: must be an object such as {{"image": ..., "caption": ...}}')
        yield number, entry


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyarrow import parquet  # of requirements-parquet.txt

    try:
        file = parquet.ParquetFile(path)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        if file.metadata.num_rows > MAX_ROWS or sum(group.total_byte_size for group in groups) > MAX_PARQUET_BYTES:
            raise UserError(f"{path}: more than {MAX_ROWS:,} rows, or {MAX_PARQUET_BYTES // MB} MB unpacked. Split it")
        table: pd.DataFrame = file.read().to_pandas()
    except UserError:
        raise
    except Exception as error:  # a damaged file raises many types, such as NotImplementedError
        raise UserError(f"{path}: not a readable Parquet file ({error})") from error
    table.index = pd.RangeIndex(1, len(table) + 1)
    return table


def _text(cell: Any) -> str:
    """A cell as text; a missing value is empty."""
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else str(cell).strip()


def _texts(cell: Any) -> list[str]:
    """The captions in a cell: text, a list of texts, such a list in JSON's or Python's notation, or objects with them.

    Raises:
        ValueError: an object without captions.
    """
    if hasattr(cell, "tolist"):  # an array, from a Parquet file
        cell = cell.tolist()
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        found = _as_list(cell)
        cell = cell if found is None else found
    if isinstance(cell, list):
        return [text for each in cell for text in _texts(each)]
    if isinstance(cell, Mapping):  # such as {"raw": ..., "tokens": ...} of a Karpathy JSON
        column = find_column(cell, CAPTION_COLUMNS)
        if column is None:
            raise ValueError(f"no caption in an object with {_listed(list(cell))}")
        return _texts(cell[column])
    return [_text(cell)]


def _as_list(text: str) -> list[str] | None:
    """The list of texts that a text stands for; None if it is no such list."""
    for parse in (partial(structured.parse_json, place=""), ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    return None


def _image_names(path: Path, cells: pd.Series, image_dir: Path) -> list[str]:
    """The file name in each cell; the images that cells contain (``{"bytes": ..., "path": ...}``) are saved first."""
    file, top = path.resolve(), image_dir.resolve()
    here, images = (Path(os.path.normpath(each.absolute())) for each in (path.parent, image_dir))

    def relative(name: str, row: int) -> str:
        """The name; relative to the folder of the images if it is absolute, or has ".." in it, and leads there."""
        whole = Path(os.path.normpath(here / name))
        if (Path(name).is_absolute() or ".." in Path(name).parts) and whole.is_relative_to(images):
            name = whole.relative_to(images).as_posix()
        return inner_path(name, f"{path}: row {row}")

    place = file.relative_to(top) if file.is_relative_to(top) else Path(path.name)
    folder = place.with_suffix("")  # two files may have one name: train/0000.parquet and test/0000.parquet
    names: list[str] = []
    taken: set[str] = set()
    for row, cell in zip(cells.index, tqdm(cells, desc=path.name, unit="img", disable=None), strict=True):
        if not isinstance(cell, Mapping):
            names.append(relative(_text(cell).replace("\\", "/"), row))  # a table from Windows
        elif cell.get("bytes") is None:
            names.append(relative(_text(cell.get("path")), row))
        else:
            name = PurePosixPath(cell.get("path") or f"{row:06}{_suffix(cell['bytes'])}").name
            name = f"{row:06}_{name}" if name.casefold() in taken else name
            taken.add(name.casefold())  # macOS and Windows take A.jpg and a.jpg for one file
            names.append((folder / name).as_posix())
            _save(image_dir / names[-1], cell["bytes"], f"{path}: row {row}")
    return names


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".jpg"


def _save(path: Path, data: bytes, place: str) -> None:
    """Write a file unless an earlier, interrupted call has done so.

    Raises:
        UserError: there is another file, which may be the user's own.
    """
    if not path.exists():
        with atomic_open(path, "wb") as file:
            file.write(data)
    elif not path.is_file() or path.read_bytes() != data:
        raise UserError(
            f"{place}: its image would replace {path}, which is another file. Move that file away, or name another "
            "folder with --image_dir"
        )
