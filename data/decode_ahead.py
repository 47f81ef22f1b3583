"""Decode many images ahead of the encoder that reads them: in threads, or in processes where threads are too slow."""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from cli import UserError
from data.images import ImageError, load_image
from data.transforms import Transform

MAX_THREADS = 2  # as fast as so many processes (1,140 and 970 images a second); more wait for each other
Value = TypeVar("Value")
PROCESSES_FROM = 1000  # images: to start the processes takes as long as to decode some hundreds


def decode(
    paths: Sequence[Path], transform: Transform, workers: int, batch: int
) -> Iterator[torch.Tensor | ImageError]:
    """The images (3, S, S), in order, or why they cannot be used.

    Args:
        workers: threads; processes, if there are many images and more than two workers and cores.
        batch: as many images are encoded together. About two batches are decoded ahead: 0.6 MB an image.
    """
    images, processes = Images(paths, transform), min(workers, os.cpu_count() or 1)
    if processes > MAX_THREADS and len(paths) >= PROCESSES_FROM:
        return _in_processes(images, processes, batch)
    return _in_threads(images, workers, batch)


class Images(Dataset[torch.Tensor | ImageError]):
    """The images of ``paths`` (3, S, S), or why they cannot be used."""

    def __init__(self, paths: Sequence[Path], transform: Transform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor | ImageError:
        try:
            return self.transform(load_image(self.paths[index]))
        except ImageError as error:
            return error


def _in_threads(images: Images, workers: int, batch: int) -> Iterator[torch.Tensor | ImageError]:
    """Pillow and NumPy release the lock that lets Python run one thread at a time."""
    ahead: deque[Future[torch.Tensor | ImageError]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for index in range(len(images)):
            ahead.append(pool.submit(images.__getitem__, index))
            if len(ahead) > 2 * batch + workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _in_processes(images: Images, workers: int, batch: int) -> Iterator[torch.Tensor | ImageError]:
    """Each process is two batches ahead."""
    batches: DataLoader[Any] = DataLoader(
        images,
        batch,
        num_workers=workers,
        collate_fn=_stack,
        worker_init_fn=_leave_interrupts_to_main,
        generator=torch.Generator(),  # the global one is that of training
    )
    decoded = iter(batches)
    while (batch_read := next_of(decoded, "--data.workers")) is not None:
        stacked, errors = batch_read
        readable = iter(stacked)
        yield from (next(readable) if error is None else error for error in errors)


def next_of(batches: Iterator[Value], option: str) -> Value | None:
    """The next of the batches of a DataLoader, None after the last one.

    Args:
        option: the script's option for the number of its processes.

    Raises:
        UserError: one of them was killed.
    """
    try:
        return next(batches, None)
    except RuntimeError as error:
        raise UserError(
            f"a reader process has died ({str(error).splitlines()[0]}). If memory or /dev/shm is short, lower "
            f"{option}; then run the same command again"
        ) from error


def _stack(images: Sequence[torch.Tensor | ImageError]) -> tuple[torch.Tensor, list[ImageError | None]]:
    """Images as one tensor, which takes one open file on its way where each would take one; and the errors, in their
    places."""
    readable = [image for image in images if isinstance(image, torch.Tensor)]
    errors = [image if isinstance(image, ImageError) else None for image in images]
    return torch.stack(readable) if readable else torch.empty(0), errors


def _leave_interrupts_to_main(worker: int) -> None:
    """Ctrl-C reaches the workers too; the main process ends them, with SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
