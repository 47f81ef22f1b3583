"""How ONNX graphs hold a decoder's state, found by trying the decoder: those of new decoders need no code here.

Shape letters: A images, S hypotheses of each.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from models.interfaces import WordDecoder

# Sizes of the example that is traced, all different: which axis of a tensor is which shows when one size changes. A
# size of 0 or 1 would be taken for a constant.
SIZES = {"images": 2, "beams": 3, "positions": 5, "words": 7}
DIMS = {size: torch.export.Dim(size) for size in SIZES}  # which the exporter refuses to freeze


class Layout:
    """The tensors in the state of a decoder, and their axes.

    In the graphs, what the decoder remembers of A x S hypotheses has the shape (A, S, ...), and what it remembers of A
    images (A, ...).

    Attributes:
        example: a state of ``SIZES``.
        state: the names of the tensors of the hypotheses.
        memory: the names of the tensors of the images.

    Args:
        width: of the features that the decoder reads.
    """

    def __init__(self, decoder: WordDecoder, width: int) -> None:
        self.example = _example(decoder, width, **SIZES)
        shapes = {name: tensor.shape for name, tensor in _tensors(self.example)}
        self._axes: dict[str, dict[str, int]] = {name: {} for name in shapes}  # name -> size -> axis
        for size, value in SIZES.items():
            for name, tensor in _tensors(_example(decoder, width, **{**SIZES, size: value + 1})):
                changed = [axis for axis, (a, b) in enumerate(zip(shapes[name], tensor.shape, strict=True)) if a != b]
                if changed:
                    self._axes[name][size] = changed[0]
        self.state = [name for name, axes in self._axes.items() if "beams" in axes]
        self.memory = [name for name in self._axes if name not in self.state]

    def tensors(self, state: Any, names: Sequence[str]) -> list[torch.Tensor]:
        """Those of a state that have these names, with the images or hypotheses as their first axis."""
        found = dict(_tensors(state))
        return [found[name].movedim(self._axes[name]["images"], 0) for name in names]

    def restored(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The decoder's state of tensors from a graph: those of ``state``, then those of ``memory``."""
        found = {}
        for name, tensor in zip(self.state + self.memory, tensors, strict=True):
            flat = tensor.flatten(0, 1) if name in self.state else tensor
            found[name] = flat.movedim(0, self._axes[name]["images"])
        return _replaced(self.example, found)

    def dynamic(self, name: str) -> dict[int, torch.export.Dim]:
        """The axes that a tensor has in the graphs and whose sizes differ from call to call."""
        first, own = self._axes[name]["images"], 1 + (name in self.state)  # the axes of images and hypotheses
        others = {size: axis for size, axis in self._axes[name].items() if size not in ("images", "beams")}
        moved = {axis + own - (axis > first): DIMS[size] for size, axis in others.items()}
        return {0: DIMS["images"], **({1: DIMS["beams"]} if own > 1 else {}), **moved}


def _example(decoder: WordDecoder, width: int, images: int, beams: int, positions: int, words: int) -> Any:
    """The state after so many words of so many hypotheses of each image."""
    index = torch.arange(images).repeat_interleave(beams)
    state = decoder.start(torch.zeros(images, positions, width)).select(index, beams)
    for _ in range(words):
        _, state, _ = decoder.step(torch.zeros_like(index), state)
    return state


def _parts(state: Any) -> list[tuple[str, Any]]:
    """The fields of a dataclass, or the items of a list or tuple, with their names."""
    if dataclasses.is_dataclass(state):
        return [(field.name, getattr(state, field.name)) for field in dataclasses.fields(state)]
    return [(str(place), value) for place, value in enumerate(state)] if isinstance(state, list | tuple) else []


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a state and their names, such as "memories.0.keys"."""
    if isinstance(state, torch.Tensor):
        yield name, state
    for part, value in _parts(state):
        yield from _tensors(value, f"{name}.{part}".lstrip("."))


def _replaced(state: Any, tensors: Mapping[str, torch.Tensor], name: str = "") -> Any:
    """A state like this one, with other tensors."""
    if isinstance(state, torch.Tensor):
        return tensors[name]
    new = {part: _replaced(value, tensors, f"{name}.{part}".lstrip(".")) for part, value in _parts(state)}
    if isinstance(state, list | tuple):
        return type(state)(new.values())
    return dataclasses.replace(state, **new) if new else state
