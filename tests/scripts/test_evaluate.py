"""evaluate.py: the scores of checkpoints."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

import evaluate
import train
from cli import UserError
from evaluation import systems
from evaluation.metrics import Scorer
from evaluation.run import output_file, place_files
from evaluation.systems import System
from tests.support.helpers import draw, run_script, write_csv
from tests.support.training import thin_resnet50

METRICS = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
DESCRIBED = ["words", "vocabulary", "distinct", "copied", "intervals"]
ABOUT = ["images", "skipped", "limit", "split", "tokenizer"]
FILES = ["system", "beam_size", "checkpoint", "predictions", "per_image"]
KEYS = [*METRICS, *DESCRIBED, *ABOUT, *FILES]
STAGE = '[{"name": "frozen", "epochs": 15, "lr": 0.05, "label_smoothing": 0, "patience": 15}]'

NAMED = ("checkpoints", "checkpoints_last")
GET = systems.FeatureCache.__getitem__

Evaluate = Callable[..., dict]


@pytest.fixture(scope="module")
def run(tiny_args: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run on tiny data. The encoder is a thin ResNet in all tests of this module."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "plain.yaml").write_text("device: cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.model.ResNet50", thin_resnet50)
        options = [f"--train.stages={STAGE}", "--decoder.dropout=0", "--generate.mirror=true", f"--output_dir={folder}"]
        train.main([f"--config={folder / 'plain.yaml'}", *tiny_args, *options])
        yield folder


@pytest.fixture
def score(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """``score("--split", "val")`` evaluates the run's checkpoint without Java; returns the content of metrics.json."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)

    def call(*options: str | Path) -> dict:
        checkpoint = (
            []
            if {"--predictions", "--checkpoint"} & {*map(str, options)}
            else ["--checkpoint", run / "checkpoints.pth"]
        )
        evaluate.main([str(option) for option in [*checkpoint, *options]])
        output = options[options.index("--output") + 1] if "--output" in options else "metrics.json"
        return json.loads(Path(output).read_text())

    return call


@pytest.fixture
def album(tmp_path: Path) -> Callable[..., list[str]]:
    """``album(40, bad=2)``: the options for 40 test images of which 2 cannot be read."""

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


def test_the_command(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # without Java, which takes seconds to start
    result = run_script("evaluate.py", "--checkpoint", tiny_checkpoint, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (tmp_path / "metrics.md").read_text()
    assert result.stdout.startswith("4 images of the split 'test', scores x 100\n")
    assert re.search(
        r"^\| checkpoints, beam 2 (\| +\d+\.\d ){4}\|    n/a (\| +\d+\.\d ){2}\|$", result.stdout, re.MULTILINE
    )
    written = {path.name for path in tmp_path.iterdir()}
    # The features go to the current folder, not to the one that the checkpoint names
    assert written == {".cache", "metrics.json", "metrics.md", "per_image.csv", "predictions.json"}


def test_metrics_json_and_predictions_json(
    score: Evaluate, run: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = score()
    assert list(record) == [*KEYS, "others"] and record["others"] == []
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
    assert f"| {100 * record['CIDEr']:5.1f} |\n" in out and re.findall("note: .*", out) == [
        "note: METEOR is n/a: it needs a working Java"
    ]


def test_the_validation_split_has_the_scores_that_training_logged(score: Evaluate, run: Path) -> None:
    log = pd.read_csv(run / "loss_log.txt", sep="\t")
    best = log.loc[log["val_cider"].idxmax()]
    record = score("--split", "val")
    assert record["CIDEr"] == pytest.approx(best["val_cider"], rel=1e-5) and record["CIDEr"] > 0
    assert record["BLEU-4"] == pytest.approx(best["val_bleu4"], rel=1e-5)
    assert record["distinct"] == best["distinct"]


def test_a_second_evaluation_computes_no_features(score: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    first = score()
    monkeypatch.setattr(
        "models.captioner.Captioner.encode", lambda *_, **__: pytest.fail("features are computed again")
    )
    assert score() == first


def test_options_override_the_checkpoints_config(
    score: Evaluate, album: Callable[..., list[str]], tmp_path: Path
) -> None:
    record = score(
        *album(20), "--beam_size", "1", "--output", "out/a_metrics.json", "--feature_cache", tmp_path / "cache"
    )
    assert (record["images"], record["beam_size"], record["predictions"]) == (20, 1, "out/a_predictions.json")
    assert list((tmp_path / "cache").iterdir()) and len(json.loads(Path("out/a_predictions.json").read_text())) == 20


@pytest.mark.parametrize(
    ("output", "system", "predictions"),
    [
        ("metrics.json", "", "predictions.json"),
        ("runs/x/metrics_val.json", "", "runs/x/predictions_val.json"),
        ("lstm.json", "", "lstm_predictions.json"),
        ("metrics.json", "f2_checkpoints_beam_3", "predictions_f2_checkpoints_beam_3.json"),
    ],
)
def test_names_of_the_files_next_to_the_output(output: str, system: str, predictions: str) -> None:
    assert output_file(Path(output), "predictions", ".json", system) == Path(predictions)


def test_systems_whose_names_differ_only_in_punctuation_get_their_own_files() -> None:
    options = evaluate.read_options(["--output", "metrics.json"])
    places = place_files(options, [System(name) for name in ("x", "a-b, beam 3", "a_b, beam 3", "a.b, beam 3")])
    written = [place["predictions"].name for place in places]
    assert written[:2] == ["predictions.json", "predictions_a_b_beam_3.json"] and len(set(written)) == 4


def test_unreadable_images_are_reported_skipped_and_counted(
    score: Evaluate, album: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    record = score(*album(60, bad=3))
    assert (record["images"], record["skipped"]) == (57, 3)
    assert len(json.loads(Path("predictions.json").read_text())) == 57
    out, err = capsys.readouterr()
    assert re.findall(r"skipped: .*?(\d+)\.png: ", err) == ["00", "01", "02"]
    assert "note: 3 images could not be read" in out and "note: CIDEr depends on the set of images" in out


def test_one_image_gets_a_note(
    score: Evaluate, album: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(*album(1))["images"] == 1
    assert "note: CIDEr depends on the set of images" in capsys.readouterr().out


def test_a_limit_gets_a_note(score: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    whole, part = score(), score("--limit", "3")
    assert (whole["images"], whole["limit"], part["images"], part["limit"]) == (4, None, 3, 3)
    out = capsys.readouterr().out
    notes = "note: only the first 3 images of the split", "note: CIDEr depends on the set of images"
    assert [out.count(note) for note in notes] == [1, 1]
    assert score("--limit", "4")["limit"] is None and "CIDEr depends" not in capsys.readouterr().out


def test_scores_of_each_image(score: Evaluate, album: Callable[..., list[str]]) -> None:
    record = score(*album(20))
    table = pd.read_csv(record["per_image"])
    assert list(table) == ["image", "caption", "CIDEr", "BLEU-4", "ROUGE-L"]
    captions = {entry["image_id"]: entry["caption"] for entry in json.loads(Path("predictions.json").read_text())}
    assert dict(zip(table["image"], table["caption"], strict=True)) == captions
    assert table["CIDEr"].mean() == pytest.approx(record["CIDEr"], abs=1e-6)
    assert table["ROUGE-L"].mean() == pytest.approx(record["ROUGE-L"], abs=1e-6)


def test_intervals_and_caption_statistics(score: Evaluate, tiny_data: Path) -> None:
    record = score()
    assert record["intervals"].keys() == {"BLEU-4", "ROUGE-L", "CIDEr"}
    assert all(low <= record[metric] <= high for metric, (low, high) in record["intervals"].items())
    captions = [entry["caption"] for entry in json.loads(Path("predictions.json").read_text())]
    table = pd.read_csv(tiny_data / "captions.csv")
    seen = set(table.loc[table["split"] == "train", "caption"].str.lower().str.replace(r"[.,]", "", regex=True))
    assert record["copied"] == sum(caption in seen for caption in captions) / 4
    assert record["words"] == sum(len(caption.split()) for caption in captions) / 4


def test_checkpoints_and_beam_sizes_side_by_side(
    score: Evaluate, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = {
        (name, beam): score("--checkpoint", run / f"{name}.pth", "--beam_size", beam)
        for name in NAMED
        for beam in ("1", "3")
    }
    capsys.readouterr()
    read: list[Path] = []
    monkeypatch.setattr(
        systems.FeatureCache, "__getitem__", lambda cache, path: (read.append(path), GET(cache, path))[1]
    )
    checkpoints = [run / f"{name}.pth" for name in NAMED]
    record = score("--checkpoint", *checkpoints, "--beam_size", "1", "3", "--output", "all/metrics.json")
    assert len(read) == len(set(read)) == 4  # two checkpoints have one encoder here
    others = record.pop("others")
    table = {(Path(each["checkpoint"]).stem, str(each["beam_size"])): each for each in [record, *others]}
    assert list(table) == list(alone)
    for key, each in table.items():
        assert [each[metric] for metric in METRICS] == [alone[key][metric] for metric in METRICS]
        assert each["intervals"] == alone[key]["intervals"]
        assert len(json.loads(Path(each["predictions"]).read_text())) == len(pd.read_csv(each["per_image"])) == 4
    assert (record["predictions"], others[2]["predictions"]) == (
        "all/predictions.json",
        "all/predictions_checkpoints_last_beam_3.json",
    )
    assert [each["against_first"]["CIDEr"]["difference"] for each in others] == [
        each["CIDEr"] - record["CIDEr"] for each in others
    ]
    text = Path("all/metrics.md").read_text()
    assert capsys.readouterr().out.startswith(text)
    for each in [record, *others]:
        assert re.search(
            rf"^\| {each['system']} +\|( +\S+ +\|){{6}} +{100 * each['CIDEr']:.1f} \|$", text, re.MULTILINE
        ), text
    assert text.count("| checkpoints_last, beam 3 ") == 3 and text.count("| checkpoints, beam 1 ") == 2


def test_checkpoints_must_agree_on_the_split(score: Evaluate, run: Path, tmp_path: Path, tiny_data: Path) -> None:
    checkpoint = torch.load(run / "checkpoints.pth", weights_only=True)
    table = pd.read_csv(tiny_data / "captions.csv")
    table["split"] = table["split"].replace({"val": "test", "test": "val"})
    table.to_csv(tmp_path / "turned.csv", index=False)
    checkpoint["config"]["data"]["captions_file"] = str(tmp_path / "turned.csv")
    torch.save(checkpoint, tmp_path / "other.pth")
    both = ["--checkpoint", run / "checkpoints.pth", tmp_path / "other.pth"]
    with pytest.raises(UserError, match=r"other\.pth: its split 'test' differs from that of .*--captions_file"):
        score(*both)
    assert len(score(*both, "--captions_file", tiny_data / "captions.csv")["others"]) == 1
    with pytest.raises(UserError, match="the same value twice"):
        score("--checkpoint", "a.pth", "./a.pth")


def test_the_nearest_neighbour_baseline(score: Evaluate, tiny_data: Path) -> None:
    (nearest,) = score("--baseline", "nearest")["others"]
    assert (nearest["system"], nearest["beam_size"], nearest["copied"], nearest["predictions"]) == (
        "nearest",
        None,
        1.0,
        "predictions_nearest.json",
    )
    table = pd.read_csv(tiny_data / "captions.csv")
    borrowed = {entry["caption"] for entry in json.loads(Path("predictions_nearest.json").read_text())}
    assert borrowed <= set(table.loc[table["split"] == "train", "caption"])
    assert "| nearest " in Path("metrics.md").read_text()


def test_invalid_options_are_refused(score: Evaluate, album: Callable[..., list[str]], tmp_path: Path) -> None:
    options = album(20, split="val")
    for wrong, message in [
        (options, r"no image is in the split 'test' \(there are: val\)"),
        ([*options, "--split", "val", "--image_dir", "nowhere"], "nowhere: no such folder of images"),
        (["--captions_file", "nowhere.csv"], "nowhere.csv: no such captions file"),
        (["--checkpoint", "nowhere.pth"], "nowhere.pth: no such checkpoint"),
        (["--beam_size", "3", "0"], "--beam_size: must be a whole number of 1 or more, not '0'"),
        (["--beam_size", "3", "3"], "--beam_size 3 3: the same value twice"),
        (["--limit", "0"], "--limit: must be a whole number of 1 or more, not '0'"),
        (["--output", "metrics.md"], "--output metrics.md: scores are written as JSON"),
        (["--baseline", "nearest", "--split", "train"], "cannot be scored on --split train"),
        (
            [*options, "--split", "val", "--baseline", "nearest"],
            r"no image is in the split 'train' .*another: --split val",
        ),
        (["--split", "dev"], "--split: invalid choice: 'dev'"),
        (["--device", "abacus"], "device abacus: no such device"),
        (["--precision", "fp16"], r"--precision: invalid choice: 'fp16' \(choose from"),
    ]:
        with pytest.raises(UserError, match=message):
            score(*wrong)
    assert not list(tmp_path.glob("*.json"))


def test_an_interrupted_evaluation_leaves_the_old_scores(
    score: Evaluate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    score()
    before = {path.name: path.read_text() for path in tmp_path.glob("*.json")}

    def power_cut(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.os.fsync", power_cut)
    with pytest.raises(KeyboardInterrupt):
        score("--beam_size", "1")
    assert {path.name: path.read_text() for path in tmp_path.glob("*.json")} == before


def test_a_clashing_output_is_refused_before_captioning(
    score: Evaluate, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused after hours of captioning."""
    captions = tmp_path / "per_image.csv"
    captions.write_text((tiny_data / "captions.csv").read_text())
    monkeypatch.setattr(systems, "caption_images", lambda *_: pytest.fail("captioning has begun"))
    with pytest.raises(UserError, match=r"--output metrics\.json: would overwrite per_image\.csv"):
        score("--captions_file", captions)


def test_a_models_predictions_score_the_same_from_the_file(score: Evaluate, tiny_data: Path) -> None:
    model = score()
    other = score(
        "--predictions", "predictions.json", "--captions_file", tiny_data / "captions.csv", "--output", "again.json"
    )
    assert other == model | {
        "checkpoint": None,
        "beam_size": None,
        "system": "predictions",
        "per_image": "again_per_image.csv",
    }
