"""Captions as numbers of their tokens: a tenth of the memory of lists of words, and kept on disk from run to run."""

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from files import atomic_open

KEPT_FILES = 8  # captions files whose tokens are kept: of COCO's, each takes 15 MB
PREFIX = "tokens-"  # of their names


@dataclass(frozen=True)
class TokenizedCaptions:
    """The tokens of N captions.

    Args:
        words: the different tokens.
        ids: (T,) int32, the tokens of all captions, one caption after the other, as indices into ``words``.
        starts: (N + 1,) int64; caption n has the tokens [starts[n], starts[n + 1]).
    """

    words: list[str]
    ids: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, captions: Iterable[Sequence[str]]) -> "TokenizedCaptions":
        """From the tokens of each caption."""
        number_of: dict[str, int] = {}
        lengths: list[int] = []

        def numbers(caption: Sequence[str]) -> list[int]:
            lengths.append(len(caption))
            return [number_of.setdefault(token, len(number_of)) for token in caption]

        ids = np.fromiter(chain.from_iterable(map(numbers, captions)), np.int32)
        return cls(list(number_of), ids, _starts(np.array(lengths, dtype=np.int64)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each caption, (N,)."""
        return np.diff(self.starts)

    def __getitem__(self, caption: int) -> list[str]:
        """The tokens of one caption."""
        return [self.words[number] for number in self.ids[self.starts[caption] : self.starts[caption + 1]].tolist()]

    def select(self, captions: Sequence[int]) -> "TokenizedCaptions":
        """Some of the captions, in the order of their numbers in ``captions``."""
        chosen = np.asarray(captions, dtype=np.int64)
        lengths = self.lengths[chosen]
        starts = _starts(lengths)
        return TokenizedCaptions(self.words, self.ids[ranges(self.starts[chosen], lengths)], starts)

    def surround(self, before: Sequence[int], after: Sequence[int]) -> "TokenizedCaptions":
        """With these numbers before and after the tokens of each caption."""
        added = np.arange(len(self) + 1) * (len(before) + len(after))
        starts = self.starts + added
        ids = np.empty(starts[-1], dtype=np.int32)
        for place, number in enumerate(before):
            ids[starts[:-1] + place] = number
        for place, number in enumerate(reversed(after), start=1):
            ids[starts[1:] - place] = number
        ids[np.arange(len(self.ids)) + (added[:-1] + len(before)).repeat(self.lengths)] = self.ids
        return TokenizedCaptions(self.words, ids, starts)


def ranges(firsts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """first, first + 1, ... of each range, one after the other."""
    ends = lengths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    places: np.ndarray = np.arange(total) + (firsts - (ends - lengths)).repeat(lengths)
    return places


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], lengths.cumsum()]).astype(np.int64)


def file_of(folder: Path, captions: Sequence[str], version: str) -> Path:
    """Where the tokens of ``captions`` are kept.

    Args:
        version: of the tokenizer.
    """
    digest = hashlib.sha256(version.encode())
    digest.update("\0".join(captions).encode("utf-8", "surrogatepass"))
    return folder / f"{PREFIX}{digest.hexdigest()[:32]}.npz"


def load(path: Path, count: int) -> TokenizedCaptions | None:
    """The tokens of ``count`` captions that ``save`` wrote; None if there is no such file, or if it is damaged."""
    try:
        with np.load(path) as arrays:  # a zip archive, whose checksums are compared
            words = json.loads(arrays["words"].tobytes())
            ids, lengths = arrays["ids"], arrays["lengths"].astype(np.int64)
        path.touch()  # when it was last used
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = len(lengths) == count and lengths.sum() == len(ids)
    return TokenizedCaptions(words, ids, _starts(lengths)) if whole else None


def save(path: Path, tokens: TokenizedCaptions) -> None:
    """Write a file for ``load``, and delete those in the folder that were not used for the longest time."""
    words = np.frombuffer(json.dumps(tokens.words).encode(), dtype=np.uint8)
    with atomic_open(path, "wb") as file:
        np.savez_compressed(file, words=words, ids=tokens.ids, lengths=tokens.lengths.astype(np.int32))
    kept = sorted(path.parent.glob(f"{PREFIX}*.npz"), key=_last_used, reverse=True)
    for old in kept[KEPT_FILES:]:
        with contextlib.suppress(OSError):  # another run deletes it too, or Windows has it open
            old.unlink()


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
