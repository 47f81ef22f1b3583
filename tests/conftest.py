"""For all tests: where their fixtures are, their order, and the marks of those that ``make test-fast`` leaves out."""

import subprocess

import pytest

pytest_plugins = ["tests.campaign.plugin"]  # has command-line options
FIXTURES = [
    "tests.support.archives",
    "tests.support.browser",
    "tests.support.demo_folder",
    "tests.support.gallery",
    "tests.support.tiny",
    "tests.support.training",
    "tests.support.process_runs",
]

pytest.register_assert_rewrite("tests.support")


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, except in the process of pytest-xdist that runs no tests: importing torch takes seconds."""
    if config.getoption("dist", "no") != "no" and config.getoption("tx", None):
        return
    for name in FIXTURES:
        config.pluginmanager.import_plugin(name)

    import torch
    from hypothesis import settings

    settings.register_profile("no deadline", deadline=None)  # on a busy machine an example takes as long as it takes
    settings.load_profile("no deadline")
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other: 50 times slower on nets this small


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ``make test-fast`` leaves out, by the fixtures and functions that they use.

    Those that fork processes come first: one process of pytest-xdist then runs them all, with one server of forks.
    """
    from tests.support.helpers import run_script

    items.sort(key=lambda item: "forkserver" not in getattr(item, "fixturenames", ()))
    for item in items:
        assert isinstance(item, pytest.Function)
        used = [item.function.__globals__.get(name) for name in item.function.__code__.co_names]
        if "chromium" in item.fixturenames:
            item.add_marker("browser")
        if (
            item.path.parent.name == "scripts"
            or {"learn", "tiny_run"} & {*item.fixturenames}
            or any(value is run_script or value is subprocess for value in used)
        ):
            item.add_marker("process")
