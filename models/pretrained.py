"""The captioner that comes with the repo, and how a checkpoint is made that small: 8 bits a weight.

    python -m models.pretrained runs/flickr8k_best/checkpoints.pth pretrained/flickr8k.pth

Neighbouring weights of a matrix become whole numbers from -127 to 127 and share a scale. What it costs in CIDEr is in docs/experiments.md.
Computing stays in floating point; only the file is small.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from utils import OptionParser, UserError, load_checkpoint, run_script, save_checkpoint

GROUP = 32  # weights that share a scale; with one for a whole row 0.6 CIDEr points are lost, not 0.2
PRETRAINED = Path(__file__).parents[1] / "pretrained" / "flickr8k.pth"


def shrink(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with matrices and kernels as int8 in ``model`` and a scale for each GROUP of their weights in ``scales``.

    Of the file that the encoder began with only the name stays: where it lay tells of somebody's machine.
    """
    model, scales = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, tensor in checkpoint["model"].items():
        if tensor.is_floating_point() and tensor.dim() > 1 and tensor.numel() % GROUP == 0:
            groups = tensor.float().reshape(-1, GROUP)
            greatest = groups.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
            scales[name] = (greatest / 127).bfloat16()  # fp16 ends at 6e-5, where it matters
            whole = (groups / scales[name].float()[:, None]).round().clamp(-127, 127)  # by the scale as it is kept
            model[name] = whole.to(torch.int8).view(tensor.shape)
        else:
            model[name] = tensor
    encoder = checkpoint["config"]["encoder"]
    config = {**checkpoint["config"], "encoder": {**encoder, "weights": Path(encoder["weights"]).name}}
    return {**checkpoint, "config": config, "model": model, "scales": scales}


def expand(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The state_dict of a checkpoint, shrunk or not, in fp32."""
    scales = checkpoint.get("scales", {})
    return {
        name: (tensor.view(-1, GROUP) * scales[name].float()[:, None]).view(tensor.shape) if name in scales else tensor
        for name, tensor in checkpoint["model"].items()
    }


def find_checkpoint(named: Path | None) -> Path:
    """The checkpoint a user named; else ``checkpoints.pth`` of this folder; else, saying so, the pretrained captioner."""
    own = named or Path("checkpoints.pth")
    if named or own.exists() or not PRETRAINED.exists():
        return own
    print(f"no {own} here: captioning with {PRETRAINED.name}, the pretrained captioner (MODEL_CARD.md)", file=sys.stderr)
    return PRETRAINED


def bundled_encoder() -> dict[str, torch.Tensor]:
    """The state_dict of the pretrained captioner's ``EncoderCNN``: a ResNet-50 fine-tuned on Flickr8k, layout "original".

    Raises:
        UserError: the file is missing or damaged.
    """
    if not PRETRAINED.is_file():
        raise UserError(
            f"encoder.weights bundled: {PRETRAINED} is missing. Get it back with `git checkout pretrained`, or start from torchvision's "
            "weights: --encoder.weights IMAGENET1K_V2"
        )
    state = expand(load_checkpoint(PRETRAINED))
    return {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name.startswith("encoder.")}


def main(argv: list[str]) -> None:
    """Shrink a checkpoint."""
    parser = OptionParser(prog="python -m models.pretrained", description="Shrink a checkpoint to 8 bits a weight.")
    parser.add_argument("checkpoint", type=Path, help="of a finished run: checkpoints.pth")
    parser.add_argument("output", type=Path, help="the small file, which scripts take like any checkpoint")
    arguments = parser.parse_args(argv)
    if arguments.output.suffix != ".pth" or arguments.output.resolve() == arguments.checkpoint.resolve():
        raise UserError(f"{arguments.output}: would not keep what is there. Name another file for the small one, ending in .pth")
    checkpoint = load_checkpoint(arguments.checkpoint)
    if "training" in checkpoint or "scales" in checkpoint:
        kind = "already small" if "scales" in checkpoint else "for going on with training"
        raise UserError(f"{arguments.checkpoint}: {kind}. Name the checkpoints.pth of a run")
    save_checkpoint(arguments.output, shrink(checkpoint))
    before, after = (path.stat().st_size / 1e6 for path in (arguments.checkpoint, arguments.output))
    print(f"wrote {arguments.output}: {after:.1f} MB, was {before:.1f} MB")


if __name__ == "__main__":
    run_script(main)
