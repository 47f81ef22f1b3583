"""A run in several processes on this machine, as torchrun would start them: each with its rank in its environment."""

import multiprocessing
import socket

import pytest

from tests.support.process_runs import At, ProcessRun


def environment_of(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells each process."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"} | {name: str(n) for name, n in numbers.items()}


def start_ranks(
    run: ProcessRun, size: int, *options: str, at: dict[int, At] | None = None
) -> list[multiprocessing.Process]:
    """Start ``size`` processes of the run; ``at``: what happens to which rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
