"""The files that ship with this repository, and which checkpoint captions when the user names none."""

from pathlib import Path
from typing import Any

from cli import ROOT, in_run_folder, note
from models.hub import download, is_on_hub

DEFAULT_CHECKPOINT = Path("checkpoints.pth")  # the best epoch of the default run of train.py, in the current folder
FOLDER = ROOT / "pretrained"
PRETRAINED = FOLDER / "flickr8k.pth"  # the captioner of MODEL_CARD.md
IMAGENET = FOLDER / "resnet50_imagenet.pth"  # the encoder of all recipes; see pretrained/README.md


def checkpoint_path(named: str | Path) -> Path:
    """The file of a checkpoint: ``named`` itself, the best one of the run's folder, or one on the Hub, downloaded.

    Raises:
        UserError, OSError, ModuleNotFoundError: see ``models.hub.download``.
    """
    return download(named) if is_on_hub(named) else in_run_folder(Path(named), DEFAULT_CHECKPOINT.name)


def find_checkpoint(named: str | Path | None, *, photos: bool) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to caption with: its path and its content, which is read once.

    It is the one that the user ``named``; else DEFAULT_CHECKPOINT, if it exists and, for ``photos``, was trained on
    photographs (``learned_from``); else PRETRAINED. A line on stderr says which and why where that is not plain.

    Args:
        named: see ``checkpoint_path``.
        photos: it shall caption the user's own photos, not a split of its data set.

    Raises:
        UserError: it cannot be read; see ``models.checkpoint.load_checkpoint`` and ``checkpoint_path``.
    """
    from models.checkpoint import (
        load_checkpoint,  # torch takes seconds to import, and scripts need the constants for --help
    )

    if named is not None:
        path = checkpoint_path(named)
        checkpoint = load_checkpoint(path)
        if photos and checkpoint.get("learned_from") == "drawings":
            advice = "If you name none, the pretrained captioner is used"
            note(f"warning: {path} was trained on drawings: its captions of photos will be wrong. {advice}")
        return path, checkpoint
    reason = f"there is no {DEFAULT_CHECKPOINT} here"
    if DEFAULT_CHECKPOINT.exists():
        checkpoint = load_checkpoint(DEFAULT_CHECKPOINT)
        if not photos:
            return DEFAULT_CHECKPOINT, checkpoint
        learned_from = checkpoint.get("learned_from")  # earlier versions did not record it
        if learned_from == "photographs":
            note(f"using {DEFAULT_CHECKPOINT}, which was trained on photographs")
            return DEFAULT_CHECKPOINT, checkpoint
        what = f"was trained on {learned_from}" if learned_from else "does not record what it was trained on"
        reason = f"{DEFAULT_CHECKPOINT} {what} (to use it for photos: --checkpoint {DEFAULT_CHECKPOINT})"
    note(f"using the pretrained captioner {PRETRAINED.name} (MODEL_CARD.md): {reason}")
    return PRETRAINED, load_checkpoint(PRETRAINED)
