"""Stopping between two batches: when a run is saved, and what ends it."""

import signal
from collections.abc import Iterator

import pytest
import torch

from data.dataset import Batch
from training.interrupt import Interrupted, StoppableBatches, StopRequest


def batch(name: str) -> Batch:
    return Batch(torch.zeros(1), torch.zeros(1), [name] if name else [])


BATCHES = [batch("a"), batch("b"), batch(""), batch("c")]


class Saves(list[str | None]):
    """The name in the batch of each save."""

    def __call__(self, last: Batch | None) -> None:
        self.append(last.names[0] if last else None)


def test_batches_pass_through_without_saves() -> None:
    saves = Saves()
    batches = StoppableBatches(BATCHES, StopRequest(), lambda: False, saves)
    assert list(batches) == BATCHES and saves == []
    assert batches.last is BATCHES[-1]


def test_a_save_that_is_due_comes_after_each_batch_with_the_last_images() -> None:
    saves, seen = Saves(), []
    for current in StoppableBatches(BATCHES, StopRequest(), lambda: True, saves):
        seen.append(len(saves))  # of the batches before
        assert current is BATCHES[len(seen) - 1]
    assert seen == [0, 1, 2, 3] and saves == ["a", "b", "b", "c"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch_and_saves_once(number: signal.Signals) -> None:
    saves, seen = Saves(), 0
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop, pytest.raises(Interrupted):
        for _ in StoppableBatches(BATCHES, stop, lambda: False, saves):
            seen += 1
            if seen == 2:
                signal.raise_signal(number)
                assert stop.wanted and saves == []  # the current step is completed
    assert seen == 2 and saves == ["b"]
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_stops_at_once() -> None:
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def failing(error: Exception) -> Iterator[Batch]:
    yield batch("a")
    raise error


@pytest.mark.parametrize("wanted", [True, False])
def test_errors_of_the_loop_body_are_not_mistaken_for_dead_workers(wanted: bool) -> None:
    stop, saves = StopRequest(), Saves()
    with pytest.raises(RuntimeError, match="out of memory"):
        for _ in StoppableBatches(BATCHES, stop, lambda: False, saves):
            stop.wanted = wanted
            raise RuntimeError("CUDA out of memory")
    assert saves == []


def test_errors_of_the_loader_are_raised_unless_the_run_is_to_stop() -> None:
    stop, saves = StopRequest(), Saves()
    with pytest.raises(RuntimeError, match="worker exited"):
        list(StoppableBatches(failing(RuntimeError("worker exited")), stop, lambda: False, saves))
    assert saves == []
    batches = iter(StoppableBatches(failing(ValueError("no image")), stop, lambda: False, saves))
    next(batches)
    with pytest.raises(ValueError, match="no image"):
        next(batches)


def test_workers_ended_by_the_signal_stop_the_run_like_the_signal_itself() -> None:
    """The whole process group gets it, and workers may end while the main process waits for their next batch."""
    stop, saves = StopRequest(), Saves()

    def batches() -> Iterator[Batch]:
        yield batch("a")
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    with stop, pytest.raises(Interrupted):
        list(StoppableBatches(batches(), stop, lambda: False, saves))
    assert saves == ["a"]
