"""Files in the safetensors format, which holds numbers and texts only (https://huggingface.co/docs/safetensors).

A checkpoint is one such file: its weights have the names of the state_dict, and each other part, such as ``config`` and
``vocab``, is JSON in the metadata. A file without ``format_version`` is read as a bare state_dict.
"""

import json
from pathlib import Path
from typing import Any

import torch

from files import atomic_open
from models.torch_file import check_index, plain_copy, refusing, utf8_path
from structured import parse_json

SCALES = "scales."  # before the names of a quantized checkpoint's scales
RERANK = "rerank."  # before the names of what a checkpoint reranks by
TENSORS = ("model", "scales")  # the parts of a checkpoint that are tensors
PYTORCH = {"format": "pt"}  # tells other programs which library wrote the file


def is_safetensors(path: Path) -> bool:
    """By its first bytes: the length of the index in 8 bytes, then its JSON. A zip file, as torch writes, never is."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_safetensors(path: Path, name: str, kind: str) -> dict[str, Any]:
    """A checkpoint, or names with their tensors; see ``models.torch_file.read_torch``.

    Raises:
        UserError: the file is damaged, too large, or holds something else than a checkpoint or a state_dict does.
        ModuleNotFoundError: safetensors is not installed.
    """
    from safetensors import safe_open

    with refusing(name, kind):
        size = path.stat().st_size
        with path.open("rb") as start:
            check_index(int.from_bytes(start.read(8), "little"), size)
        with utf8_path(path) as place, safe_open(place, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 # it is no dict
            if "format_version" not in metadata:
                return {key: plain_copy(tensor, size) for key, tensor in tensors.items()}
            parts = {
                key: parse_json(text, f"{name}: '{key[:50]}'") for key, text in metadata.items() if key not in PYTORCH
            }
            scales, rerank = (
                {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
                for prefix in (SCALES, RERANK)
            )
            if rerank:
                parts["rerank"] = {**parts.get("rerank", {}), **rerank}
            content = {**parts, "model": tensors, **({"scales": scales} if scales else {})}
            copy: dict[str, Any] = plain_copy(content, size)
            return copy


def save_safetensors(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint without the state of training atomically.

    Raises:
        OSError: the file cannot be written.
        ModuleNotFoundError: safetensors is not installed.
    """
    from safetensors.torch import save

    tensors = {**checkpoint["model"], **{SCALES + key: scale for key, scale in checkpoint.get("scales", {}).items()}}
    rerank = checkpoint.get("rerank", {})
    tensors |= {RERANK + key: part for key, part in rerank.items() if isinstance(part, torch.Tensor)}
    if rerank:
        plain = {key: part for key, part in rerank.items() if not isinstance(part, torch.Tensor)}
        checkpoint = {**checkpoint, "rerank": plain}
    # Cloned, because the format has no tensors that share their numbers
    tensors = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}
    texts = {key: json.dumps(part, ensure_ascii=False) for key, part in checkpoint.items() if key not in TENSORS}
    content = save(tensors, PYTORCH | texts)
    with atomic_open(path, "wb") as file:
        file.write(content)
