"""The training loop, from top to bottom: stages -> epochs -> steps, then validation, checkpoints and the log.

``train`` runs the stages, ``train_and_validate`` an epoch of one, ``train_one_epoch`` its steps. What a stage consists
of is in stage_setup.py, the rules that end it in progress.py, the order in which files are written in run_folder.py.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from cli import UserError, say
from data.dataset import Batch
from models.checkpoint_schema import misfits
from training.batchnorm import set_copies
from training.interrupt import Interrupted, StoppableBatches, StopRequest
from training.loss_log import append_row
from training.objectives import StepLoss
from training.optim import lr_factor
from training.progress import Progress
from training.run_folder import LOG, Saver, load_best
from training.stage_setup import Stage, set_up_stage
from training.validation import check_finite, predicts_finite, validate

USUAL_TOKENS = 50  # of an image's captions, about: the sum over a batch, divided by these, is about the mean


class DivergedError(UserError):
    """Training has diverged: it cannot go on with the same options.

    Args:
        stage: the name of the stage in which it did.
    """

    def __init__(self, message: str, stage: str | None) -> None:
        super().__init__(message)
        self.stage = stage


def train(
    stage: Stage, progress: Progress, table: pd.DataFrame, saver: Saver, after_epoch: Callable[[], None] = lambda: None
) -> Progress:
    """Train ``stage``, which is already set up, and all stages after it; call ``after_epoch`` when an epoch is saved.

    Returns:
        the progress of the finished run.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; the run can be resumed.
        UserError: training diverged, or too many images have become unreadable.
    """
    stages = stage.captioner.config.train.stages
    while True:
        with StopRequest(stage.processes) as stop:
            while not progress.stage_finished(stage.config):
                train_and_validate(stage, progress, saver, stop)
                after_epoch()
        if progress.stopped_early(stage.config):
            say(f"stage {progress.stage}: no better validation CIDEr for {stage.config.patience} epochs, stopped early")
        following = progress.next_stage(stages)
        if following is None:
            return progress
        progress = following
        # The next stage, even one that is added later, starts from the best weights so far: the last ones may overfit.
        best = load_best(saver.folder, progress) if stage.processes.is_first else None
        if best is None or misfits(best, stage.captioner.state_dict()):
            best = stage.averaged.state_dict()
        stage.captioner.load_state_dict(best)
        stage.processes.make_equal(stage.captioner)
        if stop.wanted_by_any():
            raise Interrupted
        following_stage = next(s for s in stages if s.name == progress.stage)
        stage = set_up_stage(stage.captioner, table, following_stage, stage.processes)
        saver.save_last(stage, progress)


def train_and_validate(stage: Stage, progress: Progress, saver: Saver, stop: StopRequest) -> None:
    """Train for the rest of an epoch, validate, and write checkpoints and log in the order that run_folder.py explains.

    Raises:
        Interrupted: as ``stop`` wants; the state is saved.
        UserError: training diverged.
    """
    save = partial(save_unless_diverged, stage, progress, saver)
    try:
        train_batches = stage.data.train_batches(progress.total_epochs, progress.step)
        trained = train_one_epoch(stage, StoppableBatches(train_batches, stop, saver.is_due, save), progress)
        val_batches = StoppableBatches(stage.data.val_batches(), stop, saver.is_due, save)
        validated, captions = validate(stage.averaged, val_batches, stage.data.scorer, stage.processes)
        better = progress.end_epoch(validated["val_cider"], stage.config)
        if stage.processes.is_first:
            if better:
                saver.save_best(stage, progress)
            row = {
                "stage": progress.stage,
                "epoch": progress.total_epochs,
                "step": progress.total_steps,
                **trained,
                **validated,
            }
            append_row(saver.folder / LOG, row)
        save(val_batches.last)
    except FloatingPointError as error:
        is_last = stage.config == stage.captioner.config.train.stages[-1]
        option = "--train.stages.lr" if is_last else "its lr in the YAML"
        raise DivergedError(
            f"{error}. Try a lower lr for stage '{progress.stage}' ({option}), a longer warmup, "
            "or --train.precision fp32",
            progress.stage,
        ) from error
    report(stage, progress, trained, validated, better)
    for name in list(captions)[:3]:
        say(f"    {name}: {captions[name]}")


def train_one_epoch(stage: Stage, batches: Iterable[Batch], progress: Progress) -> dict[str, float]:
    """Train on ``batches``, the rest of an epoch after ``progress.step`` steps; update ``progress`` and the EMA.

    Returns:
        train_loss (cross-entropy per word), NaN in a self-critical stage; reward (per sampled caption), NaN elsewhere;
        lr of the decoder in the last step; grad_norm, the mean norm of the gradient before clipping; seconds and
        images_per_second of the whole epoch.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; the weights are still those before that step.
    """
    stage.captioner.train()
    steps = stage.data.steps_per_epoch
    epoch = progress.total_epochs + 1
    shown = "reward" if stage.config.samples else "loss"
    start = time.perf_counter()
    bar = tqdm(batches, desc=f"epoch {epoch}", total=steps, initial=progress.step, leave=False, disable=None)
    for batch in bar:
        (images,) = stage.processes.gather_numbers(len(batch.names))
        # Other images could not be read. Batch normalization cannot train on one image, and a process not on none.
        if sum(images) < 2 or min(images) == 0:
            progress.step += 1
            continue
        copies = stage.data.sampler.copies(progress.step)
        factor = lr_factor(stage.config, progress.epoch * steps + progress.step, steps, progress.lr_scale)
        try:
            value, count, norm = train_step(stage, batch, factor, images, copies)
        except FloatingPointError as error:
            where = f"at epoch {epoch}, step {progress.step + 1}, before the weights were changed"
            raise FloatingPointError(f"{error}; stopped {where}") from error
        now = time.perf_counter()
        progress.end_step(value, count // copies, sum(images) // copies, norm, now - start)
        start = now
        if stage.ema is not None:
            stage.ema.update(progress.total_steps)
        mean = progress.loss_sum / progress.token_count
        bar.set_postfix({shown: f"{100 * mean:.1f}" if stage.config.samples else f"{mean:.3f}"}, refresh=False)
    mean = progress.loss_sum / max(1, progress.token_count)
    return {
        "train_loss": math.nan if stage.config.samples else mean,
        "reward": mean if stage.config.samples else math.nan,
        "lr": stage.optimizer.param_groups[0]["lr"],
        "grad_norm": progress.norm_sum / max(1, progress.norm_count),
        "seconds": progress.seconds,
        "images_per_second": progress.image_count / max(1e-9, progress.seconds),
    }


def train_step(
    stage: Stage, batch: Batch, factor: float, images: Sequence[int], copies: int = 1
) -> tuple[float, int, float]:
    """Update the weights once, at ``factor`` times the peak learning rates.

    Args:
        batch: this process's share.
        images: the number of images in every process's share.
        copies: how many processes compute the whole batch, instead of their share of it.

    Returns:
        what the objective shows (a mean), the number of words or captions it is the mean of, and the gradient norm.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; the weights are unchanged.
    """
    for group in stage.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    parameters = [p for group in stage.optimizer.param_groups for p in group["params"]]
    # Every process computes as many pieces, and batch normalization needs two images.
    most = min(images) // (2 if stage.processes.size in (1, copies) else 1)
    if stage.processes.size > 1:
        set_copies(stage.captioner, copies)
    step = compute_gradients(stage, batch.split(max(1, min(stage.captioner.config.train.accumulate, most))), parameters)
    stage.scaler.unscale_(stage.optimizer)
    gradient = nn.utils.clip_grad_norm_(parameters, stage.captioner.config.train.grad_clip)
    # The one place at which the CPU waits for the GPU, in a step with cross-entropy in fp32 or bf16:
    loss, shown, norm = torch.stack([step.loss, step.shown.to(gradient.device), gradient]).tolist()
    check_finite(loss, "loss")
    if not stage.scaler.is_enabled():  # in fp16 overflow is normal: the scaler skips the step and lowers its scale
        check_finite(norm, "gradient")
    stage.scaler.step(stage.optimizer)
    stage.scaler.update()
    return shown, step.count, norm


def compute_gradients(stage: Stage, pieces: Sequence[Batch], parameters: Sequence[nn.Parameter]) -> StepLoss:
    """Leave the gradients of one batch, computed in pieces and by all processes, in ``parameters``; return its loss.

    The parts of a batch have different numbers of words, so their means have no common mean: what is added up is the
    sums, which are then divided by the number of words of all parts.
    """
    stage.optimizer.zero_grad(set_to_none=True)
    divided = stage.processes.size > 1 or len(pieces) > 1
    unit = stage.captioner.config.train.batch_size * USUAL_TOKENS  # keeps gradients small enough for fp16
    sums, terms, count = [], 0, 0
    for piece in pieces:
        step = stage.objective(stage.captioner, piece)
        scaled: torch.Tensor = stage.scaler.scale(step.loss * (step.terms / unit) if divided else step.loss)
        torch.autograd.backward(scaled)
        if not divided:
            return replace(step, loss=step.loss.detach())
        loss = step.loss.detach()
        sums.append(torch.stack([loss * step.terms, step.shown.to(loss) * step.count]))
        terms, count = terms + step.terms, count + step.count
    terms, count = (sum(each) for each in stage.processes.gather_numbers(terms, count))
    loss, shown = stage.processes.sum_gradients(parameters, torch.stack(sums).sum(dim=0))
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= terms / unit
    return StepLoss(loss / terms, terms, shown / count, count)


def save_unless_diverged(stage: Stage, progress: Progress, saver: Saver, batch: Batch | None) -> None:
    """Write checkpoints_last.pth, after trying the weights on ``batch``.

    Raises:
        FloatingPointError: the weights have diverged; the file is unchanged.
    """
    models = {id(model): model for model in (stage.captioner, stage.averaged)}.values()  # one where there is no EMA
    diverged = batch is not None and not all(predicts_finite(model, batch) for model in models)
    if stage.processes.any(diverged)[0]:
        raise FloatingPointError("the logits became inf or nan; stopped before these weights were saved")
    saver.save_last(stage, progress)


def report(
    stage: Stage, progress: Progress, trained: dict[str, float], validated: dict[str, float], better: bool
) -> None:
    """Print one line about an epoch: scores times 100, as in tables; loss_log.txt keeps fractions."""
    left = trained["seconds"] * (stage.config.epochs - progress.epoch)
    shown = f"reward {100 * trained['reward']:.1f}" if stage.config.samples else f"loss {trained['train_loss']:.3f}"
    say(
        f"{progress.stage} {progress.epoch}/{stage.config.epochs}  {shown}  val {validated['val_loss']:.3f}  "
        f"BLEU-4 {100 * validated['val_bleu4']:.1f}  CIDEr {100 * validated['val_cider']:.1f}"
        f"{' (best)' if better else ''}  "
        f"distinct {validated['distinct']:.0%}  {trained['images_per_second']:.0f} img/s"
        f"{f'  {duration(left)} of training left in this stage' if left else ''}"
    )


def duration(seconds: float) -> str:
    """A time to wait: "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
