"""generate() and sample(): from grid features to token ids. The only place that decodes, for every decoder and script.

Shape letters: B images, A images whose search goes on, S beams (hypotheses kept open per image), N = A x S,
V vocabulary, C candidates, L greatest length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cli import UserError
from data.packing import pack
from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID
from models.interfaces import WordDecoder

NEVER = [PAD_ID, START_ID, UNK_ID]  # never generated
WORDS_BETWEEN = {"cpu": 1}  # words after which it is asked which images are done; a GPU stands still for an answer
ELSEWHERE = 4


class NotFiniteError(UserError, FloatingPointError):
    """The decoder's logits are inf or NaN; a script tells the user, and training stops."""

    def __init__(self) -> None:
        super().__init__("weights that are damaged or have diverged: the decoder's logits are not finite")


@dataclass(frozen=True)
class Hypothesis:
    """A generated caption and its probability under the model."""

    tokens: list[int]  # words only: no <start>, no <end>
    log_prob: float  # sum over words, <end> included; <= 0
    score: float  # log_prob / length**length_penalty, what candidates are ranked by


@torch.no_grad()
def generate(
    decoder: WordDecoder,
    features: torch.Tensor,
    beam_size: int = 5,
    max_length: int = 30,
    length_penalty: float = 0.7,
    no_repeat_ngram: int = 0,
) -> list[list[Hypothesis]]:
    """Beam search over all images at once; ``beam_size`` 1 is greedy decoding.

    Never generates <pad>, <start> or <unk>. A hypothesis that has not ended after ``max_length`` words is ended there,
    so there always is one. The result for an image does not depend on the others in the batch.

    Args:
        features: (B, P, D).
        length_penalty: a in score = log_prob / length**a, <end> counted (Wu et al. 2016, eq. 14, without its offset).
        no_repeat_ngram: block each n-gram that the hypothesis already has (Paulus et al. 2017, section 2.5); 0: none.

    Returns:
        for each image 1 to ``beam_size`` different hypotheses, the best first.

    Raises:
        NotFiniteError: the logits are inf or NaN.
    """
    b, s, device = len(features), beam_size, features.device
    images = torch.arange(b, device=device)  # (A,) whose search goes on; everything below is about these alone
    state = decoder.start(features)  # of one hypothesis per image in the first step, then of N = A*S
    last = torch.full((b,), START_ID, device=device)  # (N,) the last word of each
    words = torch.full((b, s, max_length), PAD_ID, device=device)  # (A, S, L) open hypotheses
    log_prob = torch.full((b, s), -torch.inf, device=device)
    log_prob[:, 0] = 0.0  # all beams start as that one hypothesis: only the first counts, or one word would win S times
    finished = FinishedBeams(b, s, max_length, device)

    for length in range(1, max_length + 2):  # of a hypothesis that ends in this step, <end> included
        logits, state, _ = decoder.step(last, state)
        step = logits.float().log_softmax(dim=-1).view(len(images), -1, logits.shape[-1])  # (A, S, V), first (A, 1, V)
        _forbid(step, words[..., : length - 1], no_repeat_ngram, must_end=length > max_length)
        total = (log_prob[..., None] + step).flatten(1)  # (A, S*V)
        # Twice as many candidates as beams: even if S of them end here, S others go on
        best, index = total.topk(min(2 * s, total.shape[1]))  # (A, C), best first
        beam, word = index // step.shape[-1], index % step.shape[-1]  # (A, C)
        ends, row = word == END_ID, torch.arange(len(images), device=device)[:, None]
        finished.add(images, words[row, beam], best.masked_fill(~ends, -torch.inf)[:, :s], length, length_penalty)
        log_prob, kept = best.masked_fill(ends, -torch.inf).topk(s)  # (A, S)
        if length > max_length:
            break
        certain = finished.certain(images, log_prob[:, 0], max_length, length_penalty)
        beam, last = beam.gather(1, kept), word.gather(1, kept)
        if length % WORDS_BETWEEN.get(device.type, ELSEWHERE):
            log_prob = log_prob.masked_fill(certain[:, None], -torch.inf)  # nothing that ends later counts
        else:
            open_images = (~certain).nonzero()[:, 0]
            if len(open_images) == 0:
                break
            images, row, log_prob, beam, last = (part[open_images] for part in (images, row, log_prob, beam, last))
        words = words[row, beam]
        words[..., length - 1] = last
        state = state.select((row * step.shape[1] + beam.clamp(max=step.shape[1] - 1)).flatten(), s)
        last = last.flatten()
    return finished.hypotheses()


def _forbid(step: torch.Tensor, words: torch.Tensor, no_repeat_ngram: int, *, must_end: bool) -> None:
    """Give what may not follow the words so far (A, S, T) no probability: step (A, S, V) is changed."""
    step[..., NEVER] = -torch.inf
    if 0 < no_repeat_ngram <= words.shape[-1]:
        step.masked_fill_(_would_repeat(words, no_repeat_ngram, step.shape[-1]), -torch.inf)
    if must_end:
        step[..., :END_ID] = step[..., END_ID + 1 :] = -torch.inf


def _would_repeat(words: torch.Tensor, n: int, vocab_size: int) -> torch.Tensor:
    """Words so far (A, S, T), T >= n -> which next words (A, S, V) would complete an n-gram that is there already."""
    grams = words.unfold(-1, n, 1)  # (A, S, T-n+1, n)
    again = (grams[..., :-1] == words[..., None, words.shape[-1] - n + 1 :]).all(-1)  # starts as the hypothesis ends
    found = torch.zeros(*words.shape[:-1], vocab_size, device=words.device)  # float: not all devices scatter integers
    return found.scatter_add_(-1, grams[..., -1], again.float()) > 0


@torch.no_grad()
def sample(
    decoder: WordDecoder,
    features: torch.Tensor,
    numbers: torch.Tensor,
    temperature: float = 1.0,
) -> list[list[Hypothesis]]:
    """Sample captions for each image, word by word; log_prob is the model's own, without the temperature.

    Not for the best caption but for varied ones: the candidates of a beam hardly differ.

    Args:
        features: (B, P, D).
        numbers: random ones from 0 to 1, (B, C, L) for C captions of at most L words; see ``random_numbers``. Each
            chooses a word, so the captions of an image do not depend on the others in the batch.
        temperature: divides the logits; below 1 likely words become more likely.

    Raises:
        ValueError: temperature is not above 0; towards 0 sampling becomes greedy decoding, generate() with one beam.
        NotFiniteError: the logits are inf or NaN.

    Returns:
        for each image C hypotheses, the most likely first; the same caption may come twice.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature}: must be more than 0")
    (b, count, max_length), device = numbers.shape, features.device
    n, numbers = b * count, numbers.flatten(0, 1).to(device)
    state = decoder.start(features).select(torch.arange(b, device=device).repeat_interleave(count), count)
    last = torch.full((n,), START_ID, device=device)
    words = torch.full((n, max_length + 1), PAD_ID, device=device)
    log_prob = torch.zeros(n, device=device)
    still_open = torch.ones(n, dtype=torch.bool, device=device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    for position in range(max_length + 1):
        logits, state, _ = decoder.step(last, state)
        finite = finite & logits.isfinite().all()
        own = logits.float().log_softmax(dim=-1)  # (N, V)
        own[:, NEVER] = -torch.inf
        if position == max_length:
            last = torch.full_like(last, END_ID)
        else:
            reached = (own / temperature).softmax(dim=-1).cumsum(dim=-1)  # (N, V)
            threshold = numbers[:, position, None] * reached[:, -1:]  # the sum is 1 but for rounding
            last = torch.searchsorted(reached, threshold, right=True)[:, 0].clamp(max=reached.shape[1] - 1)
        last = last.masked_fill(~still_open, PAD_ID)
        log_prob += own.gather(1, last[:, None])[:, 0].masked_fill(~still_open, 0.0)
        words[:, position] = last
        still_open = still_open & (last != END_ID)
        if position % WORDS_BETWEEN.get(device.type, ELSEWHERE) == 0 and not (still_open.any() & finite):
            break
    if not finite:
        raise NotFiniteError
    found = [
        Hypothesis([word for word in caption if word not in (PAD_ID, END_ID)], total, total)
        for caption, total in zip(words.tolist(), log_prob.tolist(), strict=True)
    ]
    return [sorted(found[first : first + count], key=lambda h: -h.score) for first in range(0, n, count)]


def random_numbers(seeds: Sequence[int], count: int, max_length: int) -> torch.Tensor:
    """What ``sample`` chooses the words of ``count`` captions by: (B, C, L), for each image from its own seed."""
    drawn = [torch.rand(count, max_length, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn)


@torch.no_grad()
def read_again(
    decoder: WordDecoder, features: torch.Tensor, captions: Sequence[Sequence[int]]
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """What the decoder computed for each word of finished captions.

    They are read once more, in one pass; keeping this of every hypothesis would cost memory at each step.

    Args:
        features: (B, P, D).
        captions: one for each image, without <start> and <end>.

    Returns:
        for each of the B captions the logits of its words and of its end (words + 1, V), and what was attended to
        (words, P), in rows that sum to 1; None for a decoder that does not attend.
    """
    read = pack([[[START_ID, *caption, END_ID]] for caption in captions]).to(features.device)
    logits, _, weights = decoder.read(read, decoder.start(features), attention=decoder.attends)
    its_logits = torch.split(logits, [len(caption) + 1 for caption in captions])
    if weights is None:
        return [(rows, None) for rows in its_logits]
    return [
        (rows, its_weights[: len(caption)])
        for rows, its_weights, caption in zip(its_logits, weights, captions, strict=True)
    ]


def attention_per_word(
    decoder: WordDecoder, features: torch.Tensor, captions: Sequence[Sequence[int]]
) -> list[torch.Tensor] | None:
    """What the decoder attends to when it generates each word, see ``read_again``: B tensors (words, P).

    None for a decoder that does not attend.
    """
    found = [weights for _, weights in read_again(decoder, features, captions) if weights is not None]
    return found if decoder.attends else None


class FinishedBeams:
    """The best S finished hypotheses of each image so far: (B, S) scores and log-probabilities, (B, S, L) words."""

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
        """Which of the images (A,) have S finished hypotheses, and no open one (best: (A,)) that can still win.

        A log-probability only falls, so an open beam can at most reach its present one at the greatest length.
        A single beam is greedy decoding: its first <end> is the end.
        """
        score = self.score[images]
        reachable = open_log_prob / (max_length + 1) ** length_penalty
        certain: torch.Tensor = (score[:, -1] > -torch.inf) & ((reachable <= score[:, 0]) | (score.shape[1] == 1))
        return certain

    def hypotheses(self) -> list[list[Hypothesis]]:
        """The hypotheses of each image as plain lists, the best first.

        Raises:
            NotFiniteError: an image has none, which only NaN can cause.
        """
        rows = zip(self.words.tolist(), self.log_prob.tolist(), self.score.tolist(), strict=True)
        found = [
            [
                Hypothesis([word for word in words if word != PAD_ID], log_prob, score)
                for words, log_prob, score in zip(*image, strict=True)
                if score > float("-inf")
            ]
            for image in rows
        ]
        if not all(found):
            raise NotFiniteError
        return found
