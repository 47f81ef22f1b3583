"""The files that ship with this repository, and which checkpoint captions when the user names none."""

import sys
from pathlib import Path
from typing import Any

DEFAULT_CHECKPOINT = Path("checkpoints.pth")  # the best epoch of the default run of train.py, in the current folder
FOLDER = Path(__file__).resolve().parents[1] / "pretrained"
PRETRAINED = FOLDER / "flickr8k.pth"  # the captioner of MODEL_CARD.md
IMAGENET = FOLDER / "resnet50_imagenet.pth"  # the encoder of all recipes; see pretrained/README.md


def find_checkpoint(named: str | Path | None, *, photos: bool) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to caption with: its path and its content, which is read once.

    It is the one that the user ``named``; else DEFAULT_CHECKPOINT, if it exists and, for ``photos``, was trained on
    photographs (``learned_from``); else PRETRAINED. One line on stderr says which and why, unless the choice is plain.

    Args:
        photos: it shall caption the user's own photos, not a split of its data set.

    Raises:
        UserError: it cannot be read; see ``utils.load_checkpoint``.
    """
    from utils import load_checkpoint  # torch takes seconds to import, and scripts need the constants for --help

    path = Path(named or DEFAULT_CHECKPOINT)
    has_pretrained = named is None and PRETRAINED.is_file()
    if has_pretrained and not path.exists():
        return _pretrained(f"there is no {path} here")
    checkpoint = load_checkpoint(path)
    learned_from = checkpoint.get("learned_from")  # absent from the bundled file, and from those of earlier versions
    if photos and learned_from == "photographs" and named is None:
        print(f"using {path}: it was trained on photographs", file=sys.stderr)
    elif photos and has_pretrained:
        reason = "was trained on drawings" if learned_from else "does not say what it was trained on"
        return _pretrained(f"{path} {reason} (name it to use it for photos)")
    elif photos and learned_from == "drawings":
        advice = "If you name none, the pretrained captioner is used"
        print(f"warning: {path} was trained on drawings; it captions photos wrongly. {advice}", file=sys.stderr)
    return path, checkpoint


def _pretrained(reason: str) -> tuple[Path, dict[str, Any]]:
    from utils import load_checkpoint

    print(f"using the pretrained captioner {PRETRAINED.name} (see MODEL_CARD.md): {reason}", file=sys.stderr)
    return PRETRAINED, load_checkpoint(PRETRAINED)
