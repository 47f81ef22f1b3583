"""visualize_loss.py: the plot and the best epoch of logs of all kinds."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from cli import UserError
from tests.support.browser import Visit
from tests.support.helpers import ROOT
from training.loss_log import read_log
from visualize_loss import best_epoch, draw_curves, known_values, log_names, main, save_figure, stage_spans

HEADER = [
    "stage",
    "epoch",
    "step",
    "train_loss",
    "val_loss",
    "val_bleu4",
    "val_cider",
    "distinct",
    "lr",
    "seconds",
    "images_per_second",
]


def write_log(path: Path, rows: list[tuple[object, ...]], tail: str = "") -> Path:
    """Rows of (stage, epoch, train_loss, val_loss, val_bleu4, val_cider); ``tail`` is what a killed run left behind."""
    full = [(stage, epoch, 10, *scores, 0.5, 1e-3, 60, 150) for stage, epoch, *scores in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [HEADER, *full]) + tail, encoding="utf-8")
    return path


ROWS = [
    ("frozen", 1, 4.0, 3.8, 0.05, 0.1),
    ("frozen", 2, 3.0, 3.1, 0.15, 0.4),
    ("tuned", 3, 2.5, 3.0, 0.2, 0.5),
    ("tuned", 4, 2.2, 3.1, 0.21, 0.45),
]


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "visualize_loss.py", *options], capture_output=True, text=True, check=False
    )


def test_script_draws_a_readable_plot_and_prints_the_best_epoch(tmp_path: Path) -> None:
    log = write_log(tmp_path / "loss_log.txt", ROWS, tail="tuned\t5\t12\t2.")
    result = run("--log", log, "--output", tmp_path / "curve.png")
    assert result.returncode == 0, result.stderr
    assert "curve.png: best epoch 3 of 4, CIDEr 50.0" in result.stdout
    with Image.open(tmp_path / "curve.png") as image:
        assert image.width >= 1800
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20) or []) > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curve.png",
        "loss_log.txt",
    ]  # no temporary file is left


def test_several_logs_are_compared_in_an_svg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [write_log(tmp_path / name / "loss_log.txt", ROWS) for name in ("lstm", "_costs $5 and $6", "attention")]
    folders = [str(log.parent) for log in logs[1:]]
    main(["--log", str(logs[0]), *folders, "--output", str(tmp_path / "curve.svg")])
    assert capsys.readouterr().out.count("best epoch 3") == 3
    assert ElementTree.parse(tmp_path / "curve.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("name", ["\x1b[1m <b> & $5 $6", "\ufffe\uffff\ufdd0", "\x00\x0b\x85\u2028\u202e", "x" * 5000])
def test_a_stage_and_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    log = write_log(tmp_path / "loss_log.txt", [(name, *row[1:]) for row in ROWS])
    main(["--log", str(log), "--output", str(tmp_path / "curve.svg")])
    assert ElementTree.parse(tmp_path / "curve.svg").getroot().tag.endswith("svg")
    folder = tmp_path / f"caf\udce9 {name[:9]}".replace("\0", "")
    other = write_log(folder / "loss_log.txt", ROWS)
    main(["--log", str(log), str(other), "--output", str(folder / "curves.svg")])
    assert ElementTree.parse(folder / "curves.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e999", "Infinity", "-nan", "9" * 400, "1e38", "1e-320"])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_values_of_any_size_are_drawn_or_left_out(tmp_path: Path, value: str, kind: str) -> None:
    log = write_log(tmp_path / "loss_log.txt", [*ROWS, ("huge", 5, *[value] * 4)])
    main(["--log", str(log), "--output", str(tmp_path / f"curve.{kind}")])
    assert (tmp_path / f"curve.{kind}").stat().st_size > 1000


def test_a_log_of_many_stages_is_drawn_and_one_too_large_is_refused(tmp_path: Path) -> None:
    log = write_log(tmp_path / "loss_log.txt", [(f"stage {number}", number, 4, 3, 0.1, 0.2) for number in range(5000)])
    figure = draw_curves({"log": read_log(log)})
    assert not figure.axes[0].patches and len(figure.axes[0].texts) == 0
    with log.open("ab") as file:
        file.truncate(10**12)
    with pytest.raises(UserError, match=r"loss_log\.txt: more than 128 MB"):
        read_log(log)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_plot_looks_the_same_on_white_and_on_black(tmp_path: Path, visit: Callable[..., Visit], kind: str) -> None:
    log, curve = write_log(tmp_path / "loss_log.txt", ROWS), tmp_path / f"curve.{kind}"
    main(["--log", str(log), "--output", str(curve)])
    seen = []
    for background in ("white", "black"):
        page = tmp_path / f"{background}.html"
        page.write_text(
            f'<body style="background: {background}"><img src="{curve.name}" width="880">', encoding="utf-8"
        )
        with Image.open(io.BytesIO(visit(page.as_uri()).page.locator("img").screenshot())) as image:
            # without the border, whose half pixels show the background
            seen.append(image.convert("RGB").crop((1, 1, image.width - 1, image.height - 1)))
    assert seen[0] == seen[1]
    assert seen[0].getpixel((3, 3)) == (255, 255, 255) and len(seen[0].getcolors(maxcolors=1 << 20) or []) > 50


def test_incomplete_last_line_and_repeated_epochs(tmp_path: Path) -> None:
    torn = write_log(
        tmp_path / "torn.txt", ROWS, tail="tuned\t5\t10\t2.1\t2.9\t0.3\t0.9\t0.5\t1e-3\t60\t1"
    )  # the last cell is incomplete
    assert read_log(torn).epochs == [1, 2, 3, 4]
    resumed = write_log(tmp_path / "resumed.txt", [*ROWS, ("tuned", 4, 2.2, 3.1, 0.21, 0.7)])
    assert read_log(resumed).numbers("val_cider") == [0.1, 0.4, 0.5, 0.7]


def test_empty_cells_are_gaps_and_the_best_epoch_falls_back_to_the_loss(tmp_path: Path) -> None:
    rows = [("", 1, 4.0, "", "", "nan"), ("scst", 2, "inf", 3.0, "", "NaN"), ("scst", 3, "", 3.5, "", "")]
    log = read_log(write_log(tmp_path / "log.txt", rows))
    assert known_values(log, "train_loss") == ([1], [4.0])
    best = best_epoch(log)
    assert best is not None and (best.epoch, best.score) == (2, "validation loss 3.000")
    save_figure(draw_curves({"log": log}), tmp_path / "a.png")
    silent = read_log(write_log(tmp_path / "silent.txt", [("frozen", 1, 4.0, "", "", "")]))
    assert best_epoch(silent) is None
    save_figure(draw_curves({"silent": silent}), tmp_path / "b.png")


def test_windows_line_ends_byte_order_mark_and_more_columns(tmp_path: Path) -> None:
    plain = write_log(tmp_path / "log.txt", ROWS)
    text = "\n".join(line + "\tmore" for line in plain.read_text(encoding="utf-8").splitlines()) + "\n"
    plain.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_log(plain).numbers("val_cider") == [0.1, 0.4, 0.5, 0.45]


def test_a_stage_is_a_run_of_epochs(tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path / "log.txt", ROWS))
    assert stage_spans(log) == [("frozen", 0.5, 2.5), ("tuned", 2.5, 4.5)]


def test_logs_are_named_by_what_distinguishes_them() -> None:
    assert log_names([Path("runs/a/loss_log.txt"), Path("runs/b/loss_log.txt")]) == ["a", "b"]
    assert log_names([Path("runs/a.txt"), Path("runs/b.txt")]) == ["a", "b"]
    assert log_names([Path("x/a/log.txt"), Path("y/a/log.txt")]) == [str(Path("x/a/log.txt")), str(Path("y/a/log.txt"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no epoch"),
        ("stage\tepoch", "no epoch"),  # an incomplete header
        ("\t".join(HEADER) + "\n", "no epoch"),
        ("epoch,loss\n1,2\n", "no column stage, epoch, train_loss"),
        ("\t".join(HEADER) + "\nfrozen\t1\t10\tlots\t3\t0.1\t0.1\t1\t1\t1\t1\n", "train_loss is 'lots', not a number"),
        (
            "\t".join(HEADER)
            + "\nfrozen\t1\t10\t4\t3\t0.1\t0.1\t1\t1\t1\t1\nfrozen\t\t10\t4\t3\t0.1\t0.1\t1\t1\t1\t1\n",
            "line 3 is not a row of this log",
        ),
        ("\t".join(HEADER) + "\n" + "frozen\t2\t10\t" * 9 + "\n", "28 cells, the header has 11"),
        ("\0\x01binary\n\0\n", "no column"),
        *[
            ("\t".join(HEADER) + f"\nfrozen\t{epoch}\t10\t4\t3\t0.1\t0.1\t1\t1\t1\t1\n", "line 2 is not a row")
            for epoch in ("1e308", "0.5", "-1", "nan", "1000000000", "9" * 5000)
        ],
    ],
)
def test_an_invalid_log_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "loss_log.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        main(["--log", str(path), "--output", str(tmp_path / "curve.png")])
    assert not (tmp_path / "curve.png").exists()
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert len(str(caught.value)) < 225 + len(str(path))


def test_a_missing_log_is_refused_and_the_old_plot_kept(tmp_path: Path) -> None:
    (tmp_path / "curve.png").write_bytes(b"old")
    for log in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(UserError, match=r"(absent|loss_log)\.txt: no such log"):
            main(["--log", str(log), "--output", str(tmp_path / "curve.png")])
    assert (tmp_path / "curve.png").read_bytes() == b"old"


def test_a_log_given_twice_is_refused(tmp_path: Path) -> None:
    log = write_log(tmp_path / "loss_log.txt", ROWS)
    with pytest.raises(UserError, match=r"^--log .*: the same log twice\. Give each once$"):
        main(["--log", str(log), str(tmp_path), "--output", str(tmp_path / "curve.png")])
    assert not (tmp_path / "curve.png").exists()


def test_a_folder_as_output_is_told_the_file_to_name(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.txt", ROWS)
    (tmp_path / "plots").mkdir()
    with pytest.raises(UserError, match=r"plots: is a folder\. Name a file, such as .*loss_curve\.png$"):
        main(["--log", str(log), "--output", str(tmp_path / "plots")])


def test_unknown_format_and_too_many_logs_are_refused(tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path / "log.txt", ROWS))
    with pytest.raises(UserError, match=r"cannot write '\.xyz' files"):
        save_figure(draw_curves({"a": log}), tmp_path / "curve.xyz")
    with pytest.raises(UserError, match="at most 7"):
        draw_curves({str(number): log for number in range(8)})


def test_the_reward_of_a_self_critical_stage_is_plotted_with_the_cider(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.txt", ROWS)
    without = draw_curves({"log": read_log(log)}).axes[1]
    header, *rows = log.read_text().splitlines()
    rewards = ["nan", "nan", "0.4", "0.6"]
    log.write_text(
        "\n".join([f"{header}\treward", *(f"{row}\t{reward}" for row, reward in zip(rows, rewards, strict=True))])
        + "\n"
    )
    cider = draw_curves({"log": read_log(log)}).axes[1]
    assert any(list(line.get_ydata()) == [40, 60] for line in cider.lines)  # type: ignore[arg-type]
    assert "reward" in cider.get_title("left") and "reward" not in without.get_title("left")


def test_stages_that_differ_are_not_shaded(tmp_path: Path) -> None:
    one = read_log(write_log(tmp_path / "1.txt", ROWS))
    other = read_log(write_log(tmp_path / "2.txt", [("all", *row[1:]) for row in ROWS]))
    bands = [
        len(draw_curves(logs).axes[0].patches) for logs in ({"a": one}, {"a": one, "b": one}, {"a": one, "b": other})
    ]
    assert bands == [1, 1, 0]
