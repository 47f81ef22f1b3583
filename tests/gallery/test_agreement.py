"""gallery/agreement.py: CIDEr per image, and the words in which a caption and its references differ."""

import csv
from pathlib import Path

import pytest

from data.tokenizer import CHARACTERS
from evaluation.metrics import Scorer
from evaluation.report import write_image_scores
from gallery.agreement import MIN_IMAGES, mark_shared, mark_unmatched, score

WORDS = ("red", "blue", "green", "black", "white")
REFERENCES = [[f"A {WORDS[number % 5]} dog runs .", f"Dog number {number}, running."] for number in range(MIN_IMAGES)]
CAPTIONS = [f"a {WORDS[number % 3]} dog runs" for number in range(MIN_IMAGES)]


def test_the_cider_of_an_image_is_the_one_that_evaluate_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java, whose METEOR takes 10 s to start
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
    assert " ".join(word for word, _, _ in marked) == "A blue Dog wears the dog's hat . (red)"
    assert [word for word, _, unmatched in marked if unmatched] == ["blue", "wears"]
    assert mark_unmatched("two words", []) == [("two", " ", False), ("words", " ", False)]
    assert mark_unmatched("", references) == []


def test_runs_of_words_that_are_in_the_caption_are_marked() -> None:
    assert mark_shared("A  big dog, runs to a tree.", "the dog runs to (a) tree") == [
        ("A", " ", True),
        ("big", " ", False),
        ("dog, runs to a tree.", " ", True),
    ]
    assert mark_shared("- nothing -", "a - dog") == [("- nothing -", " ", False)]
    assert mark_shared("", "a dog") == []


def test_characters_are_marked_one_by_one() -> None:
    assert mark_unmatched("红圆run fast", ["一个红色的方形。"], CHARACTERS) == [
        *(("红", "", False), ("圆", "", True), ("run", " ", True), ("fast", " ", True))
    ]
    assert mark_shared("一个，红色的 圆形。", "一个圆", CHARACTERS) == [
        *(("一个，", "", True), ("红色的", " ", False), ("圆", "", True), ("形。", " ", False))
    ]


def test_the_cider_of_characters() -> None:
    references = [[f"{'红蓝绿黄黑'[number % 5]}色的{'圆方'[number % 2]}形。"] for number in range(MIN_IMAGES)]
    captions = ["红色的圆形"] * MIN_IMAGES
    found, as_words = score(captions, references, CHARACTERS), score(captions, references)
    assert found is not None and as_words is not None
    assert found.images["CIDEr"][0] > found.images["CIDEr"][2] > 0 == as_words.images["CIDEr"][2]  # both are round
