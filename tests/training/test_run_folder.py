"""The files of a run: locking, moving, and what killed runs leave. How train.py uses them is in tests/scripts."""

import subprocess
from pathlib import Path

import pytest
import torch

from cli import UserError
from models.checkpoint import load_checkpoint, save_checkpoint
from models.quantize import quantize
from tests.support.helpers import ROOT
from training.progress import Progress
from training.run_folder import BEST, LAST, LOCK, LOG, RESOLVED, claim, keep_previous, load_best


def test_files_of_an_earlier_run_are_moved_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / RESOLVED).touch()
    (tmp_path / "curve.png").touch()
    assert keep_previous(tmp_path) is None  # a run that ended before its first epoch: nothing worth keeping
    for name in (BEST, LOG):
        (tmp_path / name).touch()
    target = keep_previous(tmp_path)
    assert target and {path.name for path in target.iterdir()} == {BEST, LOG, RESOLVED}
    assert {path.name for path in tmp_path.iterdir()} == {"curve.png", "previous_runs"}
    (tmp_path / LAST).touch()
    other = keep_previous(tmp_path)
    assert other and other != target


def test_a_folder_is_locked_by_one_run_at_a_time_and_left_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    for _ in range(2):
        with (
            claim(folder),
            pytest.raises(UserError, match=r"--output_dir .*new: another run is writing there\. Choose another"),
            claim(folder),
        ):
            pass
        assert not list(tmp_path.iterdir())
    with claim(folder):
        (folder / "loss_log.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["loss_log.txt"]


def test_git_ignores_the_lock_file() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", LOCK, f"runs/a/{LOCK}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout.split() == [LOCK, f"runs/a/{LOCK}"]


def test_a_quantized_best_checkpoint_can_start_a_stage(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path / BEST, quantize(checkpoint))
    scores = checkpoint["scores"]
    progress = Progress(stage=None, best_epoch=scores["epoch"], best_cider=scores["val_cider"])
    weights = load_best(tmp_path, progress)
    assert weights
    for name, tensor in checkpoint["model"].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=max(1e-6, 0.02 * tensor.abs().max().item()))


def test_only_the_best_checkpoint_of_this_run_is_loaded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    progress = Progress(stage=None, best_epoch=1, best_cider=0.5)
    assert load_best(tmp_path, progress) is None
    checkpoint = load_checkpoint(tiny_checkpoint)
    for scores in ({"val_cider": 0.5, "epoch": 1}, {"val_cider": 0.5, "epoch": 2}, {"val_cider": 0.4, "epoch": 1}):
        save_checkpoint(tmp_path / BEST, checkpoint | {"scores": scores})
        assert (load_best(tmp_path, progress) is None) == (scores != {"val_cider": 0.5, "epoch": 1})
