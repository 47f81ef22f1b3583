"""data/file_records.py: what is recorded about a file holds until the file changes, and only until then."""

import json
import os
import time
from pathlib import Path

import pytest

from data.file_records import FileRecords

HOUR = 3600


def write(path: Path, content: str, age: float = HOUR) -> Path:
    """A file that was last changed ``age`` seconds ago."""
    path.write_text(content)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


def record(path: Path, file: Path, value: str) -> None:
    """Examine ``file`` as one run does."""
    records = FileRecords(path)
    records.recall(file)
    records.remember(file, value)
    records.save()


def test_an_unchanged_file_is_known_to_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, file = tmp_path / "cache" / "records.json", write(tmp_path / "a.jpg", "one")
    assert FileRecords(path).recall(file) is None
    record(path, file, "good")
    assert FileRecords(path).recall(file) == "good"
    monkeypatch.chdir(tmp_path)
    assert FileRecords(path).recall(Path("a.jpg")) == "good"  # however it is named


def test_a_changed_file_is_unknown(tmp_path: Path) -> None:
    path, file = tmp_path / "records.json", write(tmp_path / "a.jpg", "one")
    record(path, file, "good")
    write(file, "three")
    assert FileRecords(path).recall(file) is None
    record(path, file, "good")
    write(file, "seven", age=2 * HOUR)  # of the same size
    assert FileRecords(path).recall(file) is None
    file.unlink()
    assert FileRecords(path).recall(file) is None


def test_a_file_that_changes_while_it_is_examined_is_unknown(tmp_path: Path) -> None:
    path, file = tmp_path / "records.json", write(tmp_path / "a.jpg", "one")
    records = FileRecords(path)
    records.recall(file)
    write(file, "two!")
    records.remember(file, "good")
    records.save()
    assert FileRecords(path).recall(file) is None


@pytest.mark.parametrize("age", [0, -HOUR])
def test_a_file_that_may_change_within_one_tick_of_the_clock_is_not_remembered(tmp_path: Path, age: float) -> None:
    path, file = tmp_path / "records.json", write(tmp_path / "a.jpg", "one", age)
    record(path, file, "good")
    assert FileRecords(path).recall(file) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"3", b'{"a": 3}', b'{"a": [1, 2]}'])
def test_damaged_records_count_as_empty(tmp_path: Path, content: bytes) -> None:
    path, file = tmp_path / "records.json", write(tmp_path / "a.jpg", "one")
    path.write_bytes(content)
    assert FileRecords(path).recall(file) is None
    record(path, file, "good")
    assert FileRecords(path).recall(file) == "good"


def test_runs_add_to_each_others_records(tmp_path: Path) -> None:
    path, files = tmp_path / "records.json", [write(tmp_path / name, "one") for name in ("a.jpg", "b.jpg")]
    runs = [FileRecords(path) for _ in files]
    for run, file in zip(runs, files, strict=True):
        run.recall(file)
        run.remember(file, file.name)
        run.save()
    assert [FileRecords(path).recall(file) for file in files] == ["a.jpg", "b.jpg"]


def test_pruning_forgets_the_files_that_are_gone_or_have_changed(tmp_path: Path) -> None:
    path, files = tmp_path / "records.json", [write(tmp_path / name, "one") for name in ("a", "b", "c")]
    for file in files:
        record(path, file, file.name)
    files[0].unlink()
    write(files[1], "three")
    assert FileRecords(path).prune() == {"c"} == FileRecords(path).prune()
    assert set(json.loads(path.read_text())) == {str(files[2])}
    assert FileRecords(tmp_path / "none.json").prune() == set() and not (tmp_path / "none.json").exists()


def test_files_that_are_gone_are_dropped(tmp_path: Path) -> None:
    path, old, new = tmp_path / "records.json", write(tmp_path / "a.jpg", "one"), write(tmp_path / "b.jpg", "two")
    record(path, old, "good")
    old.unlink()
    record(path, new, "good")
    assert set(json.loads(path.read_text())) == {str(new)}
