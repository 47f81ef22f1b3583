"""How the gallery's page grows with its images: the time to write it, and its size."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from data.images import load_image
from files import atomic_open
from gallery.jpegs import prepare
from gallery.page import Entry, render_page
from gallery.writing import PAGE
from tools.benchmark.scaling import Row
from tools.benchmark.subject import Subject
from tools.benchmark.timing import timed

PAGES = (100, 1_000, 10_000)  # images
DIFFERENT = 16  # images that are captioned; a page repeats them under other names


def by_entries(subject: Subject, folder: Path) -> Iterator[Row]:
    """Seconds to write pages of more and more images, and their sizes; without their JPGs.

    Args:
        folder: an empty one, to write to.
    """
    captioned = _entries(subject)
    for count in PAGES:
        entries = [
            replace(entry, name=f"photo{number}.jpg", file=f"photo{number}.jpg")
            for number, entry in enumerate(islice(cycle(captioned), count))
        ]
        pages = folder / str(count)
        seconds = timed(partial(_write, subject, entries, pages), 1)
        page = (pages / PAGE).stat().st_size
        every = sum(file.stat().st_size for file in pages.rglob("*") if file.is_file())
        on_demand = every - page
        yield {"images": count, "writing, s": seconds, "page, MB": page / 1e6, "read on demand, MB": on_demand / 1e6}


def _entries(subject: Subject) -> list[Entry]:
    """The first images with their captions and, if the decoder has attention, their heat maps."""
    captioner, photos = subject.captioner, subject.photos(DIFFERENT)
    images = [load_image(path) for path in photos]
    found = captioner.caption(images, subject.beam_size, attention=captioner.decoder.attends)
    return [
        prepare(Entry.from_candidates(path.name, candidates), image, path.name, strip=False)
        for path, image, candidates in zip(photos, images, found, strict=True)
    ]


def _write(subject: Subject, entries: Sequence[Entry], folder: Path) -> None:
    page = render_page(entries, [], subject.path.name, subject.beam_size)
    for name, content in {PAGE: page.html, **page.files}.items():
        with atomic_open(folder / name) as file:
            file.write(content)
