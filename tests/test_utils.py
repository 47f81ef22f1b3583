"""utils.py: clear errors, files that are whole or not there, checkpoints that cannot run code."""

import argparse
import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import utils
from cli import OptionParser, UserError, atomic_open
from utils import load_checkpoint, pick_device, pick_precision, save_checkpoint, seed_everything

ANYTHING = {
    "model": {"w": torch.arange(6.0).view(2, 3)},
    "vocab": ["<pad>", "a"],
    "config": {},
    "transform": {},
    "nested": {"lr": 1e-3, "list": [1, None, True]},
}


def test_atomic_open_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    with atomic_open(tmp_path / "new folder" / "file.txt") as file:
        file.write("größe\n")
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["file.txt"]
    assert (tmp_path / "new folder" / "file.txt").read_bytes() == "größe\n".encode()  # UTF-8 and \n on every system


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_atomic_open_keeps_the_old_file_when_something_goes_wrong(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_open(path) as file:
        file.write("half of the new")
        file.flush()
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", ANYTHING)
    loaded = load_checkpoint(tmp_path / "c.pth")
    assert torch.equal(loaded["model"]["w"], ANYTHING["model"]["w"])  # type: ignore[index]
    assert {key: loaded[key] for key in ("vocab", "nested")} == {key: ANYTHING[key] for key in ("vocab", "nested")}
    assert torch.load(tmp_path / "c.pth", weights_only=True).keys() == {"format_version", *ANYTHING}


def test_failed_save_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", ANYTHING)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path / "c.pth", {"model": lambda: None})
    assert load_checkpoint(tmp_path / "c.pth")["vocab"] == ANYTHING["vocab"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


class Evil:
    """A pickle that would run code when loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the checkpoint ran code",))


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.pth"
    save_checkpoint(path, ANYTHING | {"big": torch.zeros(10_000)})
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"c\.pth: not a readable checkpoint"):
            load_checkpoint(path)
    for content in (
        b"hello",
        b"PK\x03\x04" + b"\0" * 100,
        pickle.dumps({"format_version": 1}, 2),
        pickle.dumps(Evil(), 2),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"c\.pth"):
            load_checkpoint(path)
    for thing in (Evil(), torch.nn.Linear(1, 1), argparse.Namespace(a=1)):
        torch.save({"format_version": 1, "model": thing}, path)
        with pytest.raises(UserError, match=r"c\.pth: not a readable checkpoint"):
            load_checkpoint(path)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "thing", [{"w": torch.zeros(1)}, [1, 2], torch.zeros(1), {"format_version": "one"}, {"format_version": None}]
)
def test_other_peoples_files_are_refused(tmp_path: Path, thing: object) -> None:
    torch.save(thing, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: not a checkpoint of this project"):
        load_checkpoint(tmp_path / "c.pth")


def test_newer_and_missing_checkpoints_are_refused_with_advice(tmp_path: Path) -> None:
    torch.save({"format_version": utils.FORMAT_VERSION, "model": {}, "config": {}}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="vocab, transform"):
        load_checkpoint(tmp_path / "c.pth")
    torch.save({"format_version": utils.FORMAT_VERSION + 1}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: written by a newer version"):
        load_checkpoint(tmp_path / "c.pth")
    for path in (tmp_path / "no.pth", tmp_path):
        with pytest.raises(UserError, match=r"no such checkpoint.*train\.py"):
            load_checkpoint(path)


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *argv: str) -> tuple[int, list[str]]:
    """Exit status of a script that raises ``error``, and the options it was given."""
    seen: list[str] = []

    def main(words: list[str]) -> None:
        seen.extend(words)
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["script.py", *argv])
    try:
        utils.run_script(main)
    except SystemExit as end:
        return int(end.code or 0), seen
    return 0, seen


def test_run_script_passes_options_and_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, None, "--a", "1", "--debug") == (0, ["--a", "1"])


@pytest.mark.parametrize(
    "error",
    [
        UserError("file.csv: row 3\n  is bad"),
        FileNotFoundError(2, "No such file", "file.csv"),
        PermissionError(13, "no", "file.csv"),
    ],
)
def test_run_script_turns_a_users_mistake_into_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert run(monkeypatch, error)[0] == 2
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.startswith("error: ")
        and err.count("\n") == 1
        and "file.csv" in err
        and "Traceback" not in err
    )


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, UserError("file.csv: bad"), "--debug")[0] == 2
    assert "Traceback" in (err := capsys.readouterr().err) and "file.csv: bad" in err


def test_ctrl_c_is_130_and_our_own_bugs_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, KeyboardInterrupt())[0] == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(AssertionError):
        run(monkeypatch, AssertionError("our mistake"))


@pytest.mark.parametrize("words", [["--ouput", "x"], ["--out", "x"], ["stray"], ["--output"], ["--number", "three"]])
def test_a_wrong_option_is_a_users_mistake(words: list[str]) -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--output")
    parser.add_argument("--number", type=int)
    assert parser.parse_args(["--output", "x"]).output == "x"
    with pytest.raises(UserError, match=r"see --help|did you mean"):
        parser.parse_args(words)


def test_seed_everything_repeats_all_random_numbers() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    first = draw()
    seed_everything(3)
    assert draw() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_pick_device() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    for name in ("cuda:99", "tpu", "", "cpu:x"):
        with pytest.raises(UserError, match="not available here"):
            pick_device(name)


def test_pick_precision() -> None:
    cpu = torch.device("cpu")
    assert [pick_precision(name, cpu) for name in ("fp32", "bf16", "fp16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
    assert pick_precision("auto", cpu) in {torch.float32, torch.bfloat16}
    with utils.autocast(cpu, torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with utils.autocast(cpu, torch.float32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
