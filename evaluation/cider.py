"""CIDEr-D (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726) as a reward: the scorer of metrics.py weighs the words by all images
it scores, this one by the training images, once, and then scores any sentence about one of them in well under a millisecond."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.vocab import tokenize

ORDERS = 4  # n-grams of one to four words
SIGMA = 6.0  # words by which a sentence may miss the length of its reference
END = "<end>"


@dataclass(frozen=True)
class TfIdf:
    """A sentence as CIDEr sees it: weight[n - 1][n-gram] = count x idf, norm[n - 1], and its length."""

    weight: list[dict[tuple[str, ...], float]]
    norm: list[float]
    length: int


def count_ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How often each n-gram of 1 to 4 words comes."""
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1))


class CiderReward:
    """CIDEr-D of sentences about the images it was made with; document frequencies are those of these images.

    The end of a sentence counts as a word, in references and sentences: else nothing in the reward says where to stop, and
    self-critical training learns to end in "on a" or "in the".

    Args:
        references: image name -> its captions, as people wrote them.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        counted = {
            name: [count_ngrams([*tokenize(caption), END]) for caption in captions]
            for name, captions in references.items()
        }
        images_with = Counter(ngram for captions in counted.values() for ngram in set().union(*captions))
        self.unseen = math.log(len(counted))  # idf of an n-gram that no reference has: as if one image had it
        self.idf = {ngram: self.unseen - math.log(images) for ngram, images in images_with.items()}
        self.references = {name: [self._weigh(counts) for counts in captions] for name, captions in counted.items()}

    def __call__(self, name: str, words: Sequence[str], *, ended: bool = True) -> float:
        """CIDEr-D of one sentence about the image ``name``: 0 to 10, and as in metrics.py 1.0 is what tables print as 100.

        Not ``ended``: it was cut off at the greatest length.
        """
        sentence = self._weigh(count_ngrams([*words, END] if ended else words))
        references = self.references[name]
        return 10.0 * sum(_similarity(sentence, reference) for reference in references) / len(references)

    def _weigh(self, counts: Counter[tuple[str, ...]]) -> TfIdf:
        weight: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDERS)]
        for ngram, count in counts.items():
            weight[len(ngram) - 1][ngram] = count * self.idf.get(ngram, self.unseen)
        norm = [math.sqrt(sum(value * value for value in order.values())) for order in weight]
        # pycocoevalcap counts a sentence's pairs of words as its length; only differences of lengths matter
        return TfIdf(weight, norm, sum(counts[ngram] for ngram in weight[1]))


def _similarity(sentence: TfIdf, reference: TfIdf) -> float:
    """Mean over n of the clipped cosine, times a Gaussian of the difference in length (Vedantam et al. 2015, eq. 5, their CIDEr-D)."""
    total = 0.0
    for n in range(ORDERS):
        if sentence.norm[n] > 0 and reference.norm[n] > 0:
            there = reference.weight[n]
            product = sum(
                min(value, there[ngram]) * there[ngram] for ngram, value in sentence.weight[n].items() if ngram in there
            )
            total += product / (sentence.norm[n] * reference.norm[n])
    return total / ORDERS * math.exp(-((sentence.length - reference.length) ** 2) / (2 * SIGMA**2))
