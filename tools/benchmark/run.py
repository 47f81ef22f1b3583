"""``--baseline`` and ``--scaling``: measure, write JSON and Markdown, return the Markdown."""

import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from cli import note
from config import LSTMConfig
from files import atomic_open, make_folder, write_json
from tools.benchmark import pages, report, scaling
from tools.benchmark.captioning import measure_encoder, measure_search
from tools.benchmark.cold_start import measure_cold_start
from tools.benchmark.measurement import Measurement
from tools.benchmark.photos import measure_folder
from tools.benchmark.plain_copy import require_plain
from tools.benchmark.subject import Subject, open_subject
from tools.benchmark.training import measure_training
from utils import peak_memory

REPEATS = 3


def run_benchmark(options: Namespace) -> str:
    """Measure each checkpoint as the options ask; write all numbers to ``options.output``, and the tables beside it.

    The numbers are written as they come: a benchmark of hours that is stopped leaves those that it has.

    Returns:
        the tables, as Markdown.

    Raises:
        UserError: a checkpoint, the captions file or an image cannot be read.
    """
    make_folder(options.output.parent)  # what cannot be written must not be found out at the end
    records: list[dict[str, Any]] = []
    repeats = options.repeats or REPEATS
    keep = partial(write_json, options.output, {"checkpoints": records})  # what has been measured by then
    texts = [report.how_compared(repeats)] * options.baseline + [report.how_scaled(repeats)] * options.scaling
    subjects = [open_subject(named, options) for named in options.checkpoint or [None]]  # all, before hours may pass
    for subject in subjects if options.baseline else []:
        require_plain(subject.captioner.config)
    for subject in subjects:
        machine = report.machine(subject.device, subject.precision_name)
        record: dict[str, Any] = {"checkpoint": subject.path.name, "machine": machine}
        records.append(record)
        texts.append(report.paragraph(f"`{subject.path.name}` on {report.describe(machine)}."))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            if options.baseline:
                texts += _baseline(subject, repeats, Path(folder), record, keep)
            if options.scaling:
                texts += _scaling(subject, repeats, Path(folder), record, keep)
    text = "\n\n".join([*texts, f"Peak memory of the whole benchmark{peak_memory()}."]) + "\n"
    write_json(options.output, {"checkpoints": records, "peak_memory": peak_memory().strip(" ()")})
    with atomic_open(options.output.with_suffix(".md")) as file:
        file.write(text)
    return text


def _baseline(
    subject: Subject, repeats: int, folder: Path, record: dict[str, Any], keep: Callable[[], None]
) -> list[str]:
    """Compare with the plain loop; add the numbers to ``record`` and ``keep`` each, return paragraphs."""
    rows: list[Measurement] = []
    record["baseline"] = []

    def add(row: Measurement) -> None:
        rows.append(row)
        record["baseline"].append(row.record())
        keep()
        project, plain, ratio = row.pairs.medians
        both = " against ".join(report.amount(seconds, row.item) for seconds in (project, plain))
        note(f"{row.task}: {both}, {ratio:.1f} times")

    own = subject.captioner.config.decoder
    limits = f"{subject.limit_of_project / 1e9:.0f} GFLOP/s in {subject.precision_name}, plain loop"
    note(f"{subject.path.name}: matrix products with {limits} {subject.limit_of_plain / 1e9:.0f} in fp32")
    for decoder in [own] if isinstance(own, LSTMConfig) else [LSTMConfig(), own]:
        add(measure_training(subject, decoder, repeats, folder / decoder.name))
    for row in chain(measure_encoder(subject, repeats), measure_search(subject, repeats)):
        add(row)
    add(measure_cold_start(subject, repeats, folder))
    times = measure_folder(subject, repeats, folder)
    add(times.whole)
    record["seconds_per_photo"] = {"project": asdict(times.project), "plain": asdict(times.plain)}
    return [report.comparison_table(rows), "\n".join(report.remarks(rows)), report.parts_table(times)]


def _scaling(
    subject: Subject, repeats: int, folder: Path, record: dict[str, Any], keep: Callable[[], None]
) -> list[str]:
    """Measure how times grow; add the numbers to ``record`` and ``keep`` each, return tables."""
    tables = []
    record["scaling"] = {}
    for axis, measurements in {
        "images": scaling.by_images(subject, folder),
        "threads": scaling.by_threads(subject, repeats, folder / "features"),
        "beams": scaling.by_beams(subject, repeats),
        "words": scaling.by_words(subject, repeats, folder / "features"),
        "pages": pages.by_entries(subject, folder / "pages"),
    }.items():
        rows = record["scaling"][axis] = []
        for row in measurements:
            rows.append(row)
            keep()
            note(
                "  ".join(f"{name}: {'n/a' if value is None else report.number(value)}" for name, value in row.items())
            )
        tables.append(report.scaling_table(rows))
    return tables
