"""tools/benchmark on the tiny checkpoint: plausible numbers, and clear errors."""

import re
from pathlib import Path

import pytest
import torch

from cli import UserError
from models.captioner import Captioner
from tools.benchmark.__main__ import main
from tools.benchmark.checkpoints import best_time, decode_in_batches, read_batches


def test_the_command(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # for the cache of features
    main(["--checkpoint", str(tiny_checkpoint.parent), "--beam_size", "1", "2"])
    out = capsys.readouterr().out
    assert f"{tiny_checkpoint}: decoder lstm, cpu, 1 threads" in out
    numbers = {what: float(number) for number, what in re.findall(r"^ +([\d.]+) (.+)$", out, flags=re.M)}
    assert set(numbers) == {
        "million weights in the decoder",
        "images encoded per second",
        *(f"images captioned per second, beam size {beam}, 64 at once" for beam in (1, 2)),
        *(f"images captioned per second, beam size {beam}, one by one" for beam in (1, 2)),
        *(f"seconds to caption 4 images, beam size {beam}" for beam in (1, 2)),
    }
    assert all(number > 0 for what, number in numbers.items() if "per second" in what)


def test_every_image_is_captioned_in_batches_of_the_size_asked_for(tiny_checkpoint: Path, tiny_data: Path) -> None:
    captioner = Captioner.load(tiny_checkpoint, torch.device("cpu"))
    paths = sorted((tiny_data / "images").iterdir())[:7]
    cache = captioner.feature_cache(captioner.config.data.feature_cache, mirror=False)
    assert not cache.build(paths)
    batches = list(read_batches(cache, paths, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat(batches), torch.stack([cache[path] for path in paths]))
    assert decode_in_batches(captioner, batches, beam_size=2) > 0 == decode_in_batches(captioner, [], beam_size=2)


def test_the_best_time_ignores_the_first_run_and_slower_ones() -> None:
    times = iter([0.1, 3.0, 1.0, 2.0])
    assert best_time(lambda: next(times)) == 1.0


def test_invalid_options_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--beam_size: must be a whole number of 1 or more, not '0'"):
        main(["--beam_size", "0"])
    with pytest.raises(UserError, match=r"none\.pth"):
        main(["--checkpoint", str(tmp_path / "none.pth")])
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        main(["--checkpoint", str(tiny_checkpoint), "--image_dir", str(tmp_path)])
