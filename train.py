"""Learn to caption: captions.csv and images in, checkpoints and loss_log.txt out. This file only wires; engine.py does the work."""

from pathlib import Path

from cli import run_script
from config import build_parser, read_config
from training.run import run_stages
from training.run_folder import LAST, claim


def main(argv: list[str]) -> None:
    """Wire a run from the command line."""
    parser = build_parser("train.py")
    parser.add_argument(
        "--resume",
        type=str,
        help=f"'auto' goes on with {LAST} in output_dir if there is one; or the path of such a file",
    )
    config, options = read_config(parser, argv)
    with claim(Path(config.output_dir)):
        run_stages(config, options.resume)


if __name__ == "__main__":
    run_script(main)
