"""Quantize weights to 8 bits, for small files. What it costs in CIDEr is in docs/experiments.md.

Neighbouring weights of a matrix become integers from -127 to 127 that share a scale. Computation stays in floating
point: ``models.checkpoint.load_checkpoint`` dequantizes.
"""

from pathlib import Path
from typing import Any

import torch

from models.checkpoint import GROUP


def quantize_state(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """``model``: the state_dict with its matrices and kernels in int8. ``scales``: one in bf16 per GROUP of weights."""
    model, scales = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dim() > 1 and tensor.numel() % GROUP == 0:
            groups = tensor.float().reshape(-1, GROUP)
            greatest = groups.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
            scales[name] = (greatest / 127).bfloat16()  # fp16 ends at 6e-5, and smaller scales matter
            whole = (groups / scales[name].float()[:, None]).round().clamp(-127, 127)  # by the scale as it is stored
            model[name] = whole.to(torch.int8).view(tensor.shape)
        else:
            model[name] = tensor
    return {"model": model, "scales": scales}


def quantize(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A captioner's checkpoint with quantized weights.

    Of the paths of initial weights only the file names stay: the folders would describe somebody's machine.
    """
    encoder, initial = checkpoint["config"]["encoder"], checkpoint["config"].get("init_from")
    config = {**checkpoint["config"], "encoder": {**encoder, "weights": Path(encoder["weights"]).name}}
    if initial:
        config["init_from"] = Path(initial).name
    return {**checkpoint, "config": config, **quantize_state(checkpoint["model"])}
