"""Processes killed at random moments: no file is damaged, and the same command continues to the same result."""

import random
import signal
from collections.abc import Callable

import pytest

from tests.campaign.conftest import Count
from tests.campaign.faults import Fault
from tests.campaign.works import Reference, Sandbox, assert_readable, recorded_captions
from tests.support.helpers import assert_same

pytestmark = pytest.mark.campaign
CASES = 48
SHARES = [
    *("train", "gallery", "unpack", "evaluate", "train", "convert"),
    *("train", "gallery", "train", "unpack", "plot", "evaluate"),
]


def test_killed_and_run_again(
    case: int,
    rng: random.Random,
    count: Count,
    reference: Callable[[str], Reference],
    sandbox: Callable[[str], Sandbox],
) -> None:
    """Twice: at one of the operations on files, or at any time."""
    name = SHARES[case % len(SHARES)]
    kind = f"kills: {name}"
    count(kind, 0)
    whole, stopped = reference(name), sandbox(name)
    for _ in range(2):
        if rng.random() < 0.5:
            fault, seconds = Fault(stopped.folder, rng.randint(1, whole.operations)), None
        else:
            fault, seconds = None, rng.uniform(0, whole.seconds)
        finished = stopped.run(fault, seconds)
        assert finished.status in (-signal.SIGKILL, 0), finished
        count(kind, int(finished.status != 0))
        assert_readable(stopped.folder)
    recorded = recorded_captions(stopped.folder)
    finished = stopped.run()
    assert not recorded or f"({recorded} of them in an earlier run)" in finished.errors, "captioned twice"
    assert finished.status == 0 and "Traceback" not in finished.errors, finished
    assert_readable(stopped.folder)
    assert not (left := list(stopped.folder.rglob(".*.tmp"))), f"unfinished files are left behind: {left}"
    assert_same(stopped.result(), whole.result)
