"""models/weights.py: a file that names its layout is believed; of one that does not, the user is told."""

from pathlib import Path

import pytest
import torch

from cli import UserError
from config import ResNet50Config
from models.checkpoint import load_checkpoint
from models.model import EncoderCNN
from models.weights import TORCHVISION_FILES
from tests.support.training import Learn, thin_resnet50, weights


def encoder_of(path: Path, layout: str = "auto") -> EncoderCNN:
    return EncoderCNN(ResNet50Config(weights=str(path), layout=layout))  # type: ignore[arg-type]


@pytest.fixture
def state_dict(thin_resnet: None, tmp_path: Path) -> Path:
    """A bare state_dict, which does not name its layout."""
    path = tmp_path / "mine.pth"
    torch.save(thin_resnet50().state_dict(), path)
    return path


@pytest.mark.parametrize(("asked", "used"), [("auto", "torchvision"), ("original", "original")])
def test_a_state_dict_of_unknown_layout_is_used_with_a_note(
    state_dict: Path, asked: str, used: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encoder_of(state_dict, asked).layout == used
    errors = capsys.readouterr().err
    assert f"mine.pth: the file does not say in which layout it was trained; used as '{used}'" in errors
    assert errors.count("\n") == 1


def test_torchvisions_own_files_are_known_by_name(state_dict: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = state_dict.rename(state_dict.with_name(TORCHVISION_FILES["IMAGENET1K_V2"]))
    assert encoder_of(path).layout == "torchvision" and capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"trained in the layout 'torchvision', not 'original'\. Use --encoder\.layout"):
        encoder_of(path, "original")


def test_the_encoder_of_a_checkpoint_is_taken_with_its_layout(
    learn: Learn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = learn("--encoder.layout=original") / "checkpoints.pth"
    with pytest.raises(UserError, match="trained in the layout 'original', not 'torchvision'"):
        encoder_of(path)
    capsys.readouterr()
    found = encoder_of(path, "original").state_dict()
    assert capsys.readouterr().err == ""
    expected = weights(path.parent, path.name)
    assert all(torch.equal(tensor, expected[f"encoder.{name}"]) for name, tensor in found.items())


def test_a_checkpoint_of_another_encoder_is_refused(learn: Learn) -> None:
    path = learn() / "checkpoints.pth"
    checkpoint = load_checkpoint(path)
    torch.save(checkpoint | {"model": {"decoder.x": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="not a ResNet-50 in torchvision's names"):
        encoder_of(path)
