"""The options of the campaign, the number of its cases, and the table at its end.

A module of tests says with CASES how many cases ten minutes are for. A test takes ``case``, a number below that, and
draws everything from ``rng``, which depends on the seed, the test and the case. So the seed and the name of a test
repeat a finding.
"""

import collections
import random
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
MINUTES = 10  # for which each module's CASES are meant


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--campaign_minutes", type=float, default=MINUTES, help="length of the campaign on two cores: scales its counts"
    )
    parser.addoption(
        "--campaign_seed", type=int, help="seed of the campaign's random choices (default: another one each time)"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.campaign_seed is None:
        config.option.campaign_seed = random.randrange(10**6)  # the workers of pytest-xdist take it over


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import the modules of tests that are deselected anyway."""
    return True if collection_path == FOLDER and "not campaign" in config.option.markexpr else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        scale = metafunc.config.option.campaign_minutes / MINUTES
        metafunc.parametrize("case", range(max(1, round(scale * metafunc.module.CASES))))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    counts: collections.Counter[str] = collections.Counter()
    findings: collections.Counter[str] = collections.Counter()
    failed = []
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            kinds = [value for name, value in getattr(report, "user_properties", []) if name == "campaign"]
            for kind, number in kinds:
                counts[kind] += number
            if outcome != "passed" and kinds:
                findings[kinds[0][0]] += 1
                failed.append(report.nodeid)
    if not counts:
        return
    seed, minutes = config.option.campaign_seed, config.option.campaign_minutes
    terminalreporter.section(f"campaign of {minutes:g} minutes, seed {seed}")
    terminalreporter.line(f"{'kind':<40} {'count':>6} {'findings':>9}")
    for kind in sorted(counts):
        terminalreporter.line(f"{kind:<40} {counts[kind]:>6} {findings[kind]:>9}")
    options = f"--campaign_seed={seed} --campaign_minutes={minutes:g}"
    for nodeid in failed:
        terminalreporter.line(f"repeat: python -m pytest -n 0 -m campaign {options} '{nodeid}'")
