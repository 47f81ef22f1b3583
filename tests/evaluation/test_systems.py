"""evaluation/systems.py and evaluate.py with captions of any system: which captions are scored, and against what."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import evaluate
from cli import UserError
from data.captions import read_captions, references_of
from evaluation.predictions import read_predictions
from evaluation.systems import short_names
from tests.support.helpers import write_csv

Evaluate = Callable[..., dict]


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """``score("--predictions", ...)`` on a machine without Java; returns the content of metrics.json."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)

    def call(*options: str | Path) -> dict:
        evaluate.main([str(option) for option in options])
        return json.loads(Path("metrics.json").read_text())

    return call


COCO = [
    ("COCO_val2014_000000391895.jpg", "a man on a bike", "test"),
    ("COCO_val2014_000000391895.jpg", "somebody rides a bike", "test"),
    ("photos/1000268201_693b08cb0e.jpg", "a child climbs stairs", "test"),
    ("sea.tar.png", "boats at sea", "test"),
    ("elsewhere.jpg", "a dog", "train"),
]
CAPTIONS = ["a man rides a bike", "a girl goes up", "the sea"]


def results(path: Path, ids: list, captions: list[str] = CAPTIONS) -> Path:
    path.write_text(
        json.dumps([{"image_id": i, "caption": caption, "id": 7} for i, caption in zip(ids, captions, strict=False)])
    )
    return path


@pytest.fixture
def refs(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "refs.csv", COCO)


@pytest.mark.parametrize(
    "first", ["COCO_val2014_000000391895.jpg", "COCO_val2014_000000391895", 391895, "391895", "000000391895"]
)
@pytest.mark.parametrize(
    "second", ["photos/1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e"]
)
@pytest.mark.parametrize("third", ["sea.tar.png", "sea.tar"])
def test_ids_an_image_may_have(tmp_path: Path, first: str | int, second: str, third: str) -> None:
    names = {name: [] for name, _, split in COCO if split == "test"}
    found = read_predictions(results(tmp_path / "r.json", [first, second, third]), names)
    assert found == dict(zip(names, CAPTIONS, strict=True))


def test_a_number_must_belong_to_one_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"entry 1: image_id 12 may be a_12.jpg or b_012.jpg. Use the file name"):
        read_predictions(results(tmp_path / "r.json", [12]), ["a_12.jpg", "b_012.jpg"])


def test_an_exact_name_wins(tmp_path: Path) -> None:
    assert read_predictions(results(tmp_path / "r.json", ["7", "7.jpg"]), ["7", "7.jpg"]) == {
        "7": CAPTIONS[0],
        "7.jpg": CAPTIONS[1],
    }


NAMES = ["COCO_val2014_000000391895.jpg", "photos/1000268201_693b08cb0e.jpg", "sea.tar.png"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([*NAMES[:2]], "no caption for 1 of the 3 images to score, such as sea.tar.png"),
        (
            [*NAMES[:2], "elsewhere.jpg"],
            "entry 3: image_id 'elsewhere.jpg' is not among the 3 images to score. It may be in another split",
        ),
        (
            [NAMES[0], 391895, NAMES[2]],
            "entry 2: image_id 391895: COCO_val2014_000000391895.jpg has a caption already",
        ),
        ([NAMES[0], 2014, NAMES[2]], "image_id 2014 is not among"),
        ([True, *NAMES[1:]], 'entry 1: must have an "image_id"'),
    ],
)
def test_predictions_that_do_not_fit(score: Evaluate, refs: Path, tmp_path: Path, ids: list, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        score("--predictions", results(tmp_path / "r.json", ids), "--captions_file", refs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not JSON: line 1, column 2"),
        ('{"annotations": []}', "not in COCO results format"),
        ("[1]", "entry 1: must have"),
        ('[{"image_id": "sea.tar.png", "caption": null}]', "entry 1: must have"),
        ('[{"file": "sea.tar.png", "caption": "the sea"}]', 'entry 1: must have an "image_id"'),
        ('[{"image": "sea.tar.png", "caption": "the sea"}]', "no caption for 2 of the 3 images"),
        ("[]", "no caption for 3 of the 3 images"),
    ],
)
def test_predictions_of_another_format(score: Evaluate, refs: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=message):
        score("--predictions", tmp_path / "r.json", "--captions_file", refs)


def test_predictions_need_references_and_no_options_of_a_model(score: Evaluate, refs: Path, tmp_path: Path) -> None:
    file = results(tmp_path / "r.json", NAMES)
    for options, message in [
        ([], "--predictions needs the references: add --captions_file"),
        (["--captions_file", refs, "--beam_size", "3"], "--beam_size has no effect"),
        (["--captions_file", refs, "--checkpoint", "x.pth"], "--checkpoint has no effect"),
        (["--captions_file", refs, "--limit", "1"], "--limit has no effect"),
        (["--captions_file", refs, "--baseline", "nearest"], "--baseline has no effect"),
        (["--captions_file", refs, "--output", file], "would overwrite"),
    ]:
        with pytest.raises(UserError, match=message):
            score("--predictions", file, *options)
    with pytest.raises(UserError, match=r"nowhere\.json: no such file"):
        score("--predictions", "nowhere.json", "--captions_file", refs)


def test_references_without_splits_are_all_scored(score: Evaluate, tmp_path: Path) -> None:
    refs = write_csv(tmp_path / "refs.csv", [row[:2] for row in COCO], header=("image", "caption"))
    record = score(
        "--predictions",
        results(tmp_path / "r.json", [*NAMES, "elsewhere"], [*CAPTIONS, "a dog"]),
        "--captions_file",
        refs,
    )
    assert (record["images"], record["split"]) == (4, "all")


def test_a_split_of_a_file_without_splits_needs_the_seed_of_the_run(score: Evaluate, tmp_path: Path) -> None:
    """Seed 0 was assumed: a run with another train.seed was scored on the wrong images."""
    names = [f"{number}.jpg" for number in range(60)]
    refs = write_csv(tmp_path / "refs.csv", [(name, "a dog runs") for name in names], header=("image", "caption"))
    test = [list(references_of(read_captions(refs, seed), "test")) for seed in (0, 3)]
    assert test[0] != test[1]
    file = results(tmp_path / "r.json", test[1], ["a dog runs"] * len(test[1]))
    with pytest.raises(UserError, match=r"--split test: .*refs\.csv has no split column.*--seed"):
        score("--predictions", file, "--captions_file", refs, "--split", "test")
    options = ["--predictions", file, "--captions_file", refs, "--seed", "3"]
    assert score(*options)["images"] == score(*options, "--split", "test")["images"] == len(test[1])
    with pytest.raises(UserError, match="--seed is for --predictions"):
        score("--seed", "3")
    divided = write_csv(tmp_path / "divided.csv", [(name, "a dog runs", "test") for name in names])
    with pytest.raises(UserError, match=r"--seed 3: .*divided\.csv has a split column, so --seed has no effect"):
        score("--predictions", file, "--captions_file", divided, "--seed", "3")


def test_two_files_are_compared(
    score: Evaluate, refs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = results(tmp_path / "good.json", NAMES, ["a man on a bike", "a child climbs stairs", "boats at sea"])
    bad = results(tmp_path / "bad.json", NAMES, ["boats at sea", "a man on a bike", "a child climbs stairs"])
    before = {path: path.read_text() for path in (good, bad)}
    record = score("--predictions", good, bad, "--captions_file", refs)
    (other,) = record["others"]
    assert (record["system"], other["system"], record["copied"], other["checkpoint"]) == ("good", "bad", 0, None)
    assert other["against_first"]["CIDEr"]["difference"] == other["CIDEr"] - record["CIDEr"] < -5
    assert other["against_first"]["CIDEr"]["interval"][1] < 0 and other["against_first"]["CIDEr"]["p"] < 0.01
    assert re.search(r"^\| bad +\| .* p 0\.002 \|$", capsys.readouterr().out, re.MULTILINE)
    assert {path: path.read_text() for path in (good, bad)} == before
    assert {"per_image.csv", "per_image_bad.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_the_scores_of_each_image_start_with_the_worst(score: Evaluate, refs: Path, tmp_path: Path) -> None:
    file = results(tmp_path / "r.json", NAMES, ["a man on a bike", "a car", "boats at the sea"])
    table = [
        line.split(",")
        for line in Path(score("--predictions", file, "--captions_file", refs)["per_image"]).read_text().splitlines()
    ]
    assert table[0] == ["image", "caption", "CIDEr", "BLEU-4", "ROUGE-L"]
    assert [row[0] for row in table[1:]] == [NAMES[1], NAMES[2], NAMES[0]]
    assert float(table[1][2]) < float(table[2][2]) < float(table[3][2])


def test_another_split(score: Evaluate, refs: Path, tmp_path: Path) -> None:
    file = results(tmp_path / "r.json", ["elsewhere.jpg"])
    assert score("--predictions", file, "--captions_file", refs, "--split", "train")["images"] == 1


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["lstm.json"], ["lstm"]),
        (["runs/a/checkpoints.pth", "runs/b/checkpoints.pth"], ["a/checkpoints", "b/checkpoints"]),
        (["checkpoints.pth", "runs/a/checkpoints.pth"], ["checkpoints", "runs/a/checkpoints"]),
        (["runs/a/v1.5.pth", "runs/a/../a/v1.6.pth"], ["v1.5", "v1.6"]),
    ],
)
def test_files_are_named_by_what_distinguishes_them(paths: list[str], names: list[str]) -> None:
    assert short_names([Path(path) for path in paths]) == names


def test_all_images_are_scored_whatever_their_split(score: Evaluate, tmp_path: Path) -> None:
    refs, rows = tmp_path / "split.csv", [("1.jpg", "a dog", "train"), ("2.jpg", "a cat", "test")]
    write_csv(refs, rows)
    predictions = results(tmp_path / "r.json", ["1.jpg", "2.jpg"])
    with pytest.raises(UserError, match=r"not among the 1 images to score.*--split all"):
        score("--predictions", predictions, "--captions_file", refs)
    assert score("--predictions", predictions, "--captions_file", refs, "--split", "all")["images"] == 2
