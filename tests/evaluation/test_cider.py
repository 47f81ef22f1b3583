"""The reward equals pycocoevalcap's CIDEr-D of the same images to 1e-6; the end of a caption counts as a word."""

import math
import time
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from data.captions import read_captions, references_of
from data.tokenizer import WORDS
from evaluation.cider import CiderReward, TfIdf
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


def test_vectors_are_tf_idf() -> None:
    images = [[["a", "dog", "a", "dog"], ["a"]], [["a", "cat"]]]
    tfidf = TfIdf(images)
    assert tfidf.vectors.norms.shape == (3, 4) and tfidf.vectors.starts.tolist() == [
        0,
        2,
        4,
        6,
        7,
        8,
        8,
        8,
        8,
        10,
        11,
        11,
        11,
    ]
    dog, pair = 2 * math.log(2), math.hypot(2 * math.log(2), math.log(2))  # "a" is about both images and weighs 0
    assert tfidf.vectors.norms[0] == pytest.approx([dog, pair, math.hypot(math.log(2), math.log(2)), math.log(2)])
    for name in ("ids", "weights", "starts", "norms"):
        captions: Sequence[Sequence[str]] = [caption for image in images for caption in image]
        assert np.array_equal(getattr(tfidf.transform(captions), name), getattr(tfidf.vectors, name))
    assert -1 in tfidf.transform([["a", "cow"]]).ids and -1 not in tfidf.vectors.ids


def test_rewards_need_little_memory_and_time() -> None:
    references = references_of(read_captions(ROOT / "captions.csv", 0), "train")
    tracemalloc.start()
    reward = CiderReward(references)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / sum(map(len, references.values())) < 2000  # bytes a caption; a dict of tuples each took 9 KB
    name, words = next(iter(references)), WORDS.tokenize(next(iter(references.values()))[0])
    began = time.process_time()
    for _ in range(200):
        reward(name, words)
    assert (time.process_time() - began) / 200 < 2e-3  # 0.15 ms on a quiet machine
