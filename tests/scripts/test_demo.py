"""The default run from start to end: the scores that the README states for the bundled sample. Takes minutes."""

import json
from pathlib import Path

import pytest

from tests.support.helpers import run_script
from tools.draw_sample.scenes import make_scenes, names_main_thing


@pytest.mark.slow
def test_the_demo_reaches_the_scores_in_the_readme(tmp_path: Path) -> None:
    """What `make demo` does, in another folder: BLEU-4 >= 0.80, correct thing and colour in 95 % of test captions."""
    checkpoint, log = str(tmp_path / "checkpoints.pth"), str(tmp_path / "loss_log.txt")
    for arguments in (
        ["train.py", "--output_dir", str(tmp_path)],
        ["visualize_loss.py", "--log", log, "--output", str(tmp_path / "loss_curve.png")],
        ["evaluate.py", "--checkpoint", checkpoint, "--output", str(tmp_path / "metrics.json")],
        ["inference_visualize.py", "--checkpoint", checkpoint, "--output_dir", str(tmp_path / "outputs")],
    ):
        done = run_script(*arguments, timeout=3000)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "metrics.json").read_text())["BLEU-4"] >= 0.80
    captions = {
        entry["image"]: entry["caption"] for entry in json.loads((tmp_path / "outputs" / "captions.json").read_text())
    }
    test = [scene for scene in make_scenes() if scene.split == "test"]
    assert len(captions) == len(test)
    right = sum(names_main_thing(captions[scene.image], scene) for scene in test)
    assert right >= 0.95 * len(test), f"{right} of {len(test)}"
