"""What training would do with the photograph: its cross-entropy, and one step of self-critical training.

Shape letters: K sampled captions, P grid positions, D encoder width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from config import StageConfig
from data.dataset import Batch
from data.packing import PackedTokens, pack
from evaluation.cider import CiderReward
from models.captioner import Captioner
from models.decoding import Hypothesis, random_numbers
from training.objectives import caption_loss
from training.optim import build_optimizer
from training.self_critical import pack_sampled, sample_captions, score, self_critical

PHOTO = "photo"  # the name of the photograph among the images whose captions give the document frequencies
SMOOTHING = 0.1  # label smoothing in the recipes
# The stage of configs/flickr8k_best.yaml that the pretrained captioner was last trained in
STAGE = StageConfig(name="self-critical", lr=4e-5, samples=5, dropout=0.2)


@dataclass(frozen=True)
class Losses:
    """The loss of reference captions."""

    tokens: PackedTokens
    logits: tuple[int, ...]  # the shape of the logits
    cross_entropy: float  # mean per token
    smoothed: float  # with label smoothing
    uniform: float  # of a model that knows nothing: ln V


@dataclass(frozen=True)
class Sampled:
    """A caption that was sampled in self-critical training."""

    caption: str
    reward: float
    advantage: float  # the reward, less the mean of the other samples' rewards
    before: float  # log-probability before the step
    after: float  # and after it


@torch.no_grad()
def losses(captioner: Captioner, features: torch.Tensor, references: Sequence[str]) -> Losses:
    """The cross-entropy of ``references``, all at once by teacher forcing, without dropout.

    Args:
        features: (1, P, D).
    """
    captions = pack([[captioner.vocabulary.encode(text) for text in references]])
    logits = captioner(features, captions)
    smoothed, cross_entropy = caption_loss(logits, captions.targets, SMOOTHING)
    uniform = float(torch.tensor(float(logits.shape[1])).log())
    return Losses(captions, tuple(logits.shape), float(cross_entropy), float(smoothed), uniform)


def self_critical_step(
    captioner: Captioner, features: torch.Tensor, references: Mapping[str, Sequence[str]], seed: int
) -> list[Sampled]:
    """One step of self-critical training on the photograph alone; it changes the weights of ``captioner``.

    Args:
        features: (1, P, D).
        references: of PHOTO, and those of other images, for the document frequencies.
    """
    tokenizer, longest = captioner.vocabulary.tokenizer, captioner.config.generate.max_length
    objective = self_critical(references, tokenizer, STAGE.samples, torch.float32)
    # The same that the objective samples from the same seed
    sampled = sample_captions(captioner, features, random_numbers([seed], STAGE.samples, longest), torch.float32)
    rewards = score(captioner, CiderReward(references, tokenizer), [PHOTO], sampled)[0]
    captioner.eval()
    before = log_probs(captioner, features, sampled)
    optimizer = build_optimizer(captioner, STAGE, captioner.config.train.weight_decay)
    captioner.set_dropout(STAGE.dropout or 0.0)
    captioner.train()
    for module in captioner.decoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 0.0  # the statistics of one photograph are not those of a batch
    torch.manual_seed(seed)  # of dropout
    step = objective(captioner, Batch(features, pack([[]]), [PHOTO], seeds=[seed]))
    torch.autograd.backward(step.loss)
    nn.utils.clip_grad_norm_(captioner.decoder.parameters(), captioner.config.train.grad_clip)
    optimizer.step()
    captioner.eval()
    after = log_probs(captioner, features, sampled)
    others = [(sum(rewards) - reward) / (len(rewards) - 1) for reward in rewards]
    return [
        Sampled(captioner.vocabulary.decode(hypothesis.tokens), reward, reward - baseline, *both)
        for hypothesis, reward, baseline, *both in zip(sampled[0], rewards, others, before, after, strict=True)
    ]


@torch.no_grad()
def log_probs(captioner: Captioner, features: torch.Tensor, sampled: Sequence[Sequence[Hypothesis]]) -> list[float]:
    """The log-probability of each of the captions ``sampled`` for one image."""
    captions = pack_sampled(sampled, captioner.config.generate.max_length)
    rows = captioner(features, captions).log_softmax(dim=-1).gather(1, captions.targets[:, None])[:, 0]
    return [float(part.sum()) for part in rows.split(captions.lengths.tolist())]


def as_tokens(captioner: Captioner, caption: str) -> list[int]:
    """The ids of a caption's tokens, without <start> and <end>."""
    return captioner.vocabulary.encode(caption)[1:-1]
