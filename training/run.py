"""A training run from its options to its last file: read, set up or resume, train (engine.py), report."""

import sys
from pathlib import Path

import pandas as pd
import torch

from cli import UserError
from config import Config, config_to_dict
from data.captions import LearnedFrom, read_training_data
from data.vocab import Vocabulary
from models.captioner import Captioner
from training.engine import train
from training.interrupt import Interrupted
from training.progress import Progress
from training.resume import find_resume, fingerprint, load_resume
from training.run_folder import BEST, Saver, prepare_folder
from training.stage_setup import Stage, restore, set_up_stage
from utils import peak_memory, pick_precision, seed_everything, use_device


def run_training(config: Config, resume: str | None) -> None:
    """Train as ``config`` defines, in ``config.output_dir``, which the caller has claimed.

    Args:
        resume: the value of ``--resume``.

    Raises:
        UserError: something is wrong with options or input; before training starts, no file is changed.
        SystemExit: status 130 after Ctrl-C or SIGTERM.
    """
    folder = Path(config.output_dir)
    table, learned_from = read_training_data(config.data.captions_file, config.train.seed)
    data = fingerprint(table)
    source = find_resume(resume, folder)
    device = set_up_device(config)
    if source is None:
        begun: tuple[Stage, Progress] | None = start_run(config, table, learned_from, device)
    else:
        begun = resume_run(config, table, learned_from, device, source, data)
    if begun is None:
        print(f"nothing to do: the run of {source} has finished. To train longer, add a stage to train.stages")
        return
    stage, progress = begun
    prepare_folder(folder, source, config, progress)
    try:
        progress = train(stage, progress, table, Saver(folder, data, config.train.save_every))
    except Interrupted:
        print("stopped. Continue with the same command and --resume auto", file=sys.stderr)
        sys.exit(130)
    best = f"best: epoch {progress.best_epoch}, validation CIDEr {progress.best_cider:.3f}"
    print(f"{best}, in {folder / BEST}{peak_memory()}")


def set_up_device(config: Config) -> torch.device:
    """The device to train on, with the precision that ``config`` asks for.

    Raises:
        UserError: the device or the precision is not available.
    """
    device = use_device(config.device, exact=config.train.precision == "fp32")
    wanted, native = (pick_precision(name, device) for name in (config.train.precision, "auto"))
    if device.type == "cpu" and wanted not in (native, torch.float32):  # oneDNN has no LSTM for it
        raise UserError(f"train.precision {config.train.precision}: not supported by this CPU. Use auto or fp32")
    return device


def start_run(
    config: Config, table: pd.DataFrame, learned_from: LearnedFrom, device: torch.device
) -> tuple[Stage, Progress]:
    """A new run at its first step."""
    seed_everything(config.train.seed)
    vocabulary = Vocabulary.build(table.loc[table["split"] == "train", "caption"], config.data.min_count)
    captioner = Captioner(config, vocabulary, learned_from).to(device)
    _print_summary(captioner, table)
    first = config.train.stages[0]
    return set_up_stage(captioner, table, first), Progress(stage=first.name)


def resume_run(
    config: Config, table: pd.DataFrame, learned_from: LearnedFrom, device: torch.device, source: Path, data: str
) -> tuple[Stage, Progress] | None:
    """The run of the checkpoint ``source`` at its next step; None if all stages are finished.

    The checkpoint, which holds the model up to four times, is freed before training starts.
    """
    checkpoint, progress = load_resume(source, config, data)
    if progress.stage is None:
        return None
    now = {"config": config_to_dict(config), "learned_from": learned_from}
    captioner = Captioner.from_checkpoint(checkpoint | now).to(device)  # the EMA's weights
    _print_summary(captioner, table)
    stage = set_up_stage(captioner, table, next(s for s in config.train.stages if s.name == progress.stage))
    restore(stage, checkpoint["training"])
    return stage, progress


def _print_summary(captioner: Captioner, table: pd.DataFrame) -> None:
    images = table.groupby("split")["image"].nunique().to_dict()
    dtype = pick_precision(captioner.config.train.precision, captioner.device)
    words = f"{len(captioner.vocabulary)} words"
    print(f"{images} images, {words}, device {captioner.device}, {str(dtype).removeprefix('torch.')}")
