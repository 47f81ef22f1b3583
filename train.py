"""Learn to caption: captions.csv and images in, checkpoints and loss_log.txt out. This file only wires; engine.py does the work."""

import hashlib
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import torch
from torch.utils.data import DataLoader

from config import Config, StageConfig, build_parser, config_to_dict, read_config
from data.dataset import (
    EpochSampler,
    Flickr8kDataset,
    ImageLoader,
    collate,
    drop_bad_images,
    find_bad_images,
    read_captions,
    references_of,
)
from data.features import FeatureCache
from data.vocab import Vocabulary
from engine import Progress, build_optimizer, train_one_epoch, validate
from metrics import Scorer
from models.captioner import Captioner
from utils import UserError, atomic_open, load_checkpoint, pick_device, pick_precision, run_script, save_checkpoint, seed_everything

BEST, LAST, LOG, RESOLVED = "checkpoints.pth", "checkpoints_last.pth", "loss_log.txt", "resolved_config.yaml"
COLUMNS = ["stage", "epoch", "step", "train_loss", "val_loss", "val_bleu4", "val_cider", "distinct", "lr", "seconds", "images_per_second"]


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, noticed between two steps."""


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a flag, so that a step is never cut in two; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.wanted = False
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        print("\nstopping after this step (again: at once) ...", file=sys.stderr)


@dataclass
class StageData:
    """What one stage learns from and is judged by."""

    train: DataLoader[Any]
    sampler: EpochSampler
    val: DataLoader[Any]
    scorer: Scorer


def prepare_data(captioner: Captioner, table: pd.DataFrame, stage: StageConfig) -> StageData:
    """Pictures for a stage whose encoder learns, cached features for one whose encoder is frozen; bad images left out."""
    config = captioner.config
    image_dir = Path(config.data.image_dir)
    splits = {split: references_of(table, split) for split in ("train", "val")}
    paths = [image_dir / name for references in splits.values() for name in references]
    load: Any
    if stage.encoder_lr > 0:
        workers, bad, load = config.data.workers, find_bad_images(paths, config.data.workers), ImageLoader(image_dir, captioner.transform)
    else:
        cache = FeatureCache(config.data.feature_cache, captioner.eval().encode, captioner.encoder.fingerprint(), captioner.transform)
        workers, bad, load = 0, cache.build(paths), cache.loader(image_dir)
    good = {split: drop_bad_images(references, image_dir, bad) for split, references in splits.items()}
    train = Flickr8kDataset(good["train"], load, captioner.vocabulary)
    val = Flickr8kDataset(good["val"], load, captioner.vocabulary)
    sampler = EpochSampler(len(train), config.train.batch_size, config.train.seed)
    # a generator of its own: the loaders must not draw from the random numbers that dropout uses, or resuming would change them
    options: dict[str, Any] = {
        "collate_fn": collate,
        "num_workers": workers,
        "generator": torch.Generator(),
        "persistent_workers": workers > 0,
    }
    return StageData(
        DataLoader(train, batch_sampler=sampler, **options), sampler, DataLoader(val, batch_size=64, **options), Scorer(good["val"])
    )


class Run:
    """One training run: its model, where it stands, and the files it keeps in ``output_dir``."""

    def __init__(self, config: Config, table: pd.DataFrame, checkpoint: dict[str, Any] | None) -> None:
        self.config, self.table = config, table
        self.folder = Path(config.output_dir)
        self.device = pick_device(config.device)
        self.dtype = pick_precision(config.train.precision, self.device)
        self.saved_at = time.monotonic()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.optimizer: torch.optim.Optimizer
        self.training: dict[str, Any] | None = None  # of the checkpoint, until its stage is set up
        if checkpoint is None:
            seed_everything(config.train.seed)
            vocabulary = Vocabulary.build(table.loc[table["split"] == "train", "caption"], config.data.min_count)
            self.captioner = Captioner(config, vocabulary).to(self.device)
            self.progress = Progress()
        else:
            self.captioner = Captioner.from_checkpoint(checkpoint | {"config": config_to_dict(config)}).to(self.device)
            self.training = checkpoint["training"]
            self.progress = Progress(**self.training["progress"])

    def save_last(self) -> None:
        """checkpoints_last.pth: all that ``--resume`` needs to end where an uninterrupted run ends, to the bit."""
        training = {
            "progress": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "data": fingerprint(self.table),
        }
        save_checkpoint(self.folder / LAST, self.captioner.checkpoint() | {"training": training})
        self.saved_at = time.monotonic()

    def save_best(self) -> None:
        """checkpoints.pth: what captions; best validation CIDEr so far."""
        scores = {"val_cider": self.progress.best_cider, "epoch": self.progress.best_epoch}
        save_checkpoint(self.folder / BEST, self.captioner.checkpoint() | {"scores": scores})

    def learn(self, stop: StopRequest) -> None:
        """All stages that are left."""
        stages = self.config.train.stages
        while self.progress.stage < len(stages):
            stage = stages[self.progress.stage]
            self.optimizer = build_optimizer(self.captioner, stage, self.config.train.weight_decay)
            data = prepare_data(self.captioner, self.table, stage)
            if self.training is not None:  # after all that could draw a random number
                self.optimizer.load_state_dict(self.training["optimizer"])
                self.scaler.load_state_dict(self.training["scaler"])
                torch.set_rng_state(self.training["rng"])
                if self.training["cuda_rng"] and self.device.type == "cuda":
                    torch.cuda.set_rng_state_all(self.training["cuda_rng"])
                self.training = None
            while self.progress.epoch < stage.epochs and self.progress.epochs_without_better < stage.patience:
                self.epoch(stage, data, stop)
            if self.progress.epochs_without_better >= stage.patience:
                print(f"stage {stage.name}: no better validation CIDEr for {stage.patience} epochs, stopped early")
            self.progress = Progress(
                stage=self.progress.stage + 1,
                total_epochs=self.progress.total_epochs,
                total_steps=self.progress.total_steps,
                best_cider=self.progress.best_cider,
                best_epoch=self.progress.best_epoch,
            )
            self.save_last()

    def epoch(self, stage: StageConfig, data: StageData, stop: StopRequest) -> None:
        """Train for the rest of an epoch, validate, and write checkpoints and log."""
        progress = self.progress

        def after_step() -> None:
            if stop.wanted:
                self.save_last()
                raise Interrupted
            if time.monotonic() - self.saved_at > self.config.train.save_every:
                self.save_last()

        data.sampler.set_position(progress.total_epochs, progress.step)
        learnt = train_one_epoch(
            self.captioner, data.train, len(data.sampler), self.optimizer, self.scaler,
            stage, self.config.train, self.dtype, progress, after_step,
        )  # fmt: skip
        seen, captions = validate(self.captioner, data.val, data.scorer)

        progress.epoch += 1
        progress.total_epochs += 1
        progress.step = progress.token_count = progress.image_count = 0
        progress.loss_sum = progress.seconds = 0.0
        better = seen["val_cider"] > progress.best_cider
        if seen["val_cider"] > progress.stage_best_cider:
            progress.stage_best_cider, progress.epochs_without_better = seen["val_cider"], 0
        else:
            progress.epochs_without_better += 1
            if progress.epochs_without_better % 2 == 0:
                progress.lr_scale *= 0.5
        if better:
            progress.best_cider, progress.best_epoch = seen["val_cider"], progress.total_epochs
            self.save_best()
        # the log before the last checkpoint: a row too many is trimmed on resuming, a missing one could not be made up
        append_row(self.folder / LOG, {"stage": stage.name, "epoch": progress.total_epochs, "step": progress.total_steps, **learnt, **seen})
        self.save_last()
        report(progress, stage, learnt, seen, better)
        for name in list(captions)[:3]:
            print(f"    {name}: {captions[name]}")


def report(progress: Progress, stage: StageConfig, learnt: dict[str, float], seen: dict[str, float], better: bool) -> None:
    """Print one line for an epoch."""
    left = learnt["seconds"] * (stage.epochs - progress.epoch) / 60
    print(
        f"{stage.name} {progress.epoch}/{stage.epochs}  loss {learnt['train_loss']:.3f}  val {seen['val_loss']:.3f}  BLEU-4 {seen['val_bleu4']:.3f}  "
        f"CIDEr {seen['val_cider']:.3f}{' (best)' if better else ''}  distinct {seen['distinct']:.0%}  "
        f"{learnt['images_per_second']:.0f} img/s  {left:.0f} min left at most",
        flush=True,
    )


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a line to the log, with a header if it is the first."""
    new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        if new:
            file.write("\t".join(COLUMNS) + "\n")
        file.write("\t".join(f"{row[c]:.6g}" if isinstance(row[c], float) else str(row[c]) for c in COLUMNS) + "\n")


def trim_log(path: Path, epochs: int) -> None:
    """Drop rows (and a torn line) after the ``epochs`` that the checkpoint knows: they will be written again."""
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    kept = [line for line in lines[1:] if int(line.split("\t")[1]) <= epochs]
    with atomic_open(path) as file:
        file.writelines([*lines[:1], *kept])


def fingerprint(table: pd.DataFrame) -> str:
    """Hash of images, captions and splits: a run can only go on with the data it began with."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def find_resume(resume: str | None, folder: Path) -> dict[str, Any] | None:
    """The checkpoint to go on from: ``auto`` is the folder's last one if there is any, a path must exist."""
    if resume is None or (resume == "auto" and not (folder / LAST).exists()):
        if resume == "auto":
            print(f"--resume auto: no {LAST} in {folder}, starting afresh")
        return None
    path = folder / LAST if resume == "auto" else Path(resume)
    checkpoint = load_checkpoint(path)
    if "training" not in checkpoint:
        raise UserError(f"--resume {path}: this checkpoint can caption but not go on training; use {LAST} of its run")
    return checkpoint


def check_resume(checkpoint: dict[str, Any], config: Config, table: pd.DataFrame) -> None:
    """Refuse to go on with other data or another model; tell of other changes."""
    if checkpoint["training"]["data"] != fingerprint(table):
        raise UserError(f"--resume: {config.data.captions_file} has changed since the run began; start a new run in another --output_dir")
    old, new = (pd.json_normalize(values).iloc[0].to_dict() for values in (checkpoint["config"], config_to_dict(config)))
    changed = [key for key in new if json.dumps(old.get(key)) != json.dumps(new[key])]
    fixed = [
        key
        for key in changed
        if key.startswith(("decoder.", "encoder.")) or key in {"data.image_size", "data.min_count", "train.seed", "train.batch_size"}
    ]
    if fixed:
        raise UserError(f"--resume: {', '.join(fixed)} differ from the run's; leave them or start a new run in another --output_dir")
    if changed:
        print(f"resuming with changes: {', '.join(f'{key}={new[key]}' for key in changed)}")


def keep_previous(folder: Path) -> None:
    """Move the files of an earlier run out of a new one's way; nothing is ever deleted."""
    old = [folder / name for name in (BEST, LAST, LOG, RESOLVED) if (folder / name).exists()]
    if not any(path.name in {BEST, LAST} for path in old):
        return
    target = folder / "previous_runs" / datetime.now().strftime("%Y%m%d-%H%M%S")
    target.mkdir(parents=True)
    for path in old:
        path.rename(target / path.name)
    print(f"an earlier run's files were moved to {target} (go on with it: --resume {target / LAST})")


def main(argv: list[str]) -> None:
    """Wire a run from the command line."""
    parser = build_parser("train.py")
    parser.add_argument("--resume", type=str, help=f"'auto' goes on with {LAST} in output_dir if there is one; or the path of such a file")
    config, options = read_config(parser, argv)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    table = read_captions(config.data.captions_file, config.train.seed)
    checkpoint = find_resume(options.resume, folder)
    if checkpoint is None:
        keep_previous(folder)
    else:
        check_resume(checkpoint, config, table)
        trim_log(folder / LOG, checkpoint["training"]["progress"]["total_epochs"])
    with atomic_open(folder / RESOLVED) as file:
        file.write(parser.dump(options))
    run = Run(config, table, checkpoint)
    counts = table.groupby("split")["image"].nunique().to_dict()
    print(f"{counts} images, {len(run.captioner.vocabulary)} words, device {run.device}, {str(run.dtype).removeprefix('torch.')}")
    try:
        run.learn(StopRequest())
    except Interrupted:
        print(f"stopped at step {run.progress.total_steps}. Go on with the same command and --resume auto", file=sys.stderr)
        sys.exit(130)
    print(f"best: epoch {run.progress.best_epoch}, validation CIDEr {run.progress.best_cider:.3f}, in {folder / BEST}")


if __name__ == "__main__":
    run_script(main)
