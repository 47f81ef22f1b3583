"""gallery/agreement.py: CIDEr per image, and the words in which a caption and its references differ."""

import csv
from pathlib import Path

import pytest

from evaluation.metrics import Scorer
from evaluation.report import write_image_scores
from gallery.agreement import MIN_IMAGES, mark_shared, mark_unmatched, score

WORDS = ("red", "blue", "green", "black", "white")
REFERENCES = [[f"A {WORDS[number % 5]} dog runs .", f"Dog number {number}, running."] for number in range(MIN_IMAGES)]
CAPTIONS = [f"a {WORDS[number % 3]} dog runs" for number in range(MIN_IMAGES)]


@pytest.mark.process
def test_the_cider_of_an_image_is_the_one_that_evaluate_writes(tmp_path: Path) -> None:
    scored = score(CAPTIONS, REFERENCES)
    assert scored is not None
    found = scored.images["CIDEr"]
    assert found[0] > found[3] >= 0  # "red" is right, then "red" for "black"
    assert scored.totals["CIDEr"] == pytest.approx(found.mean()) and 0 < scored.totals["BLEU-4"] < 1
    captions = {f"{number:03}.jpg": caption for number, caption in enumerate(CAPTIONS)}
    scores = Scorer(dict(zip(captions, REFERENCES, strict=True))).score_images(captions)
    write_image_scores(tmp_path / "per_image.csv", scores, captions)
    with (tmp_path / "per_image.csv").open(encoding="utf-8") as file:
        written = {row["image"]: float(row["CIDEr"]) for row in csv.DictReader(file)}
    assert list(found) == pytest.approx([written[name] for name in captions], abs=1e-6)


def test_there_are_no_scores_for_too_few_images_or_without_references() -> None:
    assert score(CAPTIONS[1:], REFERENCES[1:]) is None
    assert score(CAPTIONS, [[], *REFERENCES[1:]]) is None
    assert score([], []) is None


def test_words_in_none_of_the_references_are_marked() -> None:
    references = ["The dog's hat, is RED.", "A big-eared dog"]
    marked = mark_unmatched("A blue Dog wears the dog's hat . (red)", references)
    assert " ".join(word for word, _ in marked) == "A blue Dog wears the dog's hat . (red)"
    assert [word for word, unmatched in marked if unmatched] == ["blue", "wears"]
    assert mark_unmatched("two words", []) == [("two", False), ("words", False)]  # there is nothing to compare with
    assert mark_unmatched("", references) == []


def test_runs_of_words_that_are_in_the_caption_are_marked() -> None:
    assert mark_shared("A  big dog, runs to a tree.", "the dog runs to (a) tree") == [
        ("A", True),
        ("big", False),
        ("dog, runs to a tree.", True),
    ]
    assert mark_shared("- nothing -", "a - dog") == [("- nothing -", False)]
    assert mark_shared("", "a dog") == []
