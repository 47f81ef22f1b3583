"""cli.py: clear errors and options."""

import argparse
import ast
import importlib
import re
import runpy
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import cli
from cli import OptionParser, UserError, did_you_mean, in_run_folder, positive_int, similar
from files import atomic_open
from tests.support.helpers import ROOT, assert_refused

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.py", "*/*.py", "tools/*/*.py", "demo/*/*.py")
    for path in ROOT.glob(pattern)
    if "\n    run_script(main)\n" in path.read_text("utf-8")
)


def module_name(script: str) -> str:
    return script.removesuffix(".py").replace("/", ".")


# --- the scripts: a first answer within a second


def test_the_help_of_every_script_needs_no_package_and_shows_examples() -> None:
    """torch takes seconds to import, and a package that is missing is reported when it is needed."""
    code = (
        "import contextlib, importlib, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'numpy', 'pandas', 'PIL', 'yaml', 'matplotlib', 'tqdm', 'nltk'}:\n"
        "            raise ModuleNotFoundError(f'{name} is imported', name=name)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "for name in sys.argv[1:]:\n"
        "    print(name, flush=True)\n"
        "    module = importlib.import_module(name)\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        module.main(['--help'])\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        module.main(['--version'])\n"
    )
    names = [module_name(script) for script in SCRIPTS]
    assert {"train", "evaluate", "visualize_loss", "tools.benchmark.__main__", "tools.draw_sample.__main__"} <= {*names}
    command = [sys.executable, "-c", code, *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    (version,) = re.findall(r'^version: "(.*)"$', (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    texts = re.split(rf"^({'|'.join(map(re.escape, names))})$", result.stdout, flags=re.MULTILINE)[1:]
    for name, text in zip(texts[::2], texts[1::2], strict=True):
        prog = name if "." in name else f"{name}.py"
        command = f"python {'-m ' if '.' in name else ''}{prog.removesuffix('.__main__')}"
        assert f"\n  {command}" in text.split("examples:")[1], name
        assert text.endswith(f" {version}\n"), name


@pytest.mark.parametrize("script", [script for script in SCRIPTS if "/" in script])
def test_a_module_can_be_started_by_its_path_too(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another folder. Its own folder on the path would hide modules of other packages."""
    monkeypatch.setattr(sys, "argv", [script, "--version"])
    monkeypatch.setattr(sys, "path", [str((ROOT / script).parent), *sys.path[1:]])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert not end.value.code and sys.path[0] == str(ROOT)


def test_an_older_python_is_refused_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "cli.py"))
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: Python 3.11 or newer is needed, but {sys.executable} is 3.9\n"


@pytest.mark.parametrize("script", ["cli.py", *SCRIPTS])
def test_an_older_python_can_read_as_far_as_the_refusal(script: str) -> None:
    text = (ROOT / script).read_text("utf-8")
    compile(text, script, "exec", flags=ast.PyCF_ONLY_AST, _feature_version=8)
    imports = re.findall(r"^(?:from|import) ([\w.]+)", text, re.MULTILINE)
    first = imports.index("cli") if script != "cli.py" else len(imports)
    assert {name.split(".")[0] for name in imports[:first]} <= sys.stdlib_module_names


def test_a_missing_package_is_named_with_what_to_do(tmp_path: Path) -> None:
    """A real Python without packages."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    command = [python, ROOT / "evaluate.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert_refused(result, f"torch is not installed in {python}. ")
    assert "activate" in result.stderr if (ROOT / ".venv").is_dir() else "pip install -r" in result.stderr


@pytest.mark.parametrize(
    ("module", "package", "file"),
    [
        ("torch", "torch", "requirements.txt"),
        ("PIL.Image", "pillow", "requirements.txt"),
        ("yaml", "pyyaml", "requirements.txt"),
        ("streamlit", "streamlit", "requirements-demo.txt"),
        ("axe_playwright_python.sync_playwright", "axe-playwright-python", "requirements-dev.txt"),
    ],
)
def test_the_package_and_the_file_that_requires_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, package: str, file: str
) -> None:
    for path in (ROOT / "constraints.txt", *ROOT.glob("requirements*.txt")):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), encoding="utf-8")
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    start, error = f"{package} is not installed in {sys.executable}. ", ModuleNotFoundError(name=module)
    assert cli.missing_package(error) == f"{start}Install what is missing: pip install -r {file} -c constraints.txt"
    (tmp_path / ".venv").mkdir()
    activate = r".venv\Scripts\activate" if sys.platform == "win32" else "source .venv/bin/activate"
    assert cli.missing_package(error) == f"{start}Activate the environment: {activate}"


# --- options


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.sed", ["train.seed"]),
        ("trian.seed", ["train.seed"]),
        ("seed", ["train.seed"]),
        ("dropout", ["decoder.dropout", "train.stages.dropout"]),
        ("encoder.dropout", ["decoder.dropout", "train.stages.dropout"]),
        ("train.stages.epoch", ["train.stages.epochs"]),
        ("epoch", ["train.stages.epochs"]),
        ("output", ["output_dir"]),
        ("image", ["data.image_dir", "data.image_size"]),
        ("limit", []),
        ("version", []),
        ("xyz", []),
    ],
)
def test_similar_options_are_found_with_their_section(name: str, expected: list[str]) -> None:
    valid = [
        *("data.image_dir", "data.image_size", "decoder.dropout", "train.seed", "train.precision"),
        *("train.stages.epochs", "train.stages.dropout", "output_dir", "device", "split"),
    ]
    assert similar(name, valid) == expected


def test_all_similar_options_are_offered() -> None:
    assert did_you_mean(["a"]) == "did you mean 'a'?"
    assert did_you_mean(["a", "b.a", "a"]) == "did you mean 'a' or 'b.a'?"
    assert did_you_mean([]) == ""


def test_a_mistyped_option_gets_the_nearest_one() -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--output_dir", "--data.output_dir")
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    for typed in ("--ouput_dir", "--output", "--data.output", "-output_dir"):  # abbreviations are not accepted
        with pytest.raises(UserError, match=rf"^unknown option {typed}: did you mean '--output_dir'\?$"):
            parser.parse_args([typed, "x"])
    with pytest.raises(UserError, match=r"^unknown option --zzz: see --help for the valid names$"):
        parser.parse_args(["--zzz=3"])


def test_a_word_without_option_is_told_the_option_and_the_option_of_another_script_its_name() -> None:
    parser = OptionParser("script.py", "does things", "--images")
    parser.add_argument("--images", nargs="+")
    for argv, message in (
        (["a b.jpg", "c.jpg"], "'a b.jpg' c.jpg: there is no option before it. Did you mean --images 'a b.jpg' c.jpg?"),
        (["--predictions", "x"], "unknown option --predictions: it is an option of evaluate.py"),
    ):
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            parser.parse_args(argv)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("captions.csv", "--captions_file captions.csv"),
        ("a.JSONL photos", "--captions_file a.JSONL"),  # which takes one file
        ("a.yml", "--config a.yml"),
        ("a.pth", "--resume a.pth"),
        ("a.json", "--config a.json"),  # no --predictions
        ("runs/a", "--config runs/a"),
    ],
)
def test_a_file_without_option_is_told_the_one_that_takes_such_files(words: str, meant: str) -> None:
    parser = OptionParser("script.py", "does things", "--config")
    for option in ("--config", "--captions_file", "--resume"):
        parser.add_argument(option)
    with pytest.raises(UserError, match=rf"^{words}: there is no option before it\. Did you mean {meant}\?$"):
        parser.parse_args(words.split())
    parser.add_argument("--checkpoint", nargs="+")
    with pytest.raises(UserError, match=r"Did you mean --checkpoint a\.pth b\.pth\?$"):
        parser.parse_args(["a.pth", "b.pth"])


@pytest.mark.parametrize("script", sorted({*cli.ONLY_IN.values()}))
def test_options_are_looked_for_in_the_script_that_has_them(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(script.removesuffix(".py")).main(["--help"])
    shown = capsys.readouterr().out
    assert all(f" {option}" in shown for option, owner in cli.ONLY_IN.items() if owner == script)


def test_a_mistyped_choice_gets_the_nearest_one() -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--split", choices=["train", "val"])
    parser.add_subparsers().add_parser("table")
    for argv, meant in ((["tabel"], "table"), (["--split", "vall", "table"], "val")):
        with pytest.raises(UserError, match=rf": did you mean '{meant}'\?$"):
            parser.parse_args(argv)
    with pytest.raises(UserError, match=r"--split: invalid choice: 'zzz' .* \(see --help\)$"):
        parser.parse_args(["--split", "zzz", "table"])


def test_a_mistyped_option_of_a_subcommand_gets_the_nearest_one() -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_subparsers().add_parser("make").add_argument("--source")
    with pytest.raises(UserError, match=r"^unknown option --sorce: did you mean '--source'\?$"):
        parser.parse_args(["make", "--sorce", "x"])


def test_the_folder_of_a_run_stands_for_a_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    assert in_run_folder(tmp_path, "log.txt") == tmp_path / "log.txt"
    assert in_run_folder(tmp_path / "a.pth", "log.txt") == tmp_path / "a.pth"
    assert in_run_folder(tmp_path / "absent", "log.txt") == tmp_path / "absent"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "three"])
def test_numbers_below_one_are_refused(text: str) -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--limit", type=positive_int)
    assert parser.parse_args(["--limit", "12"]).limit == 12
    with pytest.raises(UserError, match=f"--limit: must be a whole number of 1 or more, not '{text}'"):
        parser.parse_args([f"--limit={text}"])


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *argv: str) -> tuple[int, list[str]]:
    """Exit status of a script that raises ``error``, and the options it received."""
    received: list[str] = []

    def main(options: list[str]) -> None:
        received.extend(options)
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["script.py", *argv])
    try:
        cli.run_script(main)
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
        OSError(30, "Read-only file system", "file.csv"),
    ],
)
def test_errors_of_the_user_become_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert run(monkeypatch, error)[0] == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: file.csv: ") and err.count("\n") == 1
    assert "Errno" not in err and "Traceback" not in err


def test_errors_of_the_system_are_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "file" / "a.txt", f"{tmp_path / 'file'}: exists, but is not a folder. Choose another name"),
        (tmp_path, f"{tmp_path}: is a folder, not a file. Name a file"),
    ):

        def main(_: list[str], path: Path = path) -> None:
            with atomic_open(path) as file:
                file.write("a")

        monkeypatch.setattr(sys, "argv", ["script.py"])
        with pytest.raises(SystemExit):
            cli.run_script(main)
        assert capsys.readouterr().err == f"error: {reason}\n"
    assert run(monkeypatch, OSError(28, "No space left on device", "log.txt"))[0] == 2
    assert capsys.readouterr().err == "error: log.txt: no space left on the disk. Make room\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, UserError("file.csv: bad"), "--debug")[0] == 2
    assert "Traceback" in (err := capsys.readouterr().err) and "file.csv: bad" in err


def test_ctrl_c_is_130_and_bugs_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, KeyboardInterrupt())[0] == 130
    assert capsys.readouterr().err == "interrupted\n"
    for bug in (AssertionError("a bug of ours"), ModuleNotFoundError("No module named 'data.x'", name="data.x")):
        with pytest.raises(type(bug)):
            run(monkeypatch, bug)


@pytest.mark.parametrize("argv", [["--ouput", "x"], ["--out", "x"], ["stray"], ["--output"], ["--number", "three"]])
def test_a_wrong_option_is_an_error_of_the_user(argv: list[str]) -> None:
    parser = OptionParser("script.py", "does things")
    parser.add_argument("--output")
    parser.add_argument("--number", type=int)
    assert parser.parse_args(["--output", "x"]).output == "x"
    with pytest.raises(UserError, match=r"see --help|did you mean"):
        parser.parse_args(argv)
