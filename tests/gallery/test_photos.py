"""gallery/photos.py: which files are photos, what they are called, and what is said about the others."""

from collections import Counter
from pathlib import Path

import pytest

from cli import UserError
from data import images
from gallery.photos import describe, find_photos, sidecar_path, sidecar_paths

OUT = Path("outputs")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(*arguments: str | Path) -> list[str]:
    return [photo.name for photo in find_photos([*map(str, arguments)], OUT)[0]]


def test_folders_are_searched_for_all_photo_formats_and_other_files_are_counted_by_kind(tmp_path: Path) -> None:
    photos = [
        "a.avif",
        "b.JPG",
        "c.jfif",
        "d.jpe",
        "deep/er/e.jp2",
        "deep/f.webp",
        "g.mpo",
        "h.tiff",
        "i.gif",
        "j.apng",
    ]
    others = [".DS_Store", "Thumbs.db", "logo.svg", "manual.pdf", "raw.cr2", "x/raw.CR2", "no_suffix", "film.mpg"]
    touch(tmp_path / "2026", *photos, *others, "._a.jpg", "x/._e.jp2", "a.txt", "b.JPG.xmp", "notes.txt")
    (tmp_path / "2026" / "folder.jpg").mkdir()
    (tmp_path / "2026" / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "2026" / "linked").symlink_to(tmp_path)
    found, passed_over = find_photos([str(tmp_path / "2026")], OUT)
    assert [photo.name for photo in found] == sorted(f"2026/{name}" for name in photos)
    assert all(photo.path.samefile(tmp_path / photo.name) and photo.references == [] for photo in found)
    assert passed_over == {
        **dict.fromkeys([".DS_Store", ".db", ".svg", ".pdf", ".mpg", ".txt", "without suffix"], 1),
        ".cr2": 2,
        "broken link": 1,
        "linked folder": 1,
    }


def test_the_line_about_other_files_names_heic_first_and_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe(Counter({".svg": 1})) == "1 other file passed over: 1 .svg"
    line = describe(Counter({".mp4": 3, ".svg": 1, ".heic": 2}))
    assert line == "6 other files passed over: 2 .heic (pip install -r requirements-heic.txt), 3 .mp4, 1 .svg"
    assert describe(Counter({f".{number}": 1 for number in range(30)})).endswith(", 18 of other kinds")


def test_without_pillow_heif_heic_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.HEIC", "b.jpg")
    monkeypatch.setattr(images, "PHOTO_FORMATS", [name for name in images.PHOTO_FORMATS if name != "HEIF"])
    found, passed_over = find_photos([str(tmp_path)], OUT)
    assert [photo.path.name for photo in found] == ["b.jpg"] and passed_over == {".heic": 1}
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"no images found \(1 other file passed over: 1 \.heic \(pip install -r req"):
        find_photos([str(tmp_path)], OUT)


def test_names_are_relative_to_the_argument_and_reveal_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "home/me/Pictures/2026/trip/a.jpg", "home/me/dog.jpg", "home/you/2026/trip/a.jpg", "home/you/b.png")
    home = tmp_path / "home"
    assert names(home / "me/dog.jpg", home / "me/Pictures/2026") == ["dog.jpg", "2026/trip/a.jpg"]
    monkeypatch.chdir(home / "me" / "Pictures" / "2026")
    assert names(".") == ["2026/trip/a.jpg"] and names("trip") == ["trip/a.jpg"]
    assert names("..") == ["Pictures/2026/trip/a.jpg"] and names("trip/a.jpg", "./trip/../trip/a.jpg") == ["a.jpg"]
    assert names("../../dog.jpg", home / "you", ".") == [
        "dog.jpg",
        "you/2026/trip/a.jpg",
        "you/b.png",
        "2026/trip/a.jpg",
    ]
    # only equal names get more folders, and no more than tell them apart
    assert names(".", home / "you/2026", home / "you/b.png") == [
        "Pictures/2026/trip/a.jpg",
        "you/2026/trip/a.jpg",
        "b.png",
    ]


def test_each_file_is_found_once_and_one_named_on_its_own_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.jpg", "notes.txt")
    folder = tmp_path.name
    assert names(tmp_path / "b.jpg", tmp_path) == ["b.jpg", f"{folder}/a.png"]
    assert names(tmp_path / "notes.txt") == ["notes.txt"]


def test_patterns_and_the_home_folder_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.webp", "b.webp", "c.jpg", "x [1].jpg", "deep/er/d.webp")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert names("*.webp") == ["a.webp", "b.webp"]
    assert names("**/*.webp") == ["a.webp", "b.webp", "d.webp"]
    assert names("d*") == ["deep/er/d.webp"]  # a folder
    assert names("~/c.jpg", "x [1].jpg") == ["c.jpg", "x [1].jpg"]  # the second is the name of a file


def test_an_earlier_gallery_inside_a_searched_folder_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "outputs/a.jpg", "outputs/pictures/a.jpg", "sub/outputs/b.jpg")
    found, _ = find_photos([str(tmp_path)], tmp_path / "sub" / ".." / "outputs")
    assert [photo.path.relative_to(tmp_path).as_posix() for photo in found] == ["a.jpg", "sub/outputs/b.jpg"]


def test_an_earlier_gallery_that_the_shell_or_a_pattern_names_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.jpg", "outputs/a.jpg", "outputs/pictures/a.jpg")
    monkeypatch.chdir(tmp_path)
    for arguments in (["a.jpg", "outputs"], ["*"], ["a.jpg", "outputs/pictures/a.jpg"]):
        found, passed_over = find_photos(arguments, OUT)
        assert [photo.name for photo in found] == ["a.jpg"] and passed_over == {"in --output_dir": 1}
    with pytest.raises(UserError, match="all are in --output_dir outputs and might be overwritten"):
        find_photos(["outputs"], OUT)


def test_sidecars_and_other_files_that_a_pattern_matches_are_no_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "dog.jpg", "dog.txt", "dog.jpg.xmp", "notes.txt", "film.mp4", "~b.jpg")
    monkeypatch.chdir(tmp_path)
    found, passed_over = find_photos(["*"], OUT)
    assert [photo.name for photo in found] == ["dog.jpg", "~b.jpg"] and passed_over == {".txt": 1, ".mp4": 1}
    assert names("dog.jpg", "dog.jpg.xmp", "dog.txt", "notes.txt", "~b.jpg") == ["dog.jpg", "notes.txt", "~b.jpg"]
    with pytest.raises(UserError, match=r"no images found \(2 other files passed over: 2 \.txt\)"):
        find_photos(["*.txt"], OUT)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere", "nowhere: no such file or folder$"),
        ("emty/", r"emty/: no such file or folder: did you mean 'empty'\?$"),
        ("*.xyz", r"\*\.xyz: no file or folder matches"),
        ("https://example.com/a.jpg", "https://example.com/a.jpg: a web address. Download the image first"),
        ("lost.jpg", "lost.jpg: a broken link"),
        ("empty", "empty: no images found"),
    ],
)
def test_an_argument_that_selects_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "lost.jpg").symlink_to("gone.jpg")
    with pytest.raises(UserError, match=message):
        find_photos([argument], OUT)


def test_sidecars_have_the_names_that_other_programs_expect() -> None:
    assert sidecar_path(Path("a/my.dog.jpg"), "txt") == Path("a/my.dog.txt")
    assert sidecar_path(Path("a/my.dog.jpg"), "xmp") == Path("a/my.dog.jpg.xmp")


def test_photos_with_the_same_stem_do_not_share_a_sidecar(tmp_path: Path) -> None:
    photos = [tmp_path / name for name in ("IMG_1.HEIC", "img_1.jpg", "b.jpg", "sub/IMG_1.jpg")]
    texts = ["IMG_1.txt", "img_1.jpg.txt", "b.txt", "sub/IMG_1.txt"]
    assert [path.relative_to(tmp_path).as_posix() for path in sidecar_paths(photos, "txt").values()] == texts
    assert [*sidecar_paths(photos, "xmp").values()] == [Path(f"{photo}.xmp") for photo in photos]
    touch(tmp_path, "img_1.jpg", "img_1.jpg.txt", "img_1.txt")
    assert find_photos([str(tmp_path)], OUT)[1] == {}
