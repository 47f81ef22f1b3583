"""Captioners with random weights, exported to ONNX."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from data.vocab import Vocabulary
from models.captioner import Captioner
from tests.support.helpers import COLOURS, SHAPES, read, tiny_decoder
from tests.support.training import thin_resnet50
from tools.export_onnx.__main__ import OLDEST_TORCH, export

CAPTIONS = [f"a {colour} {shape} can not be a man's t-shirt" for colour in COLOURS for shape in SHAPES]


def random_captioner(name: str) -> Captioner:
    """A captioner with that decoder and a thin ResNet, always the same; its captions differ from image to image.

    It reads mirror images too, and repeats no bigram.
    """
    generate = ["--generate.max_length=8", "--generate.mirror=true", "--generate.no_repeat_ngram=2"]
    config = read("--encoder.weights=none", "--data.image_size=64", tiny_decoder(name), *generate)
    torch.manual_seed(0)
    with patch("models.model.ResNet50", thin_resnet50):
        captioner = Captioner(config, Vocabulary.build(CAPTIONS, 1))
    with torch.no_grad():
        for parameter in captioner.decoder.parameters():
            parameter.mul_(3)  # probabilities that differ
    return captioner.eval()


def export_tiny(folder: Path, name: str) -> None:
    """Export a ``random_captioner``."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        pytest.skip("the export needs a newer torch")
    export(random_captioner(name), folder)
