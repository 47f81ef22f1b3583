"""A frozen encoder says the same of an image every epoch: compute its grid features once, keep them on disk in fp16.

One folder for each (encoder, transform) holds shards ``features-N.npy``, memory-mapped (n, P, D) arrays, and ``index.json``,
which tells the row of every image by the hash of its bytes. A changed image is a new image; a changed encoder, layout or
transform is a new folder. The index is written while the work goes on, so an interrupted run loses seconds, and a lock
lets two runs that need the same features share the work.
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from cli import UserError, atomic_open
from data.images import ImageError, load_image_bytes
from data.transforms import Transform

BATCH = 16  # images a forward pass; larger is no faster on a CPU and needs more memory
SAVE_EVERY = 20  # batches between two writes of the index


class FeatureCache:
    """Features (P, D) of images, by content.

    Args:
        root: folder of all caches (``data.feature_cache``).
        encode: pictures (B, 3, S, S) -> features (B, P, D); the frozen encoder.
        fingerprint: plain values that tell this encoder from others (weights' hash, layout).
        transform: the preprocessing; part of the key.
    """

    def __init__(
        self,
        root: str | Path,
        encode: Callable[[torch.Tensor], torch.Tensor],
        fingerprint: dict[str, Any],
        transform: Transform,
    ) -> None:
        self.encode, self.transform = encode, transform
        self.about = {"encoder": fingerprint, "transform": transform.to_dict()}
        key = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(root) / key
        self.rows: dict[str, tuple[int, int]] = {}  # content hash -> (shard, row)
        self.shards: list[np.ndarray] = []
        self.digests: dict[Path, str] = {}  # file -> content hash, for the files that were asked for

    def build(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Make sure that the features of all ``paths`` are there.

        Returns:
            the files that cannot be used, with the reason.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        bad: dict[Path, str] = {}
        with self._lock():
            self._read_index()
            missing: dict[str, Path] = {}
            for path in tqdm(paths, desc="hashing images", unit="img", leave=False, disable=None):
                try:
                    self.digests[path] = digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
                except OSError as error:
                    bad[path] = f"{path}: {error.strerror or error}"
                    continue
                if digest not in self.rows:
                    missing[digest] = path
            if missing:
                broken = self._compute(missing)
                for path, digest in self.digests.items():
                    if digest in broken:  # the same bytes may stand under several names
                        bad[path] = broken[digest].replace(str(missing[digest]), str(path))
        return bad

    def __getitem__(self, path: Path) -> torch.Tensor:
        """Features (P, D), fp16, of a file that ``build`` was given and did not call bad."""
        shard, row = self.rows[self.digests[path]]
        return torch.from_numpy(np.array(self.shards[shard][row]))

    def loader(self, image_dir: Path) -> Callable[[str, int | None], torch.Tensor]:
        """The function (name, seed) -> features (P, D) that ``Flickr8kDataset`` asks for; the seed is for augmentation, of which there is none."""
        return lambda name, _seed: self[image_dir / name]

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """A second run waits here, which may take minutes, then finds the work done."""
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            tqdm.write(f"another run computes these features, waiting for it ({self.folder / 'lock'})", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _compute(self, missing: dict[str, Path]) -> dict[str, str]:
        """Append a shard with the features of the missing images; return the reasons of the unreadable ones by hash."""
        digests, reasons, done = list(missing), dict[str, str](), list[str]()
        shard: np.ndarray | None = None
        number = len(self.shards)
        with tqdm(total=len(digests), desc="computing features", unit="img", disable=None) as bar:
            for first in range(0, len(digests), BATCH):
                pictures, names = [], []
                for digest in digests[first : first + BATCH]:
                    path = missing[digest]
                    try:
                        pictures.append(self.transform(load_image_bytes(path.read_bytes(), str(path))))
                        names.append(digest)
                    except ImageError as error:
                        reasons[digest] = str(error)
                if pictures:
                    features = self.encode(torch.stack(pictures)).to("cpu", torch.float16).numpy()  # (B, P, D)
                    if not np.isfinite(features).all():
                        raise UserError(
                            f"the encoder gives values outside fp16 for {missing[names[0]]}: check encoder.weights and encoder.layout"
                        )
                    if shard is None:  # sparse on disk: rows that are never reached cost nothing
                        shape = (len(digests), *features.shape[1:])
                        self._check_room(len(digests) * features[0].nbytes)
                        shard = np.lib.format.open_memmap(
                            self._shard_path(number), mode="w+", dtype=np.float16, shape=shape
                        )
                    shard[len(done) : len(done) + len(features)] = features
                    done += names
                bar.update(min(BATCH, len(digests) - first))
                if shard is not None and (first // BATCH + 1) % SAVE_EVERY == 0:
                    self._write_index(shard, number, done)
        if shard is not None:
            self._write_index(shard, number, done)
            self._read_index()
        return reasons

    def _check_room(self, needed: int) -> None:
        """A memory map that meets a full disk kills the process without a word (SIGBUS), so ask before."""
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder}: the features need {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB left. "
                "Make room, or name another disk with --data.feature_cache"
            )

    def _shard_path(self, number: int) -> Path:
        return self.folder / f"features-{number}.npy"

    def _write_index(self, shard: np.ndarray, number: int, done: list[str]) -> None:
        """Rows first, then the index that vouches for them."""
        assert isinstance(shard, np.memmap)
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
            lists = json.loads(index.read_text())["shards"] if index.exists() else []
            self.shards = [np.load(self._shard_path(number), mmap_mode="r") for number in range(len(lists))]
            if any(len(digests) > len(shard) for digests, shard in zip(lists, self.shards, strict=True)):
                raise ValueError("a shard is shorter than the index says")
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.folder}: damaged feature cache ({error}). Delete the folder; it will be computed again"
            ) from error
        self.rows = {
            digest: (number, row) for number, digests in enumerate(lists) for row, digest in enumerate(digests)
        }
