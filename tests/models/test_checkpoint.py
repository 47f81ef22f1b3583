"""models/checkpoint.py: checkpoints are written whole or not at all, and cannot run code."""

import argparse
import pickle
from pathlib import Path

import pytest
import torch

from cli import UserError
from models.checkpoint import FORMAT_VERSION, load_checkpoint, save_checkpoint
from models.pretrained import IMAGENET

ANYTHING = {
    "model": {"w": torch.arange(6.0).view(2, 3)},
    "vocab": ["<pad>", "a"],
    "config": {},
    "transform": {},
    "nested": {"lr": 1e-3, "list": [1, None, True]},
}


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", ANYTHING)
    loaded = load_checkpoint(tmp_path / "c.pth")
    assert torch.equal(loaded["model"]["w"], ANYTHING["model"]["w"])  # type: ignore[index]
    assert {key: loaded[key] for key in ("vocab", "nested")} == {key: ANYTHING[key] for key in ("vocab", "nested")}
    assert torch.load(tmp_path / "c.pth", weights_only=True).keys() == {"format_version", *ANYTHING}


def test_failed_save_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", ANYTHING)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path / "c.pth", {"model": lambda: None})
    assert load_checkpoint(tmp_path / "c.pth")["vocab"] == ANYTHING["vocab"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


def test_ctrl_c_while_a_checkpoint_is_written_is_not_reported_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 768 vs 662")  # which is what torch's writer does

    monkeypatch.setattr("torch.save", save)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a.pth", {})
    assert not list(tmp_path.iterdir())


class Malicious:
    """A pickle that would run code when loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the checkpoint ran code",))


def test_files_that_are_not_checkpoints_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.pth"
    save_checkpoint(path, ANYTHING | {"big": torch.zeros(10_000)})
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"c\.pth: not a readable checkpoint"):
            load_checkpoint(path)
    for content in (
        b"hello",
        b"PK\x03\x04" + b"\0" * 100,
        pickle.dumps({"format_version": 1}, 2),
        pickle.dumps(Malicious(), 2),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"c\.pth: not a"):
            load_checkpoint(path)
    path.write_text("# README")
    with pytest.raises(UserError, match=r"c\.pth: not a checkpoint, .* Name another one"):
        load_checkpoint(path)
    with pytest.raises(UserError, match=r"resnet50_imagenet\.pth: the weights of an encoder.*--encoder\.weights"):
        load_checkpoint(IMAGENET)
    for thing in (Malicious(), torch.nn.Linear(1, 1), argparse.Namespace(a=1)):
        torch.save({"format_version": 1, "model": thing}, path)
        with pytest.raises(UserError, match=r"c\.pth: not a readable checkpoint"):
            load_checkpoint(path)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "thing",
    [
        {"w": torch.zeros(1)},
        [1, 2],
        torch.zeros(1),
        {"format_version": "one"},
        {"format_version": None},
        {"format_version": -1},
    ],
)
def test_torch_files_without_a_valid_format_version_are_refused(tmp_path: Path, thing: object) -> None:
    torch.save(thing, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: not a checkpoint of this project"):
        load_checkpoint(tmp_path / "c.pth")


def test_newer_and_missing_checkpoints_are_refused_with_advice(tmp_path: Path) -> None:
    torch.save({"format_version": FORMAT_VERSION, "model": {}, "config": {}}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="vocab, transform"):
        load_checkpoint(tmp_path / "c.pth")
    torch.save({"format_version": FORMAT_VERSION + 1}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: written by a newer version"):
        load_checkpoint(tmp_path / "c.pth")
    for path, advice in (
        (tmp_path / "unlike.pth", r"Train one with `python train\.py`"),
        (tmp_path / "c", r"Did you mean '.*c\.pth'"),
    ):
        with pytest.raises(UserError, match=f"no such checkpoint. {advice}"):
            load_checkpoint(path)
