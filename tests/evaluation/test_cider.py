"""The reward is CIDEr-D: pycocoevalcap, scoring one caption for each of the same images, says the same to 1e-6; the end is a word."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from data.vocab import tokenize
from evaluation.cider import CiderReward

words = st.sampled_from(["a", "dog", "cat", "man", "red", "runs", "on", "grass", "ball", "the", "beach", "two", "of"])
captions = st.lists(words, max_size=14).map(" ".join)
references_ = st.lists(st.lists(words, min_size=1, max_size=14).map(" ".join), min_size=1, max_size=5)


@given(st.lists(st.tuples(references_, captions), min_size=2, max_size=12))
def test_equals_pycocoevalcap_where_both_weigh_words_by_the_same_images(images: list[tuple[list[str], str]]) -> None:
    references = {f"{i}.jpg": captions for i, (captions, _) in enumerate(images)}
    said = {f"{i}.jpg": caption for i, (_, caption) in enumerate(images)}
    ended = {name: [f"{caption} <end>" for caption in captions] for name, captions in references.items()}
    _, expected = Cider().compute_score(ended, {name: [f"{caption} <end>"] for name, caption in said.items()})
    reward = CiderReward(references)
    found = [reward(name, tokenize(caption)) for name, caption in said.items()]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_sentence_that_stops_short_is_worth_less_than_one_that_ends() -> None:
    references = {
        "1.jpg": ["a dog runs on the grass"] * 2,
        "2.jpg": ["a man on a beach"] * 2,
        "3.jpg": ["two cats sleep"] * 2,
    }
    with_end = CiderReward(references)

    def without(name: str, words: list[str]) -> float:
        return float(
            Cider().compute_score(references, {other: [" ".join(words)] for other in references})[1][
                list(references).index(name)
            ]
        )

    bad, good = ["a", "dog", "runs", "on", "the"], ["a", "dog", "runs", "on", "grass"]
    assert with_end("1.jpg", good) - with_end("1.jpg", bad) > without("1.jpg", good) - without("1.jpg", bad)
    assert with_end("1.jpg", ["a", "dog", "runs", "on", "the", "grass"]) == pytest.approx(10.0)


def test_nothing_said_is_worth_nothing() -> None:
    assert CiderReward({"1.jpg": ["a dog"], "2.jpg": ["a cat"]})("1.jpg", [], ended=False) == 0.0
