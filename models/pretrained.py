"""The files that ship with this repository, and which checkpoint a script uses when the user names none."""

import sys
from pathlib import Path

DEFAULT_CHECKPOINT = Path("checkpoints.pth")  # the best epoch of the default run of train.py, in the current folder
FOLDER = Path(__file__).parents[1] / "pretrained"
PRETRAINED = FOLDER / "flickr8k.pth"  # the captioner of MODEL_CARD.md
IMAGENET = FOLDER / "resnet50_imagenet.pth"  # the encoder of all recipes; see pretrained/README.md


def find_checkpoint(named: Path | None) -> Path:
    """The checkpoint the user named; else DEFAULT_CHECKPOINT if it exists; else, with a note, PRETRAINED."""
    own = named or DEFAULT_CHECKPOINT
    if named or own.exists() or not PRETRAINED.exists():
        return own
    print(f"no {own} here: using {PRETRAINED.name}, the pretrained captioner (MODEL_CARD.md)", file=sys.stderr)
    return PRETRAINED
