"""The speed of a checkpoint: images encoded and captioned per second, in batches and one by one."""

import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from cli import say
from data.features import FeatureCache
from data.images import load_image
from evaluation.options import cache_folder
from evaluation.split import open_split, usable_images
from models.captioner import Captioner
from models.pretrained import find_checkpoint
from utils import use_device

BATCH_SIZE = 64  # images encoded or captioned at once
SINGLE_IMAGES = 100  # images that are captioned one by one
REPEATS = 3


def best_time(work: Callable[[], float]) -> float:
    """The shortest of ``REPEATS`` times in seconds, after a warm-up; other load on the machine only makes times longer.

    Args:
        work: does the work and returns the seconds it took.
    """
    work()
    return min(work() for _ in range(REPEATS))


def read_batches(cache: FeatureCache, paths: Sequence[Path], size: int) -> Iterator[torch.Tensor]:
    """The features of images in batches (B, P, D), so that only one batch is in memory."""
    for first in range(0, len(paths), size):
        yield cache.batch(paths[first : first + size])


def decode_in_batches(captioner: Captioner, batches: Iterable[torch.Tensor], beam_size: int) -> float:
    """Caption images from batches of features (B, P, D); return the seconds it took, not counting the reading."""
    seconds = 0.0
    for features in batches:
        began = time.perf_counter()
        captioner.generate(features, beam_size)
        seconds += time.perf_counter() - began
    return seconds


def decoding_time(
    captioner: Captioner, cache: FeatureCache, paths: Sequence[Path], batch_size: int, beam_size: int
) -> float:
    """The shortest time in seconds to caption images, ``batch_size`` at once."""
    return best_time(lambda: decode_in_batches(captioner, read_batches(cache, paths, batch_size), beam_size))


def encode(captioner: Captioner, images: torch.Tensor) -> float:
    """Encode preprocessed images (B, 3, S, S); return the seconds it took."""
    began = time.perf_counter()
    captioner.encode(images, mirror=captioner.config.generate.mirror).cpu()  # to the CPU: waits until a GPU is done
    return time.perf_counter() - began


def measure(
    captioner: Captioner, cache: FeatureCache, paths: Sequence[Path], beam_sizes: Sequence[int]
) -> Iterator[str]:
    """Yield lines of text, a number and what it is.

    Args:
        cache: holds the features of all images.
        paths: the images.
    """
    images = torch.stack([captioner.transform(load_image(path)) for path in paths[:BATCH_SIZE]])
    weights = sum(weight.numel() for weight in captioner.decoder.parameters())
    yield f"{weights / 1e6:9.1f} million weights in the decoder"
    yield f"{len(images) / best_time(lambda: encode(captioner, images)):9.1f} images encoded per second"
    for beam_size in beam_sizes:
        single = paths[:SINGLE_IMAGES]
        batched = decoding_time(captioner, cache, paths, BATCH_SIZE, beam_size)
        one_by_one = decoding_time(captioner, cache, single, 1, beam_size)
        yield f"{len(paths) / batched:9.1f} images captioned per second, beam size {beam_size}, {BATCH_SIZE} at once"
        yield f"{len(single) / one_by_one:9.1f} images captioned per second, beam size {beam_size}, one by one"
        yield f"{batched:9.1f} seconds to caption {len(paths)} images, beam size {beam_size}"


def report(named: Path | None, options: Namespace) -> None:
    """Measure one checkpoint and print a line for each number."""
    path, checkpoint = find_checkpoint(named, photos=False)
    device = use_device(options.device, options.precision)
    captioner = Captioner.from_checkpoint(checkpoint, path, options.precision).to(device).eval()
    config, split = captioner.config, open_split(captioner.config, options)
    root = cache_folder(options.feature_cache, config.data.feature_cache)
    cache = captioner.feature_cache(root, mirror=config.generate.mirror)
    references = usable_images(split.references(options.limit), split.image_dir, [cache])
    say(f"{path}: decoder {config.decoder.name}, {captioner.device}, {torch.get_num_threads()} threads")
    paths = [split.image_dir / name for name in references]
    for line in measure(captioner, cache, paths, options.beam_size or [config.generate.beam_size]):
        say(f"  {line}")
