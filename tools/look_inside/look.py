"""All that is measured and drawn of one photograph, and the blocks of a document that quote it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cli import ROOT
from data.captions import read_captions
from files import atomic_open
from models.captioner import Captioner
from models.decoding import Hypothesis
from tools.look_inside import report
from tools.look_inside.measure import (
    Grid,
    Pixels,
    Step,
    attention_decoder,
    look_at_grid,
    look_at_pixels,
    read_caption,
    shapes,
)
from tools.look_inside.search import Node, search
from tools.look_inside.training import PHOTO, Losses, Sampled, losses, self_critical_step
from training.loss_log import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = ROOT / "docs/flickr8k_best_log.txt"  # of the run that the pretrained captioner comes from
SEED = 0  # of the samples of self-critical training
TREE_BEAMS = 3  # of the tree that is drawn; with more it would be too small to read


@dataclass(frozen=True)
class Look:
    """One photograph from pixels to caption, and what training would do with it."""

    captioner: Captioner
    photo: Image.Image
    pixels: Pixels
    grid: Grid
    steps: list[Step]  # of the best caption
    root: Node
    found: list[Hypothesis]
    greedy: Hypothesis
    tree: tuple[Node, list[Hypothesis]]  # with TREE_BEAMS
    reference: list[Step]  # of the first reference
    losses: Losses
    samples: list[Sampled]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Two cells to compare with the others: the one attended to most for any word, and the top left one."""
        best = max(self.steps[:-1], key=lambda step: float(step.attention.max())).attention
        row, column = divmod(int(best.argmax()), best.shape[1])
        return [(row, column), (0, 0)]


def look(captioner: Captioner, photo: Image.Image, references: Sequence[str]) -> Look:
    """Follow ``photo`` through ``captioner``, whose weights change in the last step.

    Args:
        references: captions by people.

    Raises:
        UserError: the decoder is not that of Show, Attend and Tell.
    """
    decoder, options = attention_decoder(captioner), captioner.config.generate
    settings = {
        "max_length": options.max_length,
        "length_penalty": options.length_penalty,
        "no_repeat_ngram": options.no_repeat_ngram,
    }
    pixels = look_at_pixels(captioner, photo)
    grid = look_at_grid(captioner, pixels)
    root, found = search(decoder, grid.features, options.beam_size, **settings)
    _, (greedy, *_) = search(decoder, grid.features, 1, **settings)
    others = read_captions(ROOT / "captions.csv", None).groupby("image")["caption"].agg(list).to_dict()
    return Look(
        captioner,
        photo,
        pixels,
        grid,
        read_caption(captioner, grid.features, found[0].tokens),
        root,
        found,
        greedy,
        search(decoder, grid.features, TREE_BEAMS, **settings),
        read_caption(captioner, grid.features, captioner.vocabulary.encode(references[0])[1:-1]),
        losses(captioner, grid.features, references),
        self_critical_step(captioner, grid.features, {PHOTO: references, **others}, SEED),
    )


def blocks(look: Look) -> dict[str, str]:
    """The numbers as text, by the name of their block."""
    seen = max(look.steps[:-1], key=lambda step: step.gate)  # the word that relies on the image most
    return {
        "pixels": report.pixels_block(look.captioner, look.pixels),
        "grid": report.grid_block(look.grid, look.cells),
        "shapes": report.shapes_block(shapes(look.captioner, look.grid.features, look.found[0].tokens)),
        "words": report.words_block(look.steps),
        "heads": report.heads_block(seen),
        "beams": report.beams_block(look.captioner, look.root, look.found, look.greedy),
        "loss": report.loss_block(look.losses, look.reference),
        "samples": report.samples_block(look.samples),
        "log": report.log_block(read_log(LOG)),
    }


def figures(look: Look) -> "dict[str, Figure]":
    """The figures, by the names of their files."""
    from tools.look_inside import figures  # matplotlib takes a second to import

    return {
        "how_grid.jpg": figures.draw_grid(look.photo, look.grid, look.cells),
        "how_attention.jpg": figures.draw_attention(look.photo, look.steps[:-1]),
        "how_beams.png": figures.draw_tree(look.captioner, *look.tree),
        "how_losses.png": figures.draw_losses(look.reference, look.samples),
    }


BLOCK = re.compile(r"<!-- look_inside: (\w+) -->\n```text\n(.*?)^```", re.DOTALL | re.MULTILINE)


def quoted(document: str) -> dict[str, str]:
    """The blocks that a document has, by name: code blocks after a comment ``<!-- look_inside: NAME -->``."""
    return {name: text.rstrip("\n") for name, text in BLOCK.findall(document)}


def with_blocks(document: str, new: dict[str, str]) -> str:
    """The document with the text of its blocks replaced."""
    return BLOCK.sub(lambda found: f"<!-- look_inside: {found[1]} -->\n```text\n{new[found[1]]}\n```", document)


def update(path: Path, new: dict[str, str]) -> None:
    """Rewrite the blocks of a document."""
    text = with_blocks(path.read_text("utf-8"), new)
    with atomic_open(path) as file:
        file.write(text)
