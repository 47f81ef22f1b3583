"""For all tests: a tiny data set of real images, the options of a tiny run, and a checkpoint trained with them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from config import Config
from tests.support.helpers import COLOURS, SHAPES, SPLITS, draw, made_once, read, run_script, tiny_decoder, write_csv
from training.options import build_parser, read_config

pytest_plugins = [
    "tests.campaign.plugin",
    "tests.support.archives",
    "tests.support.browser",
    "tests.support.demo_folder",
    "tests.support.gallery",
    "tests.support.training",
    "tests.support.process_runs",  # imports training
]

torch.set_num_threads(1)  # on a busy machine two threads wait for each other: 50 times slower on nets this small


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ``make test-fast`` leaves out, by the fixtures and functions that they use."""
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


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ (16 JPEGs of about 40 x 30: 8 train, 4 val, 4 test) and captions.csv (2 or 3 captions an image)."""
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
    """Options of a run that takes seconds, without --output_dir."""
    options = {
        "data.captions_file": tiny_data / "captions.csv",
        "data.image_dir": tiny_data / "images",
        "data.image_size": 32,
        "data.min_count": 1,
        "data.workers": 0,
        "data.feature_cache": tmp_path_factory.mktemp("tiny_cache"),
        "encoder.weights": "none",
        "decoder": tiny_decoder("lstm").removeprefix("--decoder="),
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
    """The output folder of a finished tiny run. Read-only: all tests share it."""

    def train(folder: Path) -> None:
        result = run_script("train.py", *tiny_args, f"--output_dir={folder}")
        assert result.returncode == 0, result.stderr

    return made_once(tmp_path_factory, "tiny_run", train)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run: Path) -> Path:
    """A checkpoint that ``python train.py`` wrote: 95 MB, with a ResNet-50."""
    return tiny_run / "checkpoints.pth"


@pytest.fixture
def from_yaml(tmp_path: Path) -> Callable[..., Config]:
    """``from_yaml(text, *words)``: the config of a YAML file and a command line."""

    def make(text: str, *words: str) -> Config:
        file = tmp_path / "my.yaml"
        file.write_text(text, encoding="utf-8")
        return read(*words, f"--config={file}")

    return make
