"""Agreement of generated captions with their references: BLEU, CIDEr, and the words in which they differ."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

from data.vocab import tokenize
from evaluation.metrics import Scorer, Scores

# CIDEr weights a word by how few images have it in their references, so it needs enough images. Measured on 1,000
# images of Flickr8k: scored on their own, 50 images rank nearly as they do among all 1,000 (rank correlation
# 0.97 to 0.99 over twelve random subsets); 20 images may not (0.82).
MIN_IMAGES = 50

Marked = list[tuple[str, bool]]  # text, and whether to mark it


def score(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores | None:
    """BLEU and CIDEr of a gallery, in total and per image; word weights come from all the references.

    None for fewer than MIN_IMAGES images, or if an image has no references.
    """
    if len(captions) < MIN_IMAGES or not all(references):
        return None
    scorer = Scorer({str(number): texts for number, texts in enumerate(references)})
    return scorer.score_images({str(number): caption for number, caption in enumerate(captions)}, all_metrics=False)


def mark_unmatched(caption: str, references: Sequence[str]) -> Marked:
    """The words of a caption; marked are those in none of the references. Nothing is marked without references.

    Case and punctuation are ignored.
    """
    known = _tokens(" ".join(references))
    return [(word, bool(references and _tokens(word)) and not _tokens(word) & known) for word in caption.split()]


def mark_shared(reference: str, caption: str) -> Marked:
    """A reference in runs of words; marked are the runs whose words are in the caption too."""
    known = _tokens(caption)
    runs = groupby(reference.split(), key=lambda word: bool(_tokens(word) & known))
    return [(" ".join(words), shared) for shared, words in runs]


def _tokens(text: str) -> frozenset[str]:
    """The tokens of each word on its own, so that a full stop after a word is never a token."""
    return frozenset().union(*map(_word_tokens, text.split()))


@cache  # a gallery has tens of thousands of words, but only a few thousand different ones
def _word_tokens(word: str) -> frozenset[str]:
    return frozenset(tokenize(word))
