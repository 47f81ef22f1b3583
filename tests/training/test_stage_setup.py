"""Setting up a stage, and restoring it exactly from the training state of a checkpoint."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cli import UserError
from config import Config, StageConfig
from data.dataset import Flickr8kDataset, collate
from models.captioner import Captioner
from tests.support.helpers import assert_same
from tests.support.stages import CAPTIONS, make_stage
from training.engine import train_one_epoch
from training.progress import Progress
from training.stage_setup import Stage, restore, saved_random_state, training_state


@pytest.fixture
def stage_of(captioner: Captioner, dataset: Flickr8kDataset) -> Callable[[StageConfig], Stage]:
    return lambda config: make_stage(copy.deepcopy(captioner), config, CAPTIONS, dataset.load, ema=0.9)


def train(stage: Stage, dataset: Flickr8kDataset, steps: int) -> None:
    progress = Progress(stage=stage.config.name)
    for _ in range(steps):
        train_one_epoch(stage, [collate([dataset[0], dataset[2]])], progress)


def test_a_restored_stage_continues_exactly_like_the_original(
    stage_of: Callable[[StageConfig], Stage], dataset: Flickr8kDataset
) -> None:
    config = StageConfig(lr=0.01)
    stage = stage_of(config)
    train(stage, dataset, 3)
    state = copy.deepcopy(training_state(stage))
    averaged = copy.deepcopy(stage.averaged.state_dict())
    train(stage, dataset, 3)  # with dropout, so that the random state matters
    resumed = stage_of(config)
    resumed.averaged.load_state_dict(averaged)
    restore(resumed, state)
    train(resumed, dataset, 3)
    assert_same(dict(resumed.captioner.state_dict()), dict(stage.captioner.state_dict()))
    assert_same(resumed.optimizer.state_dict()["state"], stage.optimizer.state_dict()["state"])


def test_a_restored_stage_keeps_its_own_learning_rate(stage_of: Callable[[StageConfig], Stage]) -> None:
    state = training_state(stage_of(StageConfig(lr=0.01)))
    stage = stage_of(StageConfig(lr=0.002))
    restore(stage, copy.deepcopy(state))
    assert {group["peak"] for group in stage.optimizer.param_groups} == {0.002}


def test_a_run_finished_by_an_earlier_version_has_no_optimizer_to_restore(
    stage_of: Callable[[StageConfig], Stage], dataset: Flickr8kDataset
) -> None:
    stage = stage_of(StageConfig(lr=0.01))
    train(stage, dataset, 2)
    added = stage_of(StageConfig(name="added"))
    restore(added, training_state(stage) | {"optimizer": None, "scaler": None})
    assert not added.optimizer.state
    assert_same(dict(added.captioner.state_dict()), dict(stage.captioner.state_dict()))


def test_other_layers_cannot_be_restored(stage_of: Callable[[StageConfig], Stage]) -> None:
    state = training_state(stage_of(StageConfig(encoder_lr=0.1, encoder_from=4)))
    with pytest.raises(UserError, match=r"stage 'frozen' trained other layers.*Leave its encoder_lr and encoder_from"):
        restore(stage_of(StageConfig()), state)


def test_old_checkpoints_of_more_gpus_can_be_resumed() -> None:
    """They hold a list of the states of all GPUs."""
    cpu, *gpus = (torch.full((1,), number) for number in range(5))
    old: dict[str, Any] = {"rng": cpu, "cuda_rng": gpus}
    assert saved_random_state(old, torch.device("cuda:2")) == {"cpu": cpu, "cuda": gpus[2]}
    assert saved_random_state(old, torch.device("cuda")) == {"cpu": cpu, "cuda": gpus[0]}
    assert saved_random_state({**old, "cuda_rng": gpus[:1]}, torch.device("cuda:2")) == {"cpu": cpu, "cuda": gpus[0]}
    assert saved_random_state({**old, "cuda_rng": []}, torch.device("cuda:2")) == {"cpu": cpu}
    assert saved_random_state({"rng": {"cpu": cpu}}, torch.device("cuda")) == {"cpu": cpu}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_only_the_state_of_the_gpu_that_trains_is_saved(
    tiny_config: Callable[..., Config], captioner: Captioner
) -> None:
    stage = make_stage(copy.deepcopy(captioner).to("cuda"), StageConfig(), CAPTIONS, lambda *_: torch.zeros(4, 2048))
    state = training_state(stage)["rng"]
    assert state.keys() == {"cpu", "cuda"} and torch.equal(state["cuda"], torch.cuda.get_rng_state("cuda"))


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (["model"], {}, "missing: "),
        (["model"], {"a": 5}, "'model' must be names with their tensors"),
        (["optimizer"], 5, "AttributeError"),
        (["optimizer"], {}, "KeyError"),
        (["optimizer", "param_groups"], 5, "TypeError"),
        (["optimizer", "param_groups"], [], "trained other layers before"),
        (["optimizer", "param_groups", 0, "lr"], "x", "TypeError"),
        (["optimizer", "state", 0], {"step": 1}, "TypeError"),
        (["optimizer", "state", 0, "exp_avg"], torch.zeros(1), "TypeError"),
        (["optimizer", "state", 0, "exp_avg_sq"], "x", "TypeError"),
        (["rng"], 5, "KeyError"),
        (["rng"], {}, "KeyError"),
        (["rng"], {"cpu": "x"}, "TypeError"),
        (["rng"], {"cpu": torch.zeros(3, dtype=torch.uint8)}, "TypeError"),
        (["rng"], {"cpu": torch.full((5056,), 255, dtype=torch.uint8)}, "TypeError"),
    ],
)
def test_a_damaged_state_is_refused_in_one_line(
    stage_of: Callable[[StageConfig], Stage], dataset: Flickr8kDataset, place: list[Any], value: Any, why: str
) -> None:
    stage = stage_of(StageConfig(lr=0.01))
    train(stage, dataset, 1)
    state = copy.deepcopy(training_state(stage))
    *path, last = place
    inner: Any = state
    for key in path:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(UserError, match="--resume: ") as caught:
        restore(stage_of(StageConfig(lr=0.01)), state)
    assert why in str(caught.value)


def test_options_of_the_optimizer_are_not_taken_from_the_checkpoint(
    stage_of: Callable[[StageConfig], Stage], dataset: Flickr8kDataset
) -> None:
    stage = stage_of(StageConfig(lr=0.01))
    train(stage, dataset, 1)
    state = copy.deepcopy(training_state(stage))
    state["optimizer"]["param_groups"][0] |= {"betas": "x", "fused": 7, "amsgrad": True}
    resumed = stage_of(StageConfig(lr=0.01))
    restore(resumed, state)
    train(resumed, dataset, 1)
    assert resumed.optimizer.param_groups[0]["betas"] == (0.9, 0.999)
