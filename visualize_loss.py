"""PLOT: draw loss_curve.png from one or several loss_log.txt.

python visualize_loss.py                                                     # loss_log.txt in this folder
python visualize_loss.py --log runs/a                                        # that of a run
python visualize_loss.py --log runs/lstm runs/attention --output compare.svg # compare runs

Losses and scores have different ranges: CIDEr reaches 100 and more, BLEU-4 stays below, a loss starts near ln(V). Each
has its own panel over the same epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import OptionParser, UserError, in_run_folder, run_script, say
from files import atomic_open
from training.loss_log import LossLog, read_log
from training.plot_style import BLACK, BLUE, GREEN, MUTED, ORANGE, PLOT_STYLE, PURPLE, SKY, VERMILLION

if TYPE_CHECKING:  # matplotlib takes a second to import: only the functions that draw do, so that --help is fast
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_LOG = Path("loss_log.txt")
# Compared logs differ in colour and marker: the markers survive printing in grey.
LOG_STYLES = list(zip([BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK], "osD^vPX", strict=True))
BAND = "#f1f3f5"
# The curves of a single log. Training is pale and dashed, so that validation stands out.
CURVE_COLOURS = {"train_loss": SKY, "val_loss": BLUE, "val_cider": VERMILLION, "val_bleu4": GREEN, "reward": ORANGE}
TRAINING_DASH: Any = (0, (3, 1.2))
TRAINING_CURVES = ("train_loss", "reward")
SCORES = ("val_cider", "val_bleu4", "reward")
MAX_STAGES = 40  # with more, their bands would be a blur
MAX_MARKERS = 40  # with more epochs the markers would merge into a thick line
METADATA = {"svg": {"Date": None, "Title": "Loss and validation scores"}, "pdf": {"CreationDate": None}}


@dataclass(frozen=True)
class Best:
    """The epoch with the highest validation CIDEr, or with the lowest validation loss if no CIDEr was logged."""

    epoch: int
    score: str

    def __str__(self) -> str:
        return f"best epoch {self.epoch}: {self.score}"


def best_epoch(log: LossLog) -> Best | None:
    """The best epoch of a log; None if it has neither CIDEr nor validation loss."""
    for column, sign, text in [("val_cider", 1, "CIDEr {:.1f}"), ("val_loss", -1, "validation loss {:.3f}")]:
        epochs, values = known_values(log, column)
        if values:
            epoch, value = max(zip(epochs, values, strict=True), key=lambda pair: sign * pair[1])
            return Best(epoch, text.format(value))
    return None


def known_values(log: LossLog, column: str) -> tuple[list[int], list[float]]:
    """The epochs that have a number in ``column``, and these numbers; scores, which the log has as fractions, x 100."""
    known = [
        (epoch, value) for epoch, value in zip(log.epochs, log.numbers(column), strict=True) if not math.isnan(value)
    ]
    return [epoch for epoch, _ in known], [100 * value if column in SCORES else value for _, value in known]


def stage_spans(log: LossLog) -> list[tuple[str, float, float]]:
    """(name, first epoch - 1/2, last epoch + 1/2) of each stage."""
    spans = []
    for name, rows in groupby(zip(stage_names(log), log.epochs, strict=True), key=lambda row: row[0]):
        epochs = [epoch for _, epoch in rows]
        spans.append((name, epochs[0] - 0.5, epochs[-1] + 0.5))
    return spans


def stage_names(log: LossLog) -> list[str]:
    """The stage of each epoch, as it can be drawn."""
    return [drawable(name) for name in log.text("stage")]


def drawable(text: str) -> str:
    """``text`` with spaces for what no font draws and an SVG file, which is XML, may not contain."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def log_names(paths: list[Path]) -> list[str]:
    """Name each log by what distinguishes it from the others: its folder, else its file name, else its whole path."""
    for names in ([path.resolve().parent.name for path in paths], [path.stem for path in paths]):
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]


def draw_curves(logs: dict[str, LossLog]) -> Figure:
    """Draw the losses (left) and the validation scores (right) of one log, or of several on the same axes.

    Args:
        logs: name -> log; each has at least one row.

    Raises:
        UserError: more logs than there are colours to tell apart.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if len(logs) > len(LOG_STYLES):
        raise UserError(f"--log: {len(logs)} logs are too many for one plot. Compare at most {len(LOG_STYLES)}")
    with matplotlib.rc_context(PLOT_STYLE):
        rows_of_legend = (len(logs) + 1) // 2 if len(logs) > 1 else 0
        # Inches at 200 dpi: 1,800 pixels wide, sharp at the 900 px a README shows.
        size = (9, 4 + 0.22 * rows_of_legend)
        figure = Figure(figsize=size, dpi=200, layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.12))
        FigureCanvasAgg(figure)
        panels = figure.subplot_mosaic(
            [["loss", "val_cider"], ["loss", "val_bleu4"]], width_ratios=[1.5, 1], sharex=True
        )
        _label_panels(panels, logs)
        _shade_stages(panels, logs)
        if len(logs) == 1:
            _draw_single_log(panels, *logs.values())
        else:
            _draw_several_logs(panels, logs)
            handles = panels["val_cider"].get_legend_handles_labels()
            figure.legend(*handles, loc="outside lower left", ncols=2, fontsize=9.5)
        return figure


def _label_panels(panels: dict[str, Axes], logs: dict[str, LossLog]) -> None:
    """Titles, ticks, the range of epochs and the legend of training and validation."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    rewarded = any(known_values(log, "reward")[1] for log in logs.values())
    cider = "CIDEr (dashed: training reward)" if rewarded else "Validation CIDEr"
    for name, title in [("loss", "Loss"), ("val_cider", cider), ("val_bleu4", "Validation BLEU-4")]:
        panels[name].set_title(title)
        panels[name].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10], min_n_ticks=1))
        panels[name].grid(axis="x", visible=False)
        panels[name].margins(y=0.12)  # room for the names of the stages and the stars
    panels["loss"].set_xlabel("epoch")
    panels["val_bleu4"].set_xlabel("epoch")
    panels["val_cider"].tick_params(labelbottom=False)
    panels["loss"].set_xlim(
        min(log.epochs[0] for log in logs.values()) - 0.5, max(log.epochs[-1] for log in logs.values()) + 0.5
    )
    lines = [
        Line2D([], [], color=CURVE_COLOURS[column] if len(logs) == 1 else MUTED, linestyle=_line_style(column))
        for column in ("train_loss", "val_loss")
    ]
    panels["loss"].legend(
        lines, ["training", "validation"], loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=2, borderpad=0
    )


def _draw_single_log(panels: dict[str, Axes], log: LossLog) -> None:
    """Each curve in its own colour, and a dotted line through all panels at the best epoch."""
    _draw_log(panels, log, CURVE_COLOURS, "o")
    best = best_epoch(log)
    if best:
        # Scores rise, so the corner below them is empty; the white background keeps the dotted line out of the text.
        background = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes = panels["val_cider"]
        axes.text(0.99, 0.08, f"★ {best}", transform=axes.transAxes, ha="right", bbox=background)
        for axes in panels.values():
            axes.axvline(best.epoch, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)


def _draw_several_logs(panels: dict[str, Axes], logs: dict[str, LossLog]) -> None:
    """All curves of a log in its colour, named in the legend together with its best epoch."""
    for (name, log), (colour, marker) in zip(logs.items(), LOG_STYLES, strict=False):
        _draw_log(panels, log, dict.fromkeys(CURVE_COLOURS, colour), marker)
        best = best_epoch(log)
        label = drawable(name if len(name) <= 24 else "…" + name[-23:]) + (f"   ★ {best}" if best else "")
        # matplotlib leaves labels that start with "_" out of the legend: start with a space
        panels["val_cider"].plot([], [], color=colour, marker=marker, markeredgecolor="white", label=f" {label}")


def _draw_log(panels: dict[str, Axes], log: LossLog, colours: dict[str, str], marker: str) -> None:
    """Draw the curves of a log, and a star at its best epoch."""
    best = best_epoch(log)
    for column, colour in colours.items():
        axes = panels["val_cider" if column == "reward" else column if column in panels else "loss"]
        epochs, values = known_values(log, column)  # a gap, such as validation every second epoch, is bridged
        # Markers blur dashes, but a single point needs one.
        marked = len(values) == 1 or (len(values) <= MAX_MARKERS and column not in TRAINING_CURVES)
        axes.plot(
            epochs,
            values,
            linestyle=_line_style(column),
            color=colour,
            marker=marker if marked else "",
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
        if best and best.epoch in epochs and column not in TRAINING_CURVES:
            at_best = values[epochs.index(best.epoch)]
            axes.plot([best.epoch], [at_best], "*", color=colour, markersize=13, markeredgecolor="white", zorder=5)


def _line_style(column: str) -> Any:
    return TRAINING_DASH if column in TRAINING_CURVES else "-"


def _shade_stages(panels: dict[str, Axes], logs: dict[str, LossLog]) -> None:
    """Shade every second stage and name the stages in the loss panel, unless the logs differ or have too many."""
    longest = max(logs.values(), key=lambda log: log.epochs[-1])
    stage_of = dict(zip(longest.epochs, stage_names(longest), strict=True))
    for log in logs.values():
        for epoch, stage in zip(log.epochs, stage_names(log), strict=True):
            if stage_of.get(epoch, stage) != stage:
                return
    spans = stage_spans(longest)
    if len(spans) > MAX_STAGES:
        return
    for number, (name, start, end) in enumerate(spans):
        if number % 2:
            for panel in panels.values():
                panel.axvspan(start, end, color=BAND, linewidth=0, zorder=0)
        room = int(70 * (end - start) / (spans[-1][2] - spans[0][1]))  # about 70 characters fit across the panel
        if room >= min(len(name), 4):  # a shorter stub would be unreadable
            label = name if len(name) <= room else name[: room - 1] + "…"
            background = {"facecolor": BAND if number % 2 else "white", "edgecolor": "none", "pad": 1}
            at_bottom = panels["loss"].get_xaxis_transform()
            panels["loss"].text(
                (start + end) / 2,
                0.02,
                label,
                transform=at_bottom,
                ha="center",
                color=MUTED,
                fontsize=9,
                bbox=background,
            )


def save_figure(figure: Figure, output: Path) -> None:
    """Write the plot atomically, in the format of the file's suffix (.png, .svg, .pdf, ...).

    Raises:
        UserError: matplotlib does not support that format, or ``output`` is a folder.
    """
    import matplotlib

    if output.is_dir():
        raise UserError(f"--output {output}: is a folder. Name a file, such as {output / 'loss_curve.png'}")
    suffix = output.suffix.lower().lstrip(".")
    if suffix not in figure.canvas.get_supported_filetypes():
        raise UserError(
            f"--output {output}: matplotlib cannot write '{output.suffix}' files. Use the suffix .png, .svg or .pdf"
        )
    with matplotlib.rc_context(PLOT_STYLE), atomic_open(output, "wb") as file:
        figure.savefig(file, format=suffix, metadata=METADATA.get(suffix))


def main(argv: list[str]) -> None:
    """Read the logs, draw them, print which epoch was best."""
    parser = OptionParser("visualize_loss.py", __doc__, "--log")
    parser.add_argument(
        "--log",
        nargs="+",
        type=lambda text: in_run_folder(Path(text), DEFAULT_LOG.name),
        metavar="FILE",
        default=[DEFAULT_LOG],
        help=f"one log, or several to compare: files, or folders of runs (default: {DEFAULT_LOG})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("loss_curve.png"),
        metavar="FILE",
        help="plot: .png, .svg or .pdf (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if len({path.resolve() for path in options.log}) < len(options.log):
        raise UserError(f"--log {' '.join(map(str, options.log))}: the same log twice. Give each once")

    logs = dict[str, LossLog]()
    for name, path in zip(log_names(options.log), options.log, strict=True):
        logs[name] = read_log(path)
        if not logs[name].rows:
            raise UserError(f"{path}: no epoch in it yet. The first row is written when training's first epoch ends")
    save_figure(draw_curves(logs), options.output)
    findings = []
    for name, log in logs.items():
        best = best_epoch(log)
        finding = f"best epoch {best.epoch} of {log.epochs[-1]}, {best.score}" if best else "no validation in it yet"
        findings.append(finding if len(logs) == 1 else f"{name}: {finding}")
    say(f"wrote {options.output}: {'; '.join(findings)}")


if __name__ == "__main__":
    run_script(main)
