"""models/pretrained.py: a checkpoint made small says the same."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from data.transforms import load_image
from models.captioner import Captioner
from models.pretrained import expand, shrink
from utils import load_checkpoint

CPU = torch.device("cpu")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "models.pretrained", *map(str, words)], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_weights_come_back_within_half_a_step_of_their_row() -> None:
    torch.manual_seed(0)
    model = {
        "matrix": torch.randn(7, 30) * torch.logspace(-3, 3, 7)[:, None],
        "kernel": torch.randn(5, 3, 3, 3),
        "nothing": torch.zeros(2, 4),
        "bias": torch.randn(9),
        "count": torch.tensor(3),
    }
    small = shrink({"model": model, "vocab": ["a"]})
    assert small["vocab"] == ["a"] and small["model"]["matrix"].dtype == small["model"]["kernel"].dtype == torch.int8
    back = expand(small)
    assert back.keys() == model.keys() and all(back[name].dtype == tensor.dtype for name, tensor in model.items())
    for name in ("matrix", "kernel", "nothing"):
        step = model[name].flatten(1).abs().amax(dim=1) / 127
        assert ((back[name] - model[name]).flatten(1).abs().amax(dim=1) <= 0.51 * step).all(), name
    assert torch.equal(back["bias"], model["bias"]) and torch.equal(back["count"], model["count"])
    assert expand({"model": model}) == model  # one that was not shrunk stays as it is


def test_the_small_file_is_a_checkpoint_like_any_other(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.pth"
    done = run(tiny_checkpoint, small)
    assert done.returncode == 0, done.stderr
    assert small.stat().st_size < 0.28 * tiny_checkpoint.stat().st_size
    images = [load_image(path) for path in sorted((tiny_data / "images").iterdir())[:8]]
    before, after = (Captioner.load(path, CPU).caption(images) for path in (tiny_checkpoint, small))
    same = sum(one[0].caption == other[0].caption for one, other in zip(before, after, strict=True))
    assert same >= 7
    assert after[0][0].log_prob == pytest.approx(before[0][0].log_prob, abs=0.3)


def test_only_a_runs_best_checkpoint_is_made_small(tiny_run: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.pth"
    assert run(tiny_checkpoint, small).returncode == 0
    for wrong, reason in ((tiny_run / "checkpoints_last.pth", "going on with training"), (small, "already small")):
        done = run(wrong, tmp_path / "other.pth")
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "other.pth").exists()
    assert load_checkpoint(small)["scales"]
