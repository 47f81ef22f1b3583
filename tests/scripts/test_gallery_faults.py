"""A gallery that is killed, or meets a full disk, at any point between two writes is continued by the same command."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from cli import UserError
from data.vocab import Vocabulary
from gallery import page as gallery_page
from gallery.photos import Photo
from gallery.records import RECORDS
from gallery.writing import LOCK, PAGE, Report, Target, write_gallery
from models.captioner import Candidate, Captioner

Run = Callable[[], Report]
PHOTOS = 3


class Killed(BaseException):
    """Stands for the end of the process: nothing that comes later changes a file."""


FULL = OSError(errno.ENOSPC, "No space left on device")


class Fault:
    """The ``number``-th change of a file fails, and all later ones: what needs space on a full disk, or all of them."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
        self.left = number
        self.error = error
        patch.setattr(os, "fsync", self._failing(lambda _: None))  # it takes most of the time
        for name in ["open", "mkdir", *(["replace", "unlink", "rmdir"] if isinstance(error, Killed) else [])]:
            patch.setattr(Path, name, self._failing(getattr(Path, name)))

    def _failing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            mode = options.get("mode", [*arguments, "r"][1]) if function.__name__ == "open" else ""
            lock = str(arguments[0]).endswith(LOCK)  # the system releases that of a killed process
            if "r" not in str(mode) and not lock:
                self.left -= 1
                if self.struck:
                    raise self.error
            return function(*arguments, **options)

        return changed

    @property
    def struck(self) -> bool:
        return self.left <= 0


class OneCaption:
    """Captions every image alike, in no time."""

    vocabulary = Vocabulary.build(["a dog"], min_count=1)
    text = "a dog"

    def caption(self, images: list[Image.Image], *_: Any, **__: Any) -> list[list[Candidate]]:
        return [[Candidate(self.text, -1.0)] for _ in images]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write the gallery of three photos into tmp_path/out, with a table and sidecars, as the script does."""
    photos = []
    for number in range(PHOTOS):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (30 + number, 20), (80 * number, 0, 0)).save(path)
        photos.append(Photo(path.name, path))
    formats = frozenset({"json", "txt"})
    target = Target(tmp_path / "out", formats, False, False, checkpoint="c.pth", captioner="identity", beam_size=1)
    return lambda: write_gallery(cast(Captioner, OneCaption()), photos, target, lambda _: None)


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files of a gallery but its records."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != RECORDS:
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def fails(run: Run, number: int, error: BaseException) -> bool:
    """Whether a run meets the fault. If so, it ends with an error, but for a fault where nothing was to be lost."""
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, number, error)
        try:
            run()
        except (Killed, UserError, OSError) as stopped:
            assert fault.struck, stopped
    return fault.struck


def assert_continued(run: Run, out: Path, whole: dict[str, bytes]) -> None:
    """The same command completes the gallery."""
    report = run()
    assert len(report.entries) == PHOTOS and not report.kept and not report.interrupted
    assert dict(files(out)) == whole


@pytest.mark.parametrize(("error", "step"), [(Killed(), 1), (FULL, 3)], ids=["killed", "full disk"])
def test_a_run_that_fails_at_any_change_of_a_file_is_continued(
    tmp_path: Path, run: Run, error: BaseException, step: int
) -> None:
    out = tmp_path / "out"
    run()
    whole = dict(files(out))
    assert len(whole) == 3 * PHOTOS + 2
    for number in range(1, 1000, step):
        shutil.rmtree(out)
        if not fails(run, number, error):
            break
        assert_continued(run, out, whole)
    assert number > 12 * PHOTOS


def test_the_page_of_a_killed_run_is_the_old_one_with_its_cards(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for name in ("IN_PAGE", "LIST_SIZE"):
        monkeypatch.setattr(gallery_page, name, 1)
    run()
    old, cards = (out / PAGE).read_bytes(), {path: path.read_bytes() for path in (out / "cards").iterdir()}
    assert len(cards) == PHOTOS  # the texts, and the second and third image
    monkeypatch.setattr(OneCaption, "text", "a cat")
    Image.new("RGB", (9, 9)).save(tmp_path / "2.png")
    for number in range(1, 100):
        if not fails(run, number, Killed()):
            break
        if (out / PAGE).read_bytes() == old:
            assert all(path.read_bytes() == content for path, content in cards.items())
    whole = dict(files(out))
    assert number > 12 and (out / PAGE).read_bytes() != old
    assert len(list((out / "cards").iterdir())) == PHOTOS and len(cards.keys() & (out / "cards").iterdir()) == 1
    before = {path: path.stat().st_mtime_ns for path in (out / "cards").iterdir()}
    assert_continued(run, out, whole)
    assert {path: path.stat().st_mtime_ns for path in (out / "cards").iterdir()} == before  # not written again


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("error", [Killed(), FULL], ids=["killed", "full disk"])
def test_a_gallery_of_version_1_is_replaced_even_if_the_first_run_fails(
    tmp_path: Path, run: Run, number: int, error: BaseException
) -> None:
    out = tmp_path / "out"
    run()
    whole = dict(files(out))
    for path in (out / RECORDS, *out.glob("*.txt")):  # version 1.0 had neither
        path.unlink()
    assert fails(run, number, error)
    assert_continued(run, out, whole)
