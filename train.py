"""TRAIN: captions and images in, a captioner out: checkpoints.pth, its loss_log.txt and resolved_config.yaml.

python train.py                                                               # config.yaml: the bundled drawings
python train.py --config configs/flickr8k_lstm.yaml             # a recipe; first: python -m data.prepare flickr8k
python train.py --captions_file my.csv --image_dir photos --output_dir runs/a                   # your own images
python train.py --decoder.name attention --train.stages.epochs 5 --output_dir runs/b    # options change the YAML
python train.py --config runs/b/resolved_config.yaml --resume                                 # continue that run
python train.py --init_from pretrained/flickr8k.pth --captions_file my.csv --image_dir photos           # finetune
torchrun --standalone --nproc_per_node gpu train.py --config configs/flickr8k_best.yaml            # on all GPUs here
"""

from importlib.util import find_spec
from pathlib import Path

from cli import UserError, run_script
from training.options import build_parser, read_config

LOGGERS = ("tensorboard", "wandb", "trackio")


def main(argv: list[str]) -> None:
    """Read the options and train in an output folder that no other run uses."""
    parser = build_parser("train.py", __doc__)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="FILE",
        help="auto, or no FILE: continue from checkpoints_last.pth in output_dir if it exists, else start a new run; "
        "or the path of such a file, or of its folder",
    )
    parser.add_argument(
        "--log_to",
        choices=LOGGERS,
        help="also send the numbers of loss_log.txt there, after each epoch (tensorboard: to the folder curves/ in "
        "output_dir)",
    )
    config, options = read_config(parser, argv)
    if options.log_to and find_spec(options.log_to) is None:
        needed = "-r requirements-loggers.txt" if options.log_to == "tensorboard" else options.log_to
        raise UserError(f"--log_to {options.log_to}: it is not installed. Install it: pip install {needed}")
    from distributed import joined  # torch takes seconds to import
    from training.run import run_training
    from training.run_folder import claim

    with joined() as processes, claim(Path(config.output_dir), processes):
        run_training(config, options.resume, argv, processes, options.log_to)


if __name__ == "__main__":
    run_script(main)
