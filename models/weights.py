"""Where the encoder's weights come from: torchvision, a file, or the bundled captioner."""

import hashlib
from pathlib import Path

import torch
from torch import nn
from torchvision.models import ResNet50_Weights

from cli import UserError
from models.pretrained import PRETRAINED
from models.quantize import expand
from utils import load_checkpoint

TORCHVISION_WEIGHTS = {weights.name: weights for weights in ResNet50_Weights}


def _load_backbone(net: nn.Module, weights: str) -> None:
    """Load a ResNet-50 state_dict into torchvision's network; its classifier may be missing."""
    if weights in TORCHVISION_WEIGHTS:
        state, source = _torchvision_state(weights), weights
    else:
        path = Path(weights)
        if not path.is_file():
            names = ", ".join([*TORCHVISION_WEIGHTS, "bundled", "none"])
            raise UserError(f"encoder.weights {weights}: no such file, and not one of {names}")
        state, source = _read_state(path), str(path)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)  # fp16 is widened to the network's fp32
    except RuntimeError as error:
        raise UserError(f"encoder.weights {source}: not a ResNet-50: {error}") from error
    missing = [name for name in missing if not name.startswith("fc.") and not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise UserError(
            f"encoder.weights {source}: not a ResNet-50 in torchvision's names (missing {missing[:3]}, unexpected {unexpected[:3]})"
        )


def _torchvision_state(name: str) -> dict[str, torch.Tensor]:
    """torchvision's weights from torch's cache, or downloaded into it; the hash in the file's name is checked both times."""
    url = TORCHVISION_WEIGHTS[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1])
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"encoder.weights {name}: cannot be downloaded ({error}). Offline? Fetch {url} elsewhere and put it at {path}, "
                "or name a ResNet-50 file you have with --encoder.weights FILE"
            ) from error
    # torch looks at the hash of what it downloads, never at a file that is already there
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(path.stem.rsplit("-", 1)[1]):
        raise UserError(
            f"encoder.weights {name}: {path} is damaged (sha256 {digest[:8]}...). Delete it to have it downloaded again, or replace it"
        )
    return _read_state(path)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here (zip, pickle, EOF): all mean "cannot be read"
        raise UserError(
            f"encoder.weights {path}: not a readable state_dict ({type(error).__name__}); replace the file"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"encoder.weights {path}: not a state_dict (names -> tensors)")
    return state


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
