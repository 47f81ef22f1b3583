"""How plots look: Okabe and Ito's palette, which is safe for colour-blind readers, and Matplotlib's settings."""

from typing import Any

BLUE, SKY, VERMILLION = "#0072B2", "#56B4E9", "#D55E00"
GREEN, PURPLE, ORANGE, BLACK = "#009E73", "#CC79A7", "#E69F00", "#000000"
TEXT, MUTED, GRID = "#222222", "#5c6066", "#e4e6e9"
PLOT_STYLE: Any = {
    "figure.facecolor": "white",  # not transparent: the page may be white or black
    "font.size": 10,
    "text.color": TEXT,
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
    "text.parse_math": False,  # a "$" in the name of a stage or folder is a dollar sign
    "svg.hashsalt": "loss_curve",  # the same log gives the same file, byte for byte
}
