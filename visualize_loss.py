"""PLOT: draw loss_curve.png from one or several loss_log.txt.

    python visualize_loss.py
    python visualize_loss.py --log runs/lstm/loss_log.txt runs/attention/loss_log.txt --output compare.svg

Losses and scores do not share an axis: CIDEr runs to 1 and beyond, BLEU-4 ends below 1, a loss starts near ln(V). Each gets its own panel
over the same epochs, so each curve's shape can be read. Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cli import OptionParser, UserError, atomic_open, run_script

NUMBERS = ["epoch", "train_loss", "val_loss", "val_bleu4", "val_cider"]
REWARD = "reward"  # of self-critical stages; logs of older versions have no such column
BLUE, SKY, VERMILLION, GREEN, PURPLE, ORANGE, BLACK = (
    "#0072B2",
    "#56B4E9",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#000000",
)
# When logs are compared, each has a colour and a marker of its own: the marker survives a grey print.
LOOKS = list(zip([BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK], "osD^vPX", strict=True))
INK, MUTED, GRID, BAND = "#222222", "#5c6066", "#e4e6e9", "#f1f3f5"
# The curves of a log that stands alone. Training is the paler of two blues, and dashed: the eye should go to validation.
ALONE = {"train_loss": SKY, "val_loss": BLUE, "val_cider": VERMILLION, "val_bleu4": GREEN, REWARD: ORANGE}
TRAINING: Any = (0, (3, 1.2))
DASH: dict[str, Any] = {"train_loss": TRAINING, "val_loss": "-", REWARD: TRAINING}
STYLE: Any = {
    "figure.facecolor": "white",  # a README may stand on white or on black: the picture brings its ground along
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#b8bcc2",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 4.0,
    "text.parse_math": False,  # a "$" in a stage's or folder's name is a dollar sign
    "svg.hashsalt": "loss_curve",  # the same log gives the same file, byte for byte
}


@dataclass(frozen=True)
class Best:
    """The epoch with the highest validation CIDEr; by validation loss where no CIDEr was logged."""

    epoch: int
    score: str

    def __str__(self) -> str:
        return f"best epoch {self.epoch}: {self.score}"


def read_log(path: str | Path) -> pd.DataFrame:
    """Read a loss_log.txt: one row an epoch, the columns ``stage`` (text), NUMBERS and REWARD (float; NaN where a cell is empty).

    An epoch that stands there twice (a resumed run) counts as it was logged last.

    Raises:
        UserError: no such file, no finished epoch in it, a missing column, or a cell that is not a number.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such log. Train first (`python train.py` writes it), or name another with --log")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    # A row is whole once its line end is there; what follows the last one is being written, or was when the run was killed.
    text = text[: text.rfind("\n") + 1]
    if not text.strip():
        raise UserError(f"{path}: the log is empty. It gets its first row when training's first epoch ends")
    lines = {number: line.split("\t") for number, line in enumerate(text.split("\n"), start=1) if line.strip()}
    header = lines.pop(min(lines))
    missing = [name for name in ["stage", *NUMBERS] if name not in header]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}. Expected the tab-separated header that train.py writes"
        )
    if not lines:
        raise UserError(f"{path}: no epoch in it yet. The first row comes when training's first epoch ends")
    for number, line in lines.items():
        if len(line) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(line)} cells, the header has {len(header)}. Correct or delete this line"
            )
    cells = pd.DataFrame(lines.values(), index=list(lines), columns=header)
    if REWARD not in header:
        cells[REWARD] = ""

    log = cells[["stage"]].apply(
        lambda column: column.str.replace(r"[\x00-\x1f\x7f-\x9f]", " ", regex=True)
    )  # SVG has no place for these
    for name in [*NUMBERS, REWARD]:
        log[name] = pd.to_numeric(cells[name], errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
        written = ~cells[name].str.strip().str.lower().isin(["", "nan", "none", "n/a", "inf", "-inf"])
        wrong = log[name].isna() & written if name != "epoch" else log[name].isna()
        if wrong.any():
            number = wrong.idxmax()
            raise UserError(
                f"{path}, line {number}: {name} is {cells[name][number]!r}, not a number. Correct or delete this line"
            )
    return log.drop_duplicates("epoch", keep="last").sort_values("epoch", ignore_index=True)


def best_epoch(log: pd.DataFrame) -> Best | None:
    """Return the best epoch of a log, or None where neither CIDEr nor validation loss was ever logged."""
    for column, sign, name in [("val_cider", 1, "CIDEr"), ("val_loss", -1, "validation loss")]:
        if log[column].notna().any():
            row = log.loc[(sign * log[column]).idxmax()]
            return Best(int(row["epoch"]), f"{name} {row[column]:.3f}")
    return None


def stage_spans(log: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Return (name, first epoch - 1/2, last epoch + 1/2) of each run of epochs in one stage."""
    runs = (log["stage"] != log["stage"].shift()).cumsum()
    return [
        (str(rows["stage"].iloc[0]), rows["epoch"].min() - 0.5, rows["epoch"].max() + 0.5)
        for _, rows in log.groupby(runs)
    ]


def log_names(paths: list[Path]) -> list[str]:
    """Name each log by what tells it from the others: its folder, else its file, else its whole path."""
    for names in ([path.resolve().parent.name for path in paths], [path.stem for path in paths]):
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]


def draw(logs: dict[str, pd.DataFrame]) -> Figure:
    """Draw the losses (left) and the validation scores (right) of one log, or of several on the same axes.

    Raises:
        UserError: more logs than there are colours to tell apart.
    """
    if len(logs) > len(LOOKS):
        raise UserError(f"--log: {len(logs)} logs are too many for one picture. Compare at most {len(LOOKS)}")
    with matplotlib.rc_context(STYLE):
        rows_of_legend = (len(logs) + 1) // 2 if len(logs) > 1 else 0
        # 1,800 px wide: sharp at the 900 px a README shows.
        figure = Figure(
            figsize=(9, 4 + 0.22 * rows_of_legend), dpi=200, layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.12)
        )
        FigureCanvasAgg(figure)
        panels = figure.subplot_mosaic(
            [["loss", "val_cider"], ["loss", "val_bleu4"]], width_ratios=[1.5, 1], sharex=True
        )
        rewarded = any(log[REWARD].notna().any() for log in logs.values())
        cider = "CIDEr (dashed: training reward)" if rewarded else "Validation CIDEr"
        for name, title in [("loss", "Loss"), ("val_cider", cider), ("val_bleu4", "Validation BLEU-4")]:
            panels[name].set_title(title)
            panels[name].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10], min_n_ticks=1))
            panels[name].grid(axis="x", visible=False)
            panels[name].margins(y=0.12)  # room for the stages' names and the stars
        panels["loss"].set_xlabel("epoch")
        panels["val_bleu4"].set_xlabel("epoch")
        panels["val_cider"].tick_params(labelbottom=False)

        epochs = np.concatenate([log["epoch"].to_numpy() for log in logs.values()])
        panels["loss"].set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
        _shade_stages(panels, logs)
        if len(logs) == 1:
            _draw_alone(panels, *logs.values())
        else:
            for (name, log), (colour, marker) in zip(logs.items(), LOOKS, strict=False):
                _draw_curves(panels, log, dict.fromkeys(ALONE, colour), marker)
                best = best_epoch(log)
                label = f"{name if len(name) <= 24 else '…' + name[-23:]}   ★ {best}" if best else name
                # The leading blank: matplotlib leaves a label that starts with "_" out of the legend.
                panels["val_cider"].plot(
                    [], [], color=colour, marker=marker, markeredgecolor="white", label=f" {label}"
                )
            figure.legend(
                *panels["val_cider"].get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9.5
            )
        losses = ("train_loss", "val_loss")
        key = [
            Line2D([], [], color=ALONE[column] if len(logs) == 1 else MUTED, linestyle=DASH[column])
            for column in losses
        ]
        panels["loss"].legend(
            key, ["training", "validation"], loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=2, borderpad=0
        )
        return figure


def _draw_alone(panels: dict[str, Axes], log: pd.DataFrame) -> None:
    """One log: each curve in a colour of its own, one dotted line through all panels at the best epoch."""
    _draw_curves(panels, log, ALONE, "o")
    best = best_epoch(log)
    if best:
        # Scores rise, so the corner under them is free; the white ground keeps the dotted line out of the words.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        panels["val_cider"].text(
            0.99, 0.08, f"★ {best}", transform=panels["val_cider"].transAxes, ha="right", bbox=ground
        )
        for axes in panels.values():
            axes.axvline(best.epoch, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)


def _draw_curves(panels: dict[str, Axes], log: pd.DataFrame, colours: dict[str, str], marker: str) -> None:
    """Draw the curves of a log and a star at its best epoch."""
    best = best_epoch(log)
    for column, colour in colours.items():
        axes = panels["val_cider"] if column == REWARD else panels.get(column, panels["loss"])  # a reward is a CIDEr-D
        known = log.dropna(subset=[column])  # a gap (validation every second epoch, say) is bridged, not left open
        # Dashes and markers blur each other, and with many epochs markers run into one thick line; a single point needs one.
        marked = len(known) == 1 or (len(known) <= 40 and DASH.get(column) != TRAINING)
        axes.plot(
            known["epoch"],
            known[column],
            linestyle=DASH.get(column, "-"),
            color=colour,
            marker=marker if marked else "",
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
        if best and DASH.get(column) != TRAINING:
            at_best = log.loc[log["epoch"] == best.epoch, column]
            axes.plot([best.epoch], at_best, "*", color=colour, markersize=13, markeredgecolor="white", zorder=5)


def _shade_stages(panels: dict[str, Axes], logs: dict[str, pd.DataFrame]) -> None:
    """Shade every second stage and name each in the loss panel; logs whose stages differ have no common bands, so none are drawn."""
    longest = max(logs.values(), key=lambda log: float(log["epoch"].max()))
    stage_at = dict(zip(longest["epoch"], longest["stage"], strict=True))
    if any(
        stage_at.get(epoch, stage) != stage
        for log in logs.values()
        for epoch, stage in zip(log["epoch"], log["stage"], strict=True)
    ):
        return
    spans = stage_spans(longest)
    whole = spans[-1][2] - spans[0][1]
    for number, (name, start, end) in enumerate(spans):
        for axes in panels.values():
            if number % 2:
                axes.axvspan(start, end, color=BAND, linewidth=0, zorder=0)
        room = int(70 * (end - start) / whole)  # about 70 letters of this size fit across the panel
        if room >= min(len(name), 4):  # a shorter stub would say nothing
            label = name if len(name) <= room else name[: room - 1] + "…"
            ground = {"facecolor": BAND if number % 2 else "white", "edgecolor": "none", "pad": 1}
            at_bottom = panels["loss"].get_xaxis_transform()
            panels["loss"].text(
                (start + end) / 2, 0.02, label, transform=at_bottom, ha="center", color=MUTED, fontsize=9, bbox=ground
            )


def save_figure(figure: Figure, output: str | Path) -> None:
    """Write the picture atomically, in the format its name ends in (.png, .svg, .pdf, ...).

    Raises:
        UserError: matplotlib writes no such format.
    """
    output = Path(output)
    kind = output.suffix.lower().lstrip(".")
    if kind not in figure.canvas.get_supported_filetypes():
        raise UserError(
            f"--output {output}: matplotlib writes no '{output.suffix}' pictures. End the name in .png, .svg or .pdf"
        )
    metadata = (
        {"Date": None, "Title": "Loss and validation scores"}
        if kind == "svg"
        else {"CreationDate": None}
        if kind == "pdf"
        else None
    )
    with matplotlib.rc_context(STYLE), atomic_open(output, "wb") as file:
        figure.savefig(file, format=kind, metadata=metadata)


def main(argv: list[str]) -> None:
    """Read the logs, draw them, say which epoch was best."""
    parser = OptionParser(prog="visualize_loss.py", description="Draw losses and validation scores from loss_log.txt.")
    parser.add_argument(
        "--log", nargs="+", type=Path, default=[Path("loss_log.txt")], help="one log, or several to compare"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("loss_curve.png"), help="the picture; .svg and .pdf work too"
    )
    arguments = parser.parse_args(argv)

    logs = dict(zip(log_names(arguments.log), map(read_log, arguments.log), strict=True))
    save_figure(draw(logs), arguments.output)
    findings = []
    for name, log in logs.items():
        best = best_epoch(log)
        finding = (
            f"best epoch {best.epoch} of {log['epoch'].max():.0f}, {best.score}" if best else "no validation in it yet"
        )
        findings.append(finding if len(logs) == 1 else f"{name}: {finding}")
    print(f"wrote {arguments.output}: {'; '.join(findings)}")


if __name__ == "__main__":
    run_script(main)
