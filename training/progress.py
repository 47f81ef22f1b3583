"""Where a run stands."""

from dataclasses import dataclass


@dataclass
class Progress:
    """Where a run stands; with the weights, the optimizer and the random state, all that resuming needs."""

    stage: int = 0  # index in train.stages
    epoch: int = 0  # finished epochs of this stage
    step: int = 0  # finished steps of this epoch
    total_epochs: int = 0  # finished epochs of the run
    total_steps: int = 0  # finished steps of the run
    best_cider: float = -1.0  # of the run: what checkpoints.pth holds
    best_epoch: int = 0
    stage_best_cider: float = -1.0  # of this stage, for early stopping and the plateau schedule
    epochs_without_better: int = 0
    lr_scale: float = 1.0  # what the plateau schedule has made of the learning rate
    loss_sum: float = 0.0  # of this epoch so far, over words; of a self-critical stage rewards, over sentences
    token_count: int = 0
    image_count: int = 0
    seconds: float = 0.0
