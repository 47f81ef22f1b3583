"""What every command line needs, without torch: clear errors, options, files that are written whole or not at all."""

import argparse
import contextlib
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn


class UserError(ValueError):
    """Something the user can put right. The message names the file, row or option and says what to do."""


class OptionParser(argparse.ArgumentParser):
    """argparse, with one line for a mistyped option as for any other mistake, and no guessing at shortened names."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """What argparse calls for a wrong option; it would print its whole usage and exit."""
        unknown = re.search(r"unrecognized arguments: (--\w+)", message)
        near = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        raise UserError(f"{message}: did you mean '{near[0]}'?" if near else f"{message} (see --help)")


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script's ``main(argv)``; turn what the user can cause into one line on stderr and exit status 2.

    ``--debug`` anywhere on the command line shows the traceback instead. Ctrl-C ends with status 130.
    """
    argv = sys.argv[1:]
    debug = "--debug" in argv
    try:
        main([word for word in argv if word != "--debug"])
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
    """Open a temporary file that becomes ``path`` only when the block ends well: written, fsynced, renamed.

    A crash, a full disk or an exception leaves what stood at ``path`` before untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
