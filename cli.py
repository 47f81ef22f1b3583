"""What every command line needs, without torch: clear errors, options, and atomic files.

Python 3.8 must be able to read this file: a script that imports it is then refused in one line by older versions.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import re
import shutil
import sys
import textwrap
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
if sys.version_info[:2] < OLDEST_PYTHON:
    needed, found = (".".join(map(str, version[:2])) for version in (OLDEST_PYTHON, sys.version_info))
    print(f"error: Python {needed} or newer is needed, but {sys.executable} is {found}", file=sys.stderr)
    sys.exit(2)

IMPORTED_AS = {"PIL": "pillow", "yaml": "pyyaml"}  # the names of packages that differ from those of their modules
OS_ERRORS = {
    FileNotFoundError: "no such file or folder",
    FileExistsError: "exists, but is not a folder. Choose another name",
    NotADirectoryError: "part of this path is a file, not a folder. Choose another path",
    IsADirectoryError: "is a folder, not a file. Name a file",
    PermissionError: "permission denied. Choose another place, or change its permissions",
}


class UserError(ValueError):
    """An error the user can fix. The message names the file, row or option, and says what to do."""


class OptionParser(argparse.ArgumentParser):
    """argparse that reports a mistyped option in one line, as any other error, and accepts no abbreviations.

    Args:
        prog: the command, such as "train.py".
        description: what the script does; after a blank line, examples. Scripts pass their doc string.
        options: see ``argparse.ArgumentParser``.
    """

    def __init__(self, prog: str, description: str | None = None, **options: Any) -> None:
        summary, examples, *_ = [*(description or "").split("\n\n"), ""]
        columns = min(shutil.get_terminal_size().columns, 100)
        super().__init__(
            prog=prog,
            description=textwrap.fill(summary.strip(), columns - 2),
            epilog=examples and "examples:\n" + textwrap.indent(textwrap.dedent(examples).strip("\n"), "  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )
        self.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As argparse, but all options must be known, those of subcommands too.

        Raises:
            UserError: an option is unknown.
        """
        parsed, unknown = super().parse_known_args(*args, **kwargs)
        if unknown and unknown[0].startswith("-"):
            option = unknown[0].split("=", maxsplit=1)[0]
            shown = {
                name.lstrip("-"): action.option_strings[0]
                for action in self._actions
                for name in action.option_strings
                if action.help != argparse.SUPPRESS
            }
            near = [shown[name] for name in similar(option.lstrip("-"), list(shown))]
            raise UserError(f"unknown option {option}: {did_you_mean(near) or 'see --help for the valid names'}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Called by argparse for invalid options. The default implementation prints the whole usage and exits.

        Raises:
            UserError: always.
        """
        shorter = re.sub(r"^argument ([^/:]+)[^:]*", r"\1", message)  # of an option with two names, the first
        raise UserError(f"{shorter} (see --help)")


class _PrintVersion(argparse.Action):
    """The version of the project, from CITATION.cff."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        (version,) = re.findall(r'^version: "(.*)"', (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
        print(parser.prog, version)
        parser.exit()


def similar(name: str, valid: Sequence[str]) -> list[str]:
    """The options that a mistyped name may stand for; none if none is similar.

    Args:
        name: with or without its section: train.stages.epoch, or only epoch.
        valid: such as train.stages.epochs.
    """
    last = _last_part(name)
    lasts = [_last_part(each) for each in valid]
    near = difflib.get_close_matches(last, lasts, n=1, cutoff=0.7)
    for found in (
        [each for each in valid if _last_part(each) == last],  # in the wrong section, or without one
        difflib.get_close_matches(name, valid, n=1, cutoff=0.8),
        [each for each in valid if len(last) > 2 and _last_part(each).startswith(last)],
        [each for each in valid if _last_part(each) in near],
    ):
        if found:
            return found
    return []


def _last_part(name: str) -> str:
    return name.rsplit(".", maxsplit=1)[-1]


def did_you_mean(names: Iterable[str]) -> str:
    """ "did you mean 'a' or 'b'?"; nothing if there are no names."""
    quoted = [f"'{name}'" for name in dict.fromkeys(names)]
    return f"did you mean {' or '.join(quoted)}?" if quoted else ""


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

    Raises:
        ModuleNotFoundError: of a module that is not in a package of requirements*.txt.
    """
    argv = sys.argv[1:]
    debug = "--debug" in argv
    try:
        main([argument for argument in argv if argument != "--debug"])
    except (UserError, OSError, ModuleNotFoundError) as error:
        message = _message(error)
        if message is None:
            raise
        if debug:
            traceback.print_exc()
        else:
            print(f"error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _message(error: Exception) -> str | None:
    """What to tell the user; None if the error is a bug."""
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    if isinstance(error, OSError):
        reason = OS_ERRORS.get(type(error), error.strerror) or str(error)
        return f"{error.filename}: {reason}" if error.filename else reason
    return str(error)


def missing_package(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that is not installed; None if it is not in requirements*.txt."""
    module = (error.name or "").split(".")[0]
    package = IMPORTED_AS.get(module, module).replace("_", "-")
    for file in sorted(ROOT.glob("requirements*.txt"), key=lambda path: path.stem):
        if re.search(rf"^{re.escape(package)}(?![\w-])", file.read_text("utf-8"), re.MULTILINE):
            break
    else:
        return None
    environment, here = ROOT / ".venv", Path.cwd()
    if environment.is_dir() and Path(sys.prefix).resolve() != environment.resolve():
        script = environment / ("Scripts" if os.name == "nt" else "bin") / "activate"
        advice = f"Activate the environment: {'' if os.name == 'nt' else 'source '}{_seen_from(here, script)}"
    else:
        constraints = _seen_from(here, ROOT / "constraints.txt")
        advice = f"Install what is missing: pip install -r {_seen_from(here, file)} -c {constraints}"
    return f"{package} is not installed in {sys.executable}. {advice}"


def _seen_from(folder: Path, path: Path) -> Path:
    return path.relative_to(folder) if folder in path.parents else path


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
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path, lock_name: str) -> Iterator[None]:
    """Lock ``folder`` for one run, with a file ``lock_name`` in it: a second one would move the first one's files away.

    The operating system releases the lock of a run that is killed. Folders created here that stay empty are removed.

    Raises:
        UserError: another run holds the lock.
    """
    from filelock import FileLock, Timeout  # not needed by every command line

    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / lock_name)
    try:
        lock.acquire(blocking=False)
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


def write_json(path: str | Path, values: Any) -> None:
    """Write ``values`` atomically as indented UTF-8 JSON.

    Characters that UTF-8 cannot encode (lone surrogates, from file names in another encoding) become question marks.
    """
    text = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
    with atomic_open(path, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
