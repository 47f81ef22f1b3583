"""Quantize a checkpoint, or the weights of a ResNet-50, to 8 bits per weight.

python -m tools.quantize_checkpoint runs/flickr8k_best pretrained/flickr8k.pth
python -m tools.quantize_checkpoint resnet50_keras.pth pretrained/resnet50_imagenet.pth --layout original
"""

import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as `python tools/quantize_checkpoint.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, run_script, say
from models.pretrained import checkpoint_path


def quantized_checkpoint(path: Path) -> dict[str, Any]:
    """A run's best checkpoint, quantized.

    Raises:
        UserError: it is quantized already, or holds the state of training.
    """
    from config import config_to_dict
    from models.checkpoint import load_checkpoint
    from models.checkpoint_schema import read_parts
    from models.quantize import quantize  # torch takes seconds to import

    checkpoint = load_checkpoint(path, keep_quantized=True)
    if "training" in checkpoint or "scales" in checkpoint:
        kind = "quantized already" if "scales" in checkpoint else "for resuming training"
        raise UserError(f"{path}: {kind}. Name the checkpoints.pth of a run")
    return quantize({**checkpoint, "config": config_to_dict(read_parts(checkpoint, path).config)})


def quantized_weights(path: Path, layout: str) -> dict[str, Any]:
    """A ResNet-50's state_dict in torchvision's names, quantized, without its classifier.

    Raises:
        UserError: no such file, or not a state_dict.
    """
    import torch

    from models.checkpoint import read_weights
    from models.quantize import quantize_state

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    state = read_weights(path, str(path), "state_dict")
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"{path}: not a state_dict (names -> tensors)")
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    return {**quantize_state(state), "layout": layout}


def main(argv: list[str]) -> None:
    """Quantize one file."""
    parser = OptionParser("python -m tools.quantize_checkpoint", __doc__)
    parser.add_argument(
        "source",
        type=Path,
        help="checkpoints.pth of a finished run, or the run's folder; with --layout a state_dict",
    )
    parser.add_argument("output", type=Path, help="the quantized file, ending in .pth or .safetensors")
    parser.add_argument(
        "--layout",
        choices=("torchvision", "original"),
        help="source is a bare ResNet-50 state_dict, trained in this layout (encoder.layout)",
    )
    arguments = parser.parse_args(argv)
    source, output = checkpoint_path(arguments.source), arguments.output
    if output.suffix not in (".pth", ".safetensors"):
        raise UserError(f"{output}: not a .pth file. Name another output file, such as {output.with_suffix('.pth')}")
    if output.resolve() == source.resolve():
        raise UserError(f"{output}: would overwrite the source. Name another output file")
    content = quantized_weights(source, arguments.layout) if arguments.layout else quantized_checkpoint(source)
    from models.checkpoint import save_checkpoint

    save_checkpoint(output, content)
    before, after = (path.stat().st_size / 1e6 for path in (source, output))
    say(f"wrote {output}: {after:.1f} MB, was {before:.1f} MB")


if __name__ == "__main__":
    run_script(main)
