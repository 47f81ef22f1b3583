"""Scores for readers: Markdown tables of percentages, as papers print them, and a CSV with the scores of each image."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli import printable
from data.rows import safe_cell
from evaluation.metrics import METRICS, Scores
from files import atomic_open

Record = Mapping[str, Any]  # the entry of one system in metrics.json
RESAMPLED = ("BLEU-4", "ROUGE-L", "CIDEr")  # the metrics with a bootstrap interval


def markdown(records: Sequence[Record]) -> str:
    """Tables of the scores, of their intervals and caption statistics, and of the differences from the first system.

    Args:
        records: one per system; all but the first have a comparison ``against_first``.
    """
    first, *others = records
    parts = [
        f"{first['images']} images of the split '{first['split']}', scores x 100",
        table(
            ["system", *METRICS],
            [[record["system"], *(_percent(record[metric]) for metric in METRICS)] for record in records],
        ),
        "95 % bootstrap intervals; words per caption, different words in total, distinct captions, "
        "captions copied from training",
        table(
            ["system", *RESAMPLED, "words", "vocabulary", "distinct", "copied"],
            [_details(record) for record in records],
        ),
    ]
    if others:
        parts += [
            f"difference from {printable(first['system'])}, its 95 % interval and two-sided p-value "
            "(paired bootstrap, Koehn 2004)",
            table(["system", *RESAMPLED], [_differences(record) for record in others]),
        ]
    return "\n\n".join([*parts, *_notes(records)]) + "\n"


def write_image_scores(path: Path, scores: Scores, captions: Mapping[str, str]) -> None:
    """CSV with the columns image, caption, CIDEr, BLEU-4, ROUGE-L (fractions, of this caption); lowest CIDEr first."""
    columns = ("CIDEr", "BLEU-4", "ROUGE-L")
    with atomic_open(path) as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", *columns])
        for row in scores.images["CIDEr"].argsort(kind="stable"):
            name = scores.names[row]
            numbers = [f"{scores.images[column][row]:.6f}" for column in columns]
            writer.writerow([safe_cell(name), safe_cell(captions[name]), *numbers])


def _percent(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{100 * fraction:.1f}"


def _interval(bounds: tuple[float, float]) -> str:
    return " to ".join(map(_percent, bounds))


def _details(record: Record) -> list[str]:
    intervals = [_interval(record["intervals"][metric]) for metric in RESAMPLED]
    shares = ["n/a" if record[share] is None else f"{record[share]:.0%}" for share in ("distinct", "copied")]
    return [record["system"], *intervals, f"{record['words']:.1f}", str(record["vocabulary"]), *shares]


def _differences(record: Record) -> list[str]:
    differences = [record["against_first"][metric] for metric in RESAMPLED]
    return [
        record["system"],
        *(
            f"{100 * each['difference']:+.1f} ({_interval(each['interval'])}), p {each['p']:.3f}"
            for each in differences
        ),
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned in a terminal; the first column is text, the others are numbers."""
    header, *rows = ([printable(cell) for cell in row] for row in (header, *rows))
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _notes(records: Sequence[Record]) -> list[str]:
    first, notes = records[0], []
    if first["tokenizer"] == "characters":
        notes.append("note: words are characters here (data.tokenizer); METEOR is n/a: it is made for words of English")
    elif first["METEOR"] is None:
        notes.append("note: METEOR is n/a: it needs a working Java")
    if first["skipped"]:
        notes.append(f"note: {first['skipped']} images could not be read and are not scored")
    if first["limit"]:
        notes.append(f"note: only the first {first['limit']} images of the split (--limit)")
    if first["skipped"] or first["limit"] or first["images"] == 1:
        notes.append(
            "note: CIDEr depends on the set of images being scored; compare it only with scores on the same images"
        )
    return notes
