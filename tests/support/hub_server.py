"""A server on localhost that answers as the Hugging Face Hub answers a download: it redirects to where the bytes are.

What the Hub sends: https://huggingface.co/docs/huggingface_hub/package_reference/file_download
"""

import hashlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
GATED = "gated"  # the name of a repository


@dataclass
class Hub:
    """The server: ``files["owner/name", "main", "captioner.safetensors"]`` is what it has."""

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    damage: bytes = b""  # sent in place of the last bytes of every file
    requests: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen, at the same port as before."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        port = self.server.server_port if self.server else 0
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Be unreachable from now on."""
        assert self.server
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        """For HF_ENDPOINT."""
        assert self.server
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """/OWNER/NAME/resolve/REVISION/FILE is redirected to /bytes/SHA256."""
        self.requests.append(f"{request.command} {request.path}")
        body = b""
        if request.path.startswith("/bytes/"):
            data = next(each for each in self.files.values() if request.path.endswith(hashlib.sha256(each).hexdigest()))
            request.send_response(200)
            body = data[: len(data) - len(self.damage)] + self.damage
        elif "/resolve/" not in request.path:
            request.send_response(404)
        elif wrong := self._missing(*self._parts(request.path)):
            request.send_response(403 if wrong == "GatedRepo" else 404)
            request.send_header("X-Error-Code", wrong)
        else:
            repository, revision, file = self._parts(request.path)
            data = self.files[repository, revision, file]
            digest = hashlib.sha256(data).hexdigest()
            request.send_response(302)
            # Another host, as the Hub's; huggingface_hub follows a redirect to the same one before it looks at headers
            request.send_header("Location", f"{self.address.replace('127.0.0.1', 'localhost')}/bytes/{digest}")
            request.send_header("X-Repo-Commit", COMMITS.get(revision, revision))
            request.send_header("X-Linked-Etag", f'"{digest}"')
            request.send_header("X-Linked-Size", str(len(data)))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    def _parts(self, path: str) -> tuple[str, str, str]:
        owner, name, _, revision, file = path.removeprefix("/").split("/", 4)
        return f"{owner}/{name}", revision, file

    def _missing(self, repository: str, revision: str, file: str) -> str:
        """X-Error-Code of the Hub; "" if the file is there."""
        if repository.endswith(f"/{GATED}"):
            return "GatedRepo"
        if not any(each == repository for each, _, _ in self.files):
            return "RepoNotFound"
        if not any((each, of) == (repository, revision) for each, of, _ in self.files):
            return "RevisionNotFound"
        return "" if (repository, revision, file) in self.files else "EntryNotFound"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server for huggingface_hub, which reads its settings when it is imported, and an empty cache."""
    pytest.importorskip("huggingface_hub")
    found = Hub()
    found.start()
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    settings = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name, value in {**settings, "HF_ENDPOINT": found.address}.items():
        monkeypatch.setenv(name, value)
    yield found
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    found.stop()
