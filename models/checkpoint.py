"""A checkpoint file: how it is written, read and checked."""

from pathlib import Path
from typing import Any

import torch

from cli import UserError, did_you_mean, similar_files
from files import atomic_open
from models.checkpoint_schema import check_types
from models.safetensors_file import is_safetensors, read_safetensors, save_safetensors
from models.torch_file import is_finite, read_torch

FORMAT_VERSION = 1
SAFETENSORS = ".safetensors"
GROUP = 32  # quantized weights that share a scale; one scale per row costs 0.6 CIDEr points, this 0.2


def save_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write a dict of plain values (state_dicts, lists, numbers) atomically; for its keys see ``load_checkpoint``.

    Args:
        path: ends in .safetensors, or else the file is one of ``torch.save``.

    Raises:
        UserError: see ``save_torch``.
        OSError, ModuleNotFoundError: see ``save_safetensors``.
    """
    save = save_safetensors if Path(path).suffix == SAFETENSORS else save_torch
    save(path, {"format_version": FORMAT_VERSION, **checkpoint})


def save_torch(path: str | Path, content: dict[str, Any]) -> None:
    """``torch.save``, but atomic: for a checkpoint, or a bare state_dict.

    Raises:
        UserError: the file cannot be written, such as on a full disk; an earlier file at ``path`` is untouched.
    """
    try:
        with atomic_open(path, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch's writer reports any failure as a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__ or error
        if not isinstance(cause, OSError):
            raise cause from None  # such as KeyboardInterrupt
        raise UserError(
            f"{path}: cannot be written ({cause}). An earlier file of that name is untouched; make room on the disk"
        ) from error


def dequantize(checkpoint: dict[str, Any], path: str | Path = "checkpoint") -> dict[str, Any]:
    """The checkpoint with its weights in fp32, if models/quantize.py has quantized them; else as it is.

    Raises:
        UserError: weights and scales do not fit; ``path`` is for the message.
    """
    model = dict(checkpoint["model"])
    for name, scale in checkpoint.get("scales", {}).items():
        whole = model.get(name)
        if whole is None or whole.dtype != torch.int8 or scale.shape != (whole.numel() / GROUP,):
            raise UserError(f"{path}: damaged weights (the scales of {name[:80]} do not fit). Copy the file again")
        model[name] = (whole.reshape(-1, GROUP) * scale.float()[:, None]).view(whole.shape)
        if not is_finite(model[name]):
            raise UserError(f"{path}: damaged weights ({name[:80]} holds NaN or infinity). Copy the file again")
    return {**{key: value for key, value in checkpoint.items() if key != "scales"}, "model": model}


def read_weights(path: Path, name: str, kind: str) -> Any:
    """The content of a file of ``torch.save`` or in the safetensors format; see ``read_torch``."""
    read = read_safetensors if is_safetensors(path) else read_torch
    return read(path, name, kind)


def load_checkpoint(path: str | Path, *, keep_quantized: bool = False) -> dict[str, Any]:
    """Read a checkpoint, which a stranger may have made, onto the CPU: plain values, and tensors of finite numbers.

    Quantized weights are dequantized, unless ``keep_quantized``.

    Returns:
        at least ``model`` (state_dict), ``config``, ``vocab`` and ``transform``; see ``Captioner.checkpoint``. They
        have the right types; ``Captioner.from_checkpoint`` checks the rest.

    Raises:
        UserError: no such file, not a checkpoint, damaged, or written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        what = "a device or a pipe, not a checkpoint" if path.exists() and not path.is_dir() else "no such checkpoint"
        inside = [str(file) for file in sorted(path.parent.glob("*.pth"))[:2]] if path.name == "checkpoints.pth" else []
        near = (
            did_you_mean(similar_files(path) or inside)
            or "Train one with `python train.py`, or name another (--checkpoint)"
        )
        raise UserError(f"{path}: {what}. {near[0].upper()}{near[1:]}")
    with path.open("rb") as file:
        # torch writes zip files; this one may be cut off
        if file.read(2) not in (b"PK", b"P", b"") and not is_safetensors(path):
            raise UserError(f"{path}: not a checkpoint, which is a file that train.py has written. Name another one")
    checkpoint = read_weights(path, str(path), "checkpoint")
    version = checkpoint.get("format_version") if isinstance(checkpoint, dict) else None
    if type(version) is not int or version < 1:
        raise UserError(
            f"{path}: not a checkpoint of this project (it has no valid 'format_version'). Name one that train.py wrote"
        )
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path}: written by a newer version (format {version}, this is {FORMAT_VERSION}). Update the code"
        )
    if "model" in checkpoint and not checkpoint.keys() & {"config", "vocab", "transform"}:
        raise UserError(
            f"{path}: the weights of an encoder, not of a captioner. They are for `train.py --encoder.weights`"
        )
    check_types(checkpoint, path)
    return checkpoint if keep_quantized else dequantize(checkpoint, path)
