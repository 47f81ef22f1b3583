"""tools/confidence.py: how often captions are right, by their mean log-probability."""

import json
from pathlib import Path

import pytest

from cli import UserError
from tools.confidence import main


def write(path: Path, count: int) -> Path:
    """A captions.json whose more probable half is right."""
    entries = [
        {
            "image": f"{number}.jpg",
            "caption": f"dog {number} runs" if number < count / 2 else "zebras",
            "log_prob": -float(number),
            "references": [f"dog {number} runs", f"the dog {number} runs fast"],
        }
        for number in range(count)
    ]
    path.write_text(json.dumps(entries))
    return path


def test_the_table_has_a_row_for_each_fifth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(write(tmp_path / "captions.json", 50))])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["10"] * 5
    assert [row[3] for row in rows] == ["100", "100", "50", "0", "0"]
    assert rows[0][0] == "-2.250" and rows[-1][0] == "-24.500"  # 9 / 4 and 49 / 2 tokens


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"image": "a.jpg", "caption": "a", "log_prob": -1}]', "[]"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"captions\.json: (not a captions\.json|0 images)"):
        main([str(path)])
