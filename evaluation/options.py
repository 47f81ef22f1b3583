"""Options that evaluate.py, inference_visualize.py and tools share; without torch, so that --help is fast."""

import shlex
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from cli import OptionParser, in_run_folder, note, positive_int
from config import ALL, MAX_BEAM_SIZE, SPLITS, DataConfig
from models.pretrained import DEFAULT_CHECKPOINT

DEFAULT_SPLIT = "test"
PRECISIONS = ("auto", "fp32", "bf16")
SHOWN_PATH = 100  # characters of a path that a checkpoint names


def checkpoint_file(text: str) -> Path:
    """``type`` of an option that takes a checkpoint; the folder of a run means the checkpoints.pth in it."""
    return in_run_folder(Path(text), DEFAULT_CHECKPOINT.name)


def beam_size(text: str) -> int:
    """``type`` of --beam_size, with the limits of generate.beam_size."""
    beams = positive_int(text)
    if beams > MAX_BEAM_SIZE:
        raise ArgumentTypeError(f"must be in [1, {MAX_BEAM_SIZE}], not {beams}")
    return beams


def add_captioner_options(parser: OptionParser, *, several: bool) -> None:
    """Add --checkpoint, --beam_size (lists with ``several``) and --rerank, without defaults; --device, --precision."""
    listed: dict[str, Any] = {"nargs": "+", "action": "extend"} if several else {}
    compared = ", or several to compare" if several else ""
    parser.add_argument(
        "--checkpoint",
        type=Path,  # ``find_checkpoint`` looks into a folder, and on the Hub
        metavar="FILE",
        help=f"trained model{compared}: a .pth or .safetensors file, the folder of its run, or hf://OWNER/NAME"
        f"[@REVISION][/FILE] on the Hugging Face Hub (default: {DEFAULT_CHECKPOINT}, or the pretrained captioner)",
        **listed,
    )
    parser.add_argument(
        "--beam_size",
        "--generate.beam_size",
        type=beam_size,
        metavar="K",
        help=f"hypotheses kept at each step of beam search{compared}; 1 is greedy search (default: the checkpoint's)",
        **listed,
    )
    parser.add_argument(
        "--rerank",
        choices=("on", "off"),
        help="choose among the hypotheses of a beam by the captions of similar training images (default: on if the "
        "checkpoint can); off takes the most probable",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto is what the device is fast at (bf16, fp16 on older GPUs, else fp32), but fp32 for a model that was "
        "trained in it (default: %(default)s)",
    )


def add_split_options(parser: OptionParser) -> None:
    """Add --split, --captions_file and --image_dir, which ``open_split`` reads, and --limit; none has a default."""
    parser.add_argument(
        "--split", choices=(*SPLITS, ALL), help=f"images of the captions file to use (default: {DEFAULT_SPLIT})"
    )
    parser.add_argument(
        "--captions_file",
        "--data.captions_file",
        type=Path,
        metavar="FILE",
        help="captions.csv with the references (default: the checkpoint's)",
    )
    parser.add_argument(
        "--image_dir",
        "--data.image_dir",
        type=Path,
        metavar="DIR",
        help="folder of the images (default: the checkpoint's)",
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help="use only the first N images")


def add_cache_option(parser: OptionParser) -> None:
    """Add --feature_cache, which has no default."""
    parser.add_argument(
        "--feature_cache",
        "--data.feature_cache",
        metavar="DIR",
        help="folder of the cached features (default: the checkpoint's, if it is inside the current folder, else "
        f"{DataConfig.feature_cache})",
    )


def cache_folder(named: str | None, recorded: str) -> str:
    """The folder to write features into: the one that ``--feature_cache`` named, else that of the checkpoint.

    A checkpoint of somebody else may name any folder; one outside the current folder is left alone, which a line on
    stderr tells.
    """
    if named is not None:
        return named
    if _is_inside(recorded):
        return recorded
    quoted = shlex.quote(recorded)
    advice = f". To use it: --feature_cache {quoted}" if len(quoted) <= SHOWN_PATH else ""
    where = f"features are cached in {DataConfig.feature_cache}"
    note(f"{where}, as the checkpoint's folder is outside the current one{advice}")
    return DataConfig.feature_cache


def _is_inside(folder: str) -> bool:
    """Whether it is in the current folder; False for what cannot be the name of a folder."""
    try:
        return Path(folder).resolve().is_relative_to(Path.cwd())
    except (OSError, RuntimeError, ValueError):  # too long; links in a circle; a zero byte or no Unicode
        return False
