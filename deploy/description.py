"""captioner.json: what must be known of an exported captioner besides its graphs."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import structured
from cli import UserError
from config import GenerateConfig
from config_parser import build
from deploy.options import FILE, FORMAT_VERSION
from deploy.search import Special

NEXT = "next."  # before the names of the state that step.onnx returns: a graph's inputs and outputs differ in name
EXPORT = "python -m tools.export_onnx CHECKPOINT"  # what makes a folder with one


class Blanks(NamedTuple):
    """Which tokens are written together; between all others there is a blank."""

    not_before: frozenset[str]  # such as "'s"
    not_after: frozenset[str]  # such as "$"
    not_between: frozenset[tuple[str, str]]  # such as "can", "not"

    def join(self, tokens: list[str]) -> str:
        """The readable text of tokens."""
        text = "".join(tokens[:1])
        for pair in pairwise(tokens):
            together = pair[0] in self.not_after or pair[1] in self.not_before or pair in self.not_between
            text += pair[1] if together else f" {pair[1]}"
        return text


@dataclass(frozen=True)
class Description:
    """The content of captioner.json.

    Args:
        words: the tokens of the vocabulary, by id.
        state: the names of what the decoder remembers of each hypothesis: outputs of start.onnx, inputs and outputs of
            step.onnx.
        memory: the names of what it remembers of each image: outputs of start.onnx, inputs of step.onnx.
        grid: rows and columns of the encoder's features.
        attends: whether step.onnx returns attention.
        learned_from: drawings, photographs, or None: not known.
    """

    generate: GenerateConfig
    image_size: int
    mean: list[float]
    std: list[float]
    words: list[str]
    special: Special
    blanks: Blanks
    state: list[str]
    memory: list[str]
    grid: tuple[int, int]
    attends: bool
    learned_from: str | None


def read_description(folder: Path) -> Description:
    """Read the file in ``folder``.

    Raises:
        UserError: there is none, or it is damaged, or of a newer version.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder}: no exported captioner (it has no {FILE}). Export one: {EXPORT} {folder}")
    values = structured.read_json(path)
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise UserError(f"{path}: format {version}, this version reads {FORMAT_VERSION}. Update the code")
    generate, problems = build(GenerateConfig, values.get("generate") if isinstance(values, dict) else None)
    try:
        if problems:
            raise ValueError(problems[0])
        return _checked(values, generate)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}). Export it again: {EXPORT}") from error


def _checked(values: dict[str, Any], generate: GenerateConfig) -> Description:
    transform, special, blanks = values["transform"], values["special"], values["blanks"]
    words = _texts(values["words"])
    ids = [special["start"], special["end"], *special["never"]]
    if not all(type(number) is int and 0 <= number < len(words) for number in ids):
        raise ValueError("special: ids of words are whole numbers")
    rows, columns = values["grid"]
    return Description(
        generate,
        int(transform["image_size"]),
        [float(value) for value in transform["mean"]],
        [float(value) for value in transform["std"]],
        words,
        Special(special["start"], special["end"], special["never"]),
        Blanks(
            frozenset(_texts(blanks["not_before"])),
            frozenset(_texts(blanks["not_after"])),
            frozenset((one, other) for one, other in map(_texts, blanks["not_between"])),
        ),
        _texts(values["state"]),
        _texts(values["memory"]),
        (int(rows), int(columns)),
        bool(values["attends"]),
        values.get("learned_from"),
    )


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of texts is needed")
    return values
