"""Early stopping, the plateau rule, the best epoch, and what a new epoch or stage starts with."""

import dataclasses
import math

import pytest

from cli import UserError
from config import StageConfig
from training.progress import PLATEAU_EPOCHS, PLATEAU_FACTOR, Progress

A, B = StageConfig(name="a", epochs=3, patience=2), StageConfig(name="b", epochs=9, schedule="plateau")


def test_an_epoch_is_the_best_if_its_cider_is_higher_than_any_of_the_run() -> None:
    progress = Progress(stage="a")
    assert [progress.end_epoch(cider, A) for cider in (0.0, 0.3, 0.3, 0.2, 0.4)] == [True, True, False, False, True]
    assert (progress.best_cider, progress.best_epoch, progress.total_epochs) == (0.4, 5, 5)


def test_a_stage_ends_after_its_epochs_or_when_it_stops_improving() -> None:
    progress = Progress(stage="a")
    for cider in (0.3, 0.2):
        progress.end_epoch(cider, A)
        assert not progress.stage_finished(A)
    progress.end_epoch(0.3, A)
    assert progress.stopped_early(A) and progress.stage_finished(A)
    progress = Progress(stage="a")
    for cider in (0.1, 0.2, 0.3):
        assert not progress.stage_finished(A)
        progress.end_epoch(cider, A)
    assert progress.stage_finished(A) and not progress.stopped_early(A)


def test_plateau_lowers_the_learning_rate_and_cosine_does_not() -> None:
    progress = Progress(stage="b")
    scales = []
    for cider in (0.5, *[0.4] * PLATEAU_EPOCHS, 0.6, *[0.4] * (2 * PLATEAU_EPOCHS)):
        progress.end_epoch(cider, B)
        scales.append(progress.lr_scale)
    factor = PLATEAU_FACTOR
    assert scales == [1, 1, factor, factor, factor, factor**2, factor**2, factor**3]
    progress = Progress(stage="a")
    for _ in range(5):
        progress.end_epoch(0.4, A)
    assert progress.lr_scale == 1


def test_a_stage_is_judged_by_its_own_best_epoch() -> None:
    progress = Progress(stage="a")
    progress.end_epoch(0.9, A)
    following = progress.next_stage([A, B])
    assert following
    progress = following
    assert [progress.end_epoch(cider, B) for cider in (0.1, 0.2)] == [False, False]
    assert progress.epochs_without_better == 0 and progress.best_epoch == 1


def test_the_next_stage_keeps_only_the_totals_of_the_run() -> None:
    progress = Progress(stage="a")
    progress.end_step(2.0, 10, 4, grad_norm=1.0, seconds=0.5)
    progress.end_epoch(0.3, A)
    progress.end_epoch(0.2, A)
    following = progress.next_stage([A, B])
    assert following
    kept = {"total_epochs": 2, "total_steps": 1, "best_cider": 0.3, "best_epoch": 1}
    assert following == Progress(stage="b", **kept)
    assert following.next_stage([A, B]) is None


def test_sums_grow_over_an_epoch_and_are_reset_at_its_end() -> None:
    progress = Progress(stage="a")
    progress.end_step(2.0, 10, 4, grad_norm=3.0, seconds=0.5)
    progress.end_step(5.0, 20, 4, grad_norm=math.inf, seconds=0.5)  # an overflow in fp16, whose update is skipped
    assert progress.loss_sum / progress.token_count == pytest.approx(4.0)
    assert (progress.step, progress.image_count, progress.seconds) == (2, 8, 1.0)
    assert (progress.norm_sum, progress.norm_count) == (3.0, 1)
    progress.end_epoch(0.3, A)
    empty = dataclasses.replace(progress, total_steps=0, total_epochs=0, epoch=0, best_cider=-1.0, best_epoch=0)
    assert dataclasses.replace(empty, stage_best_cider=-1.0) == Progress(stage="a")


def test_progress_survives_a_checkpoint_and_reads_older_ones() -> None:
    progress = Progress(stage="b", epoch=2, best_cider=0.5)
    assert Progress.from_dict(dataclasses.asdict(progress), ["a", "b"]) == progress
    assert Progress.from_dict({"stage": 1, "epoch": 2}, ["a", "b"]) == Progress(stage="b", epoch=2)
    assert Progress.from_dict({"stage": 2}, ["a", "b"]) == Progress(stage=None)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (5, "stage"),
        ({}, "stage"),
        ({"stage": "c"}, "stage"),
        ({"stage": ["a"]}, "stage"),
        ({"stage": "a", "epoch": -1}, "epoch"),
        ({"stage": "a", "step": 1.5, "total_steps": "x"}, "step, total_steps"),
        ({"stage": "a", "best_cider": "x"}, "best_cider"),
        ({"stage": "a", **{f"more{number}": 1 for number in range(9)}}, "more0, more1, more2 and 6 more"),
    ],
)
def test_damaged_progress_is_refused(values: object, names: str) -> None:
    with pytest.raises(UserError, match=rf"the progress in the checkpoint is damaged \({names}\)"):
        Progress.from_dict(values, ["a", "b"])
