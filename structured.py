"""JSON and YAML from strangers, read within limits: of bytes, values and nesting, before anything large is built."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import UserError, did_you_mean, similar_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import yaml

MB = 2**20
MAX_JSON_BYTES = 160 * MB  # Karpathy's dataset_coco.json has 144 MB, COCO's captions_train2017.json 90 MB
MAX_LINES_BYTES = 512 * MB  # of JSON lines: 3 million captions
MAX_LINE_BYTES = 4 * MB  # of one of them: a caption with its attention maps takes 10 KB
MAX_CONTAINERS = 3_000_000  # lists and objects, about 200 bytes each; dataset_coco.json has 1.6 million
MAX_VALUES = 12_000_000  # about 60 bytes each; dataset_coco.json has 10 million
MAX_DEPTH = 32  # lists and objects in each other; a config has 5 levels. Deep recursion would end the process
MAX_YAML_BYTES = 2**16  # the longest recipe has 3 KB; PyYAML reads about 50 KB a second
MAX_INTEGER = 2**64 - 1  # what torch and NumPy can hold; ids and hashes have 64 bits
COLLECTIONS = (list, tuple, set, frozenset)
TOO_DEEP = f"more than {MAX_DEPTH} lists or objects in each other. Name another file"
ADVICE_YAML = (  # (what PyYAML says, what to do about it)
    (r"'\\t' that cannot start", "a tab. Indent with blanks"),
    (r"expected <block end>, but found '<|\?|-", "indented otherwise than the lines it belongs to. Align them"),
    ("mapping values are not allowed", "a colon that belongs to no option. Write 'option: value' and align options"),
    ("could not find expected ':'", "no colon. Write 'option: value'"),
    ("that cannot start any token", "a special character. Put the value in quotes"),
    ("unexpected end of stream", "the end of the file in a quoted text. Close the quotes"),
    ("another document", "a second document. Keep one"),
    ("constructor for the tag", "a special character. Put the value in quotes"),
)


def read_file(path: Path, max_bytes: int, place: str = "") -> bytes:
    """The bytes of a regular file.

    Args:
        place: what to call the file in messages, such as "--config my.yaml"; its path if empty.

    Raises:
        UserError: no such file, not a regular file, or more than ``max_bytes``.
    """
    check_file(path, max_bytes, place)
    with path.open("rb") as file:
        return file.read(max_bytes)


def check_file(path: Path, max_bytes: int, place: str = "") -> None:
    """Refuse what is no regular file (reading a pipe or a device might never end) or is too large; as ``read_file``."""
    place = place or str(path)
    if not path.is_file():
        if path.is_dir():
            raise UserError(f"{place}: a folder, not a file. Name a file")
        if path.exists():
            raise UserError(f"{place}: a device, a pipe or a socket, not a file. Copy its content into a file")
        near = did_you_mean(similar_files(path))
        raise UserError(f"{place}: no such file{f': {near}' if near else ''}")
    check_size(path.stat().st_size, max_bytes, place)


def check_size(size: int, max_bytes: int, place: str) -> None:
    """Refuse more than ``max_bytes``.

    Raises:
        UserError: ``size`` is larger.
    """
    if size > max_bytes:
        limit = f"{max_bytes // MB} MB" if max_bytes >= MB else f"{max_bytes // 1024} KB"
        raise UserError(f"{place}: more than {limit}, the limit for such a file. Name another one")


def read_json(path: Path, place: str = "") -> Any:
    """The value in a JSON file; see ``read_file`` and ``parse_json``."""
    return parse_json(read_file(path, MAX_JSON_BYTES, place), place or str(path))


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(number of the line, its value) for each line of a file of JSON lines that is not blank.

    Raises:
        UserError: not a regular file, or a line that is no JSON or passes a limit.
    """
    check_file(path, MAX_LINES_BYTES)
    containers = values = 0
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            check_size(len(line), MAX_LINE_BYTES, f"{path}: line {number}")
            containers, values = containers + line.count(b"[") + line.count(b"{"), values + line.count(b",")
            _check_count(containers, values, str(path))
            if line.strip():
                yield number, parse_json(line, f"{path}: line {number}")


def parse_json(data: bytes | str, place: str) -> Any:
    """The value that JSON in UTF-8 stands for; what is returned has passed ``check_values``.

    Args:
        place: file and line, for messages.

    Raises:
        UserError: not JSON in UTF-8, or larger than the limits; the size is checked before values are built.
    """
    check_size(len(data), MAX_JSON_BYTES, place)
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not JSON in UTF-8 ({error.reason} at byte {error.start})") from error
    _check_count(text.count("[") + text.count("{"), text.count(","), place)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError:
        raise UserError(f"{place}: {TOO_DEEP}") from None
    except ValueError:  # Python reads no longer ones, because that takes quadratic time
        raise UserError(f"{place}: a number of more than 4,300 digits. Correct it") from None
    check_values(value, place)
    return value


def _check_count(containers: int, values: int, place: str) -> None:
    if containers > MAX_CONTAINERS or values > MAX_VALUES:
        raise UserError(f"{place}: more than {MAX_CONTAINERS:,} lists and objects or {MAX_VALUES:,} values. Split it")


def check_values(value: Any, place: str, max_values: int = MAX_VALUES) -> None:
    """Check a nested value that another reader has built, such as the config in a checkpoint, before it is used.

    Afterwards recursive code (``repr``, ``copy.deepcopy``, JSON and YAML writers) can process it: it is not deep, holds
    no cycle, its integers fit into 64 bits, and it has no half characters, but for those in which Python keeps file
    names that are not UTF-8. A value that is contained several times counts as often. Objects that are neither dict,
    list, tuple, set, text nor integer are not looked into.

    Args:
        max_values: how many values there may be, with those in lists and objects.

    Raises:
        UserError: the value passes a limit.
    """
    level, count = [value], 1
    for _ in range(MAX_DEPTH + 2):  # the values of one depth after the other
        below, keys = list[Any](), set[Any]()
        for each in level:
            if isinstance(each, dict):
                keys.update(each)
                inner: Iterable[Any] = each.values()
            elif isinstance(each, COLLECTIONS):
                inner = each
            else:
                _check_leaf(each, place)
                continue
            count += len(each)
            if count > max_values:
                raise UserError(f"{place}: more than {max_values:,} values. Name another file")
            for entry in inner:
                kind = type(entry)
                if kind is str and entry.isascii():  # most entries, here as below: checked in the fastest way
                    continue
                if kind is not int or not -MAX_INTEGER <= entry <= MAX_INTEGER:
                    below.append(entry)
        if not below and not keys:
            return
        level = [*below, *keys]
    raise UserError(f"{place}: {TOO_DEEP}")


def _check_leaf(value: Any, place: str) -> None:
    r"""Refuse huge integers, and half characters, as "\ud800" stands for in JSON and YAML: no file can hold them."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UserError(f"{place}: an integer of more than 64 bits. Correct it")
    try:
        if isinstance(value, str):
            value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        around = value[max(error.start - 20, 0) : error.end + 20]
        raise UserError(f"{place}: half a character (a lone surrogate) in {around!r}. Correct the text") from None


def read_yaml(path: Path, place: str = "") -> Any:
    """The value in a YAML file; see ``read_file`` and ``parse_yaml``."""
    place = place or str(path)
    data = read_file(path, MAX_YAML_BYTES, place)
    try:
        return parse_yaml(data.decode("utf-8"), place)
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not a text file in UTF-8. Name a YAML file, such as config.yaml") from error


def _key_given_twice(node: yaml.Node | None) -> tuple[str, int, int] | None:
    """A key that a mapping in the node has twice, of which YAML keeps the last; with the lines of both."""
    import yaml

    lines: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in lines:
                return name, lines[name], line
            lines[name] = line
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    values = [child[1] if isinstance(child, tuple) else child for child in children]
    return next(filter(None, map(_key_given_twice, values)), None)


def parse_yaml(text: str, place: str) -> Any:
    """The value that YAML stands for; what is returned has passed ``check_values``.

    Aliases (``*name``) are refused: a few lines with them can stand for gigabytes, or contain themselves.

    Args:
        place: file or option, for messages.

    Raises:
        UserError: not YAML, or larger than the limits; size and nesting are checked before values are built.
    """
    import yaml

    check_size(len(text), MAX_YAML_BYTES, place)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            line = f"{place}: line {event.start_mark.line + 1}"
            if depth > MAX_DEPTH:
                raise UserError(f"{line}: {TOO_DEEP}")
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{line}: an alias (*{event.anchor[:40]}). Write out the value that it stands for")
            if tag := getattr(event, "tag", None):
                raise UserError(f"{line}: a tag ({tag[:40]}), which options never have. Name a file of options")
        if twice := _key_given_twice(yaml.compose(text, Loader=yaml.SafeLoader)):
            key, first, second = twice
            raise UserError(f"{place}: line {second}: '{key}' is in line {first} already. Remove one of them")
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not YAML: {_what_and_where(error)}") from error
    except UserError:
        raise
    except (ValueError, OverflowError) as error:  # what looks like a date or a number, but is none
        raise UserError(f"{place}: not YAML: {error}. Put such a text in quotes") from error
    check_values(value, place)
    return value


def _what_and_where(error: Exception) -> str:
    """What PyYAML cannot read, what to do about it, and where."""
    mark, problem = getattr(error, "problem_mark", None), str(getattr(error, "problem", None))
    if mark is None:
        return str(error)
    said = next((words for pattern, words in ADVICE_YAML if re.search(pattern, problem)), problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}"
