"""Export a captioner to ONNX: onnx_caption.py and serve.py need no torch. Needs requirements-export.txt.

python -m tools.export_onnx pretrained/flickr8k.pth                  # into onnx_captioner/
python -m tools.export_onnx runs/flickr8k_attention attention_onnx   # a run of your own, into another folder
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # started as `python tools/export_onnx` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from cli import OptionParser, UserError, note, run_script, say
from deploy.options import DEFAULT_FOLDER, FILE, FORMAT_VERSION
from evaluation.options import checkpoint_file
from files import atomic_open, write_json

if TYPE_CHECKING:  # torch takes seconds to import
    from data.vocab import Vocabulary
    from models.captioner import Captioner
    from tools.export_onnx.layout import Layout

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OLDEST_TORCH = (2, 9)  # the first whose exporter reads what torch.export traces unless told otherwise
TOLERANCE = 1e-3  # of a log-probability, between torch and ONNX Runtime
TESTED = 2  # images of noise whose captions are compared


def blanks(vocabulary: Vocabulary) -> dict[str, Any]:
    """Which tokens are written together: ``Tokenizer.join`` as tables, so that it needs neither nltk nor regex."""
    from data.tokenizer import SPLIT_OFF

    join, words, other = vocabulary.tokenizer.join, vocabulary.words, "dog"  # any word
    pairs = [(one, two) for two in words if two in SPLIT_OFF for one in words]
    return {
        "not_before": [word for word in words if " " not in join([other, word])],
        "not_after": [word for word in words if " " not in join([word, other])],
        "not_between": [[one, two] for one, two in pairs if " " not in join([one, two])],
    }


def description(captioner: Captioner, layout: Layout) -> dict[str, Any]:
    """The content of captioner.json; see ``deploy.description``."""
    from config import config_to_dict
    from data.vocab import END_ID, START_ID
    from models.decoding import NEVER

    return {
        "format_version": FORMAT_VERSION,
        "generate": config_to_dict(captioner.config)["generate"],
        "transform": captioner.transform.to_dict(),
        "words": captioner.vocabulary.state(),
        "special": {"start": START_ID, "end": END_ID, "never": NEVER},
        "blanks": blanks(captioner.vocabulary),
        "grid": list(captioner.encoder.grid),
        "attends": captioner.decoder.attends,
        "state": layout.state,
        "memory": layout.memory,
        "learned_from": captioner.learned_from,
    }


def export(captioner: Captioner, folder: Path) -> None:
    """Write the graphs and captioner.json.

    An earlier export in the folder is replaced when all graphs are made. If the program is killed while it writes, the
    folder has no captioner.json, and what is left is not used.
    """
    from tools.export_onnx.graphs import decoder_graphs, encoder_graph

    start, step, layout = decoder_graphs(captioner)
    graphs = {"encoder.onnx": encoder_graph(captioner), "start.onnx": start, "step.onnx": step}
    (folder / FILE).unlink(missing_ok=True)
    for name, content in graphs.items():
        with atomic_open(folder / name, "wb") as file:
            file.write(content)
    write_json(folder / FILE, description(captioner, layout))


def compare(captioner: Captioner, folder: Path) -> float:
    """The largest difference between the log-probabilities that torch and ONNX Runtime give to the same captions.

    Raises:
        UserError: it is larger than rounding explains.
    """
    import numpy as np
    from PIL import Image

    from deploy.captioner import OnnxCaptioner

    noise = np.random.default_rng(0).integers(0, 256, (TESTED, 64, 64, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    wanted, found = captioner.caption(images), OnnxCaptioner(folder).caption(images)
    if list(map(len, wanted)) == list(map(len, found)):
        pairs = zip(wanted, found, strict=True)
        largest = max(abs(one.log_prob - two.log_prob) for both in pairs for one, two in zip(*both, strict=True))
    else:
        largest = float("inf")
    if not largest <= TOLERANCE:
        (folder / FILE).unlink()
        raise UserError(
            f"{folder}: ONNX Runtime's log-probabilities differ from torch's by {largest:.2g}, so the export is not "
            "usable. Install the versions in constraints.txt: pip install -r requirements-export.txt -c constraints.txt"
        )
    return largest


def main(argv: list[str]) -> None:
    """Export one checkpoint."""
    parser = OptionParser("python -m tools.export_onnx", __doc__)
    parser.add_argument("checkpoint", type=checkpoint_file, help="a checkpoint, or the folder of its run")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=DEFAULT_FOLDER, help="for the graphs (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    if options.folder.exists() and not options.folder.is_dir():
        raise UserError(f"{options.folder}: is a file. Name a folder; it need not exist")
    for name in NEEDED:
        import_module(name)
    import torch

    from models.captioner import Captioner
    from models.checkpoint import load_checkpoint

    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise UserError(f"the export needs torch {oldest} or newer, and this is {torch.__version__}. Update torch")
    content = load_checkpoint(options.checkpoint)
    captioner = Captioner.from_checkpoint(content, options.checkpoint, "fp32").eval()
    if captioner.reranker is not None:
        note("the export does not rerank: it takes the most probable caption of a beam, as --rerank off does")
    captioner.use_reranker("off")
    export(captioner, options.folder)
    largest = compare(captioner, options.folder)
    size = sum(path.stat().st_size for path in options.folder.glob("*.onnx")) / 1e6
    say(f"wrote {options.folder}: {size:.0f} MB; log-probabilities differ from torch's by at most {largest:.1g}")


if __name__ == "__main__":
    run_script(main)
