"""Beam search in NumPy, by the rules of models/decoding.py, for captioning without torch.

Shape letters: B images, A images whose search goes on, S beams, V vocabulary, C candidates, T words so far, L greatest
length.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cli import UserError
from config import GenerateConfig

State = dict[str, np.ndarray]  # of A x S hypotheses (A, S, ...), and what those of an image share (A, ...)
# tokens (A, S), state -> log-probabilities (A, S, V), the new state, which may lack what never changes
Step = Callable[[np.ndarray, State], tuple[np.ndarray, State]]


class Special(NamedTuple):
    """The ids of tokens that are no words."""

    start: int
    end: int
    never: list[int]  # never generated; the first is padding


class Hypothesis(NamedTuple):
    """A generated caption and its probability under the model, see ``models.decoding.Hypothesis``."""

    tokens: list[int]
    log_prob: float
    score: float


def beam_search(
    step: Step, state: State, shared: frozenset[str], special: Special, options: GenerateConfig
) -> list[list[Hypothesis]]:
    """As ``models.decoding.generate``, whose comments explain it.

    Args:
        state: of one hypothesis per image: (B, 1, ...), or (B, ...).
        shared: the names of what the hypotheses of an image share.

    Returns:
        for each image 1 to ``options.beam_size`` different hypotheses, the best first.

    Raises:
        UserError: the log-probabilities are NaN.
    """
    s, most = options.beam_size, options.max_length
    b = len(next(iter(state.values())))
    images = np.arange(b)  # (A,)
    last = np.full((b, 1), special.start)  # (A, S), first (A, 1)
    words = np.full((b, s, most), special.never[0])  # (A, S, L)
    log_prob = np.full((b, s), -np.inf, np.float32)
    log_prob[:, 0] = 0.0
    finished: list[list[Hypothesis]] = [[] for _ in range(b)]

    for length in range(1, most + 2):  # of a hypothesis that ends in this step, <end> included
        following, new_state = step(last, state)  # (A, S, V), first (A, 1, V)
        _forbid(following, words[..., : length - 1], special, options.no_repeat_ngram, must_end=length > most)
        beams, size = following.shape[1:]
        best, index = _largest((log_prob[..., None] + following).reshape(len(images), -1), 2 * s)  # (A, C)
        beam, word = index // size, index % size
        ends, row = word == special.end, np.arange(len(images))[:, None]
        for a, c in zip(*np.nonzero((ends & (best > -np.inf))[:, :s]), strict=True):
            tokens, total = words[a, beam[a, c], : length - 1].tolist(), float(best[a, c])
            finished[images[a]].append(Hypothesis(tokens, total, total / length**options.length_penalty))
        for image in images:
            finished[image] = sorted(finished[image], key=lambda hypothesis: -hypothesis.score)[:s]
        log_prob, kept = _largest(np.where(ends, -np.inf, best), s)  # (A, S)
        goes_on = np.array([
            _may_improve(finished[image], float(open_log_prob), options)
            for image, open_log_prob in zip(images, log_prob[:, 0], strict=True)
        ])  # fmt: skip
        if length > most or not goes_on.any():
            break
        beam, last = np.take_along_axis(beam, kept, 1), np.take_along_axis(word, kept, 1)
        images, row, log_prob, beam, last = (part[goes_on] for part in (images, row, log_prob, beam, last))
        words = words[row, beam]
        words[..., length - 1] = last
        beam = beam.clip(max=beams - 1)
        unchanged = len(row) == len(goes_on)  # what images share is large: copied only where images are done
        state = {
            name: new_state[name][row, beam] if name not in shared else values if unchanged else values[goes_on]
            for name, values in state.items()
        }
    if not all(finished):
        raise UserError("weights that are damaged or have diverged: the decoder's log-probabilities are not finite")
    return finished


def _largest(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest ``count`` values of each row, the largest first, and their places; all if there are fewer."""
    count = min(count, values.shape[1])
    places = np.argpartition(-values, count - 1, axis=1)[:, :count]
    found = np.take_along_axis(values, places, 1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(found, order, 1), np.take_along_axis(places, order, 1)


def _may_improve(finished: list[Hypothesis], open_log_prob: float, options: GenerateConfig) -> bool:
    """Whether hypotheses are missing, or the best open one can still win; see ``models.decoding.FinishedBeams``."""
    if len(finished) < options.beam_size:
        return True
    reachable = open_log_prob / (options.max_length + 1) ** options.length_penalty
    return options.beam_size > 1 and reachable > finished[0].score


def _forbid(following: np.ndarray, words: np.ndarray, special: Special, n: int, *, must_end: bool) -> None:
    """Give what may not follow the words so far (A, S, T) no probability: ``following`` (A, S, V) is changed."""
    following[..., special.never] = -np.inf
    if 0 < n <= words.shape[-1]:
        grams = np.lib.stride_tricks.sliding_window_view(words, n, axis=-1)  # (A, S, T-n+1, n)
        again = (grams[..., :-1] == words[..., None, words.shape[-1] - n + 1 :]).all(-1)
        a, s, place = np.nonzero(again)
        following[a, s, grams[a, s, place, -1]] = -np.inf
    if must_end:
        end = following[..., special.end].copy()
        following[:] = -np.inf
        following[..., special.end] = end
