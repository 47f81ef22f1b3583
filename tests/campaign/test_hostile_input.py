"""Inputs made to harm: each ends in one line, soon, in little memory, and nothing is written elsewhere."""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import hostile_archives, hostile_checkpoints, hostile_files, hostile_tables, hostile_texts
from tests.campaign.attack import CANARY, Attack
from tests.campaign.conftest import Count
from tests.support.forked import Finished, Limits, run_forked

pytestmark = pytest.mark.campaign
ATTACKS = [
    attack
    for module in (hostile_archives, hostile_checkpoints, hostile_files, hostile_tables, hostile_texts)
    for attack in module.attacks()
]
CASES = len(ATTACKS)
LIMITS = Limits(cpu=5, memory=2**30)
MAX_LINE = 300  # characters
MAX_SHOWN = 3000  # characters of a finding
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tabs and the ends of lines


@pytest.fixture
def attack(case: int, request: pytest.FixtureRequest) -> Attack:
    """Each once, in an order that depends on the seed."""
    order = random.Random(request.config.option.campaign_seed).sample(range(len(ATTACKS)), len(ATTACKS))
    return ATTACKS[order[case % len(ATTACKS)]]


def test_is_refused_or_harmless(
    attack: Attack, rng: random.Random, count: Count, forkserver: Any, world: Path, tmp_path: Path
) -> None:
    count(f"hostile {attack.name.partition(':')[0]}", 1)
    (tmp_path / "world").symlink_to(world)
    here = tmp_path / "here"
    here.mkdir()
    attack.make(here, rng)
    before = {path.name for path in tmp_path.iterdir()}
    try:
        finished = run_forked(forkserver, attack.script, attack.argv, here, limits=LIMITS)
        assert problems(finished, attack) == [], f"{attack.name}: {attack.script} {attack.argv}\n{finished}"[:MAX_SHOWN]
        assert {path.name for path in tmp_path.iterdir()} == before, "written outside of the folder"
        assert not list(tmp_path.rglob(CANARY)), "code was run"
    finally:
        for path in here.iterdir():
            if path.suffix in {".pth", ".zip"}:
                path.unlink()  # large


def problems(finished: Finished, attack: Attack) -> list[str]:
    """Exit status, limits, no traceback, no control character, no endless line; an error is the last line."""
    found = [finished.exceeded] if finished.exceeded else []
    if finished.status not in ((0, 2) if attack.accepted else (2,)):
        found.append(f"exit status {finished.status}")
    if "Traceback" in finished.output + finished.errors:
        found.append(finished.errors.strip().splitlines()[-1])
    if control := CONTROL.search(finished.output + finished.errors):
        found.append(f"a control character is printed: {control.group()!r}")
    if finished.status == 2 and not finished.error:
        found.append("no error is the last line")
    if (longest := max(map(len, finished.lines))) > MAX_LINE:
        found.append(f"a line of {longest} characters")
    return found
