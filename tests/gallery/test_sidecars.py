"""gallery/sidecars.py: files beside the photos are added, never changed, unless they hold a caption of ours."""

import os
from pathlib import Path

import pytest

from gallery.formats import sidecar_text
from gallery.sidecars import write_sidecar


@pytest.mark.parametrize("kind", ["txt", "xmp"])
def test_a_sidecar_is_written_once_and_replaced_only_if_it_holds_an_earlier_caption(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"dog.{kind}"
    for _ in range(2):
        assert write_sidecar(path, "a dog & co", kind)
        assert path.read_text("utf-8") == sidecar_text("a dog & co", kind) and len(list(tmp_path.iterdir())) == 1
    assert not write_sidecar(path, "a cat", kind, ["a cow"])
    assert path.read_text("utf-8") == sidecar_text("a dog & co", kind)
    assert write_sidecar(path, "a cat", kind, ["a cow", "a dog & co"])
    assert path.read_text("utf-8") == sidecar_text("a cat", kind)


def test_a_file_that_holds_something_else_is_kept_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    edits, text = tmp_path / "dog.jpg.xmp", tmp_path / "dog.txt"
    edits.write_bytes(b"<edits of darktable/>")
    text.touch()  # by a run that was killed
    assert not write_sidecar(edits, "a dog", "xmp") and write_sidecar(text, "a dog", "txt")
    assert edits.read_bytes() == b"<edits of darktable/>" and text.read_text() == "a dog\n"


def test_a_run_that_is_stopped_while_it_writes_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dog.txt"
    write_sidecar(path, "a dog", "txt")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        write_sidecar(path, "a cat", "txt", ["a dog"])
    assert path.read_text() == "a dog\n" and write_sidecar(path, "a cat", "txt", ["a dog"])
