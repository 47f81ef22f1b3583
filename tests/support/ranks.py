"""A run in several processes on this machine, as torchrun would start them: each with its rank in its environment."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch

import models.model
from data.captions import read_training_data
from data.vocab import Vocabulary
from distributed import Processes, joined
from models.captioner import Captioner
from tests.support.helpers import DECODERS, read, tiny_decoder
from tests.support.process_runs import At, ProcessRun
from tests.support.training import thin_resnet50
from training.engine import train_step
from training.run import share_weights
from training.stage_setup import set_up_stage
from utils import seed_everything


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def environment_of(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells each process."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    without_java = {"PATH": ""}  # with it METEOR takes seconds
    address = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    return {**address, **without_java, **{name: str(number) for name, number in numbers.items()}}


def start_ranks(
    run: ProcessRun, size: int, *options: str, at: dict[int, At] | None = None
) -> list[multiprocessing.Process]:
    """Start ``size`` processes of the run; ``at``: what happens to which rank."""
    port = free_port()
    return [
        run.start((at or {}).get(rank), *options, environment=environment_of(rank, size, port)) for rank in range(size)
    ]


def join_ranks(run: ProcessRun, processes: list[multiprocessing.Process], timeout: float = 120) -> list[int | None]:
    """The exit status of each process."""
    for process in processes:
        process.join(timeout)
    if hanging := [rank for rank, process in enumerate(processes) if process.is_alive()]:
        for process in processes:
            process.kill()
        pytest.fail(f"ranks {hanging} are still running after {timeout} s: {run.text()}")
    return [process.exitcode for process in processes]


def losses_of_rank(options: list[str], stages: dict[str, str], environment: dict[str, str], output: Path) -> None:
    """The body of a process: train every decoder in each of the ``stages`` for 21 steps of 8 images, and write as JSON
    the losses (or rewards) and gradient norms of the steps, and the statistics of batch normalization at the end."""
    os.environ |= environment
    torch.set_num_threads(1)
    models.model.ResNet50 = thin_resnet50
    with joined() as processes:
        found = {
            f"{decoder}, {name}": _losses(
                [*options, tiny_decoder(decoder, dropout=0.0), f"--train.stages=[{stage}]"], processes
            )
            for decoder in DECODERS
            for name, stage in stages.items()
        }
        if processes.is_first:
            output.write_text(json.dumps(found))


def _losses(options: list[str], processes: Processes) -> tuple[list[tuple[float, float]], list[float]]:
    config = read(*options)
    table, learned_from = read_training_data(config.data.captions_file, config.train.seed)
    seed_everything(0)
    vocabulary = Vocabulary.build(table["caption"], 1)
    captioner = share_weights(Captioner(config, vocabulary, learned_from), processes)
    stage = set_up_stage(captioner, table, config.train.stages[0], processes)
    captioner.train()
    steps = []
    for epoch in range(7):
        for batch in stage.data.train_batches(epoch, 0):
            (images,) = processes.gather_numbers(len(batch.names))
            copies = stage.data.sampler.copies(len(steps) % stage.data.steps_per_epoch)
            shown, _, norm = train_step(stage, batch, 1.0, images, copies)
            steps.append((shown, norm))
    norms = [float(value.mean()) for name, value in captioner.state_dict().items() if "running_" in name]
    return steps, norms
