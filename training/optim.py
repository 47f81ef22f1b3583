"""The optimizer, its learning rate, and the moving average of the weights."""

import math
from typing import Any

import torch
from torch import nn

from config import StageConfig
from models.captioner import Captioner


def build_optimizer(captioner: Captioner, stage: StageConfig, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) for one stage; freezes the encoder, or thaws it from ``stage.encoder_from`` on.

    Each group keeps its highest rate as ``peak``. Biases, norms and embeddings are not decayed: pulling them to zero helps nobody.
    """
    if stage.encoder_lr > 0:
        captioner.encoder.learn_from(stage.encoder_from)
    else:
        captioner.encoder.learn_from(None)
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

    return torch.optim.AdamW(
        [*groups(captioner.decoder, stage.lr), *groups(captioner.encoder, stage.encoder_lr)], fused=True
    )


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
