"""What a checkpoint costs on this machine: images encoded and captioned a second, many at once and one by one.

python -m tools.benchmark --checkpoint a/checkpoints.pth b/checkpoints.pth --split val     compare only what one run printed
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from cli import OptionParser, UserError, run_script
from data.captions import SPLITS, read_captions, references_of
from data.images import drop_bad_images, load_image
from evaluation.systems import BATCH
from models.captioner import Captioner
from utils import peak_memory, pick_device

ALONE = 100  # images that are captioned one by one
REPEATS = 3


def seconds(work: Callable[[], object]) -> float:
    """The best time of some, after one that does not count: what else the machine does only adds to it."""
    times = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def caption_all(captioner: Captioner, features: torch.Tensor, batch: int, beam_size: int) -> None:
    """Caption images from their features (B, P, D), ``batch`` at once."""
    for first in range(0, len(features), batch):
        captioner.generate(features[first : first + batch], beam_size)


def measure(captioner: Captioner, pictures: torch.Tensor, features: torch.Tensor, beam_size: int) -> dict[str, float]:
    """What -> number. Pictures (B, 3, S, S) are encoded, features (B', P, D) captioned."""
    together = seconds(lambda: caption_all(captioner, features, BATCH, beam_size))
    alone = seconds(lambda: caption_all(captioner, features[:ALONE], 1, beam_size))
    encoding = seconds(
        lambda: captioner.encode(pictures, mirror=captioner.config.generate.mirror).cpu()
    )  # to the CPU: a GPU must have finished
    return {
        "million weights in the decoder": sum(weight.numel() for weight in captioner.decoder.parameters()) / 1e6,
        "images encoded a second": len(pictures) / encoding,
        f"images captioned a second, {BATCH} at once": len(features) / together,
        "images captioned a second, one by one": len(features[:ALONE]) / alone,
        f"seconds to caption {len(features)} images": together,
    }


def main(argv: list[str]) -> None:
    """Measure each checkpoint and print a line for each number."""
    parser = OptionParser(
        prog="python -m tools.benchmark",
        description="Time a checkpoint's encoder and decoder on the images of a split.",
    )
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", action="extend", help="one or several (default: checkpoints.pth)"
    )
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="which images of the captions file (default: %(default)s)"
    )
    parser.add_argument("--captions_file", help="another captions.csv than the checkpoint was trained with")
    parser.add_argument("--image_dir", type=Path, help="another folder of images than the checkpoint was trained with")
    parser.add_argument(
        "--feature_cache", help="another folder of cached features than the checkpoint was trained with"
    )
    parser.add_argument(
        "--beam_size", type=int, default=5, help="sentences kept open at each step (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.beam_size < 1:
        raise UserError(f"--beam_size {options.beam_size}: must be 1 or more")
    for path in options.checkpoint or [Path("checkpoints.pth")]:
        captioner = Captioner.load(path, pick_device(options.device))
        config = captioner.config
        references = references_of(
            read_captions(options.captions_file or config.data.captions_file, config.train.seed), options.split
        )
        image_dir = options.image_dir or Path(config.data.image_dir)
        cache = captioner.feature_cache(
            options.feature_cache or config.data.feature_cache, mirror=config.generate.mirror
        )
        good = drop_bad_images(references, image_dir, cache.build([image_dir / name for name in references]))
        features = torch.stack([cache[image_dir / name] for name in good])  # (B, P, D)
        pictures = torch.stack([captioner.transform(load_image(image_dir / name)) for name in list(good)[:BATCH]])
        print(
            f"{path}: decoder {config.decoder.name}, beam size {options.beam_size}, {captioner.device}, {torch.get_num_threads()} threads"
        )
        for what, number in measure(captioner, pictures, features, options.beam_size).items():
            print(f"  {number:9.1f} {what}")
    print(f"all of it{peak_memory()}")


if __name__ == "__main__":
    run_script(main)
