"""The optimizer, its learning rate schedule, and the exponential moving average (EMA) of the weights."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from config import StageConfig
from models.captioner import Captioner

HIGHEST_RATE = 0.1  # learning rate above which training cannot succeed

averaging: Callable[[float], Callable[..., None]] = get_ema_multi_avg_fn  # which torch leaves untyped


def build_optimizer(captioner: Captioner, stage: StageConfig, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) for one stage; freezes the encoder, or its stages before ``encoder_from``.

    Each parameter group keeps its peak learning rate as ``peak``. Weight decay is for matrices; on biases,
    normalization layers and embeddings it does not help.
    """
    if stage.encoder_lr > 0:
        captioner.encoder.learn_from(stage.encoder_from)
    else:
        captioner.encoder.learn_from(None)
    embeddings = {id(m.weight) for m in captioner.modules() if isinstance(m, nn.Embedding)}

    def groups(module: nn.Module, lr: float) -> list[dict[str, Any]]:
        trained = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.dim() > 1 and id(p) not in embeddings]
        others = [p for p in trained if p.dim() <= 1 or id(p) in embeddings]
        return [
            {"params": params, "peak": lr, "lr": lr, "weight_decay": decay}
            for params, decay in ((matrices, weight_decay), (others, 0.0))
            if params
        ]

    return torch.optim.AdamW(
        [*groups(captioner.decoder, stage.lr), *groups(captioner.encoder, stage.encoder_lr)], fused=True
    )


def absurd_rates(stages: Sequence[StageConfig]) -> list[str]:
    """What is wrong with learning rates that no network here can be trained with; an empty list if nothing is."""
    rates = [(stage.name, option, getattr(stage, option)) for stage in stages for option in ("lr", "encoder_lr")]
    return [
        f"stage {name}: {option} {rate:g} is far too high: AdamW moves every weight by about that much in each step. "
        "The captions will be useless; usual values are 1e-5 to 5e-3"
        for name, option, rate in rates
        if rate > HIGHEST_RATE
    ]


def lr_factor(stage: StageConfig, step: int, steps_per_epoch: int, lr_scale: float = 1.0) -> float:
    """Fraction of the peak learning rate at ``step`` (0, 1, ...) of a stage.

    Linear warm-up, then cosine decay to 1 % of the peak, or constant times ``lr_scale`` (schedule "plateau"). It
    depends on the length of the stage: where ``epochs`` of a run in progress is raised, the learning rate jumps to
    where it is at this step of the longer schedule.
    """
    total = stage.epochs * steps_per_epoch
    warmup = max(1, round(stage.warmup * total))
    if step < warmup:
        return (step + 1) / warmup
    if stage.schedule == "plateau":
        return lr_scale
    share = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


class EMA:
    """Exponential moving average of a captioner's weights, which is less noisy than the weights themselves.

    Its effect is about that of a much lower learning rate (Polyak and Juditsky 1992).

    Args:
        source: the captioner that is trained; its frozen parameters are already marked. A frozen encoder is shared.
        decay: the average's decay per step, see ``update``.
    """

    def __init__(self, source: Captioner, decay: float) -> None:
        self.decay = decay
        frozen = not any(parameter.requires_grad for parameter in source.encoder.parameters())
        shared: dict[int, Any] = {id(source.encoder): source.encoder} if frozen else {}
        self.captioner = copy.deepcopy(source, shared).eval()  # holds the average
        for module in self.captioner.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # a copy's weights are scattered, and cuDNN would gather them in every call
        pairs = list(zip(self.captioner.parameters(), source.parameters(), strict=True))
        self.averages = [average for average, weight in pairs if weight.requires_grad]
        self.weights = [weight for _, weight in pairs if weight.requires_grad]
        modules = zip(self.captioner.modules(), source.modules(), strict=True)
        self.norms = [pair for pair in modules if isinstance(pair[1], nn.BatchNorm1d | nn.BatchNorm2d)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after training step ``step`` (1, 2, ...) of the run.

        The decay ramps up as (1 + t) / (10 + t), or the average would remember the random initial weights. Statistics
        of batch norm are copied: they are moving averages already. They change only where it is in training mode.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averaging(decay)(self.averages, self.weights, step)
        for average, norm in self.norms:
            if norm.training:
                for kept, buffer in zip(average.buffers(), norm.buffers(), strict=True):
                    kept.copy_(buffer)
