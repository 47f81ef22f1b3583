"""The images to caption: in folders, in tars, in lists of paths (CSV or Parquet), or named one by one."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cli import UserError, did_you_mean, similar_files
from data.formats import IMAGE_COLUMNS, find_column, is_image_name, recognise
from data.images import load_image, load_image_bytes, photo_suffixes
from data.rows import read_rows
from data.shards import SUFFIX, open_shards, read_member

LISTS = (".csv", ".tsv", ".parquet")


class Source(NamedTuple):
    """Where an image is. A plain tuple, since there may be millions."""

    name: str  # its path, as it is written to the output
    tar: str = ""  # the tar that it is in
    offset: int = 0  # of its bytes in the tar
    size: int = 0

    def load(self, base: Path) -> Image.Image:
        """Decode the image.

        Args:
            base: folder that relative paths are relative to.

        Raises:
            ImageError: see ``data.images.load_image``.
            OSError: the tar cannot be read.
        """
        if not self.tar:
            return load_image(base / self.name)
        return load_image_bytes(read_member(base / self.tar, self.offset, self.size), self.name)


def find_sources(inputs: Sequence[Path], output: Path) -> tuple[list[Source], Counter[str]]:
    """The images of all inputs, each once; and how many other files of each kind there are in the folders.

    Args:
        inputs: folders (searched recursively, tars in them too), tars, lists of paths, images.
        output: a folder that is left out.

    Raises:
        UserError: an input does not exist, is of no such kind, or there are no images.
    """
    passed_over: Counter[str] = Counter()
    found: dict[str, Source] = {}
    for path in inputs:
        found |= {source.name: source for source in _sources(path, output, passed_over)}
    if not found:
        raise UserError(f"{', '.join(map(str, inputs))}: no images found. Name folders, tars or lists of images")
    return list(found.values()), passed_over


def _sources(path: Path, output: Path, passed_over: Counter[str]) -> Iterator[Source]:
    if path.is_dir():
        names, tars = _search(path, output, passed_over)
        yield from map(Source, names)
        yield from _members(tars)
    elif not path.is_file():
        near = did_you_mean(similar_files(path))
        raise UserError(f"{path}: no such file or folder{f': {near}' if near else '. Check the path'}")
    elif path.suffix.lower() == SUFFIX:
        yield from _members([path])
    elif path.suffix.lower() in LISTS:
        for name in _read_list(path):
            yield Source(os.path.normpath(path.parent / name))
    elif path.suffix.lower() in photo_suffixes():
        yield Source(str(path))
    else:
        raise UserError(f"{path}: neither an image nor a tar. Name a list of images as CSV or Parquet")


def _members(tars: Sequence[Path]) -> Iterator[Source]:
    for tar, shard in open_shards(tars):
        place = str(tar)  # one object for all members
        for member, (offset, size) in shard.images.items():
            yield Source(f"{place}/{member}", place, offset, size)


def _search(folder: Path, output: Path, passed_over: Counter[str]) -> tuple[list[str], list[Path]]:
    """The images and the tars in a folder and its subfolders, in the order of a gallery."""
    suffixes, skipped = photo_suffixes(), output.resolve()
    names: list[str] = []
    tars: list[Path] = []
    for parent, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if Path(parent, name).resolve() != skipped]
        for file in files:
            suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 - a Path for each takes minutes
            if file.startswith("._"):  # macOS writes them beside its files
                continue
            if suffix in suffixes:
                names.append(os.path.join(parent, file))  # noqa: PTH118 - as above
            elif suffix == SUFFIX:
                tars.append(Path(parent, file))
            else:
                passed_over[suffix or "without suffix"] += 1
    return sorted(names, key=_place), sorted(tars)


def _place(name: str) -> list[str]:
    """What paths are sorted by, as ``Path`` sorts them."""
    return name.split(os.sep)  # noqa: PTH206 - as above


def _read_list(path: Path) -> list[str]:
    """The paths in a table: those in the column with a usual name, or of a CSV without header, the first cells."""
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    rows = list(read_rows(path, recognise(path).separator or ",").values())
    if is_image_name(rows[0][0]) or SUFFIX in rows[0][0].lower():
        return [row[0] for row in rows]
    column = _column(path, rows[0])
    place = rows[0].index(column)
    return [row[place] for row in rows[1:] if len(row) > place and row[place]]


def _read_parquet(path: Path) -> list[str]:
    from pyarrow import ArrowException, parquet, types  # of requirements-parquet.txt

    try:
        with parquet.ParquetFile(path) as file:
            column = _column(path, file.schema_arrow.names)
            kind = file.schema_arrow.field(column).type
            kind = kind.value_type if types.is_dictionary(kind) else kind  # what pandas calls categories
            if not (types.is_string(kind) or types.is_large_string(kind)):
                raise UserError(
                    f"{path}: its column '{column}' holds {str(kind)[:40]}, not paths. Write the images to files, and "
                    "name these in a column of text"
                )
            return [str(name) for name in file.read(columns=[column])[column].to_pylist() if name is not None]
    except (ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}). Copy it again") from error


def _column(path: Path, columns: list[str]) -> str:
    column = find_column(columns, IMAGE_COLUMNS)
    if column is None:
        raise UserError(f"{path}: no column of images ({', '.join(columns)[:80]}). Name the one with the paths 'image'")
    return column
