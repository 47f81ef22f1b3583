"""``--resume``: which checkpoint a run continues from, and what may have changed since."""

import hashlib
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cli import UserError, did_you_mean, in_run_folder, listed, similar
from config import Config, StageConfig, config_from_dict, config_to_dict
from models.checkpoint import load_checkpoint
from training.command import with_options
from training.loss_log import read_log
from training.progress import Progress
from training.run_folder import LAST, LOG, RESOLVED

# Options, or groups of them, that a resumed run must not change: they determine the weights' shapes, the images and
# vocabulary, the order of the batches, or (generate) the validation CIDEr by which epochs are compared.
FIXED = (
    *("data.image_size", "data.tokenizer", "data.min_count", "encoder", "decoder", "generate"),
    *("train.seed", "train.batch_size"),
)
ABSENT = object()  # in place of the value of an option that only the other config has


def find_resume(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint that ``--resume`` names; None to start a new run.

    Args:
        resume: a file, the folder of a run, or "auto": checkpoints_last.pth in ``folder`` if it exists.

    Raises:
        UserError: there is no such file.
    """
    if resume is None:
        return None
    path = folder / LAST if resume == "auto" else in_run_folder(Path(resume), LAST)
    if path.is_file():
        return path
    if resume != "auto":
        given = Path(resume)
        near = did_you_mean(f"--resume {each}" for each in _similar_folders(given)) if not given.exists() else ""
        auto = f"'--resume auto' continues from {folder / LAST} if it exists, else starts a new run"
        raise UserError(f"--resume {path}: no such file{f': {near}' if near else f'. {auto}'}")
    return None


def _similar_folders(folder: Path) -> list[Path]:
    """The folders of runs that a mistyped one may stand for."""
    runs = {path.parent.name: path.parent for path in folder.parent.glob(f"*/{LAST}")}
    return [runs[name] for name in similar(folder.name, list(runs))]


def fingerprint(table: pd.DataFrame) -> str:
    """Hash of images, captions and splits: a resumed run needs the data it started with."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


@dataclass(frozen=True)
class Resumed:
    """A run to continue."""

    checkpoint: dict[str, Any]
    progress: Progress  # among the stages of the config that it continues with
    changes: dict[str, str]  # option -> "old value -> new value"


def load_resume(path: Path, config: Config, data: str, argv: Sequence[str]) -> Resumed:
    """Read the checkpoint to resume from, and where its run stands among the stages of ``config``.

    Args:
        data: fingerprint of the captions file.
        argv: the command line of train.py, for the command that an error suggests.

    Raises:
        UserError: it is no training checkpoint, its log is damaged, or data or options changed that must not.
    """
    checkpoint = load_checkpoint(path)
    if "training" not in checkpoint:
        last = path.with_name(LAST)
        own = shlex.quote(str(last)) if last.is_file() else f"the {LAST} of its run"
        error = UserError(
            f"--resume {path}: holds no optimizer; this checkpoint can only generate captions. "
            f"Begin a new run with its weights (--init_from), or continue its own run: --resume {own}"
        )
        named = any("captions_file" in word for word in argv)  # else those of configs/finetune.yaml are looked for
        to_name = {} if named else {"captions_file": "CAPTIONS.csv", "image_dir": "FOLDER"}
        error.command = with_options(argv, {**to_name, "init_from": path}, without=("resume",))
        raise error
    before = config_from_dict(checkpoint["config"])  # options that are newer than the run have their defaults
    if checkpoint["training"].get("data") != data:
        if Path(before.data.captions_file).absolute() != Path(config.data.captions_file).absolute():
            raise _with_its_options(
                f"--resume: the run began with the captions file {before.data.captions_file}, not "
                f"{config.data.captions_file}. Name it again, with its images",
                path,
                argv,
                ("captions_file", "data.captions_file", "image_dir", "data.image_dir"),
            )
        raise UserError(
            f"--resume: {config.data.captions_file} has changed since the run began. "
            "Restore it, or start a new run in another --output_dir"
        )
    if (log := path.with_name(LOG)).exists():
        read_log(log)  # an error must show before any file is moved
    names = [stage.name for stage in before.train.stages]
    progress = Progress.from_dict(checkpoint["training"].get("progress"), names)
    _check_stages(progress, names, [stage.name for stage in config.train.stages])
    changes = _changes(before, config, progress)
    _check_options(before, config, changes, path, argv)
    if progress.stage is None and len(config.train.stages) > len(names):
        progress.stage = config.train.stages[len(names)].name
    return Resumed(checkpoint, progress, changes)


def _with_its_options(message: str, path: Path, argv: Sequence[str], without: Collection[str] = ()) -> UserError:
    """An error whose command resumes the run of the checkpoint ``path`` with the options that it began with.

    Args:
        argv: the command line of train.py, which stays in force.
        without: options to leave out of it.
    """
    error = UserError(message)
    resolved = path.with_name(RESOLVED)
    if resolved.is_file():
        error.command = with_options(argv, {"config": resolved}, without)
    return error


def how_to_continue(source: Path, progress: Progress, stage: StageConfig, argv: Sequence[str]) -> str:
    """Why the finished run of the checkpoint ``source`` has nothing to do, and the command with which it continues.

    Args:
        stage: the last one.
        argv: the command line of train.py.
    """
    if progress.stage is None:
        new = with_options(argv, {"init_from": source, "output_dir": "NEW_FOLDER"}, without=("resume",))
        return f"its run was finished by an earlier version. To train longer, begin a new run with its weights: {new}"
    options, reasons = dict[str, object](), []
    if progress.epoch >= stage.epochs:
        options["train.stages.epochs"] = progress.epoch + stage.epochs
        reasons.append(f"its {progress.epoch} epochs are done")
    if progress.stopped_early(stage):
        options["train.stages.patience"] = progress.epochs_without_better + stage.patience
        reasons.append(f"no better validation CIDEr for {progress.epochs_without_better} epochs")
    ended = f"its last stage '{stage.name}' has ended ({', '.join(reasons)})"
    return f"{ended}. To train longer: {with_options(argv, options)}"


def _check_stages(progress: Progress, before: list[str], now: list[str]) -> None:
    """Refuse if a stage that the run has begun is missing, renamed, or no longer in its place."""
    begun = before if progress.stage is None else before[: before.index(progress.stage) + 1]
    if now[: len(begun)] != begun:
        where = "has finished" if progress.stage is None else f"is in stage '{progress.stage}'. It has begun"
        raise UserError(
            f"--resume: the run {where} the stages {', '.join(begun)}, but train.stages is now {', '.join(now)}. "
            f"Let train.stages begin with {', '.join(begun)} again, or start a new run in another --output_dir"
        )


def _check_options(before: Config, now: Config, changes: dict[str, str], path: Path, argv: Sequence[str]) -> None:
    """Refuse changes of ``FIXED`` options."""
    if now.init_from != before.init_from:
        if now.init_from is None:
            missing = f"the run began with an option that is missing: --init_from {before.init_from}"
            raise _with_its_options(f"--resume: {missing}. Name it again", path, argv)
        began = f"the run began with --init_from {before.init_from}" if before.init_from else "the run began without it"
        raise UserError(
            f"--init_from {now.init_from or 'null'}: {began}. With --resume a run continues with its own weights: "
            "leave --init_from as it was; or start a new run, without --resume"
        )
    fixed = [name for name in changes if _is_fixed(name)]
    if fixed:
        differing = listed([f"{name} ({changes[name]})" for name in fixed])
        typed = [
            name
            for word in argv
            if _is_fixed(name := word.removeprefix("--").split("=")[0])
            or any(each.startswith(f"{name}.") for each in fixed)  # a section, such as --train '{seed: 3}'
        ]
        raise _with_its_options(
            f"--resume: these options cannot change within a run: {differing}. "
            "Leave them as they were, or start a new run in another --output_dir",
            path,
            argv,
            typed,
        )


def _is_fixed(name: str) -> bool:
    return any(name == key or name.startswith(f"{key}.") for key in FIXED)


def _changes(before: Config, now: Config, progress: Progress) -> dict[str, str]:
    """Option -> how it has changed; stages are compared by name and called by their number, as in a YAML file."""
    ended = _ended_stages(progress, now.train.stages)
    old, new = config_to_dict(before), config_to_dict(now)
    old_stages, new_stages = (
        {stage["name"]: (number, stage) for number, stage in enumerate(values["train"].pop("stages"))}
        for values in (old, new)
    )
    changes = dict(differences(old, new))
    for name in {**old_stages, **new_stages}:
        number, _ = new_stages.get(name) or old_stages[name]
        if name in old_stages and name in new_stages:
            note = " (no effect: the stage has ended)" if name in ended else ""
            of_stage = differences(old_stages[name][1], new_stages[name][1], f"train.stages[{number}]")
            changes |= {option: change + note for option, change in of_stage}
        else:
            changes[f"train.stages[{number}] ({name})"] = "added" if name in new_stages else "removed"
    return changes


def _ended_stages(progress: Progress, stages: Sequence[StageConfig]) -> set[str]:
    """The names of the stages that a resumed run does not train any more; of a finished run, maybe of added ones."""
    names = [stage.name for stage in stages]
    if progress.stage is None:
        return set(names)
    current = names.index(progress.stage)
    return set(names[: current + progress.stage_finished(stages[current])])


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(option, "old value -> new value", "added" or "removed") for each difference of nested dicts."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), f"{name}.{key}" if name else key)
    elif old is ABSENT or new is ABSENT:
        yield name, "added" if old is ABSENT else "removed"
    elif old != new:
        yield name, f"{old} -> {new}"
