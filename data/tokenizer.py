"""What captions are split into: words, or characters for scripts that put no blanks between words.

Training, generation, scores and the gallery of a model share one tokenizer (``data.tokenizer``), so that a caption has
the same tokens everywhere.
"""

import hashlib
import re
import sys
import unicodedata
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import regex
from tqdm import tqdm

from data.tokenized import TokenizedCaptions, file_of, load, save

if TYPE_CHECKING:
    from nltk.tokenize import TreebankWordTokenizer
    from nltk.tokenize.treebank import TreebankWordDetokenizer

# What the COCO caption evaluation removes after tokenisation (Chen et al. 2015, https://arxiv.org/abs/1504.00325).
PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
PUNCTUATION |= set("\u3002\uff0c\u3001\uff1f\uff01\uff1a\uff1b")  # . , , ? ! : ; of segmented Chinese and Japanese
# Brackets get their Penn Treebank names. COCO lists them as punctuation too, but in upper case, so they are kept.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

CACHED_CAPTIONS = 2**16  # Flickr8k has 40,000; about 0.3 KB each. Those of a training run: ``Tokenizer.keep``

_ABBREVIATION = re.compile(r"((?:\b[a-z]\.){2,})$")  # "in washington d.c.": the last full stop belongs to the word
# nltk splits off only the last full stop of a text, so a full stop between two sentences is separated here.
_SENTENCE = re.compile(r"\b(?!(?:mr|mrs|ms|dr|st|mt|ft|lt|jr|sr|vs|etc|no|co|inc)\.)(\w{2,})\.(?=[\s\"')])")
_TYPOGRAPHY = str.maketrans(
    {"\u2018": '"', "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": " -- ", "\u2014": " -- ", "\u2026": " ... "}
)
SPLIT_OFF = {"not", "na", "ta", "me"}  # from cannot, gonna, wanna, gotta, gimme, lemme
_CONTRACTED = {"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"}  # what nltk splits without any sign in it
_PLAIN = re.compile(r"[a-z0-9 ]+\.?")  # nine captions of ten; these need no more than to be split at the blanks
_SPLIT = re.compile(r"(=|'s(?=-))")  # Stanford's PTBTokenizer splits here, nltk does not

# A letter or digit of a script without blanks between words. U+30FC, which lengthens a vowel, is of no single script.
_LETTER = r"[[\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{N}]]"
_CHARACTER = rf"{_LETTER}\p{{M}}*"  # with its vowel signs and tone marks
_OTHER = rf"[[\p{{L}}\p{{N}}]--{_LETTER}][[\p{{L}}\p{{M}}\p{{N}}]--{_LETTER}]*"
_SIGN = r"[^\p{L}\p{M}\p{N}]"  # punctuation and symbols

_UNSEPARATED = regex.compile(_LETTER, regex.V1)
_TOKEN = regex.compile(rf"{_CHARACTER}|{_OTHER}(?:[-'.]{_OTHER})*", regex.V1)
_PIECE = regex.compile(rf"{_SIGN}*{_CHARACTER}[{_SIGN}--[\p{{Ps}}\p{{Pi}}]]*|[^{_LETTER}]+", regex.V1)
_NEEDLESS_BLANK = regex.compile(rf"(?<={_CHARACTER}) | (?={_LETTER})", regex.V1)

# Mean number of such letters between two blanks from which they are taken for several words: words of segmented
# Chinese have 1.7 on average, of Japanese and Thai 2 to 3.
SEVERAL_WORDS = 4
RELEVANT_SHARE = 0.1  # of the captions; the fewer are names and signs in captions of another language


class Piece(NamedTuple):
    """A part of a caption as it is shown, which has an attention map and may be marked."""

    text: str
    gap: str  # what separates it from the next piece: a blank or nothing


class Tokenizer(ABC):
    """Splits captions into tokens, joins tokens to captions, and splits shown captions into pieces."""

    name: ClassVar[str]  # in config and checkpoint

    def __init__(self) -> None:
        self._kept, self._numbers = TokenizedCaptions.of([]), dict[str, int]()  # caption -> its number in ``_kept``

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """The tokens of a caption, in lower case and without punctuation."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, as in that of a captioner, is the tokenizer itself: what it keeps may be large."""
        return TOKENIZERS.__getitem__, (self.name,)

    def tokenize_all(self, captions: Collection[str]) -> TokenizedCaptions:
        """The tokens of many captions; those that were given to ``keep`` are not tokenized again."""
        known = [number for caption in captions if (number := self._numbers.get(caption)) is not None]
        if len(known) == len(captions):
            return self._kept.select(known)
        return TokenizedCaptions.of(map(self.tokenize, captions))

    def keep(self, captions: Iterable[str], folder: Path) -> None:
        """Tokenize the captions of a data set for all that need their tokens from now on: building the vocabulary,
        encoding, the reward and the scores.

        Args:
            folder: where they are kept on disk: the same captions are tokenized once and not again in every run.
        """
        distinct = list(dict.fromkeys(captions))
        path = file_of(folder, distinct, f"{self.name} {_version()}")
        tokens = load(path, len(distinct))
        if tokens is None:
            bar = tqdm(distinct, desc="tokenizing captions", unit="caption", leave=False, disable=None)
            tokens = TokenizedCaptions.of(map(self.tokenize, bar))
            save(path, tokens)
        self._kept, self._numbers = tokens, {caption: number for number, caption in enumerate(distinct)}

    @abstractmethod
    def join(self, tokens: Sequence[str]) -> str:
        """The readable text of tokens."""

    @abstractmethod
    def pieces(self, text: str) -> list[Piece]:
        """The pieces of a shown caption: all of it but white space."""

    def piece_of_token(self, tokens: Sequence[str], text: str) -> list[int]:
        """For each token, the index of the piece of ``text`` it is part of: 0 0 1 for "man 's hat" in "man's hat".

        ``tokens`` and ``text`` must be equal except for white space.
        """
        ends = list(accumulate(len(piece.text) for piece in self.pieces(text)))  # characters up to the end of each
        return [bisect_left(ends, end) for end in accumulate(map(len, tokens))]


class Words(Tokenizer):
    """Words as the COCO evaluation has them; pieces are what stands between blanks."""

    name = "words"

    def tokenize(self, text: str) -> list[str]:
        """Split a caption as the COCO evaluation does: lower case, Penn Treebank tokens, no punctuation.

        On the 35,000 training and validation captions of Flickr8k the result is that of Stanford's Java PTBTokenizer,
        except for a handful.
        """
        return list(_words(text))

    def join(self, tokens: Sequence[str]) -> str:
        """``tokenize(join(tokens)) == tokens`` for any result of ``tokenize``, unless the last token is "p."."""
        if all(token.isalpha() and token not in SPLIT_OFF for token in tokens):
            return " ".join(tokens)  # nearly every caption; the detokenizer would make a beam search a fifth slower
        text: str = _treebank()[1].detokenize(tokens)
        return text if self.tokenize(text) == tokens else " ".join(tokens)

    def pieces(self, text: str) -> list[Piece]:
        """The words between blanks."""
        return [Piece(word, " ") for word in text.split()]


class Characters(Tokenizer):
    """Characters of scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese); runs of other
    letters and digits stay whole. As sacreBLEU's "zh" (Post 2018, https://arxiv.org/abs/1804.08771), but without
    punctuation, like COCO's words."""

    name = "characters"

    def tokenize(self, text: str) -> list[str]:
        """A caption in lower case, without punctuation and symbols."""
        return list(_characters(text))

    def join(self, tokens: Sequence[str]) -> str:
        """With blanks only between runs of other letters; ``tokenize(join(tokens)) == tokens``."""
        return str(_NEEDLESS_BLANK.sub("", " ".join(tokens)))

    def pieces(self, text: str) -> list[Piece]:
        """Characters and runs of other letters, each with the punctuation beside it."""
        found = []
        for word in text.split():
            *parts, last = _PIECE.findall(word)
            found += [*(Piece(part, "") for part in parts), Piece(last, " ")]
        return found


WORDS, CHARACTERS = Words(), Characters()
TOKENIZERS: dict[str, Tokenizer] = {each.name: each for each in (WORDS, CHARACTERS)}


@cache
def _version() -> str:
    """What the tokens depend on besides the captions."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return " ".join([own, version("nltk"), version("regex"), unicodedata.unidata_version])


@cache
def _treebank() -> "tuple[TreebankWordTokenizer, TreebankWordDetokenizer]":
    """nltk's Penn Treebank tokenizer, regular expressions only (nltk.word_tokenize needs a download), and its reverse.

    Imported when a text is split or a word with a sign is joined: captioning a photo seldom needs them.
    """
    from nltk.tokenize import TreebankWordTokenizer
    from nltk.tokenize.treebank import TreebankWordDetokenizer

    return TreebankWordTokenizer(), TreebankWordDetokenizer()


@lru_cache(CACHED_CAPTIONS)
def _words(text: str) -> tuple[str, ...]:
    plain = text.strip().lower()
    if _PLAIN.fullmatch(plain) and _CONTRACTED.isdisjoint(tokens := plain.removesuffix(".").split()):
        return tuple(map(sys.intern, tokens))
    text = _SPLIT.sub(r" \1 ", unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).lower().strip())
    text = _ABBREVIATION.sub(r"\1 .", _SENTENCE.sub(r"\1 .", text))
    found = (token for token in _treebank()[0].tokenize(text) if token not in PUNCTUATION)
    return tuple(sys.intern(BRACKETS.get(token, token)) for token in found)  # interned: one object per distinct token


@lru_cache(CACHED_CAPTIONS)
def _characters(text: str) -> tuple[str, ...]:
    text = unicodedata.normalize("NFC", text.replace("\u2019", "'").lower())
    return tuple(map(sys.intern, _TOKEN.findall(text)))


def find_unseparated(captions: Sequence[str]) -> str | None:
    """A caption whose words are not separated by blanks, if this is how the captions are written; else None."""
    found = [caption for caption in captions if not caption.isascii() and _UNSEPARATED.search(caption)]
    counts = [len(_UNSEPARATED.findall(word)) for caption in found for word in caption.split()]
    between_blanks = [count for count in counts if count]
    if len(found) < RELEVANT_SHARE * len(captions) or sum(between_blanks) < SEVERAL_WORDS * len(between_blanks):
        return None
    return next(iter(found), None)


def tokenizer_of(captions: Sequence[str]) -> Tokenizer:
    """The tokenizer that suits how captions are written."""
    return CHARACTERS if find_unseparated(captions) else WORDS
