"""How far a run has come, and the rules that depend on it: the best epoch, early stopping, the plateau schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from cli import UserError, listed
from config import StageConfig

PLATEAU_EPOCHS = 2  # without a better validation CIDEr, after which schedule "plateau" lowers the learning rate ...
PLATEAU_FACTOR = 0.5  # ... by this factor


@dataclass
class Progress:
    """Where a run stands. With the weights, the optimizer and the random state, all that resuming needs."""

    stage: str | None  # name of the current stage; None: all are finished (in checkpoints of earlier versions)
    epoch: int = 0  # finished epochs of this stage
    step: int = 0  # finished steps of this epoch
    total_epochs: int = 0  # finished epochs of the run
    total_steps: int = 0  # steps of the run that updated the weights
    best_cider: float = -1.0  # best validation CIDEr of the run, the one in checkpoints.pth
    best_epoch: int = 0  # its epoch, counted from 1 over the whole run
    stage_best_cider: float = -1.0  # best validation CIDEr of this stage
    epochs_without_better: int = 0  # epochs since then
    lr_scale: float = 1.0  # factor on the learning rate, set by the plateau rule
    # Sums over the current epoch:
    loss_sum: float = 0.0  # cross-entropy over words; in a self-critical stage, reward over sampled captions
    token_count: int = 0  # terms in loss_sum
    image_count: int = 0
    norm_sum: float = 0.0  # gradient norm before clipping, over the steps in which it is finite
    norm_count: int = 0
    seconds: float = 0.0  # training time, without validation

    def stage_finished(self, stage: StageConfig) -> bool:
        """Whether all epochs of ``stage`` are done, or it stops early."""
        return self.epoch >= stage.epochs or self.stopped_early(stage)

    def stopped_early(self, stage: StageConfig) -> bool:
        """Early stopping: ``stage.patience`` epochs without a better validation CIDEr."""
        return self.epochs_without_better >= stage.patience

    def end_step(self, shown: float, count: int, images: int, grad_norm: float, seconds: float) -> None:
        """Count a step that updated the weights; ``shown`` is a mean over ``count`` words or captions."""
        self.loss_sum += shown * count
        self.token_count += count
        self.image_count += images
        if math.isfinite(grad_norm):
            self.norm_sum, self.norm_count = self.norm_sum + grad_norm, self.norm_count + 1
        self.seconds += seconds
        self.step += 1
        self.total_steps += 1

    def end_epoch(self, cider: float, stage: StageConfig) -> bool:
        """Count an epoch of ``stage`` with validation CIDEr ``cider``, and apply the plateau rule.

        Returns:
            whether it is the best epoch of the run so far.
        """
        self.epoch += 1
        self.total_epochs += 1
        self.step = self.token_count = self.image_count = self.norm_count = 0
        self.loss_sum = self.norm_sum = self.seconds = 0.0
        if cider > self.stage_best_cider:
            self.stage_best_cider, self.epochs_without_better = cider, 0
        else:
            self.epochs_without_better += 1
            if stage.schedule == "plateau" and self.epochs_without_better % PLATEAU_EPOCHS == 0:
                self.lr_scale *= PLATEAU_FACTOR
        better = cider > self.best_cider
        if better:
            self.best_cider, self.best_epoch = cider, self.total_epochs
        return better

    def run_finished(self, stages: Sequence[StageConfig]) -> bool:
        """Whether no stage of ``stages`` is left to train."""
        return self.stage is None or (self.stage == stages[-1].name and self.stage_finished(stages[-1]))

    def next_stage(self, stages: Sequence[StageConfig]) -> "Progress | None":
        """Progress at the start of the stage that follows in ``stages``; None after the last one."""
        names = [stage.name for stage in stages]
        if self.stage is None or self.stage == names[-1]:
            return None
        return Progress(
            stage=names[names.index(self.stage) + 1],
            total_epochs=self.total_epochs,
            total_steps=self.total_steps,
            best_cider=self.best_cider,
            best_epoch=self.best_epoch,
        )

    def forget_best(self) -> None:
        """Start looking for the best epoch of the run again, because its checkpoint is gone."""
        self.best_cider, self.best_epoch = -1.0, 0

    @classmethod
    def from_dict(cls, values: Any, stages: Sequence[str]) -> "Progress":
        """The reverse of ``dataclasses.asdict``. Older checkpoints number their stage, as an index into ``stages``.

        Raises:
            UserError: a value is unknown, or of another type or range.
        """
        values = values if isinstance(values, dict) else {}
        if type(number := values.get("stage")) is int:
            values = {**values, "stage": stages[number] if 0 <= number < len(stages) else None}
        kinds = {f.name: f.type for f in fields(cls)}
        wrong = [name for name in values if name not in kinds]
        wrong += [
            name for name, value in values.items() if kinds.get(name) is float and type(value) not in (int, float)
        ]
        wrong += [
            name for name, value in values.items() if kinds.get(name) is int and (type(value) is not int or value < 0)
        ]
        if "stage" not in values or values["stage"] not in (None, *stages):
            wrong.append("stage")
        if wrong:
            raise UserError(f"--resume: the progress in the checkpoint is damaged ({listed(wrong)}). Begin a new run")
        return cls(**values)
