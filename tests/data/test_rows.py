"""data/rows.py: tables of strangers within limits, and cells that no spreadsheet runs."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cli import UserError
from data import rows
from data.captions import read_captions
from data.conversion import Prepared, write_csv
from data.rows import plain_cell, read_rows, safe_cell
from evaluation.metrics import Scores
from evaluation.report import write_image_scores
from tools.model_card import read_scores

FORMULAS = ["=HYPERLINK(1)", "+1", "-1.jpg", "@home", "\t=1", "\r=1", "\uff1d1", "'=1", "''+1"]
HARMLESS = ["a.jpg", "'quoted'", "1-2", " =1", "", "'"]


def test_formulas_are_quoted_and_come_back() -> None:
    for text in FORMULAS:
        assert safe_cell(text) == f"'{text}"
    for text in HARMLESS:
        assert safe_cell(text) == text
    for text in [*FORMULAS, *HARMLESS]:
        assert plain_cell(safe_cell(text)) == text


def test_no_table_runs_formulas_and_its_readers_see_the_text(tmp_path: Path) -> None:
    names = ["=1.jpg", "-2.jpg"]
    write_csv(Prepared([(name, f"@{name}", "train") for name in names], {}), tmp_path / "captions.csv")
    numbers = {metric: np.array([0.5, 0.25]) for metric in ("CIDEr", "BLEU-4", "ROUGE-L")}
    scores = Scores(names=names, images=numbers, totals={}, bleu_counts=np.zeros((2, 10)))
    write_image_scores(tmp_path / "per_image.csv", scores, {name: f"+{name}" for name in names})
    for file in ("captions.csv", "per_image.csv"):
        with (tmp_path / file).open(newline="", encoding="utf-8") as opened:
            _, *written = csv.reader(opened)
        assert all(cell.startswith("'") for row in written for cell in row[:2])
    table = read_captions(tmp_path / "captions.csv", None)
    assert (list(table["image"]), list(table["caption"])) == (names, ["@=1.jpg", "@-2.jpg"])
    scored = read_scores(tmp_path / "per_image.csv")
    assert (list(scored["image"]), list(scored["caption"])) == (names[::-1], ["+-2.jpg", "+=1.jpg"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,caption\na.jpg," + b"x" * 2_000_000, "row 2: more than 1,048,576 characters"),
        (b'image,caption\na.jpg,"' + b"x\n" * 200_000, "row 2: not a readable CSV .*larger than field limit"),
        (b"image,caption\na\0.jpg,A dog\n", "row 2: a NUL character"),
        (b"image,caption" + b",x" * 2000, "row 1: more than 1,000 cells"),
        (b"image,caption\n" + b"," * 2000, "row 2: more than 1,000 cells"),
        (b"image,caption\na.jpg,A\n\nb.jpg,caf\xe9\n", "row 4: not UTF-8 .*Save the file as CSV UTF-8"),
        (b"\n" * 100_000, "empty"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.csv: {message}"):
        read_rows(tmp_path / "a.csv")


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("image,caption\n" + "a.jpg,A dog\n" * 5)
    monkeypatch.setattr(rows, "MAX_ROWS", 5)
    with pytest.raises(UserError, match=r"a\.csv: more than 5 rows"):
        read_rows(tmp_path / "a.csv")
    monkeypatch.setattr(rows, "MAX_ROWS", 6)
    monkeypatch.setattr(rows, "MAX_CELLS", 11)
    with pytest.raises(UserError, match=r"a\.csv: more than 6 rows or 11 cells"):
        read_rows(tmp_path / "a.csv")
    monkeypatch.setattr(rows, "MAX_TABLE_BYTES", 50)
    with pytest.raises(UserError, match=r"a\.csv: more than 0 KB"):
        read_rows(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"b\.csv: a device"):
        read_rows(tmp_path / "b.csv")


def test_line_ends_of_all_systems(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "a.csv").write_bytes(f'image,caption{end}a.jpg,"A{end}dog"{end}b.jpg,A cat{end}'.encode())
        assert read_rows(tmp_path / "a.csv") == {
            1: ["image", "caption"],
            2: ["a.jpg", f"A{end}dog"],
            4: ["b.jpg", "A cat"],
        }
