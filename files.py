"""Files that are written whole or not at all, and folders that one run at a time writes to."""

import contextlib
import errno
import functools
import json
import os
import platform
import re
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any

from cli import UserError, note

if TYPE_CHECKING:
    from filelock import BaseFileLock

NO_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}  # of some network drives and FUSE
# The temporary files of this computer: the number of the process tells whether they are still being written.
_PREFIX = f".unfinished-{zlib.crc32(platform.node().encode()):08x}"


@contextlib.contextmanager
def atomic_open(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces ``path`` when the block ends without an exception: written, fsynced, renamed.

    Missing parent folders are created. After a crash, a full disk or an exception, an existing file at ``path`` is
    unchanged; the next process that writes into the folder removes the temporary file of one that was killed. Text is
    ``encodable``.

    Raises:
        UserError: the folder cannot be created.
        OSError: the file cannot be written; it is named.
    """
    path = Path(path)
    make_folder(path.parent)
    _remove_unfinished(path.parent.absolute())
    # The name is not made of that of ``path``, to which file systems would not let it add anything if it is long.
    temporary = path.with_name(f"{_PREFIX}-{os.getpid()}-{zlib.crc32(os.fsencode(path.name)):08x}.tmp")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    try:
        with naming(path), temporary.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of writing ``path`` name it: those of a full disk name no file."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


@functools.cache
def _remove_unfinished(folder: Path) -> None:
    """Delete what killed processes of this computer were writing; looked for once, before the first write."""
    for path in folder.glob(f"{_PREFIX}-*.tmp"):
        owner = re.fullmatch(rf"{_PREFIX}-(\d{{1,9}})-[0-9a-f]{{8}}\.tmp", path.name)
        if owner and not _runs(int(owner[1])):
            with contextlib.suppress(OSError):  # Windows does not delete a file that another process is writing
                path.unlink()


def _runs(process: int) -> bool:
    """Whether there is another process of that number on this computer; on Windows, where none can tell, False."""
    if os.name == "nt" or process == os.getpid():  # in a container, every run may have the same number
        return False
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to somebody else
        return True
    return True


def make_folder(folder: Path) -> None:
    """Create ``folder`` and those above it, unless it exists.

    Raises:
        UserError: there can be no folders, such as in /proc.
        OSError: another reason, such as permissions.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        raise UserError(f"{folder}: this folder cannot be created. Choose another place") from None


def take_lock(path: Path, *, wait: bool | float = False) -> "BaseFileLock":
    """Lock the file ``path``; the caller releases the lock. The system releases that of a process that is killed.

    On a file system without locks a file ``path.soft`` with the number of the process marks it. If that is killed, the
    mark counts no longer on the same computer; elsewhere it has to be deleted.

    Args:
        wait: until another process has released the lock; a number: for so many seconds at most.

    Raises:
        filelock.Timeout: another process holds the lock, and ``wait`` is False, or over.
    """
    from filelock import FileLock, SoftFileLock  # not needed by every command line

    lock: BaseFileLock = FileLock(path)
    timeout = {True: -1.0, False: 0.0}[wait] if isinstance(wait, bool) else wait
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:  # Timeout is one too
        if error.errno not in NO_LOCKS:
            raise
        soft = path.with_name(f"{path.name}.soft")
        _note_soft_lock(soft)
        lock = SoftFileLock(soft)
        lock.acquire(timeout=timeout or 1)  # the mark of a killed process goes at the first of several tries
    return lock


@functools.cache
def _note_soft_lock(path: Path) -> None:
    note(f"{path.parent}: this disk has no locks, so {path.name} marks that a run is using the folder")


@contextlib.contextmanager
def lock_folder(folder: Path, lock_name: str, *, wait: float = 0.0) -> Iterator[None]:
    """Lock ``folder`` for one run, with a file ``lock_name`` in it: a second one would move the first one's files away.

    Folders created here that stay empty are removed.

    Args:
        wait: seconds for another run to end.

    Raises:
        UserError: another run holds the lock, or the folder cannot be created.
    """
    from filelock import Timeout

    created = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        lock = take_lock(folder / lock_name, wait=wait)
    except Timeout:
        raise UserError(
            f"--output_dir {folder}: another run is writing there. Choose another folder, or wait until it has ended"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not delete open files
            (folder / lock_name).unlink()
        lock.release()
        with contextlib.suppress(OSError):
            for path in created:
                path.rmdir()


def without_folders(value: Any) -> Any:
    """A nested value in which only the last parts of absolute paths are left: for what is published."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    for kind in (PurePosixPath, PureWindowsPath):
        if isinstance(value, str) and kind(value).is_absolute():
            return kind(value).name
    return value


def encodable(text: str) -> str:
    r"""``text`` that UTF-8 can hold: lone surrogates, from file names in other encodings, become escapes.

    These are JSON's own, ``\ud800``: a name that is read from JSON again is that of the file.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: str | Path, values: Any) -> None:
    """Write ``values`` atomically as indented UTF-8 JSON."""
    text = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
    with atomic_open(path) as file:
        file.write(text)
