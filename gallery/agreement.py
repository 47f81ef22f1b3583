"""Agreement of generated captions with their references: BLEU, CIDEr, and the words in which they differ."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from data.tokenizer import WORDS, Tokenizer

if TYPE_CHECKING:
    from evaluation.metrics import Scores

# CIDEr weights a word by how few images have it in their references, so it needs enough images. Measured on 1,000
# images of Flickr8k: scored on their own, 50 images rank nearly as they do among all 1,000 (rank correlation
# 0.97 to 0.99 over twelve random subsets); 20 images may not (0.82).
MIN_IMAGES = 50

Marked = list[tuple[str, str, bool]]  # text, the blank (or nothing) after it, and whether to mark it


def score(
    captions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: Tokenizer = WORDS
) -> "Scores | None":
    """BLEU and CIDEr of a gallery, in total and per image; word weights come from all the references.

    None for fewer than MIN_IMAGES images, or if an image has no references.
    """
    if len(captions) < MIN_IMAGES or not all(references):
        return None
    from evaluation.metrics import Scorer  # photos without references are not scored

    scorer = Scorer({str(number): texts for number, texts in enumerate(references)}, tokenizer)
    return scorer.score_images({str(number): caption for number, caption in enumerate(captions)}, all_metrics=False)


def mark_unmatched(caption: str, references: Sequence[str], tokenizer: Tokenizer = WORDS) -> Marked:
    """The pieces of a caption; marked are those in none of the references. Nothing is marked without references.

    Case and punctuation are ignored.
    """
    known = _tokens(" ".join(references), tokenizer)

    def unmatched(piece: str) -> bool:
        if not references:
            return False
        tokens = _piece_tokens(piece, tokenizer)
        return bool(tokens) and not tokens & known

    return [(text, gap, unmatched(text)) for text, gap in tokenizer.pieces(caption)]


def mark_shared(reference: str, caption: str, tokenizer: Tokenizer = WORDS) -> Marked:
    """A reference in runs of pieces; marked are the runs whose pieces are in the caption too."""
    known = _tokens(caption, tokenizer)
    runs = groupby(tokenizer.pieces(reference), key=lambda piece: bool(_piece_tokens(piece.text, tokenizer) & known))
    marked = []
    for shared, run in runs:
        *pieces, last = run
        marked.append(("".join(text + gap for text, gap in pieces) + last.text, last.gap, shared))
    return marked


def _tokens(text: str, tokenizer: Tokenizer) -> frozenset[str]:
    """The tokens of each piece on its own, so that a full stop after a word is never a token."""
    return frozenset().union(*(_piece_tokens(piece.text, tokenizer) for piece in tokenizer.pieces(text)))


@cache  # a gallery has tens of thousands of words, but only a few thousand different ones
def _piece_tokens(piece: str, tokenizer: Tokenizer) -> frozenset[str]:
    return frozenset(tokenizer.tokenize(piece))
