"""A tiny data set of real images, the options of a tiny run, and a checkpoint trained with them."""

from collections.abc import Callable
from pathlib import Path

import pytest

import train
from config import Config
from tests.support.helpers import COLOURS, SHAPES, SPLITS, draw, made_once, read, tiny_decoder, write_csv
from training.options import build_parser, read_config


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ (16 JPEGs of about 40 x 30: 8 train, 4 val, 4 test) and captions.csv (2 or 3 captions an image)."""
    return made_once(tmp_path_factory, "tiny_data", _draw_data)  # tiny_run, made once too, names this folder


def _draw_data(folder: Path) -> None:
    (folder / "images").mkdir()
    rows = []
    for number in range(16):
        shape, colour, split = SHAPES[number % 2], COLOURS[number // 4], SPLITS[number % 4]
        name = f"shape_{number:02}.jpg"
        draw(folder / "images" / name, shape, colour, (40 + number, 30))
        captions = [f"a {colour} {shape}", f"There is a {colour} {shape}.", f"One {shape}, {colour}."][: 2 + number % 2]
        rows += [(name, caption, split) for caption in captions]
    write_csv(folder / "captions.csv", rows)


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
    """The output folder of a finished tiny run of train.py, with a whole ResNet-50. Read-only: all tests share it."""
    return made_once(tmp_path_factory, "tiny_run", lambda folder: train.main([*tiny_args, f"--output_dir={folder}"]))


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_run: Path) -> Path:
    """The best checkpoint of ``tiny_run``: 95 MB."""
    return tiny_run / "checkpoints.pth"


@pytest.fixture
def from_yaml(tmp_path: Path) -> Callable[..., Config]:
    """``from_yaml(text, *words)``: the config of a YAML file and a command line."""

    def make(text: str, *words: str) -> Config:
        file = tmp_path / "my.yaml"
        file.write_text(text, encoding="utf-8")
        return read(*words, f"--config={file}")

    return make
