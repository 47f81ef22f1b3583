"""utils.py: random state, device and precision."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import utils
from cli import UserError
from utils import (
    pick_device,
    pick_precision,
    random_state,
    seed_everything,
    set_matmul_precision,
    set_random_state,
    use_device,
)


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
    assert use_device("cpu", "fp32") == cpu and torch.get_float32_matmul_precision() == "highest"
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


def test_a_precision_that_a_cpu_only_emulates_is_refused(matmul_precision: None) -> None:
    native = pick_precision("auto", torch.device("cpu"))
    for precision in ("fp16",) if native == torch.bfloat16 else ("fp16", "bf16"):
        with pytest.raises(UserError, match=f"^precision {precision}: not supported by this CPU. Use auto or fp32$"):
            use_device("cpu", precision)


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
