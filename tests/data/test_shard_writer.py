"""data.prepare shards: tars of bounded size, which can be resumed and trained on."""

import tarfile
from pathlib import Path

import pytest

from cli import UserError
from data.bad_images import check_image_dir
from data.captions import read_captions
from data.file_records import FileRecords
from data.images import load_image
from data.prepare import main
from data.shards import find_shards, open_shard
from tests.support.helpers import write_csv
from tests.support.shards import jpeg, write_tar

ROWS = [
    ("b/3.jpg", "first of three", "train"),
    ("1.JPG", "one, with a comma", "train"),
    ("b/3.jpg", "second  of three", "train"),
    ("2.png", "two", "val"),
    ("gone.jpg", "none", "test"),
    ("4.svg", "four", "test"),
]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of about 800 bytes, and their captions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "b").mkdir(parents=True)
    for number, name in enumerate(("b/3.jpg", "1.JPG", "2.png", "4.svg")):
        (tmp_path / "photos" / name).write_bytes(jpeg(size=(40 + number, 30)))
    write_csv(tmp_path / "captions.csv", ROWS)


def prepare(*words: str) -> None:
    main(["shards", "captions.csv", "--image_dir=photos", "--output=out", *words])


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images fit into a tar."""
    monkeypatch.setattr("data.shard_writer.MB", 850)


def test_images_and_captions_are_written(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    prepare("--shard_mb=2")
    output = capfd.readouterr()
    assert "Wrote 3 images into 2 tars in out\n" in output.out
    assert "--captions_file out --image_dir out" in output.out
    assert "left out: photos/gone.jpg: no such file\nleft out: photos/4.svg: not the suffix of an image\n" in output.err
    first, second = find_shards(Path("out"))
    assert list(open_shard(first).images) == ["000000000.jpg", "000000001.jpg"]
    assert list(open_shard(second).images) == ["000000002.png"]
    assert load_image(first / "000000001.jpg").size == (41, 30)
    table = read_captions("out", None)
    assert table.to_numpy().tolist() == [
        ["00000.tar/000000000.jpg", "first of three", "train"],
        ["00000.tar/000000000.jpg", "second of three", "train"],
        ["00000.tar/000000001.jpg", "one, with a comma", "train"],
        ["00001.tar/000000002.png", "two", "val"],
    ]
    assert read_captions(first, None)["image"].tolist()[0] == "000000000.jpg"
    check_image_dir("out")
    check_image_dir(first)


def test_run_again_writes_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    prepare("--shard_mb=2")
    first, second = find_shards(Path("out"))
    content, state = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    prepare("--shard_mb=2")
    assert second.read_bytes() == content
    assert first.stat().st_mtime_ns == state


@pytest.mark.parametrize("what", ["captions", "image", "sizes"])
def test_tars_of_other_content_are_kept(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    prepare("--shard_mb=2")
    if what == "captions":
        write_csv(tmp_path / "captions.csv", [("b/3.jpg", "another", "train"), *ROWS[1:]])
    elif what == "image":
        (tmp_path / "photos" / "b" / "3.jpg").write_bytes(jpeg(size=(90, 90)))
    with pytest.raises(UserError, match=r"out/0000\d\.tar: (exists and has other content|is left of other data)"):
        prepare("--shard_mb=4" if what == "sizes" else "--shard_mb=2")


def test_no_image_at_all_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "captions.csv", [("x.jpg", "a", "train")])
    with pytest.raises(UserError, match=r"--image_dir photos: none of the images can be read \(photos/x.jpg: no such"):
        prepare()
    assert not list((tmp_path / "out").iterdir())


def test_captions_in_tars_of_others() -> None:
    Path("web").mkdir()
    write_tar(Path("web/0.tar"), {"a.jpg": jpeg(), "a.txt": "one", "b.jpg": jpeg()})
    assert set(read_captions("web", 0)["split"]) <= {"train", "val", "test"}  # divided by name
    write_tar(Path("web/1.tar"), {"a.jpg": jpeg(), "a.json": {"caption": "two", "split": "val"}})
    with pytest.raises(UserError, match="web: row 1: split '' must be one of train, val, test"):
        read_captions("web", 0)
    write_tar(Path("bare.tar"), {"a.jpg": jpeg()})
    with pytest.raises(UserError, match=r"bare.tar: no captions in the tars. Name a CSV"):
        read_captions("bare.tar", 0)


def test_what_is_known_of_an_image_in_a_tar_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.file_records.SETTLED", 0)
    tar = write_tar(Path("x.tar"), {"a.jpg": jpeg(), "b.jpg": jpeg()})
    for name in ("a.jpg", "b.jpg", "gone.jpg"):
        records = FileRecords(Path("records.json"))
        assert records.recall(tar / name) is None
        records.remember(tar / name, name)
        records.save()
    records = FileRecords(Path("records.json"))
    assert [records.recall(tar / name) for name in ("a.jpg", "b.jpg", "gone.jpg")] == ["a.jpg", "b.jpg", None]
    with tarfile.open(tar, "a") as file:
        file.add("captions.csv")
    assert records.recall(tar / "a.jpg") is None
