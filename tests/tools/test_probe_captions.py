"""The table of what captions are like beyond their scores."""

from pathlib import Path

import pytest

from evaluation.predictions import write_predictions
from tools.probe_captions import main

CAPTIONS = """image,caption,split
a.jpg,a brown dog runs,train
b.jpg,a man in a red shirt,val
c.jpg,two girls in the snow,val
"""


def test_systems_are_compared_with_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions_file = tmp_path / "captions.csv"
    captions_file.write_text(CAPTIONS, encoding="utf-8")
    files = [tmp_path / "plain.json", tmp_path / "better.json"]
    write_predictions(files[0], {"b.jpg": "a brown dog runs", "c.jpg": "a man in a"})
    write_predictions(files[1], {"b.jpg": "a man in a red shirt", "c.jpg": "two girls"})
    main([*map(str, files), "--captions_file", str(captions_file), "--split", "val"])
    lines = capsys.readouterr().out.splitlines()
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:4]] for line in lines if (cells := line.split("|"))}
    assert rows["copied from training"] == ["50%", "0%"]
    assert rows["end in an article or preposition"] == ["1", "0"]
    assert rows["mention only men"] == ["50%", "50%"]
    assert rows["colour words that are right"] == [
        "0.0 % of 1",
        "100.0 % of 1 (+0.0 to +100.0)",
    ]
