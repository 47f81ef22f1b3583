"""data/flickr8k.py: the quirks of the public archives."""

import json
from pathlib import Path

import pytest

from cli import UserError
from data.conversion import Prepared, summary
from data.flickr8k import prepare_flickr8k
from tests.support.archives import TEST, TRAIN, VAL, image, images_zip, make_zip, names_in, rows_of, tokens, write


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
    text = "\n".join(summary(prepared))
    assert "5 captions without an image (2258277193_586949ec62.jpg.1)" in text
    assert [" ".join(line.split()) for line in text.splitlines()[:4]] == [
        "all 3 images 15 captions",
        "train 2 images 10 captions",
        "val 1 images 5 captions",
        "test 0 images 0 captions",
    ]


def test_summary_names_three_at_most() -> None:
    prepared = Prepared([("a.jpg", "a", "train")], {"images in no split": [f"{i}.jpg" for i in range(91)]})
    assert summary(prepared)[-1] == "left out: 91 images in no split (0.jpg, 1.jpg, 2.jpg, ...)"


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
    assert "no splits found: train.py will divide the images itself" in "\n".join(summary(prepared))


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
        ({"dataset_flickr8k.json": "{"}, "dataset_flickr8k.json: not JSON: line 1"),
        ({"dataset_flickr8k.json": '{"images": 5}'}, "not a Karpathy JSON"),
        (
            {"dataset_flickr8k.json": '{"images": [{"filename": "a.jpg", "split": "val"}]}'},
            r"images\[0\] lacks the field 'sentences'",
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
