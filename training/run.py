"""A training run: its stages in order, and what is saved when."""

import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch.utils.data import DataLoader

from cli import UserError, atomic_open
from config import Config, StageConfig, config_to_dict
from data.captions import read_captions
from data.dataset import Batch
from data.vocab import Vocabulary
from models.captioner import Captioner
from training.engine import check_weights, train_one_epoch, validate
from training.interrupt import Interrupted, StopRequest
from training.loss_log import append_row, trim_log
from training.objectives import Objective, teacher_forcing
from training.optim import build_optimizer
from training.progress import Progress
from training.run_folder import (
    BEST,
    LAST,
    LOG,
    RESOLVED,
    find_resume,
    fingerprint,
    keep_previous,
    load_best,
    load_resume,
    sweep,
    take_over,
)
from training.self_critical import self_critical
from training.stage_data import StageData, prepare_data
from utils import peak_memory, pick_device, pick_precision, save_checkpoint, seed_everything


class Run:
    """One training run: its model, where it stands, and the files it keeps in ``output_dir``."""

    def __init__(self, config: Config, table: pd.DataFrame, checkpoint: dict[str, Any] | None) -> None:
        self.config, self.table = config, table
        self.folder = Path(config.output_dir)
        self.device = pick_device(config.device)
        self.dtype = pick_precision(config.train.precision, self.device)
        if self.dtype == torch.float16 and self.device.type == "cpu":
            raise UserError("train.precision fp16: no LSTM computes in it on a CPU. Use auto, bf16 or fp32")
        if config.train.precision == "fp32":
            torch.set_float32_matmul_precision("highest")  # asked for in so many words
        self.saved_at = time.monotonic()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.optimizer: torch.optim.Optimizer
        self.data: StageData
        self.objective: Objective
        self.batch: Batch | None = None  # the latest, to try the weights on
        self.training: dict[str, Any] | None = None  # of the checkpoint, until its stage is set up
        if checkpoint is None:
            seed_everything(config.train.seed)
            vocabulary = Vocabulary.build(table.loc[table["split"] == "train", "caption"], config.data.min_count)
            self.captioner = Captioner(config, vocabulary).to(self.device)
            self.progress = Progress()
        else:
            self.captioner = Captioner.from_checkpoint(checkpoint | {"config": config_to_dict(config)}).to(self.device)
            self.training = checkpoint["training"]
            self.progress = Progress(**self.training["progress"])
        self.averaged = self.captioner  # what is validated and saved; with train.ema a copy that follows

    def save_last(self) -> None:
        """checkpoints_last.pth: all that ``--resume`` needs to end where an uninterrupted run ends, to the bit.

        Raises:
            FloatingPointError: the weights have exploded; the file stays what it was.
        """
        if self.batch is not None:
            for captioner in (self.captioner, self.averaged):
                check_weights(captioner, self.batch)
        training = {
            "progress": asdict(self.progress),
            "model": self.captioner.state_dict(),  # tensors that the averaged model shares are stored once
            "optimizer": None if self.progress.stage == len(self.config.train.stages) else self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "data": fingerprint(self.table),
        }
        save_checkpoint(self.folder / LAST, self.averaged.checkpoint() | {"training": training})
        self.saved_at = time.monotonic()

    def save_best(self) -> None:
        """checkpoints.pth: what captions; best validation CIDEr so far."""
        scores = {"val_cider": self.progress.best_cider, "epoch": self.progress.best_epoch}
        save_checkpoint(self.folder / BEST, self.averaged.checkpoint() | {"scores": scores})

    def set_up_stage(self) -> None:
        """Optimizer and data of the stage that ``progress`` stands in; images that cannot be used show here."""
        stage = self.config.train.stages[self.progress.stage]
        self.optimizer = build_optimizer(self.captioner, stage, self.config.train.weight_decay)
        if self.config.train.ema > 0:
            shared = (
                {} if stage.encoder_lr > 0 else {id(self.captioner.encoder): self.captioner.encoder}
            )  # frozen: one will do
            self.averaged = copy.deepcopy(self.captioner, shared).eval()
            for module in self.averaged.modules():
                if isinstance(module, torch.nn.RNNBase):
                    module.flatten_parameters()  # a copy's weights lie apart; cuDNN would gather them at every step
        self.captioner.set_dropout(self.config.decoder.dropout if stage.dropout is None else stage.dropout)
        self.data = prepare_data(self.captioner, self.table, stage)
        if stage.samples:
            self.objective = self_critical(self.data.references, stage.samples, self.dtype)
        else:
            self.objective = teacher_forcing(stage, self.dtype)
        if self.training is None:
            return
        self.captioner.load_state_dict(
            self.training.get("model", self.captioner.state_dict())
        )  # the average was loaded from the checkpoint proper
        if self.training["optimizer"] is not None:  # a finished run to which a stage was added has none
            self.load_optimizer(stage, self.training["optimizer"])
        if self.training["scaler"]:
            self.scaler.load_state_dict(self.training["scaler"])
        torch.set_rng_state(self.training["rng"])  # after all that could draw a random number
        if self.training["cuda_rng"] and self.device.type == "cuda":
            torch.cuda.set_rng_state_all(self.training["cuda_rng"])
        self.training = None

    def load_optimizer(self, stage: StageConfig, state: dict[str, Any]) -> None:
        """Take the checkpoint's moments, but this run's rates, which may have changed."""
        fresh = [
            {"peak": group["peak"], "weight_decay": group["weight_decay"]} for group in self.optimizer.param_groups
        ]
        try:
            self.optimizer.load_state_dict(state)
        except ValueError as error:
            raise UserError(
                f"--resume: stage '{stage.name}' began with other layers learning; leave its encoder_lr and encoder_from as they were"
            ) from error
        for group, rates in zip(self.optimizer.param_groups, fresh, strict=True):
            group.update(rates)

    def learn(self) -> None:
        """All stages that are left, the first of them already set up."""
        stages = self.config.train.stages
        while self.progress.stage < len(stages):
            stage = stages[self.progress.stage]
            with StopRequest() as stop:
                while self.progress.epoch < stage.epochs and self.progress.epochs_without_better < stage.patience:
                    try:
                        self.epoch(stage, stop)
                    except FloatingPointError as error:
                        last = self.progress.stage == len(stages) - 1  # the one that the option changes
                        raise UserError(
                            f"{error}. Try a lower lr for stage '{stage.name}' ({'--train.stages.lr' if last else 'its lr in the YAML'}), "
                            "a longer warmup, or --train.precision fp32, and go on with --resume auto"
                        ) from error
            if self.progress.epochs_without_better >= stage.patience:
                print(f"stage {stage.name}: no better validation CIDEr for {stage.patience} epochs, stopped early")
            self.progress = Progress(
                stage=self.progress.stage + 1,
                total_epochs=self.progress.total_epochs,
                total_steps=self.progress.total_steps,
                best_cider=self.progress.best_cider,
                best_epoch=self.progress.best_epoch,
            )
            # the next stage starts from the best weights so far, not from those that learnt by heart after them
            best = (
                load_best(self.folder, self.progress.best_epoch, self.progress.best_cider) or self.averaged.state_dict()
            )
            self.captioner.load_state_dict(best)
            self.averaged.load_state_dict(best)  # what is saved now, and what a stage added later starts from
            if self.progress.stage < len(stages):
                if stop.wanted:
                    raise Interrupted
                self.set_up_stage()
            self.save_last()  # with the optimizer of the stage it names

    def epoch(self, stage: StageConfig, stop: StopRequest) -> None:
        """Train for the rest of an epoch, validate, and write checkpoints and log."""
        progress, data = self.progress, self.data

        def stoppable(batches: DataLoader[Any]) -> Iterator[Batch]:
            """What stands between two batches can be saved: a step is done, or a part of validation, which is repeated."""
            try:
                for batch in batches:
                    data.skip(batch.missing)
                    yield batch
                    self.batch = batch if batch.names else self.batch
                    if stop.wanted or time.monotonic() - self.saved_at > self.config.train.save_every:
                        self.save_last()
                    if stop.wanted:
                        raise Interrupted
            except RuntimeError:
                if not stop.wanted:
                    raise
                self.save_last()  # the loader's workers were told to end too, and were quicker
                raise Interrupted from None

        data.sampler.set_position(progress.total_epochs, progress.step)
        learnt = train_one_epoch(
            self.captioner, self.averaged, self.objective, stoppable(data.train), len(data.sampler), self.optimizer, self.scaler,
            stage, self.config.train, progress,
        )  # fmt: skip
        seen, captions = validate(self.averaged, stoppable(data.val), data.scorer)

        progress.epoch += 1
        progress.total_epochs += 1
        progress.step = progress.token_count = progress.image_count = 0
        progress.loss_sum = progress.seconds = 0.0
        better = seen["val_cider"] > progress.best_cider
        if seen["val_cider"] > progress.stage_best_cider:
            progress.stage_best_cider, progress.epochs_without_better = seen["val_cider"], 0
        else:
            progress.epochs_without_better += 1
            if progress.epochs_without_better % 2 == 0:
                progress.lr_scale *= 0.5
        if better:
            progress.best_cider, progress.best_epoch = seen["val_cider"], progress.total_epochs
            self.save_best()
        # the log before the last checkpoint: a row too many is trimmed on resuming, a missing one could not be made up
        append_row(
            self.folder / LOG,
            {"stage": stage.name, "epoch": progress.total_epochs, "step": progress.total_steps, **learnt, **seen},
        )
        self.save_last()
        report(progress, stage, learnt, seen, better)
        for name in list(captions)[:3]:
            print(f"    {name}: {captions[name]}")


def report(
    progress: Progress, stage: StageConfig, learnt: dict[str, float], seen: dict[str, float], better: bool
) -> None:
    """Print one line for an epoch."""
    left = learnt["seconds"] * (stage.epochs - progress.epoch) / 60
    learnt_by = f"reward {learnt['reward']:.3f}" if stage.samples else f"loss {learnt['train_loss']:.3f}"
    print(
        f"{stage.name} {progress.epoch}/{stage.epochs}  {learnt_by}  val {seen['val_loss']:.3f}  BLEU-4 {seen['val_bleu4']:.3f}  "
        f"CIDEr {seen['val_cider']:.3f}{' (best)' if better else ''}  distinct {seen['distinct']:.0%}  "
        f"{learnt['images_per_second']:.0f} img/s  {left:.0f} min of training left in this stage",
        flush=True,
    )


def run_stages(config: Config, wanted: str | None) -> None:
    """A whole run in ``output_dir``, which it has for itself; ``wanted`` is the value of ``--resume``."""
    folder = Path(config.output_dir)
    table = read_captions(config.data.captions_file, config.train.seed)
    resume = find_resume(wanted, folder)
    checkpoint = load_resume(resume, config, table) if resume else None
    run = Run(config, table, checkpoint)
    if checkpoint and run.progress.stage >= len(config.train.stages):
        left = [stage["name"] for stage in checkpoint["config"]["train"]["stages"][run.progress.stage :]]
        if left:
            print(
                f"nothing to do: the run of {resume} has still to learn {', '.join(left)}, but train.stages ends before. Put the stages back to go on"
            )
        else:
            print(
                f"nothing to do: the run of {resume} has finished all its stages. To train longer, add one, or start afresh without --resume"
            )
        return
    counts = table.groupby("split")["image"].nunique().to_dict()
    print(
        f"{counts} images, {len(run.captioner.vocabulary)} words, device {run.device}, {str(run.dtype).removeprefix('torch.')}"
    )
    run.set_up_stage()

    # what can be wrong with the input has shown by now: from here on files are moved and written
    sweep(folder)
    if resume:
        take_over(resume, folder, run.progress.total_epochs)
        trim_log(folder / LOG, run.progress.total_epochs)
        if load_best(folder, run.progress.best_epoch, run.progress.best_cider) is None:
            run.progress.best_cider, run.progress.best_epoch = (
                -1.0,
                0,
            )  # somebody took or replaced it: the best from here on
    else:
        keep_previous(folder)
    with atomic_open(folder / RESOLVED) as file:
        yaml.safe_dump(config_to_dict(config), file, sort_keys=False)
    try:
        run.learn()
    except Interrupted:
        print(
            f"stopped at step {run.progress.total_steps}. Go on with the same command and --resume auto",
            file=sys.stderr,
        )
        sys.exit(130)
    print(
        f"best: epoch {run.progress.best_epoch}, validation CIDEr {run.progress.best_cider:.3f}, in {folder / BEST}{peak_memory()}"
    )
