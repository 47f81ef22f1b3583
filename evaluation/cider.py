"""CIDEr-D as a reward (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726).

evaluation/metrics.py scores with pycocoevalcap, which takes document frequencies from the images being scored. Here
they come from the training images, once; after that, scoring a caption takes a fraction of a millisecond.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from data.ngrams import MAX_ORDER, NGrams, TfIdf
from data.tokenized import ranges
from data.tokenizer import WORDS, Tokenizer

SIGMA = 6.0  # of the Gaussian penalty for a length other than the reference's, in words
END = "<end>"


class CiderReward:
    """CIDEr-D of captions of the images it was built with, which also provide the document frequencies.

    The end of a caption counts as a word, in references and captions. Otherwise the reward would not depend on where a
    caption stops, and self-critical training would learn captions that end in "on a" or "in the".

    Args:
        references: image name -> its reference captions, not tokenized.
    """

    def __init__(self, references: Mapping[str, Sequence[str]], tokenizer: Tokenizer = WORDS) -> None:
        tokens = tokenizer.tokenize_all([caption for captions in references.values() for caption in captions])
        ended = replace(tokens, words=[*tokens.words, END]).surround([], [len(tokens.words)])
        self.sizes = np.array([len(captions) for captions in references.values()], dtype=np.int64)  # (images,)
        self.firsts = self.sizes.cumsum() - self.sizes  # (images,) the first caption of each
        self.image_of = {name: number for number, name in enumerate(references)}
        self.tfidf = TfIdf(ended, self.sizes.tolist())
        self.lengths = _lengths(ended.lengths)  # (C,)

    def __call__(self, name: str, words: Sequence[str], *, ended: bool = True) -> float:
        """CIDEr-D of one caption of the image ``name``; see ``scores``."""
        return float(self.scores([name], [words], [ended])[0])

    def scores(self, names: Sequence[str], captions: Sequence[Sequence[str]], ended: Sequence[bool]) -> np.ndarray:
        """CIDEr-D (eq. 2 and 3, clipped and with a length penalty) of M captions.

        Args:
            names: the image of each caption.
            captions: tokenized.
            ended: False for captions that were cut off at the maximum length.

        Returns:
            (M,) 0 to 10; as in metrics.py, 1.0 is what tables print as 100.
        """
        captions = [[*words, END] if done else words for words, done in zip(captions, ended, strict=True)]
        own, references = self.tfidf.transform(captions), self.tfidf.ngrams
        images = np.array([self.image_of[name] for name in names], dtype=np.int64)
        sizes = self.sizes[images]
        owners = np.arange(len(images)).repeat(sizes)  # the P pairs of a caption and a reference: the caption of each
        others = ranges(self.firsts[images], sizes)  # (P,) and its reference
        bounds = references.starts[MAX_ORDER * others[:, None] + np.arange(MAX_ORDER + 1)]  # (P, 5)
        entries = ranges(bounds[:, 0], bounds[:, -1] - bounds[:, 0])
        rows = np.arange(MAX_ORDER * len(others)).repeat(np.diff(bounds).ravel())
        weights = self.tfidf.weights(references, entries)
        clipped = np.minimum(self._weights_of(owners[rows // MAX_ORDER], references.ids[entries], own), weights)
        norms = references.norms[others] * own.norms[owners]  # (P, 4)
        products = np.bincount(rows, clipped * weights, minlength=norms.size).reshape(norms.shape)
        cosines = np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0).mean(axis=1)
        lengths = _lengths(np.array([len(words) for words in captions]))
        penalties = np.exp(-((lengths[owners] - self.lengths[others]) ** 2) / (2 * SIGMA**2))
        ends = sizes.cumsum().tolist()
        pairs = map(slice, [0, *ends], ends)
        return np.array([10.0 * float(cosines[its] @ penalties[its]) / (its.stop - its.start) for its in pairs])

    def _weights_of(self, owners: np.ndarray, ids: np.ndarray, captions: NGrams) -> np.ndarray:
        """The weights of the n-grams ``ids`` (none is -1) in the captions ``owners``; 0 for those they do not have."""
        if not len(captions.ids):
            return np.zeros(len(ids))
        distinct = np.int64(len(self.tfidf.idf))
        caption_of = np.arange(len(captions.norms)).repeat(np.diff(captions.starts[::MAX_ORDER]))
        there = caption_of * distinct + captions.ids  # -1 is another number than all of ``wanted``
        wanted = owners * distinct + ids
        order = there.argsort()
        place = order[np.minimum(there.searchsorted(wanted, sorter=order), len(order) - 1)]
        return np.where(there[place] == wanted, self.tfidf.weights(captions)[place], 0.0)


def _lengths(words: np.ndarray) -> np.ndarray:
    """Number of 2-grams: what pycocoevalcap takes as the length. Only differences of lengths matter."""
    lengths: np.ndarray = np.maximum(words - 1, 0)
    return lengths
