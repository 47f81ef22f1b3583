"""Open each image of a folder with the one function that reads pictures, and print what became of it."""

import json
import sys
import time
from pathlib import Path

from data.images import ImageError, load_image


def main(argv: list[str]) -> None:
    """A line of JSON for each file: its name, "decoded" or why it was refused, and the CPU seconds.

    Any other exception ends the process, with its traceback.
    """
    for path in sorted(Path(argv[0]).iterdir()):
        print(f"opening {path.name}", file=sys.stderr)  # the last one is to blame if the process dies
        start = time.process_time()
        try:
            outcome = f"decoded {load_image(path).size}"
        except ImageError as error:
            outcome = str(error)
        print(json.dumps([path.name, outcome, time.process_time() - start]), flush=True)
