"""For the tests of data.prepare and data.download: small archives, and a local server that fails on demand."""

import csv
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.helpers import ROOT

TRAIN, VAL, TEST = "Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt"
DATA = hashlib.sha256(b"seed").digest() * 20_000  # 640 kB: several chunks


def image(name: str, size: int = 300) -> bytes:
    """Bytes in place of a JPEG: these tests do not decode images."""
    return (b"\xff\xd8" + name.encode() * size)[:size]


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def images_zip(path: Path, *names: str) -> Path:
    return make_zip(path, {f"Flicker8k_Dataset/{name}": image(name) for name in names})


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def tokens(*names: str) -> str:
    return "".join(f"{name}#{i}\tA caption {i} of {name} .\n" for name in names for i in range(5))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(*args: str, cwd: Path) -> subprocess.Popen[str]:
    """Start the script as a user would, in the folder ``cwd``."""
    command = [sys.executable, "-m", "data.prepare", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class Server(ThreadingHTTPServer):
    """Serves files on localhost, with the failures a test asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True  # whether it supports Range
        self.drops: list[int] = []  # bytes after which each of the next connections is closed
        self.reset = False  # close them with a TCP reset instead of normally
        self.statuses: list[int] = []  # responses to the next requests instead of the file
        self.requests: list[tuple[str, str | None]] = []  # (path, Range) of each request
        self.url = f"http://127.0.0.1:{self.server_port}/files"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, wanted = self.path.removeprefix("/files/"), self.headers["Range"]
        self.server.requests.append((name, wanted))
        data = self.server.files.get(name)
        if name.startswith("moved/"):
            self.send_response(302)
            self.send_header("Location", f"/files/{name.removeprefix('moved/')}")
            self.end_headers()
            return
        if self.server.statuses or data is None:
            self.send_error(self.server.statuses.pop(0) if self.server.statuses else 404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(data) > 0 and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + self.server.drops.pop(0) if self.server.drops else len(data)
        self.wfile.write(data[start:end])
        if end < len(data) and self.server.reset:
            time.sleep(0.1)  # a reset discards what the client has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
