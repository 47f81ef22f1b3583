"""config_parser.py: odd values in YAML, in checkpoints and on the command line are refused by name."""

from collections.abc import Callable

import pytest
import yaml

from cli import UserError
from config import DECODERS, Config, config_from_dict, config_to_dict
from tests.support.helpers import read


def test_a_checkpoint_cannot_name_a_class() -> None:
    for section in ("encoder", "decoder"):
        values = config_to_dict(Config())
        values[section]["built_by"] = "os.system"
        with pytest.raises(UserError, match="unknown option"):
            config_from_dict(values)


@pytest.mark.parametrize("name", ["[lstm]", "{a: 1}", "3", "null"])
def test_a_decoder_whose_name_is_not_text_is_refused(from_yaml: Callable[..., Config], name: str) -> None:
    with pytest.raises(UserError, match=r"decoder\.name must be one of"):
        from_yaml(f"decoder: {{name: {name}}}")
    with pytest.raises(UserError, match=r"decoder\.name must be one of"):
        config_from_dict({"decoder": yaml.safe_load(f"{{name: {name}}}")})


def test_every_decoder_has_its_name_and_help_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert {name: cls().name for name, cls in DECODERS.items()} == {name: name for name in DECODERS}
    with pytest.raises(SystemExit):
        read("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "lstm, attention, transformer" in text and "256 for lstm, 512 for attention" in text


def test_what_looks_like_a_date_but_is_none_is_refused(from_yaml: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"my\.yaml"):
        from_yaml("output_dir: 2024-13-01")
    with pytest.raises(UserError, match=r"train\.seed"):
        read("--train.seed=2024-13-01")


def test_an_option_in_the_wrong_section_names_the_right_one() -> None:
    with pytest.raises(UserError, match=r"did you mean '--train\.stages\.lr'"):
        read("--train.lr=1")


def test_a_section_without_stages_still_takes_options_of_the_last_stage() -> None:
    config = read("--train={seed: 3}", "--train.stages.lr=0.1")
    assert (config.train.seed, config.train.stages[-1].lr) == (3, 0.1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("transfomer", r"section of options, got 'transfomer': did you mean --decoder '\{name: transformer\}'\?"),
        ("lstm", r"did you mean --decoder '\{name: lstm\}'\?"),
        ("7x", "did you mean --decoder '{name: lstm}' or .* or --decoder '{name: transformer}'"),
        ("5", "decoder must be a section of options, got 5"),
    ],
)
def test_the_name_of_a_decoder_in_place_of_its_section(value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("--decoder", value)


def test_yaml_that_would_fill_the_memory_or_never_end(from_yaml: Callable[..., Config]) -> None:
    for text in ("a: &a {b: *a}", "train: " + "[" * 20_000, "x" * 70_000):
        with pytest.raises(UserError, match=r"^--config .*my\.yaml: "):
            from_yaml(text)
    with pytest.raises(UserError, match=r"train must be a section of options, got .*\.\.\."):
        read("--train", "[" * 5000)
