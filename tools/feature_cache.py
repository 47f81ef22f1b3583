"""List the caches of encoder features, which only ever grow, and delete what is no longer needed.

    python -m tools.feature_cache
    python -m tools.feature_cache --prune                    # features of images that are gone or have changed
    python -m tools.feature_cache --delete_older_than 30     # days

There is one folder per encoder that was trained with or evaluated: 200 KB per image at 224 pixels, twice that with
mirror images. Deleting one is safe: its features are computed again when a run needs them.
"""

import contextlib
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as `python tools/feature_cache.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, run_script, say
from config import DataConfig
from files import atomic_open, take_lock
from structured import read_json

RECORDS = ("image_hashes.json", "sound_images.json")  # of data/features.py and data/bad_images.py

DAY = 24 * 3600.0


@dataclass(frozen=True)
class CacheFolder:
    """The cached features of one encoder and transform."""

    path: Path
    images: int
    size: int  # bytes on the disk
    age: float  # days since a run last asked for these features


def list_caches(root: Path) -> list[CacheFolder]:
    """The caches in ``root``, the one used last first. Other files and folders there are ignored.

    Raises:
        UserError: no such folder.
    """
    if not root.is_dir():
        raise UserError(f"--feature_cache {root}: no such folder")
    folders = [path for path in root.iterdir() if path.is_dir() and re.fullmatch(r"[0-9a-f]{16}", path.name)]
    caches = [
        CacheFolder(path, _count_images(path), _size(path), (time.time() - path.stat().st_mtime) / DAY)
        for path in folders
    ]
    return sorted(caches, key=lambda cache: cache.age)


def _count_images(folder: Path) -> int:
    """Images in the index; 0 if there is none yet, or if it is damaged."""
    try:
        return sum(map(len, read_json(folder / "index.json")["shards"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _size(folder: Path) -> int:
    """Bytes that the files take on the disk, less than their lengths where shards are sparse (not known on Windows)."""
    stats = [path.stat() for path in folder.iterdir()]
    return sum(stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size for stat in stats)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether the cache is this process's own for now: False if a run is computing features in it."""
    from filelock import Timeout

    try:
        lock = take_lock(folder / "lock")
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def delete(folder: Path) -> bool:
    """Delete a cache unless a run is computing features in it; return whether it was deleted."""
    with locked(folder) as own:
        if not own:
            return False
        for path in folder.iterdir():
            if not path.name.startswith("lock"):
                path.unlink()
    shutil.rmtree(folder)
    return True


def existing_images(root: Path) -> set[str]:
    """The content hashes of all images that runs have read and that have not changed; the others are forgotten."""
    from data.file_records import FileRecords

    hashes, _ = (FileRecords(root / name).prune() for name in RECORDS)
    return hashes


def prune(folder: Path, hashes: set[str]) -> bool:
    """Shorten the shards of a cache to the last row that belongs to an image of ``hashes``; delete it if none does.

    Rows before that row stay, because those after it have their places.

    Returns:
        False if a run is computing features in it.
    """
    with locked(folder) as own:
        if not own:
            return False
        try:
            index = read_json(folder / "index.json")
            needed = [max((n for n, each in enumerate(its, 1) if each in hashes), default=0) for its in index["shards"]]
        except (OSError, ValueError, KeyError, TypeError):  # damaged
            needed = []
        if any(needed):
            index["shards"] = [its[:count] for its, count in zip(index["shards"], needed, strict=True)]
            with atomic_open(folder / "index.json") as file:  # before the rows are gone that it declares valid
                json.dump(index, file)
            for number, count in enumerate(needed):
                _shorten(folder / f"features-{number}.npy", count)
    return True if any(needed) else delete(folder)


def _shorten(path: Path, rows: int) -> None:
    """Replace a shard by a file of its first ``rows``; of one if there are none, because no empty file can be mapped.

    The old file is not truncated: a training that has it mapped would be killed when it reads a row that is gone.
    """
    import numpy as np

    with contextlib.suppress(OSError):  # a full disk, or Windows, which does not replace a file that is mapped
        shard = np.load(path, mmap_mode="r")
        if len(shard) > max(rows, 1):
            with atomic_open(path, "wb") as file:
                np.save(file, shard[: max(rows, 1)])
                del shard  # Windows would not replace it either


def main(argv: list[str]) -> None:
    """List, and delete what the command line asks for."""
    parser = OptionParser("python -m tools.feature_cache", __doc__, "--feature_cache")
    parser.add_argument(
        "--feature_cache",
        "--data.feature_cache",
        type=Path,
        default=Path(DataConfig.feature_cache),
        metavar="DIR",
        help="folder of the caches, data.feature_cache of a run (default: %(default)s)",
    )
    parser.add_argument(
        "--delete_older_than",
        type=float,
        metavar="DAYS",
        help="delete caches that no run has opened for so many days; a stage of training opens them when it starts",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="delete the features of images that are gone or have changed since a run read them. Images on a disk that "
        "is not mounted count as gone: their features are computed again when needed",
    )
    arguments = parser.parse_args(argv)
    limit = arguments.delete_older_than
    if limit is not None and not limit >= 0:
        raise UserError(f"--delete_older_than {limit:g}: must be 0 or more")
    caches = list_caches(arguments.feature_cache)
    if arguments.prune:
        before = sum(cache.size for cache in caches)
        hashes = existing_images(arguments.feature_cache)
        for cache in caches:
            if not prune(cache.path, hashes):
                say(f"{cache.path}  in use, not pruned")
        caches = list_caches(arguments.feature_cache)
        say(f"pruned: {(before - sum(cache.size for cache in caches)) / 1e6:,.1f} MB given back")
    for cache in caches:
        line = f"{cache.path}  {cache.images:,} images  {cache.size / 1e6:,.1f} MB  used {cache.age:.1f} days ago"
        if limit is not None and cache.age > limit:
            line += "  deleted" if delete(cache.path) else "  in use, not deleted"
        say(line)
    say(f"{len(caches)} caches, {sum(cache.size for cache in caches) / 1e6:,.1f} MB in {arguments.feature_cache}")


if __name__ == "__main__":
    run_script(main)
