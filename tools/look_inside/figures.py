"""The figures: the grid over the photograph, attention word by word, the tree of beam search, the losses."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from files import atomic_open
from gallery.heatmap import COLD, HOT, overlay
from models.captioner import Captioner
from models.decoding import Hypothesis
from tools.look_inside.measure import Grid, Step
from tools.look_inside.search import Node, levels
from tools.look_inside.training import Sampled
from training.plot_style import BLUE, GRID, MUTED, ORANGE, PLOT_STYLE, SKY, TEXT, VERMILLION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 9.0  # inches; at 150 dpi 1,350 pixels, sharp at the 900 px that a README shows
DPI = 150
PANEL_COLUMNS = 6  # maps of attention in a row
SIDE = 320  # pixels of a panel, at least twice what is shown
CLEAR: Any = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # behind a text, so that no line runs through it
SHOWN_TOKENS = 14  # columns of the tree: more would be unreadable


def new_figure(height: float) -> Figure:
    """An empty figure as wide as a page, in the style of the loss curve."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def draw_grid(photo: Image.Image, grid: Grid, cells: Sequence[tuple[int, int]]) -> Figure:
    """The photograph as the encoder reads it, with its grid, and where its features resemble those of ``cells``.

    Args:
        cells: (row, column) each.
    """
    with matplotlib.rc_context(PLOT_STYLE):
        figure = new_figure(3.3)
        square = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        axes = figure.subplots(1, 1 + len(cells))
        rows, columns = grid.cells.shape[:2]
        show(axes[0], square, f"what the encoder reads, and its {rows} x {columns} cells")
        draw_lines(axes[0], rows, columns)
        for panel, (row, column) in zip(axes[1:], cells, strict=True):
            likeness = grid.similarity(row, column).clamp(min=0)
            show(panel, overlay(square, likeness), f"cosine with the cell in row {row + 1}, column {column + 1}")
            side = SIDE / rows
            box = matplotlib.patches.Rectangle(
                (column * side, row * side), side, side, fill=False, edgecolor="white", linewidth=2
            )
            panel.add_patch(box)
            for (r, c), value in np.ndenumerate(likeness.numpy()):
                panel.text(
                    (c + 0.5) * side,
                    (r + 0.5) * side,
                    f"{value:.1f}".lstrip("0"),
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=6.5,
                )
        return figure


def draw_lines(axes: "Axes", rows: int, columns: int) -> None:
    """The borders of the grid's cells over an image."""
    for number in range(1, rows):
        axes.axhline(number * SIDE / rows, color="white", linewidth=0.8)
    for number in range(1, columns):
        axes.axvline(number * SIDE / columns, color="white", linewidth=0.8)


def draw_attention(photo: Image.Image, steps: Sequence[Step]) -> Figure:
    """The photograph, then for each word of its caption what the decoder attends to, and the word's probability."""
    with matplotlib.rc_context(PLOT_STYLE):
        panels = 1 + len(steps)
        rows = -(-panels // PANEL_COLUMNS)
        columns = -(-panels // rows)
        figure = new_figure(rows * (WIDTH / columns * photo.height / photo.width + 0.32))
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        small = photo.resize((SIDE, round(SIDE * photo.height / photo.width)), Image.Resampling.LANCZOS)
        show(axes[0], small, "the photograph")
        for panel, step in zip(axes[1:], steps, strict=False):
            show(panel, overlay(small, step.attention), "")
            panel.set_title(step.word, fontsize=11, color=TEXT, loc="left")
            panel.set_title(f"{step.probability:.0%}", fontsize=9, color=MUTED, loc="right", weight="normal")
        for panel in axes[panels:]:
            panel.set_axis_off()
        if len(axes) > panels:
            draw_scale(axes[-1])
        return figure


def draw_scale(axes: "Axes") -> None:
    """What the colours of an attention map mean."""
    shades = np.linspace(0, 1, 64)[None, :, None]
    colours = np.array(COLD) + shades * (np.array(HOT) - np.array(COLD))
    axes.imshow(colours / 255, extent=(0.1, 0.9, 0.5, 0.56), aspect="auto")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0.1, 0.6, "attention", fontsize=9, color=MUTED)
    axes.text(0.1, 0.4, "none", fontsize=8, color=MUTED)
    axes.text(0.9, 0.4, "most", fontsize=8, color=MUTED, ha="right")


def show(axes: "Axes", image: Image.Image, title: str) -> None:
    """An image without ticks and frame."""
    axes.imshow(np.asarray(image))
    axes.set_title(title, fontsize=9, weight="normal", color=MUTED)
    axes.set_axis_off()


def draw_tree(captioner: Captioner, root: Node, found: Sequence[Hypothesis]) -> Figure:
    """All that beam search kept open: a column per step, the best on top; the best caption is drawn in blue."""
    columns, words = levels(root)[: SHOWN_TOKENS + 1], captioner.vocabulary.words
    best, scores = found[0].tokens, {tuple(hypothesis.tokens): hypothesis.score for hypothesis in found}
    with matplotlib.rc_context({**PLOT_STYLE, "axes.grid": False}):
        rows = max(len(level) for level in columns)
        figure = new_figure(0.62 * rows + 0.7)
        axes = figure.subplots()
        axes.set_axis_off()
        place = {id(node): (x, -y) for x, level in enumerate(columns) for y, node in enumerate(level)}
        for step, level in enumerate(columns):
            axes.text(step, 0.52, f"step {step}" if step else "", ha="center", fontsize=7, color=MUTED)
            for node in level:
                on_best = node.tokens == best[: node.depth]
                if node.parent is not None:
                    draw_edge(axes, place[id(node.parent)], place[id(node)], strong=on_best)
                score = scores.get(tuple(node.tokens))
                goes_on = bool(node.children) or score is not None
                draw_word(axes, place[id(node)], words[node.token], node.log_prob, score, on_best, goes_on)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(-rows + 0.35, 0.65)
        return figure


def draw_edge(axes: "Axes", start: tuple[int, int], end: tuple[int, int], *, strong: bool) -> None:
    """From a word to one that follows it."""
    colour = BLUE if strong else "#c4c8ce"
    axes.plot([start[0], end[0]], [start[1], end[1]], color=colour, linewidth=2.2 if strong else 0.9, zorder=1)


def draw_word(
    axes: "Axes", at: tuple[int, int], word: str, log_prob: float, score: float | None, strong: bool, goes_on: bool
) -> None:
    """A word, its caption's log-probability, and the score if the caption ended there; pale if it was dropped."""
    x, y = at
    colour = BLUE if strong else TEXT if goes_on else "#9aa0a6"
    box = {"facecolor": "white", "edgecolor": BLUE if strong else GRID, "boxstyle": "round,pad=0.25"}
    weight = "bold" if strong else "normal"
    axes.text(x, y, word, ha="center", va="center", fontsize=8, color=colour, bbox=box, zorder=3, weight=weight)
    below: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "zorder": 3, "bbox": CLEAR}
    axes.text(x, y - 0.28, f"{log_prob:.2f}", color=MUTED, **below)
    if score is not None:
        axes.text(x, y - 0.45, f"ends: {score:.2f}", color=BLUE if strong else ORANGE, weight="bold", **below)


def draw_losses(steps: Sequence[Step], samples: Sequence[Sampled]) -> Figure:
    """Left: the cross-entropy of each token of a reference. Right: how a self-critical step moved each sample."""
    with matplotlib.rc_context(PLOT_STYLE):
        figure = new_figure(3.6)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
        costs = [-math.log(step.probability) for step in steps]
        mean = sum(costs) / len(costs)
        left.bar(range(len(steps)), costs, color=SKY)
        left.axhline(mean, color=VERMILLION, linewidth=1.5)
        left.text(len(steps) - 0.5, mean + 0.08, f"mean {mean:.2f}", color=VERMILLION, ha="right", bbox=CLEAR)
        left.set_xticks(range(len(steps)), [step.word for step in steps], rotation=45, ha="right", fontsize=8)
        left.set_title("Cross-entropy of each token")
        left.grid(axis="x", visible=False)
        moved = [sample.after - sample.before for sample in samples]
        colours = [BLUE if sample.advantage > 0 else VERMILLION for sample in samples]
        right.barh(range(len(samples)), moved, color=colours, height=0.4)
        right.axvline(0, color=MUTED, linewidth=1)
        right.set_yticks([])
        right.set_title("Self-critical step: change of ln p of each sample")
        for y, sample in enumerate(samples):
            right.text(
                0.01,
                y - 0.28,
                f"{sample.caption} ({100 * sample.advantage:+.0f})",
                transform=right.get_yaxis_transform(),
                fontsize=8,
                va="bottom",
            )
        right.set_ylim(len(samples) - 0.6, -0.75)
        right.grid(axis="y", visible=False)
        return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically, as the suffix says: a JPEG where it shows photographs, else a PNG."""
    compression = {"quality": 88, "subsampling": 0} if path.suffix == ".jpg" else {"optimize": True}
    with atomic_open(path, "wb") as file:
        figure.savefig(file, format=path.suffix[1:], pil_kwargs=compression)
