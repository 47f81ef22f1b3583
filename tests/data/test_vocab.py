"""data/vocab.py: captions as ids, and back."""

import csv

import pytest

from cli import UserError
from data.tokenizer import CHARACTERS, WORDS
from data.vocab import END_ID, PAD_ID, SPECIAL, START_ID, UNK_ID, Vocabulary
from tests.support.helpers import ROOT

with (ROOT / "captions.csv").open(encoding="utf-8-sig", newline="") as file:
    SAMPLE = [row["caption"] for row in csv.DictReader(file)]


def test_order_is_special_tokens_then_falling_frequency_then_alphabet() -> None:
    vocabulary = Vocabulary.build(["b a a", "c b a", "d c"], min_count=1)
    assert vocabulary.words == [*SPECIAL, "a", "b", "c", "d"]
    assert (PAD_ID, START_ID, END_ID, UNK_ID) == (0, 1, 2, 3)
    assert len(vocabulary) == 8


def test_min_count_is_the_lowest_frequency_that_is_kept() -> None:
    captions = ["one two three", "two three", "three"]
    assert [Vocabulary.build(captions, n).words[4:] for n in (1, 2, 3)] == [
        ["three", "two", "one"],
        ["three", "two"],
        ["three"],
    ]
    with pytest.raises(UserError, match=r"no word occurs 4 times.*min_count"):
        Vocabulary.build(captions, 4)
    with pytest.raises(UserError):
        Vocabulary.build([], 1)


def test_same_captions_in_any_order_give_the_same_vocabulary() -> None:
    assert Vocabulary.build(SAMPLE, 2).state() == Vocabulary.build(reversed(SAMPLE), 2).state()


def test_encode_and_decode() -> None:
    vocabulary = Vocabulary.build(["a dog runs"], 1)
    ids = vocabulary.encode("A dog runs, zebra!")
    assert ids == [START_ID, 4, 5, 6, UNK_ID, END_ID]
    assert vocabulary.decode(ids) == "a dog runs <unk>"
    assert (
        vocabulary.decode([PAD_ID, START_ID, 5, END_ID, 6, 6]) == "dog"
    )  # what follows <end> is not part of the caption
    assert vocabulary.decode([]) == vocabulary.decode([END_ID]) == ""


def test_special_tokens_in_captions_are_ordinary_words() -> None:
    vocabulary = Vocabulary.build(["<start> <end> <pad> <unk> dog"], 1)
    assert vocabulary.words[:4] == list(SPECIAL) and len(set(vocabulary.words)) == len(vocabulary)
    assert vocabulary.encode("<end> dog").count(END_ID) == 1


def test_state_round_trip() -> None:
    vocabulary = Vocabulary.build(SAMPLE, 1)
    state = vocabulary.state()
    assert all(type(word) is str for word in state)
    again = Vocabulary(state)
    assert again.words == vocabulary.words
    assert again.encode(SAMPLE[0]) == vocabulary.encode(SAMPLE[0])
    state.clear()  # the list is the caller's: changing it changes nothing
    assert len(vocabulary) == len(again)


@pytest.mark.parametrize("words", [[], ["a", "b"], [*SPECIAL[::-1], "a"], [*SPECIAL, "a", "a"], [*SPECIAL, "<pad>"]])
def test_wrong_word_lists_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="vocabulary"):
        Vocabulary(words)


def test_a_vocabulary_of_characters_joins_captions_without_blanks() -> None:
    vocabulary = Vocabulary.build(["一只 T恤 红。"], 1, CHARACTERS)
    assert sorted(vocabulary.words[4:]) == sorted("一只t恤红")
    assert vocabulary.decode(vocabulary.encode("红T恤 一")) == "红t恤一"


@pytest.mark.parametrize(
    "caption", ["一个红色的圆形。", "红色圆形", "สุนัขสีน้ำตาลวิ่งบนหญ้า", "赤い丸があります", "一只穿T恤的大狗"]
)
def test_captions_without_blanks_are_refused_as_words(caption: str) -> None:
    with pytest.raises(UserError, match=r"blanks, such as .*--data.tokenizer characters, or.*jieba"):
        Vocabulary.build([caption, caption, "a dog"], 1)
    assert len(Vocabulary.build([caption], 1, CHARACTERS)) > 5


@pytest.mark.parametrize(
    "captions",
    [
        ["一个 红色 的 圆形 。", "高尔夫球场 上 有 一 个 人"],
        ["สุนัข สีน้ำตาล วิ่ง บน หญ้า"],
        ["狗", "猫"],
        ["갈색 개가 풀밭에서 달린다"],
        ["a man with a sign that says 禁止停车请勿打扰", *["a dog"] * 20],
    ],
)
def test_captions_with_blanks_may_be_words(captions: list[str]) -> None:
    assert Vocabulary.build(captions, 1).tokenizer is WORDS
