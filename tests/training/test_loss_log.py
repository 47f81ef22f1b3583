"""training/loss_log.py: rows are read back, also by pandas; errors name damaged lines."""

import errno
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cli import UserError
from tests.support.helpers import ROOT
from training.loss_log import COLUMNS, append_row, read_log, trim_log


def row(epoch: int) -> dict[str, object]:
    return dict.fromkeys(COLUMNS, 1 / 3) | {"stage": "a", "epoch": epoch, "step": epoch}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "loss_log.txt"


def test_rows_are_read_back(log: Path) -> None:
    for epoch in (1, 2):
        append_row(log, row(epoch))
    table = pd.read_csv(log, sep="\t")
    assert table.columns.tolist() == COLUMNS and table["epoch"].tolist() == [1, 2]
    assert table["val_loss"][0] == pytest.approx(1 / 3, rel=1e-5)
    found = read_log(log)
    assert (found.header, found.epochs, found.text("stage")) == (COLUMNS, [1, 2], ["a", "a"])
    assert found.numbers("grad_norm") == found.numbers("val_loss") == pytest.approx([1 / 3] * 2, rel=1e-5)


def test_a_full_disk_names_the_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space") as error:
        append_row(log, {})
    assert error.value.filename == str(log)


def test_trimming_drops_rows_that_will_be_written_again(log: Path) -> None:
    for epoch in (1, 2, 3):
        append_row(log, row(epoch))
    with log.open("a") as file:
        file.write("a\t4\t4\t0.")  # incomplete
    trim_log(log, 2)
    append_row(log, row(3))
    assert pd.read_csv(log, sep="\t")["epoch"].tolist() == read_log(log).epochs == [1, 2, 3]


@pytest.mark.parametrize("lacks", [["grad_norm"], ["reward", "grad_norm"]])
def test_a_log_of_an_older_version_gets_the_missing_columns(log: Path, lacks: list[str]) -> None:
    older = [column for column in COLUMNS if column not in lacks]
    log.write_text("\t".join(older) + "\na\t1\t1" + "\t0.5" * (len(older) - 3) + "\n")
    assert all(math.isnan(*read_log(log).numbers(column)) for column in lacks)
    trim_log(log, 1)
    append_row(log, row(2))
    table = pd.read_csv(log, sep="\t")
    assert table.columns.tolist() == COLUMNS and table["epoch"].tolist() == [1, 2]
    assert all(table[column].isna().tolist() == [True, False] for column in lacks) and table["val_cider"][0] == 0.5


@pytest.mark.parametrize("name", ["note", "my note"])
def test_a_column_added_by_the_user_is_kept(log: Path, name: str) -> None:
    log.write_text("\t".join([*COLUMNS, name]) + "\na" + "\t1" * (len(COLUMNS) - 1) + "\tgood\n")
    trim_log(log, 1)
    append_row(log, row(2))
    assert read_log(log).text(name) == ["good", "nan"]


def test_an_incomplete_header_is_written_again(log: Path) -> None:
    log.write_text("stage\tepo")
    assert read_log(log).header == []
    trim_log(log, 0)
    append_row(log, row(1))
    assert pd.read_csv(log, sep="\t").columns.tolist() == COLUMNS


def test_blank_lines_are_ignored(log: Path) -> None:
    append_row(log, row(1))
    log.write_text("\n" + log.read_text() + "\n  \n")
    trim_log(log, 1)
    append_row(log, row(2))
    assert log.read_text().count("\n") == 3 and pd.read_csv(log, sep="\t")["epoch"].tolist() == [1, 2]


CELLS = ["1"] * (len(COLUMNS) - 2)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a", f"1 cells, the header has {len(COLUMNS)}"),
        ("a\t2", f"2 cells, the header has {len(COLUMNS)}"),
        ("\t".join(["a", "1", *CELLS, "1"]), f"{len(COLUMNS) + 1} cells"),
        ("\t".join(["a", *COLUMNS[1:]]), "epoch is 'epoch', not a whole number"),
        ("\t".join(["a", "b", *CELLS]), "epoch is 'b', not a whole number"),
        ("\t".join(["a", "", *CELLS]), "epoch is '', not a whole number"),
        ("\t".join(["a", "9" * 10, *CELLS]), "epoch is '9999999999', not a whole number"),
        ("\t".join(["a", "2", *CELLS[:-1], "lots"]), "grad_norm is 'lots', not a number"),
    ],
)
def test_a_line_that_is_not_a_row_is_named_and_the_log_left_unchanged(log: Path, line: str, problem: str) -> None:
    append_row(log, row(1))
    log.write_text(before := f"{log.read_text()}{line}\n")
    with pytest.raises(
        UserError, match=r"loss_log\.txt: line 3 is not a row of this log \('a.*Correct or delete it"
    ) as e:
        trim_log(log, 1)
    assert problem in str(e.value) and log.read_text() == before


def test_a_header_must_have_the_columns_of_a_log(log: Path) -> None:
    log.write_text("nonsense\n")
    with pytest.raises(UserError, match=r"loss_log\.txt: no column stage, epoch, train_loss"):
        trim_log(log, 1)


def test_a_log_that_does_not_exist_needs_no_trimming(log: Path) -> None:
    trim_log(log, 2)
    assert not log.exists()
    with pytest.raises(UserError, match="no such log"):
        read_log(log)


def test_windows_line_ends_and_a_byte_order_mark(log: Path) -> None:
    append_row(log, row(1))
    log.write_bytes(b"\xef\xbb\xbf" + log.read_bytes().replace(b"\n", b"\r\n"))
    assert read_log(log).header == COLUMNS and read_log(log).numbers("reward") == pytest.approx([1 / 3], rel=1e-5)


def test_the_last_row_of_an_epoch_counts(log: Path) -> None:
    for epoch, cider in ((2, 0.2), (1, 0.1), (2, 0.3)):
        append_row(log, row(epoch) | {"val_cider": cider})
    assert (read_log(log).epochs, read_log(log).numbers("val_cider")) == ([1, 2], [0.1, 0.3])


def test_reading_a_log_imports_no_heavy_library() -> None:
    code = "import sys, training.loss_log; print(sorted({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "[]\n"
