"""What can go wrong in the middle of a run: divergence, damaged logs, images that vanish."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.bad_images import find_bad_images
from tests.support.training import FROZEN, LEARNING, Learn, Photos, Refused, contents, read_log

EXPLODING = '{"name": "exploding", "epochs": 1, "lr": 1e30, "warmup": 0}'


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_loss_that_is_not_finite_stops_with_advice_and_leaves_no_broken_checkpoint(
    refused: Refused,
    folder: Path,
    epochs: int,
) -> None:
    explode = f'--train.stages=[{{"name": "frozen", "epochs": {epochs}, "lr": 1e30, "warmup": 0}}]'
    error = refused(explode, "--train.batch_size=8")  # one step per epoch: validation is the first to use its weights
    assert (
        "became nan" in error
        and "lower lr for stage 'frozen' (--train.stages.lr)" in error
        and "--resume auto" in error
    )
    assert not list(folder.glob("*.pth"))


@pytest.mark.parametrize("batch_size", [4, 8])  # the next step is the first to use the diverged weights, or validation
def test_diverged_weights_are_never_saved(learn: Learn, refused: Refused, batch_size: int) -> None:
    """Or --resume auto would continue with them, and no lower lr could help."""
    options = ("--train.save_every=1e-9", f"--train.batch_size={batch_size}")
    learn(*options)
    for _ in range(2):
        error = refused(*options, f"--train.stages=[{FROZEN}, {EXPLODING}]", "--resume=auto")
        assert "run instead: python train.py --config=" in error
        assert " --train.stages.lr 1e+29 --resume auto error: " in error  # the same command would diverge again
    folder = learn(*options, f"--train.stages=[{FROZEN}, {EXPLODING.replace('1e30', '1e-3')}]", "--resume=auto")
    assert read_log(folder)["stage"].tolist() == ["frozen", "frozen", "exploding"]


def test_advice_names_the_stage_that_diverged(refused: Refused) -> None:
    """--train.stages.lr would change the last one."""
    error = refused(f"--train.stages=[{EXPLODING}, {FROZEN}]")
    assert "lower lr for stage 'exploding' (its lr in the YAML)" in error and "--train.stages.lr" not in error


def test_a_full_disk_is_reported_with_the_command_that_continues(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append_row(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("training.engine.append_row", append_row)
    error = refused()
    assert "continue with: python train.py" in error and "--resume auto error: " in error
    assert error.endswith("loss_log.txt: no space left on the disk. Make room")


def test_a_damaged_log_is_reported_before_files_are_moved(learn: Learn, refused: Refused, tmp_path: Path) -> None:
    learn()
    other = learn(to=tmp_path / "other")
    with (other / "loss_log.txt").open("a") as file:
        file.write("a note\n")
    before = contents(folder := tmp_path / "run")
    error = refused(
        f"--resume={other / 'checkpoints_last.pth'}", f"--train.stages=[{FROZEN}, {EXPLODING.replace('1e30', '1e-3')}]"
    )
    assert "loss_log.txt: line 4 is not a row of this log ('a note')" in error
    assert contents(folder) == before and not (folder / "previous_runs").exists()


@pytest.fixture
def vanishing(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``vanishing(3, 5)``: options of a run on 70 + 20 images, of which these vanish after the check."""

    def make(*numbers: int) -> list[str]:
        def check(*args: Any) -> dict[Path, str]:
            bad = find_bad_images(*args)
            for number in numbers:
                (tmp_path / f"photos0/{number}.jpg").unlink(missing_ok=True)
            return bad

        monkeypatch.setattr("training.stage_data.find_bad_images", check)
        return [*photos(0), f"--train.stages=[{LEARNING}]", "--data.workers=2"]

    return make


@pytest.mark.parametrize("batch_size", [32, 2])
def test_a_few_images_that_vanish_are_reported_once_and_skipped(
    learn: Learn,
    vanishing: Callable[..., list[str]],
    batch_size: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = read_log(learn(*vanishing(3, 4, 5), f"--train.batch_size={batch_size}"))
    err = capsys.readouterr().err
    assert sorted(re.findall(r"skipped: .*?(\d)\.jpg: no such file \(\d of 70 training images", err)) == ["3", "4", "5"]
    assert log["epoch"].tolist() == [1, 2]
    # in batches of 2, 35 steps an epoch, and those with a single image left are skipped
    assert log["step"][0] == 3 if batch_size == 32 else log["step"][0] in (32, 33)


def test_more_than_5_percent_of_the_images_that_vanish_stop_the_run(
    refused: Refused, vanishing: Callable[..., list[str]]
) -> None:
    options = vanishing(3, 4, 5, 6)
    assert "4 of 70 training images can no longer be read (more than 5%); the last: " in refused(*options)


def test_a_validation_image_that_vanishes_stops_the_run(refused: Refused, vanishing: Callable[..., list[str]]) -> None:
    assert "75.jpg: no such file. It is a validation image: restore it" in refused(*vanishing(75))
