"""What a checkpoint costs on this machine: images encoded and captioned a second, from cached features, together and one by one.

python benchmark.py --checkpoint a/checkpoints.pth b/checkpoints.pth --split val     compare only what one run printed
"""

import time
from pathlib import Path

import torch

from data.dataset import SPLITS, read_captions, references_of
from data.transforms import load_image
from models.captioner import Captioner
from systems import BATCH
from utils import OptionParser, peak_memory, pick_device, run_script

ENCODED = 64  # images that are encoded to time the encoder
ALONE = 100  # images that are captioned one by one


def caption_seconds(captioner: Captioner, features: torch.Tensor, batch: int, beam_size: int) -> float:
    """Time to caption images from their features (B, P, D), ``batch`` at once."""
    began = time.perf_counter()
    for first in range(0, len(features), batch):
        captioner.caption_features(features[first : first + batch], beam_size)
    return time.perf_counter() - began


def measure(captioner: Captioner, paths: list[Path], feature_cache: str, beam_size: int) -> dict[str, float]:
    """The numbers of one checkpoint; features that are not cached yet are computed first, outside all times."""
    cache = captioner.feature_cache(feature_cache)
    bad = cache.build(paths)
    features = torch.stack([cache[path] for path in paths if path not in bad])  # (B, P, D)
    pictures = torch.stack([captioner.transform(load_image(path)) for path in paths[:ENCODED] if path not in bad])
    captioner.encode(pictures[:2])  # the first call chooses its kernels
    began = time.perf_counter()
    captioner.encode(pictures)
    encoding = time.perf_counter() - began
    caption_seconds(captioner, features[:BATCH], BATCH, beam_size)
    together = caption_seconds(captioner, features, BATCH, beam_size)
    alone = caption_seconds(captioner, features[:ALONE], 1, beam_size)
    return {
        "decoder parameters, millions": sum(weight.numel() for weight in captioner.decoder.parameters()) / 1e6,
        "images encoded a second": len(pictures) / encoding,
        f"images captioned a second, {BATCH} at once": len(features) / together,
        "images captioned a second, one by one": len(features[:ALONE]) / alone,
        f"seconds to caption {len(features)} images": together,
    }


def main(argv: list[str]) -> None:
    """Measure each checkpoint and print a line for each number."""
    parser = OptionParser(prog="benchmark.py", description="Time a checkpoint's encoder and decoder on the images of a split.")
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[Path("checkpoints.pth")], help="one or several (default: checkpoints.pth)"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="which images of the captions file (default: %(default)s)")
    parser.add_argument("--beam_size", type=int, default=5, help="sentences kept open at each step (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    options = parser.parse_args(argv)
    for path in options.checkpoint:
        captioner = Captioner.load(path, pick_device(options.device))
        data = captioner.config.data
        names = references_of(read_captions(data.captions_file, captioner.config.train.seed), options.split)
        print(f"{path}: decoder {captioner.config.decoder.name}, beam {options.beam_size}, device {captioner.device}")
        for what, value in measure(
            captioner, [Path(data.image_dir) / name for name in names], data.feature_cache, options.beam_size
        ).items():
            print(f"  {value:8.1f} {what}")
    print(f"{peak_memory():.1f} GB of memory at most, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    run_script(main)
