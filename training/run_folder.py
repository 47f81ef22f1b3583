"""The files in a run's output folder, and why a run that is killed at any moment can be resumed without a difference.

Every file but the log is written whole or not at all (``files.atomic_open``); a row of the log may be torn. The order:

1. A run starts. Files of an earlier run are moved to previous_runs/: nothing is ever deleted or overwritten. A resumed
   run from another place is copied in, its checkpoints_last.pth as the last file. Killed before that: the folder has no
   checkpoints_last.pth, ``--resume auto`` starts a new run, and the original is untouched.
2. Within an epoch, checkpoints_last.pth is replaced now and then. Killed: the steps after the last save are repeated,
   with the same batches and random numbers, so with the same result.
3. An epoch ends. First checkpoints.pth is written if the epoch is the best so far, then the row of loss_log.txt, then
   checkpoints_last.pth. Killed in between: the end of the epoch is repeated. A row that is already in the log is
   dropped when the run is resumed (``loss_log.trim_log``); in another order it could be missing for ever. A
   checkpoints.pth that is already written does not match the scores in checkpoints_last.pth (``load_best``): the run
   then has no best epoch, and the repeated epoch, which is better than all before, writes the file again.
4. A stage ends. The weights of checkpoints.pth are loaded, the next stage is set up, and only then is
   checkpoints_last.pth written, with the optimizer of the stage that it names. Killed before: the checkpoint is the one
   from the end of the last epoch, and the change of stage is repeated. After the last stage nothing is written: the
   checkpoint of its last epoch is also the point from which a longer stage, or one added later, continues.

Weights that have diverged are never written: a resumed run could only fail again.
"""

import contextlib
import shutil
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import torch
import yaml

from cli import say
from config import Config, config_to_dict
from distributed import ALONE, Processes
from files import atomic_open, lock_folder
from models.checkpoint import load_checkpoint, save_checkpoint
from training.loss_log import trim_log
from training.progress import Progress
from training.stage_setup import Stage, training_state

BEST, LAST, LOG, RESOLVED = "checkpoints.pth", "checkpoints_last.pth", "loss_log.txt", "resolved_config.yaml"
CURVES = "curves"  # folder of what --log_to writes; see training/loggers.py
LOCK = ".train.lock"
LOCK_WAIT = 15.0  # seconds: the loaders of a process that was killed hold its lock until they notice, within 5 s


def claim(folder: Path, processes: Processes = ALONE) -> contextlib.AbstractContextManager[None]:
    """``files.lock_folder`` for a run: a second one would move the first one's files away while they are written."""
    if not processes.is_first:
        return contextlib.nullcontext()
    return lock_folder(folder, LOCK, wait=LOCK_WAIT if processes.size > 1 else 0)


def prepare_folder(folder: Path, source: Path | None, config: Config, progress: Progress) -> None:
    """Make ``folder`` ready for a new run, or for the resumed run of the checkpoint ``source``; see step 1 above."""
    if source is None:
        keep_previous(folder)
    else:
        _copy_run(source, folder, progress.total_epochs)
        trim_log(folder / LOG, progress.total_epochs)
        if load_best(folder, progress) is None:
            progress.forget_best()
    with atomic_open(folder / RESOLVED) as file:
        yaml.safe_dump(config_to_dict(config), file, sort_keys=False)


def keep_previous(folder: Path) -> Path | None:
    """Move the files of an earlier run to a new folder below previous_runs/, and return it; None if there are none."""
    old = [folder / name for name in (BEST, LAST, LOG, RESOLVED, CURVES) if (folder / name).exists()]
    if all(path.name == RESOLVED for path in old):
        return None
    target = folder / "previous_runs" / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    target.mkdir(parents=True)
    for path in old:
        path.rename(target / path.name)
    how = f" (to continue it: --resume {target / LAST})" if (target / LAST).exists() else ""
    say(f"an earlier run's files were moved to {target}{how}")
    return target


def _copy_run(source: Path, folder: Path, epochs: int) -> None:
    """Copy the run of the checkpoint ``source``, of ``epochs`` epochs, into ``folder``, unless it is the one there.

    A best checkpoint of a later epoch was written after ``source``, and is not copied.
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


def load_best(folder: Path, progress: Progress) -> dict[str, torch.Tensor] | None:
    """The weights in checkpoints.pth if they are of the run's best epoch; None if the file was removed or replaced."""
    if not (folder / BEST).exists():
        return None
    checkpoint = load_checkpoint(folder / BEST)
    if checkpoint.get("scores") != _scores(progress):
        return None
    weights: dict[str, torch.Tensor] = checkpoint["model"]
    return weights


def _scores(progress: Progress) -> dict[str, float]:
    return {"val_cider": progress.best_cider, "epoch": progress.best_epoch}


class Saver:
    """Writes a run's checkpoints.

    Args:
        folder: the run's output folder.
        data: fingerprint of the captions and splits, see ``resume.fingerprint``.
        interval: seconds after which a save within an epoch is due (``train.save_every``).
    """

    def __init__(self, folder: Path, data: str, interval: float) -> None:
        self.folder, self.data, self.interval = folder, data, interval
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last save of checkpoints_last.pth is longer ago than ``interval``."""
        return time.monotonic() - self.saved_at > self.interval

    def save_last(self, stage: Stage, progress: Progress) -> None:
        """checkpoints_last.pth: everything that ``--resume`` needs to end bit-identical to an uninterrupted run.

        All processes call it, and the first one writes.
        """
        training = training_state(stage) | {"progress": asdict(progress), "data": self.data}
        if stage.processes.is_first:
            save_checkpoint(self.folder / LAST, stage.averaged.checkpoint() | {"training": training})
        self.saved_at = time.monotonic()

    def save_best(self, stage: Stage, progress: Progress) -> None:
        """checkpoints.pth: the weights of the best epoch so far, to generate captions with."""
        save_checkpoint(self.folder / BEST, stage.averaged.checkpoint() | {"scores": _scores(progress)})
