"""data/bad_images.py: a few images that cannot be used are left out, many stop the run."""

import os
import time
from pathlib import Path

import pytest

from cli import UserError
from data.bad_images import drop_bad_images, find_bad_images
from tests.support.helpers import draw


def make_images(folder: Path, count: int, bad: int) -> dict[str, list[str]]:
    """``count`` images of which the first ``bad`` are broken; each with a caption."""
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        if number < bad:
            (folder / name).write_bytes(b"not an image")
        else:
            draw(folder / name, "circle", "red", (8, 8))
    return {name: ["a circle"] for name in names}


def test_a_few_bad_images_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = make_images(tmp_path, 40, 2)  # exactly 5 %
    bad = find_bad_images([tmp_path / name for name in references], workers=3)
    assert list(bad) == [tmp_path / "0.png", tmp_path / "1.png"] and all(
        error.kind == "not an image" for error in bad.values()
    )
    good = drop_bad_images(references, tmp_path, bad)
    assert list(good) == list(references)[2:]
    err = capsys.readouterr().err
    assert "0.png: not an image" in err and "1.png: not an image" in err
    assert find_bad_images([tmp_path / name for name in good], workers=0) == {}


def test_many_bad_images_stop_the_run(tmp_path: Path) -> None:
    """The first three are named, and the reasons are counted: they tell a wrong folder from a broken download."""
    references = make_images(tmp_path, 39, 3)
    (tmp_path / "7.png").unlink()
    bad = find_bad_images([tmp_path / name for name in references])
    message = (
        r"^4 of 39 images cannot be used \(more than 5%\): 3 not an image, 1 no such file "
        r"\(0\.png, 1\.png, 2\.png and 1 more\)\. Check --data\.image_dir or --image_dir"
    )
    with pytest.raises(UserError, match=message):
        drop_bad_images(references, tmp_path, bad)


def test_missing_images_count_as_bad(tmp_path: Path) -> None:
    bad = find_bad_images([tmp_path / "no.jpg"])
    assert bad[tmp_path / "no.jpg"].kind == "no such file"


def test_images_that_were_decoded_are_not_decoded_again_while_they_do_not_change(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in make_images(tmp_path, 5, 1)]
    old = time.time() - 3600
    for path in paths:
        os.utime(path, (old, old))
    cache = tmp_path / "cache"
    assert list(find_bad_images(paths, 2, cache)) == paths[:1]
    size = paths[1].stat().st_size
    paths[1].write_bytes(bytes(size))  # decoding it would fail now,
    os.utime(paths[1], (old, old))  # but it looks unchanged
    assert list(find_bad_images(paths, 2, cache)) == paths[:1]  # an unreadable image is decoded again each time
    os.utime(paths[1])
    assert list(find_bad_images(paths, 2, cache)) == paths[:2]
    assert list(find_bad_images(paths, 2)) == paths[:2]
    (cache / "sound_images.json").write_text("{")
    assert list(find_bad_images(paths, 2, cache)) == paths[:2]
