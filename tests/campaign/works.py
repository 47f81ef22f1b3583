"""What the campaign interrupts: commands whose results do not depend on how often they were stopped and run again."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from data.vocab import END_ID, Vocabulary
from models.captioner import Captioner
from models.checkpoint import load_checkpoint, save_checkpoint
from tests.campaign.faults import Fault
from tests.support.archives import TEST, TRAIN, VAL, make_zip, tokens
from tests.support.forked import Finished, run_forked
from tests.support.helpers import COLOURS, SHAPES, draw, read, tiny_decoder, write_csv
from tests.support.process_runs import SAVE_EACH_STEP, result_of
from tests.support.training import thin_resnet50
from training.loss_log import COLUMNS

MANY = 340  # images; with 320 or more, the index of the feature cache is written in between
STAGES = [
    {"name": "frozen", "epochs": 2, "lr": 0.01},
    {"name": "learning", "epochs": 1, "lr": 0.001, "encoder_lr": 1e-4, "encoder_from": 4, "crop": 0.5},
    {"name": "scst", "epochs": 1, "lr": 0.001, "samples": 2},
]

LOSS_ROWS = ("a 1 4 3.5 3.6 0.1 0.2 0.5 0.01 1 8 nan 1", "a 2 8 3.1 3.3 0.2 0.3 0.5 0.01 1 8 nan 1")
LOSS_LOG = "".join("\t".join(cells) + "\n" for cells in (COLUMNS, *(row.split() for row in LOSS_ROWS)))


@dataclass(frozen=True)
class Work:
    """A command, run in a folder of its own beside the world's folder.

    Args:
        script: module with a ``main``.
        result: folder -> what must be equal however often the command was stopped.
    """

    script: str
    argv: Sequence[str]
    result: Callable[[Path], Any]


def contents(folder: Path) -> dict[str, bytes]:
    """The files in the folder and its subfolders, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recorded_captions(folder: Path) -> int:
    """How many images the gallery's records hold a caption of, so that they must not be captioned again."""
    records = folder / "out" / "captions.jsonl"
    lines = records.read_bytes().split(b"\n")[:-1] if records.exists() else []
    return len({json.loads(line)["key"] for line in lines if b'"caption"' in line})


def gallery_result(folder: Path) -> dict[str, Any]:
    """The files, the captions and the pictures; log-probabilities depend in their last bits on the size of a batch."""
    lines = (folder / "out" / "captions.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"] for line in lines]
    assert len(keys) == len(set(keys)), "an image is recorded twice"
    files = contents(folder / "out")
    fixed = [name for name in files if name.startswith("pictures/") or name.endswith((".txt", ".xmp"))]
    records = json.loads(files["captions.json"])
    return {
        "files": sorted(files),
        "captions": {record["image"]: [found["caption"] for found in record["candidates"]] for record in records},
        "contents": {name: files[name] for name in fixed},
    }


def evaluation_result(folder: Path) -> dict[str, Any]:
    """The scores, and the cached features by image."""
    (cache,) = (path for path in (folder / "cache").iterdir() if path.is_dir())
    shards = json.loads((cache / "index.json").read_text())["shards"]
    features = {
        name: row.tobytes()
        for number, names in enumerate(shards)
        for name, row in zip(names, np.load(cache / f"features-{number}.npy"), strict=False)
    }
    return {**contents(folder / "scores"), "features": features}


WORKS = {
    "train": Work("train", ["--config=my.yaml", "--output_dir=run", "--resume=auto"], lambda f: result_of(f / "run")),
    "evaluate": Work(
        "evaluate",
        [
            *("--checkpoint=../world/model", "--captions_file=../world/many.csv", "--image_dir=../world/many"),
            *("--split=all", "--feature_cache=cache", "--output=scores/metrics.json", "--device=cpu"),
        ],
        evaluation_result,
    ),
    "gallery": Work(
        "inference_visualize",
        [
            *("--checkpoint=../world/model", "--images=../world/photos", "--output_dir=out", "--device=cpu"),
            *("--format=json,csv,txt,xmp", "--attention_strips"),
        ],
        gallery_result,
    ),
    "unpack": Work(
        "data.prepare",
        ["flickr8k", "--source", "../world/archives", "--output_dir=flickr8k"],
        lambda folder: contents(folder / "flickr8k"),
    ),
    "convert": Work(
        "data.prepare",
        ["table", "../world/many.tsv", "--image_dir=../world/many", "--output=converted/captions.csv"],
        lambda folder: contents(folder / "converted"),
    ),
    "plot": Work("visualize_loss", ["--log=../world/loss_log.txt", "--output=plots/curve.png"], contents),
}


def make_world(world: Path) -> None:
    """The data and the model that the commands read."""
    for folder in ("many", "photos"):
        (world / folder).mkdir(parents=True)
    rows = []
    for number in range(MANY):
        shape, colour = SHAPES[number % 2], COLOURS[number % 4]
        draw(world / "many" / f"{number:03}.jpg", shape, colour, (40 + number % 20, 24 + number // 20))
        rows.append((f"{number:03}.jpg", f"a {colour} {shape} number {number}", "train"))
        if number < 40:
            Image.new("RGB", (60 + number, 40), (6 * number, 0, 0)).save(world / "photos" / f"{number:02}.jpg")
    write_csv(world / "many.csv", rows)
    write_csv(world / "few.csv", [(name, text, ("train", "val")[n > 8]) for n, (name, text, _) in enumerate(rows[:12])])
    (world / "many.tsv").write_text("image\tcaption\tsplit\n" + "".join("\t".join(row) + "\n" for row in rows))
    images = {f"Flicker8k_Dataset/{name}": (world / "many" / name).read_bytes() for name, *_ in rows[:60]}
    make_zip(world / "archives" / "Flickr8k_Dataset.zip", images)
    names = [name for name, *_ in rows[:60]]
    splits = {TRAIN: names[:40], VAL: names[40:50], TEST: names[50:]}
    texts = {"Flickr8k.token.txt": tokens(*names), **{name: "\n".join(part) for name, part in splits.items()}}
    make_zip(world / "archives" / "Flickr8k_text.zip", {name: text.encode() for name, text in texts.items()})
    config = read(
        tiny_decoder("attention"), "--data.image_size=32", "--generate.beam_size=2", "--encoder.weights=none",
        "--generate.max_length=6",
    )  # fmt: skip
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.model.ResNet50", thin_resnet50)
        captioner = Captioner(config, Vocabulary.build([text for _, text, _ in rows], min_count=2))
    with torch.no_grad():
        captioner.decoder.output.bias[END_ID] = -5  # no caption is empty
    save_checkpoint(world / "model" / "checkpoints.pth", captioner.checkpoint())
    (world / "loss_log.txt").write_text(LOSS_LOG)


def train_options() -> dict[str, Any]:
    """my.yaml of the training run: three stages, with a feature cache of its own."""
    return {
        "data": {
            "captions_file": "../world/few.csv", "image_dir": "../world/many", "image_size": 32, "min_count": 1,
            "workers": 0, "feature_cache": "cache",
        },
        "encoder": {"weights": "none"},
        "decoder": {"name": "lstm", "embed_size": 8, "hidden_size": 8},
        "generate": {"beam_size": 2, "max_length": 6},
        "train": {"batch_size": 2, "stages": STAGES, "save_every": float(SAVE_EACH_STEP.partition("=")[2])},
        "device": "cpu",
    }  # fmt: skip


class Sandbox:
    """A folder beside a link to the world, in which one command is run again and again."""

    def __init__(self, forkserver: Any, world: Path, base: Path, name: str) -> None:
        self.forkserver, self.work, self.folder = forkserver, WORKS[name], base / "here"
        self.folder.mkdir(parents=True, exist_ok=True)
        (base / "world").symlink_to(world)
        if name == "train":
            (self.folder / "my.yaml").write_text(yaml.safe_dump(train_options()))

    def run(self, fault: Fault | None = None, kill_after: float | None = None) -> Finished:
        return run_forked(
            self.forkserver, self.work.script, self.work.argv, self.folder, before=fault, kill_after=kill_after
        )

    def result(self) -> Any:
        return self.work.result(self.folder)


@dataclass(frozen=True)
class Reference:
    """The uninterrupted run of a work."""

    result: Any
    operations: int  # on files
    seconds: float
    size: int  # bytes that its files take at the end
    files: frozenset[str]  # names of the files and folders that it writes


def run_reference(forkserver: Any, world: Path, name: str, base: Path) -> None:
    """Run a work without interruption in ``base``, for ``read_reference``."""
    sandbox = Sandbox(forkserver, world, base, name)
    start = time.monotonic()
    finished = sandbox.run(Fault(sandbox.folder, count=base / "operations"))
    assert finished.status == 0, finished
    (base / "seconds").write_text(str(time.monotonic() - start))


def read_reference(base: Path, name: str) -> Reference:
    """What ``run_reference`` has left in ``base``."""
    folder = base / "here"
    return Reference(
        WORKS[name].result(folder),
        (base / "operations").stat().st_size,
        float((base / "seconds").read_text()),
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        frozenset(path.name for path in folder.rglob("*")),
    )


def assert_readable(folder: Path) -> None:
    """Every file below ``folder`` is whole, whatever has happened; only a log may end in the middle of a line."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith("."):  # unfinished files are hidden
            continue
        try:
            _read(path)
        except Exception as error:
            raise AssertionError(f"{path.relative_to(folder)} cannot be read: {error}") from error


def _read(path: Path) -> None:
    if path.suffix == ".pth":
        load_checkpoint(path)
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix in {".jpg", ".png"}:
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".yaml":
        assert yaml.safe_load(path.read_text())
    elif path.suffix == ".html":
        assert path.read_text("utf-8").rstrip().endswith("</html>")
    elif path.suffix in {".csv", ".md"}:
        assert path.read_bytes().endswith(b"\n")
    elif path.suffix == ".jsonl":
        for line in path.read_bytes().split(b"\n")[:-1]:
            json.loads(line)
