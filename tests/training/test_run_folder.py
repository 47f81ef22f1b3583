"""The files of a run: what killed runs leave behind. What becomes of earlier runs is in test_train.py."""

import subprocess
from pathlib import Path

import pytest
import torch

from cli import UserError
from models.quantize import shrink
from tests.support.helpers import ROOT
from training.run_folder import BEST, LOCK, claim, find_resume, load_best, sweep
from utils import load_checkpoint, save_checkpoint


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
