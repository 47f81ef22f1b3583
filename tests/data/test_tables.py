"""data/tables.py: which columns are used, lists in cells, images in cells, and what is refused."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from cli import UserError, run_script
from data import tables
from data.annotations import Annotations
from data.prepare import main
from data.tables import Columns, parse_table
from tests.support.archives import names_in

USUAL = Columns()


def parse(folder: Path, content: str | bytes, name: str = "mine.csv", columns: Columns = USUAL) -> Annotations:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return parse_table(path, columns, folder)


@pytest.mark.parametrize(
    "content",
    [
        "image,caption\na.jpg,A dog\n",
        "text,id,file_name\nA dog,7,a.jpg\n",
        "filename|sentids|RAW\na.jpg|1|A dog\n",
        "image_id,image,caption,text\n7,a.jpg,A dog,no\n",
        "image_path;description\r\n a.jpg ; A dog \r\n",
        "a.jpg\tA dog\n",
        "a.jpg#0\tA dog\n",
        '\ufeffimage\tcaption\na.jpg\t"A dog"\n',
        '[{"image": "a.jpg", "caption": "A dog", "id": 7}]',
        '{"image": "a.jpg", "caption": "A dog"}\n\n',
        '{"image": {"path": "a.jpg", "bytes": null}, "sentences": ["A dog"]}',
        '{"image": "a.jpg", "sentences": [{"raw": "A dog", "tokens": ["a", "dog"]}]}',
    ],
)
def test_the_columns_are_known_by_their_names(tmp_path: Path, content: str) -> None:
    assert parse(tmp_path, content).captions == [("a.jpg", "A dog")]


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ('["A dog.", " It runs. "]', ["A dog.", "It runs."]),
        ("['A dog.', \"It's fast.\"]", ["A dog.", "It's fast."]),
        ("[sic] a dog", ["[sic] a dog"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[]", []),
        ("", [""]),
    ],
)
def test_a_list_in_a_cell_is_several_captions(tmp_path: Path, cell: str, captions: list[str]) -> None:
    table = pd.DataFrame({"image": ["photos\\a.jpg"], "caption": [cell]})
    found = parse(tmp_path, table.to_csv(sep="\t"))
    assert found.captions == [("photos/a.jpg", caption) for caption in captions]


def test_several_columns_are_several_captions_of_an_image(tmp_path: Path) -> None:
    content = "Photo;one;two;Part\na.jpg;A dog;It runs;Train\nb.jpg;A cat;;VALIDATION\n"
    found = parse(tmp_path, content, columns=Columns("photo", ["one", "two"], "part"))
    assert found.captions == [("a.jpg", "A dog"), ("a.jpg", "It runs"), ("b.jpg", "A cat"), ("b.jpg", "")]
    assert found.splits == {"a.jpg": "train", "b.jpg": "val"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty. The first line must name the columns"),
        ("a.jpg,A dog\n", "its first line must name the columns, such as image,caption"),
        (
            "Foto;Titel\na.jpg;A dog\n",
            r"cannot tell which column holds the image \(there are: Foto, Titel\)\. Add to the command: "
            r"--image_column COLUMN --caption_column COLUMN$",
        ),
        ("image;Titel\na.jpg;A dog\n", r"the caption .*\. Add to the command: --caption_column COLUMN$"),
        ("image;caption\na.jpg;A dog\nb.jpg;A cat;x\n", "row 3: 3 cells, but the header has 2"),
        ("image;caption;split\na.jpg;A dog;4\n", "row 2: split '4' must be one of train, val, test"),
        (
            "image;caption;split\na.jpg;A dog;train\na.jpg;A dog;test\n",
            "row 3: a.jpg is in test here, but in train elsewhere",
        ),
        ("image;caption\na.jpg;caf\u00e9\n".encode("latin-1"), "row 2: not UTF-8"),
        ("image;caption\na.jpg;A dog\n".encode("utf-16"), r"text in UTF-16, not UTF-8\. Save the file as UTF-8"),
        ('{"image": "a.jpg", "caption": "A dog"}\n{"image"\n', "line 2: not JSON"),
        ('{"image": "a.jpg", "caption": "A dog"}\n[]\n', "entry 2: must be an object"),
        ('[{"image": "a.jpg"', "not JSON"),
        ('{"image": "a.jpg", "caption": [{"en": "A dog"}]}', "row 1: caption: no caption in an object with en"),
        ("image,image,caption,caption\na,b,c,d\n", "2 columns named 'image'. Rename all but one"),
        ("image,caption,caption\na,b,c\n", "2 columns named 'caption'"),
        ("[]", "cannot tell which column holds the image"),
        ('{"images": [], "annotations": []}', r"COCO captions \(JSON\), not a table. Run: python -m data.prepare coco"),
        ('{"a.jpg": ["A dog"]}', r'the names of the images as its keys\. Write a list \[{"image": "a.jpg", "captions"'),
        ('{\n "a.jpg": [\n', "the names of the images as its keys"),
        (b"PAR1 but no more", "not a readable Parquet file"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(tmp_path, content)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    for columns in (Columns("photo"), Columns(captions=["photo"]), Columns(split="photo")):
        with pytest.raises(UserError, match=r"no columns named 'photo' \(there are: image, caption\)"):
            parse(tmp_path, "image,caption\na.jpg,A dog\n", columns=columns)
    with pytest.raises(UserError, match="2 columns named 'caption'"):
        parse(tmp_path, "image,caption,caption\na.jpg,A dog,b\n", columns=Columns(captions=["caption"]))


def test_parquet_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(sys, "argv", ["data.prepare", "table", str(tmp_path / "mine.parquet")])
    with pytest.raises(SystemExit):
        run_script(main)
    error = capsys.readouterr().err
    assert error.startswith("error: pyarrow is not installed in ") and error.count("\n") == 1


def test_images_in_a_parquet_file_are_saved_once(tmp_path: Path) -> None:
    images = [{"bytes": data, "path": path} for data, path in [(b"one", "a.jpg"), (b"two", "b/a.jpg")]]
    images += [{"bytes": b"\x89PNG...", "path": None}, {"bytes": b"\xff\xd8", "path": None}]
    pd.DataFrame({"image": images, "text": list("1234")}).to_parquet(tmp_path / "x.parquet")
    names = ["a.jpg", "000002_a.jpg", "000003.png", "000004.jpg"]
    for _ in range(2):
        found = parse_table(tmp_path / "x.parquet", Columns(), tmp_path)
        assert found.captions == [(f"x/{name}", text) for name, text in zip(names, "1234", strict=True)]
    assert names_in(tmp_path / "x") == sorted(names)
    before = (tmp_path / "x" / "a.jpg").stat().st_ino
    (tmp_path / "x" / "000003.png").unlink()
    parse_table(tmp_path / "x.parquet", Columns(), tmp_path)
    assert (tmp_path / "x" / "a.jpg").stat().st_ino == before
    assert (tmp_path / "x" / "000003.png").read_bytes() == b"\x89PNG..."


def with_images(path: Path, images: dict[str, bytes]) -> Path:
    """A Parquet file with images by their names, and the names as captions."""
    path.parent.mkdir(exist_ok=True)
    cells = [{"bytes": data, "path": name} for name, data in images.items()]
    pd.DataFrame({"image": cells, "text": list(images)}).to_parquet(path)
    return path


def test_images_in_a_parquet_file_replace_no_file(tmp_path: Path) -> None:
    path = with_images(tmp_path / "photos.parquet", {"dog.jpg": b"theirs"})
    own = tmp_path / "photos" / "dog.jpg"
    own.parent.mkdir()
    own.write_bytes(b"mine!!")  # of the same size
    with pytest.raises(UserError, match=r"photos\.parquet: row 1: its image would replace .*dog\.jpg, .*--image_dir"):
        parse_table(path, Columns(), tmp_path)
    assert own.read_bytes() == b"mine!!"


def test_parquet_files_of_one_name_keep_their_images_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        path = with_images(tmp_path / split / "0000.parquet", {"1.jpg": split.encode(), "1.JPG": b"other"})
        names = [f"{split}/0000/1.jpg", f"{split}/0000/000002_1.JPG"]
        assert [name for name, _ in parse_table(path, Columns(), tmp_path).captions] == names
    assert (tmp_path / "train" / "0000" / "1.jpg").read_bytes() == b"train"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert parse_table(path, Columns(), elsewhere).captions[0][0] == "0000/1.jpg"
    with pytest.raises(UserError, match="would replace"):
        parse_table(tmp_path / "train" / "0000.parquet", Columns(), elsewhere)


def test_numbers_and_missing_values_are_text(tmp_path: Path) -> None:
    lines = [{"image": 7, "caption": None}, {"image": 8, "caption": 9}, {"image": 9}]
    found = parse(tmp_path, "\n".join(map(json.dumps, lines)))
    assert found.captions == [("7", ""), ("8", "9"), ("9", "")]


def test_a_parquet_file_beyond_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    pd.DataFrame({"image": ["a.jpg"] * 3, "caption": ["A dog"] * 3}).to_parquet(path)
    for limit in ("MAX_ROWS", "MAX_PARQUET_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(tables, limit, 2)
            with pytest.raises(UserError, match=r"a\.parquet: more than .* rows, or .* MB unpacked"):
                parse_table(path, USUAL, tmp_path)
