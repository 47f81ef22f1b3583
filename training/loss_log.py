"""loss_log.txt: one row an epoch, separated by tabs."""

import os
from pathlib import Path
from typing import Any

from cli import UserError, atomic_open

COLUMNS = [
    "stage", "epoch", "step", "train_loss", "val_loss", "val_bleu4", "val_cider", "distinct", "lr", "seconds", "images_per_second", "reward",
]  # fmt: skip


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a line to the log, in the order of the log's own header, which the first one writes."""
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        columns = file.readline().split() or COLUMNS
        if file.tell() == 0:
            file.write("\t".join(COLUMNS) + "\n")
        file.write("\t".join(f"{row[c]:.6g}" if isinstance(row[c], float) else str(row[c]) for c in columns) + "\n")
        file.flush()
        os.fsync(file.fileno())  # before the checkpoint that takes it for written


def trim_log(path: Path, epochs: int) -> None:
    """Drop rows (and a torn line) after the ``epochs`` that the checkpoint knows: they will be written again.

    A log that an older version began gets the columns it lacks.
    """
    if not path.exists():
        return
    header, rows = read_log(path)
    missing = [column for column in COLUMNS if column not in header]
    kept = [[*row, *["nan"] * len(missing)] for row in rows if int(row[header.index("epoch")]) <= epochs]
    with atomic_open(path) as file:
        file.writelines("\t".join(cells) + "\n" for cells in ([header + missing, *kept] if header else []))


def read_log(path: Path) -> tuple[list[str], list[list[str]]]:
    """The cells of the log's header (none in an empty log) and of its rows; blank lines and a torn last one are left out.

    Raises:
        UserError: a line that is no row of the log.
    """
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")[:-1]
    cells = {number: line.split("\t") for number, line in enumerate(lines, start=1) if line.strip()}
    header = cells.pop(min(cells)) if cells else []
    if header and "epoch" not in header:
        raise UserError(
            f"{path}: no column epoch in its header. Put the header back, or move the file away: a log is begun anew"
        )
    for number, row in cells.items():
        if len(row) != len(header) or not row[header.index("epoch")].isdecimal():
            raise UserError(
                f"{path}: line {number} is no row of this log ({lines[number - 1][:60]!r}). Correct or delete it"
            )
    return header, list(cells.values())
