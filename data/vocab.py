"""The Vocabulary: the tokens that a captioner knows, and captions as their ids."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cli import UserError
from data.tokenized import TokenizedCaptions
from data.tokenizer import CHARACTERS, WORDS, Tokenizer, find_unseparated

PAD, START, END, UNK = "<pad>", "<start>", "<end>", "<unk>"
SPECIAL = (PAD, START, END, UNK)
PAD_ID, START_ID, END_ID, UNK_ID = range(len(SPECIAL))
MAX_WORDS = 50_000  # five times those of COCO: rarer words are hardly learned
SHOWN_LETTERS = 50  # of a word in a message

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Vocabulary:
    """The tokens a captioner knows, in id order: the special ones, then the others as ``build`` sorts them.

    After ``--init_from``, those of the checkpoint come first, then the new ones.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer = WORDS) -> None:
        """Restore a vocabulary from ``state()``, with the tokenizer it was built with.

        Raises:
            UserError: the special tokens do not come first, a word is repeated or is none, or there are too many.
        """
        if len(words) > MAX_WORDS:
            raise UserError(f"vocabulary: {len(words):,} words, at most {MAX_WORDS:,}. Raise data.min_count")
        if unusable := [word for word in words if not _usable(word)]:
            raise UserError(f"vocabulary: {unusable[0][:SHOWN_LETTERS]!r} is not a word without blanks")
        if tuple(words[: len(SPECIAL)]) != SPECIAL or len(set(words)) != len(words):
            raise UserError(f"vocabulary: it must start with {' '.join(SPECIAL)} and contain each word once")
        self.words, self.tokenizer = list(words), tokenizer
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 5, tokenizer: Tokenizer = WORDS) -> "Vocabulary":
        """Count the tokens of the *training* captions and keep those that occur at least ``min_count`` times.

        They are sorted by falling frequency, then alphabetically.

        Raises:
            UserError: no token is that frequent, or the words of the captions are not separated, but should be.
        """
        captions = list(captions)
        if tokenizer is WORDS and (example := find_unseparated(captions)):
            raise UserError(
                f"the captions do not separate words by blanks, such as {example[:20]!r}. "
                f"Add --data.tokenizer {CHARACTERS.name}, or put a blank between words (for Chinese: jieba)"
            )
        tokens = tokenizer.tokenize_all(captions)
        counts = dict(zip(tokens.words, np.bincount(tokens.ids, minlength=len(tokens.words)).tolist(), strict=True))
        words = sorted(
            (word for word, count in counts.items() if count >= min_count and _usable(word)),
            key=lambda word: (-counts[word], word),
        )
        if not words:
            raise UserError(
                f"no word occurs {min_count} times in the training captions. "
                "Lower data.min_count, or check the captions file"
            )
        return cls([*SPECIAL, *(word for word in words if word not in SPECIAL)], tokenizer)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """Caption -> token ids [<start>, ..., <end>]; tokens outside the vocabulary become <unk>."""
        return [START_ID, *(self._ids.get(token, UNK_ID) for token in self.tokenizer.tokenize(caption)), END_ID]

    def encode_all(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """``encode`` of many captions, one after the other.

        Returns:
            all token ids (T,) int32, and where each caption begins in them, and at last T: (N + 1,) int64.
        """
        encoded = self.number(captions).surround([START_ID], [END_ID])
        return encoded.ids, encoded.starts

    def number(self, captions: Sequence[str]) -> TokenizedCaptions:
        """Captions as token ids, without <start> and <end>."""
        tokens = self.tokenizer.tokenize_all(captions)
        ids_of = np.array([self._ids.get(word, UNK_ID) for word in tokens.words], dtype=np.int32)
        return replace(tokens, words=self.words, ids=ids_of[tokens.ids])

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
        return self.tokenizer.join(tokens)

    def state(self) -> list[str]:
        """The tokens in id order, a plain list for the checkpoint."""
        return list(self.words)


def _usable(word: str) -> bool:
    """Whether a text can be a word of captions: without blanks, and UTF-8 can encode it."""
    return word.split() == [word] and not _LONE_SURROGATE.search(word)
