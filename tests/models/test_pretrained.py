"""models/pretrained.py: quantized checkpoints, and the files that ship with the repository."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet50

from cli import UserError
from config import Config, ResNet50Config
from data.images import load_image
from models.captioner import Captioner
from models.checkpoint import GROUP, dequantize, load_checkpoint
from models.model import EncoderCNN
from models.pretrained import IMAGENET, PRETRAINED
from models.quantize import quantize
from tests.support.helpers import ROOT
from tools.quantize_checkpoint import main

CPU = torch.device("cpu")


def refusal(*arguments: str | Path) -> str:
    """Why tools.quantize_checkpoint refuses these arguments."""
    with pytest.raises(UserError) as caught:
        main([str(argument) for argument in arguments])
    return str(caught.value)


def test_dequantized_weights_are_within_half_a_step_of_their_group() -> None:
    torch.manual_seed(0)
    model = {
        "matrix": torch.randn(7, 64) * torch.logspace(-6, 3, 7)[:, None],
        "kernel": torch.randn(32, 3, 3, 3),
        "nothing": torch.zeros(2, 32),
        "odd": torch.randn(3, 5),
        "bias": torch.randn(9),
        "count": torch.tensor(3),
    }
    small = quantize(
        {"model": model, "vocab": ["a"], "config": {"encoder": {"weights": "folder/resnet.pth", "layout": "original"}}}
    )
    assert small["vocab"] == ["a"] and small["config"] == {"encoder": {"weights": "resnet.pth", "layout": "original"}}
    assert small["model"]["matrix"].dtype == small["model"]["kernel"].dtype == torch.int8
    back = dequantize(small)["model"]
    assert back.keys() == model.keys() and all(back[name].dtype == tensor.dtype for name, tensor in model.items())
    for name in ("matrix", "kernel", "nothing"):
        step = model[name].reshape(-1, GROUP).abs().amax(dim=1) / 127
        # half a step, and the clipping of the largest weight where the scale was rounded down
        assert ((back[name] - model[name]).reshape(-1, GROUP).abs().amax(dim=1) <= 0.9 * step).all(), name
    assert all(torch.equal(back[name], model[name]) for name in ("odd", "bias", "count"))
    assert dequantize({"model": model}) == {"model": model}  # a checkpoint that is not quantized is returned unchanged


def test_a_quantized_checkpoint_captions_like_the_original(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.pth"
    main([str(tiny_checkpoint), str(small)])
    assert small.stat().st_size < 0.3 * tiny_checkpoint.stat().st_size
    images = [load_image(path) for path in sorted((tiny_data / "images").iterdir())[:8]]
    before, after = (Captioner.load(path, CPU).caption(images) for path in (tiny_checkpoint, small))
    same = sum(one[0].caption == other[0].caption for one, other in zip(before, after, strict=True))
    assert same >= 7
    assert after[0][0].log_prob == pytest.approx(before[0][0].log_prob, abs=0.3)


def test_only_a_runs_best_checkpoint_is_quantized(tiny_run: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.pth"
    main([str(tiny_checkpoint), str(small)])
    for wrong, reason in ((tiny_run / "checkpoints_last.pth", "for resuming training"), (small, "quantized already")):
        assert reason in refusal(wrong, tmp_path / "other.pth")
    assert not (tmp_path / "other.pth").exists()
    for output in (tiny_checkpoint, tmp_path / "captions.csv"):  # neither the input nor other data is overwritten
        assert "Name another output file" in refusal(tiny_checkpoint, output)
    assert "scales" not in load_checkpoint(small)
    assert load_checkpoint(small, keep_quantized=True)["scales"]


def test_the_bundled_file_has_the_hash_in_the_readme() -> None:
    data = PRETRAINED.read_bytes()
    assert hashlib.sha256(data).hexdigest() in (ROOT / "README.md").read_text("utf-8")
    assert len(data) < 40e6


def test_the_bundled_encoder_is_the_pretrained_captioners() -> None:
    encoder = EncoderCNN(ResNet50Config(weights="bundled")).eval()
    wanted = Captioner.load(PRETRAINED, CPU).encoder
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(images), wanted(images))
    assert not encoder.train_batchnorm and encoder.layout == "original"


def test_the_bundled_encoder_has_one_layout(tiny_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"encoder\.layout must be original .*encoder\.weights bundled"):
        tiny_config("--encoder.weights=bundled", "--encoder.layout=torchvision")


def test_weights_of_the_other_layout_are_refused(tmp_path: Path) -> None:
    """The file records its layout: with the other one the network would run, but score 2 CIDEr points less."""
    with pytest.raises(UserError, match="trained in the layout 'original', not 'torchvision'"):
        EncoderCNN(ResNet50Config(weights=str(IMAGENET)))
    assert EncoderCNN(ResNet50Config(weights=str(IMAGENET), layout="original")).layout == "original"


@pytest.mark.process
def test_the_imagenet_file_is_a_quantized_state_dict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {name: tensor.half() for name, tensor in resnet50().state_dict().items() if tensor.dim() != 1}
    torch.save({**resnet50().state_dict(), **state}, tmp_path / "resnet.pth")
    main([str(tmp_path / "resnet.pth"), str(tmp_path / "small.pth"), "--layout", "torchvision"])
    assert (tmp_path / "small.pth").stat().st_size < 27e6
    encoder = EncoderCNN(ResNet50Config(weights=str(tmp_path / "small.pth"))).eval()
    wanted = EncoderCNN(ResNet50Config(weights=str(tmp_path / "resnet.pth"))).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert (encoder(images) - wanted(images)).norm() < 0.1 * wanted(images).norm()
    assert "Name another" in refusal(tmp_path / "small.pth", tmp_path / "small.pth", "--layout", "torchvision")
    assert "no such file" in refusal(tmp_path / "none.pth", tmp_path / "other.pth", "--layout", "original")
