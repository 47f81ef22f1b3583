"""Scripts in processes of their own, which are stopped, killed and resumed.

They are forked from a server that has imported torch already: half a second each instead of four. The encoder is a
thin ResNet, so that checkpoints are small; everything else is what ``python train.py`` does.
"""

import functools
import importlib
import multiprocessing
import os
import pkgutil
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import pytest
import torch

import models.model
from cli import run_script
from models.checkpoint import load_checkpoint
from tests.support.helpers import ROOT
from tests.support.training import thin_resnet50

# 8 images in steps of 2: an epoch is 4 steps and 1 batch of validation, each of which calls caption_loss once
CALLS_PER_EPOCH = 5
FROZEN = '{"name": "frozen", "epochs": 3, "lr": 0.01}'
AGAIN = '{"name": "again", "epochs": 2, "lr": 0.001, "label_smoothing": 0}'
AUGMENT = '"crop": 0.5, "flip": true, "jitter": 0.2'
LEARNING = (
    '{"name": "learning", "epochs": 2, "lr": 0.001, "word_dropout": 0.2, '
    f'"encoder_lr": 1e-4, "encoder_from": 3, {AUGMENT}}}'
)
SELF_CRITICAL = f'{{"name": "scst", "epochs": 2, "lr": 0.001, "samples": 3, "dropout": 0.1, {AUGMENT}}}'
ONE_STAGE, TWO_STAGES, ENCODER_STAGE = f"[{FROZEN}]", f"[{FROZEN}, {AGAIN}]", f"[{FROZEN}, {LEARNING}]"
SCST_STAGE = f"[{FROZEN}, {SELF_CRITICAL}]"
IMPORTED_LATE = ["torch._dynamo", "torchvision.transforms", "nltk.tokenize.treebank"]  # by functions that need them
SAVE_EACH_STEP = "--train.save_every=1e-9"


@dataclass(frozen=True)
class At:
    """What happens to a run, just before (or after) call number ``call`` of ``function`` (its dotted name)."""

    function: str
    call: int
    what: str = "SIGKILL"  # a signal for the process, or "group SIGINT", "twice SIGINT", "disk full", "torn file"
    after: bool = False


def run_process(
    argv: list[str], output: str, at: At | None, environment: Mapping[str, str] = MappingProxyType({})
) -> None:
    """The body of a run's process: ``python train.py OPTIONS ...``, if these are the words of ``argv``."""
    os.environ |= environment
    os.setsid()  # a process group of its own, as a command in a terminal has
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # tests that run in the background have inherited a SIGINT that is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    # the default for the loaders' workers when the script is started from a command line
    multiprocessing.set_start_method("fork", force=True)
    models.model.ResNet50 = thin_resnet50
    if at is not None:
        _arrange(at)
    sys.argv = argv
    run_script(importlib.import_module(Path(argv[0]).stem).main)


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


@pytest.fixture(scope="session")
def forkserver() -> Any:
    """The multiprocessing context that starts the runs' processes."""
    return start_forkserver([__name__, "training.run", "inference_visualize", "gallery.writing"])


def start_forkserver(modules: list[str]) -> Any:
    """Start the server of a multiprocessing context, with these modules imported; skip the test where there is none."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork and POSIX signals")
    import multiprocessing.forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules, *IMPORTED_LATE])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # before Python 3.13 it does not take over sys.path
        multiprocessing.forkserver.ensure_running()
    return context


def result_of(folder: Path) -> dict[str, Any]:
    """What must be equal in the output folders of equal runs: both checkpoints and the log, without times."""
    best, last = (load_checkpoint(folder / name) for name in ("checkpoints.pth", "checkpoints_last.pth"))
    for checkpoint in (best, last):
        del checkpoint["config"]
    del last["training"]["progress"]["seconds"]
    log = pd.read_csv(folder / "loss_log.txt", sep="\t", keep_default_na=False)
    assert not list(folder.glob(".*.tmp")), "unfinished files left behind"
    return {"best": best, "last": last, "log": log.drop(columns=["seconds", "images_per_second"]).to_dict("list")}


class ProcessRun:
    """A run's output folder, and the processes that train in it."""

    def __init__(self, forkserver: Any, args: list[str], path: Path, stages: str, *options: str) -> None:
        self.forkserver, self.path = forkserver, path
        plain = path.with_name("plain.yaml")  # not config.yaml: its stages would fill in what these leave out
        plain.write_text("device: cpu")
        self.args = [
            "train.py",
            f"--config={plain}",
            *args,
            "--train.batch_size=2",
            f"--train.stages={stages}",
            f"--output_dir={path}",
            *options,
        ]
        self.output = path.with_suffix(".txt")

    def start(
        self, at: At | None = None, *options: str, environment: Mapping[str, str] = MappingProxyType({})
    ) -> multiprocessing.Process:
        """``environment``: variables that this process has in addition, as torchrun sets them."""
        arguments = ([*self.args, *options], str(self.output), at, dict(environment))
        process = self.forkserver.Process(target=run_process, args=arguments)
        process.start()
        return process

    def run(self, at: At | None = None, *options: str, timeout: float = 120) -> int:
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
        """See ``result_of``."""
        return result_of(self.path)

    def taken(self) -> dict[str, Any]:
        """The same; the folder is removed: checkpoints that a session keeps would fill the disk."""
        result = self.result()
        shutil.rmtree(self.path)
        return result


@pytest.fixture
def process_run(forkserver: Any, tiny_args: list[str], tmp_path: Path) -> Callable[..., ProcessRun]:
    """``process_run(stages, "--option", ...)``: a run in tmp_path / "run" that is yet to be started."""
    return lambda stages, *options: ProcessRun(forkserver, tiny_args, tmp_path / "run", stages, *options)


@pytest.fixture(scope="session")
def uninterrupted(
    forkserver: Any, tiny_args: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """``uninterrupted(stages, "--option", ...)``: the result of an uninterrupted run; each is computed once."""

    @functools.cache
    def result(stages: str, *options: str) -> dict[str, Any]:
        run = ProcessRun(forkserver, tiny_args, tmp_path_factory.mktemp("uninterrupted") / "run", stages, *options)
        assert run.run() == 0, run.text()
        return run.taken()

    return result
