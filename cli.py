"""What every command line needs, without torch: clear errors, options, and output that nothing breaks.

Python 3.8 must be able to read this file: a script that imports it is then refused in one line by older versions.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import gc
import io
import os
import re
import shlex
import shutil
import sys
import textwrap
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
if sys.version_info[:2] < OLDEST_PYTHON:
    needed, found = (".".join(map(str, version[:2])) for version in (OLDEST_PYTHON, sys.version_info))
    print(f"error: Python {needed} or newer is needed, but {sys.executable} is {found}", file=sys.stderr)
    sys.exit(2)

IMPORTED_AS = {"PIL": "pillow", "yaml": "pyyaml"}  # the names of packages that differ from those of their modules
OS_ERRORS = {
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "exists, but is not a folder. Choose another name",
    errno.ENOTDIR: "part of this path is a file, not a folder. Choose another path",
    errno.EISDIR: "is a folder, not a file. Name a file",
    errno.EACCES: "permission denied. Choose another place, or change its permissions",
    errno.EPERM: "permission denied. Choose another place, or change its permissions",
    errno.ENOSPC: "no space left on the disk. Make room",
    errno.EDQUOT: "your quota of the disk is used up. Make room",
    errno.EROFS: "the disk is read-only. Choose another place",
    errno.ENAMETOOLONG: "this name is too long. Choose a shorter one",
}
MAX_ERROR_LINE = 300  # characters, four rows of a terminal: names in damaged files may have thousands
MAX_ADVICE = 220  # of them, at the end of the line: what to do now, often a command to copy; the rest is for the cause
# Options that only one script has: typed for another one, they tell which is meant.
ONLY_IN = {
    **dict.fromkeys(("--images", "--in_place", "--attention_strips"), "inference_visualize.py"),
    **dict.fromkeys(("--predictions", "--baseline"), "evaluate.py"),
    **dict.fromkeys(("--resume", "--init_from"), "train.py"),
    "--log": "visualize_loss.py",
}
# The options that probably belong before a file of this kind, in scripts that have them.
BY_SUFFIX = {suffix: ["--captions_file"] for suffix in (".csv", ".tsv", ".jsonl")}
BY_SUFFIX |= {".pth": ["--checkpoint", "--resume"], ".safetensors": ["--checkpoint"], ".json": ["--predictions"]}
LISTED = 3  # names in a message; the others are counted
GARBAGE_THRESHOLD = 5_000  # new objects until Python looks for garbage; at its 700, importing torch takes 0.1 s longer

# What moves the cursor, reorders text or ends the line: C0 and C1 control characters, U+2028 and U+2029, embeddings,
# overrides and isolates of bidirectional text. And lone surrogates, which no encoding has.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """An error the user can fix. The message names the file, row or option, and says what to do.

    Attributes:
        command: to run instead; printed whole on a line before the error, whose own length is limited.
    """

    command: str | None = None


class OptionParser(argparse.ArgumentParser):
    """argparse that reports a mistyped option in one line, as any other error, and accepts no abbreviations.

    Args:
        prog: the command, such as "train.py".
        description: what the script does; after a blank line, examples. Scripts pass their doc string.
        first_option: the option that probably belongs before words that follow no option, such as "--images", unless
            their suffix tells another one.
        options: see ``argparse.ArgumentParser``.
    """

    def __init__(
        self, prog: str, description: str | None = None, first_option: str | None = None, **options: Any
    ) -> None:
        self.first_option = first_option
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
            UserError: an option is unknown, or missing before a word.
        """
        parsed, unknown = super().parse_known_args(*args, **kwargs)
        if unknown and unknown[0].startswith("-"):
            option = unknown[0].split("=", maxsplit=1)[0]
            if option == "--images" and "--image_dir" in self._option_string_actions:
                raise UserError(f"unknown option {option}: did you mean '--image_dir'? {ONLY_IN[option]} has {option}")
            if option in ONLY_IN:
                raise UserError(f"unknown option {option}: it is an option of {ONLY_IN[option]}")
            shown = {
                name.lstrip("-"): action.option_strings[0]
                for action in self._actions
                for name in action.option_strings
                if action.help != argparse.SUPPRESS
            }
            near = [shown[name] for name in similar(option.lstrip("-"), list(shown))]
            raise UserError(f"unknown option {option}: {did_you_mean(near) or 'see --help for the valid names'}")
        if unknown and self.first_option:
            known = self._option_string_actions
            options = [*BY_SUFFIX.get(Path(unknown[0]).suffix.lower(), ()), self.first_option]
            option = next(option for option in options if option in known)
            meant = shlex.join(unknown if known[option].nargs == "+" else unknown[:1])
            raise UserError(f"{shlex.join(unknown)}: there is no option before it. Did you mean {option} {meant}?")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Called by argparse for invalid options. The default implementation prints the whole usage and exits.

        Raises:
            UserError: always.
        """
        shorter = re.sub(r"^argument ([^/:]+)[^:]*", r"\1", message)  # of an option with two names, the first
        near = ""
        if choice := re.fullmatch(r"(?:.*: )?invalid choice: '(.*)' \(choose from (.*)\)", shorter):
            near = did_you_mean(similar(choice[1], re.findall(r"[^', ]+", choice[2])))
        raise UserError(f"{shorter}{f': {near}' if near else ' (see --help)'}")


class _PrintVersion(argparse.Action):
    """The version of the project, from CITATION.cff."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        (version,) = re.findall(r'^version: "(.*)"', (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
        say(f"{parser.prog} {version}")
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


def similar_files(path: Path) -> list[str]:
    """The files in its folder that a mistyped path may stand for: without its suffix, or the one most like it."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except (OSError, ValueError):  # no such folder, an unreadable one, or no name that a file can have
        return []
    near = [name for name in names if Path(name).stem == path.name]
    near = near or difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
    return [str(path.with_name(name)) for name in near[:2]]


def positive_int(text: str) -> int:
    """``type`` of an option that takes a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}")
    return int(text)


def in_run_folder(path: Path, name: str) -> Path:
    """The file ``name`` of a run, if ``path`` is the run's folder (such as runs/a); else ``path`` itself."""
    return path / name if path.is_dir() else path


def printable(text: str) -> str:
    r"""``text`` in one line that is safe to show: control characters as escapes such as ``\x1b`` and ``\n``.

    A byte of a file name that is not UTF-8 (a lone surrogate, see ``os.fsdecode``) is shown as ``\xe9`` too.
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\u{byte:04x}" if byte > 0xFF else {9: "\\t", 10: "\\n", 13: "\\r"}.get(byte, f"\\x{byte:02x}")


def say(*lines: str, file: IO[str] | None = None) -> None:
    """Print ``printable`` lines to stdout or to ``file``, above any progress bar. Nothing else prints.

    A reader that has read enough, such as ``head``, ends the output and not the program.

    Raises:
        OSError: stdout is a file that cannot be written, as on a full disk; it is named.
    """
    stream = sys.stdout if file is None else file
    text = "".join(f"{printable(line)}\n" for line in lines)
    try:
        if tqdm := sys.modules.get("tqdm"):  # not imported: there is no bar
            tqdm.tqdm.write(text, file=stream, end="")
        else:
            stream.write(text)
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes once more when it ends
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            error.filename = "standard output"
            raise


def note(*lines: str) -> None:
    """``say`` on stderr, which is for notes, warnings and errors; results go to stdout."""
    say(*lines, file=sys.stderr)


def listed(names: Sequence[object]) -> str:
    """The first of many names and how many there are: "a, b, c and 39 more"."""
    more = len(names) - LISTED
    return ", ".join(map(str, names[:LISTED])) + (f" and {more} more" if more > 0 else "")


def shorten(line: str, limit: int = MAX_ERROR_LINE) -> str:
    """``line`` with at most ``limit`` characters, cut before its last sentences, which say what to do now."""
    if len(line) <= limit:
        return line
    sentences = (match.end() for match in re.finditer(r"[.:;] ", line))
    advice = next((start for start in sentences if len(line) - start <= MAX_ADVICE), len(line) - MAX_ADVICE // 2)
    room = limit - (len(line) - advice) - len(" ... ")
    return f"{line[: room - room // 3]} ... {line[advice - room // 3 :]}"


def run_script(main: Callable[[list[str]], None]) -> None:
    """Run a script's ``main(argv)``; report an error the user can fix as one line on stderr with exit status 2.

    ``--debug`` anywhere on the command line prints the traceback instead. Ctrl-C exits with status 130. Letters that
    the encoding of the terminal, or of the file that output is redirected to, does not have are printed as escapes.

    Raises:
        ModuleNotFoundError: of a module that is not in a package of requirements*.txt.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:]
    debug = "--debug" in argv
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        main([argument for argument in argv if argument != "--debug"])
    except (UserError, OSError, ModuleNotFoundError) as error:
        message = _message(error)
        if message is None:
            raise
        if isinstance(error, UserError) and error.command:
            note(f"because of the error below, run instead: {error.command}")
        if debug:
            traceback.print_exc()
        else:
            note(_error_line(message))
        sys.exit(2)
    except KeyboardInterrupt:
        note("interrupted")
        sys.exit(130)
    finally:
        # At its end Python looks for garbage among torch's 200,000 objects several times, which takes 0.3 s. Only
        # triton, which training imports, would complain about objects that were not freed.
        if "triton" not in sys.modules:
            gc.freeze()


def _message(error: Exception) -> str | None:
    """What to tell the user; None if the error is a bug."""
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    return describe(error) if isinstance(error, OSError) else str(error)


def describe(error: OSError) -> str:
    """The file, what is wrong with it, and what to do."""
    reason = OS_ERRORS.get(error.errno or 0, error.strerror) or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if error.filename else reason


def _error_line(message: str) -> str:
    """One line of at most MAX_ERROR_LINE characters, as many as the terminal's encoding makes of them."""
    line = printable(re.sub(r"\s*[\r\n]\s*", " ", f"error: {message.strip()}"))
    encoding = sys.stderr.encoding or "utf-8"
    return shorten(line.encode(encoding, "backslashreplace").decode(encoding))


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
