"""model_card.py: tables nobody chose the lines of."""

from pathlib import Path

import pandas as pd
import pytest

from tests.support.helpers import run_script, write_csv
from tools.model_card import examples, gender_words, people


@pytest.mark.parametrize(
    ("captions", "named"),
    [
        (["A woman runs .", "Someone runs ."], "women"),
        (["The man's hat"], "men"),
        (["A boy and his mother"], "both"),
        (["A human on a mantelpiece", "A heron and a shepherd"], "neither"),
        ([], "neither"),
    ],
)
def test_whole_words_are_counted(captions: list[str], named: str) -> None:
    assert gender_words(captions) == named


def test_people_counts_every_image_once() -> None:
    references = {"a": ["a girl"], "b": ["a girl", "a child"], "c": ["a man", "a woman"], "d": ["a dog"]}
    counts = people({"a": "a woman", "b": "a man", "c": "people", "d": "a dog"}, references)
    assert counts.to_numpy().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_examples_go_from_the_best_to_the_worst_at_equal_distances() -> None:
    scored = pd.DataFrame(
        {"image": [f"{n}.jpg" for n in range(101)], "caption": "a dog", "CIDEr": [n / 100 for n in range(101)]}
    )
    assert examples(scored)["CIDEr"].tolist() == [n / 10 for n in range(10, -1, -1)]
    assert len(examples(scored[:1])) == 11  # few images come more than once


def test_the_script_prints_both_tables(tmp_path: Path) -> None:
    references = write_csv(
        tmp_path / "captions.csv", [("a.jpg", "A woman runs", "val"), ("b.jpg", "A man sits", "val")]
    )
    header = ("image", "caption", "CIDEr", "BLEU-4", "ROUGE-L")
    scores = write_csv(
        tmp_path / "per_image.csv", [("b.jpg", "a dog", "0", "0", "0"), ("a.jpg", "a woman", "2.5", "0", "0.5")], header
    )
    done = run_script("tools.model_card", "--per_image", scores, "--captions_file", references, "--split", "val")
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line]
    assert lines[2] == ["women", "1", "0", "0", "0"] and lines[3] == ["men", "0", "0", "0", "1"]
    assert lines[8] == ["a woman", "a.jpg", "250"] and lines[-1] == ["a dog", "b.jpg", "0"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    references = write_csv(tmp_path / "captions.csv", [("a.jpg", "A woman runs", "val")])
    other = write_csv(tmp_path / "other.csv", [("z.jpg", "a dog", "0")], ("image", "caption", "CIDEr"))
    wrong = write_csv(tmp_path / "wrong.csv", [("a.jpg", "a dog")], ("image", "caption"))
    header = ("image", "caption", "CIDEr")
    words = write_csv(tmp_path / "words.csv", [("a.jpg", "a dog", "good")], header)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "latin.csv").write_bytes("image,caption,CIDEr\na.jpg,Stra\xdfe,1\n".encode("latin-1"))
    for path, reason in (
        (tmp_path / "none.csv", "no such file"),
        (other, "z.jpg is not in split 'val'"),
        *((path, "not the per_image.csv") for path in (wrong, words, tmp_path / "empty.csv", tmp_path / "latin.csv")),
    ):
        done = run_script("tools.model_card", "--per_image", path, "--captions_file", references, "--split", "val")
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert reason in done.stderr


def test_images_may_be_called_by_numbers(tmp_path: Path) -> None:
    references = write_csv(tmp_path / "captions.csv", [("007", "A woman runs", "val")])
    scores = write_csv(tmp_path / "per_image.csv", [("007", "a dog", "1")], ("image", "caption", "CIDEr"))
    done = run_script("tools.model_card", "--per_image", scores, "--captions_file", references, "--split", "val")
    assert done.returncode == 0 and "007" in done.stdout, done.stderr
