"""Tf-idf vectors of n-grams, and CIDEr-D as a reward (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726).

evaluation/metrics.py scores with pycocoevalcap, which takes document frequencies from the images being scored. Here
they come from the training images, once; after that, scoring a caption takes a fraction of a millisecond. nearest.py
compares captions by the same vectors.
"""

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.tokenizer import WORDS, Tokenizer

MAX_ORDER = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # of the Gaussian penalty for a length other than the reference's, in words
END = "<end>"


@dataclass(frozen=True)
class TfIdfVectors:
    """The tf-idf vectors of C captions (eq. 1): four sparse rows per caption, one per order of n-grams (CSR).

    Args:
        ids: (E,) the n-gram of each of the E entries; -1 for those outside the collection.
        weights: (E,) count of the n-gram in the caption x its inverse document frequency.
        starts: (4 * C + 1,) the entries [starts[row], starts[row + 1]) are row 4 * c + n - 1: order n of caption c.
        norms: (C, 4) Euclidean length of each row.
    """

    ids: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    norms: np.ndarray


class TfIdf:
    """The n-grams of a collection of images and their idf (inverse document frequency), log(images / images with it).

    The key of an n-gram is Python's 64-bit hash of its words, its id the rank of the key. A sorted array of keys takes
    a tenth of the memory of a dict of tuples of words; the probability that any two of ten million n-grams have the
    same key is below 1 in 100,000.

    Args:
        images: the tokenized captions of each image.

    Attributes:
        vectors: those of all these captions, image by image.
    """

    def __init__(self, images: Sequence[Sequence[Sequence[str]]]) -> None:
        keys, counts, sizes = _count_ngrams([caption for captions in images for caption in captions])
        image_of = np.repeat(np.arange(len(images)), [MAX_ORDER * len(captions) for captions in images])  # of each row
        self.keys, ids = np.unique(keys, return_inverse=True)  # (distinct n-grams,), (E,)
        occurrences = np.unique(ids * len(images) + np.repeat(image_of, sizes))  # an n-gram counts once per image
        self.max_idf = math.log(len(images))  # of n-grams outside the collection, as if one image had them
        self.idf = self.max_idf - np.log(np.bincount(occurrences // len(images)))
        self.vectors = _vectors(ids, counts * self.idf[ids], sizes)

    def transform(self, captions: Sequence[Sequence[str]]) -> TfIdfVectors:
        """The vectors of other tokenized captions."""
        keys, counts, sizes = _count_ngrams(captions)
        ids = self.keys.searchsorted(keys)
        ids[ids == len(self.keys)] = 0
        known = self.keys[ids] == keys
        return _vectors(np.where(known, ids, -1), counts * np.where(known, self.idf[ids], self.max_idf), sizes)


def _vectors(ids: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> TfIdfVectors:
    """The vectors with these entries (E,), of which each row has ``sizes`` (4 * C,)."""
    starts = np.concatenate([[0], sizes.cumsum()])
    norms = np.sqrt(np.bincount(np.arange(len(sizes)).repeat(sizes), weights**2, minlength=len(sizes)))
    return TfIdfVectors(ids.astype(np.int32), weights, starts, norms.reshape(-1, MAX_ORDER))


def _count_ngrams(captions: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row by row (see ``TfIdfVectors``) the keys (E,) and counts (E,) of the different n-grams, and the number of
    entries of each row (4 * C,)."""
    keys, counts, sizes = array("q"), array("q"), array("q")
    for caption in captions:
        for order in range(1, MAX_ORDER + 1):
            ngrams = Counter(map(hash, zip(*[caption[start:] for start in range(order)], strict=False)))
            keys.extend(ngrams)
            counts.extend(ngrams.values())
            sizes.append(len(ngrams))
    return np.asarray(keys), np.asarray(counts), np.asarray(sizes)


class CiderReward:
    """CIDEr-D of captions of the images it was built with, which also provide the document frequencies.

    The end of a caption counts as a word, in references and captions. Otherwise the reward would not depend on where a
    caption stops, and self-critical training would learn captions that end in "on a" or "in the".

    Args:
        references: image name -> its reference captions, not tokenized.
    """

    def __init__(self, references: Mapping[str, Sequence[str]], tokenizer: Tokenizer = WORDS) -> None:
        images = [[[*tokenizer.tokenize(caption), END] for caption in captions] for captions in references.values()]
        captions = [caption for image in images for caption in image]
        self.tfidf = TfIdf(images)
        self.lengths = np.array([_length(caption) for caption in captions])  # (C,)
        ends = np.cumsum([len(image) for image in images]).tolist()
        self.captions_of = dict(zip(references, map(slice, [0, *ends], ends), strict=False))

    def __call__(self, name: str, words: Sequence[str], *, ended: bool = True) -> float:
        """CIDEr-D (eq. 2 and 3, clipped and with a length penalty) of one caption of the image ``name``.

        Args:
            words: the tokenized caption.
            ended: False if the caption was cut off at the maximum length.

        Returns:
            0 to 10; as in metrics.py, 1.0 is what tables print as 100.
        """
        caption = [*words, END] if ended else words
        vectors, references, captions = self.tfidf.transform([caption]), self.tfidf.vectors, self.captions_of[name]
        starts = references.starts[MAX_ORDER * captions.start : MAX_ORDER * captions.stop + 1]
        entries = slice(starts[0], starts[-1])
        weights = references.weights[entries]
        clipped = np.minimum(_weights_of(references.ids[entries], vectors), weights)
        rows = np.arange(len(starts) - 1).repeat(np.diff(starts))
        norms = references.norms[captions] * vectors.norms  # (K, 4) for the K references of the image
        products = np.bincount(rows, clipped * weights, minlength=norms.size).reshape(norms.shape)
        cosines = np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)
        penalties = np.exp(-((_length(caption) - self.lengths[captions]) ** 2) / (2 * SIGMA**2))
        return 10.0 * float(cosines.mean(axis=1) @ penalties) / len(penalties)


def _weights_of(ids: np.ndarray, caption: TfIdfVectors) -> np.ndarray:
    """The weights of the n-grams ``ids`` (none is -1) in a single caption; 0 for those it does not have."""
    if not len(caption.ids):
        return np.zeros(len(ids))
    order = caption.ids.argsort()
    place = order[np.minimum(caption.ids.searchsorted(ids, sorter=order), len(order) - 1)]
    return np.where(caption.ids[place] == ids, caption.weights[place], 0.0)


def _length(caption: Sequence[str]) -> int:
    """Number of 2-grams: what pycocoevalcap takes as the length. Only differences of lengths matter."""
    return max(len(caption) - 1, 0)
