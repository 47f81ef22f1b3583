"""What needs torch and is needed everywhere: checkpoint files, random state, device and precision."""

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
    """Write a dict of plain values (state_dicts, lists, numbers) atomically; for its keys see ``load_checkpoint``.

    Raises:
        UserError: see ``save_torch``.
    """
    save_torch(path, {"format_version": FORMAT_VERSION, **checkpoint})


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
    try:
        model, scales = dict(checkpoint["model"]), checkpoint.get("scales", {})
        for name, scale in scales.items():
            model[name] = (model[name].view(-1, GROUP) * scale.float()[:, None]).view(model[name].shape)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged weights ({error}). Copy the file again") from error
    return {**{key: value for key, value in checkpoint.items() if key != "scales"}, "model": model}


def load_checkpoint(path: str | Path, *, keep_quantized: bool = False) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with ``weights_only=True``, so that it cannot run code.

    Quantized weights are dequantized, unless ``keep_quantized``.

    Returns:
        at least ``model`` (state_dict), ``config``, ``vocab`` and ``transform``; see ``Captioner.checkpoint``.

    Raises:
        UserError: no such file, not a checkpoint, damaged, or written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such checkpoint. Train one with `python train.py`, or choose another with --checkpoint"
        )
    with path.open("rb") as file:
        if file.read(2) not in (b"PK", b"P", b""):  # torch writes zip files; this one may be cut off
            raise UserError(f"{path}: not a checkpoint, which is a file that train.py has written. Name another one")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here (zip, pickle, EOF)
        raise UserError(
            f"{path}: not a readable checkpoint ({type(error).__name__}), perhaps truncated. Copy it again, or retrain"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("format_version"), int):
        raise UserError(f"{path}: not a checkpoint of this project (it has no 'format_version')")
    if checkpoint["format_version"] > FORMAT_VERSION:
        version = checkpoint["format_version"]
        raise UserError(
            f"{path}: written by a newer version (format {version}, this is {FORMAT_VERSION}). Update the code"
        )
    missing = [part for part in ("model", "config", "vocab", "transform") if part not in checkpoint]
    if missing == ["config", "vocab", "transform"]:
        raise UserError(f"{path}: the weights of an encoder, not of a captioner. Name it with --encoder.weights")
    if missing:
        raise UserError(
            f"{path}: parts of the checkpoint are missing ({', '.join(missing)}). Copy it again, or retrain"
        )
    return checkpoint if keep_quantized else dequantize(checkpoint, path)


def peak_memory() -> str:
    """Peak memory so far, such as " (at most 1.2 GB of RAM)", with the GPU's if one was used; "" on Windows."""
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


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the generators that training on ``device`` draws from: the CPU's, and that of the device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what ``random_state`` returned. A device of another type than then keeps its state."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA if available, else Apple's MPS, else the CPU; any other name is taken as given.

    Raises:
        UserError: there is no such device, or it is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device {name}: no such device. Use auto, cpu, cuda (a GPU), cuda:1 or mps") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name}: not available here. Use auto or cpu") from error
    return device


def use_device(name: str = "auto", *, exact: bool = False) -> torch.device:
    """``pick_device`` for the one device that this process computes on from now on: also sets its matmul precision.

    Raises:
        UserError: the named device is not available.
    """
    device = pick_device(name)
    set_matmul_precision(device, exact=exact)
    return device


def set_matmul_precision(device: torch.device, *, exact: bool = False) -> None:
    """Set how fp32 matrices are multiplied from now on, in the whole process.

    CUDA: TF32 on tensor cores (10 bits of mantissa). CPU: "medium" makes oneDNN multiply what autocast leaves in fp32,
    such as beam search; on AMD it is twice as fast as MKL and as exact. It rounds to bf16 only where the CPU has matrix
    instructions for bf16 (Intel AMX).

    Args:
        exact: full fp32 on every device.
    """
    torch.set_float32_matmul_precision(
        "highest" if exact else {"cuda": "high", "cpu": "medium"}.get(device.type, "highest")
    )


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is the fastest that trains well: bf16 where the device has it, fp16 on older GPUs, else fp32."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16: about 3x as fast as fp32 here; emulated, bf16 is slower than fp32."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return torch.cpu._is_avx512_bf16_supported()  # before get_capabilities there was no public way to ask


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision for the forward pass; does nothing when ``dtype`` is fp32."""
    return torch.autocast(device.type, dtype=dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32)
