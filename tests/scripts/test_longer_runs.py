"""Going on from a run that is finished, or from an older checkpoint of it."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.support.training import FROZEN, LEARNING, Interrupted, Learn, contents, last, read_log, weights
from utils import load_checkpoint

MORE = FROZEN.replace("frozen", "more")


@pytest.mark.parametrize("added", [MORE, LEARNING], ids=["the same layers", "other layers"])
def test_a_stage_added_later_learns_what_it_learns_in_one_go(learn: Learn, tmp_path: Path, added: str) -> None:
    both = f"--train.stages=[{FROZEN}, {added}]"
    whole = learn(both, to=tmp_path / "whole")
    learn()
    later = learn(both, "--resume=auto")
    expected, got = weights(whole), weights(later)
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert read_log(later)["stage"].tolist() == read_log(whole)["stage"].tolist()


def test_an_older_checkpoint_beside_the_run_moves_what_came_later_away(learn: Learn, folder: Path) -> None:
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
    del checkpoint["config"]["decoder"]["heads"], checkpoint["config"]["train"]["ema"], checkpoint["training"]["model"]
    torch.save(checkpoint, folder / "checkpoints_last.pth")
    learn("--resume=auto")
    assert read_log(folder)["epoch"].tolist() == [1, 2]


OVERDONE = '{"name": "overdone", "epochs": 4, "lr": 0.003, "encoder_lr": 0.1, "encoder_from": 3}'


def test_a_stage_starts_from_the_best_weights_so_far(learn: Learn, tmp_path: Path) -> None:
    """Also one that is added later, and one whose features come from the encoder that is the best."""
    both = f"--train.stages=[{OVERDONE}, {MORE}]"
    first = learn(f"--train.stages=[{OVERDONE}]")
    cider, best = read_log(first)["val_cider"].tolist(), load_checkpoint(first / "checkpoints.pth")
    assert best["scores"]["epoch"] < len(cider), cider  # or the test says nothing
    assert all(torch.equal(tensor, best["model"][name]) for name, tensor in weights(first).items())
    expected, got = weights(learn(both, to=tmp_path / "whole")), weights(learn(both, "--resume=auto"))
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_a_best_checkpoint_of_another_run_is_not_taken_over(learn: Learn, folder: Path, tmp_path: Path) -> None:
    learn()
    other = learn("--train.seed=5", to=tmp_path / "other")
    shutil.copy(other / "checkpoints.pth", folder / "checkpoints.pth")
    learn(f"--train.stages=[{FROZEN}, {MORE}]", "--resume=auto")
    best = load_checkpoint(folder / "checkpoints.pth")
    assert best["scores"]["epoch"] > 2 and best["config"]["train"]["seed"] == 0


def test_a_run_with_fewer_stages_than_it_began_with_is_not_called_finished(
    learn: Learn,
    interrupted: Interrupted,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupted(8, f"--train.stages=[{FROZEN}, {MORE}]")  # in the second
    before = contents(folder)
    learn("--resume=auto")
    out = capsys.readouterr().out
    assert "has still to learn more, but train.stages ends before" in out and "finished" not in out
    assert contents(folder) == before
