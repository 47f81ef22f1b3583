"""Where an exported captioner lies; without NumPy, so that --help is fast."""

from pathlib import Path

FILE = "captioner.json"  # what describes it
FORMAT_VERSION = 1
DEFAULT_FOLDER = Path("onnx_captioner")  # in the current folder
