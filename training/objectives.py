"""What a training step minimises.

Shape letters: N sequences, T tokens, M real tokens, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from config import StageConfig
from data.dataset import Batch
from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID
from models.captioner import Captioner
from utils import autocast


@dataclass
class StepLoss:
    """The result of an objective for one batch."""

    loss: torch.Tensor  # to minimise, a scalar
    terms: int  # tokens, of which the loss is the mean
    shown: torch.Tensor  # logged: mean cross-entropy per token, or mean reward per sampled caption; a scalar
    count: int  # tokens, or sampled captions


Objective = Callable[[Captioner, Batch], StepLoss]


def caption_loss(
    logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy per token.

    Args:
        logits: (M, V).
        targets: (M,), the token after each input token.
        label_smoothing: share e of the target spread over all words (Szegedy et al. 2016, section 7).

    Returns:
        the loss to minimise, and the plain cross-entropy by which training and validation are compared.
    """
    log_prob = logits.float().log_softmax(dim=-1)  # (M, V)
    cross_entropy = -log_prob.gather(1, targets[:, None]).mean()
    if label_smoothing == 0:
        return cross_entropy, cross_entropy.detach()
    uniform = -log_prob.mean()
    return (1 - label_smoothing) * cross_entropy + label_smoothing * uniform, cross_entropy.detach()


def drop_words(tokens: torch.Tensor, probability: float) -> torch.Tensor:
    """Word dropout (Bowman et al. 2016, section 3.1): replace random words of ``tokens`` (N, T) by <unk>.

    <start>, <end> and padding stay.
    """
    special = (tokens == PAD_ID) | (tokens == START_ID) | (tokens == END_ID)
    return tokens.masked_fill((torch.rand(tokens.shape, device=tokens.device) < probability) & ~special, UNK_ID)


def teacher_forcing(stage: StageConfig, dtype: torch.dtype) -> Objective:
    """The cross-entropy objective: at each token of the reference captions, predict the next one."""

    def objective(captioner: Captioner, batch: Batch) -> StepLoss:
        captions = batch.captions.to(captioner.device)
        if stage.word_dropout > 0:
            captions = replace(captions, tokens=drop_words(captions.tokens, stage.word_dropout))
        with autocast(captioner.device, dtype):
            logits = captioner(batch.visual, captions)
        loss, cross_entropy = caption_loss(logits, captions.targets, stage.label_smoothing)
        return StepLoss(loss, captions.count, cross_entropy, captions.count)

    return objective
