"""Which checkpoint --resume chooses; which options and stages a resumed run may change."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cli import UserError
from config import Config, config_to_dict
from training.progress import Progress
from training.resume import find_resume, load_resume

A, B, X = ({"name": name, "epochs": 3} for name in "abx")


def test_find_resume(tmp_path: Path) -> None:
    assert find_resume(None, tmp_path) is None and find_resume("auto", tmp_path) is None
    (tmp_path / "checkpoints_last.pth").touch()
    assert find_resume(None, tmp_path) is None
    assert (
        find_resume("auto", tmp_path)
        == find_resume(str(tmp_path / "checkpoints_last.pth"), Path())
        == tmp_path / "checkpoints_last.pth"
    )
    with pytest.raises(UserError, match=r"--resume nowhere.*: no such file.*auto"):
        find_resume("nowhere", tmp_path)
    (tmp_path / "runs" / "attention").mkdir(parents=True)
    (tmp_path / "runs" / "attention" / "checkpoints_last.pth").touch()
    mistyped = str(tmp_path / "runs" / "atention")
    with pytest.raises(UserError, match=r"atention: no such file: did you mean '--resume .*runs/attention'\?"):
        find_resume(mistyped, tmp_path)


@pytest.fixture
def checkpoint_of(tmp_path: Path, tiny_config: Callable[..., Config]) -> Callable[..., Path]:
    """``checkpoint_of([A, B], stage="b")``: a checkpoint of a run of these stages, without weights."""

    def make(stages: list[dict[str, Any]], **progress: Any) -> Path:
        config = tiny_config(f"--train.stages={stages}")
        values = dataclasses.asdict(Progress(stage=None)) | progress
        path = tmp_path / "checkpoints_last.pth"
        content = {"config": config_to_dict(config), "model": {}, "vocab": [], "transform": {}}
        torch.save({"format_version": 1, **content, "training": {"progress": values, "data": "hash"}}, path)
        return path

    return make


@pytest.mark.parametrize("now", [[X, A, B], [B], [X, B], [B, A], [A], [A, X]])
def test_stages_that_have_begun_must_keep_their_positions(
    checkpoint_of: Callable[..., Path], tiny_config: Callable[..., Config], now: list[dict[str, Any]]
) -> None:
    path = checkpoint_of([A, B], stage="b")
    with pytest.raises(
        UserError, match=r"is in stage 'b'.*begun the stages a, b, but.*Let train.stages begin with a, b"
    ):
        load_resume(path, tiny_config(f"--train.stages={now}"), "hash", ["--resume=auto"])


@pytest.mark.parametrize("now", [[A], [B, A], [X, A, B]])
def test_finished_stages_cannot_be_removed_or_moved(
    checkpoint_of: Callable[..., Path], tiny_config: Callable[..., Config], now: list[dict[str, Any]]
) -> None:
    path = checkpoint_of([A, B], stage=None)
    with pytest.raises(UserError, match=r"has finished the stages a, b, but"):
        load_resume(path, tiny_config(f"--train.stages={now}"), "hash", ["--resume=auto"])


@pytest.mark.parametrize(
    ("stage", "now", "expected"),
    [
        ("a", [A, X, B], "a"),  # later stages may change
        ("a", [A], "a"),
        ("b", [A, B, X], "b"),
        (None, [A, B, X], "x"),  # a finished run goes on with the stage that was added
        (None, [A, B], None),
        (0, [A, B], "a"),  # older checkpoints number their stage
        (1, [A, B, X], "b"),
        (2, [A, B, X], "x"),
        (2, [A, B], None),
    ],
)
def test_the_stage_to_resume_in_is_found_by_name(
    checkpoint_of: Callable[..., Path],
    tiny_config: Callable[..., Config],
    stage: str | int | None,
    now: list[dict[str, Any]],
    expected: str | None,
) -> None:
    path = checkpoint_of([A, B], stage=stage, epoch=1, best_cider=0.5)
    progress = load_resume(path, tiny_config(f"--train.stages={now}"), "hash", ["--resume=auto"]).progress
    assert (progress.stage, progress.epoch, progress.best_cider) == (expected, 1, 0.5)


def test_changes_are_listed_option_by_option(
    checkpoint_of: Callable[..., Path], tiny_config: Callable[..., Config]
) -> None:
    path = checkpoint_of([A, B], stage="a")
    options = ("--train.grad_clip=1", f"--train.stages={[{**A, 'lr': 0.5, 'epochs': 6}, X]}")
    assert load_resume(path, tiny_config(*options), "hash", []).changes == {
        "train.grad_clip": "5.0 -> 1.0",
        "train.stages[0].epochs": "3 -> 6",
        "train.stages[0].lr": "0.001 -> 0.5",
        "train.stages[1] (b)": "removed",
        "train.stages[1] (x)": "added",
    }
    assert load_resume(path, tiny_config(f"--train.stages={[A, B]}"), "hash", []).changes == {}


@pytest.mark.parametrize(("progress", "ended"), [({"stage": "b"}, "a"), ({"stage": "b", "epoch": 3}, "ab")])
def test_changes_of_stages_that_have_ended_are_said_to_have_no_effect(
    checkpoint_of: Callable[..., Path], tiny_config: Callable[..., Config], progress: dict[str, Any], ended: str
) -> None:
    path = checkpoint_of([A, B], **progress)
    stages = [{**A, "lr": 0.5}, {**B, "lr": 0.5}, X]
    changes = load_resume(path, tiny_config(f"--train.stages={stages}"), "hash", []).changes
    for number, name in enumerate("ab"):
        note = " (no effect: the stage has ended)" if name in ended else ""
        assert changes[f"train.stages[{number}].lr"] == f"0.001 -> 0.5{note}"


@pytest.mark.parametrize(
    "option", ["decoder.hidden_size", "data.min_count", "train.seed", "train.batch_size", "generate.beam_size"]
)
def test_options_that_define_the_run_cannot_change(
    checkpoint_of: Callable[..., Path], tiny_config: Callable[..., Config], option: str
) -> None:
    """generate.*, too: the best epoch is the one with the best CIDEr, and another beam size gives another CIDEr."""
    path = checkpoint_of([A], stage="a")
    with pytest.raises(UserError, match=rf"--resume: .*{option} \(\d -> 16\).*new run in another --output_dir"):
        load_resume(path, tiny_config(f"--train.stages={[A]}", f"--{option}=16"), "hash", ["--resume=auto"])
