"""A folder of photos, from their files to the files that are written, with the time of each part.

The project also writes a gallery: a page and two JPGs per photo. The plain loop writes the captions alone. Both read
files by the same function, which decodes large JPEGs at a part of their size.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from data.images import load_image
from files import write_json
from gallery.photos import Photo
from gallery.writing import Target, write_gallery
from tools.benchmark.measurement import Measurement, measured
from tools.benchmark.plain_search import PlainCaption
from tools.benchmark.subject import Subject, synchronize
from tools.benchmark.timing import interleave, timed

PHOTOS = 500  # in the folder
PLAIN_SHARE = 5  # the plain loop captions every fifth of them, as it takes the same time for each
PARTS = ("reading and decoding", "encoder", "beam search", "writing and the rest")


@dataclass(frozen=True)
class Times:
    """Seconds per photo: of everything, and of each part."""

    whole: float
    parts: dict[str, float]

    @classmethod
    def of(cls, whole: float, reading: float, encoder: float, search: float) -> "Times":
        """What the named parts leave is the rest."""
        rest = max(0.0, whole - reading - encoder - search)  # reading is timed on its own, so its time may differ
        return cls(whole, dict(zip(PARTS, (reading, encoder, search, rest), strict=True)))


@dataclass(frozen=True)
class FolderTimes:
    """The comparison, and the times of the last repeat with their parts."""

    whole: Measurement
    project: Times
    plain: Times


def measure_folder(subject: Subject, repeats: int, folder: Path) -> FolderTimes:
    """Photos captioned per second, from their files to the files that are written.

    Args:
        folder: an empty one, to write to.
    """
    photos = subject.photos(PHOTOS)
    few = photos[:: PLAIN_SHARE if len(photos) >= PLAIN_SHARE else 1]
    last: dict[str, Times] = {}
    words: list[int] = []

    def project() -> float:
        last["project"] = caption_folder(subject, photos, folder)
        return last["project"].whole

    def plain() -> float:
        last["plain"], words[:] = caption_plainly(subject, few, folder)
        return last["plain"].whole

    pairs = interleave(project, subject.exactly(plain), repeats, warm_up=False)
    needed = subject.views * subject.operations.encoder + subject.operations.caption(sum(words) / len(words))
    whole = measured(subject, f"a folder of {len(photos)} photos", "photos", pairs, needed)
    return FolderTimes(whole, last["project"], last["plain"])


def caption_folder(subject: Subject, photos: Sequence[Path], folder: Path) -> Times:
    """Write a gallery as inference_visualize.py does.

    Reading is timed on its own, before; the encoder and beam search inside.
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
    return Times.of(whole, reading, *(captioner.seconds[name] / count for name in ("encode", "generate")))


def caption_plainly(subject: Subject, photos: Sequence[Path], folder: Path) -> tuple[Times, list[int]]:
    """Caption photo by photo; return the times, and how many words were read for each."""
    plain, vocabulary = subject.plain, subject.captioner.vocabulary
    found, seconds = list[PlainCaption](), [0.0, 0.0, 0.0]
    began = perf_counter()
    for path in photos:
        clock = [perf_counter()]
        image = plain.read(path)
        clock.append(perf_counter())
        features = plain.encode(image)
        synchronize(subject.device)
        clock.append(perf_counter())
        found.append(plain.search(features, subject.beam_size))
        clock.append(perf_counter())
        seconds = [total + after - before for total, (before, after) in zip(seconds, pairwise(clock), strict=True)]
    captions = {str(path): vocabulary.decode(caption.tokens) for path, caption in zip(photos, found, strict=True)}
    write_json(folder / "captions.json", captions)
    each = [total / len(photos) for total in (perf_counter() - began, *seconds)]
    return Times.of(*each), [caption.read for caption in found]
