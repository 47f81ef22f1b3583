"""models/pretrained.py: which checkpoint captions photos, and which the images of a split."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import inference_visualize
from cli import UserError
from models.captioner import Captioner
from models.checkpoint import load_checkpoint, save_checkpoint
from models.pretrained import DEFAULT_CHECKPOINT, PRETRAINED, find_checkpoint

Train = Callable[[str | None], Path]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """``trained("drawings")``: a checkpoint without weights in the current folder, as of a run with such images."""
    monkeypatch.chdir(tmp_path)
    tiny = {"model": {}, "config": {}, "vocab": [], "transform": {}}
    save_checkpoint(tmp_path / "bundled.pth", tiny | {"learned_from": None})
    monkeypatch.setattr("models.pretrained.PRETRAINED", tmp_path / "bundled.pth")

    def save(learned_from: str | None) -> Path:
        record = {} if learned_from is None else {"learned_from": learned_from}
        save_checkpoint(DEFAULT_CHECKPOINT, tiny | record)
        return DEFAULT_CHECKPOINT

    return save


@pytest.mark.parametrize(
    ("learned_from", "photos", "chosen", "note"),
    [
        ("drawings", True, "bundled.pth", "using the pretrained captioner .*: checkpoints.pth was trained on drawings"),
        ("photographs", True, "checkpoints.pth", "using checkpoints.pth, which was trained on photographs"),
        (None, True, "bundled.pth", ".*checkpoints.pth does not record.*for photos: --checkpoint checkpoints.pth"),
        ("drawings", False, "checkpoints.pth", ""),
        ("photographs", False, "checkpoints.pth", ""),
    ],
)
def test_own_photos_are_captioned_by_a_model_of_photographs(
    trained: Train,
    capsys: pytest.CaptureFixture[str],
    learned_from: str | None,
    photos: bool,
    chosen: str,
    note: str,
) -> None:
    trained(learned_from)
    path, checkpoint = find_checkpoint(None, photos=photos)
    assert path.name == chosen and checkpoint == load_checkpoint(path)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == bool(note)
    assert re.match(note, printed.err)


@pytest.mark.parametrize("photos", [True, False])
def test_without_a_checkpoint_the_pretrained_captioner_is_used(
    trained: Train, capsys: pytest.CaptureFixture[str], photos: bool
) -> None:
    assert find_checkpoint(None, photos=photos)[0].name == "bundled.pth"
    assert "bundled.pth (MODEL_CARD.md): there is no checkpoints.pth here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("learned_from", "photos", "warns"),
    [("drawings", True, True), ("drawings", False, False), ("photographs", True, False), (None, True, False)],
)
def test_a_named_checkpoint_is_used_but_for_photos_one_of_drawings_warns(
    trained: Train, capsys: pytest.CaptureFixture[str], learned_from: str | None, photos: bool, warns: bool
) -> None:
    path = trained(learned_from).rename("mine.pth")
    assert find_checkpoint(str(path), photos=photos)[0] == path
    assert capsys.readouterr().err.startswith("warning: mine.pth was trained on drawings") == warns
    with pytest.raises(UserError, match=r"nowhere\.pth: no such checkpoint"):
        find_checkpoint("nowhere.pth", photos=photos)


def test_the_folder_of_a_run_means_its_best_checkpoint(trained: Train, tmp_path: Path) -> None:
    trained("photographs")
    assert find_checkpoint(tmp_path, photos=True)[0] == tmp_path / DEFAULT_CHECKPOINT


def test_a_fresh_clone_captions_a_photograph_without_network(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder without checkpoints.pth, from the command line and from Python; both give the same caption."""

    def refuse(*_: object) -> None:
        raise OSError("this test has no network")

    for name in ("connect", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HOME", "TORCH_HOME"):  # no cache of downloaded weights
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    photo = sorted((tiny_data / "images").iterdir())[0]
    inference_visualize.main(["--images", str(photo), "--device", "cpu"])
    assert f"using the pretrained captioner {PRETRAINED.name}" in capsys.readouterr().err
    (found,) = json.loads((tmp_path / "outputs" / "captions.json").read_text("utf-8"))
    assert len(found["caption"].split()) >= 3
    captioner = Captioner.load(device="cpu")
    assert captioner.describe(photo) == found["caption"] and captioner.device == torch.device("cpu")
    with pytest.raises(UserError, match="--images"):  # Flickr8k is not there
        inference_visualize.main([])
