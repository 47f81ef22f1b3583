"""What a training step minimises."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from config import StageConfig
from data.dataset import Batch
from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID
from models.captioner import Captioner
from utils import autocast


@dataclass
class StepLoss:
    """What an objective makes of a batch."""

    loss: torch.Tensor  # to minimise
    shown: float  # what is logged: the mean over words of the cross-entropy, or over sentences of the reward
    count: int  # of words, or of sentences


Objective = Callable[[Captioner, Batch], StepLoss]


def caption_loss(
    logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
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
