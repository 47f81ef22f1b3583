"""train.py and inference_visualize.py do with images in tars what they do with files."""

import json
from pathlib import Path

import pytest

import inference_visualize
from data.prepare import main as prepare
from tests.support.training import Learn, read_log

BOTH = '[{"name": "frozen", "epochs": 1}, {"name": "learning", "epochs": 1, "encoder_lr": 1e-4, "flip": true}]'


def test_the_log_is_that_of_files(
    learn: Learn, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(["shards", str(tiny_data / "captions.csv"), "--image_dir", str(tiny_data / "images"), "--output=shards"])
    options = [f"--train.stages={BOTH}", f"--data.feature_cache={tmp_path / 'cache'}", "--train.batch_size=3"]
    learn(*options, f"--output_dir={tmp_path / 'files'}")
    tars = ["--data.captions_file=captions.csv", "--data.image_dir=shards"]  # captions.csv is the default
    learn(*options, *tars, f"--output_dir={tmp_path / 'tars'}")
    logs = [read_log(Path(name)).drop(columns=["seconds", "images_per_second"]) for name in ("tars", "files")]
    assert logs[0].equals(logs[1])  # the images of one tar are shuffled as files are

    inference_visualize.main(["--checkpoint", "tars", "--output_dir=g", "--device=cpu"])
    assert [each["image"] for each in json.loads(Path("g/captions.json").read_text())] == [
        f"00000.tar/{number:09}.jpg" for number in (3, 7, 11, 15)
    ]
    capfd.readouterr()
    inference_visualize.main(["--checkpoint", "tars", "--output_dir=g", "--device=cpu"])
    assert "(4 of them in an earlier run)" in capfd.readouterr().err
