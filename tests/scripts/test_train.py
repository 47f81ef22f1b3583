"""What train.py writes, refuses and keeps, on tiny data. How it resumes is in test_resume.py."""

import re
import shlex
import signal
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import train
from cli import UserError
from models.checkpoint import load_checkpoint
from tests.support.helpers import write_csv
from tests.support.training import (
    CLOCK,
    COLUMNS,
    FILES,
    FROZEN,
    LEARNING,
    Interrupted,
    Learn,
    Photos,
    Refused,
    contents,
    last,
    read_log,
    weights,
)  # fmt: skip
from utils import pick_precision

# --- what is written


def test_the_files_of_the_contract_are_written(tiny_run: Path) -> None:
    """With a whole ResNet-50. ``python train.py`` itself is run by test_resume.py."""
    assert {path.name for path in tiny_run.iterdir()} == FILES
    assert {"format_version", "config", "vocab", "transform", "model"} <= load_checkpoint(
        tiny_run / "checkpoints.pth"
    ).keys()
    assert list(read_log(tiny_run).columns) == COLUMNS


def test_log(learn: Learn, capsys: pytest.CaptureFixture[str]) -> None:
    log = read_log(learn())
    assert (
        log["stage"].tolist() == ["frozen"] * 2 and log["epoch"].tolist() == [1, 2] and log["step"].tolist() == [2, 4]
    )
    assert log[COLUMNS[3:-2]].map(lambda value: isinstance(value, float) and value >= 0).all(axis=None)
    assert log["reward"].isna().all()  # of self-critical stages only
    assert (log["grad_norm"] > 0).all()
    out = capsys.readouterr().out
    assert re.search(
        r"^frozen 1/2 +loss \d.* val \d.* BLEU-4 .*CIDEr .*distinct +\d+% .*img/s +\d+ s of training left",
        out,
        re.MULTILINE,
    )
    assert out.count(".jpg: ") == 2 * 3  # sample captions


def test_checkpoints(learn: Learn) -> None:
    folder = learn('--train.stages=[{"name": "long", "epochs": 8, "lr": 0.01, "patience": 8}]')
    log, best = read_log(folder), load_checkpoint(folder / "checkpoints.pth")
    assert best["scores"]["val_cider"] == pytest.approx(log["val_cider"].max(), rel=1e-5)
    assert best["scores"]["epoch"] == log["epoch"][log["val_cider"].argmax()]
    assert "training" not in best
    progress = last(folder)["training"]["progress"]
    assert (progress["stage"], progress["epoch"], progress["total_epochs"], progress["total_steps"]) == (
        "long",
        8,
        8,
        16,
    )
    assert best["vocab"][:4] == ["<pad>", "<start>", "<end>", "<unk>"] and "circle" in best["vocab"]


def test_resolved_config_gives_the_same_run_again(learn: Learn, tmp_path: Path) -> None:
    first = learn("--train.seed=7", f"--train.stages=[{FROZEN}, {LEARNING}]", "--resume=auto")
    values = yaml.safe_load((first / "resolved_config.yaml").read_text())
    assert "resume" not in values and "config" not in values
    train.main([f"--config={first / 'resolved_config.yaml'}", f"--output_dir={tmp_path / 'again'}"])
    pd.testing.assert_frame_equal(read_log(first).drop(columns=CLOCK), read_log(tmp_path / "again").drop(columns=CLOCK))
    one, other = weights(first), weights(tmp_path / "again")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_seed_is_another_run(learn: Learn, tmp_path: Path) -> None:
    one, other = read_log(learn()), read_log(learn("--train.seed=1", to=tmp_path / "other"))
    assert one["train_loss"].tolist() != other["train_loss"].tolist()


# --- stages and schedules


def test_two_stages(learn: Learn, tmp_path: Path) -> None:
    """The encoder stays as it is in the first, and learns from its third stage on in the second."""
    slow, fast = (
        FROZEN.replace("0.01", "1e-6"),
        LEARNING.replace("0.001", "0.02"),
    )  # so that the best epoch is one of the second
    frozen = learn(f"--train.stages=[{slow}]", to=tmp_path / "frozen")
    both = learn(f"--train.stages=[{slow}, {fast}]")
    assert read_log(both)["stage"].tolist() == ["frozen"] * 2 + ["learning"] * 2
    pd.testing.assert_frame_equal(read_log(frozen).drop(columns=CLOCK), read_log(both).drop(columns=CLOCK)[:2])
    before, after = weights(frozen), weights(both, "checkpoints.pth")
    changed = {
        name.split(".")[2]
        for name in before
        if name.startswith("encoder.") and not torch.equal(before[name], after[name])
    }
    assert changed == {"3", "4"}


def test_early_stopping(learn: Learn, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn('--train.stages=[{"name": "still", "epochs": 9, "lr": 1e-12, "patience": 2}]')
    assert len(read_log(folder)) == 3  # the first is the best so far, the next two are not better
    assert "stage still: no better validation CIDEr for 2 epochs, stopped early" in capsys.readouterr().out
    progress = last(folder)["training"]["progress"]
    assert (progress["stage"], progress["epoch"], progress["epochs_without_better"]) == ("still", 3, 2)


def test_early_stopping_ends_the_stage_not_the_run(learn: Learn) -> None:
    still = '{"name": "still", "epochs": 9, "lr": 1e-12, "patience": 1}'
    assert read_log(learn(f"--train.stages=[{still}, {FROZEN}]"))["stage"].tolist() == ["still"] * 2 + ["frozen"] * 2


def test_plateau_halves_the_learning_rate_after_two_epochs_without_improvement(learn: Learn) -> None:
    folder = learn(
        '--train.stages=[{"name": "flat", "epochs": 7, "lr": 1e-12, "patience": 9, "schedule": "plateau", "warmup": 0}]'
    )
    assert (read_log(folder)["lr"] / 1e-12).tolist() == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25, 0.25])


# --- what is refused: exit status 2 and one line


def test_missing_or_wrong_input(refused: Refused, tmp_path: Path) -> None:
    column = write_csv(tmp_path / "column.csv", [("a.jpg", "a dog", "train")], header=("image", "text", "split"))
    assert "nowhere.csv: no such captions file" in refused("--data.captions_file=nowhere.csv")
    assert "column.csv: no columns named caption" in refused(f"--data.captions_file={column}")
    assert "column.csv: a file, not a folder of images. Name it with --image_dir" in refused(f"--image_dir={column}")
    assert "8 of 8 images cannot be used" in refused(f"--data.image_dir={tmp_path}")
    assert "8 of 8 images cannot be used" in refused(f"--data.image_dir={tmp_path}", f"--train.stages=[{LEARNING}]")
    assert "encoder.weights nowhere.pth: no such file" in refused("--encoder.weights=nowhere.pth")
    assert "did you mean '--train.seed'" in refused("--train.sed=1")
    assert "fp16" in refused("--train.precision=fp16")
    if pick_precision("auto", torch.device("cpu")) != torch.bfloat16:  # it ended in an error of oneDNN
        assert "bf16: not supported by this CPU" in refused("--train.precision=bf16")
    assert not (tmp_path / "run").exists()


def test_what_is_refused_leaves_an_earlier_run_alone(learn: Learn, refused: Refused) -> None:
    folder = learn()
    before = contents(folder)
    assert "nowhere: no such folder of images" in refused("--data.image_dir=nowhere")
    assert contents(folder) == before and not (folder / "previous_runs").exists()


@pytest.mark.parametrize("stage", [FROZEN, LEARNING], ids=["cached", "learning"])
def test_a_few_bad_images_are_reported_and_skipped(
    learn: Learn, photos: Photos, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = learn(*photos(3), f"--train.stages=[{stage}]")
    err = capsys.readouterr().err
    assert re.findall(r"skipped: .*?(\d)\.jpg: not an image", err) == ["0", "1", "2"]
    assert read_log(folder)["step"].tolist() == [3, 6]  # 67 images in steps of 32


def test_more_than_5_percent_of_bad_images_stop_the_run_before_training(refused: Refused, photos: Photos) -> None:
    error = refused(*photos(4))
    assert (
        "4 of 70 images cannot be used (more than 5%)" in error
        and "4 not an image (0.jpg, 1.jpg, 2.jpg and 1 more)" in error
    )


# --- earlier runs, and resuming


def test_a_new_run_moves_the_files_of_an_earlier_one_and_loses_nothing(
    learn: Learn, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(learn())
    folder = learn("--train.seed=1")
    (moved,) = (folder / "previous_runs").iterdir()
    assert contents(moved) == before
    assert contents(folder).keys() == FILES and contents(folder)["loss_log.txt"] != before["loss_log.txt"]
    assert f"--resume {moved / 'checkpoints_last.pth'}" in capsys.readouterr().out


def test_the_log_of_a_run_without_checkpoints_is_moved_to_previous_runs(learn: Learn) -> None:
    folder = learn()
    before = contents(folder)
    for path in folder.glob("*.pth"):
        path.unlink()
    assert len(read_log(learn())) == 2
    (moved,) = (folder / "previous_runs").iterdir()
    assert contents(moved) == {name: data for name, data in before.items() if not name.endswith(".pth")}


def test_an_earlier_run_continues_with_its_own_files(learn: Learn) -> None:
    """With --resume previous_runs/.../checkpoints_last.pth, as the message says when they are moved."""
    longer = f"--train.stages=[{FROZEN}, {FROZEN.replace('frozen', 'more')}]"
    first, folder = read_log(learn()), learn("--train.seed=1")
    second = contents(folder)
    (moved,) = (folder / "previous_runs").iterdir()
    untouched = contents(moved)
    learn(longer, f"--resume={moved / 'checkpoints_last.pth'}")
    pd.testing.assert_frame_equal(read_log(folder)[:2], first)
    assert read_log(folder)["stage"].tolist() == ["frozen"] * 2 + ["more"] * 2
    assert load_checkpoint(folder / "checkpoints.pth")["config"]["train"]["seed"] == 0
    assert contents(moved) == untouched
    assert second in [contents(path) for path in (folder / "previous_runs").iterdir()]


def test_resume_auto_starts_a_new_run_where_there_is_none(learn: Learn, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn("--resume=auto")
    assert "--resume auto: no checkpoints_last.pth in" in capsys.readouterr().out
    assert contents(folder).keys() == FILES


def test_an_absurd_learning_rate_is_warned_of_before_training(learn: Learn, capsys: pytest.CaptureFixture[str]) -> None:
    learn("--train.stages=[{name: wild, epochs: 1, lr: 100, encoder_lr: 0.2, encoder_from: 4}]")
    errors = capsys.readouterr().err
    assert "warning: stage wild: lr 100 is far too high" in errors and "encoder_lr 0.2 is far" in errors
    learn()
    assert "warning" not in capsys.readouterr().err


def assert_the_command_continues(error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that an error of ``refused`` names has nothing to do, as the run is finished."""
    command = error.removeprefix("because of the error below, run instead: ").split(" error: ")[0]
    python, script, *words = shlex.split(command)
    assert (python, script) == ("python", "train.py")
    train.main(words)
    assert "nothing to do" in capsys.readouterr().out


def test_resume_refuses(
    learn: Learn,
    refused: Refused,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # the error names two paths, and long ones would shorten it
    folder = learn()
    before = contents(folder)
    other = tmp_path / "other.csv"
    other.write_text((tiny_data / "captions.csv").read_text().replace("There is", "Here is"))
    assert "missing.pth: no such file" in refused("--resume=missing.pth")
    error = refused("--resume=run/checkpoints.pth")
    assert "holds no optimizer" in error and "--resume run/checkpoints_last.pth" in error
    assert "run instead: python train.py " in error and "--init_from run/checkpoints.pth error: " in error
    error = refused("--resume=auto", f"--data.captions_file={other}")
    assert "the run began with the captions file" in error and "not other.csv" in error.replace(f"{tmp_path}/", "")
    assert_the_command_continues(error, capsys)
    error = refused("--resume=auto", "--decoder.hidden_size=9", "--train.seed=1")
    assert "decoder.hidden_size" in error and "train.seed" in error
    assert_the_command_continues(error, capsys)
    error = refused("--resume=auto", f"--train={{seed: 1, stages: [{FROZEN}]}}")
    assert "train.seed" in error
    assert_the_command_continues(error, capsys)
    assert contents(folder) == before


def test_a_run_can_continue_with_a_lower_learning_rate(learn: Learn, interrupted: Interrupted) -> None:
    """As the error message about a loss that is not finite advises."""
    stage = '{{"name": "frozen", "epochs": 3, "lr": {}, "schedule": "plateau", "warmup": 0}}'
    interrupted(4, f"--train.stages=[{stage.format(0.01)}]")
    folder = learn(f"--train.stages=[{stage.format(0.002)}]", "--resume=auto")
    assert read_log(folder)["lr"].tolist() == pytest.approx([0.01, 0.002, 0.002])


def test_the_trained_layers_cannot_change_within_a_stage(interrupted: Interrupted, refused: Refused) -> None:
    interrupted(1, f"--train.stages=[{LEARNING}]")
    assert "Leave its encoder_lr and encoder_from" in refused(
        f"--train.stages=[{FROZEN.replace('frozen', 'learning')}]", "--resume=auto"
    )


def test_train_runs_in_a_thread_and_restores_signal_handlers(learn: Learn) -> None:
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    folder = learn()
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == before
    thread = threading.Thread(target=learn, kwargs={"to": folder.with_name("thread")})
    thread.start()
    thread.join()
    assert contents(folder.with_name("thread")).keys() == FILES


def test_the_best_epoch_is_found_again_if_its_checkpoint_was_removed(
    learn: Learn, interrupted: Interrupted, folder: Path
) -> None:
    interrupted(5)
    (folder / "checkpoints.pth").unlink()
    learn("--resume=auto")
    assert load_checkpoint(folder / "checkpoints.pth")["scores"]["epoch"] == 2


def test_precision_of_matrix_products_is_set_for_the_run(learn: Learn, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("training.run.train", lambda *_: seen.append(torch.get_float32_matmul_precision()))
    for precision in ("fp32", "auto"):
        with pytest.raises(AttributeError):  # there is no result to report
            learn(f"--train.precision={precision}")
    assert seen == ["highest", "medium"]


def test_user_errors_are_not_swallowed_by_main() -> None:
    with pytest.raises(UserError, match="no such file"):
        train.main(["--config=nowhere.yaml"])
