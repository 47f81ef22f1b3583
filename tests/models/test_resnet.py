"""models/resnet.py against torchvision's network, and what captioning imports."""

import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from torchvision.models import ResNet50_Weights, resnet50

from models.resnet import ResNet50
from models.weights import TORCHVISION_FILES, TORCHVISION_URL
from tests.support.helpers import ROOT


def test_a_seed_gives_the_weights_of_torchvisions_network_and_leaves_the_same_random_numbers() -> None:
    torch.manual_seed(3)
    theirs, after_theirs = resnet50(zero_init_residual=True).state_dict(), torch.rand(4)
    torch.manual_seed(3)
    ours, after_ours = ResNet50().state_dict(), torch.rand(4)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(after_ours, after_theirs)


def test_logits_and_gradients_are_those_of_torchvisions_network() -> None:
    theirs, ours = resnet50().train(), ResNet50().train()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 96)
    results = [net(images) for net in (theirs, ours)]
    torch.testing.assert_close(results[1], results[0])
    for result in results:
        result.square().mean().backward()
    torch.testing.assert_close(ours.conv1.weight.grad, theirs.conv1.weight.grad)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


def test_torchvisions_weights_have_the_same_names_and_addresses() -> None:
    assert {name: TORCHVISION_URL + file for name, file in TORCHVISION_FILES.items()} == {
        weights.name: weights.url for weights in ResNet50_Weights
    }


def test_captioning_a_photo_imports_no_library_that_only_training_or_scores_need(tmp_path: Path) -> None:
    heavy = {"torchvision", "torch._dynamo", "pandas", "nltk", "matplotlib", "yaml", "scipy", "pycocoevalcap"}
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    argv = ["--images", str(tmp_path / "photo.png"), "--output_dir", str(tmp_path / "out"), "--print", "none"]
    code = f"import sys, inference_visualize as script; script.main({argv}); print(sorted({heavy} & {{*sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
