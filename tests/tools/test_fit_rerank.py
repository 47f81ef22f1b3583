"""tools.fit_rerank: a checkpoint that chooses among the captions of its beams."""

import json
from pathlib import Path

import pytest

import evaluate
import inference_visualize
from cli import UserError
from models.captioner import Captioner
from tests.support.helpers import assert_same
from tools import export_safetensors
from tools.fit_rerank import main


@pytest.fixture(scope="module")
def reranked(
    tiny_checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The checkpoint, and the options that name the data."""
    folder = tmp_path_factory.mktemp("rerank")
    data = ["--captions_file", tiny_data / "captions.csv", "--image_dir", tiny_data / "images"]
    options = [*map(str, data), "--feature_cache", str(folder / "cache")]
    main([str(tiny_checkpoint), str(folder / "reranked.pth"), *options])
    return folder / "reranked.pth", options


def test_every_script_reranks_unless_told_not_to(
    reranked: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data = reranked
    captions, tables = {}, {}
    for choice in ("on", "off"):
        output = tmp_path / choice / "metrics.json"
        evaluate.main(["--checkpoint", str(path), "--rerank", choice, "--split", "val", "--output", str(output), *data])
        tables[choice] = capsys.readouterr().out
        captions[choice] = json.loads((output.parent / "predictions.json").read_text("utf-8"))
    assert "beam 20, reranked" in tables["on"] and "reranked" not in tables["off"].replace("reranked,", "")
    assert len(captions["on"]) == len(captions["off"]) == 4
    photos = [*Path(data[3]).glob("*.jpg")][:2]
    inference_visualize.main(
        ["--checkpoint", str(path), "--images", *map(str, photos), "--output_dir", str(tmp_path / "g")]
    )
    (first, *_) = json.loads((tmp_path / "g" / "captions.json").read_text("utf-8"))
    captioner = Captioner.load(path, "cpu")
    assert captioner.beams == 20
    found = captioner.describe(next(str(photo) for photo in photos if photo.name == first["image"]))
    assert first["caption"] == found
    assert len(first["candidates"]) <= captioner.config.generate.beam_size


def test_safetensors_keep_what_it_reranks_by(reranked: tuple[Path, list[str]], tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path, _ = reranked
    export_safetensors.main([str(path), str(tmp_path / "a.safetensors")])
    before, after = (Captioner.load(each, "cpu").reranker for each in (path, tmp_path / "a.safetensors"))
    assert before is not None and after is not None
    assert_same(before.state(), after.state())


def test_a_checkpoint_that_cannot_rerank_says_what_to_do(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--rerank on.*tools\.fit_rerank"):
        evaluate.main(["--checkpoint", str(tiny_checkpoint), "--rerank", "on", "--output", str(tmp_path / "m.json")])


def test_the_source_is_not_overwritten(tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="would overwrite the source"):
        main([str(tiny_checkpoint), str(tiny_checkpoint)])
