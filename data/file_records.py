"""What is known about files, valid for as long as they do not change: their hashes, or that they were decoded once."""

import json
import time
from pathlib import Path

import structured
from data.shards import file_state
from files import atomic_open

SETTLED = 2_000_000_000  # ns; a file this young may change again within one tick of a coarse clock (FAT: 2 s)


class FileRecords:
    """One string per file, kept in a JSON file as {absolute path: [size, modification time in ns, string]}.

    A file whose size or modification time differs counts as unknown, as for make and rsync. A damaged JSON file counts
    as empty. Several runs may use it: it is replaced as a whole, and if two save at the same moment, the records of one
    are lost, which only means that its files are examined again.

    Args:
        path: the JSON file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = _read(path)
        self._new: dict[str, tuple[int, int, str]] = {}
        self._states: dict[Path, tuple[int, int]] = {}  # size and modification time before the file was read

    def recall(self, file: Path) -> str | None:
        """What was remembered of ``file``; None if nothing was, or if the file has changed or is gone."""
        state = _state(file)
        if state is None:
            return None
        self._states[file] = state
        size, modified, value = self._known.get(str(file.absolute()), (None, None, None))
        return value if (size, modified) == state else None

    def remember(self, file: Path, value: str) -> None:
        """Record ``value`` for ``file`` as the last ``recall`` found it; if it has changed since, it is unknown."""
        if file in self._states and time.time_ns() - self._states[file][1] > SETTLED:
            self._new[str(file.absolute())] = (*self._states[file], value)

    def prune(self) -> set[str]:
        """Forget the files that are gone or have changed; return the strings of the others."""
        kept = {name: record for name, record in self._known.items() if self.recall(Path(name)) is not None}
        if len(kept) < len(self._known):
            with atomic_open(self.path) as file:
                json.dump(kept, file)
            self._known = kept
        return {value for _, _, value in kept.values()}

    def save(self) -> None:
        """Add what is new to the JSON file, and drop from it the files that no longer exist."""
        if self._new:
            kept = {name: record for name, record in _read(self.path).items() if _state(Path(name))}
            with atomic_open(self.path) as file:
                json.dump(kept | self._new, file)
            self._known |= self._new
            self._new = {}


def _state(file: Path) -> tuple[int, int] | None:
    """Size and modification time; None if there is no such file."""
    try:
        return file_state(file)
    except (OSError, ValueError):  # no file can have a name with a NUL; or a damaged tar
        return None


def _read(path: Path) -> dict[str, tuple[int, int, str]]:
    try:
        return {file: (size, modified, value) for file, (size, modified, value) in structured.read_json(path).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
