"""Captions of a beam are chosen by what people wrote about similar training images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli import UserError
from data.ngrams import MAX_ORDER, TfIdf
from data.vocab import Vocabulary
from models import rerank
from models.decoding import Hypothesis
from models.rerank import Reranker, pool

DOGS, CATS = ["a red dog runs on the grass", "the dog runs"], ["a black cat sleeps on a chair", "the cat sleeps"]
CAPTIONS = [DOGS if number % 2 else CATS for number in range(20)]
VOCABULARY = Vocabulary.build([caption for its in CAPTIONS for caption in its], 1)


def features_of(kinds: list[int], seed: int = 0) -> torch.Tensor:
    """Grid features (B, 4, 6): the kind of an image is its greatest feature at one place."""
    features = torch.rand(len(kinds), 4, 6, generator=torch.Generator().manual_seed(seed)) * 0.1
    for image, kind in enumerate(kinds):
        features[image, image % 4, kind] = 1.0
    return features


@pytest.fixture
def reranker() -> Reranker:
    """Fitted to ten images of dogs and ten of cats."""
    return Reranker.fit(pool(features_of([number % 2 for number in range(20)])), CAPTIONS, VOCABULARY)


def hypothesis(caption: str, log_prob: float) -> Hypothesis:
    tokens = VOCABULARY.encode(caption)[1:-1]
    return Hypothesis(tokens, log_prob, log_prob / (len(tokens) + 1) ** 0.9)


def test_the_caption_of_similar_images_comes_first_although_it_is_less_probable(reranker: Reranker) -> None:
    beams = [hypothesis("a black cat sleeps", -1.0), hypothesis("a red dog runs", -3.0)]
    dog, cat = reranker.rank(features_of([1, 0], seed=1), [beams, beams])
    assert [VOCABULARY.decode(beam.tokens) for beam in dog] == ["a red dog runs", "a black cat sleeps"]
    assert [VOCABULARY.decode(beam.tokens) for beam in cat] == ["a black cat sleeps", "a red dog runs"]
    assert dog[0].log_prob == -3.0 and dog[0].score > dog[1].score


def test_weights_are_those_of_kernel_ridge_regression(reranker: Reranker) -> None:
    features = features_of([1], seed=2)
    nearest, weights = reranker.neighbours(features)
    known = torch.nn.functional.normalize(reranker.images.double(), dim=1)
    vector = torch.nn.functional.normalize((pool(features) - reranker.mean) @ reranker.projection.float(), dim=1)
    distances = torch.cdist(known, known) ** 2, torch.cdist(vector.double(), known)[0] ** 2
    kernel, its_kernel = ((-its / 2).exp() for its in distances)
    expected = torch.linalg.solve(kernel + rerank.RIDGE * torch.eye(20), its_kernel)
    assert weights[0] == pytest.approx(expected[nearest[0]].numpy(), abs=1e-4)


def test_expected_similarity_is_that_to_the_weighted_captions(reranker: Reranker) -> None:
    weights = np.linspace(-0.5, 1, 20).astype(np.float32)
    caption = "a red dog sleeps"
    tfidf = TfIdf(VOCABULARY.number([each for its in CAPTIONS for each in its]), [2] * 20)
    vectors = tfidf.unit_weights(tfidf.ngrams)
    own = tfidf.count(VOCABULARY.number([caption]))
    its_own = dict(zip(own.ids.tolist(), tfidf.unit_weights(own).tolist(), strict=True))
    total = 0.0
    for number in range(40):
        first, after = tfidf.ngrams.starts[[number * MAX_ORDER, (number + 1) * MAX_ORDER]]
        its = zip(tfidf.ngrams.ids[first:after].tolist(), vectors[first:after].tolist(), strict=True)
        total += float(weights[number // 2]) / 2 * sum(weight * its_own.get(ngram, 0.0) for ngram, weight in its)
    total *= np.exp(-((4 - reranker.usual_length) ** 2) / (2 * rerank.SIGMA**2))
    assert reranker.expected(weights, [VOCABULARY.encode(caption)[1:-1]]) == pytest.approx([total], rel=1e-2)


def test_an_image_does_not_depend_on_the_others_in_the_batch(reranker: Reranker) -> None:
    beams = [hypothesis("a black cat sleeps", -1.0), hypothesis("a red dog runs", -3.0), hypothesis("", -9.0)]
    features = features_of([1, 0, 1, 1], seed=3)
    together = reranker.rank(features, [beams] * 4)
    alone = [reranker.rank(features[i : i + 1], [beams])[0] for i in range(4)]
    assert [[b.tokens for b in its] for its in together] == [[b.tokens for b in its] for its in alone]


def test_n_grams_of_a_single_image_are_left_out() -> None:
    captions = [*CAPTIONS[:-1], ["a red dog runs on the moon", "the dog runs"]]
    vocabulary = Vocabulary.build([caption for its in captions for caption in its], 1)
    fitted = Reranker.fit(pool(features_of([number % 2 for number in range(20)])), captions, vocabulary)
    assert int(fitted.images_with.min()) >= rerank.MIN_IMAGES
    weights = np.ones(20, dtype=np.float32)
    moon, dog = (fitted.expected(weights, [vocabulary.encode(word)[1:-1]])[0] for word in ("moon", "dog"))
    assert moon == 0 < dog


def test_more_images_than_fit_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "MAX_IMAGES", 8)
    fitted = Reranker.fit(pool(features_of([number % 2 for number in range(20)])), CAPTIONS, VOCABULARY)
    assert len(fitted.images) == 8


def test_captions_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(UserError, match="nothing to rerank by"):
        Reranker.fit(pool(features_of([0])), [DOGS], VOCABULARY)


def changed(state: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    return {**state, **parts}


def test_a_damaged_state_is_refused_in_words(reranker: Reranker) -> None:
    state = reranker.state()
    assert Reranker.from_state(state, 6, "a.pth").state().keys() == state.keys()
    owners, keys = state["owners"], state["keys"]
    hostile: dict[str, Any] = {
        "must have": {"mean": state["mean"]},
        "mean must be": changed(state, mean=torch.zeros(7)),
        "images must be": changed(state, images=state["images"].float()),
        "sorted": changed(state, keys=keys.flip(0)),
        "each n-gram": changed(state, images_with=state["images_with"] + 1),
        "not there": changed(state, owners=torch.full_like(owners, 20)),
        "usual_length": changed(state, usual_length=0.0),
        "beams": changed(state, beams=10**6),
        "1 to": changed(state, owners=owners[:0], weights=state["weights"][:0]),
    }
    for words, each in hostile.items():
        with pytest.raises(UserError, match=words) as error:
            Reranker.from_state(each, 6, Path("a.pth"))
        assert "a.pth: 'rerank' is damaged" in str(error.value)
    with pytest.raises(UserError, match="projection"):
        Reranker.from_state(changed(state, mean=torch.zeros(5)), 5, "a.pth")
