"""Tars as img2dataset and WebDataset write them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image


def jpeg(colour: str = "red", size: tuple[int, int] = (40, 30)) -> bytes:
    """A JPEG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes | str | dict[str, Any]]) -> Path:
    """A tar of these members: bytes, text, or what becomes JSON."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            text = json.dumps(content) if isinstance(content, dict) else content
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
