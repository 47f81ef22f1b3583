"""evaluation/options.py: options have the names that train.py gives them, and those without a section."""

import shlex
import sys
from pathlib import Path

import pytest

from cli import OptionParser, UserError
from evaluation.options import add_cache_option, add_captioner_options, add_split_options, cache_folder, checkpoint_file

CIRCLE = ["circle/cache"] if sys.version_info < (3, 13) else []  # later versions resolve it to itself


def test_options_are_known_by_both_of_their_names() -> None:
    parser = OptionParser("script.py")
    add_captioner_options(parser, several=True)
    add_split_options(parser)
    add_cache_option(parser)
    short = parser.parse_args(["--captions_file=a", "--image_dir=b", "--feature_cache=c", "--beam_size", "1", "2"])
    words = ["--data.captions_file=a", "--data.image_dir=b", "--data.feature_cache=c", "--generate.beam_size", "1", "2"]
    assert parser.parse_args(words) == short
    assert (short.captions_file, short.image_dir, short.feature_cache) == (Path("a"), Path("b"), "c")
    assert short.beam_size == [1, 2]


def test_the_beam_size_has_the_limits_of_a_run() -> None:
    parser = OptionParser("script.py")
    add_captioner_options(parser, several=False)
    assert parser.parse_args(["--beam_size", "100"]).beam_size == 100
    with pytest.raises(UserError, match=r"^--beam_size: must be in \[1, 100\], not 101 "):
        parser.parse_args(["--beam_size", "101"])


def test_the_folder_of_a_run_means_its_best_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_file(str(tmp_path)) == tmp_path / "checkpoints.pth"
    assert checkpoint_file("a.pth") == Path("a.pth")


def test_features_are_written_inside_the_current_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger's checkpoint may name any folder."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "link").symlink_to(tmp_path)
    monkeypatch.chdir(here)
    for recorded in (".cache/features", "cache", str(here / "cache")):
        assert cache_folder(None, recorded) == recorded
    assert cache_folder("/elsewhere", str(tmp_path)) == "/elsewhere" and capsys.readouterr().err == ""
    (here / "circle").symlink_to("circle")
    assert cache_folder(None, "../it's") == ".cache/features"
    assert capsys.readouterr().err.endswith("--feature_cache " + shlex.quote("../it's") + "\n")
    assert cache_folder(None, "/a " + "x" * 200) == ".cache/features"  # its quotes would be cut in two
    assert "--feature_cache" not in capsys.readouterr().err
    outside = ("../cache", str(tmp_path / "cache"), "link/cache", "a\0b", "/" + "x" * 5000, "\ud800x")
    for recorded in (*outside, *CIRCLE):
        assert cache_folder(None, recorded) == ".cache/features"
        error = capsys.readouterr().err
        assert error.startswith("features are cached in .cache/features") and len(error) < 300
        assert error.count("\n") == 1
