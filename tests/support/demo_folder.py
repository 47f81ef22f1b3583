"""Checkpoints for the tests of the web demo. They are untrained: their captions are nonsense, but reproducible."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from config import Config
from data.images import LearnedFrom
from data.vocab import SPECIAL, Vocabulary
from models.captioner import Captioner
from models.checkpoint import save_checkpoint
from models.quantize import quantize
from tests.support.helpers import made_once, tiny_decoder

WORDS = ["a", "red", "circle", "two", "blue", "squares", "near", "yellow", "ball"]
HOSTILE_WORDS = [
    "<script>alert(1)</script>",
    "<img/src=x/onerror=alert(1)>",
    "![x](http://example.com/x.png)",
    "**bold**:red[red]:dog:$x^2$`code`",
    "\"'&amp;",
    "\u202egnorw",
    "\u05e9\u05dc\u05d5\u05dd\u200f",
    "\U0001f469\u200d\U0001f467",
    "x" * 10_000,
]
HOSTILE_NAME = "<script>alert(1)</script> \"'&amp; \u202e \U0001f469 ![x](http:evil) :dog: "


def save(path: Path, config: Config, words: list[str], learned_from: LearnedFrom = "photographs") -> None:
    torch.manual_seed(1)
    save_checkpoint(path, quantize(Captioner(config, Vocabulary([*SPECIAL, *words]), learned_from).checkpoint()))


@pytest.fixture(scope="session")
def demo_folder(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four models (25 MB each), laid out as by train.py. Read only: all tests share it."""

    def make(folder: Path) -> None:
        attention = tiny_config(tiny_decoder("attention"), "--data.image_size=64", "--generate.beam_size=3")
        save(folder / "checkpoints.pth", attention, WORDS)
        save(folder / "runs/drawings/checkpoints.pth", tiny_config(), WORDS, "drawings")
        every_word_once = [
            f"--generate.{option}" for option in ("no_repeat_ngram=1", "max_length=9", "length_penalty=2")
        ]
        hostile = tiny_config(tiny_decoder("attention"), "--data.image_size=64", *every_word_once)
        save(folder / "runs/hostile/checkpoints.pth", hostile, HOSTILE_WORDS)
        (folder / "runs/broken").mkdir()
        (folder / "runs/broken/checkpoints.pth").write_bytes(b"secret words of a library")

    return made_once(tmp_path_factory, "demo", make)


def save_photo(path: Path, seed: int = 0, size: tuple[int, int] = (640, 480)) -> Path:
    """Save a JPEG of large coloured squares, different for each seed."""
    coarse = torch.randint(0, 256, (6, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)).numpy()
    Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(path, quality=90)
    return path
