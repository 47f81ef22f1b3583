"""Helpers for all tests: run scripts as users do, draw images, write captions files, compare checkpoints."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image, ImageDraw

import config
from training.options import build_parser, read_config

ROOT = Path(__file__).parents[2]
DECODERS = tuple(config.DECODERS)  # the name of every decoder
COLOURS = ("red", "blue", "green", "yellow")
SHAPES = ("circle", "square")
SPLITS = ("train", "train", "val", "test")  # of four consecutive images


def read(*words: str) -> config.Config:
    """The config that train.py makes of a command line."""
    return read_config(build_parser(), words)[0]


def tiny_decoder(name: str, **options: Any) -> str:
    """The option of train.py that selects a small decoder: ``--decoder={"name": ..., ...}``."""
    own = {f.name for f in dataclasses.fields(config.DECODERS[name])}
    sizes = {"embed_size": 8, "hidden_size": 8, "heads": 2, "layers": 2, **options}
    return f"--decoder={json.dumps({'name': name, **{key: size for key, size in sizes.items() if key in own}})}"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills, once for all the processes of a test run with pytest-xdist."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's own folder is inside that of the test run
    folder, complete = base / name, base / f"{name}.complete"
    with FileLock(base / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker that failed has left
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


def run_script(*args: str | Path, cwd: Path = ROOT, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT.py OPTIONS ...`` or ``python -m MODULE ...`` of the repo as a user would, in any folder."""
    script, *options = map(str, args)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    return subprocess.run(
        [sys.executable, *program, *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=cwd,
        timeout=timeout,
        env=environment,
    )


def assert_refused(result: subprocess.CompletedProcess[str], *names: str) -> None:
    """Exit status 2 and a single line on stderr, without a traceback, that contains ``names``."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for name in names:
        assert name in result.stderr


def draw(path: Path, shape: str, colour: str, size: tuple[int, int] = (40, 30)) -> Path:
    """Save an image of one coloured shape on white, in the format of the suffix."""
    image = Image.new("RGB", size, "white")
    corners = (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "circle" else pen.rectangle)(corners, fill=colour)
    image.save(path)
    return path


def write_csv(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("image", "caption", "split")) -> Path:
    """Write a captions file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Check that two nested structures of tensors and plain values are equal, bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, f"{where}: {one} != {other}"
