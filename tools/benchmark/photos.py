"""Photos from files to captions: the cold start of the script for one of them, and a folder with the time of each part.

The project also writes a gallery: a page and two JPGs per photo. The plain loop writes the captions alone.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from cli import ROOT, UserError
from data.images import load_image
from files import write_json
from gallery.photos import Photo
from gallery.writing import Target, write_gallery
from tools.benchmark.measurement import Measurement, measured
from tools.benchmark.plain_copy import save_plain
from tools.benchmark.plain_search import PlainCaption
from tools.benchmark.subject import Subject
from tools.benchmark.timing import interleave, timed

PHOTOS = 500  # in the folder
PLAIN_SHARE = 5  # the plain loop captions every fifth of them, as it takes the same time for each
PARTS = ("reading and decoding", "encoder", "beam search", "writing and the rest")


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    seconds: float
    memory: int | None  # the most bytes of RAM at any time; None where the system does not tell


def run_process(command: Sequence[str | Path], threads: int) -> Finished:
    """Run a command of the repository, with as many threads as this process.

    Raises:
        UserError: it fails.
    """
    with tempfile.TemporaryFile() as errors:
        began = perf_counter()
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        memory = None
        if hasattr(os, "wait4"):  # Unix
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        process.wait()
        seconds = perf_counter() - began
        errors.seek(0)
        last = (errors.read().decode(errors="replace").strip() or "no message").splitlines()[-1]
    if process.returncode:
        raise UserError(f"{command[0]} ended with status {process.returncode}: {last}")
    return Finished(seconds, memory)


def measure_cold_start(subject: Subject, repeats: int, folder: Path) -> Measurement:
    """Seconds from the command line to the caption of one photo.

    Args:
        folder: an empty one, for what the processes read and write.
    """
    photo, threads = subject.photos(1)[0].resolve(), torch.get_num_threads()
    save_plain(subject.captioner, folder / "model.pth", subject.beam_size)
    memory: dict[str, int] = {}
    options = ["--device", str(subject.device), "--precision", subject.precision, "--beam_size", str(subject.beam_size)]
    named = ["--checkpoint", str(subject.path.resolve()), "--images", str(photo)]

    def project() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as output:
            command = ["inference_visualize.py", *named, "--output_dir", f"{output}/gallery", *options]
            return run("project", command)

    def plain() -> float:
        return run("plain", ["-m", "tools.benchmark.plain_photo", folder / "model.pth", str(subject.device), photo])

    def run(side: str, command: Sequence[str | Path]) -> float:
        finished = run_process(command, threads)
        memory[side] = max(memory.get(side, 0), finished.memory or 0)
        return finished.seconds

    pairs = interleave(project, plain, repeats, warm_up=repeats > 1)
    words = subject.plain.search(subject.plain.encode(subject.plain.read(photo)), subject.beam_size).read
    needed = subject.views * subject.operations.encoder + subject.operations.caption(words)
    remark = " and ".join(f"{size / 1e9:.1f} GB of RAM ({side})" for side, size in memory.items() if size)
    return measured(subject, "cold start: the script, one photo", "", pairs, needed, remark)


@dataclass(frozen=True)
class FolderTimes:
    """The whole folder, and the seconds per photo of each part, from the last repeat."""

    whole: Measurement
    project: dict[str, float]
    plain: dict[str, float]


def measure_folder(subject: Subject, repeats: int, folder: Path) -> FolderTimes:
    """Photos captioned per second, from their files to the files that are written.

    Args:
        folder: an empty one, to write to.
    """
    photos = subject.photos(PHOTOS)
    few = photos[:: PLAIN_SHARE if len(photos) >= PLAIN_SHARE else 1]
    parts: dict[str, dict[str, float]] = {}
    words: list[int] = []

    def project() -> float:
        parts["project"] = _caption_folder(subject, photos, folder)
        return sum(parts["project"].values())

    def plain() -> float:
        parts["plain"], read = _caption_plainly(subject, few, folder)
        words[:] = read
        return sum(parts["plain"].values())

    pairs = interleave(project, subject.exactly(plain), repeats, warm_up=False)
    needed = subject.views * subject.operations.encoder + subject.operations.caption(sum(words) / len(words))
    whole = measured(subject, f"a folder of {len(photos)} photos", "photos", pairs, needed)
    return FolderTimes(whole, parts["project"], parts["plain"])


def _caption_folder(subject: Subject, photos: Sequence[Path], folder: Path) -> dict[str, float]:
    """Write a gallery as inference_visualize.py does; return the seconds per photo of each part.

    Reading is timed on its own, before; the encoder and beam search inside; the rest is what remains.
    """
    captioner, count = subject.captioner, len(photos)

    def read() -> None:
        for path in photos:
            captioner.transform(load_image(path))

    reading = timed(read, count)
    captioner.seconds.clear()
    with tempfile.TemporaryDirectory(dir=folder) as output:
        target = Target(
            Path(output) / "gallery",
            frozenset({"json"}),
            in_place=False,
            strips=False,
            checkpoint=subject.path.name,
            captioner="benchmark",
            beam_size=subject.beam_size,
        )
        named = [Photo(path.name, path.absolute()) for path in photos]
        whole = timed(lambda: write_gallery(captioner, named, target, lambda entry: None), count)
    encoder, search = (captioner.seconds[name] / count for name in ("encode", "generate"))
    return dict(zip(PARTS, (reading, encoder, search, whole - reading - encoder - search), strict=True))


def _caption_plainly(subject: Subject, photos: Sequence[Path], folder: Path) -> tuple[dict[str, float], list[int]]:
    """Caption photo by photo; return the seconds per photo of each part, and how many words were read for each."""
    plain, seconds, found = subject.plain, dict.fromkeys(PARTS, 0.0), dict[str, PlainCaption]()

    @contextmanager
    def part(name: str) -> Iterator[None]:
        began = perf_counter()
        yield
        seconds[name] += (perf_counter() - began) / len(photos)

    for path in photos:
        with part(PARTS[0]):
            image = plain.read(path)
        with part(PARTS[1]):
            features = plain.encode(image)
        with part(PARTS[2]):
            found[path.name] = plain.search(features, subject.beam_size)
    with part(PARTS[3]):
        decode = subject.captioner.vocabulary.decode
        write_json(folder / "captions.json", {name: decode(caption.tokens) for name, caption in found.items()})
    return seconds, [caption.read for caption in found.values()]
