"""A training run from its options to its last file: read, set up or resume, train (engine.py), report."""

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cli import UserError, note, say
from config import Config, config_to_dict
from data.bad_images import check_image_dir
from data.captions import captions_source, read_training_data
from data.images import LearnedFrom
from data.tokenizer import TOKENIZERS
from data.vocab import Vocabulary
from distributed import ALONE, Processes
from models.captioner import Captioner
from training.batchnorm import share_batchnorm
from training.command import with_options
from training.engine import DivergedError, train
from training.initial import initial_captioner
from training.interrupt import Interrupted
from training.loggers import curves
from training.optim import absurd_rates, lr_factor
from training.progress import Progress
from training.resume import Resumed, find_resume, fingerprint, how_to_continue, load_resume
from training.run_folder import BEST, LAST, Saver, prepare_folder
from training.stage_setup import Stage, restore, set_up_stage
from utils import peak_memory, pick_precision, seed_everything, use_device

NAMES = {"train": "for training", "val": "for validation", "test": "for tests"}  # of the splits
STARTED = "the output folder holds this run"  # and no earlier one
LONG_SHARE = 0.05  # of the training captions may be longer than generate.max_length


def run_training(
    config: Config, resume: str | None, argv: Sequence[str], processes: Processes = ALONE, logger: str | None = None
) -> None:
    """Train as ``config`` defines, in ``config.output_dir``, which the caller has claimed.

    Args:
        resume: the value of ``--resume``.
        argv: the command line, for the commands that messages suggest.
        processes: those that train together; the first one writes the files.
        logger: the value of ``--log_to``.

    Raises:
        UserError: something is wrong with options or input; before training starts, no file is changed.
        SystemExit: status 130 after Ctrl-C or SIGTERM.
    """
    folder = Path(config.output_dir)
    table, learned_from = read_training_data(captions_source(config.data), config.train.seed)
    check_image_dir(config.data.image_dir)
    data = fingerprint(table)
    processes.check_equal(data, f"{config.data.captions_file} is")
    processes.check_equal(config_to_dict(config), "The options, or the config file, are")
    if processes.remembers(STARTED):  # torchrun has started it again
        resume = "auto"
    source = processes.broadcast(find_resume(resume, folder) if processes.is_first else None)
    if resume and source is None:
        say(f"--resume auto: no {LAST} in {folder}, starting a new run")
    device = use_device(processes.device_name(config.device), config.train.precision)
    for warning in absurd_rates(config.train.stages):
        note(f"warning: {warning}")
    with processes.first_of_machine_first():
        TOKENIZERS[config.data.tokenizer].keep(table["caption"].tolist(), Path(config.data.feature_cache))
    if source is None:
        stage, progress = start_run(config, table, learned_from, device, processes)
    else:
        resumed = load_resume(source, config, data, argv)
        if resumed.progress.run_finished(config.train.stages):
            last = config.train.stages[-1]
            say(f"nothing to do for {source}: {how_to_continue(source, resumed.progress, last, argv)}")
            return
        stage, progress = resume_run(config, table, learned_from, device, resumed, processes)
        del resumed  # the checkpoint holds the model up to four times
    if processes.is_first:
        prepare_folder(folder, source, config, progress)
        processes.remember(STARTED)
    progress = processes.broadcast(progress)  # without a best epoch where its checkpoint is gone
    logger = logger if processes.is_first else None
    with telling_how_to_continue(config, argv), curves(logger, folder, config_to_dict(config)) as update:
        progress = train(stage, progress, table, Saver(folder, data, config.train.save_every), update)
    best = f"best: epoch {progress.best_epoch}, validation CIDEr {100 * progress.best_cider:.1f}"
    say(f"{best}, in {folder / BEST}{peak_memory()}")


@contextmanager
def telling_how_to_continue(config: Config, argv: Sequence[str]) -> Iterator[None]:
    """Note the command that continues the run if it is stopped or fails.

    Raises:
        SystemExit: status 130 after Ctrl-C or SIGTERM.
    """
    command = with_options(argv, {"resume": "auto"})
    try:
        yield
    except Interrupted:
        note(f"stopped. Continue with: {command}")
        sys.exit(130)
    except (UserError, OSError) as error:
        last = config.train.stages[-1]
        if isinstance(error, DivergedError) and error.stage == last.name:  # the same command would diverge again
            error.command = with_options(argv, {"train.stages.lr": f"{last.lr / 10:.1g}", "resume": "auto"})
        else:  # not in the error's line, whose length is limited: the command must stay whole
            note(f"stopped by the error below. When it is mended, continue with: {command}")
        raise


def start_run(
    config: Config, table: pd.DataFrame, learned_from: LearnedFrom, device: torch.device, processes: Processes
) -> tuple[Stage, Progress]:
    """A new run at its first step."""
    seed_everything(config.train.seed)
    captions = table.loc[table["split"] == "train", "caption"].tolist()
    if config.init_from is None:
        vocabulary = Vocabulary.build(captions, config.data.min_count, TOKENIZERS[config.data.tokenizer])
        captioner = Captioner(config, vocabulary, learned_from)
    else:
        captioner = initial_captioner(config, captions, learned_from)
    captioner = share_weights(captioner.to(device), processes)
    processes.own_random_numbers(config.train.seed)
    _warn_of_length(captioner.vocabulary, captions, config.generate.max_length)
    _print_summary(captioner, table, processes)
    first = config.train.stages[0]
    return set_up_stage(captioner, table, first, processes), Progress(stage=first.name)


def resume_run(
    config: Config,
    table: pd.DataFrame,
    learned_from: LearnedFrom,
    device: torch.device,
    resumed: Resumed,
    processes: Processes,
) -> tuple[Stage, Progress]:
    """The resumed run at its next step."""
    checkpoint, progress = resumed.checkpoint, resumed.progress
    if resumed.changes:
        say("resuming with changes:", *(f"    {name}: {new}" for name, new in resumed.changes.items()))
    now = {"config": config_to_dict(config), "learned_from": learned_from}
    captioner = share_weights(Captioner.from_checkpoint(checkpoint | now).to(device), processes)  # the EMA's weights
    _print_summary(captioner, table, processes)
    number, current = next((n, s) for n, s in enumerate(config.train.stages) if s.name == progress.stage)
    stage = set_up_stage(captioner, table, current, processes)
    restore(stage, checkpoint["training"])
    _warn_of_threads(checkpoint["training"].get("threads"))
    if f"train.stages[{number}].epochs" in resumed.changes and current.schedule == "cosine":
        steps = stage.data.steps_per_epoch
        rate = current.lr * lr_factor(current, progress.epoch * steps + progress.step, steps)
        schedule = f"its schedule is now that of {current.epochs} epochs"
        say(f"stage {current.name}: {schedule}, and the learning rate continues at {rate:.2g}")
    return stage, progress


def _warn_of_threads(before: Any) -> None:
    """Sums over more or fewer threads are rounded differently. Older checkpoints do not record them."""
    now = torch.get_num_threads()
    if type(before) is int and before != now:
        note(
            f"warning: resumed with {now} CPU threads instead of {before}, so the result may differ in its last bits "
            f"from that of an uninterrupted run. For the same bits, set OMP_NUM_THREADS={before}"
        )


def _warn_of_length(vocabulary: Vocabulary, captions: Collection[str], longest: int) -> None:
    """Generated captions would be cut off, which no loss shows; characters are more tokens than words."""
    longer = int((vocabulary.tokenizer.tokenize_all(captions).lengths > longest).sum())
    if longer > LONG_SHARE * len(captions):
        note(
            f"warning: {longer / len(captions):.0%} of the training captions have more than {longest} "
            f"{vocabulary.tokenizer.name}, where generated ones are cut off. Raise --generate.max_length"
        )


def share_weights(captioner: Captioner, processes: Processes) -> Captioner:
    """The captioner, with the weights of the first process and statistics of batch normalization over all of them."""
    if processes.size > 1:
        share_batchnorm(captioner)
        processes.make_equal(captioner)
    return captioner


def _print_summary(captioner: Captioner, table: pd.DataFrame, processes: Processes) -> None:
    counts = table.groupby("split")["image"].nunique()
    images = ", ".join(f"{counts[split]} {name}" for split, name in NAMES.items() if split in counts)
    dtype = pick_precision(captioner.config.train.precision, captioner.device)
    words = f"{len(captioner.vocabulary)} {captioner.vocabulary.tokenizer.name}"
    devices = f"device {captioner.device}" if processes.size == 1 else f"{processes.size} x {captioner.device.type}"
    say(f"images: {images}; {words}, {devices}, {str(dtype).removeprefix('torch.')}")
