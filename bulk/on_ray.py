"""Caption batches on a Ray cluster: Ray Data reads them anywhere and hands them to captioners, one on each GPU.

All rows come back to the process that started the run, which alone writes them. A task that Ray repeats after a machine
was lost is thus not written twice, and the output need not be on a disk that all machines share. The images, the
checkpoint and this repository must be at the same paths on all of them.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from bulk.captioning import Reader, Settings, caption
from bulk.parts import Batch, Row
from cli import UserError

BATCHES_PER_TASK = 8  # a task of Ray takes some milliseconds, a batch 0.1 s and 10 MB
READER_CPUS = 0.5  # it waits for the disk as long as it decodes
Record = dict[str, Any]


def read(record: Record, reader: Reader) -> Record:
    """Ray's task: a pickled ``Batch`` -> pickled ``Images``."""
    return {"data": pickle.dumps(reader(pickle.loads(record["data"])))}


class CaptionActor:
    """Ray's process that holds a model."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.captioner = settings, settings.captioner()

    def __call__(self, record: Record) -> Record:
        """Pickled ``Images`` -> part, first row and rows, pickled."""
        images = pickle.loads(record["data"])
        return {"data": pickle.dumps((images.part, images.first, caption(self.captioner, images, self.settings)))}


def caption_on_ray(
    address: str, batches: Sequence[Batch], reader: Reader, settings: Settings
) -> Iterator[tuple[int, int, list[Row]]]:
    """Yield part, first row and rows of each batch, in any order.

    Args:
        address: of the cluster: auto, HOST:PORT, or local, which starts Ray on this machine.

    Raises:
        UserError: there is no cluster at that address, it has less than two CPUs, or a captioner cannot start.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # this process's, on stderr; Ray's own logs have all
    import ray
    import ray.data

    ours = not ray.is_initialized()
    try:
        if ours:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised too
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        tasks = -(-len(batches) // BATCHES_PER_TASK)
        data = ray.data.from_items([{"data": pickle.dumps(batch)} for batch in batches], override_num_blocks=tasks)
        count, needs = captioners([node["Resources"] for node in ray.nodes()])
        # Readers that need as much as captioners would be made one with them, which then wait for the disk.
        images = data.map(read, fn_args=(reader,), num_cpus=READER_CPUS)
        pool = ray.data.ActorPoolStrategy(size=count)
        results = images.map(CaptionActor, fn_constructor_args=(settings,), compute=pool, **needs)
        for record in results.iter_rows():
            yield pickle.loads(record["data"])
    except ConnectionError as error:
        raise UserError(f"--ray {address}: no Ray cluster there ({error}). Start one with: ray start --head") from error
    except ray.exceptions.RayError as error:  # its last line is that of the traceback on the other machine
        raise UserError(
            f"--ray {address}: {str(error).strip().splitlines()[-1]}. Every machine needs images, checkpoint and "
            "repository at the same paths; then run the same command again"
        ) from error
    finally:
        if ours:
            ray.shutdown()


def captioners(nodes: Sequence[dict[str, float]]) -> tuple[int, dict[str, Any]]:
    """How many captioners, and what each of them needs: one a GPU or, without GPUs, one for three of four CPUs.

    The other CPUs read: where captioners take all, no image is read and the run stands still. So on several machines
    there are no more captioners than fit when the largest one is lost.

    Args:
        nodes: the resources of each machine; none of one that is gone.

    Raises:
        UserError: too few CPUs.
    """
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU")]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if sum(cpus) < 2:
        raise UserError(f"the Ray cluster has {sum(cpus)} CPU: it needs 2, one to read images and one to caption them")
    if gpus:
        return gpus, {"num_gpus": 1}
    most = sum(cpus) - max(cpus) - 1 if len(cpus) > 1 else sum(cpus)
    return max(1, min(most, sum(cpus) * 3 // 4)), {"num_cpus": 1}
