"""The feature cache: a frozen encoder yields the same features every epoch, so they are computed once and kept on disk.

There is one folder per (encoder, transform). It holds shards ``features-N.npy``, memory-mapped fp16 arrays (n, P, D),
and ``index.json``, which gives the row of every image by the hash of its bytes. A changed image counts as a new image;
another encoder, layout or transform gets another folder. The index is written during the computation, so that an
interrupted run loses little of it, and a lock lets two runs that need the same features share the work.

Nothing is ever deleted here: ``python -m tools.feature_cache`` lists the folders and removes what is not needed.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from tqdm import tqdm

import structured
from cli import UserError, note
from data.decode_ahead import decode
from data.file_records import FileRecords
from data.images import ImageError, open_file
from data.transforms import Transform
from files import atomic_open, make_folder, naming, take_lock

ENCODE_BATCH = 16  # images per forward pass; more is no faster on a CPU and needs more memory
SAVE_EVERY = 20  # least number of batches between two writes of the index
BLOCK = 2**24  # bytes of zeros written at once, where a file can be given room only by writing to it
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a full disk, a quota, a limit of the file system or the process
SAVES = 50  # most writes of the index in one computation: each writes all of it


class FeatureCache:
    """Features (P, D) of images, by content.

    Args:
        root: folder of all caches (``data.feature_cache``).
        encode: images (B, 3, S, S) -> features (B, P, D); the frozen encoder.
        fingerprint: plain values that identify the encoder (hash of its weights, layout).
        transform: the preprocessing; also part of the key.
        workers: threads that hash and decode images; for many images, more than two are processes.
    """

    def __init__(
        self,
        root: str | Path,
        encode: Callable[[torch.Tensor], torch.Tensor],
        fingerprint: dict[str, Any],
        transform: Transform,
        workers: int = 2,
    ) -> None:
        self.encode, self.transform, self.workers = encode, transform, max(workers, 1)
        self.about = {"encoder": fingerprint, "transform": transform.to_dict()}
        key = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(root) / key
        self.rows: dict[str, tuple[int, int]] = {}  # content hash -> (shard, row)
        self.shards: list[np.ndarray] = []
        self.digests: dict[Path, str] = {}  # content hashes of the files passed to ``build``

    def build(self, paths: Sequence[Path]) -> dict[Path, ImageError]:
        """Compute the features of those ``paths`` whose features are not there yet.

        Returns:
            the files that cannot be used -> the reason.
        """
        make_folder(self.folder)
        bad = self._hash(paths)
        with self._lock():
            os.utime(self.folder)  # when the cache was last used, for tools.feature_cache
            self._read_index()
            missing = {self.digests[path]: path for path in paths if path not in bad}
            missing = {digest: path for digest, path in missing.items() if digest not in self.rows}
            if missing:
                broken = self._compute(missing)
                for path, digest in self.digests.items():
                    if digest in broken:  # files of different names may have the same bytes
                        bad[path] = ImageError(path, broken[digest].kind, broken[digest].detail)
        return bad

    def __getitem__(self, path: Path) -> torch.Tensor:
        """Features (P, D) in fp16 of a file that was passed to ``build`` and is not in its result."""
        shard, row = self.rows[self.digests[path]]
        return torch.from_numpy(np.array(self.shards[shard][row]))

    def batch(self, paths: Iterable[Path]) -> torch.Tensor:
        """Features (B, P, D) in fp16 of such files."""
        return torch.stack([self[path] for path in paths])

    def loader(self, image_dir: Path) -> "FeatureLoader":
        """Reads the features of files passed to ``build`` by name; for ``Flickr8kDataset`` and its workers."""
        rows = {str(path): self.rows[digest] for path, digest in self.digests.items() if digest in self.rows}
        return FeatureLoader(image_dir, [self._shard_path(number) for number in range(len(self.shards))], rows)

    def _hash(self, paths: Sequence[Path]) -> dict[Path, ImageError]:
        """Fill ``digests`` and return why files cannot be read. Files that did not change are not read again."""
        records, bad = FileRecords(self.folder.parent / "image_hashes.json"), dict[Path, ImageError]()
        known = {path: records.recall(path) for path in paths}
        self.digests |= {path: digest for path, digest in known.items() if digest is not None}
        unknown = [path for path, digest in known.items() if digest is None]
        with ThreadPoolExecutor(self.workers) as pool:
            results = pool.map(_digest, unknown)
            bar = tqdm(results, total=len(unknown), desc="hashing images", unit="img", leave=False, disable=None)
            for path, result in zip(unknown, bar, strict=True):
                if isinstance(result, ImageError):
                    bad[path] = result
                else:
                    self.digests[path] = result
                    records.remember(path, result)
        records.save()
        return bad

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Wait until no other run computes these features, which may take minutes."""
        try:
            lock = take_lock(self.folder / "lock")
        except Timeout:
            note(f"waiting for another run that computes these features ({self.folder / 'lock'})")
            lock = take_lock(self.folder / "lock", wait=True)
        try:
            yield
        finally:
            lock.release()

    def _compute(self, missing: dict[str, Path]) -> dict[str, ImageError]:
        """Write a shard with the features of ``missing`` (hash -> file); return why files cannot be used, by hash."""
        reasons, done = dict[str, ImageError](), list[str]()
        shard: np.memmap | None = None
        number = len(self.shards)
        self._trim()
        save_every = max(SAVE_EVERY, len(missing) // (SAVES * ENCODE_BATCH))
        ahead = decode(list(missing.values()), self.transform, self.workers, ENCODE_BATCH)
        decoded = zip(missing, ahead, strict=True)
        batches = iter(lambda: list(islice(decoded, ENCODE_BATCH)), [])
        with tqdm(total=len(missing), desc="computing features", unit="img", disable=None) as bar:
            for step, batch in enumerate(batches, start=1):
                reasons |= {digest: image for digest, image in batch if isinstance(image, ImageError)}
                images = {missing[digest]: image for digest, image in batch if isinstance(image, torch.Tensor)}
                if images:
                    features = self._encode(images)
                    if shard is None:
                        shard = self._new_shard(number, (len(missing), *features.shape[1:]))
                    shard[len(done) : len(done) + len(features)] = features
                    done += [digest for digest, _ in batch if digest not in reasons]
                bar.update(len(batch))
                if shard is not None and step % save_every == 0:
                    self._write_index(shard, number, done)
        if shard is not None:
            self._write_index(shard, number, done)
            self._read_index()
        return reasons

    def _encode(self, images: dict[Path, torch.Tensor]) -> np.ndarray:
        """Features (B, P, D) in fp16 of images (3, S, S).

        Raises:
            UserError: they are not finite.
        """
        features = self.encode(torch.stack(list(images.values()))).to("cpu", torch.float16).numpy()
        if not np.isfinite(features).all():
            raise UserError(
                f"the encoder's output for {next(iter(images))} or an image after it is outside the range of fp16. "
                "Check encoder.weights and encoder.layout"
            )
        return features

    def _trim(self) -> None:
        """Give back the room of the rows that an interrupted computation had reserved."""
        used = Counter(number for number, _ in self.rows.values())
        for number, shard in enumerate(self.shards):
            if len(shard) > max(used[number], 1):
                trim_shard(self._shard_path(number), used[number])

    def _new_shard(self, number: int, shape: tuple[int, ...]) -> np.memmap:
        """A memory map of that shape, whose room on the disk is its own: a page without room would kill the process.

        Raises:
            UserError: it does not fit.
        """
        needed, path = 2 * int(np.prod(shape)), self._shard_path(number)
        try:
            if shutil.disk_usage(self.folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with naming(path):
                shard = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
                _allocate(shard, path)
        except OSError as error:
            path.unlink(missing_ok=True)  # or what was allocated would keep the disk full
            if error.errno not in NO_ROOM:
                raise
            room = f"need {_in_units(needed)}, but the disk has {_in_units(shutil.disk_usage(self.folder).free)} left"
            raise UserError(
                f"{self.folder}: the features {room} ({error.strerror}). Delete old features "
                "(python -m tools.feature_cache --prune), or use another disk with --data.feature_cache"
            ) from error
        return shard

    def _shard_path(self, number: int) -> Path:
        return self.folder / f"features-{number}.npy"

    def _write_index(self, shard: np.memmap, number: int, done: list[str]) -> None:
        """First the rows, then the index that declares them valid."""
        shard.flush()
        shards: list[list[str]] = [[] for _ in range(number + 1)]
        for digest, (its_shard, _) in self.rows.items():
            shards[its_shard].append(digest)
        shards[number] = done
        with atomic_open(self.folder / "index.json") as file:
            json.dump({**self.about, "shards": shards}, file)

    def _read_index(self) -> None:
        index = self.folder / "index.json"
        self.rows, self.shards = {}, []
        try:
            lists = structured.read_json(index)["shards"] if index.exists() else []
            self.shards = [np.load(self._shard_path(number), mmap_mode="r") for number in range(len(lists))]
            if any(len(digests) > len(shard) for digests, shard in zip(lists, self.shards, strict=True)):
                raise ValueError("a shard has fewer rows than the index")
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.folder}: damaged feature cache ({error}). Delete the folder; its features will be recomputed"
            ) from error
        self.rows = {
            digest: (number, row) for number, digests in enumerate(lists) for row, digest in enumerate(digests)
        }


class FeatureLoader:
    """(image name, seed) -> cached features (P, D) in fp16. Small to pickle: a worker process opens the shards itself.

    Args:
        image_dir: folder that the names are relative to.
        shards: files with memory-mapped arrays (n, P, D).
        rows: file -> (shard, row).
    """

    def __init__(self, image_dir: Path, shards: Sequence[Path], rows: dict[str, tuple[int, int]]) -> None:
        self.image_dir, self.shards, self.rows = image_dir, shards, rows
        self._maps = [np.load(path, mmap_mode="r") for path in shards]

    def __call__(self, name: str, _seed: int | None = None) -> torch.Tensor:
        """Read one image's features; the seed is for augmentation, which cached features cannot have."""
        shard, row = self.rows[str(self.image_dir / name)]
        return torch.from_numpy(np.array(self._maps[shard][row]))

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureLoader, (self.image_dir, self.shards, self.rows)


def trim_shard(path: Path, rows: int) -> None:
    """Shorten a shard to its first ``rows``; to one if there are none, because no empty file can be mapped.

    First the header, then the length: a run that is killed in between leaves a file that is only longer than it says.
    """
    with contextlib.suppress(OSError), path.open("r+b") as file:  # Windows does not shorten a file that is mapped
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        header, begin = io.BytesIO(), file.tell()
        shape = (max(rows, 1), *shape[1:])
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        if header.tell() == begin:  # NumPy leaves room for that
            file.seek(0)
            file.write(header.getvalue())
            file.flush()
            os.fsync(file.fileno())
            file.truncate(begin + int(np.prod(shape)) * dtype.itemsize)


def _allocate(shard: np.memmap, path: Path) -> None:
    """Make the disk reserve the room for a new shard, which is a sparse file."""
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), shard.offset, shard.nbytes)
        else:  # macOS and Windows
            file.seek(shard.offset)
            for start in range(0, shard.nbytes, BLOCK):
                file.write(bytes(min(BLOCK, shard.nbytes - start)))


def _in_units(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _digest(path: Path) -> str | ImageError:
    """The hash of a file's bytes, or why it cannot be read."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except ImageError as error:
        return error
