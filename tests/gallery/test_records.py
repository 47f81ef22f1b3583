"""gallery/records.py: what was captioned survives a killed run, and only the gallery's own files are removed."""

import json
import os
from pathlib import Path

import pytest
import torch

from cli import UserError
from gallery import heatmap
from gallery.page import Entry
from gallery.records import RECORDS, WHOLE_GALLERY, Records, captioner_identity, photo_key

ATTENTION = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.97, 0.01, 0.02, 0.0, 0.25, 0.25, 0.25, 0.25]).reshape(3, 1, 4)
ENTRY = Entry(
    "d\u00f6g.jpg", [("a dog runs", -1.5), ("a\u2028dog", -2.25)], ["a reference"], "dog.jpg", 64, 48, ATTENTION
)


def write(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")


def test_captions_are_recalled_as_they_were_with_attention_in_bytes(tmp_path: Path) -> None:
    records = Records(tmp_path / "new")
    assert records.recall("key") is None and not (tmp_path / "new").exists()
    records.add("key", ["dog.jpg"], ENTRY)
    records.add("plain", ["cat.jpg"], Entry("cat.jpg", [("", -1.0)]))
    for found in (records.recall("key"), Records(tmp_path / "new").recall("key")):
        assert found is not None and found.attention is not None
        assert (found.name, found.candidates, found.width, found.height) == (ENTRY.name, ENTRY.candidates, 64, 48)
        assert heatmap.encode(found.attention) == heatmap.encode(ATTENTION) and found.attention.shape == (3, 1, 4)
        assert found.references == []  # they come from the captions file
    plain = Records(tmp_path / "new").recall("plain")
    assert plain is not None and plain.attention is None


def test_a_line_is_on_disk_before_the_files_that_it_owns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / RECORDS).read_bytes()))
    Records(tmp_path).add("key", ["dog.jpg"], ENTRY)
    assert synced == [(tmp_path / RECORDS).read_bytes()]


def test_torn_and_damaged_lines_are_ignored(tmp_path: Path) -> None:
    Records(tmp_path).add("one", ["1.jpg"], ENTRY)
    path = tmp_path / RECORDS
    whole = path.read_bytes()
    path.write_bytes(whole + b'[1]\n{"key": 3}\n{"key": "damaged", "files": []}\n\xff\n' + whole[: len(whole) // 2])
    records = Records(tmp_path)
    assert records.recall("one") is not None and records.recall("damaged") is None
    records.add("two", ["2.jpg"], ENTRY)
    assert all(line.endswith(b"}") or b"\xff" in line or line == b"[1]" for line in path.read_bytes().split(b"\n")[:-1])
    assert Records(tmp_path).recall("two") is not None


def test_a_file_belongs_to_the_last_image_it_was_written_for(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.add("one", ["dog.jpg", "pictures/dog.jpg"], ENTRY)
    assert not records.has("one", ["dog.jpg"])  # killed before it was written
    write(tmp_path, "dog.jpg", "pictures/dog.jpg", "mine.jpg")
    assert Records(tmp_path).has("one", ["dog.jpg", "pictures/dog.jpg"]) and not records.has("one", ["mine.jpg"])
    assert records.owns("dog.jpg") and not records.owns("mine.jpg")
    records.add("two", ["dog.jpg"], ENTRY)
    assert not (tmp_path / "dog.jpg").exists()  # it showed the other image
    write(tmp_path, "dog.jpg")
    assert Records(tmp_path).has("two", ["dog.jpg"]) and not Records(tmp_path).has("one", ["dog.jpg"])


def test_a_finished_gallery_replaces_the_one_before_but_not_the_users_files(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for key in ("one", "two"):
        records.add(key, [f"{key}.jpg", f"attention/{key}.jpg"], ENTRY)
        write(tmp_path, f"{key}.jpg", f"attention/{key}.jpg", f"mine {key}.jpg")
    records.add(WHOLE_GALLERY, ["page.html", "captions.csv", "cards/0123456789abcdef.js", "app.js"])  # somebody's
    write(tmp_path, "app.js")
    write(tmp_path, "page.html", "captions.csv", "cards/0123456789abcdef.js", ".mine.txt.17.tmp")
    assert records.finish(["one.jpg", "two.jpg", "attention/two.jpg", "page.html", "captions.csv"]) == 1
    records = Records(tmp_path)
    records.add("three", ["three.jpg"], ENTRY)
    write(tmp_path, "three.jpg")
    records.add(WHOLE_GALLERY, ["page.html"])
    assert records.finish(["three.jpg", "page.html"]) == 3  # JPGs; cards/ is gone too
    left = {
        "app.js",
        "three.jpg",
        "page.html",
        "captions.csv",
        "mine one.jpg",
        "mine two.jpg",
        ".mine.txt.17.tmp",
        RECORDS,
    }
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == left
    lines = map(json.loads, (tmp_path / RECORDS).read_text("utf-8").splitlines())
    assert {line["key"]: line["files"] for line in lines} == {
        **{"one": [], "two": [], "three": ["three.jpg"]},
        WHOLE_GALLERY: ["page.html", "app.js", "captions.csv"],
    }


def test_a_run_that_is_killed_while_it_removes_files_still_owns_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, unlink = Records(tmp_path), Path.unlink
    for file in ("one.jpg", "two.jpg"):
        records.add(file, [file], ENTRY)
        write(tmp_path, file)

    def killed(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == "two.jpg":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        records.finish([])
    assert Records(tmp_path).owns("two.jpg") and Records(tmp_path).finish([]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {RECORDS}


def test_the_captions_of_a_gallery_outlive_another_gallery(tmp_path: Path) -> None:
    for key, file in ("stopped", "dog.jpg"), ("finished", "cat.jpg"):
        records = Records(tmp_path)
        records.add(key, [file], ENTRY)
        write(tmp_path, file)
    records.finish(["cat.jpg"])
    other = Records(tmp_path)
    other.add("other", ["dog.jpg"], ENTRY)
    write(tmp_path, "dog.jpg")
    other.add(WHOLE_GALLERY, ["page.html"])
    other.finish(["dog.jpg", "page.html"])
    again = Records(tmp_path)
    assert again.recall("stopped") is not None and not again.has("stopped", ["dog.jpg"])
    assert again.recall("finished") is not None and not again.has("finished", ["cat.jpg"])
    assert again.has("other", ["dog.jpg"])


def test_recorded_paths_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    write(tmp_path, "mine.jpg", "gallery/sub/mine.jpg", "gallery/pictures/old.jpg")
    files = [
        "../mine.jpg",
        str(tmp_path / "mine.jpg"),
        "pictures/../../mine.jpg",
        "sub/mine.jpg",
        "..",
        "pictures/old.jpg",
    ]
    (folder / RECORDS).write_text(json.dumps({"key": "hostile", "files": files}) + "\n")
    records = Records(folder)
    records.add(WHOLE_GALLERY, [])
    assert records.finish([]) == 1
    assert (tmp_path / "mine.jpg").exists() and (folder / "sub" / "mine.jpg").exists()


def test_a_changed_image_checkpoint_or_beam_size_has_another_key(tmp_path: Path) -> None:
    photo, checkpoint = tmp_path / "a.jpg", tmp_path / "c.pth"
    write(tmp_path, "a.jpg", "c.pth")
    identities = [
        captioner_identity(checkpoint, beam, precision, reranks=reranks)
        for beam, reranks in ((1, False), (2, False), (2, True))
        for precision in (torch.float32, torch.bfloat16)
    ]
    checkpoint.write_bytes(b"y")
    identities.append(captioner_identity(checkpoint, 2, torch.float32, reranks=False))
    keys = [photo_key(photo, identity) for identity in identities]
    assert photo_key(photo, identities[2]) == keys[2]
    photo.write_bytes(b"xx")
    keys.append(photo_key(photo, identities[2]))
    os.utime(photo, (1, 1))
    keys.append(photo_key(photo, identities[2]))
    assert len(set(keys)) == 9 and all(str(tmp_path) not in key for key in keys)


def test_an_edited_table_or_sidecar_is_kept_and_any_other_is_replaced(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for key, caption in ("one", "a dog\n"), ("two", "a cat\n"):
        records.add(key, ["dog.jpg"], ENTRY, {"dog.txt": caption})
        assert records.covers(key, {"dog.txt": caption}) and records.write_text("dog.txt", caption)
        assert (tmp_path / "dog.txt").read_text() == caption
        records = Records(tmp_path)
    (tmp_path / "dog.txt").write_text("a fox\n")
    records.add("one", ["dog.jpg"], ENTRY, {"dog.txt": "a dog\n"})
    assert (tmp_path / "dog.txt").read_text() == "a fox\n" and not records.write_text("dog.txt", "a dog\n")
    records.finish(["dog.jpg", "dog.txt"])
    records = Records(tmp_path)
    assert records.covers("one", {"dog.txt": "a dog\n"}) and not records.write_text("dog.txt", "a dog\n")
    assert (tmp_path / "dog.txt").read_text() == "a fox\n"
    for nothing in (Path.touch, Path.unlink):  # as a power cut or the user may leave it
        (tmp_path / "dog.txt").unlink()
        (tmp_path / "dog.txt").touch()
        nothing(tmp_path / "dog.txt")
        assert records.write_text("dog.txt", "a dog\n") and (tmp_path / "dog.txt").read_text() == "a dog\n"
    (tmp_path / "dog.txt").unlink()
    (tmp_path / "dog.txt").mkdir()
    assert not records.write_text("dog.txt", "a dog\n")


DEEP = "[" * 200_000
HOSTILE_LINES = [
    DEEP,
    '{"key": "a", "files": ' + DEEP,
    '{"key": "a", "files": ["x.jpg"], "digests": 3}',
    '{"key": "a", "files": 3}',
    '{"key": {"a": []}, "files": [[]], "image": 3, "caption": {}}',
    '{"key": "a", "files": ["' + "x" * 2_000_000 + '.jpg"]}',
    '{"key": "a", "files": ["' + "x" * 300 + '.jpg", "a\\u0000.jpg", "\\ud800.jpg"]}',
    '{"key": "a", "files": [], "width": ' + "9" * 5000 + "}",
    '"key"',
    "null",
    "\0" * 5000,
    '{"key": "a", "fi',
]


def test_hostile_lines_count_as_absent(tmp_path: Path) -> None:
    Records(tmp_path).add("good", ["dog.jpg"], ENTRY)
    good = (tmp_path / RECORDS).read_text()
    (tmp_path / RECORDS).write_text("\n".join([*HOSTILE_LINES[:-1], good.strip(), HOSTILE_LINES[-1]]), "utf-8")
    records = Records(tmp_path)
    assert records.recall("good") is not None and records.owns("dog.jpg") and not records.owns("x.jpg")
    records.add("more", ["cat.jpg"], ENTRY)
    assert records.finish(["dog.jpg", "cat.jpg"]) == 0 and Records(tmp_path).recall("more") is not None


@pytest.mark.parametrize(
    "damage",
    [
        {"candidates": []},
        {"candidates": [{"caption": "a", "log_prob": float("nan")}]},
        {"candidates": "a"},
        {"width": 0},
        {"height": float("inf")},
        {"attention": {"rows": -1, "columns": 4, "weights": "AAAA"}},
        {"attention": {"rows": 10**9, "columns": 4, "weights": "AAAA"}},
        {"attention": {"rows": 1, "columns": 4, "weights": "\u732b"}},
        {"attention": {"rows": 1, "columns": 3, "weights": "AAAA"}},  # a word without attention
        {"attention": [1]},
    ],
)
def test_an_image_whose_record_is_damaged_is_captioned_anew(tmp_path: Path, damage: dict[str, object]) -> None:
    Records(tmp_path).add("key", ["dog.jpg"], ENTRY)
    line = json.loads((tmp_path / RECORDS).read_text())
    (tmp_path / RECORDS).write_text(json.dumps(line | damage) + "\n")
    assert Records(tmp_path).recall("key") is None


def test_links_and_special_files_in_the_folder_are_refused(tmp_path: Path) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "gallery"
    photos.mkdir()
    folder.mkdir()
    for name in (RECORDS, "pictures", "attention", "cards"):
        (folder / name).symlink_to(photos)
        with pytest.raises(UserError, match=rf"{name}: a link, .* another --output_dir"):
            Records(folder)
        (folder / name).unlink()
    os.mkfifo(folder / RECORDS)
    with pytest.raises(UserError, match="not a file of at most 256 MB"):
        Records(folder)
    (folder / RECORDS).unlink()
    with (folder / RECORDS).open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(UserError, match="not a file of at most 256 MB"):
        Records(folder)


def test_a_line_that_cannot_be_written_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path)
    records.add("one", ["1.jpg"], ENTRY)
    before = (tmp_path / RECORDS).read_bytes()

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        records.add("two", ["2.jpg"], ENTRY)
    assert (tmp_path / RECORDS).read_bytes() == before
