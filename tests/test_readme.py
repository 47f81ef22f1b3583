"""The commands in the documentation: the scripts exist and accept the options that are shown."""

import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.helpers import ROOT
from training.options import build_parser, read_config

NAMES = (
    *("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "MODEL_CARD.md"),
    *("pretrained/README.md", "data/sample/README.md", "demo/examples/README.md"),
)
DOCUMENTS = [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").glob("*.md"))]


def commands(document: Path) -> list[list[str]]:
    """The command lines in the document's code blocks, split into words, without prompts and comments."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    programs = ("python", "make", "streamlit", "pip", ".venv/bin/")
    found = [part.strip() for line in lines if line.startswith(programs) for part in line.split("&&")]
    return [shlex.split(re.split(r"\s{2,}\(", part)[0], comments=True) for part in found]


ALL = [(document, words) for document in DOCUMENTS for words in commands(document)]
PYTHON = [words[1:] for _, words in ALL if Path(words[0]).name.startswith("python")]
PYTHON = [words[1:] if words[0] == "-m" else words for words in PYTHON]
OWN = sorted({tuple(words) for words in PYTHON if words[0] not in {"pytest", "pip", "venv", "-c"}})


def test_the_documents_have_commands() -> None:
    assert {"train.py", "evaluate.py", "inference_visualize.py", "visualize_loss.py"} <= {words[0] for words in OWN}


@pytest.mark.parametrize("words", OWN, ids=" ".join)
def test_a_script_accepts_the_options_that_are_shown(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # --config names files of the repository
    script, *options = words
    file = script if script.endswith(".py") else f"{script.replace('.', '/')}.py"
    if not Path(file).is_file():  # a package, which has its main in __main__.py
        file = f"{script.replace('.', '/')}/__main__.py"
    assert Path(file).is_file()
    if script == "train.py":
        if "--help" not in options:
            parser = build_parser()
            for option in ("--resume", "--log_to"):  # train.py adds them
                parser.add_argument(option, nargs="?")
            read_config(parser, options)
        return
    main = importlib.import_module(file.removesuffix(".py").replace("/", ".")).main
    subcommand = options[:1] if script == "data.prepare" else []
    with pytest.raises(SystemExit) as end:
        main([*subcommand, "--help"])
    assert not end.value.code
    known = re.findall(r"--[\w.]+", capsys.readouterr().out)
    assert [name for word in options if (name := word.split("=")[0]).startswith("--") and name not in known] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_make_targets_and_files_of_the_repository_exist(document: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for words in commands(document):
        if words[0] == "make":
            assert [word for word in words[1:] if "=" not in word and word not in targets] == [], words
        files = [
            word for word in words if re.fullmatch(r"(requirements|constraints|configs/|pretrained/).*\.\w+", word)
        ]
        assert [name for name in files if not (ROOT / name).exists()] == [], words


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_alone_lists_the_targets_and_does_nothing() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert re.findall(r"^make ([\w-]+)  +\S", shown, re.MULTILINE) == phony.split()


# --- README.zh-CN.md


def code_blocks(text: str) -> list[list[str]]:
    """The code blocks without the comments in them, which are translated, and without trailing blanks."""
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [[re.sub(r"(^|\s+)#\s.*", "", line).rstrip() for line in block.splitlines()] for block in blocks]


def test_the_chinese_readme_has_the_same_commands_numbers_and_links() -> None:
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert code_blocks(chinese) == code_blocks(english)
    for pattern in (
        r"^(#+) ",  # sections
        r"^\|.*$",  # rows of tables
        r"(?<=\]\()[^)\s]+",  # targets of links
        r"`[^`\n]+`",  # code
    ):
        found = [re.findall(pattern, text, re.MULTILINE) for text in (english, chinese)]
        if pattern.startswith(r"^\|"):
            found = [[re.findall(r"\d+\.\d", row) for row in rows] for rows in found]
        elif not pattern.startswith("^"):
            found = [sorted(set(each) - {"README.md", "README.zh-CN.md"}) for each in found]
        assert found[1] == found[0], pattern


def test_the_readmes_link_each_other() -> None:
    assert "](README.zh-CN.md)" in (ROOT / "README.md").read_text("utf-8")[:1000]
    assert "](README.md)" in (ROOT / "README.zh-CN.md").read_text("utf-8")[:1000]
