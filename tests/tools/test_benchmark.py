"""benchmark.py on the tiny checkpoint: plausible numbers, and clear words for what cannot be measured."""

import re
from pathlib import Path

import pytest
import torch

from models.captioner import Captioner
from tests.support.helpers import assert_refused, run_script
from tools import benchmark


def test_the_command(tiny_checkpoint: Path, tiny_data: Path) -> None:
    result = run_script("tools.benchmark", "--checkpoint", tiny_checkpoint, "--beam_size", "2")
    assert result.returncode == 0, result.stderr
    assert "decoder lstm, beam size 2, cpu, 1 threads" in result.stdout
    numbers = {what: float(number) for number, what in re.findall(r"^ +([\d.]+) (.+)$", result.stdout, flags=re.M)}
    assert set(numbers) == {
        "million weights in the decoder",
        "images encoded a second",
        "images captioned a second, 64 at once",
        "images captioned a second, one by one",
        "seconds to caption 4 images",
    }
    assert all(numbers[what] > 0 for what in numbers if "second," in what or "encoded" in what)


def test_every_image_is_captioned_as_many_at_once_as_asked(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = Captioner.load(tiny_checkpoint, torch.device("cpu"))
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(
        captioner, "caption_features", lambda features, beam_size: sizes.append((len(features), beam_size))
    )
    benchmark.caption_all(captioner, torch.zeros(7, 1, 2048), batch=3, beam_size=4)
    assert sizes == [(3, 4), (3, 4), (1, 4)]


def test_what_cannot_be_measured_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert_refused(run_script("tools.benchmark", "--beam_size", "0"), "--beam_size 0")
    assert_refused(run_script("tools.benchmark", "--checkpoint", tmp_path / "none.pth"), "none.pth")
    moved = run_script("tools.benchmark", "--checkpoint", tiny_checkpoint, "--image_dir", tmp_path)
    assert moved.returncode == 2 and "Traceback" not in moved.stderr and str(tmp_path) in moved.stderr
