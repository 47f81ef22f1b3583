"""tools/seeds.py: runs that are kept and continued, and the statistics of their scores."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli import UserError
from tools.seeds import STUDENT, main, summary

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "distinct", "copied")


@pytest.fixture
def options(tiny_args: list[str], tmp_path: Path) -> list[str]:
    """The options of a run in tmp_path."""
    plain = tmp_path / "plain.yaml"
    plain.write_text("device: cpu", encoding="utf-8")
    return [f"--config={plain}", *tiny_args, f"--output_dir={tmp_path}"]


def finish(folder: Path, seed: int, cider: float, **scores: Any) -> None:
    """What a run with this seed leaves when it is trained and scored."""
    metrics = {**dict.fromkeys(METRICS, 0.5), "METEOR": None, "CIDEr": cider, **scores}
    record = {**metrics, "split": "test", "images": 4}
    (folder / "seeds" / f"seed_{seed}").mkdir(parents=True)
    (folder / "seeds" / f"seed_{seed}" / "test_metrics.json").write_text(json.dumps(record), encoding="utf-8")


def test_the_interval_is_students() -> None:
    found = summary([1.0, 2.0, 3.0])
    assert found["mean"] == 2 and found["std"] == 1
    assert found["margin"] == pytest.approx(4.303 / 3**0.5)
    assert summary([2.0]) == {"mean": 2, "std": None, "margin": None}
    assert summary([0.5] * 30)["margin"] == 0
    assert list(STUDENT) == sorted(STUDENT, reverse=True) and STUDENT[8] == 2.262  # 9 degrees: 10 seeds


def test_finished_runs_are_kept_and_tabulated(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(tmp_path, 0, 0.5)
    finish(tmp_path, 7, 0.6, distinct=0.25)
    main([*options, "--seeds", "0", "7"])
    text = capsys.readouterr().out
    assert text.startswith("2 seeds, 4 images of the split 'test', scores x 100")
    rows = {row[0]: row[1:] for line in text.splitlines() if (row := [cell.strip() for cell in line.split("|")[1:-1]])}
    assert rows["metric"] == ["mean", "std", "interval", "seed 0", "seed 7"]
    assert rows["CIDEr"] == ["55.0", "7.07", "-8.5 to 118.5", "50.0", "60.0"]
    assert rows["distinct"][-2:] == ["50.0", "25.0"] and "METEOR" not in rows  # there was no Java
    assert (tmp_path / "seeds" / "seeds.md").read_text("utf-8") == text
    found = json.loads((tmp_path / "seeds" / "seeds.json").read_text("utf-8"))
    assert found["seeds"] == [0, 7] and found["metrics"]["CIDEr"]["scores"] == [0.5, 0.6]
    main([*options, "--seeds", "7"])
    assert "| CIDEr    | 60.0 | n/a |      n/a |   60.0 |" in capsys.readouterr().out
    changes = r"train\.batch_size \(4 -> 6\), train\.stages\.tiny\.epochs \(2 -> 3\)\. Choose another"
    with pytest.raises(UserError, match=f"its runs have other options: {changes}"):
        main([*options, "--seeds", "0", "--train.batch_size=6", "--train.stages.epochs=3"])


def test_wrong_seeds_are_refused(options: list[str], tmp_path: Path) -> None:
    for words, reason in (
        (["--seeds", "1", "1"], "name different seeds"),
        (["--seeds", *map(str, range(31))], "at most 30"),
        (["--seeds", "-1"], "--seeds"),
        (["--seeds", "4294967296"], "must be whole numbers from 0 to 4294967295"),
        ([], "--seeds"),
        (["--seeds", "1", "--decoder.layers", "2"], "unknown option .decoder.layers."),
    ):
        with pytest.raises(UserError, match=reason):
            main([*options, *words])
    assert not (tmp_path / "seeds").exists()


@pytest.mark.slow
def test_a_run_is_trained_and_scored_and_continues_after_an_error(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the scripts in processes of their own: 40 seconds."""
    scores = tmp_path / "seeds" / "seed_4" / "val_metrics.json"
    (scores.parent / "val_predictions.json").mkdir(parents=True)  # which evaluate.py cannot write
    command = [*options, "--train.stages=[{name: a, epochs: 1}]", "--seeds", "3", "4", "--split", "val"]
    with pytest.raises(UserError, match=r"evaluate\.py has failed, see above"):
        main(command)
    first = tmp_path / "seeds" / "seed_3" / "checkpoints.pth"
    assert not scores.exists() and first.exists()
    trained = first.stat().st_mtime_ns
    (scores.parent / "val_predictions.json").rmdir()
    main(command)
    assert first.stat().st_mtime_ns == trained and scores.exists()
    assert "| seed 3 | seed 4 |" in capsys.readouterr().out
