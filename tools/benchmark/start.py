"""``--start``: what train.py needs until its first step is done, and for a save; measured from outside, on Linux."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice, pairwise
from pathlib import Path

from cli import ROOT, UserError, note
from tools.benchmark.scaling import Row
from training.options import build_parser, read_config
from training.run_folder import LAST

POLL = 0.05  # seconds between two looks at the process
STEPS = 4  # saved ones after the first
ALWAYS = 1e-9  # train.save_every: save after each step
BATCH = 320  # captions that are sampled in a step: five of each of 64 images
CALLS = 10
PROC = Path("/proc")


def by_run(configs: Sequence[Path], repeats: int) -> Iterator[Row]:
    """Start a run ``repeats`` times; the first one fills the caches that are not warm yet.

    Args:
        configs: YAML files with the options of train.py; their output_dir is not used.

    Raises:
        UserError: the system is not Linux, or train.py ends before it has saved.
    """
    if not (PROC / "self" / "smaps_rollup").exists():
        raise UserError("--start reads the memory of a process from /proc/PID/smaps_rollup, which only Linux has")
    options = [word for path in configs for word in ("--config", str(path.absolute()))]
    config, _ = read_config(build_parser(), options)
    reward = _reward_memory(config.data.captions_file, config.data.tokenizer, config.train.seed)
    for number in range(1, repeats + 1):
        with tempfile.TemporaryDirectory() as folder:
            row = _measure_run(options, Path(folder))
        yield {"run": number, **row, "reward, GB": reward}


def _measure_run(options: Sequence[str], folder: Path) -> Row:
    """Times and memory of one run that saves into ``folder``."""
    command = [sys.executable, "train.py", *options, "--output_dir", str(folder), "--train.save_every", str(ALWAYS)]
    saved, peak, began = list[float](), 0.0, time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            last = 0
            while len(saved) <= STEPS:
                if process.poll() is not None:
                    raise UserError(f"train.py ended before step {len(saved) + 1}. Run it: {' '.join(command)}")
                peak = max(peak, sum(map(_memory, _family(process.pid))))
                path = folder / LAST
                if path.exists() and (changed := path.stat().st_mtime_ns) != last:
                    last = changed
                    saved.append(time.monotonic() - began)
                    note(f"step {len(saved)} saved after {saved[-1]:.1f} s, peak memory {peak:.2f} GB")
                time.sleep(POLL)
        finally:
            process.kill()
    steps = [later - earlier for earlier, later in pairwise(saved)]
    return {"first step saved, s": saved[0], "step and save, s": min(steps), "peak memory, GB": peak}


def _family(process: int) -> Iterator[int]:
    """A process and those that it has started."""
    yield process
    for path in PROC.glob(f"{process}/task/*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            yield from _family(int(child))


def _memory(process: int) -> float:
    """GB of a process without the pages of files, which the system takes back when others need the room."""
    try:
        lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) * 1024 / 1e9


def _reward_memory(captions_file: str, tokenizer: str, seed: int) -> float:
    """GB that the reward of self-critical training adds at most while it is built, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(build_reward, (captions_file, tokenizer, seed))


def build_reward(captions_file: str, tokenizer: str, seed: int) -> float:
    """The body of that process, which tokenizes the captions before, as a run does."""
    from data.captions import read_captions, references_of
    from data.tokenizer import TOKENIZERS
    from evaluation.cider import CiderReward

    references = references_of(read_captions(captions_file, seed), "train")
    with tempfile.TemporaryDirectory() as folder:
        TOKENIZERS[tokenizer].keep([text for its in references.values() for text in its], Path(folder))
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
    before = _status("VmRSS")
    began = time.monotonic()
    reward = CiderReward(references, TOKENIZERS[tokenizer])
    seconds, peak = time.monotonic() - began, _status("VmHWM") - before
    names = list(islice(cycle(references), BATCH))
    sampled, ended = [references[name][0].split() for name in names], [True] * BATCH
    began = time.monotonic()
    for _ in range(CALLS):
        reward.scores(names, sampled, ended)
    each = (time.monotonic() - began) / (CALLS * BATCH)
    note(
        f"reward of {sum(map(len, references.values())):,} captions: {seconds:.1f} s, {1000 * each:.2f} ms a caption, "
        f"{_status('VmRSS') - before:.2f} GB, at most {peak:.2f} GB (process {os.getpid()})"
    )
    return peak


def _status(name: str) -> float:
    """A value of /proc/self/status in GB."""
    lines = (PROC / "self" / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e9
