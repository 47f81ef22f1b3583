"""models/checkpoint_schema.py: a checkpoint whose values make no sense is refused in one line before it is used."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cli import UserError
from config import Config
from data.vocab import MAX_WORDS, SPECIAL, Vocabulary
from models.captioner import Captioner
from models.checkpoint import load_checkpoint, save_checkpoint
from models.pretrained import find_checkpoint
from models.quantize import quantize
from tests.support.helpers import DECODERS, tiny_decoder
from tests.support.training import thin_resnet50

CPU = torch.device("cpu")
OUTPUT = "decoder.output.weight"
DROP = object()  # in place of a value: the key is removed


@pytest.fixture(scope="module", autouse=True)
def _thin() -> Iterator[None]:
    """The encoder is thin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.model.ResNet50", thin_resnet50)
        yield


@pytest.fixture(scope="module")
def content(tiny_config: Callable[..., Config]) -> dict[str, Any]:
    config = tiny_config(tiny_decoder("transformer"))
    return Captioner(config, Vocabulary([*SPECIAL, "a", "red", "dog"]), "photographs").checkpoint()


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages are short


def changed(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy of a checkpoint with another value at a place such as "config.generate.beam_size"."""
    first, _, rest = place.partition(".")
    if rest and first != "model":
        value = changed(content[first], rest, value)
    elif rest:
        first, value = "model", changed(content["model"], rest.replace(".", "\0"), value)
    first = first.replace("\0", ".")
    return {key: old for key, old in content.items() if key != first} | ({} if value is DROP else {first: value})


def refusal(content: dict[str, Any]) -> str:
    save_checkpoint("my.pth", content)
    with pytest.raises(UserError) as caught:
        Captioner.load("my.pth", CPU)
    assert str(caught.value).startswith("my.pth: ") and len(str(caught.value)) < 290
    return str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("config", 5, "damaged (config)"),
        ("config.generate.beam_size", 10**7, "beam_size must be in [1, 100]"),
        ("config.generate.max_length", 10**9, "max_length must be in [1, 500]"),
        ("config.decoder.layers", 100_000, "layers must be in [1, 48]"),
        ("config.decoder.hidden_size", 10**6, "hidden_size must be in [1, 4096]"),
        ("config.decoder.heads", 3, "must be a multiple of decoder.heads"),
        ("config.data.image_size", 3_200_000, "image_size must be in [1, 1024]"),
        ("config.data.workers", 10**6, "workers must be in [0, 256]"),
        ("config.decoder.name", ["x"], "decoder.name must be one of"),
        ("config.decoder", [], "config"),
        ("config.data", {f"option_{number}": number for number in range(100)}, "unknown option"),
        ("vocab", [*SPECIAL, "a", "red", 5], "its words must be texts"),
        ("vocab", [*SPECIAL, "a", "red", ["x"]], "its words must be texts"),
        ("vocab", [*SPECIAL, "a", "red", ""], "'' is not a word"),
        ("vocab", [*SPECIAL, "a", "red", "a dog"], "'a dog' is not a word"),
        ("vocab", [*SPECIAL, "a", "red", "\ud800"], "is not a word"),
        ("vocab", [*SPECIAL, "a", "red", "a"], "contain each word once"),
        ("vocab", ["a", "red", "dog", *SPECIAL], "must start with <pad>"),
        ("vocab", [*SPECIAL, *map(str, range(MAX_WORDS))], "at most 50,000"),
        ("vocab", [*SPECIAL, "a", "red"], "different: decoder.embed.weight 7 x 8, not 6 x 8"),
        ("vocab", {"a": 1}, "damaged (vocab)"),
        ("transform", DROP, "damaged (transform)"),
        ("transform.image_size", 0, "image_size must be 32, got 0"),
        ("transform.image_size", 64, "image_size must be 32, got 64"),
        ("transform.image_size", "x", "image_size must be a whole number"),
        ("transform.image_size", True, "image_size must be a whole number"),
        ("transform.mean", "abc", "mean must be 3 numbers"),
        ("transform.mean", ["a", "b", "c"], "mean must be in"),
        ("transform.mean", [0.5, 0.5], "mean must be 3 numbers"),
        ("transform.std", [0.5, 0.0, 0.5], "std must be in"),
        ("transform.std", [0.5, float("nan"), 0.5], "transform.std.1 is no text, finite number"),
        ("transform.std", DROP, "std must be 3 numbers"),
        ("model", [1], "damaged (model)"),
        ("model", {}, "missing: "),
        (f"model.{OUTPUT}", DROP, f"missing: {OUTPUT}"),
        (f"model.{OUTPUT}", "x", "'model' must be names with their tensors"),
        (f"model.{OUTPUT}", torch.zeros(7, 9), f"different: {OUTPUT} 7 x 9, not 7 x 8"),
        (f"model.{OUTPUT}", torch.zeros(7, 8, dtype=torch.int64), "7 x 8 (whole), not 7 x 8"),
        (f"model.{OUTPUT}", torch.full((7, 8), torch.nan), f"model.{OUTPUT} holds NaN or infinity"),
        (f"model.{OUTPUT}", torch.full((7, 8), torch.inf), f"model.{OUTPUT} holds NaN or infinity"),
        ("model.more", torch.zeros(1), "unexpected: more"),
        ("learned_from", "\x1b[2J", "'learned_from' must be one of"),
        ("learned_from", ["drawings"], "'learned_from' must be one of"),
        ("scores", {"epoch": "x"}, "'scores' of the checkpoint is damaged"),
        ("scores", [], "'scores' of the checkpoint is damaged"),
        ("training", 5, "'training' of the checkpoint is damaged"),
        ("scales", {OUTPUT: torch.ones(3)}, f"the scales of {OUTPUT} do not fit"),
        ("scales", {"nothing": torch.ones(3)}, "the scales of nothing do not fit"),
        ("scales", {OUTPUT: 5}, "'scales' must be names with their tensors"),
    ],
)
def test_values_out_of_range(content: dict[str, Any], place: str, value: Any, why: str) -> None:
    assert why in refusal(changed(content, place, value))


def test_a_config_that_contains_itself(content: dict[str, Any]) -> None:
    config: dict[str, Any] = {**content["config"]}
    config["data"] = config
    assert "levels deep" in refusal({**content, "config": config})


def test_the_first_missing_tensors_are_named_and_the_others_counted(content: dict[str, Any]) -> None:
    lacking = {name: tensor for name, tensor in content["model"].items() if name.startswith("encoder.")}
    assert "missing: decoder.grid.0.weight, decoder.grid.0.bias, decoder.grid.1.weight and " in refusal(
        {**content, "model": lacking}
    )
    unknown = {"x" * 10_000 + str(number): torch.zeros(1) for number in range(50)}
    assert " and 47 more" in refusal({**content, "model": {**content["model"], **unknown}})


def test_quantized_weights_that_are_not_finite(content: dict[str, Any]) -> None:
    small = quantize(content)
    name, scale = next(iter(small["scales"].items()))
    assert f"scales.{name} holds NaN" in refusal(changed(small, "scales", {name: scale * torch.nan}))
    greatest = torch.full_like(scale, torch.finfo(torch.bfloat16).max)  # finite, but not 127 times as much
    small["model"][name] = torch.full_like(small["model"][name], 127)
    assert f"{name} holds NaN or infinity" in refusal(changed(small, "scales", {**small["scales"], name: greatest}))


@pytest.mark.parametrize("name", DECODERS)
def test_weights_too_large_to_compute_with_end_in_one_line(name: str, tiny_config: Callable[..., Config]) -> None:
    captioner = Captioner(tiny_config(tiny_decoder(name)), Vocabulary([*SPECIAL, "a", "dog"])).eval()
    with torch.no_grad():
        for parameter in captioner.decoder.parameters():
            parameter.fill_(3e38)
    image = Image.new("RGB", (40, 30), "red")
    with pytest.raises(UserError, match="logits are not finite"):
        captioner.caption([image])
    with pytest.raises(UserError, match="logits are not finite"):
        captioner.sample([image], 2, 1.0, seed=0)


def test_weights_of_half_precision_are_widened(content: dict[str, Any]) -> None:
    half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in content["model"].items()}
    save_checkpoint("half.pth", {**content, "model": half})
    captioner = Captioner.load("half.pth", CPU)
    assert {parameter.dtype for parameter in captioner.parameters()} == {torch.float32}
    assert captioner.describe(Image.new("RGB", (40, 30), "red")) is not None


def test_files_that_are_none(content: dict[str, Any]) -> None:
    os.mkfifo("pipe.pth")
    Path("zero.pth").symlink_to("/dev/zero")
    for name in ("pipe.pth", "zero.pth"):
        with pytest.raises(UserError, match=rf"{name}: a device or a pipe, not a checkpoint"):
            load_checkpoint(name)
    for odd in (5, None, []):
        save_checkpoint("checkpoints.pth", {**content, "config": odd, "learned_from": "photographs"})
        for photos in (True, False):
            with pytest.raises(UserError, match=r"checkpoints\.pth: .*damaged \(config\)"):
                find_checkpoint(None, photos=photos)
