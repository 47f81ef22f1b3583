"""``--resume``: which checkpoint a run continues from, and what may have changed since."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from cli import UserError
from config import Config, config_from_dict, config_to_dict
from training.loss_log import read_log
from training.progress import Progress
from training.run_folder import LAST, LOG
from utils import load_checkpoint

# Options, or groups of them, that a resumed run must not change: they determine the weights' shapes, the images and
# vocabulary, the order of the batches, or (generate) the validation CIDEr by which epochs are compared.
FIXED = ("data.image_size", "data.min_count", "encoder", "decoder", "generate", "train.seed", "train.batch_size")
ABSENT = object()  # in place of the value of an option that only the other config has


def find_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint that ``--resume`` names; None to start a new run.

    Args:
        resume: a file, or "auto": checkpoints_last.pth in ``folder`` if it exists.

    Raises:
        UserError: there is no such file.
    """
    if resume is None:
        return None
    path = folder / LAST if resume == "auto" else Path(resume)
    if path.is_file():
        return path
    if resume != "auto":
        raise UserError(
            f"--resume {path}: no such file. "
            f"'--resume auto' continues from {folder / LAST} if it exists, else starts a new run"
        )
    print(f"--resume auto: no {LAST} in {folder}, starting a new run")
    return None


def fingerprint(table: pd.DataFrame) -> str:
    """Hash of images, captions and splits: a resumed run needs the data it started with."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def load_resume(path: Path, config: Config, data: str) -> tuple[dict[str, Any], Progress]:
    """Read the checkpoint to resume from, and where its run stands among the stages of ``config``.

    Args:
        data: fingerprint of the captions file.

    Raises:
        UserError: it is no training checkpoint, its log is damaged, or data or options changed that must not.
    """
    checkpoint = load_checkpoint(path)
    if "training" not in checkpoint:
        raise UserError(f"--resume {path}: this checkpoint has no training state; use the {LAST} of its run")
    if checkpoint["training"]["data"] != data:
        raise UserError(
            f"--resume: {config.data.captions_file} has changed since the run began. "
            "Restore it, or start a new run in another --output_dir"
        )
    if (log := path.with_name(LOG)).exists():
        read_log(log)  # an error must show before any file is moved
    before = config_from_dict(checkpoint["config"])  # options that are newer than the run have their defaults
    names = [stage.name for stage in before.train.stages]
    progress = Progress.from_dict(checkpoint["training"]["progress"], names)
    _check_stages(progress, names, [stage.name for stage in config.train.stages])
    _check_options(before, config)
    if progress.stage is None and len(config.train.stages) > len(names):
        progress.stage = config.train.stages[len(names)].name
    return checkpoint, progress


def _check_stages(progress: Progress, before: list[str], now: list[str]) -> None:
    """Refuse if a stage that the run has begun is missing, renamed, or no longer in its place."""
    begun = before if progress.stage is None else before[: before.index(progress.stage) + 1]
    if now[: len(begun)] != begun:
        where = "has finished" if progress.stage is None else f"is in stage '{progress.stage}'. It has begun"
        raise UserError(
            f"--resume: the run {where} the stages {', '.join(begun)}, but train.stages is now {', '.join(now)}. "
            f"Let train.stages begin with {', '.join(begun)} again, or start a new run in another --output_dir"
        )


def _check_options(before: Config, now: Config) -> None:
    """Refuse changes of ``FIXED`` options, and print the other changes."""
    changes = dict(_differences(_by_stage(before), _by_stage(now)))
    fixed = [name for name in changes if any(name == key or name.startswith(f"{key}.") for key in FIXED)]
    if fixed:
        listed = ", ".join(f"{name} ({changes[name]})" for name in fixed)
        raise UserError(
            f"--resume: these options cannot change within a run: {listed}. "
            "Leave them as they were, or start a new run in another --output_dir"
        )
    if changes:
        print("resuming with changes:", *(f"{name}: {change}" for name, change in changes.items()), sep="\n    ")


def _by_stage(config: Config) -> dict[str, Any]:
    """The config as nested dicts, the stages by their names."""
    values = config_to_dict(config)
    values["train"]["stages"] = {stage["name"]: stage for stage in values["train"]["stages"]}
    return values


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(option, "old value -> new value", "added" or "removed") for each difference of nested dicts."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(old.get(key, ABSENT), new.get(key, ABSENT), f"{name}.{key}" if name else key)
    elif old is ABSENT or new is ABSENT:
        yield name, "added" if old is ABSENT else "removed"
    elif old != new:
        yield name, f"{old} -> {new}"
