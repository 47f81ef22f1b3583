"""Fixtures that run train.py in the process of the test, with tiny data and a thin ResNet; readers of its output."""

import functools
import itertools
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import train
from cli import run_script
from models.checkpoint import load_checkpoint
from models.resnet import ResNet50
from tests.support.helpers import draw, write_csv
from training import objectives, validation

FILES = {"checkpoints.pth", "checkpoints_last.pth", "loss_log.txt", "resolved_config.yaml"}
COLUMNS = [
    *("stage", "epoch", "step", "train_loss", "val_loss", "val_bleu4", "val_cider", "distinct", "lr"),
    *("seconds", "images_per_second", "reward", "grad_norm"),
]
CLOCK = ["seconds", "images_per_second"]
FROZEN = '{"name": "frozen", "epochs": 2, "lr": 0.01}'
LEARNING = '{"name": "learning", "epochs": 2, "lr": 0.001, "encoder_lr": 0.0001, "encoder_from": 3, "crop": 0.5}'

Learn = Callable[..., Path]
Refused = Callable[..., str]
Interrupted = Callable[..., None]
Photos = Callable[[int], list[str]]
thin_resnet50 = functools.partial(ResNet50, blocks=(1, 1, 1, 1), width=8)  # 13 MB a checkpoint, not 95


def read_log(folder: Path) -> pd.DataFrame:
    """loss_log.txt."""
    return pd.read_csv(folder / "loss_log.txt", sep="\t")


def contents(folder: Path) -> dict[str, bytes]:
    """The files directly in the folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def last(folder: Path) -> dict:
    """checkpoints_last.pth."""
    return load_checkpoint(folder / "checkpoints_last.pth")


def weights(folder: Path, name: str = "checkpoints_last.pth") -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint."""
    return load_checkpoint(folder / name)["model"]


@pytest.fixture
def thin_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder is ``thin_resnet50`` for the time of the test."""
    monkeypatch.setattr("models.model.ResNet50", thin_resnet50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The output folder of ``learn``, unless the test names another."""
    return tmp_path / "run"


@pytest.fixture
def learn(thin_resnet: None, tiny_args: list[str], tmp_path: Path, folder: Path) -> Learn:
    """``learn("--train.seed=3", ...)`` runs train.py with a thin ResNet and returns the output folder."""
    plain = tmp_path / "plain.yaml"  # instead of config.yaml, whose stages would fill in what a test's stages leave out
    plain.write_text("device: cpu")

    def run(*options: str, to: Path = folder) -> Path:
        train.main([f"--config={plain}", *tiny_args, f"--train.stages=[{FROZEN}]", f"--output_dir={to}", *options])
        return to

    return run


@pytest.fixture
def refused(learn: Learn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """``refused("--option", ...)``: the error with which ``learn`` ends, with exit status 2.

    A line before it may have the command that continues the run, or that to run instead: it is returned too, in front.
    """

    def run(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run_script(lambda _: learn(*options) and None)
        status = end.value.code
        del end  # see ``interrupted``
        *notes, error = capsys.readouterr().err.splitlines()
        commands = ("stopped by the error below. ", "because of the error below, run instead: ")
        assert status == 2 and error.startswith("error: ")
        assert all(line.startswith(("warning: ", "skipped: ", *commands)) for line in notes)
        return " ".join([*(line for line in notes if line.startswith(commands)), error])

    return run


@pytest.fixture
def interrupted(learn: Learn, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    """``interrupted(3, "--option", ...)``: ``learn``, but Ctrl-C comes in the third batch, validation included."""
    loss = objectives.caption_loss

    def run(batch: int, *options: str) -> None:
        calls = itertools.count(1)

        def loss_or_ctrl_c(*args: object) -> object:
            if next(calls) == batch:
                signal.raise_signal(signal.SIGINT)
            return loss(*args)

        with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
            for module in (objectives, validation):
                patch.setattr(module, "caption_loss", loss_or_ctrl_c)
            learn(*options)
        status = end.value.code
        del end  # a cycle with this frame would keep the loaders, whose workers take 5 s each to end as cyclic garbage
        assert status == 130

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """``photos(bad)``: options for 70 + 20 images, of which the first ``bad`` cannot be read."""

    def make(bad: int) -> list[str]:
        folder = tmp_path / f"photos{bad}"
        folder.mkdir()
        draw(folder / "good.jpg", "circle", "red")
        rows = []
        for number in range(90):
            split = "train" if number < 70 else "val"
            shutil.copy(folder / "good.jpg", folder / f"{number}.jpg")
            if number < bad:
                (folder / f"{number}.jpg").write_text("not an image")
            rows += [(f"{number}.jpg", "a red circle", split)] * (1 + number % 4)  # 1 to 4 captions an image
        write_csv(folder / "captions.csv", rows)
        return [
            f"--data.captions_file={folder / 'captions.csv'}",
            f"--data.image_dir={folder}",
            "--train.batch_size=32",
        ]

    return make
