"""Training on a GPU: the steps of the CPU, and several processes with one GPU each. Skipped where there is none."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from config import StageConfig
from data.dataset import Flickr8kDataset, collate
from models.captioner import Captioner
from tests.support.helpers import tiny_decoder
from tests.support.process_runs import ONE_STAGE, ProcessRun
from tests.support.ranks import join_ranks, start_ranks
from tests.support.stages import CAPTIONS, make_stage
from tests.support.training import read_log
from training.engine import train_one_epoch
from training.progress import Progress

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@needs_gpu
@pytest.mark.parametrize("samples", [0, 3])
def test_the_steps_on_a_gpu_are_those_on_the_cpu(captioner: Captioner, dataset: Flickr8kDataset, samples: int) -> None:
    config = StageConfig(epochs=3, lr=1e-3, samples=samples)
    batch, numbers = collate([dataset[(i, i)] for i in range(4)]), []
    for device in ("cpu", "cuda"):
        its_captioner = copy.deepcopy(captioner).to(device)
        its_captioner.set_dropout(0.0)
        stage = make_stage(its_captioner, config, CAPTIONS, dataset.load)
        numbers.append(train_one_epoch(stage, [batch] * 3, Progress(stage="frozen")))
    for name in ("train_loss", "reward", "grad_norm"):
        assert numbers[1][name] == pytest.approx(numbers[0][name], rel=1e-3, nan_ok=True)


@needs_gpu
def test_captions_of_a_gpu_are_those_of_the_cpu(captioner: Captioner, dataset: Flickr8kDataset) -> None:
    features = torch.stack([dataset[i][0] for i in range(4)])
    found = [copy.deepcopy(captioner).to(device).eval().generate(features) for device in ("cpu", "cuda")]
    assert [[c.caption for c in image] for image in found[0]] == [[c.caption for c in image] for image in found[1]]


@needs_two
def test_two_gpus_make_the_steps_of_one(forkserver: Any, tiny_args: list[str], tmp_path: Path) -> None:
    logs, options = [], ("--device=cuda", "--train.precision=fp32", tiny_decoder("lstm", dropout=0.0))
    for size in (1, 2):
        run = ProcessRun(forkserver, tiny_args, tmp_path / str(size), ONE_STAGE, *options)
        assert join_ranks(run, start_ranks(run, size)) == [0] * size, run.text()
        logs.append(read_log(run.path))
    assert list(logs[1]["train_loss"]) == pytest.approx(list(logs[0]["train_loss"]), abs=1e-3)
