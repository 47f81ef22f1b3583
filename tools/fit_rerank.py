"""Add to a checkpoint what it needs to choose among the captions of a beam: see models/rerank.py.

python -m tools.fit_rerank runs/flickr8k_best captioner.pth
python -m tools.fit_rerank pretrained/flickr8k.pth captioner.pth --captions_file captions.csv --image_dir images

The images and captions are those of the training split. A file of 34 MB grows by 6 MB. Sequences of up to four words
that the captions of two images share can be read back from it: think before you publish one of private captions.
"""

import sys
from argparse import Namespace
from pathlib import Path

if not __package__:  # started as `python tools/fit_rerank.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, run_script, say
from evaluation.options import add_cache_option, add_split_options, cache_folder, checkpoint_file


def read_options(argv: list[str]) -> Namespace:
    """Parse the command line.

    Raises:
        UserError: invalid options, or an output that is the source.
    """
    parser = OptionParser("python -m tools.fit_rerank", __doc__)
    parser.add_argument("source", type=checkpoint_file, help="a checkpoint, or the folder of a run")
    parser.add_argument("output", type=Path, help="the checkpoint to write, ending in .pth")
    add_split_options(parser)
    add_cache_option(parser)
    options = parser.parse_args(argv)
    if options.split is None:
        options.split = "train"
    if options.output.suffix != ".pth":
        raise UserError(f"{options.output}: not a .pth file. Name another output file")
    if options.output.resolve() == options.source.resolve():
        raise UserError(f"{options.output}: would overwrite the source. Name another output file")
    return options


def main(argv: list[str]) -> None:
    """Compute the features of the training images, fit, and write the new checkpoint."""
    options = read_options(argv)
    import torch  # takes a second to import
    from tqdm import tqdm

    from evaluation.split import open_split, usable_images
    from models.captioner import Captioner
    from models.checkpoint import dequantize, load_checkpoint, save_checkpoint
    from models.rerank import Reranker, pool

    checkpoint = load_checkpoint(options.source, keep_quantized=True)
    if "training" in checkpoint:
        raise UserError(f"{options.source}: for resuming training. Name the checkpoints.pth of a run")
    captioner = Captioner.from_checkpoint(dequantize(checkpoint), options.source).eval()
    split = open_split(captioner.config, options)
    cache = captioner.feature_cache(
        cache_folder(options.feature_cache, captioner.config.data.feature_cache), mirror=False
    )
    references = usable_images(split.references(options.limit), split.image_dir, [cache])
    images = tqdm(references, desc="pooling features", unit="img", leave=False, disable=None)
    pooled = torch.cat([pool(cache[split.image_dir / name].float()[None]) for name in images])
    reranker = Reranker.fit(pooled, list(references.values()), captioner.vocabulary)
    save_checkpoint(options.output, {**checkpoint, "rerank": reranker.state()})
    before, after = (path.stat().st_size / 1e6 for path in (options.source, options.output))
    say(f"wrote {options.output}: {after:.1f} MB, was {before:.1f} MB; it reranks {reranker.beams} hypotheses")


if __name__ == "__main__":
    run_script(main)
