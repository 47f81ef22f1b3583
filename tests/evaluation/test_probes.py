"""Captions are probed for colours, numbers and objects that no reference confirms."""

import numpy as np
import pytest

from evaluation.bootstrap import resample_counts
from evaluation.probes import NUMBERS, PROBES, difference, probe

REFERENCES = {
    "1.jpg": ["two brown dogs run on the beach", "A pair of dogs on sand"],
    "2.jpg": ["a man in a red shirt rides a bicycle"],
}


def test_a_word_is_right_if_a_reference_has_it_or_one_of_the_same_meaning() -> None:
    found = probe({"1.jpg": "a couple of tan puppies by the ocean", "2.jpg": "a guy on a blue bike"}, REFERENCES)
    assert found["colour"].mentioned.tolist() == [1, 1] and found["colour"].right.tolist() == [1, 0]  # tan, blue
    assert found["number"].mentioned.tolist() == [1, 0] and found["number"].right.tolist() == [1, 0]
    assert found["object"].mentioned.tolist() == [2, 2] and found["object"].right.tolist() == [
        1,
        2,
    ]  # not: water
    assert found["object"].precision == pytest.approx(3 / 4)


def test_a_word_that_is_said_twice_counts_once_and_captions_without_words_have_no_precision() -> None:
    found = probe({"1.jpg": "a dog and a dog", "2.jpg": ""}, REFERENCES)
    assert found["object"].mentioned.tolist() == [1, 0]
    assert np.isnan(found["colour"].precision)


def test_the_difference_has_an_interval_around_it() -> None:
    references = {f"{i}.jpg": ["a red ball"] for i in range(50)}
    good = probe(dict.fromkeys(references, "a red ball"), references)["colour"]
    bad = probe({name: "a red ball" if int(name[:-4]) % 2 else "a green ball" for name in references}, references)[
        "colour"
    ]
    low, high = difference(good, bad, resample_counts(50))
    assert -0.7 < low < -0.5 < high < -0.3
    assert difference(good, good, resample_counts(50)) == [0, 0]


def test_no_word_has_two_meanings() -> None:
    assert NUMBERS
    for rows in PROBES.values():
        words = [word for row in rows for word in row.split()]
        assert len(set(words)) == len(words)
