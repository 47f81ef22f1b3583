"""Self-critical training (Rennie et al. 2017, https://arxiv.org/abs/1612.00563): draw sentences, see what each is worth, and make those likelier that
were worth more than the others about the same image."""

from collections.abc import Mapping, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from data.dataset import Batch
from data.vocab import END_ID, PAD_ID, START_ID
from evaluation.cider import CiderReward
from models.captioner import Captioner
from models.decoding import NEVER, sample
from training.objectives import Objective, StepLoss
from utils import autocast


def self_critical(references: Mapping[str, Sequence[str]], samples: int, dtype: torch.dtype) -> Objective:
    """An objective for ``engine.train_one_epoch``: maximise the expected CIDEr-D of drawn sentences.

        loss = - mean over words of (r - b) log p(word),   b = mean reward of the other sentences drawn for the image

    That baseline (Kool et al. 2019; Luo 2020, https://arxiv.org/abs/2003.09971) costs nothing, where the paper's needs a greedy caption more.

    Args:
        references: the training images' captions; the reward's document frequencies are theirs.
        samples: sentences drawn for an image, 2 or more.
    """
    reward = CiderReward(references)

    def objective(captioner: Captioner, batch: Batch) -> StepLoss:
        words, longest = captioner.vocabulary.words, captioner.config.generate.max_length
        visual = batch.visual.to(captioner.device, non_blocking=True)
        with autocast(captioner.device, dtype):
            features = captioner.features(visual)
        # Drawn as captions are, without dropout and with batch norm's kept statistics; learnt with both, or it learns by heart.
        captioner.decoder.eval()
        with autocast(captioner.device, dtype):
            drawn = sample(captioner.decoder, features.detach(), samples, None, longest)
        captioner.decoder.train()
        # A sentence that reached the greatest length was cut off: it chose no end, and must not be praised or blamed for one.
        said = [
            (name, s.tokens, len(s.tokens) < longest)
            for name, sentences in zip(batch.names, drawn, strict=True)
            for s in sentences
        ]
        rewards = torch.tensor(
            [reward(name, [words[token] for token in tokens], ended=ended) for name, tokens, ended in said]
        )
        rewards = rewards.view(-1, samples)  # (B, K)
        baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (samples - 1)  # (B, K), of the others
        advantage = (rewards - baseline).to(captioner.device)

        sequences = [torch.tensor([START_ID, *tokens, *[END_ID] * ended]) for _, tokens, ended in said]
        tokens = (
            pad_sequence(sequences, batch_first=True, padding_value=PAD_ID)
            .view(*rewards.shape, -1)
            .to(captioner.device)
        )  # (B, K, T)
        targets = tokens[..., 1:]
        with autocast(captioner.device, dtype):
            logits = captioner.decoder(features, tokens[..., :-1])
        real = targets != PAD_ID
        possible = (
            logits[real].float().index_fill(1, torch.tensor(NEVER, device=captioner.device), -torch.inf)
        )  # as they were drawn
        log_prob = possible.log_softmax(dim=-1).gather(1, targets[real][:, None])[:, 0]  # (M,)
        loss = -(advantage[..., None].expand_as(targets)[real] * log_prob).mean()
        return StepLoss(loss, float(rewards.mean()), rewards.numel())

    return objective
