"""tools/model_card.py: tables whose rows are not cherry-picked."""

from pathlib import Path

import pandas as pd
import pytest

from cli import UserError
from tests.support.helpers import write_csv
from tools.model_card import examples, gender_words, main, people


@pytest.mark.parametrize(
    ("captions", "mentioned"),
    [
        (["A woman runs .", "Someone runs ."], "women"),
        (["The man's hat"], "men"),
        (["A boy and his mother"], "both"),
        (["A human on a mantelpiece", "A heron and a shepherd"], "neither"),
        ([], "neither"),
    ],
)
def test_whole_words_are_counted(captions: list[str], mentioned: str) -> None:
    assert gender_words(captions) == mentioned


def test_people_counts_every_image_once() -> None:
    references = {"a": ["a girl"], "b": ["a girl", "a child"], "c": ["a man", "a woman"], "d": ["a dog"]}
    counts = people({"a": "a woman", "b": "a man", "c": "people", "d": "a dog"}, references)
    assert counts.to_numpy().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_examples_have_equally_spaced_ranks_from_the_best_to_the_worst() -> None:
    scored = pd.DataFrame(
        {"image": [f"{n}.jpg" for n in range(101)], "caption": "a dog", "CIDEr": [n / 100 for n in range(101)]}
    )
    assert examples(scored)["CIDEr"].tolist() == [n / 10 for n in range(10, -1, -1)]
    assert len(examples(scored[:1])) == 11  # few images are listed several times


def table_cells(text: str) -> list[list[str]]:
    """The rows of all tables of a Markdown text."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line]


def test_the_script_prints_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = write_csv(
        tmp_path / "captions.csv", [("a.jpg", "A woman runs", "val"), ("b.jpg", "A man sits", "val")]
    )
    header = ("image", "caption", "CIDEr", "BLEU-4", "ROUGE-L")
    scores = write_csv(
        tmp_path / "per_image.csv", [("b.jpg", "a dog", "0", "0", "0"), ("a.jpg", "a woman", "2.5", "0", "0.5")], header
    )
    main(["--per_image", str(scores), "--captions_file", str(references)])
    lines = table_cells(capsys.readouterr().out)
    assert lines[2] == ["women", "1", "0", "0", "0"] and lines[3] == ["men", "0", "0", "0", "1"]
    assert lines[8] == ["a woman", "a.jpg", "250"] and lines[-1] == ["a dog", "b.jpg", "0"]


def test_images_of_any_split_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a split column, images of a run with another train.seed than 0 were "not in split 'test'"."""
    names = [f"{number}.jpg" for number in range(40)]
    references = write_csv(tmp_path / "captions.csv", [(name, "A woman runs") for name in names], ("image", "caption"))
    scored = [(name, "a man", "0.5") for name in names]
    scores = write_csv(tmp_path / "per_image.csv", scored, ("image", "caption", "CIDEr"))
    main(["--per_image", str(scores), "--data.captions_file", str(references)])
    assert table_cells(capsys.readouterr().out)[2] == ["women", "0", "40", "0", "0"]


def test_errors_name_their_cause(tmp_path: Path) -> None:
    references = write_csv(tmp_path / "captions.csv", [("a.jpg", "A woman runs", "val")])
    other = write_csv(tmp_path / "other.csv", [("z.jpg", "a dog", "0")], ("image", "caption", "CIDEr"))
    wrong = write_csv(tmp_path / "wrong.csv", [("a.jpg", "a dog")], ("image", "caption"))
    header = ("image", "caption", "CIDEr")
    words = write_csv(tmp_path / "words.csv", [("a.jpg", "a dog", "good")], header)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "latin.csv").write_bytes("image,caption,CIDEr\na.jpg,Stra\xdfe,1\n".encode("latin-1"))
    for path, reason in (
        (tmp_path / "none.csv", "no such file"),
        (write_csv(tmp_path / "unscored.csv", [], header), "no image in it"),
        (other, r"z\.jpg: a scored image that is not in"),
        *((path, r"not a per_image\.csv") for path in (wrong, words, tmp_path / "empty.csv", tmp_path / "latin.csv")),
    ):
        with pytest.raises(UserError, match=reason):
            main(["--per_image", str(path), "--captions_file", str(references)])


def test_image_names_may_be_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = write_csv(tmp_path / "captions.csv", [("007", "A woman runs", "val")])
    scores = write_csv(tmp_path / "per_image.csv", [("007", "a dog", "1")], ("image", "caption", "CIDEr"))
    main(["--per_image", str(scores), "--captions_file", str(references)])
    assert "007" in capsys.readouterr().out
