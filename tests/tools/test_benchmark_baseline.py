"""python -m tools.benchmark --baseline on tiny data: all rows and files, and what its parts compute."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cli import UserError
from tests.support.helpers import write_csv
from tools.benchmark.__main__ import main, read_options
from tools.benchmark.cold_start import run_process
from tools.benchmark.photos import PARTS, Times
from tools.benchmark.report import amount
from tools.benchmark.scaling import by_images
from tools.benchmark.subject import open_subject
from tools.benchmark.timing import Pairs, interleave, timed, typical

TASKS = {
    "training, lstm decoder, frozen encoder": "captions",
    "encoder, 4 at once": "images",
    "encoder, one by one": "images",
    "beam search, 2 beams, 4 at once": "images",
    "beam search, 2 beams, one by one": "images",
    "cold start: the script, one photo": "",
    "a folder of 4 photos": "photos",
}


@pytest.fixture
def tiny_options(tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> list[str]:
    """A measurement that takes seconds."""
    data = [f"--captions_file={tiny_data / 'captions.csv'}", f"--image_dir={tiny_data / 'images'}"]
    return [f"--checkpoint={tiny_checkpoint}", *data, "--limit=4", "--device=cpu", f"--output={tmp_path / 'a.json'}"]


def test_every_task_is_measured_and_written(
    tiny_options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--baseline", "--repeats=1", *tiny_options])
    out, err = capsys.readouterr()
    assert out == (tmp_path / "a.md").read_text("utf-8")
    (record,) = json.loads((tmp_path / "a.json").read_text("utf-8"))["checkpoints"]
    assert {row["task"]: row["item"] for row in record["baseline"]} == TASKS
    assert record["machine"]["threads"] == torch.get_num_threads() and record["machine"]["torch"] == torch.__version__
    for row in record["baseline"]:
        assert f"| {row['task']} " in out and f"{row['task']}: " in err
        assert len(row["pairs"]["project"]) == len(row["pairs"]["plain"]) == 1
        assert row["operations"] > 0 and row["limit"] > 0 and row["plain_limit"] > 0
        assert 0 < row["share_of_limit"]["project"] == row["operations"] / row["median"]["project"] / row["limit"]
    assert "4 of 4 captions the same as the plain loop's" in out
    assert record["machine"]["precision"] in out and "GB of RAM (project)" in out
    for side in ("project", "plain"):
        times = record["seconds_per_photo"][side]
        assert list(times["parts"]) == [*PARTS] and 0 < times["parts"]["encoder"] < times["whole"]
    assert all(len(line) <= 120 for line in out.splitlines() if not line.startswith("|"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "a.md"}


def test_a_benchmark_that_is_stopped_leaves_what_it_has_measured(
    tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_row(*_: object) -> Iterator[dict[str, float]]:
        yield {"images": 4, "epoch, s": 0.5}
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.benchmark.scaling.by_images", one_row)
    with pytest.raises(KeyboardInterrupt):
        main(["--scaling", "--repeats=1", *tiny_options])
    (record,) = json.loads((tmp_path / "a.json").read_text("utf-8"))["checkpoints"]
    assert record["scaling"] == {"images": [{"images": 4, "epoch, s": 0.5}]}


def test_an_unreadable_image_is_left_out(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = sorted((tiny_data / "images").iterdir())
    names = [f"{number}.jpg" for number in range(24)]
    for number, name in enumerate(names):
        shutil.copy(photos[number % len(photos)], tmp_path / name)
    (tmp_path / names[9]).write_text("not an image")
    captions = write_csv(tmp_path / "captions.csv", [(name, "a red circle", "train") for name in names])
    data = [f"--captions_file={captions}", f"--image_dir={tmp_path}", "--split=train", "--device=cpu"]
    options = read_options(["--scaling", f"--checkpoint={tiny_checkpoint}", *data])
    monkeypatch.setattr("tools.benchmark.scaling.FOLDERS", (24,))
    (row,) = by_images(open_subject(tiny_checkpoint, options), tmp_path / "cache")
    assert row["images"] == 24


def test_growing_sizes_are_measured_and_written(
    tiny_options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    main(["--scaling", "--repeats=1", *tiny_options])
    assert torch.get_num_threads() == before
    out, err = capsys.readouterr()
    assert out == (tmp_path / "a.md").read_text("utf-8")
    (record,) = json.loads((tmp_path / "a.json").read_text("utf-8"))["checkpoints"]
    found = record["scaling"]
    pages = found.pop("pages")
    assert [row["images"] for row in pages] == [100, 1_000, 10_000]
    assert [row["read on demand, MB"] > 0 for row in pages] == [False, True, True]
    assert all(0 < row["page, MB"] < 3 and row["writing, s"] > 0 for row in pages)
    sizes = {axis: [row[axis] for row in rows] for axis, rows in found.items()}
    threads = sorted({1, os.cpu_count()})
    assert sizes == {"images": [4], "threads": threads, "beams": [1, 3, 5, 10], "words": [2_500, 10_000, 30_000]}
    assert all(value > 0 for rows in found.values() for row in rows for value in row.values())
    assert "baseline" not in record and "| 30,000 | " in out and "words: 30,000  captions trained/s: " in err


def test_both_sides_run_in_turn() -> None:
    calls: list[str] = []

    def work(name: str, seconds: list[float]) -> float:
        calls.append(name)
        return seconds.pop(0)

    project, plain = [9.0, 1.0, 2.0, 4.0], [9.0, 10.0, 10.0, 10.0]
    pairs = interleave(lambda: work("a", project), lambda: work("b", plain), 3)
    assert calls == ["a", "b"] * 4
    assert pairs == Pairs([1.0, 2.0, 4.0], [10.0, 10.0, 10.0])
    assert pairs.ratios == [10.0, 5.0, 2.5] and pairs.medians == (2.0, 10.0, 5.0)
    assert interleave(lambda: 1.0, lambda: 2.0, 1, warm_up=False) == Pairs([1.0], [2.0])
    times = [9.0, 1.0, 3.0, 2.0]
    assert typical(lambda: times.pop(0), 3) == 2.0
    assert 0 <= timed(lambda: None, 5) < 1


def test_the_rest_is_what_the_parts_leave_and_never_negative() -> None:
    assert [*Times.of(10, 1, 2, 3).parts.values()] == [1, 2, 3, 4]
    assert [*Times.of(5, 4, 2, 1).parts.values()] == [4, 2, 1, 0]  # read ahead while the encoder ran


@pytest.mark.parametrize(
    ("seconds", "item", "text"),
    [
        (0.5, "", "0.50 s"),
        (0.5, "images", "2.00 images/s"),
        (0.04, "images", "25.0 images/s"),
        (1e-4, "x", "10,000 x/s"),
    ],
)
def test_amounts(seconds: float, item: str, text: str) -> None:
    assert amount(seconds, item) == text


def test_a_process_that_fails_is_reported() -> None:
    with pytest.raises(UserError, match=r"evaluate\.py ended with status 2: error: unknown option --no"):
        run_process(["evaluate.py", "--no"], threads=1)
    finished = run_process(["-c", "import os; assert os.environ['OMP_NUM_THREADS'] == '3'"], threads=3)
    assert finished.seconds > 0
    if sys.platform != "win32":
        assert finished.memory and 2**20 < finished.memory < 2**27  # not the 600 MB of this process


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--repeats=2"], "--repeats is for --baseline and --scaling"),
        (["--output=a.json"], "--output is for --baseline and --scaling"),
        (["--baseline", "--output=a.md"], "numbers are written as JSON"),
        (["--baseline", "--beam_size", "1", "2"], "--baseline and --scaling take one value"),
        (["--scaling", "--feature_cache=x"], "compute all features anew"),
    ],
)
def test_options_that_conflict(options: list[str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        read_options(options)


def test_data_that_cannot_be_used(tiny_checkpoint: Path, tiny_data: Path) -> None:
    captions_file = f"--captions_file={tiny_data / 'captions.csv'}"
    with pytest.raises(UserError, match="name the folder of its images with --image_dir"):
        main(["--baseline", f"--checkpoint={tiny_checkpoint}", captions_file])
    with pytest.raises(UserError, match="training needs 2 images"):
        images = f"--image_dir={tiny_data / 'images'}"
        main(["--baseline", f"--checkpoint={tiny_checkpoint}", captions_file, images, "--limit=1", "--device=cpu"])
