"""agreement.py: the CIDEr of each picture, and the words in which a caption and people's differ."""

import csv
from pathlib import Path

import pytest

from evaluation.metrics import Scorer
from evaluation.report import write_image_scores
from gallery.agreement import FEWEST_IMAGES, image_cider, mark_shared, mark_unsaid

WORDS = ("red", "blue", "green", "black", "white")
REFERENCES = [
    [f"A {WORDS[number % 5]} dog runs .", f"Dog number {number}, running."] for number in range(FEWEST_IMAGES)
]
CAPTIONS = [f"a {WORDS[number % 3]} dog runs" for number in range(FEWEST_IMAGES)]


def test_a_pictures_cider_is_what_evaluate_writes_of_it(tmp_path: Path) -> None:
    found = image_cider(CAPTIONS, REFERENCES)
    assert found is not None and found[0] > found[3] >= 0  # "red" is right, then "red" for "black"
    captions = {f"{number:03}.jpg": caption for number, caption in enumerate(CAPTIONS)}
    scores = Scorer(dict(zip(captions, REFERENCES, strict=True))).score_images(captions)
    write_image_scores(tmp_path / "per_image.csv", scores, captions)
    with (tmp_path / "per_image.csv").open(encoding="utf-8") as file:
        written = {row["image"]: float(row["CIDEr"]) for row in csv.DictReader(file)}
    assert found == pytest.approx([written[name] for name in captions], abs=1e-6)


def test_too_few_pictures_and_pictures_without_references_have_none() -> None:
    assert image_cider(CAPTIONS[1:], REFERENCES[1:]) is None
    assert image_cider(CAPTIONS, [[], *REFERENCES[1:]]) is None
    assert image_cider([], []) is None


def test_words_that_no_reference_has_are_marked() -> None:
    references = ["The dog's hat, is RED.", "A big-eared dog"]
    caption = "A blue Dog wears the dog's hat . (red)"
    assert mark_unsaid(caption, references) == [
        ("A", False), ("blue", True), ("Dog", False), ("wears", True), ("the", False), ("dog's", False), ("hat", False), (".", False),
        ("(red)", False),
    ]  # fmt: skip
    assert mark_unsaid("two words", []) == [("two", False), ("words", False)]  # without references nothing can be said
    assert mark_unsaid("", references) == []


def test_runs_of_words_that_the_caption_has_are_marked() -> None:
    assert mark_shared("A  big dog, runs to a tree.", "the dog runs to (a) tree") == [
        ("A", True),
        ("big", False),
        ("dog, runs to a tree.", True),
    ]
    assert mark_shared("- nothing -", "a - dog") == [("- nothing -", False)]
    assert mark_shared("", "a dog") == []
