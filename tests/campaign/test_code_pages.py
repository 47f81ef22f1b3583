"""Every script, where the output has an encoding that lacks letters, as Windows' code page 1252 does.

Captions and names of files are Japanese, Greek and from right to left; on Unix some names are not UTF-8 at all.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.campaign.conftest import Count
from tests.campaign.works import train_options
from tests.support.forked import run_forked
from tests.support.helpers import write_csv

pytestmark = pytest.mark.campaign
CAPTIONS = ("日本語 の 写真 ★", "ένας κόκκινος κύκλος", "עיגול אדום אחד", "Zażółć gęślą jaźń", "\u2764 emoji")
NAMES = {"letters": ("写真", "εικόνα", "תמונה"), "not UTF-8": ("caf\udce9", "\udcff\udcfe", "写\udc80")}
Run = Callable[..., str]


@pytest.fixture
def run(forkserver: Any, tmp_path: Path, world: Path, count: Count) -> Run:
    """``run("train", "--option", ...)`` runs the script to its end; returns what it printed."""
    count("runs in another encoding", 0)
    (tmp_path / "world").symlink_to(world)
    (tmp_path / "here").mkdir()

    def to_the_end(script: str, *argv: str) -> str:
        finished = run_forked(forkserver, script, argv, tmp_path / "here", encoding="cp1252")
        assert finished.status == 0 and "Traceback" not in finished.errors, finished
        count("runs in another encoding", 1)
        return finished.output

    return to_the_end


def make_data(folder: Path, name: str) -> None:
    """A captions file, a table, an archive and images whose names begin with ``name``."""
    names = [f"{name} {number}.jpg" for number in range(12)]
    for number, image in enumerate(names):
        shutil.copy(folder.parent / "world" / "many" / f"{number:03}.jpg", folder / image)
    splits = ["train"] * 9 + ["val", "test"]
    if not name.isprintable():  # a CSV is UTF-8, so it can name no such file
        names = [f"{number:03}.jpg" for number in range(12)]
    rows = [(image, CAPTIONS[n % 5], split) for n, (image, split) in enumerate(zip(names, splits, strict=False))]
    write_csv(folder / f"{name}.csv", rows)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("number", range(3))
def test_runs_to_its_end(kind: str, number: int, run: Run, tmp_path: Path) -> None:
    if kind == "not UTF-8" and sys.platform in ("win32", "darwin"):
        pytest.skip("all names are Unicode here")
    name, here = NAMES[kind][number], tmp_path / "here"
    make_data(here, name)
    table, image_dir = f"{name}.csv", "." if name.isprintable() else "../world/many"
    options = train_options()
    options["data"] |= {"captions_file": table, "image_dir": image_dir}
    options["train"]["stages"] = [{"name": f"{CAPTIONS[number]}", "epochs": 2, "lr": 0.02}]
    (here / "my.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")

    prepared = run("data.prepare", "table", table, f"--image_dir={image_dir}", f"--output={name}2.csv")
    assert "Wrote" in prepared
    run("train", "--config=my.yaml", f"--output_dir={name}")
    run("visualize_loss", f"--log={name}", f"--output={name}.png")
    run("evaluate", f"--checkpoint={name}", "--split=all", f"--output={name}/metrics.json")
    assert json.loads((here / name / "metrics.json").read_text("utf-8"))["images"] == 11
    run("inference_visualize", f"--checkpoint={name}", f"--output_dir={name} 2", "--images", *sorted(
        path.name for path in here.glob("*.jpg")), "--format=json,csv,txt,xmp")  # fmt: skip
    assert len(json.loads((here / f"{name} 2" / "captions.json").read_text("utf-8"))) == 12
    run("tools.quantize_checkpoint", f"{name}/checkpoints.pth", f"{name}.pth")
    run("tools.feature_cache", "--feature_cache=cache")
    run("tools.benchmark.__main__", f"--checkpoint={name}.pth", "--split=all", "--limit=2", "--device=cpu")
    run("tools.model_card", f"--per_image={name}/per_image.csv", f"--captions_file={table}")
