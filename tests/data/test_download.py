"""data/download.py: resumable downloads with checksums, and safe extraction of archives."""

import hashlib
import shutil
import socket
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from cli import UserError
from data import download
from data.download import download_all, md5_of, unpack_images
from data.flickr8k import prepare_flickr8k
from tests.support.archives import DATA, TRAIN, Server, image, images_zip, make_zip, names_in, tokens, write

# --- unpacking -------------------------------------------------------------------------------------------------------


def test_unsafe_members_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_MEMBER_BYTES", 1000)
    unsafe = ["/etc/absolute.jpg", "../up.jpg", "in/../../up2.jpg", "..\\up3.jpg", "C:\\up4.jpg"]
    members = dict.fromkeys(unsafe, b"evil") | {
        "good.jpg": image("good"),
        "deep\\folder\\windows.jpg": image("windows"),
        "huge.jpg": bytes(1001),
        "virus.exe": b"MZ",
        "jpg": b"no ending",
        "__MACOSX/._good.jpg": b"resource fork",
        "._other.jpg": b"resource fork",
        "folder.jpg/": b"",
    }
    path = make_zip(tmp_path / "in" / "images.zip", members)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    left_out = unpack_images([path], tmp_path / "out" / "images")
    assert names_in(tmp_path / "out" / "images") == ["good.jpg", "windows.jpg"]
    assert left_out == {
        "archive members with an unsafe path": ["absolute.jpg", "up.jpg", "up2.jpg", "up3.jpg", "up4.jpg", "link.jpg"],
        "files over 0 MB": ["huge.jpg"],
    }
    assert names_in(tmp_path) == ["in", "out"]


def test_a_member_with_a_false_size_is_refused(tmp_path: Path) -> None:
    """A zip bomb that declares few bytes: only those are read, and then the checksum is wrong."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(5_000_000))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<L", 5_000_000), struct.pack("<L", 100)))
    with pytest.raises(UserError, match=r"bomb\.zip: a\.jpg cannot be read"):
        unpack_images([path], tmp_path / "images")
    assert names_in(tmp_path / "images") == []


def test_captions_at_an_unsafe_path_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "text.zip", {"../captions.txt": b"image,caption\na.jpg,A dog .\n"})
    with pytest.raises(
        UserError, match=r"text\.zip/\.\./captions\.txt: refused, like all archive members with an unsafe path"
    ):
        prepare_flickr8k([path], tmp_path / "out")


def test_a_damaged_member_is_named_and_the_rest_kept(tmp_path: Path) -> None:
    path = images_zip(tmp_path / "images.zip", "a.jpg", "b.jpg")
    path.write_bytes(path.read_bytes().replace(image("b.jpg"), image("c.jpg")))
    with pytest.raises(
        UserError, match=r"images\.zip: Flicker8k_Dataset/b\.jpg cannot be read .*Download the archive again"
    ):
        unpack_images([path], tmp_path / "images")
    assert names_in(tmp_path / "images") == ["a.jpg"]


def test_unpacking_again_writes_only_what_is_missing_or_of_another_size(tmp_path: Path) -> None:
    path = images_zip(tmp_path / "images.zip", "a.jpg", "b.jpg", "c.jpg")
    folder = tmp_path / "images"
    unpack_images([path], folder)
    (folder / "b.jpg").unlink()
    (folder / "c.jpg").write_bytes(image("c.jpg")[:100])  # cut short by something else
    before = (folder / "a.jpg").stat()
    unpack_images([path], folder)
    after = (folder / "a.jpg").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert {name: (folder / name).read_bytes() for name in names_in(folder)} == {
        name: image(name) for name in ("a.jpg", "b.jpg", "c.jpg")
    }


def test_of_two_images_with_the_same_name_the_first_is_kept(tmp_path: Path) -> None:
    first = make_zip(tmp_path / "1.zip", {"a.jpg": image("first", 10)})
    second = make_zip(tmp_path / "2.zip", {"a.jpg": image("second", 20)})
    for _ in range(2):
        left_out = unpack_images([first, first, second], tmp_path / "images")
        assert left_out == {"images whose name another image has": ["a.jpg"]}
        assert (tmp_path / "images" / "a.jpg").read_bytes() == image("first", 10)


def test_a_zip_bomb_and_files_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", image("a")[:2] + bytes(5_000_000))
        archive.writestr("text.jpg", b"#!/bin/sh")
        archive.writestr("good.jpg", image("good"))
        archive.writestr("x" * 252 + ".jpg", image("long"))
        archive.writestr("y" * 251 + ".jpg", image("y"))
    assert unpack_images([path], tmp_path / "images") == {
        "archive members that unpack to more than images do": ["bomb.jpg"],
        "files that are no images": ["text.jpg"],
        "images whose name is too long": ["x" * 252 + ".jpg"],
    }
    assert names_in(tmp_path / "images") == ["good.jpg", "y" * 251 + ".jpg"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_archives_are_one_line(tmp_path: Path, method: int) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.jpg", image("abcdefgh", 3000))
    intact = path.read_bytes()
    refused = 0
    for position in range(0, len(intact), 3):
        path.write_bytes(intact[:position] + bytes([intact[position] ^ 0x55]) + intact[position + 1 :])
        try:
            unpack_images([path], tmp_path / str(position))
        except UserError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > 10


def test_room_is_checked_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "images.zip", {name: image(name, 300_000) for name in ("a.jpg", "b.jpg")})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=500_000))
    with pytest.raises(UserError, match=r"images: the images need 0\.6 MB, but the disk has 0\.5 MB left\. Make room"):
        unpack_images([path], tmp_path / "images")
    assert names_in(tmp_path / "images") == []
    write(tmp_path, {"images/a.jpg": image("a.jpg", 300_000)})
    unpack_images([path], tmp_path / "images")
    assert names_in(tmp_path / "images") == ["a.jpg", "b.jpg"]


# --- downloading -----------------------------------------------------------------------------------------------------


MD5 = {"a.zip": hashlib.md5(DATA).hexdigest()}


def test_download_checks_and_keeps(tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    server.files = {"a.zip": DATA}
    for _ in range(2):
        assert download_all(server.url + "/", MD5, tmp_path / "downloads") == [tmp_path / "downloads" / "a.zip"]
    assert (tmp_path / "downloads" / "a.zip").read_bytes() == DATA
    assert server.requests == [("a.zip", None)]  # the second call found it complete
    assert names_in(tmp_path / "downloads") == ["a.zip"]
    assert "a.zip: 100%" in capfd.readouterr().err


@pytest.mark.parametrize("reset", [False, True])
def test_dropped_connections_are_resumed(tmp_path: Path, server: Server, reset: bool) -> None:
    server.files, server.drops, server.reset = {"a.zip": DATA}, [100_000, 0, 50_000], reset
    download_all(server.url, MD5, tmp_path, pause=0.001)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for _, wanted in server.requests[1:] if wanted]
    assert starts == [100_000, 100_000, 150_000]


def test_a_later_run_resumes_the_part(tmp_path: Path, server: Server) -> None:
    server.files, server.drops = {"a.zip": DATA}, [1000] * download.ATTEMPTS
    with pytest.raises(
        UserError, match=r"a\.zip: connection closed at 5,000 of 640,000 bytes, 5 times\. Run the same command again"
    ):
        download_all(server.url, MD5, tmp_path, pause=0.001)
    assert names_in(tmp_path) == ["a.zip.part"]
    download_all(server.url, MD5, tmp_path)
    assert server.requests[-1] == ("a.zip", "bytes=5000-")
    assert names_in(tmp_path) == ["a.zip"]


def test_redirects_are_resumed_too(tmp_path: Path, server: Server) -> None:
    """GitHub redirects every release download."""
    server.files, server.drops = {"a.zip": DATA}, [100_000]
    download_all(f"{server.url}/moved", MD5, tmp_path, pause=0.001)
    assert [wanted for name, wanted in server.requests if name == "a.zip"] == [None, "bytes=100000-"]


def test_a_server_without_range_starts_again(tmp_path: Path, server: Server) -> None:
    server.files, server.ranges, server.drops = {"a.zip": DATA}, False, [100_000]
    download_all(server.url, MD5, tmp_path, pause=0.001)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_complete_part_is_used(tmp_path: Path, server: Server) -> None:
    """Interrupted between the last byte and the renaming: the server answers 416 Range Not Satisfiable."""
    server.files = {"a.zip": DATA}
    write(tmp_path, {"a.zip.part": DATA})
    download_all(server.url, MD5, tmp_path)
    assert (names_in(tmp_path), server.requests) == (["a.zip"], [("a.zip", f"bytes={len(DATA)}-")])


def test_wrong_md5_removes_the_part(tmp_path: Path, server: Server) -> None:
    server.files = {"a.zip": DATA}
    write(tmp_path, {"a.zip.part": b"left by another file"})
    with pytest.raises(UserError, match=rf"a\.zip: wrong md5 .*expected {MD5['a.zip']}.* removed"):
        download_all(server.url, MD5, tmp_path)
    assert names_in(tmp_path) == []
    download_all(server.url, MD5, tmp_path)
    assert md5_of(tmp_path / "a.zip") == MD5["a.zip"]


def test_a_file_of_the_user_is_not_replaced(tmp_path: Path, server: Server) -> None:
    server.files = {"a.zip": DATA}
    write(tmp_path, {"a.zip": b"mine"})
    with pytest.raises(UserError, match=r"a\.zip: not the expected file .*Delete it"):
        download_all(server.url, MD5, tmp_path)
    assert ((tmp_path / "a.zip").read_bytes(), server.requests) == (b"mine", [])


def test_busy_servers_are_retried_and_refusals_are_not(tmp_path: Path, server: Server) -> None:
    server.files, server.statuses = {"a.zip": DATA}, [503, 429]
    download_all(server.url, MD5, tmp_path, pause=0.001)
    assert len(server.requests) == 3
    with pytest.raises(UserError, match=r"b\.zip: HTTP 404 .*--base_url.*--source"):
        download_all(server.url, {"b.zip": "0" * 32}, tmp_path)
    assert len(server.requests) == 4
    with pytest.raises(UserError, match="must start with http"):
        download_all("file:///etc", {"passwd": "0" * 32}, tmp_path)


def test_no_network_is_reported(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(UserError, match=r"a\.zip: no connection \(.*refused\).*--source"):
        download_all(url, MD5, tmp_path, pause=0.001)


def test_downloaded_archives_become_the_csv(tmp_path: Path, server: Server) -> None:
    """All of `data.prepare flickr8k` without --source, with small archives."""
    images = images_zip(tmp_path / "i.zip", "a.jpg").read_bytes()
    text = make_zip(
        tmp_path / "t.zip", {"Flickr8k.token.txt": tokens("a.jpg").encode(), TRAIN: b"a.jpg\n"}
    ).read_bytes()
    server.files = {"Flickr8k_text.zip": text, "Flickr8k_Dataset.zip": images}
    md5s = {name: hashlib.md5(data).hexdigest() for name, data in server.files.items()}
    prepared = prepare_flickr8k(download_all(server.url, md5s, tmp_path / "out" / "downloads"), tmp_path / "out")
    assert (len(prepared.rows), names_in(tmp_path / "out")) == (5, ["captions.csv", "downloads", "images"])
