"""Captions whose words are not separated by blanks, from training to gallery: all by characters."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import evaluate
import inference_visualize
import train
from cli import UserError
from gallery import fonts
from gallery.fonts import find_font
from models.checkpoint import load_checkpoint
from tests.support.helpers import COLOURS, SHAPES, SPLITS, draw, tiny_decoder, write_csv
from tests.support.html_page import HtmlPage
from tests.support.training import FROZEN, Learn, Refused
from training.initial import inherit

CHINESE = dict(zip((*COLOURS, *SHAPES), "红蓝绿黄圆方", strict=True))
STAGES = (
    '[{"name": "words", "epochs": 7, "lr": 0.01, "label_smoothing": 0},'
    '{"name": "reward", "epochs": 1, "lr": 1e-4, "samples": 2}]'
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 drawings in images/ and captions.csv: four colours x two shapes, twice in train and once in val and test."""
    folder = tmp_path_factory.mktemp("chinese")
    (folder / "images").mkdir()
    rows = []
    for number in range(32):
        shape, colour, split = SHAPES[number % 2], COLOURS[number // 2 % 4], SPLITS[number // 8]
        name = draw(folder / "images" / f"{number:02}.png", shape, colour, (40 + number, 40)).name
        thing = f"一个{CHINESE[colour]}色的{CHINESE[shape]}形"
        rows += [(name, caption, split) for caption in (f"{thing}。", f"这是{thing}，很大。")]
    write_csv(folder / "captions.csv", rows)
    (folder / "plain.yaml").write_text("device: cpu")
    return folder


def options(data: Path) -> list[str]:
    """Of train.py, without tokenizer."""
    return [f"--data.captions_file={data / 'captions.csv'}", f"--data.image_dir={data / 'images'}"]


@pytest.fixture(scope="module")
def run(data: Path, tiny_args: list[str]) -> Path:
    """A finished run with the bundled ResNet-50, which tells shapes apart; beside the data."""
    decoder = tiny_decoder("attention", embed_size=32, hidden_size=32, dropout=0)
    more = [
        "--data.image_size=64",
        "--encoder.weights=imagenet",
        decoder,
        "--generate.max_length=16",
        "--train.ema=0.9",
        "--train.precision=fp32",  # the captions that it learns are the same on every CPU
    ]
    words = [*options(data), "--data.tokenizer=characters", *more, f"--train.stages={STAGES}"]
    train.main([f"--config={data / 'plain.yaml'}", *tiny_args, *words, f"--output_dir={data}"])
    return data


def is_right(name: str, caption: str) -> bool:
    """Whether a caption names the colour and the shape of a drawing, and no others."""
    number = int(Path(name).stem)
    wanted = {CHINESE[COLOURS[number // 2 % 4]], CHINESE[SHAPES[number % 2]]}
    return set(caption) & set(CHINESE.values()) == wanted


def test_a_captioner_learns_generates_and_is_scored_by_characters(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(run / "checkpoints.pth")
    assert sorted(checkpoint["vocab"][4:]) == sorted("一个红蓝绿黄色的圆方形这是很大")
    assert checkpoint["config"]["data"]["tokenizer"] == "characters"

    evaluate.main(["--checkpoint", str(run / "checkpoints.pth"), "--output", str(tmp_path / "metrics.json")])
    scores = json.loads((tmp_path / "metrics.json").read_text())
    captions = json.loads((tmp_path / "predictions.json").read_text())
    assert all(is_right(entry["image_id"], entry["caption"]) for entry in captions) and len(captions) == 8
    assert not any(" " in entry["caption"] for entry in captions)
    assert scores["tokenizer"] == "characters" and scores["METEOR"] is None
    assert scores["BLEU-4"] > 0.8 and scores["words"] >= 7 and scores["copied"] == 1
    assert "words are characters here (data.tokenizer); METEOR is n/a" in capsys.readouterr().out


def test_predictions_are_scored_as_the_references_are_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # without Java
    monkeypatch.chdir(tmp_path)
    captions = [{"image_id": f"{number}", "caption": "一个红色的方形"} for number in range(24, 32)]
    Path("p.json").write_text(json.dumps(captions))
    bleu = {}
    for tokenizer in ("", "characters", "words"):
        named = ["--tokenizer", tokenizer] if tokenizer else []
        evaluate.main(["--predictions", "p.json", "--captions_file", str(data / "captions.csv"), *named])
        scores = json.loads(Path("metrics.json").read_text())
        bleu[tokenizer] = scores["BLEU-1"]
        assert scores["tokenizer"] == (tokenizer or "characters")
    assert bleu[""] == bleu["characters"] > 0.8 and bleu["words"] < 0.2
    with pytest.raises(UserError, match="a checkpoint knows its tokenizer"):
        evaluate.main(["--tokenizer", "characters"])


def test_a_model_of_words_is_warned_of_such_references(
    data: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "")  # without Java
    own = ["--captions_file", str(data / "captions.csv"), "--image_dir", str(data / "images"), "--limit", "2"]
    paths = ["--feature_cache", str(tmp_path / "cache"), "--output", str(tmp_path / "metrics.json")]
    evaluate.main(["--checkpoint", str(tiny_checkpoint), *own, *paths])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "no blanks between words, such as '一个红色的圆形" in line and len(line) <= 300
    assert line.endswith("the scores will be about 0. Train with --data.tokenizer characters")


def test_gallery_and_jpgs_show_characters(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fonts._report.cache_clear()
    arguments = ["--checkpoint", str(run / "checkpoints.pth"), "--output_dir", str(tmp_path), "--attention_strips"]
    inference_visualize.main(arguments)
    records = json.loads((tmp_path / "captions.json").read_text(encoding="utf-8"))
    assert all(is_right(record["image"], record["caption"]) for record in records)
    source = (tmp_path / "captions_result.html").read_text(encoding="utf-8")
    assert [len(weights) for *_, weights in HtmlPage(source).attention()] == [4 * len(r["caption"]) for r in records]
    assert "<span>一</span><span>个</span>" in source and f"<mark>{records[0]['caption']}" in source
    with Image.open(tmp_path / "24.jpg") as captioned, Image.open(tmp_path / "pictures" / "24.jpg") as plain:
        has_text = captioned.height > plain.height
    font = find_font("一个红色的圆形") is not None
    assert has_text == font and ("no installed font" in capsys.readouterr().err) == (not font)
    assert len(list((tmp_path / "attention").glob("*.jpg"))) == 8
    inference_visualize.main(arguments)  # all captions are recalled
    assert (tmp_path / "captions_result.html").read_text(encoding="utf-8") == source


def test_such_captions_are_refused_as_words(data: Path, folder: Path, refused: Refused) -> None:
    error = refused(*options(data))
    assert "the captions do not separate words by blanks, such as '一个红色的圆形" in error
    assert "Add --data.tokenizer characters, or put a blank between words" in error
    assert not any(folder.glob("*.pth"))


def test_the_tokenizer_is_fixed_for_a_run(
    data: Path, learn: Learn, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    short = FROZEN.replace('"epochs": 2', '"epochs": 1')
    learn(*options(data), "--data.tokenizer=characters", f"--train.stages=[{short}]")
    cut = "warning: 50% of the training captions have more than 8 characters, where generated ones are cut off"
    assert cut in capsys.readouterr().err
    error = refused(*options(data), "--resume=auto")
    assert "cannot change within a run: data.tokenizer (characters -> words)" in error


def test_checkpoints_with_different_tokenizers_are_not_compared(run: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(run / "checkpoints.pth")
    del checkpoint["config"]["data"]["tokenizer"]  # as in a checkpoint of an older version, whose captions are words
    torch.save(checkpoint, tmp_path / "old.pth")
    with pytest.raises(UserError, match=r"consist of words, those of .* of characters.*--predictions"):
        evaluate.main(["--checkpoint", str(run / "checkpoints.pth"), str(tmp_path / "old.pth")])


def test_a_run_that_begins_from_a_checkpoint_takes_its_tokenizer(run: Path) -> None:
    assert inherit({"init_from": str(run)}, {}, None)["data"]["tokenizer"] == "characters"
    named = {"init_from": str(run), "data": {"tokenizer": "words"}}
    assert inherit(named, {}, None)["data"]["tokenizer"] == "words"
