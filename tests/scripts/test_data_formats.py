"""data.prepare, then the train.py command that it prints: captions in every format that other data sets have."""

import shlex
import shutil
from pathlib import Path

import pytest

from data import prepare
from tests.support.archives import rows_of
from tests.support.data_formats import FORMATS
from tests.support.training import Learn, read_log

WITHOUT_SPLITS = ("flickr30k_results", "flickr8k_token")


@pytest.mark.parametrize("name", FORMATS)
def test_captions_in_this_format_train(
    name: str, tiny_data: Path, tmp_path: Path, learn: Learn, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [tuple(row.values()) for row in rows_of(tiny_data / "captions.csv")]
    folder = tmp_path / "downloaded"
    shutil.copytree(tiny_data / "images", folder)
    words = FORMATS[name](folder, rows)

    prepare.main(words)

    *report, following = capsys.readouterr().out.splitlines()
    assert report[0].split() == ["all", "16", "images", str(len(rows)), "captions"]
    assert not [line for line in report if line.startswith("left out")]
    _, python, script, _, _, *options = shlex.split(following)
    assert (python, script) == ("python", "train.py")
    written = rows_of(Path(options[options.index("--captions_file") + 1]))
    if name in WITHOUT_SPLITS:
        assert sorted(row["caption"] for row in written) == sorted(caption for _, caption, _ in rows)
    else:
        pairs = sorted((row["caption"], row["split"]) for row in written)
        assert pairs == sorted((caption, split) for _, caption, split in rows)
    run = tmp_path / "run"
    learn('--train.stages=[{"name": "once", "epochs": 1}]', *options, f"--output_dir={run}")
    assert len(read_log(run)) == 1
