"""Captions files and loss logs with hostile cells, numbers and names."""

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.campaign.attack import Attack, Content, writes
from tests.campaign.mutations import mutate
from tests.campaign.works import LOSS_LOG

CAPTIONS = "captions_file=bad.csv"
READ = {
    "evaluate": ["--checkpoint=../world/model", f"--{CAPTIONS}", "--image_dir=.", "--split=all", "--device=cpu"],
    "train": [f"--{CAPTIONS}", "--image_dir=.", "--config=tiny.yaml", "--output_dir=run"],
    "inference_visualize": ["--checkpoint=../world/model", f"--{CAPTIONS}", "--image_dir=.", "--split=all"],
    "data.prepare": ["table", "bad.csv", "--image_dir=.", "--output=out.csv"],
}
TINY = (
    "data: {image_size: 32, min_count: 1, workers: 0, feature_cache: cache}\n"
    "encoder: {weights: none}\ntrain: {batch_size: 2, stages: [{epochs: 1}]}\ndevice: cpu\n"
)
NAMES = {  # of an image
    "a device without end": "/dev/zero",
    "a pipe": "pipe.jpg",
    "a link to a device": "zero.jpg",
    "a link to itself": "loop.jpg",
    "a folder": "folder.jpg",
    "null": "a\0b.jpg",
    "out of the folder": "../../../../../../etc/passwd",
    "an absolute name": "/etc/passwd",
    "memory of a process": "/proc/self/mem",
    "5000 letters": "n" * 5000 + ".jpg",
    "escape sequences": "\x1b[2J\x1b]0;title\x07.jpg",
    "a line end": '"a.jpg\nerror: fake"',
    "half a character": "\ud800.jpg",
    "no name": "",
    "a point": ".",
    "PostScript": "postscript.jpg",
}
TABLES: dict[str, Content] = {
    "empty": "",
    "only a header": "image,caption,split\n",
    "no line end in a quote": 'image,caption,split\n"a.jpg,text,train\n' + "x" * 300_000,
    "100000 columns": ",".join(f"c{n}" for n in range(100_000)) + "\n",
    "a cell of 5 MB": lambda: f"image,caption\na.jpg,{'x' * 5_000_000}\n",
    "a cell of many quotes": 'image,caption\na.jpg,"' + '""' * 1_000_000 + '"\n',
    "a header twice": "image,image,caption,caption\na,b,c,d\n",
    "bytes": bytes(range(256)) * 50,
    "null bytes": b"image,caption\n\0\0\0,\0\n",
    "not UTF-8": "image,caption\ncaf\xe9.jpg,caf\xe9\n".encode("latin-1"),
    "UTF-16": "image,caption\na.jpg,x\n".encode("utf-16"),
    "splits without sense": "image,caption,split\na.jpg,x,\x1b[2J\nb.jpg,y,train\n",
    "rows of other lengths": "image,caption\na.jpg\n,,,,,\nb.jpg,x,y,z\n",
    "one caption of a million words": lambda: f"image,caption\n000.jpg,{'w ' * 1_000_000}\n",
}
HEADER = LOSS_LOG.splitlines()[0]
CELLS = HEADER.split("\t")


def log(**cells: str) -> str:
    """A loss log of two epochs, with these cells in the second."""
    lines = LOSS_LOG.splitlines()
    row = dict(zip(CELLS, lines[2].split("\t"), strict=True)) | cells
    return "\n".join([lines[0], lines[1], "\t".join(row.values())]) + "\n"


LOGS: dict[str, Content] = {
    **{f"{cell} {value}": log(**{cell: value})
       for cell in ("epoch", "train_loss", "val_cider", "lr")
       for value in ("1e308", "-1e308", "0.5", "nan", "inf", "1e-320", "9" * 400, "x", "0x10", "1_0")},
    "a stage that XML cannot hold": log(stage="\ufffe"),
    "a stage of escape sequences": log(stage="\x1b[2J"),
    "a stage of markup": log(stage="</svg><script>alert(1)</script>"),
    "a stage of 100000 letters": log(stage="s" * 100_000),
    "a stage of formulas": log(stage="$\\frac{1}{0}$"),
    "half a character": log(stage="\ud800"),
    "300 stages": "\n".join([HEADER, *(log(stage=f"s{n}", epoch=str(n + 1)).splitlines()[2] for n in range(300)), ""]),
    "empty": "", "only a header": HEADER + "\n", "bytes": bytes(range(256)) * 20, "UTF-16": LOSS_LOG.encode("utf-16"),
    "a line of 20 MB": lambda: "x" * 20_000_000,
}  # fmt: skip


def prepared(content: Content) -> Callable[[Path, random.Random], None]:
    """The table, what its names lead to, and a configuration."""

    def make(folder: Path, rng: random.Random) -> None:
        writes("bad.csv", content)(folder, rng)
        writes("tiny.yaml", TINY)(folder, rng)
        writes("postscript.jpg", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")(folder, rng)
        os.mkfifo(folder / "pipe.jpg")
        (folder / "zero.jpg").symlink_to("/dev/zero")
        (folder / "loop.jpg").symlink_to("loop.jpg")
        (folder / "folder.jpg").mkdir()

    return make


def mutated(folder: Path, rng: random.Random, text: str, name: str) -> None:
    (folder / name).write_bytes(mutate(text.encode(), rng))


def attacks() -> Iterator[Attack]:
    scripts = list(READ)
    for number, (name, image) in enumerate(NAMES.items()):
        rows = f"image,caption,split\n{image},a red circle,train\n{image},one circle,train\n"
        for script in (scripts[number % 3], scripts[(number + 1) % 3]):
            yield Attack(f"CSV: {name}, {script}", script, READ[script], prepared(rows))
        yield Attack(f"CSV: {name}, converted", "data.prepare", READ["data.prepare"], prepared(rows), accepted=True)
    for number, (name, content) in enumerate(TABLES.items()):
        for script in (scripts[number % 3], "data.prepare"):
            accepted = script == "data.prepare"
            yield Attack(f"CSV: {name}, {script}", script, READ[script], prepared(content), accepted)
    for number, (name, content) in enumerate(LOGS.items()):
        kind = ("png", "svg")[number % 2]
        plot = ["--log=bad.txt", f"--output=curve.{kind}"]
        yield Attack(f"log: {name}", "visualize_loss", plot, writes("bad.txt", content), accepted=True)
    for number in range(8):
        plot = ["--log=bad.txt", "--output=curve.svg"]
        make = partial(mutated, text=LOSS_LOG, name="bad.txt")
        yield Attack(f"log: mutated {number}", "visualize_loss", plot, make, accepted=True)
