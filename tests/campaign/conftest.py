"""Fixtures of the campaign: faults and attacks on the scripts, chosen at random; see plugin.py."""

import functools
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.campaign.works import Reference, Sandbox, make_world, read_reference, run_reference
from tests.support.forked import PRELOAD
from tests.support.helpers import made_once
from tests.support.process_runs import start_forkserver

Count = Callable[[str, int], None]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """The random choices of one case."""
    return random.Random(f"{request.config.option.campaign_seed} {request.node.name}")


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Count:
    """``count("kills", 3)`` adds to a row of the table."""
    return lambda kind, number=1: record_property("campaign", (kind, number))


@pytest.fixture(scope="session")
def forkserver() -> Any:
    """The multiprocessing context that starts the runs' processes, which find no Java: METEOR would take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent))
        return start_forkserver(["tests.support.forked", "tests.campaign.faults", *PRELOAD])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data and the model of all works."""
    return made_once(tmp_path_factory, "campaign_world", make_world)


@pytest.fixture(scope="session")
def reference(forkserver: Any, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """``reference("train")``: the uninterrupted run of that work; there is one for all processes of a test run."""

    @functools.cache
    def of(name: str) -> Reference:
        run = functools.partial(run_reference, forkserver, world, name)
        return read_reference(made_once(tmp_path_factory, f"reference_{name}", run), name)

    return of


@pytest.fixture
def sandbox(forkserver: Any, world: Path, tmp_path: Path) -> Callable[..., Sandbox]:
    """``sandbox("train")``: a new folder in which that work is done; below ``base``, if one is named."""
    return lambda name, base=tmp_path: Sandbox(forkserver, world, base, name)
