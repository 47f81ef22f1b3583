"""SCORE: caption a split and compare with captions written by people, or score the captions of any system.

python evaluate.py                                                       caption the test split with checkpoints.pth
python evaluate.py --checkpoint a.pth b.pth --beam_size 1 3 5            compare six systems
python evaluate.py --baseline nearest                                    also score captions of similar training images
python evaluate.py --predictions results.json --captions_file refs.csv   score captions in COCO results format
"""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli import OptionParser, UserError, atomic_open, run_script, write_json
from evaluation import bootstrap
from evaluation.metrics import METRICS, Scorer, Scores, caption_statistics
from evaluation.options import add_cache_option, add_captioner_options, add_split_options
from evaluation.predictions import write_predictions
from evaluation.report import markdown, write_image_scores
from evaluation.systems import Checkpoints, PredictionFiles, System, Task


def read_options(argv: list[str]) -> Namespace:
    """Parse the command line.

    Raises:
        UserError: invalid options, or options that do not go together.
    """
    parser = OptionParser(
        prog="evaluate.py", description="Score captions: BLEU-1..4, METEOR (if Java is installed), ROUGE-L, CIDEr."
    )
    add_captioner_options(parser, several=True)
    add_split_options(parser)
    add_cache_option(parser)
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        action="extend",
        help="score the captions in these files, in COCO results format, instead of a model's; several are compared",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="with --predictions and --split: the train.seed that divided a file without split column",
    )
    parser.add_argument(
        "--baseline", choices=("nearest",), help="also score captions of similar training images (Devlin et al. 2015)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("metrics.json"),
        help="file for the scores; tables and captions go to the same folder (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    _check(options)
    return options


def _check(options: Namespace) -> None:
    for name in ("checkpoint", "predictions", "beam_size"):
        values = getattr(options, name) or []
        if len({value.resolve() if isinstance(value, Path) else value for value in values}) < len(values):
            raise UserError(f"--{name} {' '.join(map(str, values))}: the same value twice. Give each once")
    if options.output.suffix != ".json":  # .md is for the tables, and a .pth or .csv may be a model or data
        raise UserError(f"--output {options.output}: scores are written as JSON. Name a .json file")
    if options.baseline and options.split == "train":
        raise UserError(
            f"--baseline {options.baseline} borrows captions of training images, so it cannot be scored on "
            "--split train. Use val or test"
        )
    if not options.predictions:
        if options.seed is not None:
            raise UserError("--seed is for --predictions; a checkpoint knows its seed. Leave it out")
        return
    for name in ("checkpoint", "image_dir", "feature_cache", "beam_size", "baseline", "limit"):
        if getattr(options, name) is not None:
            raise UserError(f"--predictions scores captions from files, so --{name} has no effect. Leave it out")
    if options.captions_file is None:
        raise UserError("--predictions needs the references: add --captions_file FILE (columns image, caption)")


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
    """The entry of a system in metrics.json: scores as fractions (METEOR is None without Java), intervals, statistics.

    Args:
        counts: (R, N), the bootstrap's resamples.
    """
    return {
        **{metric: scores.totals.get(metric) for metric in METRICS},
        **caption_statistics(captions.values(), task.training),
        "intervals": bootstrap.intervals(bootstrap.resample(scores, counts)),
        "images": len(task.references),
        "skipped": task.skipped,
        "limit": task.limit,
        "split": task.split,
        "system": system.name,
        "beam_size": system.beam_size,
        "checkpoint": str(system.checkpoint) if system.checkpoint else None,
        **{what: str(path) for what, path in files.items()},
    }


def main(argv: list[str]) -> None:
    """Get the captions from checkpoints or files, score them, write and print the scores."""
    options = read_options(argv)
    source = PredictionFiles(options) if options.predictions else Checkpoints(options)
    systems = source.systems
    files = place_files(options, systems)  # before captioning, which may take hours
    task, captions = source.captions()
    for system, its_captions, its_files in zip(systems, captions, files, strict=True):
        if not system.predictions:
            write_predictions(its_files["predictions"], its_captions)

    scorer, counts = Scorer(task.references), bootstrap.resample_counts(len(task.references))
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
    print(tables, end="")


if __name__ == "__main__":
    run_script(main)
