"""SCORE: caption a split and compare with what people wrote; or score any system's captions with the same code.

python evaluate.py                                                       the test split, captioned by checkpoints.pth
python evaluate.py --predictions results.json --captions_file refs.csv   captions of any system, in COCO results format
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from tqdm import tqdm

from data.dataset import SPLITS, drop_bad_images, read_captions, references_of
from metrics import Scorer
from models.captioner import Captioner
from utils import OptionParser, UserError, atomic_open, pick_device, run_script

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
BATCH = 64  # images decoded at once; what an image gets does not depend on the others


def caption_images(
    captioner: Captioner, references: dict[str, list[str]], image_dir: Path, feature_cache: str, beam_size: int
) -> dict[str, str]:
    """Image name -> its best caption, for the images of ``references``; those that cannot be used are named and left out.

    Raises:
        UserError: more than 5 % of the images cannot be used.
    """
    cache = captioner.feature_cache(feature_cache)
    bad = cache.build([image_dir / name for name in references])
    names = list(drop_bad_images(references, image_dir, bad))
    captions: dict[str, str] = {}
    with tqdm(total=len(names), desc="captioning", unit="img", disable=None) as bar:
        for first in range(0, len(names), BATCH):
            batch = names[first : first + BATCH]
            features = torch.stack([cache[image_dir / name] for name in batch])  # (B, P, D)
            found = captioner.caption_features(features, beam_size)
            captions |= {name: candidates[0].caption for name, candidates in zip(batch, found, strict=True)}
            bar.update(len(batch))
    return captions


def score(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> dict[str, float | None]:
    """All ``METRICS`` as fractions (METEOR is None without Java), and ``distinct``, the share of different captions."""
    scores = Scorer(references).score(captions)
    return {**{metric: scores.get(metric) for metric in METRICS}, "distinct": len(set(captions.values())) / len(captions)}


def read_references(captions_file: Path, split: str | None) -> tuple[dict[str, list[str]], str]:
    """The references that predictions are scored against, and what to call them.

    They are those of ``split``; where none is named, of the test split, or of "all" images if the file has no split column.
    """
    table = read_captions(captions_file)
    with captions_file.open(encoding="utf-8-sig", newline="") as file:
        header = next(row for row in csv.reader(file, skipinitialspace=True) if any(row))
    if split is None and "split" not in [name.strip().lower() for name in header]:
        split = table["split"] = "all"
    return references_of(table, split or "test"), split or "test"


def read_predictions(path: Path, names: Collection[str]) -> dict[str, str]:
    """Captions in COCO results format, ``[{"image_id": ..., "caption": ...}, ...]``, one for each of the images ``names``.

    An image_id is a file name, with or without its folder and suffix, or the number that only one file name ends in
    (391895 is COCO_val2014_000000391895.jpg).

    Raises:
        UserError: not that format; an image_id that is unknown, could be several images, comes twice, or is missing.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"--predictions {path}: no such file") from error
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(entries, list):
        raise UserError(f'{path}: not in COCO results format, which is a list [{{"image_id": ..., "caption": ...}}, ...]')
    images = _images_by_id(names)
    captions: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict) or type(entry.get("image_id")) not in (str, int) or not isinstance(entry.get("caption"), str):
            raise UserError(f'{where}: must have an "image_id" (text or whole number) and a "caption" (text)')
        image_id = entry["image_id"]
        found = [image_id] if image_id in names else images.get(image_id, [])
        if not found and isinstance(image_id, str) and image_id.isdecimal():
            found = images.get(int(image_id), [])
        if not found:
            raise UserError(
                f"{where}: image_id {image_id!r} is none of the {len(names)} images to score. Check --captions_file and --split"
            )
        if len(found) > 1:
            raise UserError(f"{where}: image_id {image_id!r} could be {found[0]} or {found[1]}. Use the file name")
        if found[0] in captions:
            raise UserError(f"{where}: image_id {image_id!r} is {found[0]}, which has a caption already. One caption an image")
        captions[found[0]] = entry["caption"]
    missing = [name for name in names if name not in captions]
    if missing:
        raise UserError(
            f"{path}: no caption for {len(missing)} of the {len(names)} images to score, such as {missing[0]}. Check --captions_file and --split"
        )
    return captions


def _images_by_id(names: Collection[str]) -> dict[str | int, list[str]]:
    """What else than its full name an image may be called -> the images that may be meant."""
    images: defaultdict[str | int, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        aliases: set[str | int] = {str(path.with_suffix("")), path.name, path.stem}
        if number := re.search(r"[0-9]+$", path.stem):
            aliases.add(int(number[0]))
        for alias in aliases:
            images[alias].append(name)
    return images


def predictions_path(output: Path) -> Path:
    """Beside the metrics: metrics.json -> predictions.json, lstm_metrics.json -> lstm_predictions.json, a.json -> a_predictions.json."""
    stem = output.stem.replace("metrics", "predictions") if "metrics" in output.stem else f"{output.stem}_predictions"
    return output.with_name(f"{stem}.json")


def report(record: Mapping[str, Any]) -> None:
    """Print what metrics.json holds, as a table of percentages."""
    beam = f"beam size {record['beam_size']}, " if record["beam_size"] else ""
    print(f"{record['images']} images of the split '{record['split']}', {beam}{record['distinct']:.0%} of the captions distinct")
    for metric in METRICS:
        print(f"  {metric:<8}", "n/a (needs a Java that works)" if record[metric] is None else f"{100 * record[metric]:5.1f}")
    if record["skipped"]:
        print(f"note: {record['skipped']} images could not be used and are not scored")
    if record["skipped"] or record["images"] == 1:
        print("note: CIDEr depends on the set of images that is scored; compare it with scores on exactly the same images only")


def write_json(path: Path, values: Any) -> None:
    """Write atomically."""
    with atomic_open(path) as file:
        json.dump(values, file, ensure_ascii=False, indent=2)
        file.write("\n")


def main(argv: list[str]) -> None:
    """Get the captions, from a checkpoint or a file, score them, write and print the scores."""
    parser = OptionParser(prog="evaluate.py", description="Score captions: BLEU-1..4, METEOR (where Java is installed), ROUGE-L, CIDEr.")
    parser.add_argument("--checkpoint", type=Path, help="the model (default: checkpoints.pth)")
    parser.add_argument("--predictions", type=Path, help="score these captions, in COCO results format, instead of a model's")
    parser.add_argument("--split", choices=SPLITS, help="which images of the captions file (default: test)")
    parser.add_argument(
        "--output", type=Path, default=Path("metrics.json"), help="the scores; predictions go beside (default: %(default)s)"
    )
    parser.add_argument("--captions_file", type=Path, help="the references (default: the captions.csv the checkpoint was trained with)")
    parser.add_argument("--image_dir", type=Path, help="another folder of images than the checkpoint was trained with")
    parser.add_argument("--feature_cache", help="another folder of cached features than the checkpoint was trained with")
    parser.add_argument("--beam_size", type=int, help="sentences kept open at each step; 1 is greedy (default: the checkpoint's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.beam_size is not None and options.beam_size < 1:
        raise UserError(f"--beam_size {options.beam_size}: must be 1 or more")

    if options.predictions:
        for name in ("checkpoint", "image_dir", "feature_cache", "beam_size"):
            if getattr(options, name) is not None:
                raise UserError(f"--predictions brings its own captions: --{name} has no use there")
        if options.captions_file is None:
            raise UserError("--predictions needs the references: add --captions_file FILE (columns image, caption)")
        if options.output.resolve() == options.predictions.resolve():
            raise UserError(f"--output {options.output}: would overwrite the predictions")
        references, split = read_references(options.captions_file, options.split)
        captions = read_predictions(options.predictions, references)
        about = {"skipped": 0, "split": split, "beam_size": None, "checkpoint": None, "predictions": str(options.predictions)}
    else:
        path, predictions, split = options.checkpoint or Path("checkpoints.pth"), predictions_path(options.output), options.split or "test"
        captioner = Captioner.load(path, pick_device(options.device))
        config = captioner.config
        every = references_of(read_captions(options.captions_file or config.data.captions_file, config.train.seed), split)
        image_dir = options.image_dir or Path(config.data.image_dir)
        beam_size = options.beam_size or config.generate.beam_size
        captions = caption_images(captioner, every, image_dir, options.feature_cache or config.data.feature_cache, beam_size)
        write_json(predictions, [{"image_id": name, "caption": caption} for name, caption in captions.items()])
        references = {name: every[name] for name in captions}
        skipped = len(every) - len(captions)
        about = {"skipped": skipped, "split": split, "beam_size": beam_size, "checkpoint": str(path), "predictions": str(predictions)}
    record = {**score(references, captions), "images": len(captions), **about}
    write_json(options.output, record)
    report(record)


if __name__ == "__main__":
    run_script(main)
