"""inference_visualize.py --compare: what two models say of the same images, side by side."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli import UserError
from inference_visualize import distinct_names
from models.captioner import Captioner
from tests.support.browser import Visit
from tests.support.gallery import assert_no_errors, gallery, make_many

HEADER = ["image", "caption", "log_prob", "compared_caption", "compared_log_prob"]


def checkpoints(demo_folder: Path) -> tuple[Path, Path]:
    """An attention decoder and an LSTM."""
    return demo_folder / "checkpoints.pth", demo_folder / "runs/drawings/checkpoints.pth"


def test_both_captions_are_written_and_a_second_run_captions_nothing(
    tmp_path: Path, demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_many(tmp_path / "photos", 3)
    out, (one, other) = tmp_path / "out", checkpoints(demo_folder)
    options = ["--images", tmp_path / "photos", "--checkpoint", one, "--compare", other]
    options += ["--format", "json,csv"]
    records, page = gallery(out, *options)
    models = [Captioner.load(path, torch.device("cpu")) for path in (one, other)]
    photos = sorted((tmp_path / "photos").iterdir())
    wanted = [model.describe([*photos]) for model in models]
    assert [record["caption"] for record in records] == wanted[0]
    assert [record["compared"]["caption"] for record in records] == wanted[1]  # type: ignore[index]
    header, *rows = csv.reader((out / "captions.csv").read_text("utf-8-sig").splitlines())
    assert header == HEADER and [row[3] for row in rows] == wanted[1]
    text = " ".join(page.text.split())
    assert "3 images captioned by two models" in text and page.attention() != []
    assert all(caption in text for caption in wanted[0] + wanted[1])

    def never(*_: object, **__: object) -> None:
        raise AssertionError("captioned again")

    monkeypatch.setattr(Captioner, "caption", never)
    assert gallery(out, *options)[0] == records
    alone = gallery(out, *options[:4], "--format", "json,csv")[0]  # without the second model
    assert [record["caption"] for record in alone] == wanted[0] and all("compared" not in record for record in alone)


def test_the_page_in_a_browser(tmp_path: Path, tiny_data: Path, demo_folder: Path, visit: Callable[..., Visit]) -> None:
    one, other = checkpoints(demo_folder)
    images = ["--captions_file", tiny_data / "captions.csv", "--image_dir", tiny_data / "images", "--split", "all"]
    gallery(tmp_path, "--checkpoint", one, "--compare", other, *images)
    address = (tmp_path / "captions_result.html").as_uri()
    visitor = visit(address, width=390)
    card = visitor.page.locator(".card").first
    assert card.locator("h2").count() == 2 and card.locator(".system").count() == 2
    card.locator("[data-attention] > *").first.focus()
    assert card.locator("canvas").count() == 1
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visitor.accessibility_violations() == []
    assert_no_errors(visitor, address)


def test_a_model_is_not_compared_with_itself(tmp_path: Path, tiny_checkpoint: Path) -> None:
    make_many(tmp_path / "photos", 1)
    copy = tmp_path / "copy.pth"
    shutil.copy(tiny_checkpoint, copy)
    with pytest.raises(UserError, match=r"--compare .*: the same model as --checkpoint"):
        gallery(
            tmp_path / "out",
            *("--images", tmp_path / "photos", "--checkpoint", tiny_checkpoint, "--compare", copy),
        )


def test_names_of_two_runs_are_told_apart() -> None:
    assert distinct_names(Path("runs/a/checkpoints.pth"), Path("flickr8k.pth")) == ("checkpoints.pth", "flickr8k.pth")
    assert distinct_names(Path("runs/a/checkpoints.pth"), Path("runs/b/checkpoints.pth")) == (
        "a/checkpoints.pth",
        "b/checkpoints.pth",
    )
