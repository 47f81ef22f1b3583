"""data/features.py: a build that was interrupted or killed is resumed, and two builds at once share the work."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from data.features import FeatureCache
from tests.support.features import MANY, CountingEncoder, assert_right
from tests.support.helpers import ROOT

pytestmark = pytest.mark.process


def test_an_interrupted_build_is_resumed(cache: Callable[..., FeatureCache], many_images: list[Path]) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(CountingEncoder(fail_after=MANY - 30)).build(many_images)
    encoder = CountingEncoder()
    resumed = cache(encoder)
    resumed.build(many_images)
    assert 0 < encoder.seen < MANY // 2
    assert_right(resumed, many_images)


BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from data.features import FeatureCache
from data.transforms import Transform

seen = 0
def slow(images):
    global seen
    seen += len(images)
    time.sleep({sleep})
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)

paths = [Path({folder!r}) / f"{{number}}.png" for number in range({many})]
assert FeatureCache({cache!r}, slow, {{"weights": "weights 1"}}, Transform(32)).build(paths) == {{}}
print(seen)
"""


def start_build(folder: Path, cache_folder: Path, sleep: float) -> subprocess.Popen[str]:
    code = BUILD.format(root=str(ROOT), folder=str(folder), cache=str(cache_folder), many=MANY, sleep=sleep)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_killed_build_is_resumed(cache: Callable[..., FeatureCache], many_images: list[Path], tmp_path: Path) -> None:
    process = start_build(many_images[0].parent, tmp_path / "cache", sleep=0.05)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").glob("*/index.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    encoder = CountingEncoder()
    resumed = cache(encoder)
    resumed.build(many_images)
    assert 0 < encoder.seen < MANY
    assert_right(resumed, many_images)


def test_two_builds_at_once_share_the_work(
    cache: Callable[..., FeatureCache], many_images: list[Path], tmp_path: Path
) -> None:
    processes = [start_build(many_images[0].parent, tmp_path / "cache", sleep=0.01) for _ in range(2)]
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum(int(out) for out, _ in outputs) == MANY
    encoder = CountingEncoder()
    both = cache(encoder)
    both.build(many_images)
    assert encoder.seen == 0
    assert_right(both, many_images)


def test_a_run_that_waits_for_another_prints_so(
    many_images: list[Path], tmp_path: Path, cache: Callable[..., FeatureCache]
) -> None:
    folder = cache(CountingEncoder()).folder
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        process = start_build(many_images[0].parent, tmp_path / "cache", sleep=0)
        assert (
            process.stderr
            and process.stderr.readline()
            == f"waiting for another run that computes these features ({folder / 'lock'})\n"
        )
    out, _ = process.communicate(timeout=90)
    assert int(out) == MANY
