"""The files of a run: the log, and what killed runs leave behind. What becomes of earlier runs is in test_train.py."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch

from cli import UserError
from models.quantize import shrink
from tests.support.helpers import ROOT
from training.loss_log import COLUMNS, append_row, trim_log
from training.run_folder import BEST, LOCK, claim, find_resume, load_best, sweep
from utils import load_checkpoint, save_checkpoint


def row(epoch: int) -> dict[str, object]:
    return dict.fromkeys(COLUMNS, 1 / 3) | {"stage": "a", "epoch": epoch, "step": epoch}


def test_rows_are_read_back_by_pandas(tmp_path: Path) -> None:
    log = tmp_path / "loss_log.txt"
    for epoch in (1, 2):
        append_row(log, row(epoch))
    table = pd.read_csv(log, sep="\t")
    assert table.columns.tolist() == COLUMNS and table["epoch"].tolist() == [1, 2]
    assert table["val_loss"][0] == pytest.approx(1 / 3, rel=1e-5)


def test_trim_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    log = tmp_path / "loss_log.txt"
    for epoch in (1, 2, 3):
        append_row(log, row(epoch))
    with log.open("a") as file:
        file.write("a\t4\t4\t0.")  # torn
    trim_log(log, 2)
    append_row(log, row(3))
    assert pd.read_csv(log, sep="\t")["epoch"].tolist() == [1, 2, 3]


def test_a_log_that_an_older_version_began_gets_the_columns_it_lacks(tmp_path: Path) -> None:
    log = tmp_path / "loss_log.txt"
    log.write_text("\t".join(COLUMNS[:-1]) + "\na\t1\t1" + "\t0.5" * (len(COLUMNS) - 4) + "\n")
    trim_log(log, 1)
    append_row(log, row(2))
    table = pd.read_csv(log, sep="\t")
    assert table.columns.tolist() == COLUMNS and table["epoch"].tolist() == [1, 2]
    assert table["reward"].isna().tolist() == [True, False] and table["val_cider"][0] == 0.5


def test_a_torn_header_is_written_anew(tmp_path: Path) -> None:
    log = tmp_path / "loss_log.txt"
    log.write_text("stage\tepo")
    trim_log(log, 0)
    append_row(log, row(1))
    assert pd.read_csv(log, sep="\t").columns.tolist() == COLUMNS


def test_blank_lines_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "loss_log.txt"
    append_row(log, row(1))
    log.write_text("\n" + log.read_text() + "\n  \n")
    trim_log(log, 1)
    append_row(log, row(2))
    assert log.read_text().count("\n") == 3 and pd.read_csv(log, sep="\t")["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "line", ["a", "a\t2", "\t".join(["a", *COLUMNS[1:]]), "\t".join(["a", "b", *["1"] * (len(COLUMNS) - 1)])]
)
def test_a_line_that_is_no_row_is_told_and_the_log_left_alone(tmp_path: Path, line: str) -> None:
    log = tmp_path / "loss_log.txt"
    append_row(log, row(1))
    log.write_text(before := f"{log.read_text()}{line}\n")
    with pytest.raises(UserError, match=r"loss_log\.txt: line 3 is no row of this log \('a.*Correct or delete it"):
        trim_log(log, 1)
    assert log.read_text() == before
    log.write_text("nonsense\n")
    with pytest.raises(UserError, match=r"no column epoch"):
        trim_log(log, 1)


def test_a_log_that_is_not_there_needs_no_trimming(tmp_path: Path) -> None:
    trim_log(tmp_path / "loss_log.txt", 2)
    assert not list(tmp_path.iterdir())


def test_unfinished_checkpoints_of_killed_runs_are_swept_away(tmp_path: Path) -> None:
    others = {
        "checkpoints.pth",
        "mine.tmp",
        ".resnet50_keras.pth.4711.tmp",
    }  # the last one tools.convert_keras may be writing
    for name in (".checkpoints_last.pth.4711.tmp", ".checkpoints.pth.4711.tmp", ".loss_log.txt.4711.tmp", *others):
        (tmp_path / name).write_bytes(b"...")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others


def test_a_folder_is_claimed_by_one_run_at_a_time_and_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    for _ in range(2):
        with (
            claim(folder),
            pytest.raises(UserError, match=r"--output_dir .*new: another run is writing there\. Name another"),
            claim(folder),
        ):
            pass
        assert not list(tmp_path.iterdir())
    with claim(folder):
        (folder / "loss_log.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["loss_log.txt"]


def test_git_does_not_see_the_lock() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", LOCK, f"runs/a/{LOCK}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout.split() == [LOCK, f"runs/a/{LOCK}"]


def test_find_resume(tmp_path: Path) -> None:
    assert find_resume(None, tmp_path) is None and find_resume("auto", tmp_path) is None
    (tmp_path / "checkpoints_last.pth").touch()
    assert find_resume(None, tmp_path) is None
    assert (
        find_resume("auto", tmp_path)
        == find_resume(str(tmp_path / "checkpoints_last.pth"), Path())
        == tmp_path / "checkpoints_last.pth"
    )
    with pytest.raises(UserError, match=r"--resume nowhere.*: no such file.*auto"):
        find_resume("nowhere", tmp_path)


def test_ctrl_c_while_a_checkpoint_is_written_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 768 vs 662")  # what torch's writer makes of it

    monkeypatch.setattr("torch.save", save)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a.pth", {})
    assert not list(tmp_path.iterdir())


def test_a_best_checkpoint_that_was_made_small_still_begins_a_stage(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path / BEST, shrink(checkpoint))
    scores = checkpoint["scores"]
    weights = load_best(tmp_path, scores["epoch"], scores["val_cider"])
    assert weights
    for name, tensor in checkpoint["model"].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=max(1e-6, 0.02 * tensor.abs().max().item()))
