"""Captions as tokens and token ids: the tokeniser that training and scoring share, and the Vocabulary built with it."""

import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate

from nltk.tokenize import TreebankWordTokenizer
from nltk.tokenize.treebank import TreebankWordDetokenizer

from cli import UserError

PAD, START, END, UNK = "<pad>", "<start>", "<end>", "<unk>"
SPECIAL = (PAD, START, END, UNK)
PAD_ID, START_ID, END_ID, UNK_ID = range(len(SPECIAL))

# What the COCO caption evaluation removes after tokenisation (Chen et al. 2015, https://arxiv.org/abs/1504.00325).
PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
# Brackets get their Penn Treebank names. COCO lists them as punctuation too, but in upper case, so they are kept.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

CACHED_CAPTIONS = 2**20  # COCO has 617,000; about 0.3 KB each: 0.2 GB for COCO, 12 MB for Flickr8k

_tokenizer = TreebankWordTokenizer()  # regular expressions only: unlike nltk.word_tokenize it needs no download
_detokenizer = TreebankWordDetokenizer()
_ABBREVIATION = re.compile(r"((?:\b[a-z]\.){2,})$")  # "in washington d.c.": the last full stop belongs to the word
# nltk splits off only the last full stop of a text, so a full stop between two sentences is separated here.
_SENTENCE = re.compile(r"\b(?!(?:mr|mrs|ms|dr|st|mt|ft|lt|jr|sr|vs|etc|no|co|inc)\.)(\w{2,})\.(?=[\s\"')])")
_TYPOGRAPHY = str.maketrans(
    {"\u2018": '"', "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": " -- ", "\u2014": " -- ", "\u2026": " ... "}
)
_SPLIT_OFF = {"not", "na", "ta", "me"}  # from cannot, gonna, wanna, gotta, gimme, lemme
_SPLIT = re.compile(r"(=|'s(?=-))")  # Stanford's PTBTokenizer splits here, nltk does not


def tokenize(text: str) -> list[str]:
    """Split a caption as the COCO evaluation does: lower case, Penn Treebank tokens, no punctuation.

    On the 35,000 training and validation captions of Flickr8k the result is that of Stanford's Java PTBTokenizer,
    except for a handful. The tokens of a caption are remembered, because building the vocabulary, encoding, the rewards
    and the scores all need them.
    """
    return list(_tokenize(text))


@lru_cache(CACHED_CAPTIONS)
def _tokenize(text: str) -> tuple[str, ...]:
    text = _SPLIT.sub(r" \1 ", text.translate(_TYPOGRAPHY).lower().strip())
    text = _ABBREVIATION.sub(r"\1 .", _SENTENCE.sub(r"\1 .", text))
    tokens = (token for token in _tokenizer.tokenize(text) if token not in PUNCTUATION)
    return tuple(sys.intern(BRACKETS.get(token, token)) for token in tokens)  # interned: one object per distinct token


def word_of_token(tokens: Sequence[str], text: str) -> list[int]:
    """For each token, the index of the word of ``text`` it is part of: 0 0 1 for "man 's hat" in "man's hat".

    ``tokens`` and ``text`` must be equal except for white space.
    """
    ends = list(accumulate(map(len, text.split())))  # number of characters up to the end of each word
    return [bisect_left(ends, end) for end in accumulate(map(len, tokens))]


class Vocabulary:
    """The tokens a captioner knows, in id order: the special ones, then by falling frequency, then alphabetically."""

    def __init__(self, words: Sequence[str]) -> None:
        """Restore a vocabulary from ``state()``.

        Raises:
            UserError: the special tokens do not come first, or a word is repeated.
        """
        if tuple(words[: len(SPECIAL)]) != SPECIAL or len(set(words)) != len(words):
            raise UserError(f"vocabulary: it must start with {' '.join(SPECIAL)} and contain each word once")
        self.words = list(words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5) -> "Vocabulary":
        """Count the tokens of the *training* captions and keep those that occur at least ``min_count`` times.

        Raises:
            UserError: no token is that frequent.
        """
        counts = Counter(token for caption in captions for token in tokenize(caption))
        words = sorted(
            (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
        )
        if not words:
            raise UserError(
                f"no word occurs {min_count} times in the training captions. "
                "Lower data.min_count, or check the captions file"
            )
        return cls([*SPECIAL, *(word for word in words if word not in SPECIAL)])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Caption -> token ids [<start>, ..., <end>]; tokens outside the vocabulary become <unk>."""
        return [START_ID, *(self._ids.get(token, UNK_ID) for token in tokenize(caption)), END_ID]

    def decode(self, ids: Iterable[int]) -> str:
        """Token ids -> readable text up to the first <end>; <pad> and <start> are left out.

        ``encode(decode(ids)) == ids`` for any result of ``encode``, unless its last token is an abbreviation ("p.").
        """
        tokens = []
        for index in ids:
            if index == END_ID:
                break
            if index not in (PAD_ID, START_ID):
                tokens.append(self.words[index])
        if all(token.isalpha() and token not in _SPLIT_OFF for token in tokens):
            return " ".join(tokens)  # nearly every caption; the detokenizer would make a beam search a fifth slower
        text: str = _detokenizer.detokenize(tokens)
        return text if tokenize(text) == tokens else " ".join(tokens)

    def state(self) -> list[str]:
        """The tokens in id order, a plain list for the checkpoint."""
        return list(self.words)
