"""A run that is stopped or killed anywhere and resumed ends bit-identical to one that is left alone.

The runs are real processes, forked from a server that has imported torch already: half a second each instead of four.
Their ResNet is thin, for the checkpoints' sake; everything else is what ``python train.py`` does.
"""

import functools
import multiprocessing
import os
import pkgutil
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

import models.model
import train
from cli import run_script
from tests.support.helpers import ROOT, assert_same
from utils import load_checkpoint

pytest.importorskip("multiprocessing.forkserver", reason="needs POSIX signals and fork")

# 8 images in steps of 2: an epoch is 4 steps and 1 batch of validation, each of which calls caption_loss once
CALLS_PER_EPOCH = 5
FROZEN = '{"name": "frozen", "epochs": 3, "lr": 0.01}'
AGAIN = '{"name": "again", "epochs": 2, "lr": 0.001, "label_smoothing": 0}'
AUGMENT = '"crop": 0.5, "flip": true, "jitter": 0.2'
LEARNING = f'{{"name": "learning", "epochs": 2, "lr": 0.001, "word_dropout": 0.2, "encoder_lr": 1e-4, "encoder_from": 3, {AUGMENT}}}'
SELF_CRITICAL = f'{{"name": "scst", "epochs": 2, "lr": 0.001, "samples": 3, "dropout": 0.1, {AUGMENT}}}'
ONE_STAGE, TWO_STAGES, ENCODER_STAGE = f"[{FROZEN}]", f"[{FROZEN}, {AGAIN}]", f"[{FROZEN}, {LEARNING}]"
SCST_STAGE = f"[{FROZEN}, {SELF_CRITICAL}]"
SAVE_EACH_STEP = "--train.save_every=1e-9"


@dataclass(frozen=True)
class At:
    """Something that happens to a run just before (or after) call number ``call`` of a function."""

    function: str
    call: int
    what: str = "SIGKILL"  # a signal for the process, or "group SIGINT", "twice SIGINT", "disk full", "torn file"
    after: bool = False


def run_process(argv: list[str], output: str, at: At | None) -> None:
    """The body of a run's process."""
    os.setsid()  # a process group of its own, as a command in a terminal has
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # also where the tests run in the background, which ignores it
    torch.set_num_threads(1)
    multiprocessing.set_start_method(
        "fork", force=True
    )  # for the loaders' workers, as when started from a command line
    models.model.resnet50 = functools.partial(ResNet, Bottleneck, [1, 1, 1, 1], width_per_group=8)
    if at is not None:
        _arrange(at)
    sys.argv = ["train.py", *argv]
    run_script(train.main)


def _arrange(at: At) -> None:
    place, name = at.function.rsplit(".", 1)
    owner = pkgutil.resolve_name(place)
    original, calls = getattr(owner, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != at.call:
            return original(*args, **kwargs)
        result = original(*args, **kwargs) if at.after else None
        _happen(at.what, args)
        return result if at.after else original(*args, **kwargs)

    setattr(owner, name, wrapped)
    for module in list(sys.modules.values()):  # also where it was imported by name
        if getattr(module, "__dict__", {}).get(name) is original:
            setattr(module, name, wrapped)


def _happen(what: str, args: tuple[Any, ...]) -> None:
    import resource

    if what == "disk full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    elif what == "torn file":  # args are those of torch.save
        args[1].write(b"PK" + bytes(1_000_000))
        args[1].flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif what.startswith("group "):
        os.killpg(0, signal.Signals[what.removeprefix("group ")])
    else:
        for _ in range(2 if what.startswith("twice ") else 1):
            os.kill(os.getpid(), signal.Signals[what.removeprefix("twice ")])
            time.sleep(0)  # handlers run between two instructions


@pytest.fixture(scope="module")
def forkserver():
    """What starts the runs' processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        )  # before 3.13 it does not take over sys.path
        multiprocessing.forkserver.ensure_running()
    return context


class Folder:
    """A run's output folder, and the processes that work on it."""

    def __init__(self, forkserver, args: list[str], path: Path, stages: str, *options: str) -> None:
        self.forkserver, self.path = forkserver, path
        plain = path.with_name("plain.yaml")  # not config.yaml: what a stage does not say would come from there
        plain.write_text("device: cpu")
        self.args = [
            f"--config={plain}",
            *args,
            "--train.batch_size=2",
            f"--train.stages={stages}",
            f"--output_dir={path}",
            *options,
        ]
        self.output = path.with_suffix(".txt")

    def start(self, at: At | None = None, *options: str) -> multiprocessing.Process:
        process = self.forkserver.Process(target=run_process, args=([*self.args, *options], str(self.output), at))
        process.start()
        return process

    def run(self, at: At | None = None, *options: str, timeout: float = 60) -> int:
        """Exit status; minus the signal's number for a killed process."""
        process = self.start(at, *options)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            pytest.fail(f"still running after {timeout} s: {self.text()}")
        return process.exitcode

    def resume(self, *options: str) -> None:
        assert self.run(None, "--resume=auto", *options) == 0, self.text()

    def text(self) -> str:
        return self.output.read_text()

    def result(self) -> dict[str, Any]:
        """All that must be equal: both checkpoints without times, and the log without times."""
        best, last = (load_checkpoint(self.path / name) for name in ("checkpoints.pth", "checkpoints_last.pth"))
        for checkpoint in (best, last):
            del checkpoint["config"]
        del last["training"]["progress"]["seconds"]
        log = pd.read_csv(self.path / "loss_log.txt", sep="\t", keep_default_na=False).drop(
            columns=["seconds", "images_per_second"]
        )
        assert not list(self.path.glob(".*.tmp")), "unfinished files left behind"
        return {"best": best, "last": last, "log": log.to_dict("list")}


@pytest.fixture
def folder(forkserver, tiny_args: list[str], tmp_path: Path):
    return lambda stages, *options: Folder(forkserver, tiny_args, tmp_path / "run", stages, *options)


@pytest.fixture(scope="module")
def uninterrupted(forkserver, tiny_args: list[str], tmp_path_factory: pytest.TempPathFactory):
    """The result of a run that nothing happens to, by its stages and options."""

    @functools.cache
    def result(stages: str, *options: str) -> dict[str, Any]:
        run = Folder(forkserver, tiny_args, tmp_path_factory.mktemp("uninterrupted") / "run", stages, *options)
        assert run.run() == 0, run.text()
        return run.result()

    return result


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "call", [2, 9, 10, 14]
)  # in the first epoch, in the last step of an epoch, in validation, late
def test_stopped_between_two_steps(folder, uninterrupted, signal_name: str, call: int) -> None:
    run = folder(ONE_STAGE)
    assert run.run(At("training.objectives.caption_loss", call, signal_name)) == 130
    assert "--resume auto" in run.text() and "Traceback" not in run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_a_second_ctrl_c_stops_at_once_and_costs_what_was_not_saved(folder, uninterrupted) -> None:
    run = folder(ONE_STAGE)
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
    "before the best checkpoint": At("training.run.Run.save_best", 1),
    "after the best checkpoint": At("training.run.Run.save_best", 1, after=True),
    "between log row and checkpoint": At("training.loss_log.append_row", 2, after=True),
    "while a checkpoint is written": At("torch.save", 9, "torn file"),
    "before the run is said to be finished": At("training.run.Run.learn", 1, after=True),
}


@pytest.mark.parametrize("at", KILLS.values(), ids=KILLS.keys())
def test_killed(folder, uninterrupted, at: At) -> None:
    run = folder(ONE_STAGE, SAVE_EACH_STEP)
    assert run.run(at) == -signal.SIGKILL, run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_killed_again_and_again_at_random_calls(folder, uninterrupted) -> None:
    run, dice = folder(ONE_STAGE, SAVE_EACH_STEP), random.Random(0)
    points = [dice.randint(2, 6) for _ in range(4)]
    for call in points:
        assert run.run(At("training.objectives.caption_loss", call), "--resume=auto") == -signal.SIGKILL, (
            points,
            run.text(),
        )
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_killed_again_and_again_at_random_times(folder, uninterrupted) -> None:
    run, delays = folder(ENCODER_STAGE, SAVE_EACH_STEP), []
    for _ in range(5):
        process = run.start(None, "--resume=auto")
        delays.append(random.uniform(0.2, 1.5))
        process.join(delays[-1])
        process.kill()
        process.join()
    run.resume()
    print(f"killed after {delays} s")  # pytest shows it if the next line fails
    assert_same(run.result(), uninterrupted(ENCODER_STAGE))


BOUNDARIES = {
    "before the next stage is set up": At("training.stage_data.prepare_data", 2),
    "after the next stage is set up": At("training.run.Run.set_up_stage", 2, after=True),
    "when the next stage is saved": At("training.run.Run.save_last", 4, after=True),
    "in the next stage": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 2, "SIGTERM"),
    "in the last validation of a stage": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH, "SIGTERM"),
    "after the last validation of a stage": At("training.engine.validate", 3, "SIGTERM", after=True),
}


@pytest.mark.parametrize("at", BOUNDARIES.values(), ids=BOUNDARIES.keys())
def test_between_two_stages(folder, uninterrupted, at: At) -> None:
    """The second stage begins with an optimizer of its own, resumed or not."""
    run = folder(TWO_STAGES)
    assert run.run(at) in (-signal.SIGKILL, 130), run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(TWO_STAGES))


ENCODER_POINTS = {
    "before its first step": At("training.run.Run.save_last", 4, after=True),
    "in an epoch": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 7),
    "by SIGTERM": At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 7, "SIGTERM"),
}


@pytest.mark.parametrize("at", ENCODER_POINTS.values(), ids=ENCODER_POINTS.keys())
def test_where_the_encoder_learns(folder, uninterrupted, at: At) -> None:
    run = folder(ENCODER_STAGE, SAVE_EACH_STEP) if at.what == "SIGKILL" and at.call > 4 else folder(ENCODER_STAGE)
    assert run.run(at) in (-signal.SIGKILL, 130), run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE))


def test_killed_while_sentences_are_drawn(folder, uninterrupted) -> None:
    run = folder(SCST_STAGE, SAVE_EACH_STEP)
    assert run.run(At("models.decoding.sample", 6)) == -signal.SIGKILL, run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(SCST_STAGE))


@pytest.mark.parametrize("option", ["--decoder.name=attention", "--decoder.name=transformer", "--train.ema=0"])
def test_every_decoder_and_the_plain_weights(folder, uninterrupted, option: str) -> None:
    run = folder(ENCODER_STAGE, option)
    assert run.run(At("training.objectives.caption_loss", 8), SAVE_EACH_STEP) == -signal.SIGKILL
    assert (
        run.run(At("training.objectives.caption_loss", 11), SAVE_EACH_STEP, "--resume=auto") == -signal.SIGKILL
    )  # where the encoder learns
    run.resume()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE, option))


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_reaches_the_loaders_workers_too(folder, uninterrupted, signal_name: str) -> None:
    """A terminal signals the whole process group; batch systems do as well."""
    run = folder(ENCODER_STAGE, "--data.workers=2")
    assert run.run(At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 2, f"group {signal_name}")) == 130, (
        run.text()
    )
    assert run.text().count("stopping after this step") == 1 and "Traceback" not in run.text()
    run.resume()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE))


def test_ctrl_c_while_features_are_computed_stops_at_once(folder, uninterrupted, tmp_path: Path) -> None:
    run = folder(ONE_STAGE, f"--data.feature_cache={tmp_path / 'cache'}")
    assert run.run(At("models.captioner.Captioner.encode", 1, "SIGINT")) == 130
    assert run.text().endswith("interrupted\n")
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_a_full_disk_leaves_the_last_checkpoint_and_one_clear_line(folder, uninterrupted) -> None:
    run = folder(ONE_STAGE, SAVE_EACH_STEP)
    assert run.run(At("training.objectives.caption_loss", 7, "disk full")) == 2
    error = run.text().splitlines()[-1]
    assert error.startswith("error: ") and "checkpoints_last.pth: cannot be written" in error and "make room" in error
    assert "Traceback" not in run.text()
    assert load_checkpoint(run.path / "checkpoints_last.pth")["training"]["progress"]["total_steps"] == 5
    run.resume()
    assert_same(run.result(), uninterrupted(ONE_STAGE))


def test_the_command_itself(tiny_args: list[str], tmp_path: Path) -> None:
    """``python train.py``, stopped by Ctrl-C at a random moment and resumed, against the same command left alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folders = {
        name: Folder(None, tiny_args, tmp_path / name, ONE_STAGE, SAVE_EACH_STEP, "--resume=auto")
        for name in ("alone", "stopped")
    }

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "train.py"), *folders[name].args]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    alone, stopped = start("alone"), start("stopped")
    while stopped.poll() is None and not (tmp_path / "stopped/checkpoints_last.pth").exists():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and "Go on with the same command and --resume auto" in errors, errors
    resumed = start("stopped")
    for process in (alone, resumed):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert_same(folders["stopped"].result(), folders["alone"].result())
