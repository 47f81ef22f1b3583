"""A ``Stage`` around a captioner and features in memory, without a captions file or a feature cache."""

from collections.abc import Callable

import torch
from torch.utils.data import DataLoader

from config import StageConfig
from data.dataset import EpochSampler, Flickr8kDataset, collate
from evaluation.metrics import Scorer
from models.captioner import Captioner
from training.objectives import teacher_forcing
from training.optim import EMA, build_optimizer
from training.self_critical import self_critical
from training.stage_data import StageData
from training.stage_setup import Stage

CAPTIONS = {
    "dog.jpg": ["a brown dog runs", "the dog is running fast"],
    "cat.jpg": ["a white cat sleeps"],
    "sea.jpg": ["two boats on the sea", "boats at sea", "three men look at two boats"],
    "car.jpg": ["a red car in front of a house"],
}


def make_stage(
    captioner: Captioner,
    config: StageConfig,
    references: dict[str, list[str]],
    load: Callable[[str, int | None], torch.Tensor],
    *,
    steps: int = 1,
    ema: float = 0.0,
) -> Stage:
    """A stage of ``steps`` steps an epoch, in fp32, which is trained and validated on the images of ``references``."""
    optimizer = build_optimizer(captioner, config, weight_decay=0.0)
    dataset = Flickr8kDataset(references, load, captioner.vocabulary)
    loader = DataLoader(dataset, batch_size=2, collate_fn=collate)
    data = StageData(loader, EpochSampler(2 * steps, 2, seed=0), loader, Scorer(references), references)
    if config.samples:
        objective = self_critical(references, captioner.vocabulary.tokenizer, config.samples, torch.float32)
    else:
        objective = teacher_forcing(config, torch.float32)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Stage(config, captioner, EMA(captioner, ema) if ema else None, data, objective, optimizer, scaler)
