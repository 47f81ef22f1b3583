"""Learning and validating: plain functions that take what they need and return a dict of numbers."""

import math
import time
from collections.abc import Iterable

import torch
from torch import nn
from tqdm import tqdm

from config import StageConfig, TrainConfig
from data.dataset import Batch
from evaluation.metrics import Scorer
from models.captioner import Captioner
from training.objectives import Objective, caption_loss
from training.optim import lr_factor, update_average
from training.progress import Progress


def train_one_epoch(
    captioner: Captioner,
    averaged: Captioner,
    objective: Objective,
    batches: Iterable[Batch],
    steps_per_epoch: int,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    stage: StageConfig,
    settings: TrainConfig,
    progress: Progress,
) -> dict[str, float]:
    """One pass over ``batches``, the rest of an epoch after ``progress.step`` steps; keeps ``progress`` up to date, and the
    average of the weights in ``averaged`` (``captioner`` itself: none is kept).

    Returns:
        train_loss (cross-entropy per word), or reward (of a drawn sentence) where the objective is self-critical, the other one NaN; lr, seconds, images_per_second of the whole epoch.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; the weights are still those before that step.
    """
    captioner.train()
    bar = tqdm(
        batches,
        desc=f"epoch {progress.total_epochs + 1}",
        total=steps_per_epoch,
        initial=progress.step,
        leave=False,
        disable=None,
    )
    shown = "reward" if stage.samples else "loss"
    began = time.perf_counter()
    for batch in bar:
        if len(batch.names) < 2:  # the others could not be read, and batch normalisation cannot learn from one image
            progress.step += 1
            continue
        factor = lr_factor(stage, progress.epoch * steps_per_epoch + progress.step, steps_per_epoch, progress.lr_scale)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        where = f"at epoch {progress.total_epochs + 1}, step {progress.step + 1}, before the weights were changed"
        try:
            step = objective(captioner, batch)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; stopped {where}") from error
        _check_finite(step.loss.item(), "loss", where)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(step.loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], settings.grad_clip
        )
        if not scaler.is_enabled():  # with fp16 an overflow is normal: the scaler skips that step and lowers its scale
            _check_finite(norm.item(), "gradient", where)
        scaler.step(optimizer)
        scaler.update()

        progress.loss_sum += step.shown.item() * step.count
        progress.token_count += step.count
        progress.image_count += len(batch.names)
        progress.step += 1
        progress.total_steps += 1
        if averaged is not captioner:
            update_average(averaged, captioner, settings.ema, progress.total_steps)
        progress.seconds, began = progress.seconds + time.perf_counter() - began, time.perf_counter()
        bar.set_postfix({shown: f"{progress.loss_sum / progress.token_count:.3f}"}, refresh=False)
    mean = progress.loss_sum / max(1, progress.token_count)
    return {
        "train_loss": math.nan if stage.samples else mean,
        "reward": mean if stage.samples else math.nan,
        "lr": optimizer.param_groups[0]["lr"],
        "seconds": progress.seconds,
        "images_per_second": progress.image_count / max(1e-9, progress.seconds),
    }


def _check_finite(value: float, what: str, where: str) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(f"the {what} became {value}; stopped {where}")


def _features(captioner: Captioner, visual: torch.Tensor) -> torch.Tensor:
    """What captioning would read of ``Batch.visual``."""
    return captioner.encode(visual, mirror=captioner.config.generate.mirror) if visual.dim() == 4 else visual


@torch.no_grad()
def check_weights(captioner: Captioner, batch: Batch) -> None:
    """See that ``captioner`` says numbers of a few images, as it will have to in validation; changes nothing, draws nothing at random.

    Raises:
        FloatingPointError: it does not. Training steps only check the weights before them, and saved ones would never learn again.
    """
    was_learning = captioner.training
    captioner.eval()
    logits = captioner(_features(captioner, batch.visual), batch.captions)
    captioner.train(was_learning)
    if not logits.float().log_softmax(dim=-1).isfinite().all():
        raise FloatingPointError("the logits became inf or nan; stopped before these weights were saved")


@torch.no_grad()
def validate(captioner: Captioner, batches: Iterable[Batch], scorer: Scorer) -> tuple[dict[str, float], dict[str, str]]:
    """Score by really generating, one caption an image; the loss alone is teacher-forced.

    Returns:
        val_loss (cross-entropy per word), val_bleu4, val_cider, distinct (share of different captions); and the captions by image.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    captioner.eval()
    loss_sum, words, captions = 0.0, 0, dict[str, str]()
    for batch in tqdm(batches, desc="validating", leave=False, disable=None):
        packed = batch.captions.to(captioner.device)
        features = _features(captioner, batch.visual)
        _, cross_entropy = caption_loss(captioner(features, packed), packed.targets)
        _check_finite(cross_entropy.item(), "loss", "in validation, before these weights were saved")
        loss_sum, words = loss_sum + cross_entropy.item() * packed.count, words + packed.count
        best = [candidates[0].caption for candidates in captioner.generate(features)]
        captions |= dict(zip(batch.names, best, strict=True))
    scores = scorer.score(captions, all_metrics=False)
    numbers = {
        "val_loss": loss_sum / max(1, words),
        "val_bleu4": scores["BLEU-4"],
        "val_cider": scores["CIDEr"],
        "distinct": len(set(captions.values())) / len(captions),
    }
    return numbers, captions
