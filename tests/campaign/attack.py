"""A hostile input: how its files are made, and the command that reads them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Make = Callable[[Path, random.Random], None]
Content = str | bytes | Callable[[], str | bytes]  # of a file; called when needed, where it is large
CANARY = "owned"  # code in an input would create a file of this name


@dataclass(frozen=True)
class Attack:
    """An input.

    Args:
        name: of the test.
        script: module with a ``main``.
        argv: its command line, in a folder with the files; ../world has data and a model that are in order.
        make: writes the files into the folder.
        accepted: the input may be used, with exit status 0, if nothing bad comes of it; else it must be refused.
    """

    name: str
    script: str
    argv: Sequence[str]
    make: Make
    accepted: bool = False


def writes(name: str, content: Content) -> Make:
    """Makes one file."""

    def make(folder: Path, _: random.Random) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content() if callable(content) else content
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))

    return make
