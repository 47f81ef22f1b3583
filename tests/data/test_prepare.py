"""data/prepare.py: the command itself; stopped, run again, refused."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import UserError
from data.prepare import main
from tests.support.archives import DATA, TRAIN, Server, image, images_zip, names_in, rows_of, start, write
from tests.support.data_formats import coco, karpathy
from tests.support.helpers import ROOT
from training.options import build_parser, read_config


def test_script_stopped_by_ctrl_c_resumes_when_run_again(tmp_path: Path) -> None:
    names = [f"{i:05}.jpg" for i in range(1500)]
    images_zip(tmp_path / "in" / "images.zip", *names)
    write(
        tmp_path / "in",
        {"captions.txt": "image,caption\n" + "".join(f"{name},A dog .\n" for name in names), TRAIN: "\n".join(names)},
    )
    output = tmp_path / "data" / "flickr8k"
    write(output, {"captions.csv": "the old one"})

    process = start("flickr8k", "--source", "in", cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not (output / "images" / names[50]).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    assert (output / "captions.csv").read_text() == "the old one"
    done = [path for path in (output / "images").iterdir() if not path.name.startswith(".")]
    assert 50 < len(done) < len(names)
    assert all(path.read_bytes() == image(path.name) for path in done)
    inodes = {path.name: path.stat().st_ino for path in done}

    process = start("flickr8k", "--source", "in", cwd=tmp_path)
    report, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "images: 100%" in errors
    assert "left out" not in report
    assert report.splitlines()[-1] == "Next: python train.py --config configs/flickr8k_lstm.yaml"
    assert [row["image"] for row in rows_of(output / "captions.csv")] == names
    assert all((output / "images" / name).stat().st_ino == inode for name, inode in inodes.items())


def test_karpathy_command_writes_next_to_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not to ./captions.csv, which belongs to the bundled sample in a clone."""
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path,
        {
            "coco/dataset.json": karpathy(("", "1.jpg", "train", ["A dog"])),
            "my images/1.jpg": b"x",
            "captions.csv": "sample",
        },
    )
    main(["karpathy", "coco/dataset.json", "--image_dir", "my images"])
    assert (tmp_path / "captions.csv").read_text() == "sample"
    output = Path("coco", "dataset_captions.csv")
    assert output.read_text() == "image,caption,split\n1.jpg,A dog,train\n"
    data = f"--captions_file {output} --image_dir 'my images'"
    assert capsys.readouterr().out.endswith(f" {data} --output_dir runs/dataset_captions\n")
    output.unlink()
    write(tmp_path, {"coco/dataset.json": karpathy(("", "1.jpg", "train", ["一只狗在草地上奔跑"]))})
    main(["karpathy", "coco/dataset.json", "--image_dir", "my images"])
    assert capsys.readouterr().out.endswith(f" {data} --output_dir runs/dataset_captions --data.tokenizer characters\n")


def test_coco_command_names_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [f"data/coco/annotations/captions_{split}2017.json" for split in ("train", "val")]
    write(tmp_path, {files[0]: coco({"1.jpg": ["A dog"]}), files[1]: coco({"2.jpg": ["A cat"]})})
    write(tmp_path, {"data/coco/train2017/1.jpg": b"x", "data/coco/val2017/2.jpg": b"x"})
    main(["coco", *files])
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[1:5] == ["python", "train.py", "--config", "configs/coco_attention.yaml"]
    config, _ = read_config(build_parser(), ["--config", str(ROOT / command[4])])
    assert command[6] == config.data.captions_file and rows_of(tmp_path / command[6])[1]["split"] == "val"
    assert command[8] == config.data.image_dir


def test_script_errors_are_one_line_and_status_2(tmp_path: Path, server: Server) -> None:
    server.files = {"Flickr8k_text.zip": DATA}  # not the real one
    process = start("flickr8k", "--base_url", server.url, cwd=tmp_path)
    report, errors = process.communicate(timeout=300)
    assert (process.returncode, report) == (2, "")
    assert errors.splitlines()[-1].startswith(f"error: {server.url}/Flickr8k_text.zip: wrong md5")
    assert "Traceback" not in errors
    assert names_in(tmp_path / "data" / "flickr8k" / "downloads") == []


def test_help_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, text in [
        (["--help"], "{flickr8k,coco,karpathy,table,shards}"),
        (["--help"], "python -m data.prepare table imagefolder"),
        (["flickr8k", "--help"], "--base_url"),
        (["coco", "--help"], "--image_dir"),
        (["karpathy", "--help"], "--image_dir"),
        (["table", "--help"], "--caption_column"),
        (["shards", "--help"], "--shard_mb"),
    ]:
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 0
        assert text in capsys.readouterr().out
    for argv, text in [
        ([], "required"),
        (["karpathy", "a.json", "b.json"], "b.json"),
        (["coco"], "FILE"),
        (["table", "a.csv", "--image_colum", "x"], "did you mean '--image_column'"),
        (["flickr8k", "--sourc", "x"], "did you mean '--source'"),
    ]:
        with pytest.raises(UserError, match=text):
            main(argv)


def test_help_does_not_load_torch() -> None:
    """It would take seconds."""
    code = "import data.prepare, sys; print({'torch', 'numpy', 'pandas', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_file_without_a_command(tmp_path: Path) -> None:
    write(tmp_path, {"mine.csv": "image;caption\n1.jpg;A dog\n", "coco.json": coco({"1.jpg": ["A dog"]})})
    for file, command in (("mine.csv", "table"), ("coco.json", "coco")):
        path = str(tmp_path / file)
        with pytest.raises(UserError) as refused:
            main([path, "--image_dir", "photos"])
        assert str(refused.value).endswith(f"Run: python -m data.prepare {command} {path}")


def test_images_stands_for_image_dir() -> None:
    with pytest.raises(UserError, match="unknown option --images: did you mean '--image_dir'"):
        main(["table", "mine.csv", "--images", "photos"])
