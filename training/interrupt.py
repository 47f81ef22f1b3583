"""Ctrl-C and SIGTERM: a run stops between two steps, never in the middle of one."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, Self

from data.dataset import Batch
from distributed import ALONE, Processes


class Interrupted(Exception):
    """The run was asked to stop, and its state has been saved."""


class StopRequest:
    """Inside the ``with`` block, Ctrl-C and SIGTERM set ``wanted``; a second one raises KeyboardInterrupt.

    Of several processes none stops before the others: torchrun passes on a Ctrl-C that has reached them already, and
    kills what has not ended after 30 seconds.
    """

    def __init__(self, processes: Processes = ALONE) -> None:
        self.wanted, self.processes = False, processes
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows signal handlers in no other
            self.before = {name: signal.signal(name, self._note) for name in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted and self.processes.size == 1:
            raise KeyboardInterrupt
        if self.processes.is_first and not self.wanted:
            again = b"" if self.processes.size > 1 else b" (again: at once)"
            os.write(2, b"\nstopping after this step" + again + b" ...\n")  # print() is not reentrant
        self.wanted = True

    def wanted_by_any(self) -> bool:
        """Whether one of the processes has been asked to stop; all ask this at the same point."""
        return self.processes.any(self.wanted)[0]


class StoppableBatches:
    """Batches, with a point after each of them at which the run can be saved and stopped.

    At that point the caller has finished a training step, or part of a validation, which is repeated after resuming.

    Args:
        batches: read from a ``DataLoader``, or a list.
        stop: the request to end the iteration with ``Interrupted``, after saving.
        save_is_due: whether it is time for a save in any case.
        save: saves the run; its argument is the last batch with images in it, None if there was none yet.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        stop: StopRequest,
        save_is_due: Callable[[], bool],
        save: Callable[[Batch | None], None],
    ) -> None:
        self.batches, self.stop, self.save_is_due, self.save = batches, stop, save_is_due, save
        self.last: Batch | None = None

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.batches)
        while (batch := self._next(batches)) is not None:
            yield batch
            self.last = batch if batch.names else self.last
            stop, due = self.stop.processes.any(self.stop.wanted, self.save_is_due())
            if stop or due:
                self.save(self.last)
            if stop:
                raise Interrupted

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch, None after the last one."""
        try:
            return next(batches, None)
        except RuntimeError:
            if not self.stop.wanted_by_any():
                raise
            # A signal to the whole process group ended the loader's workers before this process noticed it.
            self.save(self.last)
            raise Interrupted from None


def leave_signals_to_main(worker: int) -> None:
    """``worker_init_fn`` of a DataLoader: Ctrl-C reaches the workers too, and must not break the current step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # also how the main process ends its workers
