"""serve.py: replies, refusals, metrics; SIGTERM loses no request. It runs from the files that the Dockerfile copies."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from cli import ROOT
from deploy.captioner import OnnxCaptioner

COLOURS = ("red", "blue", "green", "yellow", "white", "black")


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (80, 60), colour).save(file, "PNG")
    return file.getvalue()


def ask(port: int, path: str, body: bytes | None = None, kind: str = "image/png") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET" if body is None else "POST", path, body, {"Content-Type": kind})
    reply = connection.getresponse()
    return reply.status, reply.read()


@pytest.fixture
def server(exported: Path, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A running server and its port, in a folder with the files that the Dockerfile copies."""
    for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines():
        words = line.split()
        if words[:1] != ["COPY"] or words[1] == "onnx_captioner/":
            continue
        for source in map(ROOT.joinpath, words[1:-1]):
            for file in sorted(source.glob("*.*")) if source.is_dir() else [source]:
                (tmp_path / words[-1]).mkdir(exist_ok=True)
                shutil.copy(file, tmp_path / words[-1])
    command = [sys.executable, "serve.py", "--checkpoint", str(exported), "--port", "0", "--beam_size", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        found = re.search(r":(\d+) \(", line)
        assert found, line + process.stderr.read()
        yield process, int(found[1])
        process.kill()


@pytest.mark.process
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask a process to end")
def test_it_replies_refuses_and_drains(server: tuple["subprocess.Popen[str]", int], exported: Path) -> None:
    process, port = server
    captioner = OnnxCaptioner(exported)
    status, body = ask(port, "/caption?attention=1", picture("red"))
    found, wanted = json.loads(body), captioner.caption([Image.new("RGB", (80, 60), "red")], 2)[0]
    assert status == 200 and [each["caption"] for each in found["candidates"]] == [each.caption for each in wanted]
    assert [each["token"] for each in found["attention"]] == wanted[0].tokens
    form = (
        b'--b\r\nContent-Disposition: form-data; name="x"; filename="a.png"\r\n\r\n' + picture("red") + b"\r\n--b--\r\n"
    )
    assert json.loads(ask(port, "/caption", form, "multipart/form-data; boundary=b")[1])["caption"] == found["caption"]

    assert ask(port, "/caption", b"no picture")[0] == 415
    assert ask(port, "/caption", picture("red")[:70])[0] in {415, 422}
    assert ask(port, "/caption", b"--b--\r\n", "multipart/form-data; boundary=b")[0] == 400
    assert ask(port, "/caption", b"--b--\r\n", "multipart/form-data")[0] == 400
    assert ask(port, "/caption", bytes(10_000_001))[0] == 413
    assert json.loads(ask(port, "/health")[1]) == {"status": "ok"}
    assert b'caption_replies_total{status="415"}' in ask(port, "/metrics")[1]
    assert "/caption" in json.loads(ask(port, "/openapi.json")[1])["paths"]
    assert b"POST /caption" in ask(port, "/")[1]

    with ThreadPoolExecutor(len(COLOURS)) as clients:
        replies = [clients.submit(ask, port, "/caption", picture(colour)) for colour in COLOURS]
        replies[0].result()  # the others are accepted
        process.send_signal(signal.SIGTERM)
        for colour, reply in zip(COLOURS, replies, strict=True):
            caption = captioner.caption([Image.new("RGB", (80, 60), colour)], 2)[0][0].caption
            assert json.loads(reply.result()[1])["caption"] == caption
    assert "0 without an answer" in process.stderr.read()
