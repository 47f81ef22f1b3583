"""The results as Markdown tables and as JSON, with the machine they were measured on."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.report import table
from tools.benchmark.measurement import Measurement
from tools.benchmark.photos import PARTS, FolderTimes
from tools.benchmark.scaling import Row

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
    rows = []
    totals = {side: sum(parts.values()) for side, parts in (("project", times.project), ("plain", times.plain))}
    for part in PARTS:
        cells = [(times.project[part], totals["project"]), (times.plain[part], totals["plain"])]
        rows.append([part, *(f"{1000 * seconds:.1f} ms, {seconds / total:.0%}" for seconds, total in cells)])
    rows.append(["together", *(f"{1000 * total:.1f} ms" for total in totals.values())])
    return table(["part, per photo", "project", "plain loop"], rows)


def remarks(measurements: Sequence[Measurement]) -> list[str]:
    """Lines about results that a table has no room for."""
    return [f"- {each.task}: {each.remark}." for each in measurements if each.remark]


def scaling_table(rows: Sequence[Row]) -> str:
    """Rows with the same columns, of which the first has the sizes."""
    return table([*rows[0]], [["n/a" if value is None else number(value) for value in row.values()] for row in rows])


def number(value: float) -> str:
    """Three digits, or all of a whole number."""
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 10 else 1}f}"
