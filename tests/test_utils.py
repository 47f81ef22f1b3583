"""utils.py: atomic files, checkpoints that cannot run code, random state, device and precision."""

import argparse
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import utils
from cli import UserError
from models.pretrained import IMAGENET
from utils import (
    load_checkpoint,
    pick_device,
    pick_precision,
    random_state,
    save_checkpoint,
    seed_everything,
    set_matmul_precision,
    set_random_state,
    use_device,
)

ANYTHING = {
    "model": {"w": torch.arange(6.0).view(2, 3)},
    "vocab": ["<pad>", "a"],
    "config": {},
    "transform": {},
    "nested": {"lr": 1e-3, "list": [1, None, True]},
}


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", ANYTHING)
    loaded = load_checkpoint(tmp_path / "c.pth")
    assert torch.equal(loaded["model"]["w"], ANYTHING["model"]["w"])  # type: ignore[index]
    assert {key: loaded[key] for key in ("vocab", "nested")} == {key: ANYTHING[key] for key in ("vocab", "nested")}
    assert torch.load(tmp_path / "c.pth", weights_only=True).keys() == {"format_version", *ANYTHING}


def test_failed_save_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pth", ANYTHING)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path / "c.pth", {"model": lambda: None})
    assert load_checkpoint(tmp_path / "c.pth")["vocab"] == ANYTHING["vocab"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


def test_ctrl_c_while_a_checkpoint_is_written_is_not_reported_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 768 vs 662")  # which is what torch's writer does

    monkeypatch.setattr("torch.save", save)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a.pth", {})
    assert not list(tmp_path.iterdir())


class Malicious:
    """A pickle that would run code when loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the checkpoint ran code",))


def test_files_that_are_not_checkpoints_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.pth"
    save_checkpoint(path, ANYTHING | {"big": torch.zeros(10_000)})
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"c\.pth: not a readable checkpoint"):
            load_checkpoint(path)
    for content in (
        b"hello",
        b"PK\x03\x04" + b"\0" * 100,
        pickle.dumps({"format_version": 1}, 2),
        pickle.dumps(Malicious(), 2),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"c\.pth: not a"):
            load_checkpoint(path)
    path.write_text("# README")
    with pytest.raises(UserError, match=r"c\.pth: not a checkpoint, .* Name another one"):
        load_checkpoint(path)
    with pytest.raises(UserError, match=r"resnet50_imagenet\.pth: the weights of an encoder.*--encoder\.weights"):
        load_checkpoint(IMAGENET)
    for thing in (Malicious(), torch.nn.Linear(1, 1), argparse.Namespace(a=1)):
        torch.save({"format_version": 1, "model": thing}, path)
        with pytest.raises(UserError, match=r"c\.pth: not a readable checkpoint"):
            load_checkpoint(path)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "thing", [{"w": torch.zeros(1)}, [1, 2], torch.zeros(1), {"format_version": "one"}, {"format_version": None}]
)
def test_torch_files_without_a_valid_format_version_are_refused(tmp_path: Path, thing: object) -> None:
    torch.save(thing, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: not a checkpoint of this project"):
        load_checkpoint(tmp_path / "c.pth")


def test_newer_and_missing_checkpoints_are_refused_with_advice(tmp_path: Path) -> None:
    torch.save({"format_version": utils.FORMAT_VERSION, "model": {}, "config": {}}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="vocab, transform"):
        load_checkpoint(tmp_path / "c.pth")
    torch.save({"format_version": utils.FORMAT_VERSION + 1}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: written by a newer version"):
        load_checkpoint(tmp_path / "c.pth")
    for path in (tmp_path / "no.pth", tmp_path):
        with pytest.raises(UserError, match=r"no such checkpoint.*train\.py"):
            load_checkpoint(path)


def test_seed_everything_repeats_all_random_numbers() -> None:
    def random_numbers() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    first = random_numbers()
    seed_everything(3)
    assert random_numbers() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(random_numbers(), first, strict=True))


def test_pick_device() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    for name, reason in (("cuda:99", "not available here"), ("tpu", "no such device"), ("cpu:x", "no such device")):
        with pytest.raises(UserError, match=f"device {name}: {reason}"):
            pick_device(name)


@pytest.fixture
def matmul_precision() -> Iterator[None]:
    """Keep the precision of the process."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_picking_a_device_changes_no_global_setting(matmul_precision: None) -> None:
    torch.set_float32_matmul_precision("highest")
    pick_device("cpu")
    assert torch.get_float32_matmul_precision() == "highest"


def test_matmul_precision_is_that_of_the_last_device_and_exact_on_request(matmul_precision: None) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert use_device("cpu", exact=True) == cpu and torch.get_float32_matmul_precision() == "highest"
    assert use_device("cpu") == cpu and torch.get_float32_matmul_precision() == "medium"
    for device, exact, expected in (
        (cpu, False, "medium"),
        (cuda, False, "high"),  # "medium" for the CPU does not stay in force
        (cpu, True, "highest"),
        (cuda, True, "highest"),
        (torch.device("mps"), False, "highest"),
    ):
        set_matmul_precision(device, exact=exact)
        assert torch.get_float32_matmul_precision() == expected, (device, exact)


DEVICES = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.mark.parametrize("name", [name for name, available in DEVICES.items() if available])
def test_random_state_repeats_the_numbers_of_the_cpu_and_of_the_device(name: str) -> None:
    device = pick_device(name)
    states = random_state(device)
    assert states.keys() == {"cpu", name}

    def random_numbers() -> list[float]:
        return [*torch.rand(3).tolist(), *torch.rand(3, device=device).tolist()]

    first = random_numbers()
    assert random_numbers() != first
    set_random_state(states, device)
    assert random_numbers() == first


def test_pick_precision() -> None:
    cpu = torch.device("cpu")
    assert [pick_precision(name, cpu) for name in ("fp32", "bf16", "fp16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
    assert pick_precision("auto", cpu) in {torch.float32, torch.bfloat16}
    with utils.autocast(cpu, torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with utils.autocast(cpu, torch.float32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
