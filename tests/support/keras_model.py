"""A ResNet-50 with random weights in the format of Keras and TensorFlow.js, and the arithmetic of Keras."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Layer = dict[str, Any]
SHARD = 4 << 20  # bytes per shard of TensorFlow.js
BGR_MEAN = (103.939, 116.779, 123.68)  # subtracted from the input: blue, green, red


def resnet50_layers() -> list[Layer]:
    """The layers of the ResNet50 of Keras, with the options in model.json that matter for the computation."""
    layers: list[Layer] = []

    def add(kind: str, name: str, *inputs: str, **config: Any) -> str:
        nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
        layers.append({"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes})
        return name

    def conv(x: str, name: str, norm: str, filters: int, size: int, stride: int = 1, padding: str = "valid") -> str:
        x = add("Conv2D", name, x, filters=filters, kernel_size=[size, size], strides=[stride, stride], padding=padding)
        return add("BatchNormalization", norm, x, epsilon=0.001)

    def relu(x: str) -> str:
        return add("Activation", f"relu_{x}", x, activation="relu")

    x = add("ZeroPadding2D", "conv1_pad", add("InputLayer", "input_1"), padding=[[3, 3], [3, 3]])
    x = add("ZeroPadding2D", "pool1_pad", relu(conv(x, "conv1", "bn_conv1", 64, 7, 2)), padding=[[1, 1], [1, 1]])
    x = add("MaxPooling2D", "max_pooling2d", x, pool_size=[3, 3], strides=[2, 2])
    for stage, blocks in zip((2, 3, 4, 5), ("abc", "abcd", "abcdef", "abc"), strict=True):
        for block in blocks:
            filters, stride, name = 32 << (stage - 1), 2 if block == "a" and stage > 2 else 1, f"{stage}{block}_branch"
            y = relu(conv(x, f"res{name}2a", f"bn{name}2a", filters, 1, stride))
            y = relu(conv(y, f"res{name}2b", f"bn{name}2b", filters, 3, padding="same"))
            y = conv(y, f"res{name}2c", f"bn{name}2c", 4 * filters, 1)
            if block == "a":
                x = conv(x, f"res{name}1", f"bn{name}1", 4 * filters, 1, stride)
            x = relu(add("Add", f"add{name}", y, x))
    add("Dense", "fc1000", add("GlobalAveragePooling2D", "avg_pool", x), units=1000, activation="softmax")
    return layers


def random_weights(layers: list[Layer]) -> dict[str, np.ndarray]:
    """Weights that keep the activations of every layer moderate, and for which biases and epsilon make a difference."""
    rng, width, weights = np.random.default_rng(0), {"input_1": 3}, {}
    for layer in layers:
        config, name, inputs = layer["config"], layer["config"]["name"], layer["inbound_nodes"]
        width[name] = read = width[inputs[0][0][0]] if inputs else 3
        if layer["class_name"] in ("Conv2D", "Dense"):
            width[name] = filters = config.get("filters") or config["units"]
            shape = (*config.get("kernel_size", ()), read, filters)
            weights[f"{name}/kernel"] = rng.random(shape, np.float32) - np.float32(0.5)
            weights[f"{name}/kernel"] *= (24 / np.prod(shape[:-1])) ** 0.5
            weights[f"{name}/bias"] = rng.normal(0, 0.3, filters)
        elif layer["class_name"] == "BatchNormalization":
            weights[f"{name}/gamma"] = (
                rng.uniform(0.1, 0.3, read) if name.endswith("2c") else rng.uniform(0.7, 1.3, read)
            )
            weights[f"{name}/beta"] = rng.normal(0, 0.3, read)
            weights[f"{name}/moving_mean"] = rng.normal(0, 0.3, read)
            weights[f"{name}/moving_variance"] = rng.uniform(0.7, 1.3, read)
            if name == "bn_conv1":
                weights[f"{name}/moving_variance"] *= 1e4  # its inputs are pixels up to 255
            else:  # as in the real model, some are small compared with epsilon
                weights[f"{name}/moving_variance"][::10] = 1e-4
                weights[f"{name}/gamma"][::10] *= 0.03
    return weights


def write_model(folder: Path, layers: list[Layer], weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Write model.json and shards with all kinds of storage; return the weights as they will be read."""
    described, parts, stored = [], [], {}
    for name in sorted(weights):  # as in the real model, not in the order of the layers
        values = weights[name]
        entry: Layer = {"name": name, "shape": list(values.shape), "dtype": "float32"}
        kind = {"kernel": "uint8", "bias": "float16", "moving_mean": "uint16"}.get(name.rpartition("/")[2])
        if kind is None:
            data = values.astype("<f4")
            stored[name] = data
        elif kind == "float16":
            entry["quantization"] = {"dtype": kind}
            data = values.astype("<f2")
            stored[name] = data.astype(np.float32)
        else:
            low, scale = float(values.min()), float(np.ptp(values)) / np.iinfo(kind).max
            entry["quantization"] = {"dtype": kind, "min": low, "scale": scale}
            data = np.round((values - low) / scale).astype(np.dtype(kind).newbyteorder("<"))
            stored[name] = (data * scale + low).astype(np.float32)
        described.append(entry)
        parts.append(data.tobytes())
    data = b"".join(parts)
    folder.mkdir(parents=True)
    names = [f"group1-shard{number}.bin" for number in range(-(-len(data) // SHARD))]
    for number, name in enumerate(names):
        (folder / name).write_bytes(data[number * SHARD : (number + 1) * SHARD])
    topology = {"model_config": {"class_name": "Model", "config": {"layers": layers}}}
    manifest = [{"paths": names, "weights": described}]
    (folder / "model.json").write_text(
        json.dumps({"format": "layers-model", "modelTopology": topology, "weightsManifest": manifest})
    )
    return stored


def run_keras(
    layers: list[Layer], weights: dict[str, np.ndarray], image: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a Keras model layer by layer on an RGB image in 0-255 (H, W, 3).

    Returns:
        grid features (1, P, D), and the output of the last layer: of a whole ResNet-50 the logits (1, 1000).
    """
    caffe = (image[:, :, ::-1] - BGR_MEAN).astype(np.float32)
    values = {"input": torch.from_numpy(caffe).permute(2, 0, 1)[None]}
    grid = torch.empty(0)
    for layer in layers:
        config, name = layer["config"], layer["config"]["name"]
        x, *others = [values[node[0]] for nodes in layer["inbound_nodes"] for node in nodes] or [values["input"]]
        own = {key.rpartition("/")[2]: torch.from_numpy(weights[key]) for key in weights if key.startswith(f"{name}/")}
        match layer["class_name"]:
            case "ZeroPadding2D":
                x = functional.pad(x, (*config["padding"][1], *config["padding"][0]))
            case "Conv2D":
                x = functional.conv2d(
                    x, own["kernel"].permute(3, 2, 0, 1), own["bias"], config["strides"], config["padding"]
                )
            case "BatchNormalization":
                statistics = (own["moving_mean"], own["moving_variance"], own["gamma"], own["beta"])
                x = functional.batch_norm(x, *statistics, eps=config["epsilon"])
            case "Activation":
                x = x.relu()
            case "Add":
                x = x + others[0]
            case "MaxPooling2D":
                x = functional.max_pool2d(x, config["pool_size"], config["strides"])
            case "GlobalAveragePooling2D":
                grid = x.flatten(2).transpose(1, 2)
                x = grid.mean(dim=1)
            case "Dense":
                x = x @ own["kernel"] + own["bias"]
        values[name] = x
    return grid, values[layers[-1]["config"]["name"]]
