"""The files a run keeps in its output folder, and what becomes of those of an earlier run."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout

from cli import UserError, atomic_open
from config import Config, config_from_dict, config_to_dict
from training.loss_log import read_log
from utils import load_checkpoint

BEST, LAST, LOG, RESOLVED = "checkpoints.pth", "checkpoints_last.pth", "loss_log.txt", "resolved_config.yaml"


LOCK = ".train.lock"


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for one run: a second would move the first one's files away while they are written.

    The system frees the lock of a run that was killed. Folders that were made here and stay empty are removed again.

    Raises:
        UserError: another run holds it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"--output_dir {folder}: another run is writing there. Name another folder, or wait until it has ended"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            (folder / LOCK).unlink()
        lock.release()
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def find_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint to go on from: ``auto`` is the folder's last one if there is any, a path must exist."""
    if resume is None:
        return None
    path = folder / LAST if resume == "auto" else Path(resume)
    if path.is_file():
        return path
    if resume != "auto":
        raise UserError(
            f"--resume {path}: no such file. '--resume auto' goes on with {folder / LAST} if there is one, else starts afresh"
        )
    print(f"--resume auto: no {LAST} in {folder}, starting afresh")
    return None


def keep_previous(folder: Path) -> Path | None:
    """Move the files of an earlier run out of a new one's way, and return where to; nothing is ever deleted."""
    old = [folder / name for name in (BEST, LAST, LOG, RESOLVED) if (folder / name).exists()]
    if all(path.name == RESOLVED for path in old):
        return None
    target = folder / "previous_runs" / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    target.mkdir(parents=True)
    for path in old:
        path.rename(target / path.name)
    how = f" (go on with it: --resume {target / LAST})" if (target / LAST).exists() else ""
    print(f"an earlier run's files were moved to {target}{how}")
    return target


def sweep(folder: Path) -> None:
    """Remove the unfinished files of runs that were killed while they wrote; those of other scripts may still be growing."""
    for name in (BEST, LAST, LOG, RESOLVED):
        for unfinished in folder.glob(f".{name}.*.tmp"):
            unfinished.unlink()


def take_over(source: Path, folder: Path, epochs: int) -> None:
    """Copy the run that the checkpoint ``source``, of ``epochs`` epochs, belongs to into ``folder``, unless it is the last one there.

    A best checkpoint of a later epoch belongs to what came after ``source``, and stays where it is.
    """
    if source.resolve() == (folder / LAST).resolve():
        return
    previous = keep_previous(folder)
    home = previous if previous and source.parent.resolve() == folder.resolve() else source.parent
    best = home / BEST
    is_later = best.exists() and load_checkpoint(best).get("scores", {}).get("epoch", 0) > epochs
    for path, name in ((best, BEST), (home / LOG, LOG), (source, LAST)):
        if path.exists() and not (path == best and is_later):
            with path.open("rb") as old, atomic_open(folder / name, "wb") as new:
                shutil.copyfileobj(old, new)


def load_best(folder: Path, epoch: int, cider: float) -> dict[str, torch.Tensor] | None:
    """The weights in checkpoints.pth if they are those that the run kept at ``epoch``; None if somebody took or replaced the file."""
    if not (folder / BEST).exists():
        return None
    checkpoint = load_checkpoint(folder / BEST)
    return checkpoint["model"] if checkpoint.get("scores") == {"val_cider": cider, "epoch": epoch} else None


def fingerprint(table: pd.DataFrame) -> str:
    """Hash of images, captions and splits: a run can only go on with the data it began with."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def load_resume(path: Path, config: Config, table: pd.DataFrame) -> dict[str, Any]:
    """Read the checkpoint to go on from; refuse other data, another model or a damaged log, tell of other changes."""
    checkpoint = load_checkpoint(path)
    if "training" not in checkpoint:
        raise UserError(f"--resume {path}: this checkpoint can caption but not go on training; use {LAST} of its run")
    if checkpoint["training"]["data"] != fingerprint(table):
        raise UserError(
            f"--resume: {config.data.captions_file} has changed since the run began; start a new run in another --output_dir"
        )
    if (log := path.with_name(LOG)).exists():
        read_log(log)  # now, while nothing has been moved
    before = config_to_dict(
        config_from_dict(checkpoint["config"])
    )  # options that are younger than the run have their defaults
    old, new = (pd.json_normalize(values).iloc[0].to_dict() for values in (before, config_to_dict(config)))
    changed = [key for key in new if json.dumps(old.get(key)) != json.dumps(new[key])]
    fixed = [
        key
        for key in changed
        if key.startswith(("decoder.", "encoder."))
        or key in {"data.image_size", "data.min_count", "train.seed", "train.batch_size"}
    ]
    if fixed:
        raise UserError(
            f"--resume: {', '.join(fixed)} differ from the run's; leave them or start a new run in another --output_dir"
        )
    if changed:
        print(f"resuming with changes: {', '.join(f'{key}={new[key]}' for key in changed)}")
    return checkpoint
