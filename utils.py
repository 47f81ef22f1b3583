"""What needs torch and is needed everywhere: random state, device and precision."""

import random
import sys

import numpy as np
import torch

from cli import UserError


def peak_ram() -> float | None:
    """Peak memory of this process so far in GB; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource  # exists on Unix only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def peak_memory() -> str:
    """Peak memory so far, such as " (at most 1.2 GB of RAM)", with the GPU's if one was used; "" on Windows."""
    ram = peak_ram()
    if ram is None:
        return ""
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


def use_device(name: str = "auto", precision: str = "auto") -> torch.device:
    """``pick_device`` for the one device that this process computes on from now on: also sets its matmul precision.

    Args:
        precision: that it will compute in, see ``pick_precision``.

    Raises:
        UserError: the named device is not available, or cannot compute in that precision.
    """
    device = pick_device(name)
    wanted, native = pick_precision(precision, device), pick_precision("auto", device)
    if wanted != native and (wanted == torch.bfloat16 or (device.type == "cpu" and wanted == torch.float16)):
        what = "CPU" if device.type == "cpu" else "device"  # oneDNN and cuDNN then have no LSTM for it
        raise UserError(f"precision {precision}: not supported by this {what}. Use auto or fp32")
    set_matmul_precision(device, exact=precision == "fp32")
    return device


def set_matmul_precision(device: torch.device, *, exact: bool = False) -> None:
    """Set how fp32 matrices are multiplied and convolved from now on, in the whole process.

    CUDA: TF32 on tensor cores (10 bits of mantissa). CPU: "medium" makes oneDNN multiply what is in fp32; on AMD it is
    twice as fast as MKL and as exact. It rounds to bf16 only where the CPU has matrix instructions for it (Intel AMX).

    Args:
        exact: full fp32 on every device.
    """
    torch.set_float32_matmul_precision(
        "highest" if exact else {"cuda": "high", "cpu": "medium"}.get(device.type, "highest")
    )
    torch.backends.cudnn.allow_tf32 = not exact


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
