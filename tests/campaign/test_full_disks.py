"""Disks that are full, and system calls that fail: old files stay, the error names the file, and the run continues."""

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.campaign.conftest import Count
from tests.campaign.faults import Fault
from tests.campaign.works import Reference, Sandbox, assert_readable
from tests.support.forked import Finished
from tests.support.helpers import assert_same

pytestmark = pytest.mark.campaign
CASES = 24  # of each of the two tests
NAMES = ("train", "gallery", "unpack", "evaluate", "convert", "plot")
MAX_ERROR = 300  # letters


def assert_told(finished: Finished, files: frozenset[str]) -> None:
    """Exit status 2, and a last line that says which file could not be written."""
    assert finished.status == 2 and not finished.exceeded, finished
    assert "Traceback" not in finished.output + finished.errors, finished
    assert 0 < len(finished.error) <= MAX_ERROR, finished
    assert any(name in finished.error for name in files), f"the error names no file: {finished.error}"


def assert_continues(stopped: Sandbox, whole: Reference) -> None:
    """The same command, once there is room, ends as if nothing had happened."""
    finished = stopped.run()
    assert finished.status == 0, finished
    assert_readable(stopped.folder)
    assert not (left := list(stopped.folder.rglob(".*.tmp"))), f"unfinished files are left behind: {left}"
    assert_same(stopped.result(), whole.result)


def test_a_file_operation_fails(
    case: int,
    rng: random.Random,
    count: Count,
    reference: Callable[[str], Reference],
    sandbox: Callable[[str], Sandbox],
) -> None:
    """Or, from one of them on, no file can grow beyond a size. Half of the runs continue one that was killed."""
    name = NAMES[case % len(NAMES)]
    count(f"disk faults: {name}", 1)
    whole, stopped = reference(name), sandbox(name)
    if rng.random() < 0.5:
        stopped.run(Fault(stopped.folder, rng.randint(1, whole.operations)))
    what = rng.choice(["ENOSPC", "ENOSPC", "EIO", "EDQUOT", "limit", "limit"])
    limit = int(10 ** rng.uniform(0, 6))
    finished = stopped.run(Fault(stopped.folder, rng.randint(1, whole.operations), what, limit))
    if finished.status != 0:  # else what failed was not needed, or the run had fewer operations
        assert_told(finished, whole.files)
    assert_readable(stopped.folder)
    assert_continues(stopped, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``small_disk(bytes)``: a folder on a disk of that size; a second call gives the disk another size."""
    place = tmp_path / "disk"

    def make(size: int) -> Path:
        mounted = place.is_mount()
        place.mkdir(exist_ok=True)
        options = f"{'remount,' if mounted else ''}size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        return place

    yield make
    if place.is_mount():
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_disk_fills(
    case: int,
    rng: random.Random,
    count: Count,
    reference: Callable[[str], Reference],
    sandbox: Callable[..., Sandbox],
    small_disk: Callable[[int], Path],
) -> None:
    name = NAMES[(case + 2) % len(NAMES)]
    base = small_disk(64 * 1024)
    count(f"disk faults: {name}, small disk", 1)
    whole = reference(name)
    stopped = sandbox(name, base)
    small_disk(64 * 1024 + int(whole.size * rng.uniform(0, 1.1)))
    finished = stopped.run()
    if finished.status != 0:
        assert_told(finished, whole.files)
    assert_readable(stopped.folder)
    small_disk(4 * whole.size + 2**30)
    assert_continues(stopped, whole)
