"""CONTRIBUTING.md: a decoder and an encoder added as described train, caption and return their attention."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import ROOT, tiny_decoder

pytestmark = pytest.mark.process

BLOCK = re.compile(r"^```python\n# ([\w/.]+)(?:, (above|in) (\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
SOURCE = ["*.py", "config.yaml", "data/*.py", "models/*.py", "evaluation/*.py", "training/*.py", "gallery/*"]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, with the code blocks of CONTRIBUTING.md in the files that their first lines name."""
    folder = tmp_path_factory.mktemp("repo")
    for path in (path for pattern in SOURCE for path in ROOT.glob(pattern) if path.is_file()):
        (folder / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / path.relative_to(ROOT))
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(blocks) == 6
    for file, where, registry, code in blocks:
        path = folder / file
        if not where:
            assert not path.exists()
            path.write_text(code, encoding="utf-8")
            continue
        text = path.read_text("utf-8")
        (line,) = re.findall(rf"^{'DECODERS: ' if where == 'above' else registry + ': '}.*\n", text, re.MULTILINE)
        path.write_text(text.replace(line, f"{code}\n\n{line}" if where == "above" else line + code), encoding="utf-8")
    return folder


def run(repo: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=repo, env=environment)


@pytest.mark.parametrize(
    "options",
    [
        ["--decoder={name: gru, embed_size: 8, hidden_size: 8}"],
        ["--encoder={name: patches, weights: none}", tiny_decoder("attention")],
        ["--encoder={name: patches, weights: none}", "--train.stages.encoder_lr=1e-3", "--train.stages.encoder_from=0"],
    ],
    ids=["gru", "patches", "patches, trained"],
)
def test_what_is_added_trains_and_captions(
    repo: Path, tiny_args: list[str], tiny_data: Path, tmp_path: Path, options: list[str]
) -> None:
    done = run(repo, "train.py", *tiny_args, *options, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    arguments = [
        "--checkpoint",
        tmp_path / "checkpoints.pth",
        "--images",
        tiny_data / "images",
        "--output_dir",
        tmp_path / "o",
    ]
    if tiny_decoder("attention") in options:
        arguments.append("--attention_strips")
    done = run(repo, "inference_visualize.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "captions_result.html").exists()


def test_an_option_that_the_new_decoder_does_not_have_is_refused(repo: Path, tmp_path: Path) -> None:
    done = run(repo, "train.py", "--decoder={name: gru}", "--decoder.layers=2", f"--output_dir={tmp_path}")
    assert done.returncode == 2 and "'decoder.layers' for decoder.name 'gru'" in done.stderr


def test_the_examples_are_short() -> None:
    for file, _, _, code in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from", '"""'))]
        assert len(lines) <= 30, file
