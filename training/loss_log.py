"""loss_log.txt: one tab-separated row per epoch, written by training, read by --resume and visualize_loss.py."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structured
from cli import UserError
from files import atomic_open, naming

COLUMNS = [
    "stage", "epoch", "step", "train_loss", "val_loss", "val_bleu4", "val_cider", "distinct", "lr", "seconds",
    "images_per_second", "reward", "grad_norm",
]  # fmt: skip
PLOTTED = COLUMNS[3:]  # numbers over epochs
REQUIRED = ("stage", "epoch", "train_loss", "val_loss", "val_bleu4", "val_cider")  # in the logs of every version
MAX_DIGITS = 9  # of an epoch; runs have tens, and a plot counts in floating point
NO_NUMBER = ("", "nan", "none", "n/a", "inf", "-inf")  # cells without a value to draw
MAX_VALUE = 1e38  # about the largest number of 32 bits, as losses are; a plot of larger ones overflows 64 bits
MAX_BYTES = 128 * structured.MB  # a million epochs, at 120 bytes a row
SHOWN = 60  # characters of a damaged line in a message; half of them of a cell


@dataclass(frozen=True)
class LossLog:
    """The cells of a log as text: ``rows[i][j]`` belongs to ``header[j]``. One row per epoch, in ascending order."""

    header: list[str]
    rows: list[list[str]]

    def text(self, column: str) -> list[str]:
        """The cells of a column, one per epoch; empty where the log is older than the column."""
        if column not in self.header:
            return [""] * len(self.rows)
        return [row[self.header.index(column)].strip() for row in self.rows]

    def numbers(self, column: str) -> list[float]:
        """The numbers of a column, one per epoch; NaN for an empty cell, a huge value or a missing column."""
        found = [math.nan if cell.lower() in NO_NUMBER else float(cell) for cell in self.text(column)]
        return [number if abs(number) <= MAX_VALUE else math.nan for number in found]

    @property
    def epochs(self) -> list[int]:
        """The epoch of each row."""
        return [int(cell) for cell in self.text("epoch")]


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row in the order of the log's header, which a new log gets first. What ``row`` lacks becomes nan."""
    with naming(path), path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        first = file.readline().rstrip("\n")
        header = first.split("\t") if first else COLUMNS
        if file.tell() == 0:
            file.write("\t".join(COLUMNS) + "\n")
        cells = [row.get(column, math.nan) for column in header]
        file.write("\t".join(f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells) + "\n")
        file.flush()
        os.fsync(file.fileno())  # must be on disk before the checkpoint that counts on it


def trim_log(path: Path, epochs: int) -> None:
    """Drop an incomplete last line and the rows after ``epochs``, those of the checkpoint to resume from.

    A log begun by an older version gets the columns it lacks.
    """
    if not path.exists():
        return
    log = read_log(path)
    missing = [column for column in COLUMNS if column not in log.header]
    kept = [[*row, *["nan"] * len(missing)] for row, epoch in zip(log.rows, log.epochs, strict=True) if epoch <= epochs]
    with atomic_open(path) as file:
        file.writelines("\t".join(cells) + "\n" for cells in ([log.header + missing, *kept] if log.header else []))


def read_log(path: Path) -> LossLog:
    """Read a log; blank lines and an incomplete last line (of a run that was killed while writing) are ignored.

    The last row of an epoch counts. A log without a complete header has neither header nor rows.

    Raises:
        UserError: no such file, a missing column, or a line that is not a row of the log.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such log. `python train.py` writes one; name another with --log")
    structured.check_file(path, MAX_BYTES)
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")[:-1]  # a complete line ends in "\n"
    cells = {number: line.split("\t") for number, line in enumerate(lines, start=1) if line.strip()}
    header = cells.pop(min(cells)) if cells else []
    if header and (missing := [column for column in REQUIRED if column not in header]):
        raise UserError(
            f"{path}: no column {', '.join(missing)} in its first line. If it is a log of train.py, restore its "
            "tab-separated header or move it away; else name a loss_log.txt"
        )
    rows = dict[int, list[str]]()
    for number, row in cells.items():
        if problem := _problem(header, row):
            raise UserError(
                f"{path}: line {number} is not a row of this log ({lines[number - 1][:SHOWN]!r}): {problem}. "
                "Correct or delete it"
            )
        rows[int(row[header.index("epoch")])] = row
    return LossLog(header, [rows[epoch] for epoch in sorted(rows)])


def numbers_after(path: Path, epoch: int) -> list[tuple[int, dict[str, float]]]:
    """The later epochs of a log, each with its numbers by column, as far as it has them; none if there is no log yet.

    Raises:
        UserError: see ``read_log``.
    """
    log = read_log(path) if path.exists() else LossLog([], [])
    columns = {name: log.numbers(name) for name in log.header if name in PLOTTED}
    return [
        (number, {name: cells[row] for name, cells in columns.items() if math.isfinite(cells[row])})
        for row, number in enumerate(log.epochs)
        if number > epoch
    ]


def _problem(header: list[str], row: list[str]) -> str | None:
    """Why ``row`` is not a row of a log with this header; None if it is one."""
    if len(row) != len(header):
        return f"{len(row)} cells, the header has {len(header)}"
    for column, cell in zip(header, row, strict=True):
        if column == "epoch" and not (cell.strip().isdecimal() and len(cell.strip()) <= MAX_DIGITS):
            return f"epoch is {cell[: SHOWN // 2]!r}, not a whole number of up to {MAX_DIGITS} digits"
        if column in COLUMNS[1:] and cell.strip().lower() not in NO_NUMBER:
            try:
                float(cell)
            except ValueError:
                return f"{column} is {cell[: SHOWN // 2]!r}, not a number"
    return None
