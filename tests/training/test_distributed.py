"""train.py in several processes: the same steps as one, which all stop, save and fail together."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import train
from tests.support.helpers import ROOT, assert_same, tiny_decoder
from tests.support.process_runs import ONE_STAGE, TWO_STAGES, At, ProcessRun
from tests.support.ranks import environment_of, free_port, join_ranks, losses_of_rank, start_ranks
from tests.support.training import read_log

# 8 images in batches of 3, 3 and 2: no batch can be divided by two, and the last not between three processes.
BATCH = "--train.batch_size=3"
# 21 steps each. The rates are low: AdamW makes steps of the rate's size of gradients that are 0 but for rounding.
SELF_CRITICAL = '{"name": "reward", "epochs": 7, "lr": 1e-5, "samples": 3}'
TEACHER_FORCING = '{"name": "words", "epochs": 7, "lr": 1e-3}'
FINE_TUNING = '{"name": "encoder", "epochs": 7, "lr": 1e-4, "encoder_lr": 1e-4, "encoder_from": 4, "flip": true}'
STAGES = {"self-critical": SELF_CRITICAL, "words": TEACHER_FORCING, "encoder": FINE_TUNING}
CLOCK = ["seconds", "images_per_second"]


def log_of(run: ProcessRun) -> pd.DataFrame:
    return read_log(run.path).drop(columns=["stage", *CLOCK])


def test_two_and_three_processes_make_the_steps_of_one(forkserver: Any, tiny_args: list[str], tmp_path: Path) -> None:
    options, losses = [*tiny_args, BATCH, "--train.precision=fp32", "--data.image_size=64"], {}
    for size in (1, 2, 3):
        output, port = tmp_path / f"{size}.json", free_port()
        processes = [
            forkserver.Process(target=losses_of_rank, args=(options, STAGES, environment_of(rank, size, port), output))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        losses[size] = json.loads(output.read_text())
    assert len(losses[1]) == 9 and all(len(steps) == 21 for steps, _ in losses[1].values())
    for size, (case, (steps, statistics)) in itertools.product((2, 3), losses[1].items()):
        shared, its_statistics = losses[size][case]
        assert [loss for loss, _ in shared] == pytest.approx([loss for loss, _ in steps], rel=0, abs=1e-4), (size, case)
        assert [norm for _, norm in shared] == pytest.approx([norm for _, norm in steps], rel=0.05), (size, case)
        assert its_statistics == pytest.approx(statistics, rel=0.01, abs=5e-3), (size, case)


def test_a_batch_in_pieces_is_the_same_step(forkserver: Any, tiny_args: list[str], tmp_path: Path) -> None:
    """Without batch normalization, whose statistics are those of a piece."""
    logs = []
    for pieces in (1, 3):
        options = (tiny_decoder("transformer", dropout=0.0), "--train.batch_size=8", f"--train.accumulate={pieces}")
        stages = f"[{SELF_CRITICAL}, {TEACHER_FORCING}]".replace("7", "2")
        run = ProcessRun(forkserver, tiny_args, tmp_path / f"run{pieces}", stages, *options)
        assert run.run() == 0, run.text()
        logs.append(log_of(run))
    assert (logs[0] - logs[1]).abs().max().max() <= 1e-4


MakeRun = Callable[..., ProcessRun]
WITH_DROPOUT = ("--train.batch_size=4", tiny_decoder("lstm", dropout=0.5))


@pytest.fixture
def make_run(forkserver: Any, tiny_args: list[str], tmp_path: Path) -> MakeRun:
    """``make_run("name")``: two stages with dropout, of 2 steps an epoch, in the folder of that name."""
    return lambda name: ProcessRun(forkserver, tiny_args, tmp_path / name, TWO_STAGES, *WITH_DROPOUT)


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped_and_on_any_number_of_processes(make_run: MakeRun) -> None:
    whole, stopped = make_run("whole"), make_run("stopped")
    assert join_ranks(whole, start_ranks(whole, 2)) == [0, 0], whole.text()
    signal_of_one = {1: At("training.objectives.caption_loss", 5, "SIGTERM")}
    assert join_ranks(stopped, start_ranks(stopped, 2, at=signal_of_one)) == [130, 130], stopped.text()
    assert stopped.text().count("stopped. Continue with:") == 1
    other = make_run("other")
    shutil.copytree(stopped.path, other.path)
    assert join_ranks(stopped, start_ranks(stopped, 2, "--resume=auto")) == [0, 0], stopped.text()
    assert_same(stopped.result(), whole.result())
    assert join_ranks(other, start_ranks(other, 1, "--resume=auto")) == [0], other.text()
    assert list(read_log(other.path)["epoch"]) == [1, 2, 3, 4, 5]


def test_no_process_waits_for_one_that_was_killed(make_run: MakeRun) -> None:
    run = make_run("killed")
    killed = {1: At("training.objectives.caption_loss", 5)}
    assert join_ranks(run, start_ranks(run, 3, at=killed), timeout=30) == [2, -signal.SIGKILL, 2]
    assert run.text().count("error: ") == 1 and "another process has ended" in run.text()
    assert join_ranks(run, start_ranks(run, 2, "--resume=auto")) == [0, 0], run.text()


def test_an_error_is_reported_once(make_run: MakeRun) -> None:
    run = make_run("failing")
    assert join_ranks(run, start_ranks(run, 3, "--captions_file=none.csv")) == [2, 2, 2]
    assert run.text().count("none.csv") == run.text().count("error: ") == 1
    assert join_ranks(run, start_ranks(run, 3, "--train.batch_size=2")) == [2, 2, 2]
    assert "the 3 processes share each batch" in run.text()
    assert join_ranks(run, start_ranks(run, 2, "--train.stages.lr=1e30")) == [2, 2]
    assert run.text().count("error: ") == 1 and "Try a lower lr" in run.text()


def test_seven_images_are_scored_once_each_by_two_processes(
    forkserver: Any, tiny_args: list[str], tmp_path: Path
) -> None:
    run, results = ProcessRun(forkserver, tiny_args, tmp_path / "run", ONE_STAGE), []
    assert run.run() == 0, run.text()
    for size in (1, 2):
        output = tmp_path / str(size) / "metrics.json"
        run.args = ["evaluate.py", f"--checkpoint={run.path}", "--split=all", "--limit=7", f"--output={output}"]
        assert join_ranks(run, start_ranks(run, size)) == [0] * size, run.text()
        results.append(json.loads((tmp_path / str(size) / "predictions.json").read_text()))
    assert results[0] == results[1] and len(results[0]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_restarts_a_run_of_which_a_process_was_killed(tiny_args: list[str], tmp_path: Path, rank: int) -> None:
    """The output folder holds an earlier run, which must not be continued in place of the one that was killed."""
    logs = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        options = [*tiny_args, "--train.stages.patience=30", f"--output_dir={folder}"]
        train.main([*options, "--train.stages.epochs=1"])
        options.append("--train.stages.epochs=30")
        words = ["--standalone", "--nproc_per_node=2", "--max-restarts=2", ROOT / "train.py", *options]
        command = [sys.executable, "-m", "torch.distributed.run", *map(str, words)]
        run = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if name == "killed":
            log = folder / "loss_log.txt"
            while not ((folder / "previous_runs").exists() and log.exists() and log.read_text().count("\n") > 2):
                assert run.poll() is None
                time.sleep(0.02)
            os.kill(_process_of(rank, folder), signal.SIGKILL)
        assert run.wait(300) == 0
        logs.append(read_log(folder).drop(columns=CLOCK))
    pd.testing.assert_frame_equal(*logs)


def _process_of(rank: int, folder: Path) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            if str(folder).encode() in words and f"\0RANK={rank}\0".encode() in variables:
                return int(process.name)
    raise AssertionError("no such process")
