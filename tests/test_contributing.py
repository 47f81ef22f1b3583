"""CONTRIBUTING.md: a decoder and an encoder added as described train, caption and return their attention."""

import json
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
ADDED = {
    "gru": ["--decoder={name: gru, embed_size: 8, hidden_size: 8}"],
    "patches": ["--encoder={name: patches, weights: none}", tiny_decoder("attention")],
    "patches, trained": [
        *("--encoder={name: patches, weights: none}", "--train.stages.encoder_lr=1e-3"),
        "--train.stages.encoder_from=0",
    ],
    "refused": ["--decoder={name: gru}", "--decoder.layers=2"],
}
DRIVER = """
import contextlib, functools, importlib, io, json, sys
import torch
import models.model
from cli import run_script
from models.resnet import ResNet50

torch.set_num_threads(1)
models.model.ResNet50 = functools.partial(ResNet50, blocks=(1, 1, 1, 1), width=8)  # a small checkpoint
ends = []
for name, *options in json.load(sys.stdin):
    sys.argv, status, error = [name, *options], 0, io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            run_script(importlib.import_module(name).main)
        except SystemExit as end:
            status = end.code
    ends.append((status, error.getvalue()))
print(json.dumps(ends))
"""
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


@pytest.fixture(scope="module")
def done(
    repo: Path, tiny_args: list[str], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, str, Path]]:
    """What each of ADDED did: exit status, stderr, output folder. One process runs all: it takes seconds to start."""
    commands, folders = [], {}
    for name, options in ADDED.items():
        folder = folders[name] = tmp_path_factory.mktemp("added")
        captioned = ["--checkpoint", folder, "--images", tiny_data / "images", "--output_dir", folder / "gallery"]
        strips = ["--attention_strips"] if tiny_decoder("attention") in options else []
        commands += [
            ["train", *tiny_args, *options, f"--output_dir={folder}"],
            ["inference_visualize", *captioned, *strips],
        ]
    result = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands, default=str),
        capture_output=True,
        text=True,
        check=False,
        cwd=repo,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    ends = json.loads(result.stdout)
    both = zip(ends[::2], ends[1::2], strict=True)  # training and captioning
    return {
        name: (trained[0] or captioned[0], trained[1] + captioned[1], folders[name])
        for name, (trained, captioned) in zip(ADDED, both, strict=True)
    }


@pytest.mark.parametrize("name", [name for name in ADDED if name != "refused"])
def test_what_is_added_trains_and_captions(done: dict[str, tuple[int, str, Path]], name: str) -> None:
    status, error, folder = done[name]
    assert status == 0, error
    assert (folder / "gallery" / "captions_result.html").exists()


def test_an_option_that_the_new_decoder_does_not_have_is_refused(done: dict[str, tuple[int, str, Path]]) -> None:
    status, error, _ = done["refused"]
    assert status == 2 and "'decoder.layers' for decoder.name 'gru'" in error


def test_the_examples_are_short() -> None:
    for file, _, _, code in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from", '"""'))]
        assert len(lines) <= 30, file
