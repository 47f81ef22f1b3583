"""A run of evaluate.py from its options to its last file: get the captions, score them, write the results."""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli import UserError
from distributed import ALONE, Processes
from evaluation import bootstrap
from evaluation.metrics import METRICS, Scorer, Scores, caption_statistics
from evaluation.predictions import write_predictions
from evaluation.report import markdown, write_image_scores
from evaluation.systems import Checkpoints, PredictionFiles, System, Task
from files import atomic_open, make_folder, write_json


def run_evaluation(options: Namespace, processes: Processes = ALONE) -> str:
    """Get the captions from checkpoints or files, score them, write all files; return the tables as Markdown.

    Args:
        options: evaluate.py's.
        processes: those that share the images. The first one scores and writes; the others return nothing.

    Raises:
        UserError: a file cannot be read, or would be overwritten by a result.
    """
    source = PredictionFiles(options) if options.predictions else Checkpoints(options, processes)
    systems = source.systems
    files = place_files(options, systems)  # before captioning, which may take hours
    task, captions = source.captions()
    if not processes.is_first:
        return ""
    for system, its_captions, its_files in zip(systems, captions, files, strict=True):
        if not system.predictions:
            write_predictions(its_files["predictions"], its_captions)

    scorer, counts = Scorer(task.references, task.tokenizer), bootstrap.resample_counts(len(task.references))
    scores = [scorer.score_images(its_captions) for its_captions in captions]
    records = [record_of(task, *each, counts) for each in zip(systems, captions, scores, files, strict=True)]
    for record, its_scores in zip(records[1:], scores[1:], strict=True):
        record["against_first"] = bootstrap.compare(scores[0], its_scores, counts)
    for its_captions, its_scores, its_files in zip(captions, scores, files, strict=True):
        write_image_scores(its_files["per_image"], its_scores, its_captions)
    tables = markdown(records)
    with atomic_open(options.output.with_suffix(".md")) as file:
        file.write(tables)
    write_json(options.output, {**records[0], "others": records[1:]})
    return tables


def output_file(output: Path, what: str, suffix: str, system: str = "") -> Path:
    """A file next to ``output``, named after it: metrics.json -> predictions.json, a.json -> a_predictions.json,
    a_metrics.json -> a_predictions.json; for the system "b_beam_3", predictions_b_beam_3.json."""
    stem = output.stem.replace("metrics", what) if "metrics" in output.stem else f"{output.stem}_{what}"
    return output.with_name("_".join(filter(None, [stem, system])) + suffix)


def place_files(options: Namespace, systems: Sequence[System]) -> list[dict[str, Path]]:
    """The files for each system's ``predictions`` and ``per_image`` scores; all but the first have its name in theirs.

    Raises:
        UserError: a file would overwrite another one, or one that is to be read.
    """
    taken = {path.resolve() for path in [options.captions_file, *(options.predictions or [])] if path}

    def claim(path: Path) -> Path:
        if path.resolve() in taken:
            raise UserError(
                f"--output {options.output}: would overwrite {path}. Choose another name, such as metrics.json"
            )
        taken.add(path.resolve())
        return path

    make_folder(options.output.parent)
    claim(options.output)
    claim(options.output.with_suffix(".md"))
    return [
        {
            "predictions": system.predictions or claim(output_file(options.output, "predictions", ".json", name)),
            "per_image": claim(output_file(options.output, "per_image", ".csv", name)),
        }
        for name, system in zip(["", *_file_names(systems[1:])], systems, strict=True)
    ]


def _file_names(systems: Sequence[System]) -> list[str]:
    """The systems' names without the characters that file names should not have, numbered where two become the same."""
    names: list[str] = []
    for number, system in enumerate(systems, start=2):
        name = "_".join(re.findall(r"\w+", system.name))
        names.append(f"{name}_{number}" if name in names else name)  # a-b.pth and a_b.pth
    return names


def record_of(
    task: Task,
    system: System,
    captions: Mapping[str, str],
    scores: Scores,
    files: Mapping[str, Path],
    counts: np.ndarray,
) -> dict[str, Any]:
    """The entry of a system in metrics.json: scores as fractions (None for METEOR if n/a), intervals, statistics.

    Args:
        counts: (R, N), the bootstrap's resamples.
    """
    return {
        **{metric: scores.totals.get(metric) for metric in METRICS},
        **caption_statistics(captions.values(), task.training, task.tokenizer),
        "intervals": bootstrap.intervals(bootstrap.resample(scores, counts)),
        "images": len(task.references),
        "skipped": task.skipped,
        "limit": task.limit,
        "split": task.split,
        "tokenizer": task.tokenizer.name,
        "system": system.name,
        "beam_size": system.beam_size,
        "checkpoint": str(system.checkpoint) if system.checkpoint else None,
        **{what: str(path) for what, path in files.items()},
    }
