"""Caption photos as a script of a tutorial does, for the time of a cold start.

    python -m tools.benchmark.plain_photo MODEL.pth cpu PHOTO.jpg ...

It imports torch and torchvision, loads a model that ``plain_copy.save_plain`` has written, and prints a caption per
photo.
"""

import sys
from pathlib import Path

import torch

from cli import say
from tools.benchmark.plain_captioner import load_plain


def main(argv: list[str]) -> None:
    """Caption each photo."""
    model, device, *photos = argv
    captioner, words = load_plain(Path(model), torch.device(device))
    for photo in photos:
        found = captioner.search(captioner.encode(captioner.read(Path(photo))))
        say(f"{photo}: {' '.join(words[token] for token in found.tokens)}")


if __name__ == "__main__":
    main(sys.argv[1:])
