"""The time from a command line to the caption of one photo, in a process of its own each time."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from cli import ROOT, UserError
from tools.benchmark.measurement import Measurement, measured
from tools.benchmark.plain_copy import save_plain
from tools.benchmark.subject import Subject
from tools.benchmark.timing import interleave

# Runs its arguments and writes their peak of RAM into the file that comes first. A process of its own between this one
# and the command, because Linux counts what the parent had when it forked as used by the child.
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[2:]).returncode
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    seconds: float
    memory: int | None  # the most bytes of RAM at any time; None where the system does not tell


def run_process(command: Sequence[str | Path], threads: int) -> Finished:
    """Run a command of the repository, with as many threads as this process.

    Raises:
        UserError: it fails.
    """
    words, memory = [sys.executable, *map(str, command)], None
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder, "peak")
        launched = words if sys.platform == "win32" else [sys.executable, "-S", "-c", LAUNCHER, str(peak), *words]
        began = perf_counter()
        process = subprocess.run(
            launched,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            check=False,
        )
        seconds = perf_counter() - began
        if peak.exists():
            memory = int(peak.read_text()) * (1 if sys.platform == "darwin" else 1024)
    if process.returncode:
        last = (process.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1]
        raise UserError(f"{command[0]} ended with status {process.returncode}: {last}")
    return Finished(seconds, memory)


def measure_cold_start(subject: Subject, repeats: int, folder: Path) -> Measurement:
    """Seconds from the command line to the caption of one photo.

    Args:
        folder: an empty one, for what the processes read and write.
    """
    photo, threads = subject.photos(1)[0].resolve(), torch.get_num_threads()
    save_plain(subject.captioner, folder / "model.pth", subject.beam_size)
    memory: dict[str, int] = {}
    options = ["--device", str(subject.device), "--precision", subject.precision, "--beam_size", str(subject.beam_size)]
    named = ["--checkpoint", str(subject.path.resolve()), "--images", str(photo), "--rerank", "off"]

    def project() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as output:
            command = ["inference_visualize.py", *named, "--output_dir", f"{output}/gallery", *options]
            return run("project", command)

    def plain() -> float:
        return run("plain", ["-m", "tools.benchmark.plain_photo", folder / "model.pth", str(subject.device), photo])

    def run(side: str, command: Sequence[str | Path]) -> float:
        finished = run_process(command, threads)
        memory[side] = max(memory.get(side, 0), finished.memory or 0)
        return finished.seconds

    pairs = interleave(project, plain, repeats, warm_up=repeats > 1)
    words = subject.plain.search(subject.plain.encode(subject.plain.read(photo)), subject.beam_size).read
    needed = subject.views * subject.operations.encoder + subject.operations.caption(words)
    remark = " and ".join(f"{size / 1e9:.1f} GB of RAM ({side})" for side, size in memory.items() if size)
    return measured(subject, "cold start: the script, one photo", "", pairs, needed, remark)
