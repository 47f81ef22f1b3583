"""Damaged images: each is decoded or refused in one line, in little time and memory."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.campaign.conftest import Count
from tests.campaign.mutations import encodings, mutate
from tests.support.forked import Limits, run_forked
from tests.support.gallery import read_gallery
from tests.support.helpers import ROOT

pytestmark = pytest.mark.campaign
CASES = 40
IMAGES = 25  # in a case
FOLDER = 100  # images in a folder that is captioned
SECONDS = 5  # of the CPU, for an image
LIMITS = Limits(cpu=60, memory=2**30)


@pytest.fixture(scope="session")
def originals() -> dict[str, bytes]:
    """A bundled picture as files of all formats."""
    with Image.open(sorted((ROOT / "data" / "sample" / "images").iterdir())[0]) as picture:
        return encodings(picture.convert("RGB").resize((96, 72)))


def write_mutated(folder: Path, number: int, originals: dict[str, bytes], rng: random.Random) -> None:
    folder.mkdir()
    for index in range(number):
        name = rng.choice(sorted(originals))
        (folder / f"{index:03}_{name}").write_bytes(mutate(originals[name], rng))


def test_each_is_opened_or_refused(
    case: int, rng: random.Random, count: Count, forkserver: Any, originals: dict[str, bytes], tmp_path: Path
) -> None:
    count("mutated images", IMAGES)
    write_mutated(tmp_path / "images", IMAGES, originals, rng)
    finished = run_forked(forkserver, "tests.campaign.open_images", ["images"], tmp_path, limits=LIMITS)
    assert finished.status == 0 and not finished.exceeded, finished
    results = [json.loads(line) for line in finished.output.splitlines()]
    assert len(results) == IMAGES
    for name, outcome, seconds in results:
        assert seconds < SECONDS, name
        assert outcome.startswith("decoded") or outcome.startswith(f"images/{name}: "), outcome
        assert len(outcome) <= 300 and outcome.isprintable(), outcome


def test_a_folder_is_captioned(
    rng: random.Random, count: Count, forkserver: Any, originals: dict[str, bytes], world: Path, tmp_path: Path
) -> None:
    count("mutated images in a folder", FOLDER)
    write_mutated(tmp_path / "images", FOLDER, originals, rng)
    (tmp_path / "images" / "whole.jpg").write_bytes(originals["plain.jpg"])
    argv = [f"--checkpoint={world / 'model'}", "--images=images", "--output_dir=out", "--device=cpu", "--print=none"]
    finished = run_forked(forkserver, "inference_visualize", argv, tmp_path, limits=LIMITS)
    assert finished.status == 0 and "Traceback" not in finished.errors, finished
    records, _ = read_gallery(tmp_path / "out")
    captioned = {Path(str(record["image"])).name for record in records}
    names = [path.name for path in (tmp_path / "images").iterdir()]
    skipped = {name for name in names if f"/{name}: " in finished.errors}
    assert len(captioned) + len(skipped) == FOLDER + 1 and not captioned & skipped, finished
