"""A small captioner and features of four images, for the tests of each part of training."""

from collections.abc import Callable

import pytest
import torch

from config import Config
from data.dataset import Flickr8kDataset
from data.vocab import Vocabulary
from models.captioner import Captioner
from tests.support.helpers import tiny_decoder
from tests.support.stages import CAPTIONS
from tests.support.training import thin_resnet50


@pytest.fixture(scope="module")
def captioner(tiny_config: Callable[..., Config]) -> Captioner:
    """An untrained captioner with a thin ResNet, shared by the tests of a module."""
    torch.manual_seed(0)
    config = tiny_config(tiny_decoder("lstm", embed_size=32, hidden_size=64, dropout=0.1), "--generate.beam_size=3")
    vocabulary = Vocabulary.build([c for captions in CAPTIONS.values() for c in captions], min_count=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.model.ResNet50", thin_resnet50)
        return Captioner(config, vocabulary)


@pytest.fixture
def dataset(captioner: Captioner) -> Flickr8kDataset:
    """Random features (4, D) of the images in CAPTIONS."""
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(4, captioner.encoder.features_size, generator=generator).half() for name in CAPTIONS}
    return Flickr8kDataset(CAPTIONS, lambda name, _seed: features[name], captioner.vocabulary)
