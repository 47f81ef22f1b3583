"""data/tokenized.py and Tokenizer.keep: captions as numbers are the same captions, and are tokenized once."""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tokenized import KEPT_FILES, TokenizedCaptions, ranges
from data.tokenizer import Words
from data.vocab import Vocabulary

CAPTIONS = ["A dog runs .", "two men's hats", "", "a dog runs .", "\ud800 half a character", "A dog runs ."]
TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "c", "é"]), max_size=5), max_size=6)


class Counting(Words):
    """Counts the captions that are tokenized."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def tokenize(self, text: str) -> list[str]:
        self.seen += 1
        return super().tokenize(text)


@given(TEXTS, st.data())
def test_tokens_are_those_they_were_made_of(texts: list[list[str]], data: st.DataObject) -> None:
    tokens = TokenizedCaptions.of(texts)
    assert [tokens[number] for number in range(len(tokens))] == texts
    assert tokens.lengths.tolist() == list(map(len, texts)) and tokens.ids.dtype == np.int32
    chosen = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=8) if texts else st.just([]))
    some = tokens.select(chosen)
    assert [some[number] for number in range(len(some))] == [texts[number] for number in chosen]
    framed = TokenizedCaptions([*tokens.words, "<", ">"], tokens.ids, tokens.starts)
    framed = framed.surround([len(tokens.words)] * 2, [len(tokens.words) + 1])
    assert [framed[number] for number in range(len(framed))] == [["<", "<", *text, ">"] for text in texts]


def test_ranges() -> None:
    assert ranges(np.array([5, 1, 9, 0]), np.array([2, 0, 1, 3])).tolist() == [5, 6, 9, 0, 1, 2]
    assert ranges(np.array([], dtype=int), np.array([], dtype=int)).tolist() == []


def tokens_of(tokenizer: Words, captions: Sequence[str]) -> Iterator[list[str]]:
    tokens = tokenizer.tokenize_all(captions)
    return map(tokens.__getitem__, range(len(tokens)))


def test_captions_are_tokenized_once_and_kept_on_disk(tmp_path: Path) -> None:
    expected = [Words().tokenize(caption) for caption in CAPTIONS]
    first, second = Counting(), Counting()
    for tokenizer in (first, second):
        tokenizer.keep(CAPTIONS, tmp_path / "cache")
        assert list(tokens_of(tokenizer, CAPTIONS)) == expected
        assert list(tokens_of(tokenizer, CAPTIONS[::-2])) == expected[::-2]
    assert first.seen == len(set(CAPTIONS)) and second.seen == 0
    assert list(tokens_of(second, ["A dog runs .", "A cat"])) == [expected[0], ["a", "cat"]]  # one is unknown
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_other_captions_and_another_version_are_tokenized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Counting().keep(CAPTIONS, tmp_path)
    for captions in (CAPTIONS[:3], CAPTIONS[::-1], [*CAPTIONS, "a\0b"], [*CAPTIONS, "a", "b"]):
        tokenizer = Counting()
        tokenizer.keep(captions, tmp_path)
        assert tokenizer.seen == len(set(captions))
    monkeypatch.setattr("data.tokenizer._version", lambda: "another")
    tokenizer = Counting()
    tokenizer.keep(CAPTIONS, tmp_path)
    assert tokenizer.seen == len(set(CAPTIONS))


@pytest.mark.parametrize("damage", ["empty", "cut off", "text", "changed", "of other captions"])
def test_a_damaged_file_is_written_again(tmp_path: Path, damage: str) -> None:
    Counting().keep(CAPTIONS, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    contents = {
        "empty": b"",
        "cut off": whole[:middle],
        "text": b"text",
        "changed": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    if damage in contents:
        path.write_bytes(contents[damage])
    else:
        Counting().keep(CAPTIONS[:2], tmp_path)
        (other,) = set(tmp_path.iterdir()) - {path}
        other.replace(path)
    for seen in (len(set(CAPTIONS)), 0):
        tokenizer = Counting()
        tokenizer.keep(CAPTIONS, tmp_path)
        assert tokenizer.seen == seen
        assert list(tokens_of(tokenizer, CAPTIONS)) == [Words().tokenize(caption) for caption in CAPTIONS]


def test_only_the_files_used_last_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT_FILES):
        Words().keep([f"caption {number}"], tmp_path)
        (new,) = (path for path in tmp_path.iterdir() if path.stat().st_mtime > 1e6)
        os.utime(new, (number, number))
    Words().keep(["caption 0"], tmp_path)  # used again
    Words().keep(["caption 99"], tmp_path)
    assert len(list(tmp_path.iterdir())) == KEPT_FILES
    for caption, seen in (("caption 0", 0), ("caption 99", 0), ("caption 2", 0), ("caption 1", 1)):
        tokenizer = Counting()
        tokenizer.keep([caption], tmp_path)
        assert tokenizer.seen == seen, caption


def test_all_captions_are_encoded_as_each_is() -> None:
    vocabulary = Vocabulary.build(CAPTIONS[:4], 2)
    ids, starts = vocabulary.encode_all(CAPTIONS)
    encoded = [ids[start:end].tolist() for start, end in pairwise(starts)]
    assert encoded == [vocabulary.encode(caption) for caption in CAPTIONS]
    assert ids.dtype == np.int32
