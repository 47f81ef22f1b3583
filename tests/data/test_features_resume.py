"""data/features.py: a build that was interrupted or killed is resumed, and two builds at once share the work."""

import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from data.features import FeatureCache
from tests.support.features import MANY, CountingEncoder, assert_right, build_in_process

pytestmark = pytest.mark.process
StartBuild = Callable[[str, float], BaseProcess]


def test_an_interrupted_build_is_resumed(cache: Callable[..., FeatureCache], many_images: list[Path]) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(CountingEncoder(fail_after=MANY - 30)).build(many_images)
    encoder = CountingEncoder()
    resumed = cache(encoder)
    resumed.build(many_images)
    assert 0 < encoder.seen < MANY // 2
    assert_right(resumed, many_images)


def test_the_room_that_an_interrupted_build_reserved_is_given_back(
    cache: Callable[..., FeatureCache], many_images: list[Path]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(CountingEncoder(fail_after=MANY - 30)).build(many_images)
    resumed = cache(CountingEncoder())
    first = resumed.folder / "features-0.npy"
    reader, reserved = np.load(first, mmap_mode="r"), first.stat().st_size  # another run is reading meanwhile
    row = reader[0].copy()
    resumed.build(many_images)
    sizes = [path.stat().st_size - 128 for path in resumed.folder.glob("*.npy")]
    assert len(sizes) == 2 and sum(sizes) == reserved - 128
    assert np.array_equal(reader[0], row)
    assert_right(resumed, many_images)
    again = cache(CountingEncoder())
    again.build(many_images)
    assert_right(again, many_images)


@pytest.fixture
def start_build(forkserver: Any, many_images: list[Path], tmp_path: Path) -> StartBuild:
    """``start_build("name", seconds)`` starts a build in ``tmp_path / "cache"`` that prints to ``tmp_path / name``."""

    def start(name: str, seconds: float) -> BaseProcess:
        arguments = (many_images, tmp_path / "cache", seconds, tmp_path / name)
        process: BaseProcess = forkserver.Process(target=build_in_process, args=arguments)
        process.start()
        return process

    return start


def printed(output: Path) -> str:
    """The last line that a process has printed so far."""
    return output.read_text().splitlines()[-1] if output.exists() and output.read_text().strip() else ""


def wait_until(process: BaseProcess, happened: Callable[[], object]) -> None:
    """Wait while ``process`` runs."""
    deadline = time.monotonic() + 60
    while not happened():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_build_is_resumed(
    cache: Callable[..., FeatureCache], many_images: list[Path], start_build: StartBuild, tmp_path: Path
) -> None:
    process = start_build("output", 0.05)
    wait_until(process, lambda: list((tmp_path / "cache").glob("*/index.json")))
    process.kill()
    process.join()
    encoder = CountingEncoder()
    resumed = cache(encoder)
    resumed.build(many_images)
    assert 0 < encoder.seen < MANY
    assert_right(resumed, many_images)


def test_two_builds_at_once_share_the_work(
    cache: Callable[..., FeatureCache], many_images: list[Path], start_build: StartBuild, tmp_path: Path
) -> None:
    names = ("first", "second")
    processes = [start_build(name, 0.01) for name in names]
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sum(int(printed(tmp_path / name)) for name in names) == MANY
    encoder = CountingEncoder()
    both = cache(encoder)
    both.build(many_images)
    assert encoder.seen == 0
    assert_right(both, many_images)


def test_a_run_that_waits_for_another_prints_so(
    cache: Callable[..., FeatureCache], start_build: StartBuild, tmp_path: Path
) -> None:
    lock = cache(CountingEncoder()).folder / "lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        process = start_build("output", 0)
        message = f"waiting for another run that computes these features ({lock})"
        wait_until(process, lambda: printed(tmp_path / "output") == message)
    process.join(90)
    assert int(printed(tmp_path / "output")) == MANY
