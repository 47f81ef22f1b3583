"""Learning rate schedule, parameter groups, and the exponential moving average of the weights."""

import copy
import itertools

import pytest
import torch
from torch import nn

from config import StageConfig
from models.captioner import Captioner
from training.optim import EMA, build_optimizer, lr_factor


def test_warm_up_then_cosine() -> None:
    stage = StageConfig(epochs=10, warmup=0.1)
    factors = [lr_factor(stage, step, 20) for step in range(200)]
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert factors[20] == pytest.approx(1.0) and factors[110] == pytest.approx(0.01 + 0.99 / 2)
    assert all(after < before for before, after in itertools.pairwise(factors[20:]))
    assert 0.01 < factors[-1] < 0.0102


def test_the_plateau_schedule_is_constant_apart_from_its_scale() -> None:
    stage = StageConfig(epochs=10, warmup=0.1, schedule="plateau")
    assert [lr_factor(stage, step, 20, lr_scale=0.25) for step in (20, 100, 199)] == [0.25] * 3
    assert lr_factor(stage, 0, 20) == 1 / 20


@pytest.mark.parametrize("stage", [StageConfig(epochs=1, warmup=0.0), StageConfig(epochs=1, warmup=0.99)])
def test_one_step_stages_use_the_full_learning_rate(stage: StageConfig) -> None:
    assert lr_factor(stage, 0, 1) == 1.0


def test_optimizer_of_a_frozen_encoder(captioner: Captioner) -> None:
    optimizer = build_optimizer(captioner, StageConfig(lr=3e-4), weight_decay=0.02)
    learning = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert learning == {id(p) for p in captioner.decoder.parameters()}
    assert {group["peak"] for group in optimizer.param_groups} == {3e-4}
    assert not any(p.requires_grad for p in captioner.encoder.parameters())


def test_weight_decay_applies_to_matrices_only(captioner: Captioner) -> None:
    optimizer = build_optimizer(captioner, StageConfig(), weight_decay=0.02)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    embedding = next(module for module in captioner.decoder.modules() if isinstance(module, nn.Embedding))
    for name, parameter in captioner.decoder.named_parameters():
        plain = parameter.dim() == 1 or parameter is embedding.weight
        assert decay[id(parameter)] == (0.0 if plain else 0.02), name


@pytest.mark.parametrize("first", [0, 3, 4])
def test_optimizer_of_a_trainable_encoder(captioner: Captioner, first: int) -> None:
    optimizer = build_optimizer(captioner, StageConfig(encoder_lr=1e-5, encoder_from=first), weight_decay=0.02)
    peak = {id(p): group["peak"] for group in optimizer.param_groups for p in group["params"]}
    for number, stage in enumerate(captioner.encoder.stages):
        for parameter in stage.parameters():
            assert peak.get(id(parameter)) == (1e-5 if number >= first else None)
            assert parameter.requires_grad == (number >= first)
    assert {peak[id(p)] for p in captioner.decoder.parameters()} == {StageConfig().lr}


def perturb_weights(captioner: Captioner) -> None:
    """Change all weights and statistics that training would change."""
    captioner.train()
    with torch.no_grad():
        for parameter in captioner.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
        captioner.encoder(torch.randn(2, 3, 32, 32))  # batch norm in training mode updates its statistics


@pytest.mark.parametrize("encoder_from", [None, 4, 0])
def test_ema_is_the_exponentially_weighted_mean_of_the_weights(captioner: Captioner, encoder_from: int | None) -> None:
    source = copy.deepcopy(captioner)  # its encoder has random weights, so its batch norm is trained
    if encoder_from is None:
        source.encoder.learn_from(None)
    else:
        source.encoder.learn_from(encoder_from)
    start = copy.deepcopy(source.state_dict())
    expected = copy.deepcopy(start)
    ema = EMA(source, decay=0.4)
    trained = {name for name, parameter in source.named_parameters() if parameter.requires_grad}
    for step in range(1, 11):
        perturb_weights(source)
        ema.update(step)
        decay = min(0.4, (1 + step) / (10 + step))
        for name in trained:
            expected[name] = decay * expected[name] + (1 - decay) * source.state_dict()[name]
    for name, tensor in ema.captioner.state_dict().items():
        if name in trained:
            torch.testing.assert_close(tensor, expected[name])
            assert not torch.equal(tensor, source.state_dict()[name]), name
        else:  # frozen weights, exactly; statistics of batch norm are those of the source
            assert torch.equal(tensor, source.state_dict()[name]), name
    moved = {name.split(".")[2] for name, old in start.items() if not torch.equal(old, source.state_dict()[name])}
    stages = {str(number) for number in range(5) if encoder_from is not None and number >= encoder_from}
    assert {name for name in moved if name.isdecimal()} == stages


def test_ema_shares_a_frozen_encoder_and_is_in_eval_mode(captioner: Captioner) -> None:
    source = copy.deepcopy(captioner).train()
    source.encoder.learn_from(None)
    assert EMA(source, 0.9).captioner.encoder is source.encoder
    source.encoder.learn_from(4)
    ema = EMA(source, 0.9)
    assert ema.captioner.encoder is not source.encoder
    assert source.training and not any(module.training for module in ema.captioner.modules())
