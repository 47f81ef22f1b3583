"""Train a recipe with several seeds and score every run: mean, standard deviation and interval of each metric.

python -m tools.seeds --seeds 0 1 2                                        # config.yaml: the bundled drawings
python -m tools.seeds --config configs/flickr8k_lstm.yaml --seeds 0 1 2 3 4 --split val
python -m tools.seeds --config configs/flickr8k_lstm.yaml --seeds 0 1 2 --output_dir runs/b --decoder.dropout 0.3

It takes all options of train.py, and writes seeds.md and seeds.json to the folder seeds/ in output_dir, with a folder
for each run. If it is stopped, the same command continues; with other --seeds it adds runs.
"""

import shlex
import signal
import statistics
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as `python tools/seeds.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import ROOT, UserError, listed, note, run_script, say
from config import SPLITS, Config, config_to_dict
from evaluation.options import DEFAULT_SPLIT
from files import atomic_open, lock_folder, write_json
from structured import read_json, read_yaml
from training.options import build_parser, read_config

FOLDER, RECIPE, LOCK = "seeds", "recipe.yaml", ".seeds.lock"
LAST_SEED = 2**32 - 1  # as train.seed allows
# 97.5 % quantiles of Student's t distribution with 1, 2, 3, ... degrees of freedom
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045),
)
MAX_SEEDS = len(STUDENT) + 1  # papers have 3 to 10


def summary(scores: Sequence[float]) -> dict[str, float | None]:
    """``mean``, ``std`` (of a sample) and ``margin``: the 95 % interval of the mean is mean - margin to mean + margin.

    The interval is Student's: it assumes that scores are normally distributed over seeds. One score has none.
    """
    mean, count = statistics.fmean(scores), len(scores)
    std = statistics.stdev(scores) if count > 1 else None
    return {"mean": mean, "std": std, "margin": None if std is None else STUDENT[count - 2] * std / count**0.5}


def keep_recipe(config: Config, folder: Path) -> Path:
    """Write the options that all runs in ``folder`` have in common, for train.py; return the file.

    Raises:
        UserError: the runs that are there have other options.
    """
    import yaml

    recipe = config_to_dict(config)
    for name in ("output_dir", "device"):  # of each run, and of the machine
        del recipe[name]
    del recipe["train"]["seed"]
    path = folder / RECIPE
    if path.exists() and (before := read_yaml(path)) != recipe:
        from training.resume import differences

        changes = listed([f"{name} ({change})" for name, change in differences(_by_name(before), _by_name(recipe))])
        raise UserError(f"{folder}: its runs have other options: {changes}. Choose another --output_dir for these")
    with atomic_open(path) as file:
        yaml.safe_dump(recipe, file, sort_keys=False)
    return path


def _by_name(recipe: dict[str, Any]) -> dict[str, Any]:
    """The options with a dict of stages, so that differences are told one by one."""
    stages = {stage["name"]: stage for stage in recipe["train"]["stages"]}
    return {**recipe, "train": {**recipe["train"], "stages": stages}}


def run(script: str, options: Mapping[str, object]) -> None:
    """Run a script of the repository, whose output goes to stderr, and stop it when this process shall stop.

    Raises:
        UserError: it has failed.
        SystemExit: status 130, it was stopped.
    """
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    note(f"python {shlex.join([script, *words])}")
    with subprocess.Popen([sys.executable, str(ROOT / script), *words], stdout=2) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            status = process.wait()
        except KeyboardInterrupt:  # it has got the signal too, and saves its state
            status = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if status == 130:
        note("stopped: the same command continues")
        sys.exit(status)
    if status:
        raise UserError(f"{script} has failed, see above. When it is mended, run the same command again: it continues")


def score(seed: int, recipe: Path, split: str, config: Config) -> dict[str, Any]:
    """The metrics.json of the run with this seed, which is trained and evaluated unless it has been."""
    folder = recipe.parent / f"seed_{seed}"
    metrics = folder / f"{split}_metrics.json"
    if not metrics.exists():
        device = {"device": config.device}
        run("train.py", {"config": recipe, "train.seed": seed, "output_dir": folder, "resume": "auto", **device})
        cache = {"feature_cache": config.data.feature_cache}
        run("evaluate.py", {"checkpoint": folder, "split": split, "output": metrics, **device, **cache})
    found: dict[str, Any] = read_json(metrics)
    return found


def tables(seeds: Sequence[int], found: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """A Markdown table and the content of seeds.json, of the metrics of the runs with these ``seeds``."""
    from evaluation.metrics import METRICS
    from evaluation.report import table

    rows, summaries = [], dict[str, Any]()
    for metric in (*METRICS, "distinct", "copied"):
        scores = [record[metric] for record in found]
        if None in scores:  # METEOR without Java
            continue
        summaries[metric] = {**summary(scores), "scores": scores}
        mean, std, margin = (summaries[metric][key] for key in ("mean", "std", "margin"))
        spread = ["n/a", "n/a"]
        if margin is not None:
            spread = [f"{100 * std:.2f}", f"{100 * (mean - margin):.1f} to {100 * (mean + margin):.1f}"]
        rows.append([metric, f"{100 * mean:.1f}", *spread, *(f"{100 * each:.1f}" for each in scores)])
    split, images = found[0]["split"], found[0]["images"]
    about = f"{len(seeds)} seeds, {images} images of the split '{split}', scores x 100, 95 % interval of the mean"
    header = ["metric", "mean", "std", "interval", *(f"seed {seed}" for seed in seeds)]
    return f"{about}\n\n{table(header, rows)}\n", {"split": split, "seeds": list(seeds), "metrics": summaries}


def seed_number(text: str) -> int:
    """``type`` of --seeds."""
    if not text.isdecimal() or int(text) > LAST_SEED:
        raise ArgumentTypeError(f"must be whole numbers from 0 to {LAST_SEED}, not {text!r}")
    return int(text)


def main(argv: list[str]) -> None:
    """Train and score run after run; write the tables after each."""
    parser = build_parser("python -m tools.seeds", __doc__)
    parser.add_argument("--seeds", type=seed_number, nargs="+", required=True, metavar="N", help="values of train.seed")
    parser.add_argument("--split", choices=SPLITS, default=DEFAULT_SPLIT, help="to score on (default: %(default)s)")
    config, options = read_config(parser, argv)
    seeds = options.seeds
    if len(set(seeds)) < len(seeds) or len(seeds) > MAX_SEEDS:
        raise UserError(f"--seeds {shlex.join(map(str, seeds))}: name different seeds, at most {MAX_SEEDS}")
    folder = Path(config.output_dir) / FOLDER
    text, found = "", list[dict[str, Any]]()
    with lock_folder(folder, LOCK):
        recipe = keep_recipe(config, folder)
        for number, seed in enumerate(seeds, start=1):
            found.append(score(seed, recipe, options.split, config))
            text, values = tables(seeds[:number], found)
            write_json(folder / "seeds.json", values)
            with atomic_open(folder / "seeds.md") as file:
                file.write(text)
    say(*text.rstrip().split("\n"))


if __name__ == "__main__":
    run_script(main)
