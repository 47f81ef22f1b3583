"""config.py: YAML gives the values, the command line wins, and errors name the option that is invalid."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from cli import UserError
from config import (
    Config,
    LSTMConfig,
    ResNet50Config,
    StageConfig,
    config_from_dict,
    config_to_dict,
)
from tests.support.helpers import ROOT, read, tiny_decoder

CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]


def test_yaml_gives_values_and_the_rest_stays_at_its_default(from_yaml: Callable[..., Config]) -> None:
    config = from_yaml("train: {seed: 7}\ndata: {image_size: 64}")
    assert (config.train.seed, config.data.image_size) == (7, 64)
    assert config.train.batch_size == Config().train.batch_size


def test_command_line_wins_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("train: {seed: 7, batch_size: 3}")
    file = str(tmp_path / "my.yaml")
    for words in (
        ["--config", file, "--train.seed", "9"],
        ["--train.seed", "9", "--config", file],
        ["--train.seed=9", f"--config={file}"],
    ):
        assert (read(*words).train.seed, read(*words).train.batch_size) == (9, 3)


def test_later_config_file_wins(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train: {seed: 1, batch_size: 3}")
    (tmp_path / "b.yaml").write_text("train: {seed: 2}")
    config = read("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
    assert (config.train.seed, config.train.batch_size) == (2, 3)


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "1.0e-3"])
def test_scientific_notation_is_a_number(from_yaml: Callable[..., Config], number: str) -> None:
    assert from_yaml(f"train: {{stages: [{{lr: {number}}}], weight_decay: {number}}}").train.stages[0].lr == 0.001
    config = read(f"--train.weight_decay={number}", f"--train.stages.lr={number}")
    assert (config.train.weight_decay, config.train.stages[-1].lr) == (0.001, 0.001)


def test_whole_number_where_a_fraction_is_expected() -> None:
    assert read("--generate.length_penalty", "1").generate.length_penalty == 1.0


def test_stages_from_yaml_and_a_change_to_the_last(from_yaml: Callable[..., Config]) -> None:
    stages = from_yaml(
        "train: {stages: [{name: a, epochs: 1}, {name: b, lr: 5e-5}]}", "--train.stages.epochs=9"
    ).train.stages
    assert [(stage.name, stage.epochs) for stage in stages] == [("a", 1), ("b", 9)]
    assert stages[1].lr == 5e-5


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("--train.sed=3", "train.seed"),
        ("--train.see=3", "train.seed"),  # no abbreviations: a later option could change what one means
        ("--trian.seed=3", "train.seed"),
        ("--train-seed=3", "train.seed"),
        ("--data.imagesize=3", "data.image_size"),
        ("--beam-size=3", "generate.beam_size"),
        ("--train.stages.epoch=3", "train.stages.epochs"),
        ("--train.epochs=3", "train.stages.epochs"),
        ("--epochs=3", "train.stages.epochs"),
        ("--lr=3", "train.stages.lr"),
        ("--dropout=0", "decoder.dropout' or '--train.stages.dropout"),
    ],
)
def test_typo_on_the_command_line_names_the_nearest_option(word: str, nearest: str) -> None:
    typed = word.split("=", maxsplit=1)[0]
    with pytest.raises(UserError, match=rf"unknown option {typed}: did you mean '--{nearest}'\?"):
        read(word)


def test_an_option_like_no_other_gets_no_suggestion() -> None:
    for word in ("--limit=3", "--xyz=3"):
        with pytest.raises(UserError, match="see --help"):
            read(word)


def test_names_that_other_scripts_have_too_need_no_section() -> None:
    config = read("--captions_file=a.csv", "--image_dir=b", "--feature_cache=c", "--beam_size=7")
    assert (config.data.captions_file, config.data.image_dir, config.data.feature_cache) == ("a.csv", "b", "c")
    assert config.generate.beam_size == 7


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("train: {sed: 3}", "train.seed"),
        ("trian: {seed: 3}", "train"),
        ("outptu_dir: x", "output_dir"),
        ("train: {stages: [{epoch: 3}]}", r"train.stages\[0\].epochs"),
        ("train: {stages: [{name: a}, {name: b, labelsmoothing: 3}]}", r"train.stages\[1\].label_smoothing"),
        ("decoder: {name: lstm, hiden_size: 4}", "decoder.hidden_size"),
        ("lr: 0.1", "train.stages.lr"),
        ("epochs: 3", "train.stages.epochs"),
        ("train: {epoch: 3}", "train.stages.epochs"),
        ("train: {stages: [{seed: 3}]}", "train.seed"),
        ("dropout: 0", "decoder.dropout' or 'train.stages.dropout"),
    ],
)
def test_typo_in_yaml_names_the_nearest_option_and_the_file(
    from_yaml: Callable[..., Config], text: str, nearest: str
) -> None:
    with pytest.raises(UserError, match=rf"did you mean '{nearest}'.*my\.yaml"):
        from_yaml(text)


@pytest.mark.parametrize(
    "word",
    [
        "--train.seed=abc",
        "--train.seed=1.5",
        "--train.seed=true",
        "--train.seed=null",
        "--train.weight_decay=nan",
        "--train.grad_clip=much",
        "--decoder.name=lstn",
        "--train.precision=fp8",
        "--train.stages=3",
        "--train.stages.lr=high",
    ],
)
def test_wrong_type_is_refused_by_name(word: str) -> None:
    with pytest.raises(UserError, match=word.removeprefix("--").split("=")[0].replace("stages.", r"stages\[0\]\.")):
        read(word)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("train: 3", "train"),
        ("encoder: []", "encoder"),
        ("decoder: null", "decoder"),
        ("decoder: lstm", "decoder"),
        ("train: {seed: null}", "train.seed"),
        ("train: {seed: x}", "train.seed"),
        ("data: {captions_file: 12}", "data.captions_file"),
        ("train: {stages: null}", "train.stages"),
        ("train: {stages: [{lr: null}]}", r"train.stages\[0\].lr"),
        ("train: {stages: {epochs: 3}}", "train.stages"),
    ],
)
def test_yaml_of_the_wrong_shape_is_refused_by_name(from_yaml: Callable[..., Config], text: str, name: str) -> None:
    with pytest.raises(UserError, match=name):
        from_yaml(text)


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "just text", "- a\n- list", "train: [1", "a: b: c", "\0", "1: 2", "train:"]
)
def test_broken_yaml_is_refused_with_the_file(from_yaml: Callable[..., Config], text: str) -> None:
    with pytest.raises(UserError, match=r"my\.yaml"):
        from_yaml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n\tseed: 3", "line 2, column 1: a tab. Indent with blanks"),
        ("train: {seed: 3\ndata: x", "line 2, column 5: expected ',' or '}', but got ':'"),
    ],
)
def test_broken_yaml_is_located(from_yaml: Callable[..., Config], text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        from_yaml(text)


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_config_is_called_empty(from_yaml: Callable[..., Config], text: str) -> None:
    with pytest.raises(UserError, match=r"my\.yaml: is empty\. Write options into it.* or omit --config$"):
        from_yaml(text)


def test_other_files_as_config_are_recognised(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: a checkpoint, .* use --resume"):
        read("--config", str(tmp_path / "a.pth"))
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"photo\.jpg: not a text file in UTF-8"):
        read("--config", str(tmp_path / "photo.jpg"))


def test_missing_config_file() -> None:
    with pytest.raises(UserError, match=r"--config nowhere\.yaml: no such file"):
        read("--config", "nowhere.yaml")
    with pytest.raises(
        UserError, match=r"--config flickr8k_lstm: no such file: did you mean '.*configs/flickr8k_lstm\.yaml'\?"
    ):
        read("--config", "flickr8k_lstm")
    with pytest.raises(UserError, match=r"--config \.: a folder"):
        read("--config=.")
    with pytest.raises(UserError, match="--config: expected one argument"):
        read("--config")


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        read(
            "--data.image_size=33",
            "--data.min_count=0",
            "--train.batch_size=0",
            '--train.stages=[{"name": "a", "epochs": 0}, {"name": "a", "lr": -1}]',
        )
    for name in (
        "data.image_size",
        "data.min_count",
        "train.batch_size",
        "epochs must be",
        "lr must be",
        "names must differ",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\rb", "\x0b"])
def test_stage_names_that_would_break_the_log_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"train\.stages '.*': no tab, line break"):
        read(f"--train.stages={json.dumps([{'name': name}])}")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid_and_survives_a_round_trip(path: Path) -> None:
    config = read("--config", str(path))
    plain = config_to_dict(config)
    text = yaml.safe_dump(plain)  # nothing but dicts, lists, strings and numbers
    assert config_from_dict(plain) == config
    assert yaml.safe_dump(plain) == text, "config_from_dict has changed what it was given"
    assert yaml.safe_load(text) == plain


def test_config_of_a_checkpoint_is_checked_too() -> None:
    good = config_to_dict(Config())
    for broken in (
        good | {"what": 1},
        good | {"data": good["data"] | {"image_size": 33}},
        good | {"train": 3},
        good | {"device": None},
    ):
        with pytest.raises(UserError, match="does not fit this version"):
            config_from_dict(broken)


def test_config_of_an_older_checkpoint_gets_the_new_defaults() -> None:
    old = config_to_dict(Config())
    del old["generate"]["length_penalty"], old["device"]
    assert config_from_dict(old) == Config()


def option_names(values: object, prefix: str = "") -> list[str]:
    if not isinstance(values, dict):
        return [prefix]
    return [name for key, value in values.items() for name in option_names(value, f"{prefix}.{key}".lstrip("."))]


def test_help_lists_every_option_with_its_default_and_meaning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # one line an option
    with pytest.raises(SystemExit) as end:
        read("--help")
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    stages = [f"train.stages.{f.name}" for f in dataclasses.fields(StageConfig)]
    for name in [*option_names(config_to_dict(Config())), *stages]:
        number = next(number for number, line in enumerate(lines) if line.startswith(f"  --{name} "))
        about = " ".join(lines[number : number + 2]).split(name, 1)[1]  # a long name stands on a line of its own
        assert "(default: " in about or name == "train.stages", about
        assert len(about.split("(default: ")[0].split()) > 4, f"{name} is not explained: {about}"


def test_print_config_can_be_loaded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read("--print_config", "--train.seed=5", "--train.stages.lr=1e-4")
    printed = capsys.readouterr().out
    assert end.value.code == 0 and yaml.safe_load(printed)["train"]["seed"] == 5
    (tmp_path / "printed.yaml").write_text(printed)
    assert read("--config", str(tmp_path / "printed.yaml")) == read("--train.seed=5", "--train.stages.lr=1e-4")


def test_heads_must_divide_the_hidden_size() -> None:
    for name in ("attention", "transformer"):
        with pytest.raises(UserError, match=r"decoder\.hidden_size \(12\) must be a multiple of decoder\.heads \(8\)"):
            read(tiny_decoder(name, hidden_size=12, heads=8))
    with pytest.raises(UserError, match=r"decoder\.hidden_size \(9\) must be even"):
        read(tiny_decoder("transformer", hidden_size=9, heads=3))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--decoder.name=lstm", "--decoder.heads=4"],
            r"'decoder\.heads' for decoder\.name 'lstm' .*it has name, hid",
        ),
        (["--decoder.name=lstm", "--decoder.layers=4"], r"'decoder\.layers' for decoder\.name 'lstm'"),
        ([tiny_decoder("transformer"), "--decoder.embed_size=99"], r"'decoder\.embed_size' for decoder\.name 'transf"),
    ],
)
def test_an_option_of_another_decoder_is_refused(words: list[str], message: str) -> None:
    """Such options were accepted and had no effect."""
    with pytest.raises(UserError, match=message):
        read(*words)


def test_a_section_on_the_command_line_replaces_that_of_the_file(from_yaml: Callable[..., Config]) -> None:
    text = "decoder: {name: attention, heads: 4, hidden_size: 64}"
    with pytest.raises(UserError, match=r"decoder\.heads"):
        from_yaml(text, "--decoder.name=lstm")
    config = from_yaml(text, "--decoder={name: lstm}", "--decoder.embed_size=32")
    assert config.decoder == LSTMConfig(embed_size=32)


def test_the_options_of_all_decoders_in_an_older_checkpoint_are_read() -> None:
    old = config_to_dict(Config())
    old["decoder"] = {"name": "lstm", "embed_size": 64, "hidden_size": 32, "heads": 8, "layers": 3, "dropout": 0.5}
    old["encoder"] = {"weights": "resnet50_keras.pth", "layout": "original"}
    config = config_from_dict(old)
    assert config.decoder == LSTMConfig(embed_size=64, hidden_size=32)
    assert config.encoder == ResNet50Config(weights="resnet50_keras.pth", layout="original")


@pytest.mark.parametrize(
    ("weights", "layout"), [("imagenet", "original"), ("bundled", "original"), ("IMAGENET1K_V2", "torchvision")]
)
def test_the_layout_is_that_of_the_weights(weights: str, layout: str) -> None:
    encoder = read(f"--encoder={{weights: {weights}}}").encoder
    assert isinstance(encoder, ResNet50Config) and encoder.layout == layout
