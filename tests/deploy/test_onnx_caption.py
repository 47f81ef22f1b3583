"""onnx_caption.py: captions of photos without torch, and what it says about files that it cannot use."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import onnx_caption
from cli import ROOT, UserError

HEAVY = ["torch", "torchvision", "pandas", "yaml", "tqdm", "regex", "nltk", "matplotlib", "filelock"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (90, 60 + number), colour).save(folder / f"{colour}.jpg")
    return folder


def output_of(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[str, str]:
    onnx_caption.main([*map(str, argv)])
    return capsys.readouterr()


def test_each_photo_gets_a_line(exported: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "torn.jpg").write_bytes((photos / "red.jpg").read_bytes()[:200])
    (photos / "notes.pdf").touch()
    lines, notes = output_of(capsys, photos, "--checkpoint", exported)
    names = [line.split(": ")[0] for line in lines.splitlines()]
    assert names == ["photos/blue.jpg", "photos/green.jpg", "photos/red.jpg"]
    assert all(line.split(": ")[1] for line in lines.splitlines())
    assert "1 .pdf" in notes and "left out:" in notes and "torn.jpg: damaged" in notes
    assert "captioned 3 of 4 images" in notes


def test_json_lines_have_the_candidates(exported: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [photos / "red.jpg", "--checkpoint", exported, "--beam_size", 3, "--format", "jsonl"]
    found = json.loads(output_of(capsys, *options)[0])
    assert found["image"] == "red.jpg" and found["caption"] == found["candidates"][0]["caption"]
    assert len(found["candidates"]) == 3 and all(candidate["log_prob"] < 0 for candidate in found["candidates"])


def test_it_imports_no_package_but_those_of_its_requirements(exported: Path, photos: Path) -> None:
    code = (
        "import sys, onnx_caption; onnx_caption.main(sys.argv[1:]);"
        f"sys.exit(' '.join(sorted(sys.modules.keys() & set({HEAVY}))))"
    )
    command = [sys.executable, "-c", code, str(photos), "--checkpoint", str(exported)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stderr.strip() == "" and result.stdout.count("\n") == 3


def test_a_file_that_is_missing_or_damaged_is_named(exported: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captioner"
    options = [str(photos), "--checkpoint", str(folder)]
    with pytest.raises(UserError, match=r"no exported captioner.*python -m tools.export_onnx CHECKPOINT"):
        onnx_caption.main(options)
    shutil.copytree(exported, folder)
    (folder / "step.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"step\.onnx: not a graph"):
        onnx_caption.main(options)
    (folder / "step.onnx").unlink()
    with pytest.raises(UserError, match=r"step\.onnx: no such file"):
        onnx_caption.main(options)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("format_version", 99),
        ("generate", {"beam_size": 0}),
        ("words", [1, 2]),
        ("special", {"start": 1, "end": 10**6, "never": []}),
        ("blanks", {}),
        ("grid", [7]),
        ("transform", {"image_size": "large"}),
        ("state", None),
    ],
)
def test_a_damaged_description_is_refused(
    exported: Path, photos: Path, tmp_path: Path, part: str, value: object
) -> None:
    folder = tmp_path / "captioner"
    folder.mkdir()
    values = json.loads((exported / "captioner.json").read_text("utf-8"))
    (folder / "captioner.json").write_text(json.dumps({**values, part: value}), "utf-8")
    with pytest.raises(UserError, match=r"captioner\.json: (damaged|format 99)"):
        onnx_caption.main([str(photos), "--checkpoint", str(folder)])


def test_photos_that_cannot_be_used_end_in_an_error(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match="none of the images"):
        onnx_caption.main([str(tmp_path / "a.jpg"), "--checkpoint", str(exported)])
