"""The results as Markdown tables and as JSON, with the machine they were measured on."""

import os
import platform
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.report import table
from tools.benchmark.measurement import Measurement
from tools.benchmark.photos import PARTS, FolderTimes
from tools.benchmark.scaling import Row

COLUMNS = 120  # of a line in the documents of this repository
CPU_INFO = Path("/proc/cpuinfo")  # of Linux


def machine(device: torch.device, precision: str) -> dict[str, Any]:
    """What the numbers depend on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": gpu or device.type,
        "precision": precision,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def cpu_model() -> str:
    """The name of the CPU, as far as the system tells."""
    lines = CPU_INFO.read_text("utf-8", "replace").splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(found: dict[str, Any]) -> str:
    """``machine`` as a line."""
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads, {found['device']}, {found['precision']}, "
        f"torch {found['torch']}, Python {found['python']}, {found['system']}"
    )


def amount(seconds: float, item: str) -> str:
    """A time per item as a rate, or where there is no name of an item as seconds: "84.1 images/s", "2.41 s"."""
    if not item:
        return f"{seconds:.2f} s"
    return f"{number(1 / seconds)} {item}/s"


def comparison_table(measurements: Sequence[Measurement]) -> str:
    """Medians of both sides, their ratio, and how close they come to the limit of the machine."""
    header = ["task", "project", "plain loop", "ratio (pairs)", "GFLOP", "GFLOP/s at most", "share of it"]
    rows = []
    for each in measurements:
        project, plain, ratio = each.pairs.medians
        lowest, highest = min(each.pairs.ratios), max(each.pairs.ratios)
        share, plain_share = each.shares
        rows.append(
            [
                each.task,
                amount(project, each.item),
                amount(plain, each.item),
                f"{ratio:.1f} ({lowest:.1f} to {highest:.1f})",
                f"{each.operations / 1e9:.3g}",
                f"{each.limit / 1e9:.0f}, plain {each.plain_limit / 1e9:.0f}",
                f"{share:.1%}, plain {plain_share:.1%}",
            ]
        )
    return table(header, rows)


def parts_table(times: FolderTimes) -> str:
    """Where the time goes for a folder of photos."""
    both = (times.project, times.plain)
    cells = [
        [f"{1000 * each.parts[part]:.1f} ms, {each.parts[part] / each.whole:.0%}" for each in both] for part in PARTS
    ]
    rows = [[part, *columns] for part, columns in zip(PARTS, cells, strict=True)]
    rows.append(["everything", *(f"{1000 * each.whole:.1f} ms" for each in both)])
    return table(["part, per photo", "project", "plain loop"], rows)


def how_compared(repeats: int) -> str:
    """What the columns of ``comparison_table`` are."""
    return paragraph(
        f"Medians of {repeats} interleaved pairs, with the lowest and highest ratio. The plain loop has the same "
        "weights and does the same search in fp32, as tutorials do it: the encoder runs in every training step, for "
        "each caption of an image; an LSTM cell runs step by step; beam search takes one image at a time. GFLOP: the "
        "floating-point operations (10^9) that one item needs at least. GFLOP/s at most: those of products of large "
        "matrices here. Share: how much of that is reached."
    )


def how_scaled(repeats: int) -> str:
    """What the tables of ``scaling_table`` are."""
    return paragraph(
        f"Medians of {repeats} runs, but by number of images a single one. Features are those of the image without its "
        "mirror image there. By number of words, decoders have random weights, whose captions are as long as allowed. "
        "The last table is of the gallery's page, without its JPGs."
    )


def remarks(measurements: Sequence[Measurement]) -> list[str]:
    """Lines about results that a table has no room for."""
    lines = [f"- {each.task}: {each.remark}." for each in measurements if each.remark]
    return [textwrap.fill(line, COLUMNS, subsequent_indent="  ") for line in lines]


def paragraph(text: str) -> str:
    """``text`` in lines that fit into a document of this repository."""
    return textwrap.fill(text, COLUMNS, break_on_hyphens=False)


def scaling_table(rows: Sequence[Row]) -> str:
    """Rows with the same columns, of which the first has the sizes."""
    return table([*rows[0]], [["n/a" if value is None else number(value) for value in row.values()] for row in rows])


def number(value: float) -> str:
    """Three digits, or all of a whole number."""
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 10 else 1}f}"
