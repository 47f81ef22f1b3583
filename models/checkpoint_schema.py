"""What a checkpoint must hold: config, words, transform and weights are checked before a model is built from them.

The values come from ``models.torch_file``, so they are plain and finite; here they get their
meaning. The ranges of options, such as the number of layers, are those of config.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from cli import UserError, listed
from config import Config, config_from_dict
from data.images import LearnedFrom
from data.tokenizer import TOKENIZERS
from data.transforms import Transform
from data.vocab import Vocabulary

CHANNELS = 3  # of an image: red, green, blue
MEAN = (-1e3, 1e3)  # of a channel, of which 0-1 is the full range; Keras's "caffe" mode has 0.4
STD = (1e-3, 1e3)  # more than 0; Keras's "caffe" mode has 1/255
SHOWN_NAME = 50  # characters of a tensor's name in a message: the longest of a ResNet have 40
KINDS = {"vocab": list, "config": dict, "transform": dict, "model": dict}  # of the parts that all checkpoints have
DICTS: dict[str, type | tuple[type, ...]] = {"scores": (int, float), "training": object}  # others: what they hold


@dataclass(frozen=True)
class Parts:
    """What a captioner is built from."""

    config: Config
    vocabulary: Vocabulary
    transform: Transform
    learned_from: LearnedFrom | None
    weights: dict[str, torch.Tensor]  # of encoder and decoder
    rerank: dict[str, Any] | None  # of models/rerank.py, which checks it


def read_parts(checkpoint: Mapping[str, Any], name: str | Path) -> Parts:
    """Check the parts of a checkpoint (its keys: ``Captioner.checkpoint``), but not yet whether its weights fit.

    Args:
        name: of the file, for the messages.

    Raises:
        UserError: a part is missing, or of another type or range.
    """
    check_types(checkpoint, name)
    try:
        config = config_from_dict(checkpoint["config"])
        words = checkpoint["vocab"]
        if not all(isinstance(word, str) for word in words):
            raise ValueError("vocabulary: its words must be texts")
        vocabulary = Vocabulary(words, TOKENIZERS[config.data.tokenizer])
        transform = _transform(checkpoint["transform"])
    except ValueError as error:
        raise UserError(f"{name}: {error}. Use another checkpoint, or the version of the code that wrote it") from error
    return Parts(
        config, vocabulary, transform, checkpoint.get("learned_from"), checkpoint["model"], checkpoint.get("rerank")
    )


def check_types(checkpoint: Mapping[str, Any], name: str | Path) -> None:
    """Refuse a checkpoint with parts that are missing or of another type.

    Raises:
        UserError: it names the parts.
    """
    missing = [part for part in KINDS if part not in checkpoint]
    wrong = [part for part, kind in KINDS.items() if part not in missing and not isinstance(checkpoint[part], kind)]
    if missing or wrong:
        raise UserError(
            f"{name}: parts of the checkpoint are missing or damaged ({', '.join(missing + wrong)}). "
            "Copy it again, or retrain"
        )
    check_tensors(checkpoint, name)
    for part, kind in DICTS.items():
        values = checkpoint.get(part, {})
        if not isinstance(values, dict) or not all(isinstance(value, kind) for value in values.values()):
            raise UserError(f"{name}: '{part}' of the checkpoint is damaged. Copy it again, or retrain")
    if checkpoint.get("learned_from") not in (None, *get_args(LearnedFrom)):
        raise UserError(f"{name}: 'learned_from' must be one of {', '.join(get_args(LearnedFrom))}")


def check_tensors(content: Mapping[str, Any], name: str | Path) -> None:
    """Refuse weights, and scales of quantized weights, that are not names -> tensors.

    Raises:
        UserError: it names the part.
    """
    for part in ("model", "scales"):
        values = content.get(part, {})
        if not isinstance(values, dict) or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in values.items()
        ):
            raise UserError(f"{name}: '{part}' must be names with their tensors. Copy the file again, or retrain")


def misfits(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Why ``weights`` cannot be loaded into a model whose state_dict is ``wanted``, on any device; "" if they can.

    Their precision may differ, but whole numbers are no weights.
    """
    common = weights.keys() & wanted.keys()
    other = [
        f"{key} {_kind(weights[key])}, not {_kind(wanted[key])}"
        for key in sorted(common)
        if weights[key].shape != wanted[key].shape or weights[key].is_floating_point() < wanted[key].is_floating_point()
    ]
    found = {
        "missing": [key for key in wanted if key not in common],
        "unexpected": [key[:SHOWN_NAME] for key in weights if key not in common],
        "different": other,
    }
    return "; ".join(f"{how}: {listed(names)}" for how, names in found.items() if names)


def _kind(tensor: torch.Tensor) -> str:
    shape = " x ".join(map(str, tensor.shape)) or "a number"
    return shape if tensor.is_floating_point() else f"{shape} (whole)"


def _transform(values: Mapping[str, Any]) -> Transform:
    """The transform saved in a checkpoint; its size is compared with the encoder's later.

    Raises:
        ValueError: a value is missing, or of another type or range.
    """
    for key, (low, high) in {"mean": MEAN, "std": STD}.items():
        numbers = values.get(key)
        if not isinstance(numbers, list) or len(numbers) != CHANNELS:
            raise ValueError(f"transform: {key} must be {CHANNELS} numbers")
        if not all(type(number) in (int, float) and low <= number <= high for number in numbers):
            raise ValueError(f"transform: {key} must be in [{low:g}, {high:g}]")
    if type(values.get("image_size")) is not int:
        raise ValueError("transform: image_size must be a whole number")
    return Transform.from_dict(dict(values))
