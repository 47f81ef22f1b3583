"""A captioner -> the bytes of its ONNX graphs, by torch.export.

Shape letters: B images, S hypotheses of each, P grid positions, D encoder width, V vocabulary.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from deploy.description import NEXT
from models.captioner import Captioner
from models.interfaces import Encoder, WordDecoder
from tools.export_onnx.layout import DIMS, SIZES, Layout

OPSET = 18  # what torch's exporter writes without converting; ONNX Runtime reads it since 2023


class _Encode(nn.Module):
    """Normalised images (B, 3, H, W) -> features (B, P, D) in fp16, as ``Captioner.encode`` rounds them."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encoder(images)
        return features.half()


class _Start(nn.Module):
    """Features (B, P, D) in fp16 -> the state of one hypothesis for each image."""

    def __init__(self, decoder: WordDecoder, layout: Layout) -> None:
        super().__init__()
        self.decoder, self.layout = decoder, layout

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        state = self.decoder.start(features.float())
        hypotheses, images = (self.layout.tensors(state, names) for names in (self.layout.state, self.layout.memory))
        return [*(tensor[:, None] for tensor in hypotheses), *images]


class _Step(nn.Module):
    """Tokens (B, S), state -> log-probabilities (B, S, V), the new state, attention (B, S, P) where there is one."""

    def __init__(self, decoder: WordDecoder, layout: Layout) -> None:
        super().__init__()
        self.decoder, self.layout = decoder, layout

    def forward(self, tokens: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        state = self.layout.restored(tensors)
        logits, state, weights = self.decoder.step(tokens.flatten(), state, attention=self.decoder.attends)
        rows = [logits.log_softmax(dim=-1), *self.layout.tensors(state, self.layout.state)]
        return _split(rows if weights is None else [*rows, weights], tokens.shape)


def _split(tensors: Sequence[torch.Tensor], shape: Sequence[int]) -> list[torch.Tensor]:
    """(B * S, ...) -> (B, S, ...)."""
    return [torch.unflatten(tensor, 0, (shape[0], shape[1])) for tensor in tensors]


def encoder_graph(captioner: Captioner) -> bytes:
    """images -> features."""
    size, images = captioner.transform.image_size, SIZES["images"]
    example = (torch.zeros(images, 3, size, size),)
    return _export(_Encode(captioner.encoder), example, ({0: DIMS["images"]},), ["images"], ["features"])


def decoder_graphs(captioner: Captioner) -> tuple[bytes, bytes, Layout]:
    """features -> state and memory; tokens, state and memory -> log_probs, the next state, attention."""
    decoder, width = captioner.decoder, captioner.encoder.features_size
    with torch.no_grad():
        layout = Layout(decoder, width)
    names = layout.state + layout.memory
    features = torch.zeros(SIZES["images"], SIZES["positions"], width, dtype=torch.float16)
    axes: Any = ({0: DIMS["images"], 1: DIMS["positions"]},)
    start = _export(_Start(decoder, layout), (features,), axes, ["features"], names)
    tokens = torch.zeros(SIZES["images"], SIZES["beams"], dtype=torch.int64)
    hypotheses, images = (layout.tensors(layout.example, names) for names in (layout.state, layout.memory))
    tensors = [tensor.clone() for tensor in [*_split(hypotheses, tokens.shape), *images]]
    axes = ({0: DIMS["images"], 1: DIMS["beams"]}, [layout.dynamic(name) for name in names])
    outputs = ["log_probs", *(f"{NEXT}{name}" for name in layout.state), *["attention"] * decoder.attends]
    step = _export(_Step(decoder, layout), (tokens, tensors), axes, ["tokens", *names], outputs)
    return start, step, layout


def _export(module: nn.Module, example: Any, axes: Any, inputs: list[str], outputs: list[str]) -> bytes:
    with torch.no_grad(), _quiet():
        # In two steps: alone, torch.onnx.export would trace in another, slow way if this one refuses to freeze an axis
        traced = torch.export.export(module.eval(), example, dynamic_shapes=axes, strict=False)
        program = torch.onnx.export(
            traced,
            dynamic_shapes=axes,  # for the names of the axes
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own code."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
