"""A stage of training as one value: data, objective, optimizer and EMA; and its state as a checkpoint holds it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from cli import UserError
from config import StageConfig
from distributed import ALONE, Processes
from models.captioner import Captioner
from models.checkpoint_schema import check_tensors, misfits
from training.objectives import Objective, teacher_forcing
from training.optim import EMA, build_optimizer
from training.self_critical import self_critical
from training.stage_data import StageData, prepare_data
from utils import pick_precision, random_state, set_random_state


@dataclass(frozen=True)
class Stage:
    """Everything that the epochs of one stage need."""

    config: StageConfig
    captioner: Captioner  # the weights that are trained
    ema: EMA | None  # None where train.ema is 0
    data: StageData
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # does nothing unless training in fp16
    processes: Processes = ALONE

    @property
    def averaged(self) -> Captioner:
        """What is validated and saved: the EMA of the weights, or the weights themselves where train.ema is 0."""
        return self.captioner if self.ema is None else self.ema.captioner


def set_up_stage(captioner: Captioner, table: pd.DataFrame, stage: StageConfig, processes: Processes = ALONE) -> Stage:
    """Prepare ``captioner`` and the data for the first step of ``stage``; draws no random numbers.

    Raises:
        UserError: too many images cannot be read.
    """
    config = captioner.config
    dtype = pick_precision(config.train.precision, captioner.device)
    optimizer = build_optimizer(captioner, stage, config.train.weight_decay)
    captioner.set_dropout(config.decoder.dropout if stage.dropout is None else stage.dropout)
    ema = EMA(captioner, config.train.ema) if config.train.ema > 0 else None
    with processes.first_of_machine_first():  # it fills the cache of features
        data = prepare_data(captioner, table, stage, processes)
    processes.check_equal([*data.references, *data.scorer.references], "The images that can be read are")
    if stage.samples:
        objective = self_critical(data.references, captioner.vocabulary.tokenizer, stage.samples, dtype)
    else:
        objective = teacher_forcing(stage, dtype)
    scaler = torch.amp.GradScaler(captioner.device.type, enabled=dtype == torch.float16)
    return Stage(stage, captioner, ema, data, objective, optimizer, scaler, processes)


def training_state(stage: Stage) -> dict[str, Any]:
    """What ``restore`` needs besides the averaged weights, which are the checkpoint's model; all processes call it."""
    rng, *others = stage.processes.gather(random_state(stage.captioner.device))
    return {
        "model": stage.captioner.state_dict(),  # tensors shared with the EMA are stored once
        "optimizer": stage.optimizer.state_dict(),
        "scaler": stage.scaler.state_dict(),
        "rng": rng,
        **({"rng_of_others": others} if others else {}),
        "threads": torch.get_num_threads(),
    }


def restore(stage: Stage, state: dict[str, Any]) -> None:
    """Bring a stage that was just set up, from a checkpoint's captioner, to where ``training_state`` was taken.

    Raises:
        UserError: other layers are trained than before, or the state is damaged.
    """
    if "model" in state:  # else an old checkpoint without EMA
        check_tensors(state, "--resume")
        if why := misfits(state["model"], stage.captioner.state_dict()):
            raise UserError(f"--resume: the weights in the checkpoint do not fit ({why}). Begin a new run")
        stage.captioner.load_state_dict(state["model"])
    try:
        if state["optimizer"] is not None:  # as in the last checkpoint of a finished run of an earlier version
            _load_optimizer(stage, state["optimizer"])
            if state["scaler"]:  # {} where it was disabled
                stage.scaler.load_state_dict(state["scaler"])
        _restore_random_state(stage, state)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(
            f"--resume: the state of training in the checkpoint is damaged ({type(error).__name__}). Begin a new run "
            "with its weights: --init_from in place of --resume"
        ) from error


def _restore_random_state(stage: Stage, state: dict[str, Any]) -> None:
    device, rank, others = stage.captioner.device, stage.processes.rank, state.get("rng_of_others", [])
    try:
        if 0 < rank <= len(others):
            set_random_state(others[rank - 1], device)
        else:
            set_random_state(saved_random_state(state, device), device)
            stage.processes.own_random_numbers(torch.initial_seed())  # more processes than before
    except RuntimeError as error:
        raise TypeError("not the state of a random generator") from error


def saved_random_state(state: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """The random state in a checkpoint. Older ones hold those of all GPUs, of which there may be fewer now."""
    if isinstance(state["rng"], dict):
        return dict(state["rng"])
    gpus = state["cuda_rng"]
    number = device.index or 0
    return {"cpu": state["rng"], **({"cuda": gpus[number if number < len(gpus) else 0]} if gpus else {})}


def _load_optimizer(stage: Stage, state: dict[str, Any]) -> None:
    """Take over the checkpoint's moments, but not its options, of which peak rates and weight decay may have changed.

    Raises:
        UserError: other layers are trained than before.
        TypeError: the moments do not fit the weights.
    """
    groups = stage.optimizer.param_groups
    own = [{name: value for name, value in group.items() if name not in ("params", "lr")} for group in groups]
    try:
        stage.optimizer.load_state_dict(state)
    except ValueError as error:
        raise UserError(
            f"--resume: stage '{stage.config.name}' trained other layers before. "
            "Leave its encoder_lr and encoder_from as they were"
        ) from error
    for group, kept in zip(stage.optimizer.param_groups, own, strict=True):
        group.update(kept)
        if type(group["lr"]) is not float or not all(
            _fits(stage.optimizer.state.get(p, {}), p) for p in group["params"]
        ):
            raise TypeError("the optimizer's state does not fit the weights")


def _fits(moments: dict[str, Any], parameter: torch.Tensor) -> bool:
    """Whether AdamW can go on from the moments of a parameter; it has none before its first step."""
    shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    if not moments:
        return True
    return moments.keys() == shapes.keys() and all(
        isinstance(moments[name], torch.Tensor) and moments[name].shape == shape and moments[name].is_floating_point()
        for name, shape in shapes.items()
    )
