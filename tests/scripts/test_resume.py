"""A run that is stopped or killed at any moment and resumed ends bit-identical to an uninterrupted one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.checkpoint import load_checkpoint
from tests.support.helpers import ROOT, assert_same, tiny_decoder
from tests.support.process_runs import (
    CALLS_PER_EPOCH,
    ENCODER_STAGE,
    ONE_STAGE,
    SAVE_EACH_STEP,
    SCST_STAGE,
    TWO_STAGES,
    At,
    ProcessRun,
    result_of,
)  # fmt: skip

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")


STOPS = {
    "in the first epoch": At("training.objectives.caption_loss", 2, "SIGTERM"),
    "in the last step of an epoch": At("training.objectives.caption_loss", 9, "SIGINT"),
    "in validation": At("training.objectives.caption_loss", 10, "SIGTERM"),
    "late": At("training.objectives.caption_loss", 14, "SIGINT"),
}


@pytest.mark.parametrize("at", STOPS.values(), ids=STOPS.keys())
def test_stopped_between_two_steps(process_run, uninterrupted, at: At) -> None:
    run = process_run(ONE_STAGE)
    assert run.run(at) == 130
    assert "--resume auto" in run.text() and "Traceback" not in run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_a_second_ctrl_c_stops_at_once_and_loses_what_was_not_saved(process_run, uninterrupted) -> None:
    run = process_run(ONE_STAGE)
    assert run.run(At("training.objectives.caption_loss", 8, "twice SIGINT")) == 130
    assert run.text().endswith("interrupted\n") and "Traceback" not in run.text()
    assert load_checkpoint(run.path / "checkpoints_last.pth")["training"]["progress"]["total_steps"] == 4
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


KILLS = {
    "in the first step": At("training.objectives.caption_loss", 1),
    "between two steps": At("training.objectives.caption_loss", 8),
    "in validation": At("training.engine.validate", 2),
    "after validation": At("training.engine.validate", 2, after=True),
    "before the best checkpoint": At("training.run_folder.Saver.save_best", 1),
    "after the best checkpoint": At("training.run_folder.Saver.save_best", 1, after=True),
    "between log row and checkpoint": At("training.loss_log.append_row", 2, after=True),
    "while a checkpoint is written": At("torch.save", 9, "torn file"),
    "before the run reports its end": At("training.engine.train", 1, after=True),
}


@pytest.mark.parametrize("at", KILLS.values(), ids=KILLS.keys())
def test_killed(process_run, uninterrupted, at: At) -> None:
    run = process_run(ONE_STAGE, SAVE_EACH_STEP)
    assert run.run(at) == -signal.SIGKILL, run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_killed_repeatedly_at_random_calls(process_run, uninterrupted) -> None:
    run, seed = process_run(ONE_STAGE, SAVE_EACH_STEP), random.randrange(10_000)
    print(f"seed {seed}")  # pytest shows it if the test fails
    generator = random.Random(seed)
    for _ in range(4):
        at = At("training.objectives.caption_loss", generator.randint(2, 6))  # from call 2 on, each run makes progress
        assert run.run(at, "--resume=auto") in (-signal.SIGKILL, 0), run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_killed_repeatedly_at_random_times(process_run, uninterrupted) -> None:
    run, seed = process_run(ENCODER_STAGE, SAVE_EACH_STEP), random.randrange(10_000)
    print(f"seed {seed}")
    generator = random.Random(seed)
    for _ in range(4):
        process = run.start(None, "--resume=auto")
        process.join(generator.uniform(0.2, 1.5))
        process.kill()
        process.join()
    run.resume()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE))


BOUNDARIES = {
    "before the next stage is set up": At("training.stage_data.prepare_data", 2),
    "after the next stage is set up": At("training.stage_setup.set_up_stage", 2, after=True),
    "when the next stage is saved": At("training.run_folder.Saver.save_last", 4, after=True),
    "in the next stage": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 2, "SIGTERM"),
    "in the last validation of a stage": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH, "SIGTERM"),
    "after the last validation of a stage": At("training.engine.validate", 3, "SIGTERM", after=True),
}


@pytest.mark.parametrize("at", BOUNDARIES.values(), ids=BOUNDARIES.keys())
def test_between_two_stages(process_run, uninterrupted, at: At) -> None:
    """The second stage begins with an optimizer of its own, resumed or not."""
    run = process_run(TWO_STAGES)
    assert run.run(at) in (-signal.SIGKILL, 130), run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(TWO_STAGES))


ENCODER_POINTS = {
    "before its first step": At("training.run_folder.Saver.save_last", 4, after=True),
    "in an epoch": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 7),
    "by SIGTERM": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 7, "SIGTERM"),
}


@pytest.mark.parametrize("at", ENCODER_POINTS.values(), ids=ENCODER_POINTS.keys())
def test_in_a_stage_that_trains_the_encoder(process_run, uninterrupted, at: At) -> None:
    run = (
        process_run(ENCODER_STAGE, SAVE_EACH_STEP)
        if at.what == "SIGKILL" and at.call > 4
        else process_run(ENCODER_STAGE)
    )
    assert run.run(at) in (-signal.SIGKILL, 130), run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE))


def test_killed_while_captions_are_sampled(process_run, uninterrupted) -> None:
    run = process_run(SCST_STAGE, SAVE_EACH_STEP)
    assert run.run(At("models.decoding.sample", 6)) == -signal.SIGKILL, run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(SCST_STAGE))


LONGER = ONE_STAGE.replace('"epochs": 3', '"epochs": 5')
LONGER_POINTS = {
    "before its first step": At("training.run_folder.prepare_folder", 1, after=True),
    "in an epoch": At("training.objectives.caption_loss", CALLS_PER_EPOCH + 3),
    "between log row and checkpoint": At("training.loss_log.append_row", 1, after=True),
    "before the run reports its end": At("training.engine.train", 1, after=True),
}


@pytest.fixture(scope="module")
def lengthened(forkserver, tiny_args: list[str], tmp_path_factory: pytest.TempPathFactory):
    """The result of ONE_STAGE, finished and then lengthened to LONGER without an interruption."""
    path = tmp_path_factory.mktemp("lengthened") / "run"
    assert ProcessRun(forkserver, tiny_args, path, ONE_STAGE).run() == 0
    run = ProcessRun(forkserver, tiny_args, path, LONGER)
    run.resume()
    assert "train.stages[0].epochs: 3 -> 5" in run.text() and "its schedule is now that of 5 epochs" in run.text()
    return run.taken()


@pytest.mark.parametrize("at", LONGER_POINTS.values(), ids=LONGER_POINTS.keys())
def test_in_a_finished_stage_that_is_lengthened(process_run, lengthened, at: At) -> None:
    assert process_run(ONE_STAGE).run() == 0
    run = process_run(LONGER)
    assert run.run(at, SAVE_EACH_STEP, "--resume=auto") == -signal.SIGKILL, run.text()
    run.resume()
    assert lengthened["log"]["epoch"] == [1, 2, 3, 4, 5]
    assert_same(run.result(), lengthened)


@pytest.mark.parametrize("option", [tiny_decoder("attention"), tiny_decoder("transformer"), "--train.ema=0"])
def test_every_decoder_and_the_plain_weights(process_run, uninterrupted, option: str) -> None:
    run = process_run(ENCODER_STAGE, option)
    assert run.run(At("training.objectives.caption_loss", 8), SAVE_EACH_STEP) == -signal.SIGKILL
    assert (
        run.run(At("training.objectives.caption_loss", 11), SAVE_EACH_STEP, "--resume=auto") == -signal.SIGKILL
    )  # where the encoder learns
    run.resume()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE, option))


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_reaches_the_loaders_workers_too(process_run, uninterrupted, signal_name: str) -> None:
    """A terminal signals the whole process group; batch systems do as well."""
    run = process_run(ENCODER_STAGE, "--data.workers=2")
    assert run.run(At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 2, f"group {signal_name}")) == 130, (
        run.text()
    )
    assert run.text().count("stopping after this step") == 1 and "Traceback" not in run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE))


def test_ctrl_c_while_features_are_computed_stops_at_once(process_run, uninterrupted, tmp_path: Path) -> None:
    run = process_run(ONE_STAGE, f"--data.feature_cache={tmp_path / 'cache'}")
    assert run.run(At("models.captioner.Captioner.encode", 1, "SIGINT")) == 130
    assert run.text().endswith("interrupted\n")
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_a_full_disk_leaves_the_last_checkpoint_and_one_clear_line(process_run, uninterrupted) -> None:
    run = process_run(ONE_STAGE, SAVE_EACH_STEP)
    assert run.run(At("training.objectives.caption_loss", 7, "disk full")) == 2
    error = run.text().splitlines()[-1]
    assert error.startswith("error: ") and "checkpoints_last.pth: cannot be written" in error and "make room" in error
    assert "Traceback" not in run.text()
    assert load_checkpoint(run.path / "checkpoints_last.pth")["training"]["progress"]["total_steps"] == 5
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_the_command_itself(tiny_args: list[str], tiny_run: Path, tmp_path: Path) -> None:
    """``python train.py``, stopped by Ctrl-C at a random moment and resumed, against the same command uninterrupted."""
    folder = tmp_path / "stopped"
    command = [sys.executable, str(ROOT / "train.py"), *tiny_args, f"--output_dir={folder}"]
    command += [SAVE_EACH_STEP, "--resume=auto"]

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    stopped = start()
    while stopped.poll() is None and not (folder / "checkpoints_last.pth").exists():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=120)
    assert stopped.returncode == 130 and "Continue with: python train.py" in errors, errors
    resumed = start()
    _, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert_same(result_of(folder), result_of(tiny_run))
