"""models/choices.py: what each word of a caption was chosen from."""

import math
from collections.abc import Callable

import pytest
import torch

from config import Config
from data.vocab import END_ID, SPECIAL, Vocabulary
from models.captioner import Captioner
from models.choices import OTHERS, Choice, piece_choices, token_choices
from models.decoding import generate, read_again
from tests.support.helpers import DECODERS, tiny_decoder

WORDS = ["a", "red", "circle", "blue", "square"]


@pytest.mark.parametrize("name", DECODERS)
def test_the_probabilities_of_the_words_and_the_end_multiply_to_that_of_the_caption(
    tiny_config: Callable[..., Config], name: str
) -> None:
    config = tiny_config(tiny_decoder(name), "--data.image_size=64")
    captioner = Captioner(config, Vocabulary([*SPECIAL, *WORDS])).eval()
    features = 3 * torch.randn(3, 4, captioner.encoder.features_size)
    best = [beams[0] for beams in generate(captioner.decoder, features, beam_size=3)]
    for hypothesis, (logits, attention) in zip(
        best, read_again(captioner.decoder, features, [found.tokens for found in best]), strict=True
    ):
        choices = token_choices(logits, hypothesis.tokens, captioner.vocabulary)
        end = logits[-1].log_softmax(dim=-1)[END_ID].item()
        total = sum(math.log(choice.probability) for choice in choices) + end
        assert total == pytest.approx(hypothesis.log_prob, abs=1e-3)
        assert (attention is None) == (name == "lstm")


def test_others_are_the_most_probable_words_without_the_chosen_and_the_special_ones() -> None:
    vocabulary = Vocabulary([*SPECIAL, *WORDS])
    logits = torch.tensor([[9.0, 9, 3, 9, 4, 2, 1, 0, -1], [0.0, 0, 0, 0, 0, 0, 0, 0, 0]])
    (choice,) = token_choices(logits, [vocabulary.words.index("red")], vocabulary)
    assert [word for word, _ in choice.others] == ["a", "", "circle"] and len(choice.others) == OTHERS
    weights = logits[0].softmax(dim=-1).tolist()
    assert choice.probability == pytest.approx(weights[5])
    assert [probability for _, probability in choice.others] == pytest.approx([weights[4], weights[2], weights[6]])


def test_a_word_of_two_tokens_has_the_product_of_their_probabilities() -> None:
    first, second, last = Choice(0.5, (("dog", 0.3),)), Choice(0.4, ()), Choice(0.9, (("", 0.1),))
    assert piece_choices([first, second, last], [0, 0, 1]) == (Choice(0.2, first.others), last)
    assert piece_choices([], []) == ()
