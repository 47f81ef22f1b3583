"""data/vocab.py: the tokeniser agrees with the COCO evaluation's, and captions survive encoding and decoding."""

import csv
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import UserError
from data import vocab
from data.vocab import END_ID, PAD_ID, SPECIAL, START_ID, UNK_ID, Vocabulary, tokenize, word_of_token
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
        ("", ""),
        ("...", ""),
    ],
)
def test_tokenize(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


@pytest.mark.skipif(shutil.which("java") is None, reason="Stanford's PTBTokenizer is a Java program")
def test_tokens_are_those_of_the_coco_evaluation() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions = [*dict.fromkeys(SAMPLE)][:1500] + NASTY
    assert len(captions) >= 1000
    theirs = PTBTokenizer().tokenize({number: [{"caption": caption}] for number, caption in enumerate(captions)})
    for number, caption in enumerate(captions):
        assert " ".join(tokenize(caption)) == theirs[number][0], caption


def test_a_caption_is_tokenised_once_for_vocabulary_encoding_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [f"the dog number {number} isn't here." for number in range(20)]
    tokenised = []
    real = vocab._tokenizer
    counting = SimpleNamespace(tokenize=lambda text: (tokenised.append(text), real.tokenize(text))[1])
    monkeypatch.setattr(vocab, "_tokenizer", counting)
    vocabulary = Vocabulary.build(captions, 1)
    assert all(UNK_ID not in vocabulary.encode(caption) for caption in captions)
    tokenize(captions[0]).clear()  # each caller gets a list of its own
    assert tokenize(captions[0]) == ["the", "dog", "number", "0", "is", "n't", "here"]
    assert len(tokenised) == len(captions)


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


def test_word_of_token() -> None:
    assert word_of_token(["a", "man", "'s", "hat", "is", "n't", "here"], "a man's hat isn't here") == [
        0,
        1,
        1,
        2,
        3,
        3,
        4,
    ]
    assert word_of_token([], "") == []


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


def test_every_sample_caption_survives_encoding_and_decoding() -> None:
    vocabulary = Vocabulary.build(SAMPLE + NASTY, 1)
    for caption in SAMPLE + NASTY[:-1]:
        ids = vocabulary.encode(caption)
        assert UNK_ID not in ids
        assert tokenize(vocabulary.decode(ids)) == tokenize(caption)


WORDS = [
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


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=12))
def test_round_trip_of_any_caption(pieces: list[tuple[str, str]]) -> None:
    caption = "".join(word + gap for word, gap in pieces) + "end."
    vocabulary = Vocabulary.build([caption], 1)
    ids = vocabulary.encode(caption)
    assert ids[0] == START_ID and ids[-1] == END_ID and UNK_ID not in ids
    assert vocabulary.encode(vocabulary.decode(ids)) == ids


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([*(token for word in WORDS for token in tokenize(word)), "'s", "n't", "'", "gon", "na"]),
        max_size=12,
    )
)
def test_every_word_has_a_token(tokens: list[str]) -> None:
    text = Vocabulary([*SPECIAL, *dict.fromkeys(tokens)]).decode(
        len(SPECIAL) + list(dict.fromkeys(tokens)).index(token) for token in tokens
    )
    places = word_of_token(tokens, text)
    assert places == sorted(places) and sorted(set(places)) == list(range(len(text.split())))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_can_be_tokenised_and_encoded(text: str) -> None:
    assert all(token and not token.isspace() for token in tokenize(text))
    ids = Vocabulary.build(["a dog"], 1).encode(text)
    assert ids[0] == START_ID and ids[-1] == END_ID


def test_words_that_the_tokeniser_splits_are_joined_again() -> None:
    for text in (
        "a man cannot see",
        "you wanna go",
        "they're gonna play",
        "gimme that ball",
        "lemme see",
        "he gotta run",
        "do not",
    ):
        tokens = tokenize(text)
        vocabulary = Vocabulary([*SPECIAL, *dict.fromkeys(tokens)])
        assert vocabulary.decode(vocabulary.encode(text)) == text
