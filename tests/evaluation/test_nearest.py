"""The consensus caption of the nearest training images."""

from collections import Counter
from functools import cache
from math import log, sqrt
from pathlib import Path

import pytest
import torch

from data.captions import read_captions
from data.features import FeatureCache
from data.tokenizer import WORDS
from data.transforms import Transform
from evaluation.nearest import nearest_captions, pooled_features
from tests.support.helpers import ROOT, draw

CAPTIONS = [
    ["a dog runs on the grass", "a brown dog runs", "an animal"],
    ["the dog runs on the grass", "it is green outside"],
    ["a red bus in town", "a bus"],
    ["two red buses"],
]


@cache
def ngrams(caption: str, order: int) -> Counter[tuple[str, ...]]:
    words = WORDS.tokenize(caption)
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def similarity(one: str, other: str, captions: list[list[str]]) -> float:
    """CIDEr's similarity, computed directly: the mean of four cosines of tf-idf vectors."""
    total = 0.0
    for order in (1, 2, 3, 4):
        vectors = []
        for caption in (one, other):
            weights = {}
            for ngram, count in ngrams(caption, order).items():
                images = sum(any(ngram in ngrams(caption, order) for caption in image) for image in captions)
                weights[ngram] = count * log(len(captions) / images)
            vectors.append(weights)
        lengths = sqrt(sum(w * w for w in vectors[0].values())) * sqrt(sum(w * w for w in vectors[1].values()))
        total += (
            sum(weight * vectors[1].get(ngram, 0) for ngram, weight in vectors[0].items()) / lengths if lengths else 0
        )
    return total / 4


def test_the_caption_most_similar_to_the_others_is_chosen() -> None:
    seen = torch.eye(4)
    images = torch.tensor([[0.8, 0.6, 0, 0], [0, 0, 0.6, 0.8]])
    assert nearest_captions(images, seen, CAPTIONS, neighbours=2) == ["a dog runs on the grass", "a red bus in town"]
    assert nearest_captions(images[:1], seen, [["a dog"], ["..."], ["a cat"], ["a cow"]], neighbours=1) == ["a dog"]


def test_of_equal_or_empty_captions_the_first_is_chosen() -> None:
    assert nearest_captions(torch.eye(2), torch.eye(2), [["...", "!"], ["a b", "b a", "a b"]], neighbours=1) == [
        "...",
        "a b",
    ]


def test_a_caption_is_not_compared_with_itself() -> None:
    captions = [
        ["a lone cat sleeps", "dogs", "dogs"],
        ["a bus"],
    ]  # a caption of one word is less similar to itself: it has no 2-grams
    assert nearest_captions(torch.eye(2)[:1], torch.eye(2), captions, neighbours=1) == ["dogs"]


def test_it_is_the_consensus_of_the_paper() -> None:
    table = read_captions(ROOT / "captions.csv", None)
    captions = [list(group)[:3] for _, group in table.groupby("image")["caption"]][::150]  # 6 images
    seen = torch.eye(len(captions))
    images = torch.tensor([[3.0, 2, 1, 0, 0, 0], [0, 1, 0, 3, 0, 2]])
    for image, caption in zip(images, nearest_captions(images, seen, captions, neighbours=3), strict=True):
        candidates = [caption for index in image.argsort(descending=True)[:3] for caption in captions[index]]
        sums = [
            sum(similarity(one, other, captions) for place, other in enumerate(candidates) if place != here)
            for here, one in enumerate(candidates)
        ]
        assert sums[candidates.index(caption)] == pytest.approx(max(sums), rel=1e-6)


def test_pooled_features_have_length_one(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{colour}.png", "circle", colour) for colour in ("red", "blue")]
    features = FeatureCache(
        tmp_path / "cache",
        lambda images: images.flatten(2).transpose(1, 2)[:, ::7],
        {"encoder": "none"},
        Transform(14),
    )
    features.build(paths)
    pooled = pooled_features(features, paths)
    assert pooled.shape == (2, 3) and torch.allclose(pooled.norm(dim=1), torch.ones(2))
    assert torch.allclose(pooled[0] * features[paths[0]].float().mean(0).norm(), features[paths[0]].float().mean(0))
