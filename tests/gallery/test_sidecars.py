"""gallery/sidecars.py: files beside the photos are added, never changed."""

from pathlib import Path

import pytest

from cli import UserError
from gallery.formats import sidecar_text
from gallery.sidecars import write_beside


def test_sidecars_are_written_beside_the_photo_and_are_left_when_they_hold_the_caption(tmp_path: Path) -> None:
    photo = tmp_path / "dog.jpg"
    photo.write_bytes(b"a photo")
    for _ in range(2):
        assert write_beside(photo, "a dog & co", ["txt", "xmp"]) == []
        assert {path.name for path in tmp_path.iterdir()} == {"dog.jpg", "dog.txt", "dog.jpg.xmp"}
        assert (tmp_path / "dog.txt").read_text("utf-8") == "a dog & co\n"
        assert (tmp_path / "dog.jpg.xmp").read_text("utf-8") == sidecar_text("a dog & co", "xmp")
    assert photo.read_bytes() == b"a photo"


def test_a_file_that_holds_something_else_is_kept_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    edits, text = tmp_path / "dog.jpg.xmp", tmp_path / "dog.txt"
    edits.write_bytes(b"<edits of darktable/>")
    text.touch()  # by a run that was killed
    assert write_beside(tmp_path / "dog.jpg", "a dog", ["txt", "xmp"]) == [edits]
    assert edits.read_bytes() == b"<edits of darktable/>" and text.read_text() == "a dog\n"


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_other_way(tmp_path: Path) -> None:
    (tmp_path / "dog.txt").mkdir()
    with pytest.raises(UserError, match=r"dog\.txt: cannot be written .*Without --in_place"):
        write_beside(tmp_path / "dog.jpg", "a dog", ["txt"])
