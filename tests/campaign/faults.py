"""What happens to a script at one of its file operations: a kill, a failing system call, a disk that is full from then.

The operations are counted by an audit hook, so the same number is the same moment in each run.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Audit events of operations that change a folder; the first argument is the path
EVENTS = {"os.mkdir", "os.link", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "open"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NEED_SPACE = {"os.mkdir", "os.link", "os.rename", "os.symlink", "open", "fsync", "posix_fallocate"}


@dataclass(frozen=True)
class Fault:
    """``what`` happens before file operation number ``at`` (from 1) below ``folder``; picklable.

    Args:
        what: "kill"; the name of an error, such as "ENOSPC", which the next operation that needs space raises; or
            "limit": no file can grow beyond ``limit`` bytes from then on.
        count: file that receives a byte per operation, to learn how many there are.
    """

    folder: Path
    at: int = 0
    what: str = "kill"
    limit: int = 0
    count: Path | None = None

    def __call__(self) -> None:
        """Arrange it in this process."""
        done, pending = 0, False
        counter = self.count and os.open(self.count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def operation(name: str, path: str) -> None:
            nonlocal done, pending
            done += 1
            if counter is not None:
                os.write(counter, b".")
            pending = pending or done == self.at
            if not pending or (self.what.startswith("E") and name not in NEED_SPACE):
                return
            pending = False
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.what == "limit":
                import resource  # exists on Unix only

                resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))
            else:
                number = getattr(errno, self.what)
                raise OSError(number, os.strerror(number), *([path] if path else []))

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event in EVENTS and (event != "open" or args[2] & WRITES) and not isinstance(args[0], int):
                path = os.fsdecode(args[0])
                if Path(os.path.normpath(Path(path).absolute())).is_relative_to(self.folder):
                    operation(event, path)

        sys.addaudithook(hook)
        for name in ("fsync", "posix_fallocate"):
            if original := getattr(os, name, None):
                setattr(os, name, _announced(original, operation))


def _announced(original: Callable[..., Any], operation: Callable[[str, str], None]) -> Callable[..., Any]:
    """The function of ``os``, which raises no audit event, counted as an operation."""

    def announced(*args: Any) -> Any:
        operation(original.__name__, "")
        return original(*args)

    return announced
