"""The weights of a captioner of this project as those of the plain model, so that both compute the same."""

from dataclasses import asdict
from pathlib import Path

import torch

from cli import UserError
from config import AttentionConfig, Config, LSTMConfig, ResNet50Config
from models.captioner import Captioner
from models.weights import STAGE_NAMES
from tools.benchmark.plain_captioner import PlainCaptioner
from tools.benchmark.plain_model import PlainModel


def require_plain(config: Config) -> None:
    """Check that there is a plain model of this kind.

    Raises:
        UserError: there is none.
    """
    encoder, decoder = config.encoder, config.decoder
    if not isinstance(encoder, ResNet50Config):
        raise UserError(f"--baseline: no plain loop for the encoder {encoder.name}. Name a checkpoint with a resnet50")
    if not isinstance(decoder, LSTMConfig | AttentionConfig):
        raise UserError(
            f"--baseline: no plain loop for the {decoder.name} decoder. Name a checkpoint with lstm or attention"
        )


def plain_copy(captioner: Captioner) -> PlainModel:
    """A plain model with the weights of ``captioner``, on its device, in eval mode; see ``require_plain``."""
    require_plain(captioner.config)
    layout = getattr(captioner.config.encoder, "layout", "")
    model = PlainModel(layout, captioner.config.decoder, len(captioner.vocabulary))
    model.load_state_dict(_plain_state(captioner.state_dict()))
    return model.to(captioner.device).eval()


def _plain_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the names of the plain model, in PyTorch's standard memory layout."""
    names = {f"encoder.{stage}.": f"encoder.resnet.{name}." for stage, name in STAGE_NAMES.items()}
    renamed = {}
    for own_name, tensor in state.items():
        stage = next((stage for stage in names if own_name.startswith(stage)), "")
        name = names.get(stage, "") + own_name.removeprefix(stage)
        renamed[name.removesuffix("_l0")] = tensor.detach().contiguous()  # nn.LSTM -> nn.LSTMCell
    return renamed


def plain_captioner(captioner: Captioner) -> PlainCaptioner:
    """A plain captioner that gives the same captions, up to the rounding of bf16 and of cached features."""
    transform, device = captioner.transform, captioner.device
    return PlainCaptioner(
        plain_copy(captioner), captioner.config.generate, transform.image_size, transform.mean, transform.std, device
    )


def save_plain(captioner: Captioner, path: Path, beam_size: int) -> None:
    """Write what plain_photo.py loads, with ``torch.save`` as tutorials do."""
    transform, config = captioner.transform, captioner.config
    content = {
        "weights": plain_copy(captioner).cpu().state_dict(),
        "words": captioner.vocabulary.words,
        "layout": getattr(config.encoder, "layout", ""),
        "decoder": asdict(config.decoder),
        "generate": asdict(config.generate) | {"beam_size": beam_size},
        "image_size": transform.image_size,
        "mean": transform.mean,
        "std": transform.std,
    }
    torch.save(content, path)
