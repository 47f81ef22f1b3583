"""caption_many.py: the captions of the gallery, one row for each image, whatever happens to the run."""

import csv
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from caption_many import main
from cli import UserError, missing_package
from tests.support.gallery import gallery, make_many, make_photos
from tests.support.process_runs import At, run_process
from tests.support.shards import jpeg, write_tar

Row = dict[str, Any]
COUNT = 12_000  # images that are captioned while the run is killed 20 times


def rows_of(output: Path) -> list[Row]:
    """The rows of all parts, sorted by image; no image may have two."""
    rows = [json.loads(line) for part in output.glob("part-*.jsonl") for line in part.read_text("utf-8").splitlines()]
    names = [row["image"] for row in rows]
    assert len(names) == len(set(names)), "an image has two rows"
    return sorted(rows, key=lambda row: row["image"])


def captions_of(row: Row) -> list[str]:
    return [candidate["caption"] for candidate in row["candidates"]]


@pytest.fixture
def caption(attention_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Row]]:
    """``caption("photos", "--option", ...)`` runs the script in tmp_path and returns the rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def run(*words: str | Path) -> list[Row]:
        main(["--output=out", "--checkpoint", str(attention_checkpoint), "--device=cpu", *map(str, words)])
        return rows_of(tmp_path / "out")

    return run


def test_captions_are_those_of_the_gallery(
    caption: Callable[..., list[Row]], attention_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_photos(tmp_path / "photos")
    make_many(tmp_path / "photos" / "many", 20)
    rows = caption("photos", "--part_size=10")
    assert "out: rows of 27 images added in" in capfd.readouterr().out
    assert [len(part.read_text().splitlines()) for part in (tmp_path / "out").glob("part-*")].count(10) == 2
    entries, _ = gallery(tmp_path / "g", "--images", "photos", "--checkpoint", attention_checkpoint)
    wanted = {entry["image"]: entry for entry in entries}
    good = {row["image"]: row for row in rows if row["error"] is None}
    assert good.keys() == wanted.keys() and len(good) == 24
    for name, row in good.items():
        assert captions_of(row) == captions_of(wanted[name])
        assert row["caption"] == wanted[name]["caption"]
        assert row["log_prob"] == pytest.approx(wanted[name]["log_prob"], abs=1e-3)
    bad = {row["image"]: row for row in rows if row["error"] is not None}
    assert bad["photos/broken3.gif"] == {
        "image": "photos/broken3.gif",
        "caption": None,
        "log_prob": None,
        "candidates": [],
        "error": "not an image: the file is empty",
    }
    assert bad.keys() == {"photos/broken1.jpg", "photos/broken2.png", "photos/broken3.gif"}


def test_tars_lists_and_files_give_the_captions_of_folders(caption: Callable[..., list[Row]], tmp_path: Path) -> None:
    make_many(tmp_path / "photos", 5)
    files = sorted((tmp_path / "photos").iterdir())
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "0.tar", {f"k/{file.name}": file.read_bytes() for file in files})
    with (tmp_path / "list.csv").open("w") as file:
        csv.writer(file).writerows([["id", "path"], ["1", "photos/000.jpg"], ["2", "photos/gone.jpg"]])
    pd.DataFrame({"image": ["photos/001.jpg"]}, dtype="category").to_parquet(tmp_path / "list.parquet")
    (tmp_path / "bare.csv").write_text("photos/002.jpg\nphotos/002.jpg\n")
    rows = caption("shards", "list.csv", "list.parquet", "bare.csv", "photos/003.jpg")
    found = {row["image"]: row["caption"] for row in rows}
    assert found.keys() == {f"shards/0.tar/k/{number:03}.jpg" for number in range(5)} | {
        *(f"photos/{number:03}.jpg" for number in range(4)),
        "photos/gone.jpg",
    }
    assert [row["error"] for row in rows if row["image"] == "photos/gone.jpg"] == ["no such file"]
    assert all(found[f"photos/00{n}.jpg"] == found[f"shards/0.tar/k/00{n}.jpg"] for n in range(4))


def test_the_same_command_adds_only_what_is_new(
    caption: Callable[..., list[Row]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_many(tmp_path / "photos", 6)
    first = caption("photos", "--part_size=4")
    assert caption("photos", "--part_size=3") == first
    output = capfd.readouterr()
    assert "captioned in an earlier run: 6 of 6 images" in output.err
    assert "rows of 0 images added\n" in output.out
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "0000.jpg")
    assert len(caption("photos", "--part_size=3")) == 7


def test_a_folder_holds_the_captions_of_one_model(caption: Callable[..., list[Row]], tmp_path: Path) -> None:
    make_many(tmp_path / "photos", 2)
    caption("photos", "--mirror=off", "--beam_size=2")
    with pytest.raises(UserError, match=r"--output out: holds captions with beam_size 2, not 3\. Choose another"):
        caption("photos", "--mirror=off", "--beam_size=3")
    with pytest.raises(UserError, match="mirror False, not True"):
        caption("photos", "--mirror=on", "--beam_size=2")
    with pytest.raises(UserError, match="holds captions with format jsonl, not parquet"):
        caption("photos", "--mirror=off", "--beam_size=2", "--format=parquet")


def test_parquet_parts_hold_the_same_rows(caption: Callable[..., list[Row]], tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    rows = caption("photos")
    caption("photos", "--output=parquet", "--format=parquet", "--part_size=4")
    main_output = tmp_path / "parquet"
    table = pd.concat(map(pd.read_parquet, main_output.glob("part-*.parquet"))).sort_values("image")
    assert list(table.columns) == ["image", "caption", "log_prob", "candidates", "error"]
    assert table["image"].tolist() == [row["image"] for row in rows]
    assert [row["caption"] for row in rows] == [None if pd.isna(text) else text for text in table["caption"]]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_are_not_utf8_are_captioned_once(caption: Callable[..., list[Row]], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/caf\xe9.jpg")).write_bytes(jpeg())
    (row,) = caption("photos")
    assert row["error"] is None
    assert caption("photos") == [row]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the readers are forked from the patched process")
def test_a_reader_that_is_killed_ends_the_run_with_one_line(
    caption: Callable[..., list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_many(tmp_path / "photos", 2)
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"a reader process has died .*lower --workers"):
        patch.setattr("bulk.captioning.Reader.__call__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        caption("photos")
    assert len(caption("photos")) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], r"nowhere: no such file or folder"),
        (["empty"], r"empty: no images found"),
        (["notes.txt"], r"notes.txt: neither an image nor a tar"),
        (["table.csv"], r"table.csv: no column of images \(id, text\)"),
        (["torn.parquet"], r"torn.parquet: not a readable Parquet file"),
        (["bytes.parquet"], r"bytes.parquet: its column 'image' holds struct<bytes.*, not paths"),
        (["photos", "--part_size=0"], r"--part_size: must be a whole number of 1 or more"),
    ],
)
def test_mistakes_are_refused(
    caption: Callable[..., list[Row]], tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "table.csv").write_text("id,text\n1,2\n")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    pd.DataFrame({"image": [{"bytes": b"JPEG", "path": "a.jpg"}]}).to_parquet(tmp_path / "bytes.parquet")
    with pytest.raises((UserError, OSError), match=message):
        caption(*words)


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError) as error:
        main(["photos", "--output=out", "--ray=auto"])
    advice = missing_package(error.value)
    assert advice and advice.startswith("ray is not installed") and "requirements-ray.txt" in advice


class Killed:
    """A run over ``count`` photos in a process of its own."""

    def __init__(self, forkserver: Any, checkpoint: Path, folder: Path, count: int) -> None:
        make_many(folder / "photos", 20)
        for number in range(20, count):
            os.link(folder / "photos" / f"{number % 20:03}.jpg", folder / "photos" / f"{number:03}.jpg")
        words = [folder / "photos", "--checkpoint", checkpoint, "--output", folder / "out", "--part_size", "8"]
        self.words, self.forkserver, self.folder = ["caption_many.py", *map(str, words)], forkserver, folder
        self.log = folder / "log.txt"

    def start(self, at: At | None = None) -> Any:
        process = self.forkserver.Process(target=run_process, args=(self.words, str(self.log), at))
        process.start()
        return process

    def finish(self) -> list[Row]:
        """Run to the end; the rows."""
        process = self.start()
        process.join(400)
        assert process.exitcode == 0, self.log.read_text()
        assert not list(self.folder.rglob("*.tmp"))
        return rows_of(self.folder / "out")


def test_killed_in_the_middle_and_run_again(forkserver: Any, attention_checkpoint: Path, tmp_path: Path) -> None:
    run = Killed(forkserver, attention_checkpoint, tmp_path, 60)
    process = run.start(At("pathlib.Path.replace", 4))  # the settings and two parts are there
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, run.log.read_text()
    before = rows_of(tmp_path / "out")
    assert len(before) == 16
    after = run.finish()
    assert len(after) == 60 and all(row in after for row in before)
    assert "captioned in an earlier run: 16 of 60 images" in run.log.read_text()


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments(forkserver: Any, attention_checkpoint: Path, tmp_path: Path) -> None:
    run, choice = Killed(forkserver, attention_checkpoint, tmp_path, COUNT), random.Random(0)
    killed, progress = 0, []
    while killed < 20:
        process = run.start()
        process.join(choice.uniform(0.5, 6.5))  # the readers of the run before hold the lock for up to 5 s
        assert process.is_alive(), run.log.read_text()
        process.kill()
        process.join()
        killed += 1
        progress.append(len(rows_of(tmp_path / "out")))
    assert len(run.finish()) == COUNT
    assert progress == sorted(progress)
    assert len({*progress}) >= 5, progress
    print(f"killed {killed} times, rows after each: {progress}, at the end {COUNT}")
