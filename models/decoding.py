"""generate(): from grid features to sentences. The only place that decodes, for every decoder and every script.

Shape letters: B images, S beams (sentences kept open per image), N = B x S, V vocabulary, T words so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch

from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID

NEVER = [PAD_ID, START_ID, UNK_ID]  # no sentence says them


class State(Protocol):
    """What a decoder remembers of N open sentences."""

    def select(self, index: torch.Tensor) -> Self:
        """The state of the sentences ``index`` (N',), in that order."""
        ...


class Decoder(Protocol):
    """The interface all decoders share; training needs ``__call__``, decoding ``start`` and ``step``."""

    def __call__(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, P, D), (B, K, T) -> logits (B, K, T, V)."""
        ...

    def start(self, features: torch.Tensor) -> Any:
        """(B, P, D) -> State of B sentences."""
        ...

    def step(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """Tokens (N,), state -> logits (N, V), state, attention (N, P) or None."""
        ...


@dataclass(frozen=True)
class Hypothesis:
    """A sentence and what the model thinks of it."""

    tokens: list[int]  # words only: no <start>, no <end>
    log_prob: float  # sum over words, <end> included; <= 0
    score: float  # log_prob / length**length_penalty, what candidates are ranked by


@torch.no_grad()
def generate(
    decoder: Decoder,
    features: torch.Tensor,
    beam_size: int = 5,
    max_length: int = 30,
    length_penalty: float = 0.7,
    no_repeat_ngram: int = 0,
) -> list[list[Hypothesis]]:
    """Beam search over all images at once; ``beam_size`` 1 is greedy decoding.

    Never emits <pad>, <start> or <unk>. A sentence that has not ended after ``max_length`` words is made to end there, so
    there always is one. What an image gets does not depend on the others in the batch.

    Args:
        features: (B, P, D).
        length_penalty: a in score = log_prob / length**a, length counting <end> (Wu et al. 2016, eq. 14, without its offset).
        no_repeat_ngram: no sentence says the same so many words twice (Paulus et al. 2017, section 2.5); 0: it may.

    Returns:
        for each image 1 to ``beam_size`` different hypotheses, the best first.
    """
    b, s, device = len(features), beam_size, features.device
    images = torch.arange(b, device=device)  # (A,) those whose search goes on; all below is of these alone
    state = decoder.start(features).select(images.repeat_interleave(s))  # N = A*S sentences
    last = torch.full((b * s,), START_ID, device=device)  # (N,) the word each sentence ends in so far
    words = torch.full((b, s, max_length), PAD_ID, device=device)  # (A, S, L) open sentences
    log_prob = torch.full((b, s), -torch.inf, device=device)
    log_prob[:, 0] = 0.0  # all beams start alike: only the first counts, or one word would win S times
    ended = _Ended(b, s, max_length, device)

    for length in range(1, max_length + 2):  # of a sentence that ends in this step, <end> included
        logits, state, _ = decoder.step(last, state)
        step = logits.float().log_softmax(dim=-1).view(len(images), s, -1)  # (A, S, V)
        step[..., NEVER] = -torch.inf
        if 0 < no_repeat_ngram < length:
            step.masked_fill_(_would_repeat(words[..., : length - 1], no_repeat_ngram, step.shape[-1]), -torch.inf)
        if length > max_length:
            step[..., :END_ID] = step[..., END_ID + 1 :] = -torch.inf
        total = (log_prob[..., None] + step).flatten(1)  # (A, S*V)
        # Twice as many candidates as beams: even if S of them end here, S others go on.
        best, index = total.topk(min(2 * s, total.shape[1]))  # (A, C), best first
        beam, word = index // step.shape[-1], index % step.shape[-1]  # (A, C)
        ends, row = word == END_ID, torch.arange(len(images), device=device)[:, None]
        ended.add(images, words[row, beam], best.masked_fill(~ends, -torch.inf)[:, :s], length, length_penalty)
        log_prob, kept = best.masked_fill(ends, -torch.inf).topk(s)  # (A, S)
        going_on = ~ended.certain(images, log_prob[:, 0], max_length, length_penalty)
        if length > max_length or not going_on.any():
            break
        images, row, log_prob = images[going_on], row[going_on], log_prob[going_on]
        beam, last = beam.gather(1, kept)[going_on], word.gather(1, kept)[going_on]  # (A, S)
        words = words[row, beam]
        words[..., length - 1] = last
        state = state.select((row * s + beam).flatten())
        last = last.flatten()
    return ended.hypotheses()


def _would_repeat(words: torch.Tensor, n: int, vocab_size: int) -> torch.Tensor:
    """Sentences so far (B, S, T), T >= n -> which next words (B, S, V) would end in an n-gram that is there already."""
    grams = words.unfold(-1, n, 1)  # (B, S, T-n+1, n)
    again = (grams[..., :-1] == words[..., None, words.shape[-1] - n + 1 :]).all(-1)  # begins as the sentence ends
    return words.new_zeros(*words.shape[:-1], vocab_size).scatter_add_(-1, grams[..., -1], again.long()) > 0


@torch.no_grad()
def sample(
    decoder: Decoder,
    features: torch.Tensor,
    count: int,
    generator: torch.Generator | None = None,
    max_length: int = 30,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> list[list[Hypothesis]]:
    """Draw ``count`` sentences for each image, word by word; log_prob is the model's own, before temperature and cuts.

    Not for the best caption but for different ones: a beam's candidates hardly differ.

    Args:
        features: (B, P, D).
        generator: a seeded one gives the same sentences again; lives on the features' device. None: torch's own.
        temperature: divides the logits; below 1 the likely gets likelier.
        top_k: draw only from the k likeliest words (Fan et al. 2018); 0: from all.
        top_p: draw only from the likeliest words that together have this probability (nucleus sampling, Holtzman et al. 2020).

    Raises:
        ValueError: temperature is not above 0; generate() with one beam is what it tends to.
        FloatingPointError: the decoder says inf or NaN.

    Returns:
        for each image ``count`` hypotheses, the likeliest first; the same sentence may come twice.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature}: must be more than 0")
    b, n, device = len(features), len(features) * count, features.device
    state = decoder.start(features).select(torch.arange(b, device=device).repeat_interleave(count))
    last = torch.full((n,), START_ID, device=device)
    words = torch.full((n, max_length + 1), PAD_ID, device=device)
    log_prob = torch.zeros(n, device=device)
    open_ = torch.ones(n, dtype=torch.bool, device=device)
    for position in range(max_length + 1):
        logits, state, _ = decoder.step(last, state)
        if not logits.isfinite().all():
            raise FloatingPointError("the decoder's logits are not finite")
        own = logits.float().log_softmax(dim=-1)  # (N, V)
        own[:, NEVER] = -torch.inf
        if position == max_length:
            last = torch.full_like(last, END_ID)
        else:
            last = torch.multinomial(_cut(own / temperature, top_k, top_p), 1, generator=generator)[:, 0]
        last = last.masked_fill(~open_, PAD_ID)
        log_prob += own.gather(1, last[:, None])[:, 0].masked_fill(~open_, 0.0)
        words[:, position] = last
        open_ = open_ & (last != END_ID)
        if not open_.any():
            break
    found = [
        Hypothesis([word for word in sentence if word not in (PAD_ID, END_ID)], total, total)
        for sentence, total in zip(words.tolist(), log_prob.tolist(), strict=True)
    ]
    return [sorted(found[first : first + count], key=lambda h: -h.score) for first in range(0, n, count)]


def _cut(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Logits (N, V) -> probabilities (N, V), zero beyond the ``top_k`` likeliest words and beyond the nucleus of mass ``top_p``."""
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if top_p < 1:
        sorted_, index = probabilities.sort(dim=-1, descending=True)
        beyond = sorted_.cumsum(-1) - sorted_ >= top_p  # what comes before has enough; the first word always stays
        probabilities = probabilities.masked_fill(beyond.gather(1, index.argsort(-1)), 0.0)
    return probabilities


@torch.no_grad()
def attention_per_word(
    decoder: Decoder, features: torch.Tensor, sentences: Sequence[list[int]]
) -> list[torch.Tensor] | None:
    """Where the decoder looks as it says each word: features (B, P, D) and B sentences -> B tensors (words, P), rows summing to 1.

    The sentence is read once more, which costs one greedy pass; keeping the weights of every beam would cost memory at each step.
    None: the decoder has no attention.
    """
    state, last = decoder.start(features), torch.full((len(features),), START_ID, device=features.device)
    looks = []
    for position in range(max([1, *map(len, sentences)])):
        _, state, attention = decoder.step(last, state)
        if attention is None:
            return None
        looks.append(attention)
        last = torch.tensor([s[position] if position < len(s) else PAD_ID for s in sentences], device=features.device)
    stacked = torch.stack(looks, dim=1)  # (B, T, P)
    return [weights[: len(sentence)] for weights, sentence in zip(stacked, sentences, strict=True)]


class _Ended:
    """The best S ended sentences of each image so far, as tensors: (B, S) scores and log-probabilities, (B, S, L) words."""

    def __init__(self, b: int, s: int, max_length: int, device: torch.device) -> None:
        self.score = torch.full((b, s), -torch.inf, device=device)
        self.log_prob = self.score.clone()
        self.words = torch.full((b, s, max_length), PAD_ID, device=device)

    def add(
        self, images: torch.Tensor, words: torch.Tensor, log_prob: torch.Tensor, length: int, length_penalty: float
    ) -> None:
        """Merge candidates (A, C, L), (A, C) of ``length`` for the images (A,); -inf marks those that did not end."""
        s = self.score.shape[1]
        scores = torch.cat([self.score[images], log_prob / length**length_penalty], dim=1)
        self.score[images], kept = scores.topk(s)  # (A, S)
        self.log_prob[images] = torch.cat([self.log_prob[images], log_prob], dim=1).gather(1, kept)
        all_words = torch.cat([self.words[images], words[:, : log_prob.shape[1]]], dim=1)
        self.words[images] = all_words.gather(1, kept[..., None].expand(-1, -1, all_words.shape[2]))

    def certain(
        self, images: torch.Tensor, open_log_prob: torch.Tensor, max_length: int, length_penalty: float
    ) -> torch.Tensor:
        """Which of the images (A,) have S ended sentences, and no open one (best: (A,)) that can still win.

        A log-probability only falls, so what an open beam can reach at most is its present one at the greatest length.
        A single beam is greedy decoding: its first <end> is the end.
        """
        score = self.score[images]
        reachable = open_log_prob / (max_length + 1) ** length_penalty
        certain: torch.Tensor = (score[:, -1] > -torch.inf) & ((reachable <= score[:, 0]) | (score.shape[1] == 1))
        return certain

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Plain lists, the best first."""
        rows = zip(self.words.tolist(), self.log_prob.tolist(), self.score.tolist(), strict=True)
        return [
            [
                Hypothesis([word for word in words if word != PAD_ID], log_prob, score)
                for words, log_prob, score in zip(*image, strict=True)
                if score > float("-inf")
            ]
            for image in rows
        ]
