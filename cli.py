"""What every command line needs, without torch: clear errors, options, and atomic files."""

import argparse
import contextlib
import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn


class UserError(ValueError):
    """An error the user can fix. The message names the file, row or option, and says what to do."""


class OptionParser(argparse.ArgumentParser):
    """argparse that reports a mistyped option in one line, as any other error, and accepts no abbreviations."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for invalid options. The default implementation prints the whole usage and exits.

        Raises:
            UserError: always.
        """
        unknown = re.search(r"unrecognized arguments: (--\w+)", message)
        close = nearest(unknown[1], re.findall(r"--\w+", self.format_usage())) if unknown else None
        raise UserError(f"{message}: did you mean '{close}'?" if close else f"{message} (see --help)")


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The name in ``valid`` most similar to the mistyped ``name``, for "did you mean ...?"; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)), None)


def positive_int(text: str) -> int:
    """``type`` of an option that takes a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}")
    return int(text)


def in_run_folder(path: Path, name: str) -> Path:
    """The file ``name`` of a run, if ``path`` is the run's folder (such as runs/a); else ``path`` itself."""
    return path / name if path.is_dir() else path


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script's ``main(argv)``; report an error the user can fix as one line on stderr with exit status 2.

    ``--debug`` anywhere on the command line prints the traceback instead. Ctrl-C exits with status 130.
    """
    argv = sys.argv[1:]
    debug = "--debug" in argv
    try:
        main([argument for argument in argv if argument != "--debug"])
    except (UserError, OSError) as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def atomic_open(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces ``path`` when the block ends without an exception: written, fsynced, renamed.

    Missing parent folders are created. After a crash, a full disk or an exception, an existing file at ``path`` is
    unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open(mode) if "b" in mode else temporary.open(mode, encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, values: Any) -> None:
    """Write ``values`` atomically as indented UTF-8 JSON.

    Characters that UTF-8 cannot encode (lone surrogates, from file names in another encoding) become question marks.
    """
    text = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
    with atomic_open(path, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
