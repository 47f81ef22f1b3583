"""models/decoding.py: beam search and sampling, for one image and for a batch, with the probabilities of the model."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID
from models import decoding
from models.attention import Memory
from models.decoding import Hypothesis, attention_per_word, generate, random_numbers, sample
from models.interfaces import WordDecoder
from tests.support.decoders import padded_logits, small_decoder
from tests.support.helpers import DECODERS

D, P = 8, 4  # encoder width, grid positions
NEVER = [PAD_ID, START_ID, UNK_ID]


def random_decoder(vocab_size: int, seed: int = 0, name: str = "lstm", end_bias: float = 0.0) -> WordDecoder:
    """A decoder whose tokens differ in probability; in a fresh one all are about equal and few captions end."""
    torch.manual_seed(seed)
    decoder = small_decoder(name, vocab_size, D, hidden_size=16)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3.0)
            if parameter.shape == (vocab_size,):  # the bias of the output layer
                parameter[END_ID] += end_bias
    return decoder


def teacher_forced(decoder: WordDecoder, features: torch.Tensor, tokens: list[int]) -> float:
    """Log-probability of the tokens and <end>, by one forward pass; features (P, D)."""
    with torch.no_grad():
        log_prob = padded_logits(decoder, features[None], torch.tensor([[[START_ID, *tokens]]]))[0, 0].log_softmax(-1)
    return sum(log_prob[t, token].item() for t, token in enumerate([*tokens, END_ID]))


def all_sequences(vocab_size: int, max_length: int) -> list[list[int]]:
    tokens = range(UNK_ID + 1, vocab_size)
    return [list(sequence) for length in range(max_length + 1) for sequence in itertools.product(tokens, repeat=length)]


def assert_valid(
    decoder: WordDecoder, features: torch.Tensor, found: list[Hypothesis], beam: int, longest: int, penalty: float
) -> None:
    """Check the properties that the hypotheses of one image have with every decoder."""
    assert 1 <= len(found) <= beam
    assert len({tuple(h.tokens) for h in found}) == len(found)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for h in found:
        assert len(h.tokens) <= longest
        assert not {*NEVER, END_ID} & set(h.tokens)
        assert h.log_prob == pytest.approx(teacher_forced(decoder, features, h.tokens), abs=1e-3)
        assert h.score == pytest.approx(h.log_prob / (len(h.tokens) + 1) ** penalty, rel=1e-4)


@settings(max_examples=40)
@given(
    vocab_size=st.integers(5, 9),
    beam=st.integers(1, 12),
    longest=st.integers(1, 6),
    images=st.integers(1, 3),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    seed=st.integers(0, 1000),
    name=st.sampled_from(DECODERS),
)
def test_hypotheses_are_valid_for_all_sizes(
    vocab_size: int, beam: int, longest: int, images: int, penalty: float, seed: int, name: str
) -> None:
    decoder = random_decoder(vocab_size, seed, name)
    features = torch.randn(images, P, D)
    found = generate(decoder, features, beam, longest, penalty)
    assert len(found) == images
    for image, hypotheses in zip(features, found, strict=True):
        assert_valid(decoder, image, hypotheses, beam, longest, penalty)


@pytest.mark.parametrize(("beam", "end_bias"), [(1, 0.0), (3, 0.5), (5, 1.0)])
@pytest.mark.parametrize("name", DECODERS)
def test_an_image_gets_the_same_hypotheses_alone_and_in_a_batch(beam: int, end_bias: float, name: str) -> None:
    winners = set()
    for seed, penalty in enumerate((0.3, 0.7, 2.0)):
        decoder, features = random_decoder(20, seed, name, end_bias), 3 * torch.randn(6, P, D)
        together = generate(decoder, features, beam, 12, penalty)
        for image, hypotheses in zip(features, together, strict=True):
            (alone,) = generate(decoder, image[None], beam, 12, penalty)
            assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
            assert [h.score for h in alone] == pytest.approx([h.score for h in hypotheses], rel=1e-5, abs=1e-4)
        winners |= {tuple(hypotheses[0].tokens) for hypotheses in together}
    assert len(winners) > 6  # captions depend on the image


def plain_beam_search(
    decoder: WordDecoder, image: torch.Tensor, beam: int, longest: int, penalty: float
) -> tuple[float, list[int]]:
    """Score and tokens of the best caption, found one hypothesis and one token at a time, never stopping early."""
    still_open: list[tuple[float, list[int]]] = [(0.0, [])]
    ended = []
    for length in range(1, longest + 2):
        candidates = []
        for log_prob, tokens in still_open:
            with torch.no_grad():
                step = padded_logits(decoder, image[None], torch.tensor([[[START_ID, *tokens]]]))[0, 0, -1].log_softmax(
                    -1
                )
            allowed = [END_ID] if length > longest else [token for token in range(len(step)) if token not in NEVER]
            candidates += [(log_prob + step[token].item(), tokens, token) for token in allowed]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * beam]
        ended += [
            (log_prob / length**penalty, tokens) for log_prob, tokens, token in candidates[:beam] if token == END_ID
        ]
        still_open = [(log_prob, [*tokens, token]) for log_prob, tokens, token in candidates if token != END_ID][:beam]
    return max(ended)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("end_bias", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", DECODERS)
def test_the_best_hypothesis_is_that_of_a_plain_search_without_early_stopping(
    name: str, end_bias: float, penalty: float
) -> None:
    for seed, beam in enumerate((2, 3, 4)):
        decoder, image = random_decoder(8, seed, name, end_bias), 3 * torch.randn(P, D)
        score, tokens = plain_beam_search(decoder, image, beam, 8, penalty)
        ((best, *_),) = generate(decoder, image[None], beam, 8, penalty)
        assert best.score == pytest.approx(score, rel=2e-5, abs=1e-4) and best.tokens == tokens


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", DECODERS)
def test_beam_size_1_is_greedy_decoding(name: str, seed: int) -> None:
    decoder, longest = random_decoder(12, seed, name), 10
    features = torch.randn(5, P, D)
    for image, (hypothesis,) in zip(features, generate(decoder, features, 1, longest), strict=True):
        tokens: list[int] = []
        with torch.no_grad():
            while len(tokens) < longest:
                logits = padded_logits(decoder, image[None], torch.tensor([[[START_ID, *tokens]]]))[0, 0, -1]
                logits[NEVER] = -torch.inf
                if int(logits.argmax()) == END_ID:
                    break
                tokens.append(int(logits.argmax()))
        assert hypothesis.tokens == tokens


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("name", DECODERS)
def test_a_beam_as_wide_as_all_sequences_finds_them_all_in_order(name: str, penalty: float) -> None:
    vocab_size, longest = 6, 4  # two tokens: 1 + 2 + 4 + 8 + 16 sequences
    decoder = random_decoder(vocab_size, name=name)
    features = torch.randn(2, P, D)
    sequences = all_sequences(vocab_size, longest)
    found = generate(decoder, features, len(sequences) + 3, longest, penalty)
    for image, hypotheses in zip(features, found, strict=True):
        scores = {
            tuple(tokens): teacher_forced(decoder, image, tokens) / (len(tokens) + 1) ** penalty for tokens in sequences
        }
        assert {tuple(h.tokens) for h in hypotheses} == scores.keys()
        assert [h.score for h in hypotheses] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-3)


class FixedDecoder:
    """A decoder that predicts the same logits at every step, whatever the image and the tokens before."""

    def __init__(self, log_probs: list[float]) -> None:
        self.logits = torch.tensor(log_probs)

    def start(self, features: torch.Tensor) -> "FixedDecoder":
        return self

    def select(self, index: torch.Tensor, per_group: int) -> "FixedDecoder":
        return self

    def step(self, tokens: torch.Tensor, state: "FixedDecoder") -> tuple[torch.Tensor, "FixedDecoder", None]:
        return self.logits.expand(len(tokens), -1), self, None


@pytest.mark.parametrize("beam", [1, 4])
def test_captions_without_an_end_stop_at_the_maximum_length(beam: int) -> None:
    found = generate(FixedDecoder([9.0, 9.0, -30.0, 9.0, 5.0, 1.0]), torch.zeros(2, P, D), beam, 7)
    for hypotheses in found:
        assert hypotheses[0].tokens == [4] * 7


def test_special_tokens_are_never_generated_even_if_likeliest() -> None:
    (hypotheses,) = generate(FixedDecoder([50.0, 50.0, 0.0, 50.0, 1.0]), torch.zeros(1, P, D), 3, 2)
    assert {tuple(h.tokens) for h in hypotheses} == {(), (4,), (4, 4)}


def test_length_penalty_decides_between_short_and_long() -> None:
    never = [-9.0, -9.0]
    decoder = FixedDecoder([*never, -1.2, -9.0, -0.4])  # <end> is less probable than another token
    lengths = [len(generate(decoder, torch.zeros(1, P, D), 8, 6, penalty)[0][0].tokens) for penalty in (0.0, 1.0)]
    assert lengths == [0, 6]


# --------------------------------------------------------------------------------------------------- n-gram blocking


def repeats(tokens: list[int], n: int) -> bool:
    grams = [tuple(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]
    return len(set(grams)) < len(grams)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("beam", [1, 4])
def test_no_ngram_is_generated_twice(n: int, beam: int) -> None:
    repeated = 0
    for seed in range(12):
        decoder, features = random_decoder(7, seed, end_bias=-2.0), 3 * torch.randn(3, P, D)
        free = generate(decoder, features, beam, 12)
        blocked = generate(decoder, features, beam, 12, no_repeat_ngram=n)
        for before, after in zip(free, blocked, strict=True):
            assert not any(repeats(h.tokens, n) for h in after)
            if beam == 1 and not repeats(before[0].tokens, n):
                assert before[0].tokens == after[0].tokens
            repeated += repeats(before[0].tokens, n)
    assert repeated > 10  # blocking made a difference


def test_blocking_gives_the_best_sequence_without_repetition() -> None:
    vocab_size, longest = 6, 4
    decoder, features = random_decoder(vocab_size, 1), torch.randn(2, P, D)
    sequences = all_sequences(vocab_size, longest)
    for image, found in zip(
        features, generate(decoder, features, len(sequences), longest, 0.7, no_repeat_ngram=2), strict=True
    ):
        fresh = [tokens for tokens in sequences if not repeats(tokens, 2)]
        scores = {tuple(tokens): teacher_forced(decoder, image, tokens) / (len(tokens) + 1) ** 0.7 for tokens in fresh}
        assert {tuple(h.tokens) for h in found} == scores.keys()
        assert found[0].score == pytest.approx(max(scores.values()), abs=1e-3)


# --------------------------------------------------------------------------------------------------- sampling


def numbers(images: int, count: int, longest: int, seed: int = 0) -> torch.Tensor:
    return random_numbers(range(seed, seed + images), count, longest)


@pytest.mark.parametrize("name", DECODERS)
def test_samples_have_the_models_probabilities_and_are_repeatable_with_the_seed(name: str) -> None:
    decoder, features = random_decoder(9, 3, name), torch.randn(4, P, D)
    found = sample(decoder, features, numbers(4, 5, 6), temperature=1.3)
    for image, hypotheses in zip(features, found, strict=True):
        assert len(hypotheses) == 5
        for h in hypotheses:
            assert len(h.tokens) <= 6 and not {*NEVER, END_ID} & set(h.tokens)
            assert h.log_prob == pytest.approx(teacher_forced(decoder, image, h.tokens), abs=1e-3)
        assert [h.log_prob for h in hypotheses] == sorted((h.log_prob for h in hypotheses), reverse=True)
    assert found == sample(decoder, features, numbers(4, 5, 6), temperature=1.3)
    assert found != sample(decoder, features, numbers(4, 5, 6, seed=1), temperature=1.3)
    (alone,) = sample(decoder, features[2:3], numbers(4, 5, 6)[2:3], temperature=1.3)
    assert [h.tokens for h in alone] == [h.tokens for h in found[2]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.25, 0.09, 0.0225, 0.0025]),
    ],
)
def test_tokens_are_sampled_with_their_probabilities(options: dict[str, float], expected: list[float]) -> None:
    never, probabilities = [5.0, 5.0, -30.0, 5.0], [0.5, 0.3, 0.15, 0.05]
    decoder = FixedDecoder([*never, *torch.tensor(probabilities).log().tolist()])
    (found,) = sample(decoder, torch.zeros(1, P, D), numbers(1, 4000, 1), **options)
    counts = torch.bincount(torch.tensor([h.tokens[0] for h in found]) - 4, minlength=4) / len(found)
    torch.testing.assert_close(counts, torch.tensor(expected) / sum(expected), atol=0.03, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_of_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        sample(FixedDecoder([0.0] * 6), torch.zeros(1, P, D), numbers(1, 2, 3), temperature=temperature)


# --------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("name", DECODERS)
def test_attention_per_word_is_a_distribution_for_each_token_of_each_sequence(name: str) -> None:
    decoder, features = random_decoder(9, 2, name), 3 * torch.randn(3, P, D)
    sequences = [[4, 5, 6, 7], [], [8, 4]]
    maps = attention_per_word(decoder, features, sequences)
    if name == "lstm":
        assert maps is None
        return
    assert maps is not None and [tuple(weights.shape) for weights in maps] == [(4, P), (0, P), (2, P)]
    for weights in maps:
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    (alone,) = attention_per_word(decoder, features[2:], sequences[2:]) or []
    torch.testing.assert_close(alone, maps[2], rtol=1e-4, atol=1e-5)
    moved = attention_per_word(decoder, features.roll(1, dims=1), sequences)
    assert moved is not None
    torch.testing.assert_close(
        moved[0], maps[0].roll(1, dims=1), rtol=1e-3, atol=1e-4
    )  # attention moves with the features


@given(st.integers(1, 4), st.integers(1, 3), st.data())
def test_memory_gives_each_sequence_its_own_image(images: int, beams: int, data: st.DataObject) -> None:
    keys = torch.arange(images)[:, None, None].float()
    memory = Memory(keys, keys).select(torch.arange(images).repeat_interleave(beams), beams)
    kept = data.draw(st.lists(st.integers(0, images - 1), min_size=1, max_size=images, unique=True).map(sorted))
    beam = data.draw(st.lists(st.integers(0, beams - 1), min_size=len(kept) * beams, max_size=len(kept) * beams))
    index = torch.tensor(kept).repeat_interleave(beams) * beams + torch.tensor(beam)
    memory = memory.select(index, beams)
    assert memory.keys.repeat_interleave(memory.per_group, dim=0).flatten().tolist() == (index // beams).tolist()


def test_hypotheses_of_an_image_share_its_memory() -> None:
    keys = torch.randn(3, P, D)
    memory = Memory(keys, keys).select(torch.arange(3).repeat_interleave(5), 5)
    memory = memory.select(torch.tensor([1, 0, 0, 3, 4, 5, 5, 5, 9, 6, 10, 14, 13, 12, 11]), 5)
    assert memory.keys is keys and memory.per_group == 5


def test_captions_of_an_image_in_several_groups_read_copies_of_its_memory() -> None:
    keys = torch.arange(2)[:, None, None].float()
    memory = Memory(keys, keys).select(torch.tensor([0, 0, 0, 0, 1, 1]), 2)
    assert memory.keys.flatten().tolist() == [0, 0, 1] and memory.per_group == 2


@pytest.mark.parametrize("beam", [1, 3, 5])
@pytest.mark.parametrize("name", DECODERS)
def test_asking_less_often_which_images_are_done_changes_no_caption(
    name: str, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = set()
    for seed, penalty in enumerate((0.0, 0.7, 0.7, 1.0)):
        decoder, features = random_decoder(20, seed, name, end_bias=1.0), 3 * torch.randn(8, P, D)
        found = []
        for words in ({"cpu": 1}, {}):
            monkeypatch.setattr(decoding, "WORDS_BETWEEN", words)
            found.append(generate(decoder, features, beam, 13, penalty) + sample(decoder, features, numbers(8, 3, 13)))
        assert [[h.tokens for h in image] for image in found[0]] == [[h.tokens for h in image] for image in found[1]]
        lengths |= {len(image[0].tokens) for image in found[0][:8]}
    assert len(lengths) > 2  # the searches end at different words
