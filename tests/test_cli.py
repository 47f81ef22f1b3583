"""cli.py: clear errors, options, and atomic writing of files."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli import OptionParser, UserError, atomic_open, nearest, positive_int, run_script, write_json
from tests.support.helpers import ROOT


def test_it_needs_only_the_standard_library() -> None:
    code = "import sys, cli; print(sorted({'torch', 'numpy', 'pandas', 'config', 'utils'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("train.sed", "train.seed"), ("output", "output_dir"), ("output_dir", "output_dir"), ("xyz", None)],
)
def test_the_most_similar_name_is_found(name: str, expected: str | None) -> None:
    assert nearest(name, ["train.seed", "output_dir", "device"]) == expected


def test_a_mistyped_option_gets_the_nearest_one() -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--output_dir")
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    with pytest.raises(UserError, match=r"unrecognized arguments: --ouput_dir x: did you mean '--output_dir'\?"):
        parser.parse_args(["--ouput_dir", "x"])
    with pytest.raises(UserError, match=r"unrecognized arguments: --output x: did you mean '--output_dir'\?"):
        parser.parse_args(["--output", "x"])  # abbreviations are not accepted
    with pytest.raises(UserError, match=r"unrecognized arguments: --zzz \(see --help\)"):
        parser.parse_args(["--zzz"])


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "three"])
def test_numbers_below_one_are_refused(text: str) -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--limit", type=positive_int)
    assert parser.parse_args(["--limit", "12"]).limit == 12
    with pytest.raises(UserError, match=f"--limit: must be a whole number of 1 or more, not '{text}'"):
        parser.parse_args([f"--limit={text}"])


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


def test_json_is_utf8_and_survives_file_names_of_another_encoding(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": [1, None, b"caf\xe9.jpg".decode("utf-8", "surrogateescape")]})
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert "größe" in text and text.endswith("\n") and json.loads(text) == {"größe": [1, None, "caf?.jpg"]}


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *argv: str) -> tuple[int, list[str]]:
    """Exit status of a script that raises ``error``, and the options it received."""
    received: list[str] = []

    def main(options: list[str]) -> None:
        received.extend(options)
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["script.py", *argv])
    try:
        run_script(main)
    except SystemExit as end:
        return int(end.code or 0), received
    return 0, received


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
def test_errors_of_the_user_become_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert run(monkeypatch, error)[0] == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert "file.csv" in err and "Traceback" not in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, UserError("file.csv: bad"), "--debug")[0] == 2
    assert "Traceback" in (err := capsys.readouterr().err) and "file.csv: bad" in err


def test_ctrl_c_is_130_and_bugs_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, KeyboardInterrupt())[0] == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(AssertionError):
        run(monkeypatch, AssertionError("a bug of ours"))


@pytest.mark.parametrize("argv", [["--ouput", "x"], ["--out", "x"], ["stray"], ["--output"], ["--number", "three"]])
def test_a_wrong_option_is_an_error_of_the_user(argv: list[str]) -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--output")
    parser.add_argument("--number", type=int)
    assert parser.parse_args(["--output", "x"]).output == "x"
    with pytest.raises(UserError, match=r"see --help|did you mean"):
        parser.parse_args(argv)
