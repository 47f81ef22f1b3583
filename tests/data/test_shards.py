"""data.shards: images in tars are read in place, damaged parts of a tar are left out and named."""

import os
import tarfile
from pathlib import Path

import pytest

from cli import UserError
from data import shards
from data.images import ImageError, load_image, open_file
from data.shards import INDEX_FOLDER, Shard, find_shards, open_shard, open_shards, split_path
from tests.support.shards import jpeg, write_tar


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the index is kept in the current folder


def fresh(tar: Path) -> Shard:
    """The index as another process finds it."""
    shards._indexed.cache_clear()
    return open_shard(tar)


def test_an_image_in_a_tar_opens_like_a_file() -> None:
    red, blue = jpeg("red"), jpeg("blue", (20, 50))
    tar = write_tar(Path("00000.tar"), {"a.jpg": red, "a.txt": "A  red\nthing.", "./sub/b.jpg": blue, "c.cls": "7"})
    assert load_image(tar / "sub" / "b.jpg").size == (20, 50)
    assert load_image(f"{tar}/a.jpg").getpixel((5, 5)) == (254, 0, 0)
    with open_file(tar.absolute() / "a.jpg") as file:
        assert file.read() == red
    assert open_shard(tar).captions == {"a.jpg": ["A red thing."]}
    with pytest.raises(ImageError, match=r"00000\.tar/z\.jpg: no such file: 00000\.tar has no such image"):
        load_image(tar / "z.jpg")


def test_other_paths_with_tar_in_them_are_files(tmp_path: Path) -> None:
    folder = tmp_path / "photos.tar"
    folder.mkdir()
    (folder / "a.tar.jpg").write_bytes(jpeg())
    assert load_image(folder / "a.tar.jpg").size == (40, 30)
    assert split_path(folder / "a.tar.jpg") is None


def test_captions_come_from_json_lists_then_text_then_json() -> None:
    members: dict[str, bytes | str | dict[str, object]] = {f"{key}.jpg": jpeg() for key in "abcde"}
    members |= {"a.txt": "text", "a.json": {"caption": "json", "width": 40}}
    members |= {"b.json": {"captions": ["one", " ", "two"], "split": "val"}, "b.txt": "text"}
    members |= {"c.json": {"caption": None}, "d.json": {"caption": "only json"}, "e.json": "{"}
    shard = open_shard(write_tar(Path("x.tar"), members))
    assert shard.captions == {"a.jpg": ["text"], "b.jpg": ["one", "two"], "d.jpg": ["only json"]}
    assert shard.splits == {"b.jpg": "val"}
    assert len(shard.problems) == 1 and shard.problems[0].startswith("e.json (not JSON")


def test_the_index_is_built_once_and_again_when_the_tar_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    tar = write_tar(Path("x.tar"), {"a.jpg": jpeg()})
    first = fresh(tar)
    assert len(list(INDEX_FOLDER.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_scan", lambda *_: pytest.fail("the tar was read again"))
        assert fresh(tar) == first
    write_tar(tar, {"a.jpg": jpeg(size=(10, 10)), "b.jpg": jpeg()})
    assert set(fresh(tar).images) == {"a.jpg", "b.jpg"}
    for file in INDEX_FOLDER.iterdir():
        file.write_text('{"about": 1}')
    assert set(fresh(tar).images) == {"a.jpg", "b.jpg"}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that cannot be written")
def test_without_a_place_for_the_index_it_stays_in_memory(tmp_path: Path) -> None:
    tar = write_tar(Path("x.tar"), {"a.jpg": jpeg()})
    tmp_path.chmod(0o500)
    assert set(fresh(tar).images) == {"a.jpg"}
    tmp_path.chmod(0o700)


def test_damaged_members_are_left_out_and_named(capfd: pytest.CaptureFixture[str]) -> None:
    members = {f"{number}.jpg": jpeg(size=(30 + number, 30)) for number in range(6)}
    whole = write_tar(Path("whole.tar"), members).read_bytes()
    places = open_shard(Path("whole.tar")).images
    header = places["2.jpg"][0] - 512

    damaged = Path("damaged.tar")
    damaged.write_bytes(whole[:header] + b"x" * 50 + whole[header + 50 :])
    Path("cut.tar").write_bytes(whole[: places["4.jpg"][0] + 100])
    Path("short.tar").write_bytes(whole[: places["4.jpg"][0] - 512])
    found = {tar.stem: set(shard.images) for tar, shard in open_shards(find_shards(Path()))}
    every = set(members)
    early = every - {"4.jpg", "5.jpg"}
    assert found == {"cut": early, "damaged": every - {"2.jpg"}, "short": early, "whole": every}
    assert load_image(damaged / "5.jpg").size == (35, 30)
    assert sorted(capfd.readouterr().err.splitlines()) == [
        "cut.tar: left out: 4.jpg (the tar is cut off)",
        f"damaged.tar: left out: what is at byte {header:,} (a damaged header)",
        f"short.tar: left out: what may have followed byte {places['4.jpg'][0] - 512:,} "
        "(the tar has no end mark: it is cut off)",
    ]


def test_a_damaged_header_of_several_blocks_loses_one_image() -> None:
    """A name of more than 100 characters has two headers; tarfile itself stops where the second one is damaged."""
    names = [f"{letter * 120}.jpg" for letter in "abc"]
    tar = write_tar(Path("x.tar"), {name: jpeg() for name in names})
    content = bytearray(tar.read_bytes())
    header = open_shard(tar).images[names[1]][0] - 512
    content[header : header + 20] = b"x" * 20
    tar.write_bytes(content)
    assert set(fresh(tar).images) == {names[0], names[2]}


def test_members_that_are_no_plain_files_of_the_tar_are_left_out() -> None:
    tar = write_tar(Path("x.tar"), {"a.jpg": jpeg(), "../b.jpg": jpeg(), "/c.jpg": jpeg()})
    with tarfile.open(tar, "a") as file:
        link = tarfile.TarInfo("d.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    shard = open_shard(tar)
    assert set(shard.images) == {"a.jpg"}
    reasons = ["../b.jpg (leads out of the tar)", "/c.jpg (leads out of the tar)", "d.jpg (not a plain file)"]
    assert shard.problems == reasons


@pytest.mark.parametrize("content", [b"", b"abc", b"not a tar " * 1000])
def test_what_is_no_tar_is_refused(content: bytes) -> None:
    Path("x.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.tar: not a tar with images \(.*Copy it again"):
        open_shard(Path("x.tar"))


def test_a_header_that_asks_for_gigabytes_is_damaged() -> None:
    tar = write_tar(Path("x.tar"), {"a.jpg": jpeg(), f"{'b' * 120}.jpg": jpeg(), "c.jpg": jpeg()})
    content = bytearray(tar.read_bytes())
    start, size = open_shard(tar).images["a.jpg"]
    header = start + -(-size // 512) * 512  # of the long name
    content[header + 124 : header + 136] = b"\x80" + (2**40).to_bytes(11, "big")
    content[header + 148 : header + 156] = b" " * 8
    content[header + 148 : header + 156] = b"%06o\0 " % sum(content[header : header + 512])
    tar.write_bytes(content)
    assert "a.jpg" in fresh(tar).images


def test_one_hopeless_tar_of_several_is_named_and_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    tars = [write_tar(Path("a.tar"), {"1.jpg": jpeg()}), Path("b.tar"), write_tar(Path("c.tar"), {"1.jpg": jpeg()})]
    tars[1].touch()
    assert [tar.name for tar, _ in open_shards(tars)] == ["a.tar", "c.tar"]
    assert "b.tar: not a tar with images" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"b\.tar"):
        list(open_shards(tars[1:2]))
