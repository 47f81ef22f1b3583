"""tools/simulate_coco.py makes a data set that data.prepare reads, and --start measures a run on it."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from cli import UserError
from data import prepare
from data.captions import read_captions, references_of
from data.images import load_image
from tests.support.helpers import tiny_decoder
from tools.benchmark.__main__ import main
from tools.simulate_coco import main as simulate

OPTIONS = """
data: {{min_count: 1, workers: 0}}
encoder: {{weights: none}}
decoder: {decoder}
train: {{batch_size: 8, stages: [{{epochs: 50}}]}}
device: cpu
"""


@pytest.fixture
def simulated(tiny_data: Path, tmp_path: Path) -> Path:
    """The configs of a run on a data set of 40 images and 120 captions."""
    source = ["--captions_file", str(tiny_data / "captions.csv"), "--image_dir", str(tiny_data / "images")]
    folder = tmp_path / "like: coco #1"  # a name that YAML needs quoted
    simulate([str(folder), "--images", "40", "--captions", "120", *source])
    return folder


def test_the_simulated_data_set_is_like_coco(simulated: Path, tiny_data: Path) -> None:
    files = [simulated / "annotations" / f"captions_{split}2017.json" for split in ("train", "val")]
    prepare.main(["coco", *map(str, files)])
    table = read_captions(simulated / "annotations" / "all_captions.csv", None)
    assert table["split"].value_counts().to_dict() == {"train": 120, "val": 10}
    assert list(table["image"][:2]) == ["train2017/000000000000.jpg", "train2017/000000000001.jpg"]
    paths = [simulated / name for name in references_of(table, "all")]
    assert len({path.read_bytes() for path in paths}) == len(paths) == 42
    pictures = {load_image(path).tobytes() for path in paths}
    assert pictures <= {load_image(path).tobytes() for path in (tiny_data / "images").iterdir()}
    originals = read_captions(tiny_data / "captions.csv", None)["caption"]
    pairs = {pair for caption in originals for pair in pairwise(caption.split())}
    captions = [caption.split() for caption in table["caption"]]
    plain = [words for words in captions if not any(word.startswith("qu") for word in words)]  # none is invented
    assert all(pair in pairs for words in plain for pair in pairwise(words))
    assert 80 < len(plain) < 130 and len(json.loads(files[0].read_text())["annotations"]) == 120
    data = yaml.safe_load((simulated / "simulated.yaml").read_text())["data"]
    assert Path(data["captions_file"]) == simulated / "annotations" / "all_captions.csv"
    assert Path(data["image_dir"]) == simulated
    with pytest.raises(UserError, match="not empty"):
        simulate([str(simulated)])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_start_of_a_run_is_measured(simulated: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare.main(["coco", *(str(simulated / f"annotations/captions_{split}2017.json") for split in ("train", "val"))])
    decoder = tiny_decoder("lstm").removeprefix("--decoder=")
    (simulated / "tiny.yaml").write_text(OPTIONS.format(decoder=decoder))
    main(["--start", str(simulated / "tiny.yaml"), str(simulated / "simulated.yaml"), "--repeats", "1"])
    output = capfd.readouterr()
    header, _, row = ([cell.strip() for cell in line.strip("| ").split("|")] for line in output.out.splitlines()[-3:])
    assert header == ["run", "first step saved, s", "step and save, s", "peak memory, GB", "reward, GB"]
    assert row[0] == "1" and 0 < float(row[2]) < float(row[1]) and 0.1 < float(row[3]) < 4
    assert "reward of 120 captions" in output.err
