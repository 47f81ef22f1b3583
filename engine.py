"""Learning and validating: plain functions that take what they need and return a dict of numbers."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from config import StageConfig, TrainConfig
from data.dataset import Batch
from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID
from metrics import Scorer
from models.captioner import Captioner
from utils import autocast


@dataclass
class Progress:
    """Where a run stands; with the weights, the optimizer and the random state, all that resuming needs."""

    stage: int = 0  # index in train.stages
    epoch: int = 0  # finished epochs of this stage
    step: int = 0  # finished steps of this epoch
    total_epochs: int = 0  # finished epochs of the run
    total_steps: int = 0  # finished steps of the run
    best_cider: float = -1.0  # of the run: what checkpoints.pth holds
    best_epoch: int = 0
    stage_best_cider: float = -1.0  # of this stage, for early stopping and the plateau schedule
    epochs_without_better: int = 0
    lr_scale: float = 1.0  # what the plateau schedule has made of the learning rate
    loss_sum: float = 0.0  # of this epoch so far, over words; of a self-critical stage rewards, over sentences
    token_count: int = 0
    image_count: int = 0
    seconds: float = 0.0


@dataclass
class StepLoss:
    """What an objective makes of a batch."""

    loss: torch.Tensor  # to minimise
    shown: float  # what is logged: the mean over words of the cross-entropy, or over sentences of the reward
    count: int  # of words, or of sentences


Objective = Callable[[Captioner, Batch], StepLoss]


def caption_loss(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy per word; padding does not count.

    Args:
        logits: (B, K, T, V).
        targets: (B, K, T), the word after each input word.
        label_smoothing: share e of the target spread over all words (Szegedy et al. 2016, section 7).

    Returns:
        the loss to minimise, and the plain cross-entropy that train and validation are compared by.
    """
    real = targets != PAD_ID
    log_prob = logits[real].float().log_softmax(dim=-1)  # (M, V), M real words
    cross_entropy = -log_prob.gather(1, targets[real][:, None]).mean()
    if label_smoothing == 0:
        return cross_entropy, cross_entropy.detach()
    uniform = -log_prob.mean()
    return (1 - label_smoothing) * cross_entropy + label_smoothing * uniform, cross_entropy.detach()


def hide_words(tokens: torch.Tensor, share: float) -> torch.Tensor:
    """Turn a random ``share`` of the words in ``tokens`` into <unk>; <start>, <end> and padding stay (Bowman et al. 2016)."""
    special = (tokens == PAD_ID) | (tokens == START_ID) | (tokens == END_ID)
    return tokens.masked_fill((torch.rand(tokens.shape, device=tokens.device) < share) & ~special, UNK_ID)


def teacher_forcing(stage: StageConfig, dtype: torch.dtype) -> Objective:
    """The objective that makes people's captions likely: at each of their words, predict the next one."""

    def objective(captioner: Captioner, batch: Batch) -> StepLoss:
        tokens = batch.tokens.to(captioner.device, non_blocking=True)
        inputs, targets = tokens[..., :-1], tokens[..., 1:]
        if stage.word_dropout > 0:
            inputs = hide_words(inputs, stage.word_dropout)
        with autocast(captioner.device, dtype):
            logits = captioner(batch.visual.to(captioner.device, non_blocking=True), inputs)
        loss, cross_entropy = caption_loss(logits, targets, stage.label_smoothing)
        return StepLoss(loss, cross_entropy.item(), int((targets != PAD_ID).sum()))

    return objective


def build_optimizer(captioner: Captioner, stage: StageConfig, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) for one stage; freezes the encoder, or thaws it from ``stage.encoder_from`` on.

    Each group keeps its highest rate as ``peak``. Biases, norms and embeddings are not decayed: pulling them to zero helps nobody.
    """
    if stage.encoder_lr > 0:
        captioner.encoder.learn_from(stage.encoder_from)
    else:
        captioner.encoder.freeze()
    embeddings = {id(m.weight) for m in captioner.modules() if isinstance(m, nn.Embedding)}

    def groups(module: nn.Module, lr: float) -> list[dict[str, Any]]:
        learning = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in learning if p.dim() > 1 and id(p) not in embeddings]
        others = [p for p in learning if p.dim() <= 1 or id(p) in embeddings]
        return [
            {"params": params, "peak": lr, "lr": lr, "weight_decay": decay}
            for params, decay in ((matrices, weight_decay), (others, 0.0))
            if params
        ]

    return torch.optim.AdamW([*groups(captioner.decoder, stage.lr), *groups(captioner.encoder, stage.encoder_lr)], fused=True)


def lr_factor(stage: StageConfig, step: int, steps_per_epoch: int, lr_scale: float = 1.0) -> float:
    """Share of the peak learning rate at ``step`` (0, 1, ...) of a stage: linear warm-up, then cosine to 1 %, or flat times ``lr_scale``."""
    total = stage.epochs * steps_per_epoch
    warmup = max(1, round(stage.warmup * total))
    if step < warmup:
        return (step + 1) / warmup
    if stage.schedule == "plateau":
        return lr_scale
    share = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def update_average(averaged: Captioner, captioner: Captioner, decay: float, step: int) -> None:
    """Move ``averaged`` towards ``captioner`` after training step ``step`` (1, 2, ...): an exponential moving average of the weights.

    It makes about the same of noise as a far smaller learning rate (Polyak and Juditsky 1992). While steps are few it is short,
    or it would remember the random start. Batch-norm statistics are copied: they are running means of what the weights of late did.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for mean, weight in zip(averaged.parameters(), captioner.parameters(), strict=True):
        if weight.requires_grad:
            mean.lerp_(weight, 1 - decay)
    for kept, buffer in zip(averaged.buffers(), captioner.buffers(), strict=True):
        kept.copy_(buffer)


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
    bar = tqdm(batches, desc=f"epoch {progress.total_epochs + 1}", total=steps_per_epoch, initial=progress.step, leave=False, disable=None)
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
        norm = nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], settings.grad_clip)
        if not scaler.is_enabled():  # with fp16 an overflow is normal: the scaler skips that step and lowers its scale
            _check_finite(norm.item(), "gradient", where)
        scaler.step(optimizer)
        scaler.update()

        progress.loss_sum += step.shown * step.count
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
    """What captioning would see of ``Batch.visual``."""
    if visual.dim() == 4:
        return captioner.encode(visual, mirror=captioner.config.generate.mirror)
    return visual.to(captioner.device)


@torch.no_grad()
def check_weights(captioner: Captioner, batch: Batch) -> None:
    """See that ``captioner`` says numbers of a few images, as it will have to in validation; changes nothing, draws nothing at random.

    Raises:
        FloatingPointError: it does not. Training steps only check the weights before them, and saved ones would never learn again.
    """
    was_learning = captioner.training
    captioner.eval()
    logits = captioner(_features(captioner, batch.visual[:4]), batch.tokens[:4, :, :-1].to(captioner.device))
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
        tokens = batch.tokens.to(captioner.device)
        features = _features(captioner, batch.visual)
        _, cross_entropy = caption_loss(captioner(features, tokens[..., :-1]), tokens[..., 1:])
        _check_finite(cross_entropy.item(), "loss", "in validation, before these weights were saved")
        count = int((tokens[..., 1:] != PAD_ID).sum())
        loss_sum, words = loss_sum + cross_entropy.item() * count, words + count
        best = [candidates[0].caption for candidates in captioner.caption_features(features)]
        captions |= dict(zip(batch.names, best, strict=True))
    scores = scorer.score(captions, all_metrics=False)
    numbers = {
        "val_loss": loss_sum / max(1, words),
        "val_bleu4": scores["BLEU-4"],
        "val_cider": scores["CIDEr"],
        "distinct": len(set(captions.values())) / len(captions),
    }
    return numbers, captions
