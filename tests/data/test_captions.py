"""data/captions.py: captions.csv in all its variants, splits, and the captions of each image."""

import inspect
from pathlib import Path

import pandas as pd
import pytest

from cli import UserError
from data.captions import find_left_right, read_captions, read_training_data, references_of
from tests.support.helpers import write_csv


def read(folder: Path, content: str | bytes) -> list[list[str]]:
    path = folder / "captions.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read_captions(path, seed=0)
    assert list(table.columns) == ["image", "caption", "split"]
    return [[str(cell) for cell in row] for row in table.to_numpy()]


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ("image,caption,split\na.jpg,a dog,val\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\r\na.jpg,a dog,val\r\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\ra.jpg,a dog,val", ["a.jpg", "a dog", "val"]),
        ("\ufeffimage,caption,split\na.jpg,a dog,val\n", ["a.jpg", "a dog", "val"]),
        ('image,caption,split\n"a, b.jpg","a dog, a ""big"" one",val\n', ["a, b.jpg", 'a dog, a "big" one', "val"]),
        (" Image , CAPTION , Split \n a.jpg , a dog , val \n", ["a.jpg", "a dog", "val"]),
        ("split,id,caption,image\nval,7,a dog,a.jpg\n", ["a.jpg", "a dog", "val"]),
        (
            "image,caption,split\n\u65e5\u672c \u00e9.jpg,caf\u00e9,val\n",
            ["\u65e5\u672c \u00e9.jpg", "caf\u00e9", "val"],
        ),
        ("image,caption,split\n\na.jpg,a dog,val\n\n  \n,,\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\na.jpg,a dog,val,,\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split,medium\na.jpg,a dog,val\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\n007,NA,val\n", ["007", "NA", "val"]),
        ("image,caption,split\na.jpg,null,val\n", ["a.jpg", "null", "val"]),
        ('image,caption,split\na.jpg,a 5" plate,val\n', ["a.jpg", 'a 5" plate', "val"]),
    ],
)
def test_csv_variants_are_read(tmp_path: Path, content: str, row: list[str]) -> None:
    assert read(tmp_path, content) == [row]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("image,caption\n", "no captions, only the header"),
        ("a.jpg,a dog\nb.jpg,a cat\n", r"no columns named image .*The first line must read image,caption$"),
        ("image,caption,Caption\na.jpg,a,b\n", "2 columns named caption"),
        ("image,caption,split,split\na.jpg,a,val,val\n", "2 columns named split"),
        ("image,caption\na.jpg,a dog\nb.jpg,\n", "row 3: empty caption"),
        ("image,caption\n\n\na.jpg,a dog\n\n,a dog\n", "row 6: empty image"),
        ('image,caption\na.jpg,"a\ndog"\nb.jpg,"  "\n', "row 4: empty caption"),
        ("image,caption\na.jpg,a dog, running\n", "row 2: 3 cells, but the header has 2.*double quotes"),
        ("image,caption\na.jpg,a dog\nb.jpg\n", r"row 3: empty caption \(1 in all\)\. Fill in"),
        ('image,caption\na.jpg,a dog\nb.jpg,"a dog\nc.jpg,a cat\n', "row 3: .*double quotes"),
        (
            "image,caption,split\na.jpg,dog,train\nb.jpg,dog,eval\n",
            "row 3: split 'eval' must be one of train, val, test",
        ),
        ("image,caption,split\na.jpg,dog,train\nb.jpg,dog,\n", "row 3: split '' must"),
        ("image,caption,split\na.jpg,dog,train\nb.jpg,dog\n", "row 3: split '' must"),
        (
            "image,caption,split\na.jpg,dog,train\nb.jpg,dog,val\na.jpg,dog,validation\n",
            "row 4: image a.jpg is in more than one split",
        ),
        ("image,caption\na.jpg,dog\nb.jpg,café\n".encode("latin-1"), "row 3: not UTF-8"),
        ("image,caption\na.jpg,dog\n".encode("utf-16"), r"text in UTF-16, not UTF-8\. Save the file as UTF-8"),
    ],
)
def test_errors_name_file_and_row(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"captions\.csv: {message}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"info": {}, "images": [{"id": 1, "file_name": ', r"COCO captions \(JSON\), .*prepare coco "),
        (
            '{"images": [{"filename": "a.jpg", "sentences": [{"raw": "a dog"}]}]}',
            "a Karpathy JSON, .*prepare karpathy ",
        ),
        ('[{"image": "a.jpg", "caption": "a dog"}]', "a JSON list, .*prepare table "),
        ('{"image": "a.jpg", "caption": "a dog"}\n', "JSON lines, .*prepare table "),
        (b"PAR1\xff\x00", "a Parquet file, .*prepare table "),
        ("image\tcaption\na.jpg\ta dog, running\n", "a table with tabs between the columns, .*prepare table "),
        ("image;caption\na.jpg;a dog\n", "a table with ';' between the columns, .*prepare table "),
        ("image_name| comment_number| comment\na.jpg| 0| a dog\n", r"a table with '\|' between .*prepare table "),
        ("a.jpg#0\ta dog\n", "lines of the form 'name.jpg#0<TAB>caption', .*prepare table "),
        (
            "file_name,text\na.jpg,a dog\n",
            r"no columns named image and caption in .*\(file_name, text\)\..*prepare table ",
        ),
    ],
)
def test_other_formats_are_answered_with_the_command_that_converts_them(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=rf"captions\.csv: {message}.*captions\.csv$"):
        read(tmp_path, content)


def test_other_names_of_columns_have_to_be_told(tmp_path: Path) -> None:
    message = r"captions\.csv --image_column COLUMN --caption_column COLUMN$"
    with pytest.raises(
        UserError, match=r"no columns named image and caption in the header \(foto, titel\)\." rf".*{message}"
    ):
        read(tmp_path, "Foto,Titel\na.jpg,a dog\n")


def test_what_other_data_sets_call_the_splits(tmp_path: Path) -> None:
    names = ["Train", "training", "RESTVAL", "val", "Valid", "validation", "dev", "Test", "testing"]
    rows = [(f"{number}.jpg", "a dog", name) for number, name in enumerate(names)]
    table = read_captions(write_csv(tmp_path / "c.csv", rows), seed=None)
    assert list(table["split"]) == ["train"] * 3 + ["val"] * 4 + ["test"] * 2


def test_missing_captions_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "all.csv").touch()
    (tmp_path / "hugging" / "train").mkdir(parents=True)
    (tmp_path / "hugging" / "train" / "metadata.jsonl").touch()
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "captions.csv").touch()
    monkeypatch.setattr("data.captions.ROOT", repository)
    for path, message in [
        (Path("no.csv"), rf"no\.csv: no such captions file in {tmp_path}\. Name yours with --captions_file"),
        (tmp_path / "no.csv", r"no\.csv: no such captions file\. Name yours"),
        (
            Path("captions.csv"),
            rf"captions\.csv: no such .* in {tmp_path}\. .* run `cd {repository}`",
        ),
        (
            Path("data", "flickr8k", "captions.csv"),
            r"Get Flickr8k: python -m data\.prepare flickr8k\. Or name your own --captions_file and --image_dir$",
        ),
        (Path("mine"), r"mine: a folder, not a captions file\. Name the file in it, such as mine.all\.csv"),
        (Path("hugging"), r"hugging: a folder .*imagefolder.*Run: python -m data\.prepare table hugging$"),
    ]:
        with pytest.raises(UserError, match=message):
            read_captions(path, seed=0)


def test_without_a_split_column_images_are_split_by_a_hash(tmp_path: Path) -> None:
    names = [f"photo_{number}.jpg" for number in range(1000)]
    rows: list[tuple[str, ...]] = [(name, caption) for name in names for caption in ("a dog", "a cat")]
    path = write_csv(tmp_path / "a.csv", rows, ("image", "caption"))
    table = read_captions(path, seed=1)
    split_of = dict(zip(table["image"], table["split"], strict=True))
    assert (table.groupby("image")["split"].nunique() == 1).all()  # images, never rows
    shares = pd.Series(split_of).value_counts(normalize=True)
    assert abs(shares["train"] - 0.8) < 0.05 and abs(shares["val"] - 0.1) < 0.04 and abs(shares["test"] - 0.1) < 0.04

    more = write_csv(tmp_path / "more.csv", [("new.jpg", "a bird"), *rows[::-1]], ("image", "caption"))
    again = read_captions(more, seed=1)
    assert {
        name: split for name, split in zip(again["image"], again["split"], strict=True) if name != "new.jpg"
    } == split_of
    other = read_captions(path, seed=2)
    assert dict(zip(other["image"], other["split"], strict=True)) != split_of


def test_references_of_keeps_file_order_and_names_the_splits_there_are(tmp_path: Path) -> None:
    rows = [("b.jpg", "one", "train"), ("a.jpg", "two", "train"), ("b.jpg", "three", "train"), ("c.jpg", "four", "val")]
    table = read_captions(write_csv(tmp_path / "c.csv", rows), seed=0)
    assert list(references_of(table, "train").items()) == [("b.jpg", ["one", "three"]), ("a.jpg", ["two"])]
    with pytest.raises(
        UserError, match=r"'test' \(there are: train, val\)\. Assign images to test in a column 'split'"
    ):
        references_of(table, "test")
    with pytest.raises(UserError, match="there are no captions in the captions file"):
        references_of(table.iloc[:0], "test")


def test_a_file_without_splits_can_stay_undivided(tmp_path: Path) -> None:
    rows = [(f"{number}.jpg", "a dog") for number in range(30)]
    path = write_csv(tmp_path / "c.csv", rows, header=("image", "caption"))
    assert set(read_captions(path, seed=None)["split"]) == {"all"}
    assert set(read_captions(path, seed=0)["split"]) == {"train", "val", "test"}
    assert set(read_captions(write_csv(path, [(*row, "val") for row in rows]), seed=None)["split"]) == {"val"}


def test_the_seed_of_the_splits_must_be_given() -> None:
    """With a default, a caller that forgets the seed of a run would evaluate on its training images."""
    assert inspect.signature(read_captions).parameters["seed"].default is inspect.Parameter.empty


def test_captions_that_mention_left_or_right_are_found() -> None:
    references = {
        "a.png": ["a dog", "it looks to the Left."],
        "b.png": ["a bright light leftover"],
        "c.png": ["the left-hand side"],
        "d.png": ["一只狗在猫的左边"],
        "e.png": ["สุนัขอยู่ทางขวา"],
        "f.png": ["一只狗在猫的上面"],
    }
    assert find_left_right(references) == {"a.png", "c.png", "d.png", "e.png"}


@pytest.mark.parametrize(
    ("media", "learned_from"),
    [
        (["drawing", "drawing", "photograph"], "drawings"),  # the last one is not for training
        (["Drawing", " DRAWING ", ""], "drawings"),
        (["drawing", "", "drawing"], "photographs"),
        (["oil on canvas", "oil on canvas", "drawing"], "photographs"),
        (None, "photographs"),
    ],
)
def test_the_column_medium_tells_what_a_model_learns_from(
    tmp_path: Path, media: list[str] | None, learned_from: str
) -> None:
    rows = [("a.jpg", "a dog", "train"), ("b.jpg", "a cat", "train"), ("c.jpg", "a bird", "val")]
    plain = write_csv(tmp_path / "plain.csv", list[tuple[str, ...]](rows))
    path = plain
    if media:
        header = ("image", "caption", "split", "medium")
        path = write_csv(tmp_path / "c.csv", [(*row, medium) for row, medium in zip(rows, media, strict=True)], header)
    table, found = read_training_data(path, seed=0)
    assert found == learned_from
    for same in (table, read_captions(path, seed=0)):  # the column changes neither the table nor its fingerprint
        pd.testing.assert_frame_equal(same, read_captions(plain, seed=0))


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0" + bytes(9), b"PK\x03\x04" + bytes(9)])
def test_an_image_or_a_spreadsheet_is_no_captions_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="an image, a spreadsheet or another file that is not text"):
        read(tmp_path, content)
