"""The scripts of the repository in forked processes: torch is imported already, so a run takes a fraction of a second.

A script gets what a command line would give it (arguments, folder, encoding of its output), and is killed where it uses
more time or memory than it may. Its encoder is a thin ResNet, so that checkpoints are small.
"""

import contextlib
import importlib
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

import models.model
from cli import run_script
from tests.support.training import thin_resnet50

# For the server of the forks to import, besides this module:
PRELOAD = [
    *("data.prepare", "data.conversion", "data.flickr8k", "data.tables", "evaluate", "evaluation.run", "train"),
    *("inference_visualize", "gallery.writing", "training.run", "visualize_loss", "matplotlib.figure"),
    *("tools.benchmark.checkpoints", "tools.model_card", "tools.quantize_checkpoint"),
]
POLL = 0.02  # seconds between two looks at a process
WALL_CLOCK = 20  # times the CPU seconds: other processes run too, but a run that waits for ever must end
ADDRESS_SPACE = 4 * 2**30  # bytes on top of what the forked process has: the machine must survive every input


@dataclass(frozen=True)
class Limits:
    """What a run may use."""

    cpu: float = 60  # seconds
    memory: int = 4 * 2**30  # bytes of RAM, with those of Python and torch


@dataclass
class Finished:
    """A run that has ended, or was killed because of its limits."""

    status: int | None = None  # minus the number of the signal for a killed process
    output: str = ""
    errors: str = ""
    cpu: float = 0  # seconds
    memory: int = 0  # bytes, the most at any time
    exceeded: str = ""  # the limit for which it was killed
    streams: dict[Any, bytearray] = field(default_factory=dict, repr=False)

    @property
    def lines(self) -> list[str]:
        """What was printed to stderr; a progress bar prints many."""
        return re.split("[\r\n]", self.errors.strip())

    @property
    def error(self) -> str:
        """Why it ended with status 2: the last line; "" if that tells no error."""
        return self.lines[-1] if self.lines[-1].startswith("error: ") else ""


def run_forked(
    forkserver: Any,
    script: str,
    argv: Sequence[str],
    folder: Path,
    *,
    before: Callable[[], None] | None = None,
    limits: Limits = Limits(),
    encoding: str = "utf-8",
    kill_after: float | None = None,
) -> Finished:
    """Run ``main(argv)`` of the module ``script`` in ``folder``, as its command line would.

    Args:
        forkserver: a multiprocessing context, see ``process_runs.forkserver``.
        before: called in the new process before the script; must be picklable.
        encoding: of stdout and stderr, as PYTHONIOENCODING sets it.
        kill_after: seconds until SIGKILL.
    """
    readers, writers = zip(*(Pipe(duplex=False) for _ in range(2)), strict=True)
    arguments = (script, list(argv), str(folder), before, encoding, *writers)
    process = forkserver.Process(target=_run, args=arguments)
    process.start()
    for writer in writers:
        writer.close()
    finished = Finished(streams={reader: bytearray() for reader in readers})
    start, waiting = time.monotonic(), set(readers)
    while not (process.sentinel in (ready := wait([process.sentinel, *waiting], POLL)) and len(ready) == 1):
        for reader in set(ready) & waiting:
            if data := os.read(reader.fileno(), 2**16):
                finished.streams[reader] += data
            else:
                waiting.discard(reader)
        _measure(process.pid, finished)
        if time.monotonic() - start > WALL_CLOCK * limits.cpu or finished.cpu > limits.cpu:
            finished.exceeded = f"more than {limits.cpu:g} s"
        elif finished.memory > limits.memory:
            finished.exceeded = f"more than {limits.memory / 2**30:.1f} GiB of RAM"
        killed = kill_after is not None and time.monotonic() - start > kill_after
        if killed or finished.exceeded or process.sentinel in ready:
            _kill_group(process.pid)
    process.join()
    _kill_group(process.pid)
    finished.status = process.exitcode
    finished.output, finished.errors = (
        bytes(stream).decode(encoding, "backslashreplace") for stream in finished.streams.values()
    )
    for reader in readers:
        reader.close()
    return finished


def _run(
    script: str,
    argv: list[str],
    folder: str,
    before: Callable[[], None] | None,
    encoding: str,
    output: Connection,
    errors: Connection,
) -> None:
    """The body of the process."""
    os.setsid()  # a process group of its own, with the workers of its loaders
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    output.close()
    errors.close()
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding, "strict")
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding, "backslashreplace", line_buffering=True)
    torch.set_num_threads(1)
    models.model.ResNet50 = thin_resnet50
    os.chdir(folder)
    sys.argv = [f"{script.replace('.', '/')}.py", *argv]
    main = importlib.import_module(script).main
    import resource  # exists on Unix only

    with contextlib.suppress(OSError, ValueError):  # no such limit here, or a lower one
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE,) * 2)
    if before is not None:
        before()
    run_script(main)


def _measure(pid: int, finished: Finished) -> None:
    """Note the CPU time and the peak of memory so far; on Linux only."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        finished.cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        status = Path(f"/proc/{pid}/status").read_text()
        finished.memory = 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
