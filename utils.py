"""What every script needs: clear errors, atomic files, checkpoints, seeding and the choice of device."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cli import UserError, atomic_open

FORMAT_VERSION = 1
GROUP = 32  # quantized weights that share a scale; one scale per row costs 0.6 CIDEr points, this 0.2


def save_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write one dict of plain things (state_dicts, lists, numbers) atomically; see README, "Checkpoint".

    Raises:
        UserError: see ``save_torch``.
    """
    save_torch(path, {"format_version": FORMAT_VERSION, **checkpoint})


def save_torch(path: str | Path, content: dict[str, Any]) -> None:
    """``torch.save``, but atomic: a checkpoint, or a bare state_dict.

    Raises:
        UserError: the disk does not take it; what stood at ``path`` is untouched.
    """
    try:
        with atomic_open(path, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch's writer turns whatever ends it into a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__ or error
        if not isinstance(cause, OSError):
            raise cause from None  # Ctrl-C, say
        raise UserError(
            f"{path}: cannot be written ({cause}). What stood there before is untouched; make room on the disk"
        ) from error


def dequantize(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with its weights in fp32, if models/quantize.py has quantized them; else as it is."""
    scales = checkpoint.get("scales", {})
    model = {
        name: (tensor.view(-1, GROUP) * scales[name].float()[:, None]).view(tensor.shape) if name in scales else tensor
        for name, tensor in checkpoint["model"].items()
    }
    return {**{key: value for key, value in checkpoint.items() if key != "scales"}, "model": model}


def load_checkpoint(path: str | Path, *, keep_quantized: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with ``weights_only=True``: a checkpoint cannot run code.

    Quantized weights are dequantized, unless ``keep_quantized``.

    Raises:
        UserError: no such file, not a checkpoint, damaged, or written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such checkpoint. Train one with `python train.py`, or name another with --checkpoint"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here (zip, pickle, EOF): all mean "cannot be read"
        raise UserError(
            f"{path}: not a readable checkpoint ({type(error).__name__}). It may be cut short: copy or train it again"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("format_version"), int):
        raise UserError(f"{path}: not a checkpoint of this project (no 'format_version' in it)")
    if checkpoint["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{path}: written by a newer version (format {checkpoint['format_version']}, this one reads {FORMAT_VERSION}). Update the code"
        )
    if missing := [part for part in ("model", "config", "vocab", "transform") if part not in checkpoint]:
        raise UserError(f"{path}: parts of the checkpoint are missing ({', '.join(missing)}). Copy or train it again")
    return checkpoint if keep_quantized else dequantize(checkpoint)


def peak_memory() -> str:
    """Such as " (at most 1.2 GB of RAM)", and a GPU's if one was used, for the process so far; "" on Windows, which does not tell."""
    if sys.platform == "win32":
        return ""
    import resource  # exists on Unix only

    ram = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    gpu = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    of_gpu = f", {gpu:.1f} GB of GPU memory" if gpu else ""
    return f" (at most {ram:.1f} GB of RAM{of_gpu})"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA, else Apple's MPS, else the CPU; any other name is taken as it is.

    Raises:
        UserError: the named device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name}: not available here. Use auto or cpu") from error
    if device.type == "cpu":
        # What autocast leaves in fp32, such as beam search, is then multiplied by oneDNN: on AMD twice as fast as by MKL, and as exact.
        # It may round to bf16, but does so only where the CPU multiplies matrices of bf16 (Intel's AMX).
        torch.set_float32_matmul_precision("medium")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is the fastest that trains well: bf16 where the device computes in it, fp16 on older CUDA cards, else fp32."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    # emulated bf16 is slower than fp32: only CPUs with the instructions gain (about 3x here)
    native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision for the forward pass; does nothing when ``dtype`` is fp32."""
    return torch.autocast(device.type, dtype=dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32)
