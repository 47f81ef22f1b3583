"""What --resume makes of a run that has finished: the command that trains longer, and what that does."""

import shlex
from pathlib import Path

import pytest
import torch

import train
from tests.support.training import FROZEN, Learn, contents, last, read_log


def test_resuming_a_finished_run_changes_nothing(learn: Learn, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(learn())
    capsys.readouterr()
    assert contents(learn("--resume=auto", "--train.grad_clip=1")) == before
    out = capsys.readouterr().out
    assert "nothing to do" in out and "its last stage 'frozen' has ended (its 2 epochs are done)" in out
    assert "To train longer: python train.py --config=" in out and "resuming with changes" not in out


@pytest.mark.parametrize(("typed", "epochs", "rate"), [((), 4, 0.0062), (("--train.stages.epochs=1",), 3, 0.0035)])
def test_the_command_that_a_finished_run_suggests_trains_longer(
    learn: Learn, capsys: pytest.CaptureFixture[str], typed: tuple[str, ...], epochs: int, rate: float
) -> None:
    learn()
    capsys.readouterr()
    folder = learn("--resume=auto", *typed)
    command = shlex.split(capsys.readouterr().out.split("To train longer: ")[1])
    assert command[:2] == ["python", "train.py"]
    train.main(command[2:])
    assert len(read_log(folder)) == epochs
    out = capsys.readouterr().out
    assert f"    train.stages[0].epochs: 2 -> {epochs}\n" in out
    schedule = f"its schedule is now that of {epochs} epochs"
    assert f"stage frozen: {schedule}, and the learning rate continues at {rate}" in out


def test_a_stage_that_stopped_early_goes_on_with_more_patience(
    learn: Learn, capsys: pytest.CaptureFixture[str]
) -> None:
    still = "--train.stages=[{name: still, epochs: 9, lr: 1e-12, patience: 2}]"
    learn(still)
    for more in ("--train.stages.epochs=12", "--train.grad_clip=1"):  # neither is what ended the stage
        capsys.readouterr()
        folder = learn(still, "--resume=auto", more)
        out = capsys.readouterr().out
        assert "'still' has ended (no better validation CIDEr for 2 epochs)" in out and len(read_log(folder)) == 3
    train.main(shlex.split(out.split("To train longer: ")[1])[2:])
    assert len(read_log(folder)) == 5  # patience is 4 now


def test_a_run_finished_by_an_earlier_version_is_a_beginning(
    learn: Learn, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no stage and no optimizer any more."""
    learn()
    checkpoint = last(folder)
    checkpoint["training"] |= {"optimizer": None, "scaler": None}
    checkpoint["training"]["progress"] |= {"stage": None, "epoch": 0, "epochs_without_better": 0}
    torch.save(checkpoint, folder / "checkpoints_last.pth")
    capsys.readouterr()
    learn("--resume=auto", "--train.stages.epochs=9")
    out = capsys.readouterr().out
    assert f"--init_from {folder / 'checkpoints_last.pth'} --output_dir NEW_FOLDER" in out and "--resume" not in out
    learn("--resume=auto", f"--train.stages=[{FROZEN}, {FROZEN.replace('frozen', 'more')}]")
    assert read_log(folder)["stage"].tolist() == ["frozen"] * 2 + ["more"] * 2
