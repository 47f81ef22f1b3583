"""Write a checkpoint as one safetensors file, which holds no code: weights, and config and words in its metadata.

python -m tools.export_safetensors runs/flickr8k_best captioner.safetensors
hf upload NAME/REPOSITORY captioner.safetensors                                # then: --checkpoint hf://NAME/REPOSITORY

8-bit weights stay 8-bit. Absolute paths in the config are reduced to their last part: the file may be published.
"""

import sys
from importlib import import_module
from pathlib import Path

if not __package__:  # started as `python tools/export_safetensors.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, run_script, say
from files import without_folders
from models.hub import HUB_FILE
from models.pretrained import checkpoint_path

SUFFIX = ".safetensors"


def main(argv: list[str]) -> None:
    """Convert one file."""
    parser = OptionParser("python -m tools.export_safetensors", __doc__)
    parser.add_argument(
        "source", type=Path, help="checkpoints.pth of a run, or the run's folder; or hf://OWNER/NAME on the Hub"
    )
    parser.add_argument(
        "output", type=Path, nargs="?", default=Path(HUB_FILE), help="the file to write (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    source, output = checkpoint_path(arguments.source), arguments.output
    if output.suffix != SUFFIX:
        raise UserError(f"{output}: not a {SUFFIX} file. Name another output file, such as {output.stem}{SUFFIX}")
    if output.resolve() == source.resolve():
        raise UserError(f"{output}: would overwrite the source. Name another output file")
    import_module("safetensors")  # before torch, which takes seconds
    from models.checkpoint import load_checkpoint, save_checkpoint
    from models.checkpoint_schema import read_parts

    checkpoint = load_checkpoint(source, keep_quantized=True)
    if "training" in checkpoint:
        raise UserError(f"{source}: for resuming training. Name the checkpoints.pth of its run")
    read_parts(checkpoint, source)  # nothing damaged is published
    save_checkpoint(output, {**checkpoint, "config": without_folders(checkpoint["config"])})
    say(f"wrote {output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_script(main)
