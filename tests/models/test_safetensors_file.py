"""models/safetensors_file.py: the same captioner in another format, and files of strangers."""

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import cli
from cli import UserError
from config import ResNet50Config
from models.checkpoint import load_checkpoint, save_checkpoint
from models.model import EncoderCNN
from models.safetensors_file import is_safetensors
from tests.support.helpers import assert_same
from tools.export_safetensors import main
from tools.quantize_checkpoint import main as quantize

pytest.importorskip("safetensors")
TEXTS = {"format_version": "1", "config": "{}", "vocab": '["<pad>", "é"]', "transform": "{}"}


def write(path: Path, texts: Mapping[str, Any], tensors: Mapping[str, Any] | None = None, numbers: bytes = b"") -> Path:
    """A file in the format, with an index of any content: "__metadata__" and names with dtype, shape and offsets."""
    index = json.dumps({"__metadata__": texts, **(tensors or {})}).encode()
    path.write_bytes(struct.pack("<Q", len(index)) + index + numbers)
    return path


def floats(*values: float) -> dict[str, Any]:
    """Keyword arguments of ``write``: a tensor w."""
    tensor = {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]}
    return {"tensors": {"w": tensor}, "numbers": struct.pack(f"<{len(values)}f", *values)}


def refusal(*arguments: str | Path) -> str:
    """Why tools.export_safetensors refuses these arguments."""
    with pytest.raises(UserError) as caught:
        main([str(argument) for argument in arguments])
    return str(caught.value)


def test_the_exported_checkpoint_is_the_same(tiny_run: Path, tmp_path: Path) -> None:
    """And with it, to the letter, are its captions."""
    file = tmp_path / "a" / "captioner.safetensors"
    main([str(tiny_run), str(file)])
    before, after = load_checkpoint(tiny_run / "checkpoints.pth"), load_checkpoint(file)
    config = before["config"]
    assert str(tmp_path.parent).encode() not in file.read_bytes()  # nobody's folders are published
    config["output_dir"] = Path(config["output_dir"]).name
    config["data"] |= {key: Path(config["data"][key]).name for key in ("captions_file", "image_dir", "feature_cache")}
    assert_same(after, before)


def test_quantized_weights_stay_8_bit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a.pth", "b.safetensors"):
        quantize([str(tiny_checkpoint), str(tmp_path / name)])
    main([str(tmp_path / "a.pth"), str(tmp_path / "c.safetensors")])
    wanted = load_checkpoint(tmp_path / "a.pth", keep_quantized=True)
    for name in ("b.safetensors", "c.safetensors"):
        found = load_checkpoint(tmp_path / name, keep_quantized=True)
        assert_same(found["model"], wanted["model"])
        assert_same(found["scales"], wanted["scales"])
        assert (tmp_path / name).stat().st_size < 1.02 * (tmp_path / "a.pth").stat().st_size
    assert_same(load_checkpoint(tmp_path / "c.safetensors")["model"], load_checkpoint(tmp_path / "a.pth")["model"])


def test_tensors_that_share_their_numbers_are_written_twice(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    parts = {"config": {}, "vocab": ["<pad>"], "transform": {}, "learned_from": None, "scores": {"val_cider": 0.1}}
    checkpoint = {**parts, "model": {"a": shared, "b": shared, "c": shared.t(), "d": torch.tensor(3)}}
    for name in ("a.safetensors", "a.pth"):
        save_checkpoint(tmp_path / name, checkpoint)
    assert is_safetensors(tmp_path / "a.safetensors") and not is_safetensors(tmp_path / "a.pth")
    assert_same(load_checkpoint(tmp_path / "a.safetensors"), load_checkpoint(tmp_path / "a.pth"))


def test_only_a_runs_best_checkpoint_is_exported(tiny_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.safetensors"
    save_checkpoint(output, {"config": {"decoder": 1}, "vocab": [], "transform": {}, "model": {"w": torch.zeros(1)}})
    before = output.read_bytes()
    for words, reason in (
        ([tiny_run / "checkpoints_last.pth", output], "for resuming training"),
        ([tiny_run, tmp_path / "a.pth"], "not a .safetensors file. Name another output file, such as a.safetensors"),
        ([output, output], "would overwrite the source"),
        ([output, tmp_path / "b.safetensors"], "does not fit this version"),
        ([tmp_path / "none", output], "no such checkpoint"),
    ):
        assert reason in refusal(*words)
    assert output.read_bytes() == before and not (tmp_path / "b.safetensors").exists()


def test_files_of_strangers_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "c.safetensors", TEXTS, **floats(1, 2))
    assert load_checkpoint(path)["model"]["w"].tolist() == [1, 2] and load_checkpoint(path)["vocab"][1] == "é"
    whole = path.read_bytes()
    tensor = floats(1, 2)["tensors"]["w"]
    for length in (0, 5, 9, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"c\.safetensors: not a"):
            load_checkpoint(path)
    for texts, more, reason in (
        (TEXTS, floats(1, float("nan")), "w holds NaN or infinity"),
        (TEXTS, {**floats(1, 2), "tensors": {"w": tensor | {"data_offsets": [0, 4]}}}, "not a readable checkpoint"),
        (TEXTS, {**floats(1, 2), "tensors": {"w": tensor | {"shape": [2**40]}}}, "not a readable checkpoint"),
        (TEXTS, {**floats(1, 2), "tensors": {"w": tensor | {"dtype": "F8_E4M3", "shape": [8]}}}, "not a plain tensor"),
        (TEXTS, {**floats(1, 2), "tensors": {"w": tensor, "v": tensor}}, "not a readable checkpoint"),  # overlapping
        ({**TEXTS, "vocab": "[" * 100_000}, {}, "lists or objects in each other"),
        ({**TEXTS, "vocab": json.dumps(["word"] * 700_000)}, {}, "3 MB besides the tensors"),
        ({**TEXTS, "config": "no json"}, {}, "'config': not JSON"),
        ({**TEXTS, "config": "[]", "vocab": "{}"}, {}, "config"),
        ({**TEXTS, "format_version": '"1"'}, {}, "valid 'format_version'"),
        ({**TEXTS, "format_version": "9"}, {}, "written by a newer version"),
        ({**TEXTS, "model": '{"w": 1}', "scales": '{"w": 1}'}, floats(1, 2), "'scales' must be names"),
        ({"format": "pt"}, floats(1, 2), "not a checkpoint of this project"),
        ({"format_version": 1}, {}, "not a readable checkpoint"),  # the values of metadata are texts
    ):
        write(path, texts, **more)
        with pytest.raises(UserError) as caught:
            load_checkpoint(path)
        assert str(caught.value).startswith(str(path)) and reason in str(caught.value)


def test_encoders_begin_from_weights_in_this_format(tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "captioner.safetensors"
    main([str(tiny_run), str(file)])
    found = EncoderCNN(ResNet50Config(weights=str(file))).state_dict()
    assert_same(dict(found), dict(EncoderCNN(ResNet50Config(weights=str(tiny_run / "checkpoints.pth"))).state_dict()))


def test_a_missing_package_is_named(tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "c.safetensors", TEXTS, **floats(1, 2))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for work in (lambda: load_checkpoint(file), lambda: main([str(tiny_run), str(tmp_path / "d.safetensors")])):
        with pytest.raises(ModuleNotFoundError) as caught:
            work()
        message = str(cli.missing_package(caught.value))
        assert message.startswith("safetensors is not installed") and "requirements-hub.txt" in message
