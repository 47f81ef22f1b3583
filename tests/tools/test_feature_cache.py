"""tools/feature_cache.py: lists the caches of features, and deletes only what was asked for."""

import os
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from cli import UserError
from data.features import FeatureCache
from data.transforms import Transform
from tests.support.helpers import draw
from tools.feature_cache import list_caches, main

DAY = 24 * 3600


def make_cache(root: Path, fingerprint: str, images: list[Path], age: float) -> FeatureCache:
    """The features of ``images``, last used ``age`` days ago."""
    cache = FeatureCache(root, lambda batch: batch.flatten(2).transpose(1, 2), {"weights": fingerprint}, Transform(64))
    assert cache.build(images) == {}
    then = time.time() - age * DAY
    os.utime(cache.folder, (then, then))
    return cache


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [draw(tmp_path / f"{colour}.png", "circle", colour) for colour in ("red", "green", "blue")]


def test_caches_are_listed_the_last_used_first(
    tmp_path: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    old, new = make_cache(root, "one", images[:1], 40), make_cache(root, "two", images, 2)
    (root / "notes").mkdir()  # not a cache
    caches = list_caches(root)
    assert [cache.path for cache in caches] == [new.folder, old.folder]
    assert [cache.images for cache in caches] == [3, 1]
    assert [round(cache.age) for cache in caches] == [2, 40]
    assert 3 * 64 * 64 * 3 * 2 <= caches[0].size < 200_000
    main(["--feature_cache", str(root)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{new.folder}  3 images  ") and lines[0].endswith("used 2.0 days ago")
    assert lines[-1].startswith("2 caches, ") and old.folder.is_dir() and new.folder.is_dir()


def test_only_old_caches_are_deleted_and_they_can_be_computed_again(
    tmp_path: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    old, new = make_cache(root, "one", images, 40), make_cache(root, "two", images, 2)
    (root / "notes").mkdir()
    before = old[images[0]]
    main(["--feature_cache", str(root), "--delete_older_than", "30"])
    assert "deleted" in capsys.readouterr().out.splitlines()[1]
    assert not old.folder.exists() and new.folder.is_dir() and (root / "notes").is_dir()
    assert torch.equal(make_cache(root, "one", images, 0)[images[0]], before)


def test_a_cache_that_a_run_computes_is_not_deleted(
    tmp_path: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    used, unused = make_cache(root, "one", images, 50), make_cache(root, "two", images, 40)
    with FileLock(used.folder / "lock"):
        main(["--feature_cache", str(root), "--delete_older_than", "30"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("  deleted") and lines[1].endswith("  in use, not deleted")
    assert (used.folder / "index.json").exists() and not unused.folder.exists()


def aged(images: list[Path]) -> None:
    """Only images that were not written just now are recorded."""
    for image in images:
        os.utime(image, (1e9, 1e9))


def test_pruning_deletes_what_belongs_to_no_image(
    tmp_path: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cache"
    aged(images)
    gone, kept = make_cache(root, "one", images[:1], 0), make_cache(root, "two", images, 0)
    before = kept[images[1]]
    images[0].unlink()
    images[2].write_bytes(images[1].read_bytes() + b"changed")
    main(["--feature_cache", str(root), "--prune"])
    assert not gone.folder.exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{kept.folder}  2 images  ")  # the row of the first one lies before the second one's
    assert lines[0].startswith("pruned: ") and lines[0].endswith(" MB given back")
    assert float(lines[0].split()[1]) > 0.03  # two of four rows of 24 KB
    again = make_cache(root, "two", images[1:], 0)
    assert torch.equal(again[images[1]], before)
    main(["--feature_cache", str(root), "--prune"])
    assert capsys.readouterr().out.startswith("pruned: 0.0 MB given back")


def test_a_run_that_has_a_shard_mapped_still_reads_the_rows_that_are_pruned(tmp_path: Path, images: list[Path]) -> None:
    aged(images)
    cache = make_cache(tmp_path / "cache", "one", images, 0)
    shard, before = cache.folder / "features-0.npy", cache[images[2]]
    length = shard.stat().st_size
    with shard.open("rb") as file:  # a read past the end of a mapped file would kill the tests
        images[2].unlink()
        main(["--feature_cache", str(tmp_path / "cache"), "--prune"])
        assert os.fstat(file.fileno()).st_size == length > shard.stat().st_size
    assert torch.equal(cache[images[2]], before)


def test_pruning_leaves_a_cache_that_a_run_computes(
    tmp_path: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = make_cache(tmp_path / "cache", "one", images, 0)  # no image is recorded yet
    with FileLock(cache.folder / "lock"):
        main(["--feature_cache", str(tmp_path / "cache"), "--prune"])
    assert "in use, not pruned" in capsys.readouterr().out and (cache.folder / "index.json").exists()
    main(["--feature_cache", str(tmp_path / "cache"), "--prune"])
    assert not cache.folder.exists()


def test_a_cache_without_a_readable_index_is_listed(tmp_path: Path, images: list[Path]) -> None:
    cache = make_cache(tmp_path / "cache", "one", images, 0)
    for content in ("{", "[]", '{"shards": 3}'):
        (cache.folder / "index.json").write_text(content)
        assert [folder.images for folder in list_caches(tmp_path / "cache")] == [0]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        main(["--feature_cache", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="--delete_older_than -1: must be 0 or more"):
        main(["--feature_cache", str(tmp_path), "--delete_older_than=-1"])
