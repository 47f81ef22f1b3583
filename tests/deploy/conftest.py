"""A tiny exported captioner. Without torch, as in ``make test-onnx``, it is the one that ``make`` has exported."""

import functools
from importlib.util import find_spec
from pathlib import Path

import pytest

NEEDS_TORCH = ["test_parity.py"]
EXPORTED = Path(".cache/onnx_captioner")  # by make test-onnx, of the pretrained captioner

has_torch = find_spec("torch") is not None
collect_ignore = [] if has_torch else NEEDS_TORCH


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported captioner. Read-only: all tests share it."""
    if not has_torch:
        return EXPORTED.resolve()
    from tests.support.exported import export_tiny
    from tests.support.helpers import made_once

    return made_once(tmp_path_factory, "exported", functools.partial(export_tiny, name="attention"))
