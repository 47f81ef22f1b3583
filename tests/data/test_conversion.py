"""data/conversion.py: COCO's and Karpathy's JSON, images in subfolders, splits in file names."""

import json
from pathlib import Path

import pytest

from cli import UserError
from data.annotations import read_json
from data.conversion import convert, find_images
from data.prepare import main
from tests.support.archives import rows_of, write
from tests.support.data_formats import coco, karpathy


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
    prepared = convert([tmp_path / "dataset.json"], read_json, tmp_path / "images", tmp_path / "new" / "captions.csv")
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


def convert_json(tmp_path: Path, *names: str, images: str = "images") -> list[dict[str, str]]:
    """The rows of the CSV that files in ``tmp_path`` are converted to."""
    output = tmp_path / f"{'_'.join((*names, Path(images).name))}_captions.csv"
    convert([tmp_path / name for name in names], read_json, tmp_path / images, output)
    return rows_of(output)


@pytest.mark.parametrize(
    ("name", "images", "message"),
    [
        ("nowhere.json", "images", r"nowhere\.json: no such file"),
        ("dataset.json", "nowhere", r"--image_dir .*nowhere: no such folder"),
        ("dataset.json", "images", r"images: of 1 images in .*dataset\.json, none .* exists there \(1\.jpg\)\. Name"),
        ("empty.json", "images", r"of 0 images in .*empty\.json"),
        (
            "list.json",
            "images",
            r"a JSON list, not COCO captions \(JSON\) or a Karpathy JSON\. Run: .* table ",
        ),
        ("cut.json", "images", r"cut\.json: not JSON: line 1, column 135: Unterminated string"),
        ("half.json", "images", r"half\.json: not COCO captions"),
        ("nothing.json", "images", r"nothing\.json: the file is empty, not COCO captions"),
        ("instances.json", "images", r"annotations\[0\] lacks the field 'caption'. Use the file of captions"),
        ("unknown.json", "images", r"annotation of image_id 7, which is not in 'images'"),
        ("number.json", "images", r"images\[0\] has a field of the wrong type"),
    ],
)
def test_files_that_cannot_be_converted(tmp_path: Path, name: str, images: str, message: str) -> None:
    write(
        tmp_path,
        {
            "dataset.json": karpathy(("", "1.jpg", "train", ["A dog"])),
            "empty.json": '{"images": [], "annotations": []}',
            "list.json": '[{"image": "1.jpg", "caption": "A dog"}]',
            "cut.json": coco({"1.jpg": ["A dog"]})[:-20],
            "half.json": '{"images": []}',
            "nothing.json": "",
            "instances.json": '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": []}]}',
            "unknown.json": '{"images": [], "annotations": [{"image_id": 7, "caption": "A dog"}]}',
            "number.json": '{"images": [1], "annotations": []}',
        },
    )
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=message):
        convert_json(tmp_path, name, images=images)
    assert not list(tmp_path.glob("*.csv"))


def test_coco_names_the_split_of_each_file(tmp_path: Path) -> None:
    """Their images are in a folder for each split, which the JSON does not name."""
    write(
        tmp_path,
        {
            "captions_train2017.json": coco({"000000000009.jpg": ["A dog .", "Two dogs"], "gone.jpg": ["A ghost"]}),
            "captions_val2017.json": coco({"000000000139.jpg": ["A cat", " "]}),
            "images/train2017/000000000009.jpg": b"x",
            "images/val2017/000000000139.jpg": b"x",
        },
    )
    train = {"image": "train2017/000000000009.jpg", "split": "train"}
    assert convert_json(tmp_path, "captions_train2017.json", "captions_val2017.json") == [
        {**train, "caption": "A dog ."},
        {**train, "caption": "Two dogs"},
        {"image": "val2017/000000000139.jpg", "caption": "A cat", "split": "val"},
    ]
    alone = convert_json(tmp_path, "captions_train2017.json")  # train.py divides it
    assert [row.keys() for row in alone] == [{"image", "caption"}] * 2
    assert (
        convert_json(tmp_path, "captions_train2017.json", images="images/train2017")[0]["image"] == "000000000009.jpg"
    )


def test_names_that_do_not_tell_the_split(tmp_path: Path) -> None:
    write(tmp_path, {"captions_train.json": coco({"1.jpg": ["A dog"]}), "more.json": coco({"2.jpg": ["A cat"]})})
    write(tmp_path, {"trainval.json": coco({"2.jpg": ["A cat"]}), "images/1.jpg": b"x", "images/2.jpg": b"x"})
    for name in ("more.json", "trainval.json"):
        with pytest.raises(UserError, match=rf"{name}: its name gives no split. Put train, val or test into its name"):
            convert_json(tmp_path, "captions_train.json", name)
    assert {*convert_json(tmp_path, "more.json", "trainval.json")[0]} == {"image", "caption"}


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    text = coco({"1.jpg": ["A dog"]})
    write(tmp_path, {"train.json": text, "val.json": text, "images/1.jpg": b"x"})
    with pytest.raises(UserError, match=r"val\.json: 1\.jpg is in val here, but in train elsewhere"):
        convert_json(tmp_path, "train.json", "val.json")


def test_images_are_found_in_subfolders(tmp_path: Path) -> None:
    places = ("1.jpg", "a/2.jpg", "a/b/3.jpg", "a/4.jpg", "b/4.jpg", ".cache/5.jpg")
    write(tmp_path, dict.fromkeys(places, b"x"))

    def found(*names: str, folder: str = ".") -> dict[str, str]:
        return find_images(names, tmp_path, tmp_path / folder)

    assert found("1.jpg", "2.jpg", "3.jpg", "a/2.jpg", "b/2.jpg", "5.jpg", "") == {
        "1.jpg": "1.jpg",
        "2.jpg": "a/2.jpg",
        "3.jpg": "a/b/3.jpg",
        "a/2.jpg": "a/2.jpg",
    }
    in_a = {"4.jpg": "a/4.jpg", "b/3.jpg": "a/b/3.jpg", "1.jpg": "1.jpg"}
    assert found(*in_a, folder="a") == in_a
    with pytest.raises(UserError, match=r"there are (a|b)/4\.jpg and (a|b)/4\.jpg\. Name the folder of the one to use"):
        found("4.jpg")


def test_the_file_to_convert_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path, {"images/1.jpg": b"x", "mine.csv": "image;caption\n1.jpg;A dog\n"})
    with pytest.raises(UserError, match=r"--output .*mine\.csv: would overwrite the file to convert"):
        main(["table", str(tmp_path / "mine.csv"), "--output", str(tmp_path / "images" / ".." / "mine.csv")])
    main(["table", str(tmp_path / "mine.csv")])
    assert (tmp_path / "mine.csv").read_text() == "image;caption\n1.jpg;A dog\n"
    assert (tmp_path / "mine_captions.csv").read_text() == "image,caption\nimages/1.jpg,A dog\n"


def test_a_file_with_other_content_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path, {"1.jpg": b"x", "mine.csv": "image;caption\n1.jpg;A dog\n", "mine_captions.csv": "the user's"})
    for command in (["table", str(tmp_path / "mine.csv")], ["table", str(tmp_path / "mine.csv"), "--output"]):
        output = tmp_path / "mine_captions.csv"
        words = [*command, str(output)] if command[-1] == "--output" else command
        with pytest.raises(UserError, match=r"mine_captions\.csv: exists already .*name another --output, or move it"):
            main(words)
        assert output.read_text() == "the user's"
    output.rename(tmp_path / "moved.csv")
    for _ in range(2):  # the second time there is nothing to change
        main(["table", str(tmp_path / "mine.csv")])
        assert output.read_text() == "image,caption\n1.jpg,A dog\n"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".csv", ".csv", ".jpg"]


def test_a_folder_without_the_images_is_refused(tmp_path: Path) -> None:
    files = {"table": "mine.csv", "coco": "coco.json"}
    write(tmp_path, {"in/mine.csv": "image;caption\n1.jpg;A dog\n", "in/coco.json": coco({"1.jpg": ["A dog"]})})
    write(tmp_path, {"in/2.jpg": b"x", "photos/1.jpg": b"x"})
    for command, file in files.items():
        with pytest.raises(UserError, match=r"none .* exists there \(1\.jpg\)\. Name their folder with --image_dir"):
            main([command, str(tmp_path / "in" / file)])
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["2.jpg", "coco.json", "mine.csv"]


def test_metadata_files_of_several_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The splits are named by the folders, and images in both may have the same name."""
    for split in ("train", "test"):
        write(tmp_path, {f"{split}/0.jpg": b"x", f"{split}/metadata.csv": f"file_name,text\n0.jpg,A {split}\n"})
    expected = [
        {"image": "train/0.jpg", "caption": "A train", "split": "train"},
        {"image": "test/0.jpg", "caption": "A test", "split": "test"},
    ]
    monkeypatch.chdir(tmp_path)
    main(["table", "train/metadata.csv", "test/metadata.csv"])
    assert rows_of(tmp_path / "train" / "all_captions.csv") == expected
    main(["table", "."])
    assert rows_of(tmp_path / "all_captions.csv") == expected[::-1]
    with pytest.raises(UserError, match=r"train2: a folder without metadata\.jsonl or metadata\.csv"):
        (tmp_path / "train2").mkdir()
        main(["table", "train2"])


@pytest.mark.parametrize(
    "name", ["../../etc/secret.jpg", "/etc/secret.jpg", "C:/secret.jpg", "a/../b.jpg", "..\\s.jpg"]
)
def test_names_that_lead_out_of_the_folder_are_refused_by_row(tmp_path: Path, name: str) -> None:
    token = f"1.jpg#0\tA dog\n{name}#0\tA secret\n"
    files = {
        "karpathy.json": (karpathy(("", "1.jpg", "train", []), ("", name, "train", ["A secret"])), r"images\[1\]"),
        "coco.json": (coco({"1.jpg": [], name: ["A secret"]}), r"images\[1\]"),
        "table.csv": (f"image,caption\n1.jpg,A dog\n{name},A secret\n", "row 3"),
        "table.jsonl": ('{"image": "1.jpg", "text": "A"}\n' + json.dumps({"image": name, "text": "A"}), "row 2"),
        "flickr.token": (token, "line 2"),
    }
    (tmp_path / "images").mkdir()
    for file, (content, row) in files.items():
        write(tmp_path, {file: content})
        command = file.split(".")[0] if file.endswith(".json") else "table"
        with pytest.raises(UserError, match=rf"{file}.* {row}: the image .* is not in the folder of the images\."):
            main([command, str(tmp_path / file), "--image_dir", str(tmp_path / "images")])


def test_names_of_a_table_that_lead_elsewhere_in_the_folder(tmp_path: Path) -> None:
    whole = tmp_path / "photos" / "1.jpg"
    write(tmp_path, {"photos/1.jpg": b"x", "tables/a.csv": f"image,caption\n{whole},A dog\n../photos/1.jpg,It runs\n"})
    main(["table", str(tmp_path / "tables" / "a.csv"), "--image_dir", str(tmp_path)])
    assert [row["image"] for row in rows_of(tmp_path / "tables" / "a_captions.csv")] == ["photos/1.jpg"] * 2


def test_half_characters_are_refused(tmp_path: Path) -> None:
    for number, text in enumerate((karpathy(("", "1.jpg", "train", ["A \ud800"])), coco({"\udfff1.jpg": ["A dog"]}))):
        write(tmp_path, {f"{number}.json": text, "images/1.jpg": b"x"})
        with pytest.raises(UserError, match=rf"{number}\.json: half a character"):
            convert_json(tmp_path, f"{number}.json")


def test_splits_of_files_that_only_their_folders_tell_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path, {f"{split}/0.csv": f"image,caption\n{split}.jpg,A {split}\n", f"{split}/{split}.jpg": b"x"})
    main(["table", *(str(tmp_path / split / "0.csv") for split in ("train", "test"))])
    rows = rows_of(tmp_path / "train" / "all_captions.csv")
    assert [(row["image"], row["split"]) for row in rows] == [("train/train.jpg", "train"), ("test/test.jpg", "test")]
