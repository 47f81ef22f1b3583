"""data/prepare.py: the quirks of the public archives, Karpathy JSON, and the command itself."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import UserError
from data.prepare import Prepared, main, prepare_flickr8k, prepare_karpathy, summary
from tests.support.archives import (
    DATA,
    TEST,
    TRAIN,
    VAL,
    Server,
    image,
    images_zip,
    make_zip,
    names_in,
    rows_of,
    start,
    tokens,
    write,
)
from tests.support.helpers import ROOT

# --- captions and splits ---------------------------------------------------------------------------------------------


def test_public_archives_with_all_their_quirks(tmp_path: Path) -> None:
    """Small public zips: captions without an image, images without a caption or split, missing images."""
    images_zip(tmp_path / "Flickr8k_Dataset.zip", "a.jpg", "b.jpg", "c.jpg", "loose.jpg", "silent.jpg")
    make_zip(
        tmp_path / "Flickr8k_text.zip",
        {
            "Flickr8k.token.txt": (
                tokens("a.jpg", "b.jpg", "2258277193_586949ec62.jpg.1", "c.jpg", "loose.jpg") + "a.jpg#5\t  \n"
            ).encode(),
            "Flickr8k.lemma.token.txt": b"a.jpg#0\tnot this one\n",
            "readme.txt": b"read me",
            "__MACOSX/._Flickr8k.token.txt": b"\x00\x05\x16\x07",
            TRAIN: b"a.jpg\nb.jpg\n",
            VAL: b"c.jpg\r\n\r\n",
            TEST: b"gone.jpg\n",
        },
    )
    output = tmp_path / "out"

    prepared = prepare_flickr8k([tmp_path / "Flickr8k_Dataset.zip", tmp_path / "Flickr8k_text.zip"], output)

    assert names_in(output / "images") == ["a.jpg", "b.jpg", "c.jpg", "loose.jpg", "silent.jpg"]
    assert (output / "images" / "a.jpg").read_bytes() == image("a.jpg")
    rows = rows_of(output / "captions.csv")
    assert [row["image"] for row in rows] == ["a.jpg"] * 5 + ["b.jpg"] * 5 + ["c.jpg"] * 5
    assert rows[3] == {"image": "a.jpg", "caption": "A caption 3 of a.jpg .", "split": "train"}
    assert rows[-1]["split"] == "val"
    assert prepared.left_out == {
        "captions without an image": ["2258277193_586949ec62.jpg.1"] * 5,
        "empty captions": ["a.jpg"],
        "images without a caption": ["silent.jpg"],
        "images in no split": ["loose.jpg"],
        "images of the test split that do not exist": ["gone.jpg"],
    }
    text = summary(prepared)
    assert "5 captions without an image (2258277193_586949ec62.jpg.1)" in text
    assert [" ".join(line.split()) for line in text.splitlines()[:4]] == [
        "all 3 images 15 captions",
        "train 2 images 10 captions",
        "val 1 images 5 captions",
        "test 0 images 0 captions",
    ]


def test_summary_names_three_at_most() -> None:
    prepared = Prepared([("a.jpg", "a", "train")], {"images in no split": [f"{i}.jpg" for i in range(91)]})
    assert summary(prepared).splitlines()[-1] == "left out: 91 images in no split (0.jpg, 1.jpg, 2.jpg, ...)"


def test_folder_of_several_zips_with_csv_captions_and_without_a_test_list(tmp_path: Path) -> None:
    source = tmp_path / "flickr8k"
    images_zip(source / "Flickr8k_Dataset-1of2.zip", "a.jpg")
    images_zip(source / "Flickr8k_Dataset-2of2.zip", "b.jpg")
    write(
        source,
        {"captions.txt": 'image,caption\na.jpg,"A dog , running ."\nb.jpg,A cat .\n', TRAIN: "a.jpg\n", VAL: "b.jpg"},
    )
    prepared = prepare_flickr8k([source], tmp_path / "out")
    assert prepared.rows == [("a.jpg", "A dog , running .", "train"), ("b.jpg", "A cat .", "val")]
    assert prepared.left_out == {}
    assert rows_of(tmp_path / "out" / "captions.csv")[0]["caption"] == "A dog , running ."


def test_unpacked_folder_mixed_with_files(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "mine",
        {"Images/a.jpg": image("a"), "Images/b.PNG": image("b"), "Images/notes.pdf": b"x", ".cache/c.jpg": b"c"},
    )
    write(tmp_path, {"Flickr8k.token.txt": tokens("a.jpg", "b.PNG"), TRAIN: "a.jpg\nb.PNG\n"})
    prepare_flickr8k([folder, tmp_path / "Flickr8k.token.txt", tmp_path / TRAIN], tmp_path / "out")
    assert names_in(tmp_path / "out" / "images") == ["a.jpg", "b.PNG"]
    assert (folder / "Images" / "a.jpg").read_bytes() == image("a")  # copied, not moved


def test_output_folder_may_be_the_source(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.jpg": image("a"), "captions.txt": "image,caption\na.jpg,A dog .\n", TRAIN: "a.jpg\n"})
    for _ in range(2):
        prepared = prepare_flickr8k([tmp_path], tmp_path)
        assert (prepared.rows, prepared.left_out) == ([("a.jpg", "A dog .", "train")], {})


def test_karpathy_json_gives_captions_and_splits_of_flickr8k(tmp_path: Path) -> None:
    entries = [
        {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A dog . "}]},
        {"filename": "b.jpg", "split": "test", "sentences": []},
    ]
    write(
        tmp_path, {"dataset_flickr8k.json": json.dumps({"images": entries}), "a.jpg": image("a"), "b.jpg": image("b")}
    )
    prepared = prepare_flickr8k([tmp_path], tmp_path / "out")
    assert prepared.rows == [("a.jpg", "A dog .", "train")]
    assert prepared.left_out == {"images without a caption": ["b.jpg"]}


def test_without_any_split_list_the_column_is_left_to_training(tmp_path: Path) -> None:
    """The common web copy has only Images/ and captions.txt."""
    make_zip(tmp_path / "archive.zip", {"Images/a.jpg": image("a"), "captions.txt": b"image,caption\na.jpg,A dog .\n"})
    prepared = prepare_flickr8k([tmp_path / "archive.zip"], tmp_path / "out")
    assert (tmp_path / "out" / "captions.csv").read_text() == "image,caption\na.jpg,A dog .\n"
    assert "no split list found" in summary(prepared)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": "x"}, "no captions found"),
        (
            {"captions.txt": "image,caption\na.jpg,A dog .\n", TRAIN: "a.jpg\n"},
            "no caption has both an image.*1 captions without an image",
        ),
        (
            {"captions.txt": "image,caption\na.jpg,A dog .\n", "a.jpg": "x", TRAIN: "a.jpg\n", VAL: "a.jpg\n"},
            "a.jpg is in val here, but in train",
        ),
        (
            {"captions.txt": "image,caption\na.jpg,A\n", "old/captions.txt": "image,caption\na.jpg,B\n", "a.jpg": "x"},
            "captions.txt differ",
        ),
        (
            {"captions.txt": "image,caption\na.jpg,A\n", "broken.zip": "PK but cut short"},
            "broken.zip: not a complete zip",
        ),
        ({"dataset_flickr8k.json": "{"}, "dataset_flickr8k.json: not a Karpathy JSON"),
        ({"dataset_flickr8k.json": '{"images": 5}'}, "not a Karpathy JSON"),
        (
            {"dataset_flickr8k.json": '{"images": [{"filename": "a.jpg", "split": "val"}]}'},
            r"images\[0\] lacks a field, .*sentences",
        ),
    ],
)
def test_unusable_sources_are_refused(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare_flickr8k([write(tmp_path / "source", files)], tmp_path / "out")
    assert not (tmp_path / "out" / "captions.csv").exists()


def test_a_source_that_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--source .*nowhere: no such file or folder"):
        prepare_flickr8k([tmp_path / "nowhere"], tmp_path / "out")
    write(tmp_path, {"my_captions.docx": "x"})
    with pytest.raises(UserError, match=r"my_captions\.docx: neither a zip, an image"):
        prepare_flickr8k([tmp_path / "my_captions.docx"], tmp_path / "out")


# --- Karpathy JSON ---------------------------------------------------------------------------------------------------


def karpathy(*images: tuple[str, str, str | None, list[str]]) -> str:
    """JSON from (filepath, filename, split, captions)."""
    return json.dumps(
        {
            "dataset": "coco",
            "images": [
                {"filename": name, "split": split, "sentences": [{"raw": raw, "tokens": []} for raw in raws]}
                | ({"filepath": path} if path else {})
                for path, name, split, raws in images
            ],
        }
    )


def test_karpathy(tmp_path: Path) -> None:
    text = karpathy(
        ("train2014", "1.jpg", "train", ["A dog .\n", "Two dogs, running"]),
        ("val2014", "2.jpg", "restval", ['A "cat"']),
        ("val2014", "3.jpg", "val", ["A café"]),
        ("", "4.jpg", "test", ["A man", " "]),
        ("val2014", "gone.jpg", "test", ["A ghost"]),
        ("", "5.jpg", "extra", ["In no split"]),
        ("", "6.jpg", "test", []),
    )
    write(
        tmp_path,
        {
            "dataset.json": text,
            **{f"images/{name}": b"x" for name in ("train2014/1.jpg", "val2014/2.jpg", "val2014/3.jpg")},
        },
    )
    write(tmp_path / "images", {f"{i}.jpg": b"x" for i in (4, 5, 6)})
    prepared = prepare_karpathy(tmp_path / "dataset.json", tmp_path / "images", tmp_path / "new" / "captions.csv")
    assert rows_of(tmp_path / "new" / "captions.csv") == [
        {"image": "train2014/1.jpg", "caption": "A dog .", "split": "train"},
        {"image": "train2014/1.jpg", "caption": "Two dogs, running", "split": "train"},
        {"image": "val2014/2.jpg", "caption": 'A "cat"', "split": "train"},
        {"image": "val2014/3.jpg", "caption": "A café", "split": "val"},
        {"image": "4.jpg", "caption": "A man", "split": "test"},
    ]
    assert prepared.left_out == {
        "empty captions": ["4.jpg"],
        "captions without an image": ["val2014/gone.jpg"],
        "images without a caption": ["6.jpg"],
        "images in no split": ["5.jpg"],
        "images of the test split that do not exist": ["val2014/gone.jpg"],
    }


def test_karpathy_errors(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "dataset.json": karpathy(("", "1.jpg", "train", ["A dog"])),
            "empty.json": '{"images": []}',
            "captions.csv": "mine",
        },
    )
    (tmp_path / "images").mkdir()
    for name, folder, message in [
        ("nowhere.json", "images", r"nowhere\.json: no such file"),
        ("dataset.json", "nowhere", r"--image_dir .*nowhere: no such folder"),
        (
            "dataset.json",
            "images",
            r"--image_dir .*images: of 1 images in .*dataset\.json, none .* exists there \(1\.jpg\)",
        ),
        ("empty.json", "images", r"of 0 images in .*empty\.json"),
    ]:
        with pytest.raises(UserError, match=message):
            prepare_karpathy(tmp_path / name, tmp_path / folder, tmp_path / "captions.csv")
    assert (tmp_path / "captions.csv").read_text() == "mine"


# --- the script ------------------------------------------------------------------------------------------------------


def test_script_stopped_by_ctrl_c_resumes_when_run_again(tmp_path: Path) -> None:
    names = [f"{i:05}.jpg" for i in range(1500)]
    images_zip(tmp_path / "in" / "images.zip", *names)
    write(
        tmp_path / "in",
        {"captions.txt": "image,caption\n" + "".join(f"{name},A dog .\n" for name in names), TRAIN: "\n".join(names)},
    )
    output = tmp_path / "data" / "flickr8k"
    write(output, {"captions.csv": "the old one", "images/.00000.jpg.1.tmp": b"left by kill -9"})

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
    output = Path("coco", "dataset.csv")
    assert output.read_text() == "image,caption,split\n1.jpg,A dog,train\n"
    assert (
        capsys.readouterr().out.splitlines()[-1].endswith(f"--data.captions_file {output} --data.image_dir 'my images'")
    )


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
        (["--help"], "{flickr8k,karpathy}"),
        (["flickr8k", "--help"], "--base_url"),
        (["karpathy", "--help"], "--image_dir"),
    ]:
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 0
        assert text in capsys.readouterr().out
    for argv, text in [
        ([], "required"),
        (["karpathy", "a.json"], "--image_dir"),
        (["flickr8k", "--sourc", "x"], "--sourc x"),
    ]:
        with pytest.raises(UserError, match=text):
            main(argv)


def test_help_does_not_load_torch() -> None:
    """It would take seconds."""
    code = "import data.prepare, sys; print({'torch', 'numpy', 'pandas', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
