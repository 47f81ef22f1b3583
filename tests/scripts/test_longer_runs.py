"""Continuing a run that is finished, one with other stages, or an older checkpoint of it."""

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from data.images import load_image
from models.checkpoint import load_checkpoint
from tests.support.training import FROZEN, LEARNING, Interrupted, Learn, Refused, contents, last, read_log, weights
from training import engine
from training.resume import fingerprint, load_resume

MORE = FROZEN.replace("frozen", "more")


@pytest.mark.parametrize("added", [MORE, LEARNING], ids=["the same layers", "other layers"])
def test_a_stage_added_later_ends_like_one_planned_from_the_start(learn: Learn, tmp_path: Path, added: str) -> None:
    both = f"--train.stages=[{FROZEN}, {added}]"
    whole = learn(both, to=tmp_path / "whole")
    learn()
    later = learn(both, "--resume=auto")
    expected, got = weights(whole), weights(later)
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert read_log(later)["stage"].tolist() == read_log(whole)["stage"].tolist()


def test_resuming_an_older_checkpoint_moves_the_newer_files_away(learn: Learn, folder: Path) -> None:
    learn()
    older = folder / "epoch2.pth"
    shutil.copy(folder / "checkpoints_last.pth", older)
    learn(f"--train.stages=[{FROZEN}, {MORE}]", "--resume=auto")
    before = contents(folder)
    learn(f"--train.stages=[{FROZEN}, {LEARNING}]", f"--resume={older}")
    (moved,) = (folder / "previous_runs").iterdir()
    assert contents(moved) == {name: data for name, data in before.items() if name != "epoch2.pth"}
    assert read_log(folder)["stage"].tolist() == ["frozen"] * 2 + ["learning"] * 2
    best = load_checkpoint(folder / "checkpoints.pth")
    assert best["scores"]["val_cider"] == pytest.approx(
        read_log(folder)["val_cider"][best["scores"]["epoch"] - 1], rel=1e-5
    )


def test_a_run_from_before_an_option_existed_can_be_resumed(
    learn: Learn,
    interrupted: Interrupted,
    folder: Path,
) -> None:
    interrupted(3)
    checkpoint = last(folder)
    del checkpoint["config"]["train"]["ema"], checkpoint["training"]["model"]
    torch.save(checkpoint, folder / "checkpoints_last.pth")
    learn("--resume=auto")
    assert read_log(folder)["epoch"].tolist() == [1, 2]


def test_another_number_of_threads_is_told_in_one_line(
    learn: Learn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bits of a sum depend on how many threads share it."""
    learn()
    checkpoint = last(learn(f"--train.stages=[{FROZEN}, {MORE}]", "--resume=auto"))
    assert checkpoint["training"]["threads"] == 1 and "threads" not in capsys.readouterr().err
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    learn(f"--train.stages=[{FROZEN}, {MORE}, {LEARNING}]", "--resume=auto")
    lines = [line for line in capsys.readouterr().err.splitlines() if "threads" in line]
    assert len(lines) == 1 and lines[0].startswith("warning: resumed with 3 CPU threads instead of 1, ")
    assert lines[0].endswith("set OMP_NUM_THREADS=1")


OVERDONE = '{"name": "overdone", "epochs": 3, "lr": 0.003, "encoder_lr": 0.1, "encoder_from": 3}'


def test_a_stage_starts_from_the_best_weights_so_far(learn: Learn, tmp_path: Path) -> None:
    """Also one that is added later, and one that uses the features of the best encoder."""
    both = f"--train.stages=[{OVERDONE}, {MORE}]"
    first = learn(f"--train.stages=[{OVERDONE}]")
    cider, best = read_log(first)["val_cider"].tolist(), load_checkpoint(first / "checkpoints.pth")
    assert best["scores"]["epoch"] < len(cider), cider  # or the test proves nothing
    assert not all(torch.equal(tensor, best["model"][name]) for name, tensor in weights(first).items())
    expected, got = weights(learn(both, to=tmp_path / "whole")), weights(learn(both, "--resume=auto"))
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_a_best_checkpoint_of_another_run_is_replaced(learn: Learn, folder: Path, tmp_path: Path) -> None:
    learn()
    other = learn("--train.seed=5", to=tmp_path / "other")
    shutil.copy(other / "checkpoints.pth", folder / "checkpoints.pth")
    learn(f"--train.stages=[{FROZEN}, {MORE}]", "--resume=auto")
    best = load_checkpoint(folder / "checkpoints.pth")
    assert best["scores"]["epoch"] > 2 and best["config"]["train"]["seed"] == 0


@pytest.mark.parametrize(
    "stages",
    [f"[{LEARNING}, {FROZEN}, {MORE}]", f"[{MORE}]", f"[{FROZEN}]", f"[{MORE}, {FROZEN}]"],
    ids=["inserted in front", "removed in front", "its own is missing", "in another order"],
)
def test_a_run_cannot_be_resumed_in_another_stage(
    interrupted: Interrupted, refused: Refused, folder: Path, stages: str
) -> None:
    interrupted(8, f"--train.stages=[{FROZEN}, {MORE}]")  # in the second
    before = contents(folder)
    error = refused("--resume=auto", f"--train.stages={stages}")
    assert "is in stage 'more'" in error and "Let train.stages begin with frozen, more again" in error
    assert contents(folder) == before


def test_a_stage_can_be_inserted_behind_the_current_one(learn: Learn, interrupted: Interrupted, folder: Path) -> None:
    interrupted(5, f"--train.stages=[{FROZEN}, {MORE}]")  # in the second epoch of the first
    learn("--resume=auto", f"--train.stages=[{FROZEN}, {FROZEN.replace('frozen', 'between')}, {MORE}]")
    assert read_log(folder)["stage"].tolist() == ["frozen"] * 2 + ["between"] * 2 + ["more"] * 2


def test_a_checkpoint_that_numbers_its_stage_can_be_resumed(
    learn: Learn, interrupted: Interrupted, folder: Path
) -> None:
    """Older ones do, and hold the random state of the CPU and a list of those of all GPUs."""
    both = f"--train.stages=[{FROZEN}, {MORE}]"
    interrupted(8, both)
    checkpoint = last(folder)
    progress, training = checkpoint["training"]["progress"], checkpoint["training"]
    progress |= {"stage": 1}
    del progress["norm_sum"], progress["norm_count"]
    training |= {"rng": training["rng"]["cpu"], "cuda_rng": []}
    torch.save(checkpoint, folder / "checkpoints_last.pth")
    learn(both, "--resume=auto")
    whole = learn(both, to=folder.with_name("whole"))
    assert read_log(folder)["stage"].tolist() == ["frozen"] * 2 + ["more"] * 2
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(folder).items())


def test_images_are_checked_once_and_not_in_every_stage(
    learn: Learn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checked = []
    monkeypatch.setattr("data.bad_images.load_image", lambda path: checked.append(path) or load_image(path))
    cache, again = f"--data.feature_cache={tmp_path / 'cache'}", LEARNING.replace("learning", "again")
    learn(cache, f"--train.stages=[{LEARNING}]")
    learn(cache, f"--train.stages=[{LEARNING}, {again}]", "--resume=auto")
    assert len(checked) == len(set(checked)) == 8 + 4  # of training and validation


def test_the_captions_are_hashed_once_and_not_at_every_save(
    learn: Learn, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    hashed = []
    monkeypatch.setattr("training.run.fingerprint", lambda table: hashed.append(table) or fingerprint(table))
    learn("--train.save_every=1e-9")
    assert len(hashed) == 1
    learn("--train.save_every=1e-9", "--resume=auto", f"--train.stages=[{FROZEN}, {MORE}]")
    assert len(hashed) == 2


def test_the_checkpoint_is_freed_before_training_goes_on(
    learn: Learn, interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, alive = [], []

    def load(*args: Any) -> Any:
        resumed = load_resume(*args)
        tensors.append(weakref.ref(resumed.checkpoint["training"]["model"]["decoder.output.weight"]))
        return resumed

    def train(*args: Any) -> Any:
        alive.append(tensors[0]() is not None)
        return engine.train(*args)

    interrupted(3)
    monkeypatch.setattr("training.run.load_resume", load)
    monkeypatch.setattr("training.run.train", train)
    learn("--resume=auto")
    assert alive == [False]
