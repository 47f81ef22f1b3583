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

from tests.support.helpers import ROOT

START_TIMEOUT = 60  # seconds
OFFLINE = ROOT / "tests" / "support" / "offline"


@dataclass
class Server:
    """The address and the process of a server."""

    address: str
    process: subprocess.Popen[bytes]


def command(app: Path = ROOT / "app.py") -> list[str]:
    """``streamlit run app.py``."""
    return [sys.executable, "-m", "streamlit", "run", str(app), "--server.headless=true"]


@contextlib.contextmanager
def serve(cwd: Path, words: Sequence[str] = (), **options: Any) -> Iterator[Server]:
    """Run ``words`` (default: the app) in ``cwd`` until the block ends; further options are Popen's.

    The server cannot write files larger than 8 kB (importing torch 2.6 writes one of 2 kB), so uploads must stay in
    memory. It may not connect to other machines.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(OFFLINE)},
        **options.pop("env", {}),
    }
    output: list[bytes] = []
    process = subprocess.Popen(
        ["sh", "-c", 'ulimit -f 16; exec "$@"', "sh", *(words or command()), f"--server.port={port}"],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, **options,
    )  # fmt: skip
    assert process.stdout
    # The output must be read, or the server blocks when the pipe is full.
    reader = threading.Thread(target=output.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", process, output)
        yield Server(f"http://localhost:{port}", process)
    finally:
        process.terminate()
        process.wait(timeout=20)
        reader.join(timeout=20)
    printed = b"".join(output).decode()
    assert "Traceback" not in printed and "OUTSIDE" not in printed, printed


def _wait(address: str, process: subprocess.Popen[bytes], output: list[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {b''.join(output).decode()}")
