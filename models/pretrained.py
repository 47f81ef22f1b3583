"""The captioner that comes with the repo, and how a checkpoint is made that small: 8 bits a weight.

    python -m models.pretrained runs/flickr8k_best/checkpoints.pth pretrained/flickr8k.pth

Neighbouring weights of a matrix become whole numbers from -127 to 127 and share a scale. What it costs in CIDEr is in docs/experiments.md.
Computing stays in floating point; only the file is small.
"""

import sys
from pathlib import Path

PRETRAINED = Path(__file__).parents[1] / "pretrained" / "flickr8k.pth"


def find_checkpoint(named: Path | None) -> Path:
    """The checkpoint a user named; else ``checkpoints.pth`` of this folder; else, saying so, the pretrained captioner."""
    own = named or Path("checkpoints.pth")
    if named or own.exists() or not PRETRAINED.exists():
        return own
    print(
        f"no {own} here: captioning with {PRETRAINED.name}, the pretrained captioner (MODEL_CARD.md)", file=sys.stderr
    )
    return PRETRAINED
