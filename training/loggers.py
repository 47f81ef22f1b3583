"""``--log_to``: what loss_log.txt holds, in TensorBoard, Weights & Biases or Trackio. The file remains the record."""

import json
import os
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from cli import note
from files import write_json
from training.loss_log import numbers_after
from training.run_folder import CURVES, LOG


@contextmanager
def curves(logger: str | None, folder: Path, config: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """A function that sends the new epochs of the run in ``folder`` to a logger, if one is named."""
    with closing(_sender(logger, folder, config)) as sender:
        next(sender, None)  # what an earlier command has not sent
        yield lambda: next(sender, None)  # nothing after an error, which ends a generator


def _sender(logger: str | None, folder: Path, config: dict[str, Any]) -> Generator[None, None, None]:
    """Sends what is new at each step, up to the first error. The folder ``CURVES`` records what has been sent."""
    try:
        if logger is not None:
            yield from _send(logger, folder, folder / CURVES / f"{logger}.json", config)
    except Exception as error:  # a full disk, no network, a wrong key: loggers raise what they like
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        note(f"--log_to {logger}: {reason}. The run goes on; {folder / LOG} has its numbers")


def _send(logger: str, folder: Path, record: Path, config: dict[str, Any]) -> Generator[None, None, None]:
    new: dict[str, Any] = {"run": f"{folder.resolve().name}-{uuid.uuid4().hex[:8]}", "epochs": 0}
    sent = json.loads(record.read_text("utf-8")) if record.exists() else new
    write_json(record, sent)
    if logger == "tensorboard":
        writer = import_module("torch.utils.tensorboard").SummaryWriter(record.parent, purge_step=sent["epochs"] + 1)
        finish = writer.close
    else:  # wandb; trackio has the same API, but knows a run by its name, keeps all in one place, and commits at once
        own, at_once = ({"id": sent["run"], "dir": record.parent}, {"commit": True}) if logger == "wandb" else ({}, {})
        project = os.environ.get(f"{logger.upper()}_PROJECT", "image-captioning")
        writer = import_module(logger).init(project=project, name=sent["run"], config=config, resume="allow", **own)
        finish = writer.finish
    try:
        while True:
            for epoch, values in numbers_after(folder / LOG, sent["epochs"]):
                if logger == "tensorboard":
                    for name, value in values.items():
                        writer.add_scalar(name, value, epoch)
                    writer.flush()
                else:
                    writer.log(values, step=epoch, **at_once)
                write_json(record, sent := {**sent, "epochs": epoch})
            yield
    finally:
        finish()
