"""Caption batches on this machine: reader processes decode ahead, this process captions."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from bulk.captioning import Images, Reader, Settings, caption
from bulk.parts import Batch, Row
from data.decode_ahead import next_of
from models.captioner import Captioner
from training.interrupt import leave_signals_to_main

AHEAD = 2  # batches of 10 MB that each reader decodes ahead


class _Batches(Dataset[Images]):
    """Decodes the batch that is its own key, so that a reader receives no more of millions of names than it needs."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitem__(self, batch: Batch) -> Images:
        return self.reader(batch)


def caption_here(
    captioner: Captioner, batches: Sequence[Batch], reader: Reader, settings: Settings, workers: int
) -> Iterator[tuple[int, int, list[Row]]]:
    """Yield part, first row and rows of each batch, in order.

    Args:
        workers: processes that decode; 0: this process does.

    Raises:
        UserError: a reader was killed.
    """
    loader: DataLoader[Any] = DataLoader(
        _Batches(reader),
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        collate_fn=_as_it_is,  # without it torch would copy the batch
        worker_init_fn=leave_signals_to_main,
    )
    decoded = iter(loader)
    while (images := next_of(decoded, "--workers")) is not None:
        yield images.part, images.first, caption(captioner, images, settings)


def _as_it_is(images: Any) -> Any:
    return images
