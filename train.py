"""Train a captioner: captions.csv and images in, checkpoints and loss_log.txt out. The loop: training/engine.py."""

import os
from pathlib import Path

from cli import UserError, run_script
from config import build_parser, read_config
from training.run import run_training
from training.run_folder import LAST, claim


def main(argv: list[str]) -> None:
    """Read the options and train in an output folder that no other run uses."""
    parser = build_parser("train.py")
    parser.add_argument(
        "--resume",
        type=str,
        help=f"auto: continue from {LAST} in output_dir if it exists, else start a new run; or the path of such a file",
    )
    config, options = read_config(parser, argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("train.py trains on one device, in one process: start it with python instead of torchrun")
    with claim(Path(config.output_dir)):
        run_training(config, options.resume)


if __name__ == "__main__":
    run_script(main)
