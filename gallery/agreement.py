"""How a generated caption agrees with people's: the CIDEr of each picture, and the words in which they differ."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

from data.vocab import tokenize
from evaluation.metrics import Scorer

# CIDEr weighs a word by how few pictures' references have it, which few pictures cannot tell. Measured on 1,000 pictures of Flickr8k: 50 of them,
# scored by themselves, come in nearly the order that they have among all (rank correlation 0.97 to 0.99 in twelve draws); 20 may not (0.82).
FEWEST_IMAGES = 50

Marked = list[tuple[str, bool]]  # text, and whether it is to be marked


def image_cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float] | None:
    """The CIDEr of each picture as a fraction, with word weights from all the references given, as evaluate.py's per_image.csv has it.

    None for fewer than FEWEST_IMAGES pictures, or where one has no reference.
    """
    if len(captions) < FEWEST_IMAGES or not all(references):
        return None
    scorer = Scorer({str(number): people for number, people in enumerate(references)})
    scores = scorer.score_images({str(number): caption for number, caption in enumerate(captions)}, all_metrics=False)
    return [float(score) for score in scores.images["CIDEr"]]


def mark_unsaid(caption: str, references: Sequence[str]) -> Marked:
    """The caption's words; marked are those that no reference has, if there are references. Case and punctuation do not count."""
    said = _tokens(" ".join(references))
    return [(word, bool(references and _tokens(word)) and not _tokens(word) & said) for word in caption.split()]


def mark_shared(reference: str, caption: str) -> Marked:
    """The reference in runs of words; marked are those that the caption has."""
    said = _tokens(caption)
    runs = groupby(reference.split(), key=lambda word: bool(_tokens(word) & said))
    return [(" ".join(words), shared) for shared, words in runs]


def _tokens(text: str) -> frozenset[str]:
    """The tokens of each of the text's words by itself: a full stop is none, wherever it stands."""
    return frozenset().union(*map(_word_tokens, text.split()))


@cache  # a few thousand words come ten thousands of times
def _word_tokens(word: str) -> frozenset[str]:
    return frozenset(tokenize(word))
