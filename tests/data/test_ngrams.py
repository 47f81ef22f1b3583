"""The vectors of captions are tf-idf of n-grams."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from data.ngrams import TfIdf
from data.tokenized import TokenizedCaptions


def test_vectors_are_tf_idf(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [[["a", "dog", "a", "dog"], ["a"]], [["a", "cat"]]]
    captions: Sequence[Sequence[str]] = [caption for image in images for caption in image]
    tfidf = TfIdf(TokenizedCaptions.of(captions), [2, 1])
    assert tfidf.ngrams.norms.shape == (3, 4)
    assert tfidf.ngrams.starts.tolist() == [0, 2, 4, 6, 7, 8, 8, 8, 8, 10, 11, 11, 11]
    assert tfidf.ngrams.counts.tolist() == [2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]  # a dog, "a dog" "dog a", ...
    dog, pair = 2 * math.log(2), math.hypot(2 * math.log(2), math.log(2))  # "a" is about both images and weighs 0
    assert tfidf.ngrams.norms[0] == pytest.approx([dog, pair, math.hypot(math.log(2), math.log(2)), math.log(2)])
    monkeypatch.setattr("data.ngrams.AT_ONCE", 1)  # the images one by one
    for same in (tfidf.transform(captions), TfIdf(TokenizedCaptions.of(captions), [2, 1]).ngrams):
        for name in ("ids", "counts", "starts", "norms"):
            assert np.array_equal(getattr(same, name), getattr(tfidf.ngrams, name))
    assert -1 in tfidf.transform([["a", "cow"]]).ids and -1 not in tfidf.ngrams.ids
