"""files.py: atomic writing, what killed runs leave, and locks."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

import files
from cli import UserError
from files import atomic_open, lock_folder, make_folder, naming, take_lock, write_json
from tests.support.helpers import ROOT


def test_atomic_open_writes_text_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new folder"
    with atomic_open(folder / "a.txt") as file:
        file.write("größe\n")
    with atomic_open(folder / "a.bin", "wb") as file:
        file.write(b"\0\r\n")
    assert (folder / "a.txt").read_bytes() == "größe\n".encode()  # UTF-8 and \n on every system
    assert (folder / "a.bin").read_bytes() == b"\0\r\n"
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_atomic_open_keeps_the_old_file_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_open(path) as file:
        file.write("half of the new")
        file.flush()
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_utf8_and_keeps_file_names_of_another_encoding(tmp_path: Path) -> None:
    values = {"größe": [1, None, b"caf\xe9.jpg".decode("utf-8", "surrogateescape")]}
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert "größe" in text and text.endswith("\n") and json.loads(text) == values


def test_names_that_fill_what_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / ("a" * 251 + ".txt"), tmp_path / os.fsdecode(b"caf\xe9\n\x1b" + b"b" * 240)):
        with atomic_open(path) as file:
            file.write("new")
        assert path.read_text() == "new"
    with pytest.raises(OSError, match="too long") as error, atomic_open(tmp_path / ("a" * 256)) as file:
        file.write("new")
    assert Path(error.value.filename).name == "a" * 256


WRITER = """
import sys, time
from files import atomic_open
with atomic_open(sys.argv[1]) as file:
    print("begun", flush=True)
    time.sleep(60)
"""


def test_what_killed_processes_were_writing_goes_before_the_next_write(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, tmp_path / "a.txt"]
    with contextlib.ExitStack() as stack:
        killed, running = (
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)) for _ in range(2)
        )
        assert killed.stdout and running.stdout
        assert killed.stdout.readline() and running.stdout.readline()
        killed.kill()
        killed.wait()
        left = {path.name for path in tmp_path.iterdir()}
        assert len(left) == 2 and not list(tmp_path.glob("[!.]*"))
        elsewhere = re.sub("-[0-9a-f]{8}-", "-00000000-", min(left), count=1)  # of another computer
        others = {".mine.txt.17.tmp", "mine.tmp", elsewhere}
        for name in others:
            (tmp_path / name).touch()
        with atomic_open(tmp_path / "b.txt") as file:
            file.write("new")
        (in_use,) = {path.name for path in tmp_path.iterdir()} - others - {"b.txt"}
        assert f"-{running.pid}-" in in_use
        running.kill()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_errors_of_writing_name_the_file(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match=str(number)) as error, atomic_open(path):
        raise OSError(number, "as write() does")
    assert error.value.filename == str(path) and not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=str(number)) as error, naming(path):
        raise OSError(number, "as write() does")
    assert error.value.filename == str(path)
    with pytest.raises(OSError, match=str(number)) as error, naming(path):
        raise OSError(number, "as open() does", "another file")
    assert error.value.filename == "another file"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_where_no_folder_can_be_the_message_says_so() -> None:
    for write in (make_folder, lambda path: atomic_open(path / "a.txt").__enter__()):
        with pytest.raises(UserError, match=r"^/proc/x: this folder cannot be created"):
            write(Path("/proc/x"))


# --- locks


def test_one_run_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    refused = pytest.raises(UserError, match=r"b: another run is writing there")
    with lock_folder(folder, ".lock"), refused, lock_folder(folder, ".lock"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_a_file_marks_a_folder_on_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    folder = tmp_path / f"run_{number}"  # what is said of a folder is said once
    with lock_folder(folder, ".lock"):
        with pytest.raises(UserError, match=r"another run is writing there"), lock_folder(folder, ".lock"):
            pass
        with pytest.raises(Timeout):
            take_lock(folder / ".lock")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{folder}: this disk has no locks, so .lock.soft marks that a run is using the folder"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="has locks")
def test_the_mark_of_a_killed_run_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import fcntl, os, sys, pathlib
import files
def flock(*_):
    raise OSError(95, "no locks here")
fcntl.flock = flock
lock = files.take_lock(pathlib.Path(sys.argv[1]))
os.kill(os.getpid(), 9)
"""
    path = tmp_path / ".lock"
    subprocess.run([sys.executable, "-c", code, path], check=False, cwd=ROOT, capture_output=True)
    assert (tmp_path / ".lock.soft").exists()

    def flock(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    files.take_lock(path).release()
    with files.take_lock(path, wait=True):
        assert (tmp_path / ".lock.soft").exists()
