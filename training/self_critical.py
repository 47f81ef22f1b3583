"""Self-critical training (Rennie et al. 2017, https://arxiv.org/abs/1612.00563): sample captions, compute the reward of
each, and make those more likely that earned more than the others of the same image.

Shape letters: B images, K sampled captions per image, M tokens of all of them.
"""

from collections.abc import Mapping, Sequence

import torch

from data.dataset import Batch
from data.packing import PackedTokens, pack
from data.tokenizer import Tokenizer
from data.vocab import END_ID, START_ID
from evaluation.cider import CiderReward
from models.captioner import Captioner
from models.decoding import NEVER, Hypothesis, random_numbers, sample
from training.objectives import Objective, StepLoss
from utils import autocast


def self_critical(
    references: Mapping[str, Sequence[str]], tokenizer: Tokenizer, samples: int, dtype: torch.dtype
) -> Objective:
    """An objective that maximises the expected CIDEr-D of sampled captions.

        loss = - mean over tokens of (r - b) log p(token),   b = mean reward of the other captions of the image

    This baseline (Kool et al. 2019; Luo 2020, https://arxiv.org/abs/2003.09971) is free, where the paper's needs a
    greedy caption per image.

    Args:
        references: captions of the training images, which also give the document frequencies of the reward.
        tokenizer: the captioner's.
        samples: captions sampled per image, 2 or more.
    """
    reward = CiderReward(references, tokenizer)

    def objective(captioner: Captioner, batch: Batch) -> StepLoss:
        with autocast(captioner.device, dtype):
            features = captioner.features(batch.visual)
        numbers = random_numbers(batch.seeds, samples, captioner.config.generate.max_length)
        sampled = sample_captions(captioner, features.detach(), numbers, dtype)
        rewards = torch.tensor(score(captioner, reward, batch.names, sampled))  # (B, K)
        baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (samples - 1)  # (B, K), of the others
        captions = pack_sampled(sampled, captioner.config.generate.max_length)
        advantage = (rewards - baseline).flatten().repeat_interleave(captions.lengths).to(captioner.device)  # (M,)
        captions = captions.to(captioner.device)
        with autocast(captioner.device, dtype):
            logits = captioner(features, captions)
        never = torch.tensor(NEVER, device=captioner.device)
        possible = logits.float().index_fill(1, never, -torch.inf)  # the distribution that was sampled from
        log_prob = possible.log_softmax(dim=-1).gather(1, captions.targets[:, None])[:, 0]  # (M,)
        return StepLoss(-(advantage * log_prob).mean(), captions.count, rewards.mean(), rewards.numel())

    return objective


def sample_captions(
    captioner: Captioner, features: torch.Tensor, numbers: torch.Tensor, dtype: torch.dtype
) -> list[list[Hypothesis]]:
    """Sample from the model as it generates: without dropout and with the running statistics of batch normalization.

    The training pass uses dropout and batch statistics, or it overfits. ``numbers``: see ``random_numbers``.
    """
    captioner.decoder.eval()
    with autocast(captioner.device, dtype):
        sampled = sample(captioner.decoder, features, numbers)
    captioner.decoder.train()
    return sampled


def score(
    captioner: Captioner, reward: CiderReward, names: Sequence[str], sampled: Sequence[Sequence[Hypothesis]]
) -> list[list[float]]:
    """The rewards of the captions that were sampled for each of the images ``names``; equally many for all."""
    words, longest = captioner.vocabulary.words, captioner.config.generate.max_length
    each = [(name, [words[token] for token in s.tokens]) for name, its in zip(names, sampled, strict=True) for s in its]
    ended = [len(caption) < longest for _, caption in each]
    scores = reward.scores([name for name, _ in each], [caption for _, caption in each], ended)
    rows: list[list[float]] = scores.reshape(len(names), -1).tolist()
    return rows


def pack_sampled(sampled: Sequence[Sequence[Hypothesis]], longest: int) -> PackedTokens:
    """Sampled captions as training reads them. One of the greatest length was cut off there: the model did not choose
    to end it, and must be neither rewarded nor punished for an end."""
    return pack([[[START_ID, *s.tokens, *[END_ID] * (len(s.tokens) < longest)] for s in its] for its in sampled])
