"""Processes that train or score one model together, one for each GPU or for a share of a CPU; torchrun starts them.

Each computes its share of every batch, and everything that they tell each other goes through this file. What decides
how a run goes on (to stop, to save, that a loss is not finite) is decided by all at the same point: a process that left
alone would let the others wait for ever. Only the first one, rank 0, prints and writes. A script that is started
without torchrun is one process, ``ALONE``, which has nobody to tell.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from cli import UserError, describe

# For which the others wait while one fills the cache of features, which may take hours. A dead process shows at once.
PATIENCE = timedelta(hours=24)
MEETING = timedelta(minutes=10)  # for all processes to start; on a slow shared disk, importing torch takes minutes
TOLD = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by torchrun, besides WORLD_SIZE
CPU_BACKEND, GPU_BACKEND = "gloo", "cpu:gloo,cuda:nccl"
SEED_STEP = 1_000_003  # between the seeds of two processes; a prime, so that those of runs with near seeds differ
Value = TypeVar("Value")


class ProcessLost(UserError):
    """Another process has ended. Its own error says why, and this one stays silent."""


@dataclass(frozen=True)
class Processes:
    """This process among the ``size`` that work together."""

    rank: int = 0  # 0, 1, ... on all machines
    size: int = 1
    local_rank: int = 0  # 0, 1, ... on this machine
    job: Any = field(default=None, repr=False)  # torchrun's store, which stays when it starts the processes again

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def device_name(self, name: str) -> str:
        """The device for this process where ``name`` (``config.device``) is the one for all.

        Raises:
            UserError: one device is named for several processes, or there are more of them than GPUs.
        """
        if self.size == 1 or name == "cpu":
            return name
        if name not in ("auto", "cuda"):
            raise UserError(f"--device {name}: torchrun started {self.size} processes. Use auto, cuda or cpu")
        if not torch.cuda.is_available():
            return "cpu" if name == "auto" else name
        gpus = torch.cuda.device_count()
        if self.local_rank >= gpus:
            raise UserError(f"torchrun started more processes than the {gpus} GPUs here. Use --nproc_per_node gpu")
        return f"cuda:{self.local_rank}"

    def share(self, items: Sequence[Value]) -> Sequence[Value]:
        """This process's part of the items: consecutive ones, about as many as the others get; maybe none."""
        count = len(items)
        return items[count * self.rank // self.size : count * (self.rank + 1) // self.size]

    def gather(self, value: Value) -> list[Value]:
        """The value of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _exchange():
            dist.all_gather_object(values, value)
        return values

    def gather_numbers(self, *numbers: int) -> list[list[int]]:
        """For each of the numbers, those of all processes: quicker than ``gather``, for every step."""
        if self.size == 1:
            return [[number] for number in numbers]
        found = torch.empty(self.size * len(numbers), dtype=torch.int64)
        with _exchange():
            dist.all_gather_into_tensor(found, torch.tensor(numbers, dtype=torch.int64))
        columns: list[list[int]] = found.view(self.size, len(numbers)).T.tolist()
        return columns

    def any(self, *flags: bool) -> list[bool]:
        """For each of the flags, whether it is set in one of the processes."""
        return [any(column) for column in self.gather_numbers(*map(int, flags))]

    def broadcast(self, value: Value) -> Value:
        """The value of the first process."""
        if self.size == 1:
            return value
        values = [value]
        with _exchange():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def check_equal(self, value: object, what: str) -> None:
        """Check that all processes have the same plain value, such as a list of names; only its hash is sent.

        Raises:
            UserError: they have not; in each process.
        """
        if self.size == 1:
            return
        if len(set(self.gather(hashlib.sha256(repr(value).encode()).digest()))) > 1:
            raise UserError(f"{what} not the same on all machines. Use one shared disk, or copy what differs")

    def remember(self, what: str) -> None:
        """Leave a note for those that torchrun starts after a failure of these."""
        if self.job is not None and self.is_first:
            self.job.set(what, "yes")

    def remembers(self, what: str) -> bool:
        """Whether the processes before a restart have called ``remember`` with it."""
        return self.broadcast(self.job is not None and self.is_first and bool(self.job.check([what])))

    @contextlib.contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        """Let the first process of each machine run the block, such as one that fills a cache, before the others."""
        if self.size > 1 and self.local_rank > 0:
            self.wait()
        yield
        if self.size > 1 and self.local_rank == 0:
            self.wait()

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.gather_numbers(0)

    def make_equal(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of the first one."""
        if self.size == 1:
            return
        with _exchange(), torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                same = tensor.detach().clone(memory_format=torch.contiguous_format)
                dist.broadcast(same, src=0)
                tensor.copy_(same)

    def sum_gradients(self, parameters: Sequence[nn.Parameter], numbers: torch.Tensor) -> torch.Tensor:
        """Replace each gradient by its sum over the processes; return the sums of ``numbers`` (a vector).

        One message for all of them. A wrapper such as DistributedDataParallel would be bypassed, and silently do
        nothing, where an objective calls the encoder and the decoder one by one.
        """
        if self.size == 1:
            return numbers
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), numbers.to(gradients[0])])
        add_up(flat)
        *pieces, sums = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(numbers)])
        for parameter, gradient, piece in zip(parameters, gradients, pieces, strict=True):
            parameter.grad = gradient.copy_(piece.view_as(gradient))
        return sums

    def own_random_numbers(self, seed: int) -> None:
        """Let torch draw other numbers here than in the other processes; the first one goes on as it is."""
        if not self.is_first:
            torch.manual_seed(seed + SEED_STEP * self.rank)


def add_up(values: torch.Tensor) -> None:
    """Replace ``values`` by their sum over all processes; for code that is called in several processes only."""
    with _exchange():
        dist.all_reduce(values)


ALONE = Processes()


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun has started, if it has started this one, until the block ends.

    Only the first process prints; of several that fail, the one that fails first says why.

    Raises:
        SystemExit: status 2, in a process that fails after another one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if missing := [name for name in TOLD if name not in os.environ]:
        raise UserError(f"WORLD_SIZE is set, but {missing[0]} is not. Start several processes with torchrun")
    # Not at the top: torch is sometimes built without them.
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    _share_cores()
    job, rank, size = next(rendezvous("env://"))
    store = PrefixStore(_meet(job, rank, size), job)
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    backend = GPU_BACKEND if torch.cuda.is_available() else CPU_BACKEND
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as stack:
        if rank > 0:
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        try:
            processes = Processes(rank, size, local_rank, job)
            yield processes
            processes.wait()  # the first one may hold what connects the others
        except (UserError, OSError) as error:
            if not _is_first_to_fail(store):
                sys.exit(2)
            if rank == 0:
                raise
            shown = UserError(f"rank {rank}: {describe(error) if isinstance(error, OSError) else error}")
            shown.command = error.command if isinstance(error, UserError) else None
            raise shown from error
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, as soon as one has ended; this one ends too
            dist.destroy_process_group()


def _meet(job: Any, rank: int, size: int) -> str:
    """Agree with the other processes of this start on a name for what they exchange.

    torchrun starts all again after a failure (--max-restarts), or when a machine joins, and tells none of them how
    often; but the store of the job still holds what those before have written. So the first process chooses a name, and
    the others take it only if it has seen them.

    Raises:
        UserError: not all have come within MEETING.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + MEETING.total_seconds()
    job.set_timeout(MEETING)
    try:
        if rank == 0:
            job.set("start", own)
            seen = {str(other): job.get(f"{own}/{other}").decode() for other in range(1, size)}
            job.set(f"{own}/seen", json.dumps(seen))
            return own
        while time.monotonic() < end:
            name: str = job.get("start").decode()
            job.set(f"{name}/{rank}", own)
            with contextlib.suppress(RuntimeError):  # nothing yet: is it still the name?
                job.wait([f"{name}/seen"], timedelta(seconds=1))
                if json.loads(job.get(f"{name}/seen"))[str(rank)] == own:
                    return name
            time.sleep(0.1)
    except RuntimeError as error:
        raise UserError(f"rank {rank}: not all of the {size} processes have started ({str(error)[:80]})") from error
    raise UserError(f"rank {rank}: not all of the {size} processes have started")


def _is_first_to_fail(store: Any) -> bool:
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:  # the store ended with the process that failed first
        return False


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """Report a lost connection as what it means."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        why = str(error).rpartition("] ")[2].partition(". ")[0][:60]
        raise ProcessLost(f"another process has ended ({why}). If it has printed no error, it was killed") from error


def _share_cores() -> None:
    """Divide the CPU cores between the processes of this machine, unless the user has set another number of threads.

    torchrun sets OMP_NUM_THREADS=1 where it is not set, which leaves most cores idle.
    """
    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
