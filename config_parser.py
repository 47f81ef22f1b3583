"""Options as dataclasses: built from nested dicts (YAML, checkpoints), checked, and offered on the command line.

A field made by ``option`` carries its help text and the interval of its value; one made by ``section`` holds another
dataclass, or one of several that the option ``name`` in it selects. What there is to set: config.py.
"""

import argparse
import contextlib
import copy
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import structured
from cli import ROOT, UserError, did_you_mean, similar, similar_files

KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
MAX_SHOWN = 80  # characters of a value in a message, which names several
PLACEHOLDERS = {int: "N", float: "X", bool: "true|false"}  # of a value, in --help


def option(default: Any, text: str, within: str = "", *, short: bool = False) -> Any:
    """A field with its default and help text.

    Args:
        within: the interval of its value, such as "[0, 1)" or "[1, inf)".
        short: the command line also knows it without its section, as it is called in the scripts that have no sections.
    """
    return field(default=default, metadata={"help": text, "within": within, "short": short})


def section(default: Callable[[], Any], choices: Mapping[str, type[Any]] | None = None) -> Any:
    """A field that holds another dataclass of options.

    Args:
        default: the dataclass, if there are no choices or no name is given.
        choices: dataclasses by the value of the option ``name`` that selects them.
    """
    return field(default_factory=default, metadata={"default": default, "choices": choices or {}})


@dataclass(frozen=True)
class Leaf:
    """One option as the command line knows it."""

    name: str  # such as train.seed
    hint: Any  # its type
    default: Any
    text: str
    short: bool


@dataclass(frozen=True)
class Problems:
    """What is wrong with the values of a config."""

    names: Sequence[str]  # of all its options
    found: list[str] = field(default_factory=list)

    def unknown(self, section: str, key: str, fields: Iterable[str], whose: str) -> None:
        """An option that ``section`` does not have: one of its own may be meant, or one of another section."""
        near = [f"{section}{each}" for each in similar(key, list(fields))] or similar(f"{section}{key}", self.names)
        hint = did_you_mean(each for each in near if each != f"{section}{key}") or f"it has {', '.join(fields)}"
        self.found.append(f"unknown option '{section}{key}'{whose}: {hint}")


def build(cls: type[Any], values: Any) -> tuple[Any, list[str]]:
    """Make the dataclass ``cls`` from nested dicts; nothing is ignored.

    Returns:
        the dataclass, and what is wrong with the values; there, the default takes its place.
    """
    problems = Problems([leaf.name for leaf in leaves(cls)])
    return _build(cls, values, problems), problems.found


def _build(cls: type[Any], values: Any, problems: Problems, name: str = "", whose: str = "") -> Any:
    """The section ``name``, such as "train"; ``whose``: if an option is unknown, which choice does not have it."""
    if not isinstance(values, dict):
        problems.found.append(f"{name or 'the config'} must be a section of options, got {_short(values)}")
        return cls()
    hints, made = typing.get_type_hints(cls), {}
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key, value in values.items():
        full = f"{name}.{key}".lstrip(".")
        if key not in fields:
            problems.unknown(name and f"{name}.", str(key), fields, whose)
            continue
        hint, metadata = hints[key], fields[key].metadata
        try:
            if dataclasses.is_dataclass(hint):
                made[key] = _section(value, metadata, problems, full)
            elif typing.get_origin(hint) is list:
                (item,) = typing.get_args(hint)
                made[key] = [_build(item, each, problems, f"{full}[{n}]") for n, each in enumerate(_list(value))]
            else:
                made[key] = _leaf(hint, value, metadata["within"])
        except ValueError as error:
            problems.found.append(f"{full} {error}, got {_short(value)}")
    return cls(**made)


def _section(value: Any, metadata: Mapping[str, Any], problems: Problems, name: str) -> Any:
    choices, default = metadata["choices"], metadata["default"]
    if choices and isinstance(value, str):
        near = [value] if value in choices else similar(value, list(choices))
        hint = " or ".join(f"--{name} '{{name: {each}}}'" for each in near or choices)
        problems.found.append(f"{name} is a section of options, got {value[:40]!r}: did you mean {hint}?")
        return default()
    if not choices or not isinstance(value, dict):
        return _build(default, value, problems, name)
    chosen = value.get("name", default().name)
    if not isinstance(chosen, str) or chosen not in choices:
        problems.found.append(f"{name}.name must be one of {', '.join(choices)}, got {_short(chosen)}")
        return default()
    whose = f" for {name}.name '{chosen}' (for its defaults, replace the section: --{name} '{{name: {chosen}}}')"
    return _build(choices[chosen], value, problems, name, whose)


def _short(value: Any) -> str:
    """A value for a message, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("must be a list")
    return value


def _leaf(hint: Any, value: Any, interval: str) -> Any:
    """The value of one option.

    Raises:
        ValueError: of the wrong type, or outside its interval.
    """
    kinds = _kinds(hint)
    if value is None and types.NoneType in kinds:
        return None
    kind = kinds[0]
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(f"must be one of {', '.join(typing.get_args(kind))}")
        return value
    if kind is float and type(value) in (int, str):
        with contextlib.suppress(ValueError, OverflowError):  # reported below
            value = float(value)  # YAML takes 1e-3 for text
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"must be {KINDS[kind]}")
    if interval and not _inside(value, interval):
        raise ValueError(f"must be in {interval}" if "inf" not in interval else _at_least(interval))
    return value


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _inside(value: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    return above and (value < high if interval[-1] == ")" else value <= high)


def _at_least(interval: str) -> str:
    low = interval[1:].split(",", maxsplit=1)[0]
    return f"must be more than {low}" if interval[0] == "(" else f"must be {low} or more"


def leaves(cls: type[Any], prefix: str = "") -> Iterator[Leaf]:
    """Every option of a dataclass and its sections; those of a list's items under the list's name."""
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        name, hint = prefix + f.name, hints[f.name]
        if dataclasses.is_dataclass(hint):
            choices: Mapping[str, type[Any]] = f.metadata["choices"] or {"": typing.cast(type[Any], hint)}
            yield from _choices(choices, f"{name}.")
            continue
        default = f.default if f.default is not dataclasses.MISSING else None
        yield Leaf(name, hint, default, f.metadata["help"], f.metadata.get("short", False))
        if typing.get_origin(hint) is list:
            yield from leaves(typing.get_args(hint)[0], f"{name}.")


def _choices(choices: Mapping[str, type[Any]], prefix: str) -> Iterator[Leaf]:
    """The options of all choices, each once, with the choices that have it and the defaults where these differ."""
    found: dict[str, list[tuple[str, Leaf]]] = {}
    for kind, cls in choices.items():
        for leaf in leaves(cls, prefix):
            found.setdefault(leaf.name, []).append((kind, leaf))
    for its in found.values():
        leaf, default = its[0][1], its[0][1].default
        text = leaf.text + ("" if len(its) == len(choices) else f" ({', '.join(kind for kind, _ in its)} only)")
        if leaf.name == f"{prefix}name" and "" not in choices:
            text = f"{text}: {', '.join(choices)}"
        if any(each.default != default for _, each in its):
            default = ", ".join(f"{each.default} for {kind}" for kind, each in its)
        yield dataclasses.replace(leaf, text=text, default=default)


def add_options(parser: argparse.ArgumentParser, cls: type[Any]) -> None:
    """Command-line options for every option of ``cls``, in a group for each section, and one for each whole section.

    What was parsed is text or what YAML makes of it; ``nested`` collects it for ``build``.
    """
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    hints = typing.get_type_hints(cls)
    for leaf in leaves(cls):
        place = leaf.name.rpartition(".")[0]
        if place not in groups:
            groups[place] = _group(parser, place, hints[place])
        kind = _kinds(leaf.hint)[0]
        is_list = typing.get_origin(leaf.hint) is list
        if is_list:
            groups[leaf.name] = _group(parser, leaf.name, typing.get_args(leaf.hint)[0])
        read: Callable[[str], Any] = str if kind is str or typing.get_origin(kind) is Literal else _yaml
        if kind is str and types.NoneType in _kinds(leaf.hint):
            read = _text_or_null
        default = "" if is_list else f" (default: {_shown(leaf.default)})"
        groups[place].add_argument(
            f"--{leaf.name}",
            *([f"--{leaf.name.rpartition('.')[2]}"] if leaf.short else []),
            dest=leaf.name,
            type=read,
            metavar=_placeholder(leaf.name, kind),
            default=argparse.SUPPRESS,
            help=f"{leaf.text}{default}".replace("%", "%%"),
        )
    for f in (f for f in dataclasses.fields(cls) if "choices" in f.metadata):
        choices = f.metadata["choices"]
        text = f"replace the whole section, such as '{{name: {list(choices)[-1]}}}'" if choices else argparse.SUPPRESS
        groups[f.name].add_argument(f"--{f.name}", type=_yaml, default=argparse.SUPPRESS, metavar="YAML", help=text)


def _group(parser: argparse.ArgumentParser, name: str, section: type[Any]) -> argparse._ArgumentGroup:
    return parser.add_argument_group(name, " ".join((section.__doc__ or "").split()))


def _placeholder(name: str, kind: Any) -> str:
    """What --help shows for a value: its choices, its type, or the option's name."""
    if typing.get_origin(kind) is Literal:
        return "|".join(typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return "YAML"
    return PLACEHOLDERS.get(kind) or re.sub(r".*_(?=FILE|DIR)", "", name.rpartition(".")[2].upper())


def _shown(default: Any) -> str:
    return default if isinstance(default, str) else json.dumps(default)  # null, true and false as in YAML


def _text_or_null(text: str) -> str | None:
    return None if text == "null" else text


def _yaml(text: str) -> Any:
    try:
        return structured.parse_yaml(text, "")
    except UserError:
        return text  # not of the type that is wanted, which ``build`` reports by name


def merge(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """``values`` with those of ``others``, which win, section by section; lists are taken whole."""
    merged = dict(values)
    for key, other in others.items():
        mine = merged.get(key)
        merged[key] = merge(mine, other) if isinstance(mine, dict) and isinstance(other, dict) else other
    return merged


def nested(parsed: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """``values``, nested dicts, with the parsed options such as "train.seed", which win.

    A whole section replaces what was there, then its single options are set. An option of a list's items, such as
    "train.stages.lr", is set in the last of them.
    """
    result = copy.deepcopy(values)
    for name in sorted(parsed, key=lambda name: name.count(".")):
        *path, last = name.split(".")
        place: Any = result
        for part in path:
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
            place = place[-1] if isinstance(place, list) and place else place
        if isinstance(place, dict):  # else the section is not one, which ``build`` reports
            place[last] = parsed[name]
    return result


def read_yaml(file: str) -> dict[str, Any]:
    """The options in a YAML file.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    path, place = Path(file), f"--config {file}"
    if path.is_file():
        with path.open("rb") as opened:
            if opened.read(2) == b"PK":  # a zip file, as torch writes it
                raise UserError(
                    f"{place}: a checkpoint, not a YAML file. The options of its run are in the resolved_config.yaml "
                    "next to it; to continue its run, use --resume"
                )
    if not path.exists() and not similar_files(path):
        recipes = ROOT / "configs"
        recipes = recipes.relative_to(Path.cwd()) if recipes.is_relative_to(Path.cwd()) else recipes
        if near := did_you_mean(similar_files(recipes / path.name)):
            raise UserError(f"{place}: no such file: {near}")
    values = structured.read_yaml(path, place)
    if values is None:
        raise UserError(f"{place}: is empty. Write options into it, such as 'train: {{seed: 3}}', or omit --config")
    if not isinstance(values, dict):
        raise UserError(f"{place}: not a mapping of options to values, such as 'train: {{seed: 3}}'")
    return values
