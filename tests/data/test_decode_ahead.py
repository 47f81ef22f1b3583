"""data/decode_ahead.py, as the feature cache uses it: in threads or in processes, the same images in the same order."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cli import UserError
from data.features import FeatureCache
from data.transforms import Transform
from tests.support.features import MANY, CountingEncoder, assert_right


def test_images_are_decoded_in_several_threads_and_the_features_are_the_same(
    cache: Callable[..., FeatureCache], many_images: list[Path]
) -> None:
    threads = set()

    class Recording(Transform):
        def __call__(self, image: Image.Image) -> torch.Tensor:
            threads.add(threading.get_ident())
            time.sleep(0.002)
            return super().__call__(image)

    caches = [cache(CountingEncoder(), f"weights {n}", Recording(32), workers=n) for n in (0, 4)]
    for made, number in zip(caches, (1, 4), strict=True):
        threads.clear()
        made.build(many_images[:100])
        assert len(threads) == number and threading.get_ident() not in threads
    assert all(torch.equal(caches[0][path], caches[1][path]) for path in many_images[:100])


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="more processes than cores are not started")
def test_many_images_are_decoded_in_several_processes_and_the_features_are_the_same(
    cache: Callable[..., FeatureCache], images: list[Path], many_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recording(Transform):
        def __call__(self, image: Image.Image) -> torch.Tensor:
            return super().__call__(image) * 0 + os.getpid()

    def processes(batch: torch.Tensor) -> torch.Tensor:
        return batch.flatten(1).mean(1).view(-1, 1, 1) % 1000

    monkeypatch.setattr("data.decode_ahead.PROCESSES_FROM", 100)
    monkeypatch.setattr("data.decode_ahead.MAX_THREADS", 1)  # for machines with two cores
    monkeypatch.setattr("data.features.ENCODE_BATCH", 10)
    images[1].write_bytes(images[1].read_bytes()[:300])
    images[3].write_bytes(b"text")
    paths, before = [*many_images[:30], *images, *many_images[30:95]], torch.random.get_rng_state()
    made = cache(CountingEncoder(), workers=2)
    bad = made.build(paths)
    assert {path: error.kind for path, error in bad.items()} == {
        images[1]: "damaged image",
        images[3]: "not an image",
    }
    assert_right(made, [path for path in paths if path not in bad])
    assert torch.equal(torch.random.get_rng_state(), before)
    made = cache(processes, "weights 2", Recording(2), workers=2)
    made.build(paths)
    seen = {made[path].item() for path in paths if path not in bad}
    assert len(seen) == 2 and os.getpid() % 1000 not in seen


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="more processes than cores are not started")
def test_a_reader_that_is_killed_is_reported_with_what_to_do(
    cache: Callable[..., FeatureCache], many_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = os.getpid()

    class Fatal(Transform):
        def __call__(self, image: Image.Image) -> torch.Tensor:
            if os.getpid() != main:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(image)

    monkeypatch.setattr("data.decode_ahead.PROCESSES_FROM", 100)
    monkeypatch.setattr("data.decode_ahead.MAX_THREADS", 1)
    with pytest.raises(UserError, match=r"a reader process has died .* lower --data\.workers"):
        cache(CountingEncoder(), "weights", Fatal(32), workers=2).build(many_images[:100])


def test_few_images_are_decoded_ahead_of_the_encoder(
    cache: Callable[..., FeatureCache], many_images: list[Path]
) -> None:
    """Decoded images of a whole data set would not fit in memory."""
    decoded = 0

    class Counting(Transform):
        def __call__(self, image: Image.Image) -> torch.Tensor:
            nonlocal decoded
            decoded += 1
            return super().__call__(image)

    encoder, ahead = CountingEncoder(), []

    def encode(images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        ahead.append(decoded - encoder.seen)
        return encoder(images)

    cache(encode, transform=Counting(32), workers=4).build(many_images)
    assert len(ahead) == MANY / 16 and max(ahead) <= 60
