"""models/decoding.py: the search finds what it should, alone or in a batch, and its numbers are the model's own."""

import itertools

import pytest
import torch
from conftest import DECODERS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from config import DecoderConfig
from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID
from models.captioner import build_decoder
from models.decoding import Hypothesis, generate

D, P = 8, 4  # encoder width, grid positions
NEVER = [PAD_ID, START_ID, UNK_ID]


def random_decoder(vocab_size: int, seed: int = 0, name: str = "lstm", end_bias: float = 0.0) -> nn.Module:
    """A decoder with strong opinions: freshly initialised ones think nearly all words equally likely, and seldom end."""
    torch.manual_seed(seed)
    decoder = build_decoder(DecoderConfig(name=name, embed_size=8, hidden_size=16), vocab_size, D).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3.0)
            if parameter.shape == (vocab_size,):  # the bias of the words
                parameter[END_ID] += end_bias
    return decoder


def teacher_forced(decoder: nn.Module, features: torch.Tensor, words: list[int]) -> float:
    """Log-probability of words and <end>, by one forward pass; features (P, D)."""
    with torch.no_grad():
        log_prob = decoder(features[None], torch.tensor([[[START_ID, *words]]]))[0, 0].log_softmax(-1)
    return sum(log_prob[t, word].item() for t, word in enumerate([*words, END_ID]))


def all_sentences(vocab_size: int, max_length: int) -> list[list[int]]:
    words = range(UNK_ID + 1, vocab_size)
    return [list(sentence) for length in range(max_length + 1) for sentence in itertools.product(words, repeat=length)]


def assert_sound(decoder: nn.Module, features: torch.Tensor, found: list[Hypothesis], beam: int, longest: int, penalty: float) -> None:
    """What must hold for the hypotheses of one image, whatever the decoder."""
    assert 1 <= len(found) <= beam
    assert len({tuple(h.tokens) for h in found}) == len(found)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert len(h.tokens) <= longest
        assert not {*NEVER, END_ID} & set(h.tokens)
        assert h.log_prob == pytest.approx(teacher_forced(decoder, features, h.tokens), abs=1e-3)
        assert h.score == pytest.approx(h.log_prob / (len(h.tokens) + 1) ** penalty, rel=1e-4)


@settings(max_examples=80, deadline=None)
@given(
    vocab_size=st.integers(5, 9),
    beam=st.integers(1, 12),
    longest=st.integers(1, 6),
    images=st.integers(1, 3),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_any_size_gives_sound_sentences(vocab_size: int, beam: int, longest: int, images: int, penalty: float, seed: int) -> None:
    decoder = random_decoder(vocab_size, seed)
    features = torch.randn(images, P, D)
    found = generate(decoder, features, beam, longest, penalty)  # type: ignore[arg-type]
    assert len(found) == images
    for image, hypotheses in zip(features, found, strict=True):
        assert_sound(decoder, image, hypotheses, beam, longest, penalty)


@pytest.mark.parametrize("beam", [1, 3, 5])
@pytest.mark.parametrize("end_bias", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", DECODERS)
def test_an_image_gets_the_same_alone_and_in_a_batch(beam: int, end_bias: float, name: str) -> None:
    winners = set()
    for seed in range(9):
        decoder, penalty = random_decoder(20, seed, name, end_bias), (0.3, 0.7, 2.0)[seed % 3]
        features = 3 * torch.randn(8, P, D)
        together = generate(decoder, features, beam, 12, penalty)  # type: ignore[arg-type]
        for image, hypotheses in zip(features, together, strict=True):
            (alone,) = generate(decoder, image[None], beam, 12, penalty)  # type: ignore[arg-type]
            assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
            assert [h.score for h in alone] == pytest.approx([h.score for h in hypotheses], abs=1e-4)
        winners |= {tuple(hypotheses[0].tokens) for hypotheses in together}
    assert len(winners) > 6  # the images do matter


def plain_beam_search(decoder: nn.Module, image: torch.Tensor, beam: int, longest: int, penalty: float) -> tuple[float, list[int]]:
    """Score and words of the best sentence, found one step, one sentence and one word at a time, and never stopping early."""
    still_open: list[tuple[float, list[int]]] = [(0.0, [])]
    ended = []
    for length in range(1, longest + 2):
        candidates = []
        for log_prob, words in still_open:
            with torch.no_grad():
                step = decoder(image[None], torch.tensor([[[START_ID, *words]]]))[0, 0, -1].log_softmax(-1)
            allowed = [END_ID] if length > longest else [word for word in range(len(step)) if word not in NEVER]
            candidates += [(log_prob + step[word].item(), words, word) for word in allowed]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * beam]
        ended += [(log_prob / length**penalty, words) for log_prob, words, word in candidates[:beam] if word == END_ID]
        still_open = [(log_prob, [*words, word]) for log_prob, words, word in candidates if word != END_ID][:beam]
    return max(ended)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("end_bias", [0.0, 1.0, 2.0])
def test_the_winner_is_that_of_a_plain_search_that_never_stops_early(end_bias: float, penalty: float) -> None:
    for seed in range(8):
        decoder, beam = random_decoder(8, seed, end_bias=end_bias), 2 + seed % 3
        features = 3 * torch.randn(2, P, D)
        for image, hypotheses in zip(features, generate(decoder, features, beam, 8, penalty), strict=True):  # type: ignore[arg-type]
            score, words = plain_beam_search(decoder, image, beam, 8, penalty)
            assert hypotheses[0].score == pytest.approx(score, abs=1e-4)
            assert hypotheses[0].tokens == words


@pytest.mark.parametrize("seed", range(6))
def test_one_beam_is_greedy(seed: int) -> None:
    decoder, longest = random_decoder(12, seed), 10
    features = torch.randn(5, P, D)
    for image, (hypothesis,) in zip(features, generate(decoder, features, 1, longest), strict=True):  # type: ignore[arg-type]
        words: list[int] = []
        with torch.no_grad():
            while len(words) < longest:
                logits = decoder(image[None], torch.tensor([[[START_ID, *words]]]))[0, 0, -1]
                logits[NEVER] = -torch.inf
                if int(logits.argmax()) == END_ID:
                    break
                words.append(int(logits.argmax()))
        assert hypothesis.tokens == words


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_all_sentences_finds_them_all_in_order(seed: int, penalty: float) -> None:
    vocab_size, longest = 6, 4  # two words: 1 + 2 + 4 + 8 + 16 sentences
    decoder = random_decoder(vocab_size, seed)
    features = torch.randn(2, P, D)
    sentences = all_sentences(vocab_size, longest)
    found = generate(decoder, features, len(sentences) + 3, longest, penalty)  # type: ignore[arg-type]
    for image, hypotheses in zip(features, found, strict=True):
        scores = {tuple(words): teacher_forced(decoder, image, words) / (len(words) + 1) ** penalty for words in sentences}
        assert {tuple(h.tokens) for h in hypotheses} == scores.keys()
        assert [h.score for h in hypotheses] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-3)


class Stubborn:
    """A decoder with a fixed opinion of every word; knows nothing of features."""

    def __init__(self, log_probs: list[float]) -> None:
        self.logits = torch.tensor(log_probs)

    def __call__(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*tokens.shape, -1)

    def start(self, features: torch.Tensor) -> "Stubborn":
        return self

    def select(self, index: torch.Tensor) -> "Stubborn":
        return self

    def step(self, tokens: torch.Tensor, state: "Stubborn") -> tuple[torch.Tensor, "Stubborn", None]:
        return self.logits.expand(len(tokens), -1), self, None


@pytest.mark.parametrize("beam", [1, 4])
def test_a_sentence_that_would_never_end_is_ended(beam: int) -> None:
    found = generate(Stubborn([9.0, 9.0, -30.0, 9.0, 5.0, 1.0]), torch.zeros(2, P, D), beam, 7)
    for hypotheses in found:
        assert hypotheses[0].tokens == [4] * 7


def test_a_decoder_in_love_with_special_words_still_says_something_else() -> None:
    (hypotheses,) = generate(Stubborn([50.0, 50.0, 0.0, 50.0, 1.0]), torch.zeros(1, P, D), 3, 2)
    assert {tuple(h.tokens) for h in hypotheses} == {(), (4,), (4, 4)}


def test_length_penalty_decides_between_short_and_long() -> None:
    never = [-9.0, -9.0]
    decoder = Stubborn([*never, -1.2, -9.0, -0.4])  # <end> is unlikelier than going on
    lengths = [len(generate(decoder, torch.zeros(1, P, D), 8, 6, penalty)[0][0].tokens) for penalty in (0.0, 1.0)]
    assert lengths == [0, 6]
