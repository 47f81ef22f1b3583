"""Beam search over one image at a time, in Python lists, as tutorials write it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from config import GenerateConfig
from data.vocab import END_ID, START_ID
from models.decoding import NEVER
from tools.benchmark.plain_model import PlainDecoder


@dataclass(frozen=True)
class PlainCaption:
    """The best caption of an image."""

    tokens: list[int]  # without <start> and <end>
    read: int  # words that a decoder has to read for it, over all hypotheses; <start>, which they share, once


@torch.no_grad()
def beam_search(decoder: PlainDecoder, features: torch.Tensor, options: GenerateConfig, beam_size: int) -> PlainCaption:
    """Search for the caption of one image, with the same rules as ``models.decoding.generate``.

    Args:
        features: (1, P, D).
        options: the length penalty, the greatest length and the n-grams to block.
    """
    state = decoder.start(features).rows(torch.zeros(beam_size, dtype=torch.long, device=features.device))
    sentences: list[list[int]] = [[] for _ in range(beam_size)]
    words = torch.full((beam_size,), START_ID, device=features.device)
    totals = torch.tensor([0.0] + [-torch.inf] * (beam_size - 1), device=features.device)  # all start alike
    finished: list[tuple[float, list[int]]] = []  # score and words
    read = 0
    for length in range(1, options.max_length + 2):
        read += len(words) if length > 1 else 1
        logits, state = decoder.step(words, state)
        scores = totals[:, None] + torch.log_softmax(logits, dim=1)  # (hypotheses, V)
        scores[:, NEVER] = -torch.inf
        for row, sentence in enumerate(sentences):
            scores[row, repeating_words(sentence, options.no_repeat_ngram)] = -torch.inf
        if length > options.max_length:
            scores[:, [word for word in range(scores.shape[1]) if word != END_ID]] = -torch.inf
        best, places = scores.flatten().topk(min(2 * beam_size, scores.numel()))
        following: list[tuple[float, int, int]] = []  # log-probability, row and word of the hypotheses to go on with
        for rank, (total, place) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
            row, word = divmod(place, scores.shape[1])
            if word != END_ID and len(following) < beam_size:
                following.append((total, row, word))
            elif word == END_ID and rank < beam_size:
                finished.append((total / length**options.length_penalty, sentences[row]))
        finished = sorted(finished, key=lambda item: -item[0])[:beam_size]
        if not following or is_decided(finished, following[0][0], options, beam_size):
            break
        rows = torch.tensor([row for _, row, _ in following], device=features.device)
        words = torch.tensor([word for _, _, word in following], device=features.device)
        totals = torch.tensor([total for total, _, _ in following], device=features.device)
        sentences = [[*sentences[row], word] for _, row, word in following]
        state = state.rows(rows)
    return PlainCaption(finished[0][1], read)


def repeating_words(sentence: Sequence[int], n: int) -> list[int]:
    """The words that would complete an n-gram which the sentence already has; none for n = 0."""
    if n == 0 or len(sentence) < n:
        return []
    end = tuple(sentence[len(sentence) - n + 1 :])
    grams = [tuple(sentence[first : first + n]) for first in range(len(sentence) - n + 1)]
    return [gram[-1] for gram in grams if gram[:-1] == end]


def is_decided(
    finished: Sequence[tuple[float, list[int]]], best_open: float, options: GenerateConfig, beam_size: int
) -> bool:
    """Whether no open hypothesis can still win: at most, it keeps its log-probability up to the greatest length."""
    if len(finished) < beam_size:
        return False
    reachable = best_open / (options.max_length + 1) ** options.length_penalty
    return beam_size == 1 or reachable <= finished[0][0]
