"""What the machine could do at most, and what a task needs: the two sides of a share of the limit."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.benchmark.plain_model import PlainModel
from utils import set_matmul_precision

CPU_MATRIX = 1024  # rows and columns: large enough for the full rate of a CPU
GPU_MATRIX = 8192  # of a GPU: 0.8 GB for three in fp32
PRODUCTS = 6  # of which the fastest counts: other load only makes them slower
TRAINING = 3  # a step needs about three times the operations of its forward pass: two of them for the gradients


@contextmanager
def exact_matmul(device: torch.device, precision: str) -> Iterator[None]:
    """Multiply fp32 matrices as PyTorch does unless told otherwise, then again as the project does.

    Args:
        precision: of the project, see ``utils.use_device``.
    """
    set_matmul_precision(device, exact=True)
    try:
        yield
    finally:
        set_matmul_precision(device, exact=precision == "fp32")


def matmul_limit(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second in products of large matrices, with the threads that torch uses now.

    The product is also computed as a 1x1 convolution, and the faster way counts: PyTorch multiplies fp32 matrices with
    MKL, which on AMD is slower than the oneDNN of its convolutions.
    """
    size = CPU_MATRIX if device.type == "cpu" else GPU_MATRIX
    one, other = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    pixels = one.view(1, size, size, 1).permute(0, 2, 1, 3)  # as many pixels as channels, in channels_last
    kernels = other[:, :, None, None].contiguous(memory_format=torch.channels_last)
    products: list[Callable[[], torch.Tensor]] = [lambda: one @ other, lambda: torch.conv2d(pixels, kernels)]
    best = float("inf")
    for product in products:
        for _ in range(PRODUCTS + 1):  # one to warm up
            began = time.perf_counter()
            product().flatten()[0].item()  # waits for a GPU
            best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best)


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of the parts of a model, as PyTorch counts them in matrix products and convolutions."""

    encoder: int  # one view of an image: the image or its mirror image
    start: int  # the decoder reads an image
    step: int  # the decoder reads a word

    def caption(self, words: float) -> float:
        """To search a caption from features: ``words`` are those of all hypotheses."""
        return self.start + words * self.step

    def train(self, images: int, words: int) -> float:
        """To train the decoder on the captions of some images, with ``words`` words in all, from features."""
        return TRAINING * (images * self.start + words * self.step)


@torch.no_grad()
def count_parts(model: PlainModel, image: torch.Tensor, views: int) -> Operations:
    """Count the operations of a model in eval mode.

    Args:
        image: a normalised image (1, 3, S, S).
        views: of each image that the decoder reads; 2 with the mirror image.
    """
    grid = torch.cat([model.encoder(image)] * views, dim=1)
    word, state = torch.zeros(1, dtype=torch.long, device=image.device), model.decoder.start(grid)
    return Operations(
        count_operations(lambda: model.encoder(image)),
        count_operations(lambda: model.decoder.start(grid)),
        count_operations(lambda: model.decoder.step(word, state)),
    )


def count_operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
