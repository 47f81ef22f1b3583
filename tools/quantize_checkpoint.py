"""Shrink a checkpoint to 8 bits a weight.

python -m tools.quantize_checkpoint runs/flickr8k_best/checkpoints.pth pretrained/flickr8k.pth
"""

from pathlib import Path

from cli import OptionParser, UserError, run_script
from models.quantize import shrink
from utils import load_checkpoint, save_checkpoint


def main(argv: list[str]) -> None:
    """Shrink a checkpoint."""
    parser = OptionParser(
        prog="python -m tools.quantize_checkpoint", description="Shrink a checkpoint to 8 bits a weight."
    )
    parser.add_argument("checkpoint", type=Path, help="of a finished run: checkpoints.pth")
    parser.add_argument("output", type=Path, help="the small file, which scripts take like any checkpoint")
    arguments = parser.parse_args(argv)
    if arguments.output.suffix != ".pth" or arguments.output.resolve() == arguments.checkpoint.resolve():
        raise UserError(
            f"{arguments.output}: would not keep what is there. Name another file for the small one, ending in .pth"
        )
    checkpoint = load_checkpoint(arguments.checkpoint)
    if "training" in checkpoint or "scales" in checkpoint:
        kind = "already small" if "scales" in checkpoint else "for going on with training"
        raise UserError(f"{arguments.checkpoint}: {kind}. Name the checkpoints.pth of a run")
    save_checkpoint(arguments.output, shrink(checkpoint))
    before, after = (path.stat().st_size / 1e6 for path in (arguments.checkpoint, arguments.output))
    print(f"wrote {arguments.output}: {after:.1f} MB, was {before:.1f} MB")


if __name__ == "__main__":
    run_script(main)
