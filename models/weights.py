"""Where the weights of a ResNet-50 come from: this repository, torchvision (downloaded once), or a file.

All of them become a state_dict in torchvision's names, in fp32. A file may be quantized (models/quantize.py), and may
be a checkpoint of this project, whose encoder is taken. Both name the layout that they were trained in. A bare
state_dict does not, and can be of either, unless it is torchvision's by its file name.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch

from cli import UserError, did_you_mean, note, similar, similar_files
from config import ResNet50Config, config_from_dict
from models.checkpoint import dequantize, load_checkpoint, read_weights
from models.checkpoint_schema import check_tensors, misfits
from models.pretrained import IMAGENET, PRETRAINED
from models.resnet import ResNet50

# torchvision's names of its weights, and their files; the digits are the first of the file's SHA-256
TORCHVISION_FILES = {"IMAGENET1K_V1": "resnet50-0676ba61.pth", "IMAGENET1K_V2": "resnet50-11ad3fa6.pth"}
MAX_CAUSE = 25  # characters of why a download failed
TORCHVISION_URL = "https://download.pytorch.org/models/"
# torchvision's names of the parts that EncoderCNN keeps in ``stages``
STAGE_NAMES = {"stages.0.0": "conv1", "stages.0.1": "bn1", **{f"stages.{n}": f"layer{n}" for n in range(1, 5)}}


def load_resnet50(net: ResNet50, config: ResNet50Config) -> None:
    """Load the weights that ``config`` names into ``net``; their classifier may be missing.

    Raises:
        UserError: they cannot be found or downloaded, are damaged, of another network, or of the other layout.
    """
    name = config.weights
    layout: str | None
    if name in TORCHVISION_FILES:
        state, layout = _torchvision_state(name), "torchvision"
    elif name == "bundled":
        _require_bundled()
        state, layout = _file_state(PRETRAINED, name)
    else:
        state, layout = _file_state(Path(name) if name != "imagenet" else IMAGENET, name)
    if layout not in (None, config.layout):
        raise UserError(
            f"encoder.weights {name}: trained in the layout '{layout}', not '{config.layout}'. "
            f"Use --encoder.layout {layout}"
        )
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    wanted = {key: tensor for key, tensor in net.state_dict().items() if not key.startswith("fc.")}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # which older files do not have
    needed = {key: tensor for key, tensor in wanted.items() if key not in counters - state.keys()}
    if why := misfits(state, needed):
        raise UserError(f"encoder.weights {name}: not a ResNet-50 in torchvision's names ({why}). Name another file")
    net.load_state_dict(state, strict=False)  # fp16 is widened to the network's fp32
    if layout is None:
        note(
            f"encoder.weights {name}: the file does not say in which layout it was trained; used as '{config.layout}'. "
            "If it comes from Caffe or Keras, or its scores are low: --encoder.layout original"
        )


def _require_bundled() -> None:
    if not PRETRAINED.is_file():
        raise UserError(
            f"encoder.weights bundled: {PRETRAINED} is missing. Restore it with `git checkout pretrained`, "
            "or use torchvision's weights: --encoder.weights IMAGENET1K_V2"
        )


def _torchvision_state(name: str) -> dict[str, torch.Tensor]:
    """torchvision's weights, in torch's cache or downloaded into it; the hash in the file's name is checked."""
    url = TORCHVISION_URL + TORCHVISION_FILES[name]
    path = Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION_FILES[name]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1])
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"encoder.weights {name}: no download ({str(error)[:MAX_CAUSE]}). Fetch {url} elsewhere and put it at "
                f"{path}; or use the bundled weights: --encoder.weights imagenet"
            ) from error
    # torch checks the hash of what it downloads, but not of a file that is already there
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(path.stem.rsplit("-", 1)[1]):
        raise UserError(
            f"encoder.weights {name}: {path} is damaged (sha256 {digest[:8]}...). "
            "Delete it to have it downloaded again, or replace it"
        )
    state, _ = _file_state(path, str(path))
    return state


def _file_state(path: Path, name: str) -> tuple[dict[str, torch.Tensor], str | None]:
    """The state_dict in a file, and the layout if the file names it."""
    if not path.is_file() and name == "imagenet":
        raise UserError(f"encoder.weights imagenet: {path} is missing. Restore it with `git checkout pretrained`")
    if not path.is_file():
        known = ["imagenet", "bundled", *TORCHVISION_FILES, "none"]
        near = did_you_mean(similar(name, known) or similar_files(path))
        near = f": {near}" if near else ""
        raise UserError(f"encoder.weights {name}: no such file, and not one of {', '.join(known)}{near}")
    content = read_weights(path, f"encoder.weights {path}", "state_dict")
    if not isinstance(content, dict):
        content = {"": content}  # refused below
    if "vocab" in content:
        return _encoder_state(load_checkpoint(path), name)
    layout = "torchvision" if path.name in TORCHVISION_FILES.values() else content.get("layout")
    if "scales" in content:
        check_tensors(content, path)
        state = dequantize(content, path)["model"]
    else:
        state = content
    if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(f"encoder.weights {path}: not a state_dict (names -> tensors), nor a checkpoint of train.py")
    return state, layout


def _encoder_state(checkpoint: dict[str, Any], name: str) -> tuple[dict[str, torch.Tensor], str]:
    """The encoder of a captioner, in torchvision's names, and its layout."""
    config = config_from_dict(checkpoint["config"]).encoder
    if not isinstance(config, ResNet50Config):
        raise UserError(f"encoder.weights {name}: the encoder of this checkpoint is no ResNet-50, but {config.name}")
    state = {
        torchvision + key.removeprefix(f"encoder.{stage}"): tensor
        for key, tensor in checkpoint["model"].items()
        for stage, torchvision in STAGE_NAMES.items()
        if key.startswith(f"encoder.{stage}.")
    }
    return state, config.layout
