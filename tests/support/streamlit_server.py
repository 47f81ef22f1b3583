"""A real Streamlit server for tests and screenshots, on a free port of this machine."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds for the server to answer


@dataclass
class Server:
    """Where it answers, and its process."""

    address: str
    process: subprocess.Popen[bytes]


def command(app: Path = ROOT / "app.py") -> list[str]:
    """``streamlit run app.py``."""
    return [sys.executable, "-m", "streamlit", "run", str(app), "--server.headless=true"]


@contextlib.contextmanager
def serve(cwd: Path, words: Sequence[str] = (), **options: Any) -> Iterator[Server]:
    """Run ``words`` (default: the app) in ``cwd`` until the block ends; further options are Popen's.

    It may write no file of more than a kilobyte (Python tries out its temporary folder with less): what is uploaded stays in memory.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    local = [f"--server.port={port}", "--server.address=127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **options.pop("env", {})}
    said: list[bytes] = []
    process = subprocess.Popen(
        ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *(words or command()), *local],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, **options,
    )  # fmt: skip
    assert process.stdout
    reader = threading.Thread(
        target=said.extend, args=(process.stdout,), daemon=True
    )  # or the server waits once the pipe is full
    reader.start()
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", process, said)
        yield Server(f"http://localhost:{port}", process)
    finally:
        process.terminate()
        process.wait(timeout=20)
        reader.join(timeout=20)
    assert b"Traceback" not in b"".join(said), b"".join(said).decode()


def _wait(address: str, process: subprocess.Popen[bytes], said: list[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {b''.join(said).decode()}")
