"""Code that the tests of the feature cache share."""

import os
import time
from pathlib import Path

import torch

from data.features import FeatureCache
from data.images import load_image
from data.transforms import Transform

MANY = 400  # images; enough for the index to be written during the computation


class CountingEncoder:
    """A small real encoder, (B, 3, S, S) -> the means of a 2 x 2 grid (B, 4, 3), that counts its images."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.seen, self.fail_after = 0, fail_after

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        if self.fail_after is not None and self.seen > self.fail_after:
            raise KeyboardInterrupt
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)


def assert_right(cache: FeatureCache, paths: list[Path]) -> None:
    """The cached features are those that the encoder computes."""
    fresh = CountingEncoder()(torch.stack([cache.transform(load_image(path)) for path in paths]))
    cached = torch.stack([cache[path] for path in paths])
    assert cached.dtype == torch.float16 and cached.shape == fresh.shape
    torch.testing.assert_close(cached.float(), fresh, rtol=1e-3, atol=1e-3)


def build_in_process(paths: list[Path], cache: Path, seconds: float, output: Path) -> None:
    """The body of a process that builds a cache, with an encoder that takes ``seconds`` a batch.

    Args:
        output: file for what it prints, at the end the number of images it has encoded.
    """
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    encoder = CountingEncoder()

    def slow(images: torch.Tensor) -> torch.Tensor:
        time.sleep(seconds)
        return encoder(images)

    assert FeatureCache(cache, slow, {"weights": "weights 1"}, Transform(32)).build(paths) == {}
    print(encoder.seen, flush=True)
