"""Tf-idf vectors of n-grams (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726), by which captions are compared.

Document frequencies come from a collection of images, once; after that, the vectors of a caption take a fraction of a
millisecond.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data.tokenized import TokenizedCaptions, ranges

MAX_ORDER = 4  # n-grams of 1 to 4 words
AT_ONCE = 2**17  # tokens of the captions whose n-grams are counted in one go, with about 300 bytes for each
_ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)  # of splitmix64
_SHIFTS = np.array([30, 27, 31], dtype=np.uint64)  # https://doi.org/10.1145/2660193.2660195


@dataclass(frozen=True)
class NGrams:
    """The different n-grams of C captions: four sparse rows per caption, one per order of n-grams (CSR).

    Args:
        ids: (E,) the n-gram of each of the E entries, in a row by where it first occurs; -1 for those outside the
            collection.
        counts: (E,) how often the caption has it.
        starts: (4 * C + 1,) the entries [starts[row], starts[row + 1]) are row 4 * c + n - 1: order n of caption c.
        norms: (C, 4) Euclidean length of each row's tf-idf vector.
    """

    ids: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    norms: np.ndarray


class Frequencies:
    """How many images of a collection have each n-gram, and vectors of captions weighted by it.

    The key of an n-gram is a 64-bit hash of the numbers of its words. A sorted array of keys takes a tenth of the
    memory of a dict of tuples of words; the probability that any two of ten million n-grams have the same key is below
    1 in 100,000.

    Args:
        keys: (K,) uint64, sorted.
        images_with: (K,) the number of images that have each n-gram.
        images: in the collection.

    Attributes:
        idf: (K + 1,) inverse document frequency, log(images / images with it), of each n-gram; the last one, which is
            that of the id -1, is of those outside the collection, as if one image had them.
    """

    def __init__(self, keys: np.ndarray, images_with: np.ndarray, images: int) -> None:
        self.keys, self.images_with = keys, images_with
        self.idf = math.log(images) - np.log(np.append(images_with, 1))

    def count(self, captions: TokenizedCaptions) -> NGrams:
        """The n-grams of captions whose tokens have the numbers that the keys were made of."""
        keys, counts, row_sizes = _count_ngrams(captions)
        places = np.minimum(self.keys.searchsorted(keys), len(self.keys) - 1)
        found = np.where(self.keys[places] == keys, places, -1).astype(np.int32)
        starts = np.concatenate([[0], row_sizes.cumsum()])
        return NGrams(found, counts, starts, self._norms(found, counts, row_sizes))

    def weights(self, ngrams: NGrams, entries: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The elements of tf-idf vectors (eq. 1) for some entries: count x inverse document frequency."""
        weights: np.ndarray = ngrams.counts[entries] * self.idf[ngrams.ids[entries]]
        return weights

    def unit_weights(self, ngrams: NGrams) -> np.ndarray:
        """For all entries (E,) elements of vectors, one for each caption, whose dot product is CIDEr's similarity of
        two captions (eq. 1 to 3): the cosine of their tf-idf vectors, averaged over the orders of n-grams."""
        lengths = np.maximum(ngrams.norms, 1e-9).ravel() * MAX_ORDER**0.5
        unit: np.ndarray = self.weights(ngrams) / lengths.repeat(np.diff(ngrams.starts))
        return unit

    def _norms(self, ids: np.ndarray, counts: np.ndarray, row_sizes: np.ndarray) -> np.ndarray:
        """The lengths (C, 4) of the vectors with these entries (E,), of which each row has ``row_sizes`` (4 * C,)."""
        rows, squares = np.arange(len(row_sizes)).repeat(row_sizes), (counts * self.idf[ids]) ** 2
        return np.sqrt(np.bincount(rows, squares, minlength=len(row_sizes))).reshape(-1, MAX_ORDER)


class TfIdf(Frequencies):
    """The n-grams of all captions of a collection of images, and their frequencies.

    Args:
        captions: those of all images, image by image.
        sizes: the number of captions of each image.

    Attributes:
        ngrams: those of all these captions.
    """

    def __init__(self, captions: TokenizedCaptions, sizes: Sequence[int]) -> None:
        self._number_of = {word: number for number, word in enumerate(captions.words)}
        parts = list(_parts(captions, np.array(sizes, dtype=np.int64)))
        counted = [_count_ngrams(part) for part, _ in parts]
        distinct = _distinct(np.concatenate([_distinct(keys) for keys, _, _ in counted]))
        ids, images_with = list[np.ndarray](), np.zeros(len(distinct), dtype=np.int64)
        for (_, its_sizes), (keys, _, row_sizes) in zip(parts, counted, strict=True):
            order = keys.argsort()  # to search in order is four times as fast
            ids.append(np.empty(len(keys), dtype=np.int32))
            ids[-1][order] = distinct.searchsorted(keys[order])
            image_of = np.arange(len(its_sizes)).repeat(MAX_ORDER * its_sizes).repeat(row_sizes)  # of each entry
            once = _distinct(ids[-1].astype(np.int64) * len(its_sizes) + image_of)  # an n-gram counts once per image
            np.add.at(images_with, once // len(its_sizes), 1)
        super().__init__(distinct, images_with, len(sizes))
        norms = [self._norms(its, counts, rows) for its, (_, counts, rows) in zip(ids, counted, strict=True)]
        starts = np.concatenate([[0], *(row_sizes for _, _, row_sizes in counted)]).cumsum()
        counts = np.concatenate([counts for _, counts, _ in counted])
        self.ngrams = NGrams(np.concatenate(ids), counts, starts, np.concatenate(norms))

    def transform(self, captions: Sequence[Sequence[str]]) -> NGrams:
        """The n-grams of other tokenized captions."""
        numbers, new = self._number_of, dict[str, int]()
        lengths = np.array([len(caption) for caption in captions], dtype=np.int64)
        words = (word for caption in captions for word in caption)
        ids = [numbers[word] if word in numbers else len(numbers) + new.setdefault(word, len(new)) for word in words]
        starts = np.concatenate([[0], lengths.cumsum()])
        return self.count(TokenizedCaptions([], np.array(ids, dtype=np.int32), starts))


def _parts(captions: TokenizedCaptions, sizes: np.ndarray) -> Iterator[tuple[TokenizedCaptions, np.ndarray]]:
    """The captions of as many images at once as have about ``AT_ONCE`` tokens, and the number of each image's."""
    ends = sizes.cumsum()
    token_ends = captions.starts[ends]
    image = caption = 0
    while image < len(sizes):
        after = max(image + 1, int(token_ends.searchsorted(captions.starts[caption] + AT_ONCE)))
        starts = captions.starts[caption : ends[after - 1] + 1]
        yield TokenizedCaptions([], captions.ids[starts[0] : starts[-1]], starts - starts[0]), sizes[image:after]
        image, caption = after, ends[after - 1]


def _count_ngrams(captions: TokenizedCaptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row by row (see ``NGrams``) the keys (E,) and counts (E,) of the different n-grams, and the number of entries of
    each row (4 * C,)."""
    tokens = len(captions.ids)
    keys_at = np.zeros((MAX_ORDER, tokens), dtype=np.uint64)  # of the n-gram of each order that begins at a token
    keys_at[0] = _mix(captions.ids.astype(np.uint64) + np.uint64(1))
    for n in range(1, min(MAX_ORDER, tokens)):
        keys_at[n, : tokens - n] = _mix(keys_at[n - 1, : tokens - n] * _ODD[0] + keys_at[0, n:])
    sizes = np.maximum(captions.lengths[:, None] - np.arange(MAX_ORDER), 0).ravel()  # n-grams of each row
    rows = np.arange(len(sizes)).repeat(sizes)
    keys = keys_at[rows % MAX_ORDER, ranges(captions.starts[:-1].repeat(MAX_ORDER), sizes)]
    order = np.lexsort((keys, rows))  # stable: of equal n-grams the first comes first
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (np.diff(keys[order]) != 0) | (np.diff(rows[order]) != 0)
    (places,) = begins.nonzero()
    counts = np.zeros(len(keys), dtype=np.int64)  # 0 for those that a row has before
    counts[order[places]] = np.diff(places, append=len(order))
    first = counts > 0
    counts = counts[first]
    counts = counts.astype(np.min_scalar_type(counts.max(initial=0)))  # mostly one byte
    return keys[first], counts, np.bincount(rows[first], minlength=len(sizes))


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """``np.unique``, which takes five times as long for so many numbers."""
    numbers = np.sort(numbers)
    distinct: np.ndarray = numbers[np.diff(numbers, prepend=~numbers[:1]) != 0]
    return distinct


def _mix(x: np.ndarray) -> np.ndarray:
    """Well distributed 64-bit values, different ones of different ones."""
    x = x * _ODD[0]
    x = (x ^ (x >> _SHIFTS[0])) * _ODD[1]
    x = (x ^ (x >> _SHIFTS[1])) * _ODD[2]
    mixed: np.ndarray = x ^ (x >> _SHIFTS[2])
    return mixed
