"""Shared by all tests: a tiny data set of real pictures, the options of a tiny run, and one checkpoint really trained with them."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from archives import server  # noqa: F401  (a fixture)
from browser import chromium, visit  # noqa: F401  (fixtures: imported once for all, or there would be a second Playwright)
from demo_folder import demo_folder  # noqa: F401  (a fixture)
from PIL import Image, ImageDraw

from config import Config, DecoderConfig, build_parser, read_config

ROOT = Path(__file__).parents[1]
DECODERS: tuple[str, ...] = get_args(get_type_hints(DecoderConfig)["name"])  # every decoder there is
COLOURS = ("red", "blue", "green", "yellow")
SHAPES = ("circle", "square")
SPLITS = ("train", "train", "val", "test")  # two pictures in four are for training

torch.set_num_threads(1)  # on a busy machine two threads wait for each other: 50 times slower on nets this small


def run_script(*args: str | Path, cwd: Path = ROOT, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT OPTIONS ...`` as a user would; the script is found in the repo whatever ``cwd`` is."""
    script, *options = map(str, args)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=cwd,
        timeout=timeout,
        env=environment,
    )


def assert_refused(result: subprocess.CompletedProcess[str], *names: str) -> None:
    """Exit status 2 and one line on stderr that names what is wrong; no traceback."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for name in names:
        assert name in result.stderr


def draw(path: Path, shape: str, colour: str, size: tuple[int, int] = (40, 30)) -> Path:
    """Save a picture of one coloured shape on white; the format is the suffix's."""
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


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/ (16 JPEGs of about 40 x 30, 8 train, 4 val, 4 test) and captions.csv (2 or 3 captions each)."""
    folder = tmp_path_factory.mktemp("tiny_data")
    (folder / "images").mkdir()
    rows = []
    for number in range(16):
        shape, colour, split = SHAPES[number % 2], COLOURS[number // 4], SPLITS[number % 4]
        name = f"shape_{number:02}.jpg"
        draw(folder / "images" / name, shape, colour, (40 + number, 30))
        captions = [f"a {colour} {shape}", f"There is a {colour} {shape}.", f"One {shape}, {colour}."][: 2 + number % 2]
        rows += [(name, caption, split) for caption in captions]
    write_csv(folder / "captions.csv", rows)
    return folder


@pytest.fixture(scope="session")
def tiny_args(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a run of seconds: --output_dir is not among them, so add your own."""
    options = {
        "data.captions_file": tiny_data / "captions.csv",
        "data.image_dir": tiny_data / "images",
        "data.image_size": 32,
        "data.min_count": 1,
        "data.workers": 0,
        "data.feature_cache": tmp_path_factory.mktemp("tiny_cache"),
        "encoder.weights": "none",
        "decoder.name": "lstm",
        "decoder.embed_size": 8,
        "decoder.hidden_size": 8,
        "generate.beam_size": 2,
        "generate.max_length": 8,
        "train.batch_size": 4,
        "train.stages": '[{"name": "tiny", "epochs": 2}]',
        "device": "cpu",
    }
    return [f"--{name}={value}" for name, value in options.items()]


@pytest.fixture(scope="session")
def tiny_config(tiny_args: list[str]) -> Callable[..., Config]:
    """``tiny_config("--train.seed=3", ...)``: the Config of a tiny run, with your own options on top."""

    def make(*options: str) -> Config:
        return read_config(build_parser(), [*tiny_args, *options])[0]

    return make


@pytest.fixture(scope="session")
def tiny_run(tiny_args: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run: checkpoints.pth, loss_log.txt, resolved_config.yaml. Read only: all tests share it."""
    folder = tmp_path_factory.mktemp("tiny_run")
    result = run_script("train.py", *tiny_args, f"--output_dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run: Path) -> Path:
    """A checkpoint (95 MB: ResNet-50 is in it) that ``python train.py`` made."""
    return tiny_run / "checkpoints.pth"


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal to the last bit."""
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
