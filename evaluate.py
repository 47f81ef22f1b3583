"""SCORE: caption a split and compare with what people wrote; or score any system's captions with the same code.

python evaluate.py                                                       the test split, captioned by checkpoints.pth
python evaluate.py --checkpoint a.pth b.pth --beam_size 1 3 5            six systems side by side; so with --predictions a.json b.json
python evaluate.py --baseline nearest                                    and what a caption borrowed from a similar picture scores
python evaluate.py --predictions results.json --captions_file refs.csv   captions of any system, in COCO results format
"""

import json
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cli import OptionParser, UserError, atomic_open, run_script
from data.captions import SPLITS
from evaluation import bootstrap
from evaluation.metrics import METRICS, Scorer, Scores, describe
from evaluation.report import markdown, write_image_scores
from evaluation.systems import System, Task, from_checkpoints, from_files


def beside(output: Path, what: str, suffix: str, system: str = "") -> Path:
    """Where what belongs to the metrics goes: metrics.json -> predictions.json, lstm_metrics.json -> lstm_predictions.json,
    a.json -> a_predictions.json, and for the system "b_beam_3", predictions_b_beam_3.json."""
    stem = output.stem.replace("metrics", what) if "metrics" in output.stem else f"{output.stem}_{what}"
    return output.with_name("_".join(filter(None, [stem, system])) + suffix)


def read_options(argv: list[str]) -> Namespace:
    """The command line.

    Raises:
        UserError: options that are wrong, or have no use together.
    """
    parser = OptionParser(
        prog="evaluate.py", description="Score captions: BLEU-1..4, METEOR (where Java is installed), ROUGE-L, CIDEr."
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        action="extend",
        help="the model, or several to compare (default: checkpoints.pth)",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        action="extend",
        help="score these captions, in COCO results format, instead of a model's; several are compared",
    )
    parser.add_argument("--split", choices=SPLITS, help="which images of the captions file (default: test)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("metrics.json"),
        help="the scores; tables and captions go beside (default: %(default)s)",
    )
    parser.add_argument(
        "--captions_file", type=Path, help="the references (default: the captions.csv the checkpoint was trained with)"
    )
    parser.add_argument("--image_dir", type=Path, help="another folder of images than the checkpoint was trained with")
    parser.add_argument(
        "--feature_cache", help="another folder of cached features than the checkpoint was trained with"
    )
    parser.add_argument(
        "--beam_size",
        type=int,
        nargs="+",
        action="extend",
        help="sentences kept open at each step, 1 is greedy; several are compared (default: the checkpoint's)",
    )
    parser.add_argument(
        "--baseline", choices=("nearest",), help="also score captions of similar training images (Devlin et al. 2015)"
    )
    parser.add_argument(
        "--limit", type=int, help="only the first so many images, for a quick look: CIDEr is then another"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    options = parser.parse_args(argv)
    for name, values in [
        ("beam_size", options.beam_size or []),
        ("limit", [] if options.limit is None else [options.limit]),
    ]:
        if wrong := [value for value in values if value < 1]:
            raise UserError(f"--{name} {wrong[0]}: must be 1 or more")
    for name in ("checkpoint", "predictions", "beam_size"):
        values = getattr(options, name) or []
        if len({Path(value).resolve() if isinstance(value, Path) else value for value in values}) < len(values):
            raise UserError(f"--{name} {' '.join(map(str, values))}: the same one twice. Name each once")
    if options.output.suffix != ".json":  # .md is for the tables, and a .pth or .csv may be somebody's model or data
        raise UserError(
            f"--output {options.output}: the scores are JSON, tables and captions go beside them. Name a .json file"
        )
    if options.baseline and options.split == "train":
        raise UserError(
            f"--baseline {options.baseline} borrows from training images, so it cannot be scored on --split train. Use val or test"
        )
    if options.predictions:
        for name in ("checkpoint", "image_dir", "feature_cache", "beam_size", "baseline", "limit"):
            if getattr(options, name) is not None:
                raise UserError(f"--predictions brings its own captions: --{name} has no use there")
        if options.captions_file is None:
            raise UserError("--predictions needs the references: add --captions_file FILE (columns image, caption)")
    return options


def place_files(options: Namespace, systems: Sequence[System]) -> list[dict[str, Path]]:
    """Where each system's ``predictions`` and ``per_image`` scores go; the first system's names are without its own.

    Raises:
        UserError: one file would overwrite another, or what was given to read.
    """
    slugs = ["_".join(re.findall(r"\w+", system.name)) for system in systems[1:]]
    slugs = [
        f"{slug}_{number}" if slug in slugs[: number - 2] else slug for number, slug in enumerate(slugs, 2)
    ]  # a-b.pth and a_b.pth
    places = [
        {
            "predictions": system.predictions or beside(options.output, "predictions", ".json", slug),
            "per_image": beside(options.output, "per_image", ".csv", slug),
        }
        for slug, system in zip(["", *slugs], systems, strict=True)
    ]
    taken = {path.resolve() for path in [options.captions_file, *(options.predictions or [])] if path}
    written = [
        path
        for place, system in zip(places, systems, strict=True)
        for path in place.values()
        if path != system.predictions
    ]
    for path in [options.output, options.output.with_suffix(".md"), *written]:
        if path.resolve() in taken:
            raise UserError(
                f"--output {options.output}: would overwrite {path}. Choose another name, such as metrics.json"
            )
        taken.add(path.resolve())
    return places


def record_of(
    task: Task, system: System, scores: Scores, place: Mapping[str, Path], draws: np.ndarray
) -> dict[str, Any]:
    """What metrics.json says of a system: scores as fractions (METEOR is None without Java), their intervals, what the captions are like."""
    return {
        **{metric: scores.totals.get(metric) for metric in METRICS},
        **describe(system.captions.values(), task.training),
        "intervals": bootstrap.intervals(bootstrap.resample(scores, draws)),
        "images": len(task.references),
        "skipped": task.skipped,
        "limit": task.limit,
        "split": task.split,
        "system": system.name,
        "beam_size": system.beam_size,
        "checkpoint": str(system.checkpoint) if system.checkpoint else None,
        **{what: str(path) for what, path in place.items()},
    }


def write_json(path: Path, values: Any) -> None:
    """Write atomically."""
    with atomic_open(path) as file:
        json.dump(values, file, ensure_ascii=False, indent=2)
        file.write("\n")


def main(argv: list[str]) -> None:
    """Get the captions, from checkpoints or files, score them, write and print the scores."""
    options = read_options(argv)
    task, systems = from_files(options) if options.predictions else from_checkpoints(options)
    places = place_files(options, systems)
    for system, place in zip(systems, places, strict=True):
        if not system.predictions:
            write_json(
                place["predictions"],
                [{"image_id": name, "caption": caption} for name, caption in system.captions.items()],
            )

    scorer, draws = Scorer(task.references), bootstrap.draw(len(task.references))
    scores = [scorer.score_images(system.captions) for system in systems]
    records = [record_of(task, *each, draws) for each in zip(systems, scores, places, strict=True)]
    for record, its_scores in zip(records[1:], scores[1:], strict=True):
        record["against_first"] = bootstrap.compare(scores[0], its_scores, draws)
    for system, its_scores, place in zip(systems, scores, places, strict=True):
        write_image_scores(place["per_image"], its_scores, system.captions)
    tables = markdown(records)
    with atomic_open(options.output.with_suffix(".md")) as file:
        file.write(tables)
    write_json(options.output, {**records[0], "others": records[1:]})
    print(tables, end="")


if __name__ == "__main__":
    run_script(main)
