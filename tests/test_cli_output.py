"""cli.py: output that no encoding, no control character, no length and no reader can break."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from cli import MAX_ERROR_LINE, UserError, listed, note, printable, run_script, say, shorten
from tests.support.helpers import ROOT, assert_refused


def test_what_moves_the_cursor_or_fakes_a_line_is_shown_as_an_escape() -> None:
    assert printable("a\x1b[2J\x9b\r\n\0\t\x7f") == r"a\x1b[2J\x9b\r\n\x00\t\x7f"
    assert printable("a\u2028error: b\u202egpj.exe\u2066") == r"a\u2028error: b\u202egpj.exe\u2066"
    assert printable("\ud800" + b"caf\xe9.jpg".decode("utf-8", "surrogateescape")) == r"\ud800caf\xe9.jpg"
    harmless = "C:\\größe 日本語 ελ 👩‍🚀 שלום\u200f \u3000"
    assert printable(harmless) == harmless


def test_lines_are_printed_each_on_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb", "c")
    note("d\x1b")
    assert capsys.readouterr() == ("a\\nb\nc\n", "d\\x1b\n")


@pytest.mark.parametrize(("encoding", "shown"), [("cp1252", r"\u65e5 é caf\xe9"), ("ascii", r"\u65e5 \xe9 caf\xe9")])
def test_no_encoding_of_the_output_breaks_it(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["script.py"])

    def main(_: list[str]) -> None:
        say("日 é caf\udce9")
        raise UserError("日" * MAX_ERROR_LINE)

    with pytest.raises(SystemExit):
        run_script(main)
    assert out.buffer.getvalue().decode(encoding) == f"{shown}\n"  # type: ignore[attr-defined]
    assert len(err.buffer.getvalue()) <= MAX_ERROR_LINE + 1  # type: ignore[attr-defined]


def test_a_reader_that_has_read_enough_ends_the_output_and_a_full_disk_is_named() -> None:
    code = "import cli\n\ndef main(_):\n    for _ in range(9000):\n        cli.say('a line')\n    cli.note('done')\n"
    command = [sys.executable, "-c", f"{code}\ncli.run_script(main)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b"done\n"
    assert process.returncode == 0
    if not Path("/dev/full").exists():
        return
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert_refused(result, "standard output: no space left on the disk")


def test_of_many_names_the_first_three_are_listed() -> None:
    assert listed(["a", Path("b"), "c"]) == "a, b, c" and listed([]) == ""
    assert listed([*"abcdefgh"]) == "a, b, c and 5 more"


def test_long_errors_keep_their_beginning_and_the_command_at_the_end() -> None:
    command = f"Then continue with: python train.py --output_dir runs/{'a' * 80} --resume auto"
    line = shorten(f"error: checkpoints.pth: {', '.join(['tensor'] * 900)} are missing. {command}")
    assert len(line) == MAX_ERROR_LINE and " ... " in line
    assert line.startswith("error: checkpoints.pth: tensor") and line.endswith(f" are missing. {command}")
    assert shorten("a" * MAX_ERROR_LINE) == "a" * MAX_ERROR_LINE
    for text in ("a" * 5000, f"{'a' * 5000}: no such file", f"a: {'b' * 5000}", "a. " * 2000):
        assert len(shorten(text)) == MAX_ERROR_LINE
    assert shorten(f"{'a' * 5000}: no such file").endswith("aaa: no such file")


def test_errors_are_one_short_line_without_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: list[str]) -> None:
        raise UserError("two  blanks\x1b[2J" + "\udcff" * 400 + ":\n  a line\r\nof a library")

    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(SystemExit):
        run_script(main)
    err = capsys.readouterr().err
    assert err.startswith(r"error: two  blanks\x1b[2J\xff") and err.endswith(": a line of a library\n")
    assert len(err) == MAX_ERROR_LINE + 1 and err[:-1].isprintable()
