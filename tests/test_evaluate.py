"""evaluate.py: scores of a checkpoint, and of anybody's predictions."""

import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pandas as pd
import pytest
from conftest import assert_refused, draw, run_script, write_csv
from torchvision.models.resnet import Bottleneck, ResNet

import evaluate
import train
from metrics import Scorer
from utils import UserError

METRICS = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
KEYS = {*METRICS, "distinct", "images", "skipped", "split", "beam_size", "checkpoint", "predictions"}
STAGE = '[{"name": "frozen", "epochs": 15, "lr": 0.05, "label_smoothing": 0, "patience": 15}]'

Evaluate = Callable[..., dict]


@pytest.fixture(scope="module")
def run(tiny_args: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run on tiny data; its ResNet is thin, and stays so while these tests run."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "plain.yaml").write_text("device: cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.model.resnet50", functools.partial(ResNet, Bottleneck, [1, 1, 1, 1], width_per_group=8))
        options = [f"--train.stages={STAGE}", "--decoder.dropout=0", f"--output_dir={folder}"]
        train.main([f"--config={folder / 'plain.yaml'}", *tiny_args, *options])
        yield folder


@pytest.fixture
def score(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """``score("--split", "val")`` evaluates the run's checkpoint on a machine without Java; returns what metrics.json says."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)

    def call(*options: str | Path) -> dict:
        checkpoint = [] if "--predictions" in options else ["--checkpoint", run / "checkpoints.pth"]
        evaluate.main([str(word) for word in [*checkpoint, *options]])
        output = options[options.index("--output") + 1] if "--output" in options else "metrics.json"
        return json.loads(Path(output).read_text())

    return call


@pytest.fixture
def album(tmp_path: Path) -> Callable[..., list[str]]:
    """``album(40, bad=2)``: options for so many test pictures, of which some cannot be read."""

    def make(images: int, bad: int = 0, split: str = "test") -> list[str]:
        folder = tmp_path / "album"
        folder.mkdir()
        rows = []
        for number in range(images):
            path = draw(folder / f"{number:02}.png", ("circle", "square")[number % 2], "red", (32 + number, 32))
            if number < bad:
                path.write_bytes(path.read_bytes()[:60])
            rows += [(path.name, "a red thing", split), (path.name, f"one red thing of {number}", split)]
        write_csv(folder / "captions.csv", rows)
        return ["--captions_file", str(folder / "captions.csv"), "--image_dir", str(folder)]

    return make


# --- a checkpoint


def test_the_command(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # without Java, which takes seconds to start
    result = run_script("evaluate.py", "--checkpoint", tiny_checkpoint, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.match(r"4 images of the split 'test', beam size 2, \d+% of the captions distinct\n", result.stdout)
    assert re.findall(r"^  (\S+) +(?:\d+\.\d|n/a \(needs a Java that works\))$", result.stdout, re.MULTILINE) == METRICS
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "predictions.json"}
    assert_refused(run_script("evaluate.py", "--checkpont", "x", cwd=tmp_path), "--checkpont")


def test_metrics_json_and_predictions_json(score: Evaluate, run: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = score()
    assert record.keys() == KEYS and list(record)[: len(METRICS)] == METRICS
    assert (record["images"], record["skipped"], record["split"], record["beam_size"]) == (4, 0, "test", 2)
    assert record["checkpoint"] == str(run / "checkpoints.pth") and record["predictions"] == "predictions.json"
    predictions = json.loads(Path("predictions.json").read_text())
    assert [entry["image_id"] for entry in predictions] == [f"shape_{number:02}.jpg" for number in (3, 7, 11, 15)]
    table = pd.read_csv(tiny_data / "captions.csv")
    references = table[table["split"] == "test"].groupby("image")["caption"].agg(list).to_dict()
    captions = {entry["image_id"]: entry["caption"] for entry in predictions}
    scores = Scorer(references).score(captions)
    assert {metric: record[metric] for metric in METRICS} == {**scores, "METEOR": None}
    assert record["distinct"] == len(set(captions.values())) / 4
    out = capsys.readouterr().out
    assert "  METEOR   n/a (needs a Java that works)\n" in out and f"  CIDEr    {100 * record['CIDEr']:5.1f}\n" in out and "note" not in out


def test_the_validation_split_scores_what_training_said(score: Evaluate, run: Path) -> None:
    log = pd.read_csv(run / "loss_log.txt", sep="\t")
    best = log.loc[log["val_cider"].idxmax()]
    record = score("--split", "val")
    assert record["CIDEr"] == pytest.approx(best["val_cider"], rel=1e-5) and record["CIDEr"] > 0
    assert record["BLEU-4"] == pytest.approx(best["val_bleu4"], rel=1e-5)
    assert record["distinct"] == best["distinct"]


def test_a_second_evaluation_computes_no_features(score: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    first = score()
    monkeypatch.setattr("models.captioner.Captioner.encode", lambda *_: pytest.fail("features are computed again"))
    assert score() == first


def test_options_override_the_checkpoints_config(score: Evaluate, album: Callable[..., list[str]], tmp_path: Path) -> None:
    record = score(*album(20), "--beam_size", "1", "--output", "out/a_metrics.json", "--feature_cache", tmp_path / "cache")
    assert (record["images"], record["beam_size"], record["predictions"]) == (20, 1, "out/a_predictions.json")
    assert list((tmp_path / "cache").iterdir()) and len(json.loads(Path("out/a_predictions.json").read_text())) == 20


@pytest.mark.parametrize(
    ("output", "predictions"),
    [
        ("metrics.json", "predictions.json"),
        ("runs/x/metrics_val.json", "runs/x/predictions_val.json"),
        ("lstm.json", "lstm_predictions.json"),
    ],
)
def test_where_the_predictions_go(output: str, predictions: str) -> None:
    assert evaluate.predictions_path(Path(output)) == Path(predictions)


def test_bad_images_are_named_skipped_and_counted(
    score: Evaluate, album: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    record = score(*album(60, bad=3))
    assert (record["images"], record["skipped"]) == (57, 3)
    assert len(json.loads(Path("predictions.json").read_text())) == 57
    out = capsys.readouterr().out
    assert re.findall(r"skipped: .*?(\d+)\.png: ", out) == ["00", "01", "02"]
    assert "note: 3 images could not be used" in out and "note: CIDEr depends on the set of images" in out


def test_one_image_gets_a_note(score: Evaluate, album: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert score(*album(1))["images"] == 1
    assert "note: CIDEr depends on the set of images" in capsys.readouterr().out


def test_what_a_checkpoint_cannot_be_scored_on(score: Evaluate, album: Callable[..., list[str]], tmp_path: Path) -> None:
    options = album(20, split="val")
    for words, message in [
        (options, r"no image is in the split 'test' \(there are: val\)"),
        ([*options, "--split", "val", "--image_dir", "nowhere"], "20 of 20 images cannot be used .*--image_dir"),
        (["--captions_file", "nowhere.csv"], "nowhere.csv: no such captions file"),
        (["--checkpoint", "nowhere.pth"], "nowhere.pth: no such checkpoint"),
        (["--beam_size", "0"], "--beam_size 0: must be 1 or more"),
        (["--split", "dev"], "argument --split: invalid choice: 'dev'"),
        (["--device", "abacus"], "device abacus: not available here"),
    ]:
        with pytest.raises(UserError, match=message):
            score(*words)
    assert not list(tmp_path.glob("*.json"))


def test_an_interrupted_evaluation_leaves_the_old_scores(score: Evaluate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    score()
    before = {path.name: path.read_text() for path in tmp_path.glob("*.json")}

    def power_cut(values: object, file: IO[str], **_: object) -> None:
        file.write("[{")
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluate.json.dump", power_cut)
    with pytest.raises(KeyboardInterrupt):
        score("--beam_size", "1")
    assert {path.name: path.read_text() for path in tmp_path.glob("*.json")} == before


# --- anybody's predictions

COCO = [
    ("COCO_val2014_000000391895.jpg", "a man on a bike", "test"),
    ("COCO_val2014_000000391895.jpg", "somebody rides a bike", "test"),
    ("photos/1000268201_693b08cb0e.jpg", "a child climbs stairs", "test"),
    ("sea.tar.png", "boats at sea", "test"),
    ("elsewhere.jpg", "a dog", "train"),
]
CAPTIONS = ["a man rides a bike", "a girl goes up", "the sea"]


def results(path: Path, ids: list, captions: list[str] = CAPTIONS) -> Path:
    path.write_text(json.dumps([{"image_id": i, "caption": caption, "id": 7} for i, caption in zip(ids, captions, strict=False)]))
    return path


@pytest.fixture
def refs(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "refs.csv", COCO)


def test_a_models_predictions_score_the_same_from_the_file(score: Evaluate, tiny_data: Path) -> None:
    model = score()
    other = score("--predictions", "predictions.json", "--captions_file", tiny_data / "captions.csv", "--output", "again.json")
    assert other == model | {"checkpoint": None, "beam_size": None}


@pytest.mark.parametrize("first", ["COCO_val2014_000000391895.jpg", "COCO_val2014_000000391895", 391895, "391895", "000000391895"])
@pytest.mark.parametrize("second", ["photos/1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e"])
@pytest.mark.parametrize("third", ["sea.tar.png", "sea.tar"])
def test_what_an_image_may_be_called(tmp_path: Path, first: str | int, second: str, third: str) -> None:
    names = {name: [] for name, _, split in COCO if split == "test"}
    found = evaluate.read_predictions(results(tmp_path / "r.json", [first, second, third]), names)
    assert found == dict(zip(names, CAPTIONS, strict=True))


def test_a_number_must_be_a_single_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"entry 1: image_id 12 could be a_12.jpg or b_012.jpg. Use the file name"):
        evaluate.read_predictions(results(tmp_path / "r.json", [12]), ["a_12.jpg", "b_012.jpg"])


def test_an_exact_name_wins(tmp_path: Path) -> None:
    assert evaluate.read_predictions(results(tmp_path / "r.json", ["7", "7.jpg"]), ["7", "7.jpg"]) == {
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
            "entry 3: image_id 'elsewhere.jpg' is none of the 3 images to score. Check --captions_file and --split",
        ),
        ([NAMES[0], 391895, NAMES[2]], "entry 2: image_id 391895 is COCO_val2014_000000391895.jpg, which has a caption already"),
        ([NAMES[0], 2014, NAMES[2]], "image_id 2014 is none of"),
        ([True, *NAMES[1:]], 'entry 1: must have an "image_id"'),
    ],
)
def test_predictions_that_do_not_fit(score: Evaluate, refs: Path, tmp_path: Path, ids: list, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        score("--predictions", results(tmp_path / "r.json", ids), "--captions_file", refs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not a JSON file"),
        ('{"annotations": []}', "not in COCO results format"),
        ("[1]", "entry 1: must have"),
        ('[{"image_id": "sea.tar.png", "caption": null}]', "entry 1: must have"),
        ('[{"image": "sea.tar.png", "caption": "the sea"}]', 'entry 1: must have an "image_id"'),
        ("[]", "no caption for 3 of the 3 images"),
    ],
)
def test_predictions_of_another_format(score: Evaluate, refs: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=message):
        score("--predictions", tmp_path / "r.json", "--captions_file", refs)


def test_predictions_need_references_and_nothing_of_a_model(score: Evaluate, refs: Path, tmp_path: Path) -> None:
    file = results(tmp_path / "r.json", NAMES)
    for words, message in [
        ([], "--predictions needs the references: add --captions_file"),
        (["--captions_file", refs, "--beam_size", "3"], "--beam_size has no use there"),
        (["--captions_file", refs, "--checkpoint", "x.pth"], "--checkpoint has no use there"),
        (["--captions_file", refs, "--output", file], "would overwrite the predictions"),
    ]:
        with pytest.raises(UserError, match=message):
            score("--predictions", file, *words)
    with pytest.raises(UserError, match=r"nowhere\.json: no such file"):
        score("--predictions", "nowhere.json", "--captions_file", refs)


def test_references_without_splits_are_all_scored(score: Evaluate, tmp_path: Path) -> None:
    refs = write_csv(tmp_path / "refs.csv", [row[:2] for row in COCO], header=("image", "caption"))
    record = score("--predictions", results(tmp_path / "r.json", [*NAMES, "elsewhere"], [*CAPTIONS, "a dog"]), "--captions_file", refs)
    assert (record["images"], record["split"]) == (4, "all")


def test_another_split(score: Evaluate, refs: Path, tmp_path: Path) -> None:
    file = results(tmp_path / "r.json", ["elsewhere.jpg"])
    assert score("--predictions", file, "--captions_file", refs, "--split", "train")["images"] == 1
