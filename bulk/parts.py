"""The output: parts of a few hundred rows, each written whole by one process, under a name that its images determine.

What is in the folder when a run starts is done: a run that was stopped leaves whole parts only, and the next one
captions the images that are in none of them. So no image is captioned twice and none is lost, whatever was killed, and
images that were added since are captioned too.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structured
from bulk.inputs import Source
from cli import UserError
from files import atomic_open, encodable, write_json
from gallery.writing import BATCH_IMAGES

SETTINGS = "settings.json"  # what the captions depend on: a folder holds those of one model
Row = dict[str, Any]  # image, caption, log_prob, candidates, error


class Batch(NamedTuple):
    """Images that are captioned together, and their place in the output."""

    part: int
    first: int  # the row of the first image in the part
    sources: list[Source]


class Parts:
    """The parts in a folder.

    Args:
        folder: it exists.
        kind: jsonl or parquet.
        size: rows of a part.
    """

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        self.folder, self.kind, self.size = folder, kind, size
        self._lengths: list[int] = []  # of the parts to be written
        self._waiting: dict[int, dict[int, list[Row]]] = {}  # part -> first row -> rows

    def begin(self, settings: dict[str, Any]) -> None:
        """Record what the captions depend on, or check that it is what it was.

        Raises:
            UserError: there are parts that were written with other settings.
        """
        file, wanted = self.folder / SETTINGS, {**settings, "format": self.kind}
        if not any(self.folder.glob("part-*")):  # of any format: one folder with both would hold images twice
            write_json(file, wanted)
            return
        known = structured.read_json(file)
        for name, value in wanted.items():
            if not isinstance(known, dict) or known.get(name, False) != value:  # older ones lack "rerank"
                before = known.get(name) if isinstance(known, dict) else None
                raise UserError(
                    f"--output {self.folder}: holds captions with {name} {str(before)[:12]}, not {str(value)[:12]}. "
                    "Choose another folder"
                )

    def captioned(self) -> set[str]:
        """The names of the images whose rows are there.

        Raises:
            UserError: a part is damaged.
        """
        names: set[str] = set()
        for path in self._finished():
            try:
                names.update(_names(path))
            except Exception as error:  # pyarrow raises many types
                raise UserError(f"{path}: damaged ({error}). Delete it to caption its images again") from error
        return names

    def plan(self, sources: Sequence[Source]) -> Iterator[Batch]:
        """The batches of all parts: as large as those of a gallery, on which the last bits of its captions depend."""
        self._lengths = [min(self.size, len(sources) - start) for start in range(0, len(sources), self.size)]
        for part, length in enumerate(self._lengths):
            for first in range(0, length, BATCH_IMAGES):
                start = part * self.size + first
                yield Batch(part, first, list(sources[start : start + min(BATCH_IMAGES, length - first)]))

    def add(self, part: int, first: int, rows: list[Row]) -> None:
        """Take the rows of a batch, in any order of batches; a part is written once all of its rows are there."""
        batches = self._waiting.setdefault(part, {})
        batches[first] = rows
        if sum(map(len, batches.values())) == self._lengths[part]:
            self._write([row for _, batch in sorted(batches.items()) for row in batch])
            del self._waiting[part]

    def _finished(self) -> Iterator[Path]:
        return self.folder.glob(f"part-*.{self.kind}")

    def _write(self, rows: list[Row]) -> None:
        names = "\n".join(row["image"] for row in rows)
        digest = hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        path = self.folder / f"part-{digest}.{self.kind}"
        if self.kind == "parquet":
            _write_parquet(path, rows)
            return
        with atomic_open(path) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _names(path: Path) -> Iterator[str]:
    """The images of a part, as ``files.encodable`` text."""
    if path.suffix == ".parquet":
        from pyarrow import parquet  # of requirements-parquet.txt

        yield from parquet.read_table(path, columns=["image"])["image"].to_pylist()
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield encodable(json.loads(line)["image"])


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa  # of requirements-parquet.txt
    from pyarrow import parquet

    candidate = pa.struct([("caption", pa.string()), ("log_prob", pa.float64())])
    types = {"image": pa.string(), "caption": pa.string(), "log_prob": pa.float64()}
    schema = pa.schema({**types, "candidates": pa.list_(candidate), "error": pa.string()})
    named = [{**row, "image": encodable(row["image"]), "error": encodable(row["error"] or "") or None} for row in rows]
    with atomic_open(path, "wb") as file:
        parquet.write_table(pa.Table.from_pylist(named, schema=schema), file)
