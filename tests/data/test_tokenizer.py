"""data/tokenizer.py: words are those of the COCO evaluation; characters of scripts without blanks; shown pieces."""

import csv
import re
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizer
from data.tokenizer import CHARACTERS, WORDS, tokenizer_of
from data.vocab import END_ID, SPECIAL, START_ID, UNK_ID, Vocabulary
from tests.support.helpers import ROOT

with (ROOT / "captions.csv").open(encoding="utf-8-sig", newline="") as file:
    SAMPLE = [row["caption"] for row in csv.DictReader(file)]

# Contractions, straight and curly quotes, brackets, numbers, abbreviations, two sentences, dashes.
NASTY = [
    "A dog's ball isn't here, and the dogs' toys can't be found.",
    "The man won't; he'll, they've, we'd, you're, I'm",
    "A two-year-old's toy on a black/white t-shirt",
    'A "quoted" sign that says "STOP" (in red) [left] {right}',
    "don\u2019t say \u201chello\u201d \u2014 or \u2018bye\u2019 \u2013 to the dog\u2026",
    "It's 9:30 a.m. in Washington D.C.",
    "Mr. Smith and Mrs. Jones in the U.S. Army, at 5 p.m. on Monday.",
    "A dog. It runs. A cat sits.",
    'He said "stop." and (perhaps.) ran',
    "a man 6 ft. tall on St. John street vs. Dr. Who",
    "$5.00 and 10% off, 1,000 people, a 3.5 m pole, 1/2 cup, 50's and the '90s",
    "wait ... what ? a - b -- c ; d : e !",
    "a & b, x=y, hash #1, ~ ^ a_b",
    "na\u00efve caf\u00e9 in S\u00e3o Paulo",
    "  a  double\t space  ",
    "gonna wanna gotta cannot gimme lemme d'oh o'neil 5 o'clock",
    "dog ,cat,mouse .",
    "ALL CAPS DOG",
    "a",
]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog runs.", "a dog runs"),
        ("a dog , a cat .", "a dog a cat"),
        ("The dog's ball isn't here!", "the dog 's ball is n't here"),
        ('A "big" (red) ball', "a big -lrb- red -rrb- ball"),
        ("a t-shirt -- and jeans", "a t-shirt and jeans"),
        ("It\u2019s a dog\u2026", "it 's a dog"),
        ("A dog. A cat.", "a dog a cat"),
        ("two dogs in the u.s.", "two dogs in the u.s."),
        ("mr. smith", "mr. smith"),
        ("一个 红色 的 圆形 ， 很 大 。", "一个 红色 的 圆形 很 大"),
        ("", ""),
        ("...", ""),
    ],
)
def test_words(caption: str, tokens: str) -> None:
    assert WORDS.tokenize(caption) == tokens.split()


PLAIN_WORDS = st.sampled_from(["a", "Dog", "cannot", "gonna", "not", "mr", "st", "p", "u", "5", "12", "no", "", "."])


@given(st.lists(PLAIN_WORDS, max_size=5).map(" ".join), st.sampled_from(["", ".", " .", "..", " \n"]))
def test_plain_captions_are_split_as_the_others_are(caption: str, end: str) -> None:
    split = tokenizer._words.__wrapped__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_PLAIN", re.compile("(?!)"))  # no caption is plain
        slow = split(caption + end)
    assert split(caption + end) == slow


@pytest.mark.skipif(shutil.which("java") is None, reason="Stanford's PTBTokenizer is a Java program")
def test_tokens_are_those_of_the_coco_evaluation() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions = [*dict.fromkeys(SAMPLE)][:1500] + NASTY
    assert len(captions) >= 1000
    theirs = PTBTokenizer().tokenize({number: [{"caption": caption}] for number, caption in enumerate(captions)})
    for number, caption in enumerate(captions):
        assert " ".join(WORDS.tokenize(caption)) == theirs[number][0], caption


def test_a_caption_is_tokenised_once_for_vocabulary_encoding_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [f"the dog number {number} isn't here." for number in range(20)]
    tokenised = []
    real, reverse = tokenizer._treebank()
    counting = SimpleNamespace(tokenize=lambda text: (tokenised.append(text), real.tokenize(text))[1])
    monkeypatch.setattr(tokenizer, "_treebank", lambda: (counting, reverse))
    vocabulary = Vocabulary.build(captions, 1)
    assert all(UNK_ID not in vocabulary.encode(caption) for caption in captions)
    WORDS.tokenize(captions[0]).clear()  # each caller gets a list of its own
    assert WORDS.tokenize(captions[0]) == ["the", "dog", "number", "0", "is", "n't", "here"]
    assert len(tokenised) == len(captions)


def test_piece_of_token() -> None:
    assert WORDS.piece_of_token(["a", "man", "'s", "hat", "is", "n't", "here"], "a man's hat isn't here") == [
        0,
        1,
        1,
        2,
        3,
        3,
        4,
    ]
    assert WORDS.piece_of_token([], "") == []


TEXTS = [
    "dog",
    "a",
    "t-shirt",
    "isn't",
    "dogs'",
    "cat's",
    "cannot",
    "u.s.",
    "mr.",
    "5",
    "1/2",
    "$5",
    "10%",
    "&",
    "(red)",
    '"STOP"',
    "caf\u00e9",
]
GAPS = [" ", "  ", ", ", " , ", ". ", " . ", "! ", "; ", " - ", " -- ", " ... ", "? "]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(GAPS)), max_size=12))
def test_round_trip_of_any_caption(pieces: list[tuple[str, str]]) -> None:
    caption = "".join(word + gap for word, gap in pieces) + "end."
    vocabulary = Vocabulary.build([caption], 1)
    ids = vocabulary.encode(caption)
    assert ids[0] == START_ID and ids[-1] == END_ID and UNK_ID not in ids
    assert vocabulary.encode(vocabulary.decode(ids)) == ids


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from([*(token for word in TEXTS for token in WORDS.tokenize(word)), "'s", "n't", "'", "gon", "na"]),
        max_size=12,
    )
)
def test_every_word_has_a_token(tokens: list[str]) -> None:
    text = Vocabulary([*SPECIAL, *dict.fromkeys(tokens)]).decode(
        len(SPECIAL) + list(dict.fromkeys(tokens)).index(token) for token in tokens
    )
    places = WORDS.piece_of_token(tokens, text)
    assert places == sorted(places) and sorted(set(places)) == list(range(len(text.split())))


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_any_text_can_be_tokenised_and_encoded(text: str) -> None:
    assert all(token and not token.isspace() for token in WORDS.tokenize(text))
    ids = Vocabulary.build(["a dog"], 1).encode(text)
    assert ids[0] == START_ID and ids[-1] == END_ID


def test_words_that_are_split_are_joined_again() -> None:
    for text in (
        "a man cannot see",
        "you wanna go",
        "they're gonna play",
        "gimme that ball",
        "lemme see",
        "he gotta run",
        "do not",
    ):
        tokens = WORDS.tokenize(text)
        vocabulary = Vocabulary([*SPECIAL, *dict.fromkeys(tokens)])
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_every_sample_caption_survives_encoding_and_decoding() -> None:
    vocabulary = Vocabulary.build(SAMPLE + NASTY, 1)
    for caption in SAMPLE + NASTY[:-1]:
        ids = vocabulary.encode(caption)
        assert UNK_ID not in ids
        assert WORDS.tokenize(vocabulary.decode(ids)) == WORDS.tokenize(caption)


@pytest.mark.parametrize(
    ("caption", "tokens", "joined"),
    [
        ("一个红色的圆形。", "一 个 红 色 的 圆 形", "一个红色的圆形"),
        (
            "一只穿着T恤的狗，在 Run fast 3.5米！",
            "一 只 穿 着 t 恤 的 狗 在 run fast 3.5 米",
            "一只穿着t恤的狗在run fast 3.5米",
        ),
        ("一个 红色 的 圆", "一 个 红 色 的 圆", "一个红色的圆"),
        ("「サッカー」・ボール", "サ ッ カ ー ボ ー ル", "サッカーボール"),
        ("สุนัขวิ่ง", "สุ นั ข วิ่ ง", "สุนัขวิ่ง"),
        ("갈색 개가 달린다.", "갈색 개가 달린다", "갈색 개가 달린다"),
        ("A dog\u2019s T-shirt (black/white)", "a dog's t-shirt black white", "a dog's t-shirt black white"),
        ("か\u3099 e\u0301", "が é", "がé"),
        ("。，！", "", ""),
    ],
)
def test_characters(caption: str, tokens: str, joined: str) -> None:
    assert CHARACTERS.tokenize(caption) == tokens.split()
    assert CHARACTERS.join(tokens.split()) == joined


def test_composed_and_decomposed_letters_are_one_word() -> None:
    assert WORDS.tokenize("cafe\u0301") == WORDS.tokenize("café") == ["café"]


def test_pieces_are_what_is_shown() -> None:
    assert WORDS.pieces("A dog,  runs.") == [("A", " "), ("dog,", " "), ("runs.", " ")]
    assert CHARACTERS.pieces("「一」个 black/white T恤。") == [
        *(("「一」", ""), ("个", " "), ("black/white", " "), ("T", ""), ("恤。", " "))
    ]
    assert CHARACTERS.pieces("（一（二") == [("（一", ""), ("（二", " ")]
    assert CHARACTERS.pieces(" - ") == [("-", " ")] and CHARACTERS.pieces("") == []


MIXED = "一红ก็ิ้ำเーンガ゛aZé'-. 3，。「」(\u0301\u200dİ가_½々\t"


@settings(max_examples=300)
@given(st.text(st.sampled_from(MIXED), max_size=12) | st.text(max_size=30))
def test_characters_of_any_text(text: str) -> None:
    tokens = CHARACTERS.tokenize(text)
    joined = CHARACTERS.join(tokens)
    assert CHARACTERS.tokenize(joined) == tokens
    assert "".join(piece.text for piece in CHARACTERS.pieces(text)) == "".join(text.split())
    assert sorted(set(CHARACTERS.piece_of_token(tokens, joined))) == list(range(len(CHARACTERS.pieces(joined))))


def test_the_tokenizer_that_suits_captions() -> None:
    assert tokenizer_of(SAMPLE) is tokenizer_of([]) is tokenizer_of(["一个 红色 的 圆"]) is WORDS
    assert tokenizer_of(["一个红色的圆", "红色的圆"]) is CHARACTERS
