"""Names and captions in any script, in any encoding and with control characters, through all scripts."""

import json
import os
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

import data.prepare
import evaluate
import inference_visualize
import train
import visualize_loss
from cli import run_script
from tests.support.helpers import COLOURS, SHAPES, SPLITS, draw, write_csv

CAPTIONS = ("日本語 の 写真 ★", "μια φωτογραφία", "תמונה של כלב", "zdjęcie psa")
FOLDER = os.fsdecode("日本 caf".encode() + b"\xe9 \x1b[2J\nerror: x")

pytestmark = pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="names must be UTF-8")
Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(main, *options)``: a script on a system with the code page cp1252; returns its stdout and stderr."""

    def start(main: Callable[[list[str]], None], *options: str | Path) -> tuple[str, str]:
        streams = {name: TextIOWrapper(BytesIO(), encoding="cp1252") for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            patch.setattr(sys, "argv", ["script.py", *map(str, options)])
            run_script(main)
        out, err = (stream.buffer.getvalue().decode("cp1252") for stream in streams.values())
        assert "\x1b" not in out + err and "\nerror" not in out + err
        return out, err

    return start


def test_every_script_runs_to_its_end(
    tmp_path: Path, tiny_args: list[str], run: Run, thin_resnet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # without Java, which takes seconds to start, METEOR is n/a
    folder = tmp_path / FOLDER
    images = folder / "images"
    images.mkdir(parents=True)
    rows = []
    for number in range(8):
        name = f"写真 {number}.jpg"
        draw(images / name, SHAPES[number % 2], COLOURS[number // 2])
        rows += [(name, caption, SPLITS[number % 4]) for caption in CAPTIONS[: 2 + number % 3]]
    odd = os.fsdecode(b"caf\xe9\x1b[2J.jpg")
    draw(images / odd, "circle", "red")
    (images / os.fsdecode(b"not an image \xff\n.jpg")).write_bytes(b"...")
    table = write_csv(folder / "表.csv", rows)

    out, _ = run(data.prepare.main, "table", table, "--image_dir", images)
    assert r"caf\xe9" in out and "Next: " in out
    captions = folder / "表_captions.csv"

    own = [f"--data.captions_file={captions}", f"--data.image_dir={images}", f"--output_dir={folder}"]
    own.append('--train.stages=[{"name": "stage", "epochs": 1}]')
    out, _ = run(train.main, *tiny_args, *own)
    assert r"\u5199\u771f" in out and out.count("CIDEr") == 2 and r"caf\xe9 \x1b[2J\nerror: x/checkpoints.pth" in out

    data_set = ["--captions_file", captions, "--image_dir", images, "--device", "cpu"]
    scores = folder / "metrics.json"
    run(evaluate.main, "--checkpoint", folder, "--output", scores, *data_set, "--feature_cache", folder / "cache")
    assert json.loads(scores.read_text("utf-8"))["checkpoint"] == str(folder / "checkpoints.pth")
    run(evaluate.main, "--predictions", folder / "predictions.json", "--captions_file", captions, "--output", scores)

    photos = ["--images", images, "--output_dir", folder / "out", "--format", "json,csv,txt,xmp"]
    out, err = run(inference_visualize.main, "--checkpoint", folder, *photos, "--device", "cpu")
    assert r"images/caf\xe9\x1b[2J.jpg: " in out and r"skipped: images/not an image \xff\n.jpg: not" in err
    assert "open " in err and r"captions_result.html" in err
    names = {record["image"] for record in json.loads((folder / "out" / "captions.json").read_text("utf-8"))}
    assert f"images/{odd}" in names and len(names) == 9

    out, _ = run(visualize_loss.main, "--log", folder, "--output", folder / "curve.svg")
    assert out.startswith("wrote ") and (folder / "curve.svg").stat().st_size
