"""Words and numbers: the tokeniser that training and scoring share, and the Vocabulary built with it."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from nltk.tokenize import TreebankWordTokenizer
from nltk.tokenize.treebank import TreebankWordDetokenizer

from cli import UserError

PAD, START, END, UNK = "<pad>", "<start>", "<end>", "<unk>"
SPECIAL = (PAD, START, END, UNK)
PAD_ID, START_ID, END_ID, UNK_ID = range(len(SPECIAL))

# What the COCO caption evaluation drops after tokenising (Chen et al. 2015, https://arxiv.org/abs/1504.00325).
PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
# Brackets take their Penn Treebank names; COCO means to drop them but compares in upper case, so they stay.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_tokenizer = TreebankWordTokenizer()  # regular expressions only: unlike nltk.word_tokenize it needs no download
_detokenizer = TreebankWordDetokenizer()
_ABBREVIATION = re.compile(r"((?:\b[a-z]\.){2,})$")  # "in washington d.c.": the last full stop belongs to the word
_SENTENCE = re.compile(
    r"\b(?!(?:mr|mrs|ms|dr|st|mt|ft|lt|jr|sr|vs|etc|no|co|inc)\.)(\w{2,})\.(?=[\s\"')])"
)  # nltk sees only the last full stop
_TYPOGRAPHY = str.maketrans(
    {"\u2018": '"', "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": " -- ", "\u2014": " -- ", "\u2026": " ... "}
)
_SPLIT_OFF = {"not", "na", "ta", "me"}  # from cannot, gonna, wanna, gotta, gimme, lemme
_SPLIT = re.compile(r"(=|'s(?=-))")  # Stanford's PTBTokenizer splits here, nltk does not


def tokenize(text: str) -> list[str]:
    """Split a caption as the COCO evaluation does: lower case, Penn Treebank tokens, no punctuation.

    On the 35,000 training and validation captions of Flickr8k this gives what Stanford's Java PTBTokenizer gives, but for a handful.
    """
    text = _SPLIT.sub(r" \1 ", text.translate(_TYPOGRAPHY).lower().strip())
    text = _ABBREVIATION.sub(r"\1 .", _SENTENCE.sub(r"\1 .", text))
    return [BRACKETS.get(token, token) for token in _tokenizer.tokenize(text) if token not in PUNCTUATION]


def word_of_token(tokens: Sequence[str], text: str) -> list[int]:
    """For each token, in which word of ``text`` it is: of "man 's hat", written "man's hat", 0 0 1. Nothing but blanks may differ."""
    ends = list(accumulate(map(len, text.split())))  # how many letters there are up to the end of each word
    return [bisect_left(ends, end) for end in accumulate(map(len, tokens))]


class Vocabulary:
    """The words a captioner knows, in id order: the four special ones, then by falling count, ties by alphabet."""

    def __init__(self, words: Sequence[str]) -> None:
        """Take the words as ``state()`` gave them.

        Raises:
            UserError: the special words are not in front, or a word comes twice.
        """
        if tuple(words[: len(SPECIAL)]) != SPECIAL or len(set(words)) != len(words):
            raise UserError(f"vocabulary: must begin with {' '.join(SPECIAL)} and hold each word once")
        self.words = list(words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5) -> "Vocabulary":
        """Count the words of the *training* captions and keep those seen at least ``min_count`` times.

        Raises:
            UserError: no word is that frequent.
        """
        counts = Counter(token for caption in captions for token in tokenize(caption))
        words = sorted(
            (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
        )
        if not words:
            raise UserError(
                f"no word comes {min_count} times in the training captions. Lower data.min_count, or check the captions file"
            )
        return cls([*SPECIAL, *(word for word in words if word not in SPECIAL)])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Caption -> [<start>, ids ..., <end>]; words outside the vocabulary become <unk>."""
        return [START_ID, *(self._ids.get(token, UNK_ID) for token in tokenize(caption)), END_ID]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> readable text, up to the first <end>; <pad> and <start> are left out.

        ``encode(decode(ids)) == ids`` for what ``encode`` gave, save for a lone abbreviation ("p.") at the very end.
        """
        tokens = []
        for index in ids:
            if index == END_ID:
                break
            if index not in (PAD_ID, START_ID):
                tokens.append(self.words[index])
        if all(token.isalpha() and token not in _SPLIT_OFF for token in tokens):
            return " ".join(tokens)  # nearly every caption; the detokenizer would add a fifth to a beam search
        text: str = _detokenizer.detokenize(tokens)
        return text if tokenize(text) == tokens else " ".join(tokens)

    def state(self) -> list[str]:
        """A plain list for the checkpoint."""
        return list(self.words)
