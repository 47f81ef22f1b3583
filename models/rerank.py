"""Choose among the captions of a beam by what people wrote about similar images.

Beam search knows many good captions, but its log-probability does not tell which is best. Nor are the references of a
new image known; but the mean of their tf-idf vectors, in which CIDEr compares captions, can be predicted from the
image by kernel ridge regression (Saunders, Gammerman and Vovk 1998) on the training images most similar to it:

    k(x, y) = exp(-|x - y|^2 / 2)                     x, y: unit vectors of images
    w(x) = (K + RIDGE * I)^-1 k(x)                    one weight for each of the NEIGHBOURS; K: k of all their pairs
    v(x) = sum_i w_i(x) * mean of the vectors of the captions of image i
    expected(c) = <vector of c, v(x)> * exp(-(|c| - usual length)^2 / (2 * SIGMA^2))
    score(c) = log p(c) / |c|^a + STRENGTH * expected(c)

Devlin et al. 2015 (https://arxiv.org/abs/1505.04467) compare captions with those of the nearest training images, all
with the same weight; here images that look alike share theirs. What each part is worth: docs/experiments.md.

Shape letters: B images to caption, P grid positions of each, D encoder width, N training images, M neighbours, d
dimensions of the vectors of images, K n-grams, E pairs of an n-gram and a training image whose captions have it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from cli import UserError
from config import MAX_BEAM_SIZE
from data.ngrams import MAX_ORDER, Frequencies, TfIdf
from data.tokenized import TokenizedCaptions, ranges
from data.vocab import Vocabulary
from models.decoding import Hypothesis

DIMENSIONS = 256  # d; 512 are no better, 128 cost 0.3 CIDEr points
NEIGHBOURS = 1000  # M: 300 cost 2 CIDEr points, 2,000 bring 0.1 and take seven times as long
RIDGE = 0.2  # 0.1 to 0.4 make no difference
SIGMA = 6.0  # words, as in CIDEr-D: a caption of unusual length matches few references
STRENGTH = 100.0  # 60 to 250 make no difference
BEAMS = 20  # hypotheses to choose from; of 5 the best one is seldom better than the most probable
MIN_IMAGES = 2  # training images that must have an n-gram for it to count; those of one image say little about others
MAX_IMAGES = 2**15  # N, for 16-bit numbers; of more training images, evenly spaced ones are used
QUANTIZED = 127  # the greatest of 8 bits
SHAPES = {  # of the parts of a Reranker, in shape letters
    "mean": ("D", torch.float32),
    "projection": ("Dd", torch.float16),
    "images": ("Nd", torch.int8),
    "keys": ("K", torch.int64),
    "images_with": ("K", torch.int32),
    "owners": ("E", torch.int16),
    "weights": ("E", torch.float16),
}


@dataclass(frozen=True)
class Reranker:
    """What is known about the training images; part of a checkpoint.

    Args:
        mean: (D,) of the pooled features of the training images.
        projection: (D, d) fp16, onto their principal components.
        images: (N, d) int8, their vectors up to a factor.
        keys: (K,) int64, the sorted keys of the n-grams as if they were unsigned, see ``Frequencies``.
        images_with: (K,) int32, how many training images have each.
        owners: (E,) int16, for each n-gram the training images that have it.
        weights: (E,) fp16, the element of the mean vector of that image's captions.
        usual_length: of a caption, in words.
        beams: hypotheses to choose from, where no other number is asked for.
    """

    mean: torch.Tensor
    projection: torch.Tensor
    images: torch.Tensor
    keys: torch.Tensor
    images_with: torch.Tensor
    owners: torch.Tensor
    weights: torch.Tensor
    usual_length: float
    beams: int = BEAMS

    @classmethod
    def fit(cls, pooled: torch.Tensor, captions: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Self:
        """From the training images.

        Args:
            pooled: (N, D), see ``pool``.
            captions: of each image.

        Raises:
            UserError: their captions have nothing in common.
        """
        if len(pooled) > MAX_IMAGES:
            chosen = np.linspace(0, len(pooled) - 1, MAX_IMAGES).round().astype(int).tolist()
            pooled, captions = pooled[chosen], [captions[number] for number in chosen]
        mean = pooled.mean(dim=0)
        centred = pooled - mean
        _, components = torch.linalg.eigh(centred.T @ centred)  # by rising variance
        projection = components[:, -DIMENSIONS:].half()
        images = torch.nn.functional.normalize(centred @ projection.float(), dim=1)
        sizes = [len(its_captions) for its_captions in captions]
        numbered = vocabulary.number([caption for its_captions in captions for caption in its_captions])
        tfidf = TfIdf(numbered, sizes)
        ids, owners, weights = _mean_vectors(tfidf, np.array(sizes))
        common = tfidf.images_with >= MIN_IMAGES
        if not common.any():
            raise UserError(f"no words in the captions of {MIN_IMAGES} training images: nothing to rerank by. Use more")
        kept = common[ids]
        return cls(
            mean,
            projection,
            (images / images.abs().max() * QUANTIZED).round().to(torch.int8),
            torch.from_numpy(tfidf.keys[common].view(np.int64)),
            torch.from_numpy(tfidf.images_with[common].astype(np.int32)),
            torch.from_numpy(owners[kept].astype(np.int16)),
            torch.from_numpy(weights[kept].astype(np.float16)),
            float(numbered.lengths.mean()),
        )

    def state(self) -> dict[str, Any]:
        """Tensors and a number, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], features_size: int, name: str | Path) -> Self:
        """From ``state``, which a stranger may have written.

        Args:
            features_size: D of the encoder.
            name: of the file, for the message.

        Raises:
            UserError: parts are missing, have other types, or do not fit each other or the encoder.
        """
        if why := _problem(state, features_size):
            raise UserError(f"{name}: 'rerank' is damaged ({why}). Copy the file again, or: python -m tools.fit_rerank")
        return cls(**state)

    @cached_property
    def _frequencies(self) -> Frequencies:
        return Frequencies(self.keys.numpy().view(np.uint64), self.images_with.numpy(), len(self.images))

    @cached_property
    def _starts(self) -> np.ndarray:
        """The entries [starts[k], starts[k + 1]) are of n-gram k; (K + 1,)."""
        return np.concatenate([[0], self.images_with.numpy().cumsum()])

    @cached_property
    def _known(self) -> torch.Tensor:
        """The vectors of the training images (N, d), of length 1."""
        return torch.nn.functional.normalize(self.images.float(), dim=1)

    def neighbours(self, features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The training images most similar to each of B images, and their weights w(x): (B, M), (B, M).

        Args:
            features: (B, P, D), without those of mirror images, on any device.
        """
        centred = pool(features.float().cpu()) - self.mean
        vectors = torch.nn.functional.normalize(centred @ self.projection.float(), dim=1)
        cosines, nearest = (vectors @ self._known.T).topk(min(NEIGHBOURS, len(self._known)), dim=1)
        weights = torch.empty_like(cosines)
        for row, numbers, its_cosines in zip(weights, nearest, cosines, strict=True):  # one by one, as K takes 4 MB
            known = self._known[numbers]
            kernel = _kernel(known @ known.T) + RIDGE * torch.eye(len(known))
            row[:] = torch.cholesky_solve(_kernel(its_cosines)[:, None], torch.linalg.cholesky(kernel))[:, 0]
        return nearest.numpy(), weights.numpy()

    def expected(self, weights: np.ndarray, captions: Sequence[Sequence[int]]) -> np.ndarray:
        """The expected similarity of C captions to the references of an image: (C,).

        Args:
            weights: (N,) w(x), 0 for images that are no neighbours.
            captions: token ids of each, without <start> and <end>.
        """
        lengths = np.array([len(caption) for caption in captions], dtype=np.int64)
        starts = np.concatenate([[0], lengths.cumsum()])
        tokens = np.array([token for caption in captions for token in caption], dtype=np.int32)
        ngrams = self._frequencies.count(TokenizedCaptions([], tokens, starts))
        there, place = np.unique(ngrams.ids, return_inverse=True)
        sizes = np.where(there < 0, 0, np.diff(self._starts, append=0)[there])  # -1: outside the collection
        entries = ranges(self._starts[there], sizes)
        contributions = weights[self.owners.numpy()[entries]] * self.weights.numpy()[entries].astype(np.float32)
        predicted = np.bincount(np.arange(len(there)).repeat(sizes), contributions, minlength=len(there))
        caption_of = np.arange(len(captions)).repeat(np.diff(ngrams.starts[::MAX_ORDER]))
        products = self._frequencies.unit_weights(ngrams) * predicted[place]
        similar = np.bincount(caption_of, products, minlength=len(captions))
        scores: np.ndarray = similar * np.exp(-((lengths - self.usual_length) ** 2) / (2 * SIGMA**2))
        return scores

    def rank(self, features: torch.Tensor, found: Sequence[Sequence[Hypothesis]]) -> list[list[Hypothesis]]:
        """The hypotheses of B images in the order of their new scores, the best first.

        Args:
            features: (B, P, D), without those of mirror images.
        """
        ranked = []
        for nearest, its_weights, beams in zip(*self.neighbours(features), found, strict=True):
            weights = np.zeros(len(self.images), dtype=np.float32)
            weights[nearest] = its_weights
            expected = self.expected(weights, [beam.tokens for beam in beams]).tolist()
            scored = [replace(b, score=b.score + STRENGTH * e) for b, e in zip(beams, expected, strict=True)]
            ranked.append(sorted(scored, key=lambda beam: -beam.score))
        return ranked


def pool(features: torch.Tensor) -> torch.Tensor:
    """What an image is compared by: the greatest value of each feature, wherever it is. (B, P, D) -> (B, D)."""
    return features.amax(dim=1)


def _kernel(cosines: torch.Tensor) -> torch.Tensor:
    """exp(-|x - y|^2 / 2) of unit vectors, from their cosines."""
    return (cosines - 1).exp()


def _mean_vectors(tfidf: TfIdf, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of the unit vectors of each image's captions: n-grams (E,), their images (E,) and elements (E,), sorted
    by n-gram, then by image."""
    captions = np.arange(len(sizes)).repeat(sizes)  # the image of each
    entries = np.diff(tfidf.ngrams.starts[::MAX_ORDER])
    images = captions.repeat(entries)
    weights = tfidf.unit_weights(tfidf.ngrams) / sizes[images]
    pairs, place = np.unique(tfidf.ngrams.ids.astype(np.int64) * len(sizes) + images, return_inverse=True)
    return pairs // len(sizes), pairs % len(sizes), np.bincount(place, weights)


def _problem(state: Any, features_size: int) -> str:
    """What is wrong with the state of a Reranker; "" if nothing is."""
    names = [field.name for field in fields(Reranker)]
    if not isinstance(state, dict) or state.keys() != set(names):
        return f"it must have {', '.join(names)}"
    sizes = {"D": features_size}
    for name, (letters, dtype) in SHAPES.items():
        part = state[name]
        fits = isinstance(part, torch.Tensor) and part.dtype == dtype and part.dim() == len(letters)
        if not fits or any(sizes.setdefault(*each) != each[1] for each in zip(letters, part.shape, strict=True)):
            return f"{name} must be ({', '.join(letters)}) numbers of type {dtype}"
    if not (0 < sizes["N"] <= MAX_IMAGES and sizes["K"] and sizes["E"]):
        return f"it must have 1 to {MAX_IMAGES} images, and n-grams"
    keys, images_with = state["keys"].numpy().view(np.uint64), state["images_with"].long()
    least, greatest = (int(value) for value in state["owners"].aminmax())
    checks = {
        "its n-grams must be sorted": (keys[1:] > keys[:-1]).all(),
        "each n-gram must have an image": int(images_with.min()) > 0 and int(images_with.sum()) == sizes["E"],
        "an n-gram is of an image that is not there": least >= 0 and greatest < sizes["N"],
        "usual_length must be a positive number": type(state["usual_length"]) is float and state["usual_length"] > 0,
        f"beams must be in [2, {MAX_BEAM_SIZE}]": type(state["beams"]) is int and 2 <= state["beams"] <= MAX_BEAM_SIZE,
    }
    return next((problem for problem, holds in checks.items() if not holds), "")
