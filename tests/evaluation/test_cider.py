"""The reward equals pycocoevalcap's CIDEr-D of the same images to 1e-6; the end of a caption counts as a word."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from data.captions import read_captions, references_of
from data.tokenizer import WORDS
from evaluation.cider import CiderReward
from tests.support.helpers import ROOT

TOKENS = st.sampled_from(["a", "dog", "cat", "man", "red", "runs", "on", "grass", "ball", "the", "beach", "two", "of"])
CAPTIONS = st.lists(TOKENS, max_size=14).map(" ".join)
REFERENCES = st.lists(st.lists(TOKENS, min_size=1, max_size=14).map(" ".join), min_size=1, max_size=5)


@given(st.lists(st.tuples(REFERENCES, CAPTIONS), min_size=2, max_size=12))
def test_equals_pycocoevalcap_with_document_frequencies_of_the_same_images(images: list[tuple[list[str], str]]) -> None:
    references = {f"{i}.jpg": captions for i, (captions, _) in enumerate(images)}
    generated = {f"{i}.jpg": caption for i, (_, caption) in enumerate(images)}
    ended = {name: [f"{caption} <end>" for caption in captions] for name, captions in references.items()}
    _, expected = Cider().compute_score(ended, {name: [f"{caption} <end>"] for name, caption in generated.items()})
    reward = CiderReward(references)
    found = [reward(name, WORDS.tokenize(caption)) for name, caption in generated.items()]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_incomplete_caption_has_a_lower_reward_than_a_complete_one() -> None:
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


def test_an_empty_caption_has_reward_zero() -> None:
    assert CiderReward({"1.jpg": ["a dog"], "2.jpg": ["a cat"]})("1.jpg", [], ended=False) == 0.0


def test_words_outside_the_references_lengthen_the_vector() -> None:
    reward = CiderReward({"1.jpg": ["a red dog"], "2.jpg": ["a cat"]})
    scores = [reward("1.jpg", words) for words in (["red", "dog"], ["red", "dog", "zzz"], ["red", "dog", "zzz", "yyy"])]
    assert scores[0] > scores[1] > scores[2] > 0
    assert reward("1.jpg", ["zzz", "yyy"], ended=False) == 0


def test_scores_of_many_captions_are_those_of_each() -> None:
    references = {"1.jpg": ["a red dog", "a dog", "a dog a dog a dog"], "2.jpg": ["a cat"], "3.jpg": ["a red cat", ""]}
    reward = CiderReward(references)
    captions = ["a red dog", "", "zzz yyy", "a cat", "a dog a dog zzz", "a"]
    names = ["1.jpg", "1.jpg", "3.jpg", "2.jpg", "1.jpg", "3.jpg"]
    ended = [True, False, True, True, False, False]
    each = [reward(n, c.split(), ended=e) for n, c, e in zip(names, captions, ended, strict=True)]
    assert reward.scores(names, [caption.split() for caption in captions], ended).tolist() == each
    assert each[0] > each[4] > 0 == each[1] == each[2]


def test_a_caption_of_a_single_word_many_times() -> None:
    reward = CiderReward({"1.jpg": ["dog " * 70_000], "2.jpg": ["a cat"]})
    assert reward.tfidf.ngrams.counts.max() == 70_000
    assert reward("1.jpg", ["dog"] * 70_000) == pytest.approx(10.0)


def test_rewards_need_little_memory_and_time() -> None:
    references = references_of(read_captions(ROOT / "captions.csv", 0), "train")
    captions = [caption for its in references.values() for caption in its]
    tokens = WORDS.tokenize_all(captions)
    tracemalloc.start()
    reward = CiderReward(references)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(captions) < 600  # bytes; they were 1,400 with the tf-idf of every entry
    assert most / len(captions) < 3000
    names, words = list(references), [tokens[number] for number in range(len(captions))]
    began = time.process_time()
    reward.scores([names[number % len(names)] for number in range(1000)], words[:1000], [True] * 1000)
    assert (time.process_time() - began) / 1000 < 0.5e-3  # 0.05 ms on a quiet machine
