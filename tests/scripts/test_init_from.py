"""``--init_from``: a new run begins with weights and words of a checkpoint; and what it refuses."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from data.vocab import SPECIAL
from models.checkpoint import load_checkpoint
from tests.support.helpers import draw, write_csv
from tests.support.training import FILES, Interrupted, Learn, Refused, contents, last, read_log, weights
from training.initial import inherit

STILL = "--train.stages=[{name: still, epochs: 1, lr: 1e-12}]"
NEW_WORDS = {"disc", "shown"}


@pytest.fixture
def first(learn: Learn, tmp_path: Path) -> Path:
    """The folder of a run to begin from."""
    return learn(to=tmp_path / "first")


@pytest.fixture
def others(tiny_data: Path, tmp_path: Path) -> str:
    """The option for captions of the same images in other words: "one" is missing, NEW_WORDS are new."""
    text = (tiny_data / "captions.csv").read_text().replace("circle", "disc").replace("One", "Shown")
    path = tmp_path / "others.csv"
    path.write_text(text)
    return f"--data.captions_file={path}"


def test_weights_are_those_of_the_checkpoint_word_by_word(learn: Learn, first: Path, others: str) -> None:
    folder = learn(STILL, others, f"--init_from={first}", "--train.ema=0")
    before, after = (load_checkpoint(path / "checkpoints.pth") for path in (first, folder))
    known = len(before["vocab"])
    assert after["vocab"][:known] == before["vocab"] and set(after["vocab"][known:]) == NEW_WORDS
    assert {"circle", "one"} <= set(after["vocab"])  # words of the checkpoint alone are kept
    for name, tensor in before["model"].items():
        got = after["model"][name]
        if got.shape == tensor.shape:
            if "norm.running" not in name and "num_batches" not in name:  # the LSTM's batch norm follows the images
                torch.testing.assert_close(got, tensor, rtol=0, atol=1e-6)
        else:
            assert len(got) == known + 2, name
            torch.testing.assert_close(got[:known], tensor, rtol=0, atol=1e-6)
            assert got[known:].isfinite().all() and not torch.equal(got[known], got[known + 1])


def test_null_takes_back_the_checkpoint_of_a_yaml_file(learn: Learn, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("init_from: nowhere.pth")
    assert last(learn(f"--config={file}", "--init_from=null", "--device=cpu"))["config"]["init_from"] is None


def test_what_the_run_began_from_is_recorded(learn: Learn, first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = learn(f"--init_from={first}", STILL)
    words = len(load_checkpoint(first / "checkpoints.pth")["vocab"]) - len(SPECIAL)
    printed = capsys.readouterr()
    assert f"starting from {first / 'checkpoints.pth'}, with its {words} words; new: 0" in printed.out
    assert "images are scaled to" not in printed.err
    assert yaml.safe_load((folder / "resolved_config.yaml").read_text())["init_from"] == str(first)
    assert last(folder)["config"]["init_from"] == str(first)


def test_another_image_size_is_told(learn: Learn, first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn(f"--init_from={first}", STILL, "--data.image_size=64")
    note = "note: images are scaled to 64 pixels (data.image_size), those of the checkpoint to 32"
    assert note in capsys.readouterr().err


def test_the_architecture_comes_from_the_checkpoint(
    learn: Learn, refused: Refused, first: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("decoder: {dropout: 0.25}\ntrain: {stages: [{epochs: 1}]}\ndevice: cpu")
    folder = learn(f"--init_from={first}", "--decoder={}", "--generate={}", "--encoder={}", f"--config={file}")
    found, expected = last(folder)["config"], last(first)["config"]
    assert found["decoder"] == expected["decoder"] | {"dropout": 0.5}
    assert (found["encoder"], found["generate"]) == (expected["encoder"], expected["generate"])
    for option, shown in (
        ("--decoder.hidden_size=9", "decoder.hidden_size (8 -> 9)"),
        ("--decoder={name: attention}", "decoder.name (lstm -> attention)"),
        ("--encoder.weights=IMAGENET1K_V1", "encoder.weights (none -> IMAGENET1K_V1)"),
        ("--encoder.layout=original", "encoder.layout (torchvision -> original)"),
    ):
        error = refused(f"--init_from={first}", option)
        assert f"its weights do not fit these options: {shown}. Leave them out" in error


def test_only_the_command_line_names_other_weights_for_the_encoder(first: Path) -> None:
    """The recipes do, too, but those weights would be replaced."""
    values = {"init_from": str(first), "encoder": {"weights": "imagenet"}}
    assert inherit(values, {}, None)["encoder"]["weights"] == "none"
    assert inherit(values, {"encoder": {"weights": "imagenet"}}, None)["encoder"]["weights"] == "imagenet"


def test_a_run_begun_from_a_checkpoint_is_resumed_by_the_same_command(
    learn: Learn, interrupted: Interrupted, first: Path, others: str, folder: Path
) -> None:
    """Also when the checkpoint it began from is gone."""
    options = (others, f"--init_from={first / 'checkpoints.pth'}", "--decoder={}")
    whole = learn(*options, "--resume=auto", to=folder.with_name("whole"))
    interrupted(3, *options)
    shutil.move(first, first.with_name("elsewhere"))
    learn(*options, "--resume=auto")
    assert contents(folder).keys() == FILES and read_log(folder)["epoch"].tolist() == [1, 2]
    got = weights(folder)
    assert all(torch.equal(got[name], tensor) for name, tensor in weights(whole).items())


def test_resuming_and_beginning_are_told_apart(learn: Learn, refused: Refused, first: Path) -> None:
    folder = learn()
    assert "the run began without it" in refused("--resume=auto", f"--init_from={first}")
    learn(f"--init_from={first}")
    assert f"an option that is missing: --init_from {first}" in refused("--resume=auto")
    assert "the run began with --i" in refused("--resume=auto", f"--init_from={folder}")


@pytest.mark.parametrize("name", ["nowhere.pth", "."])
def test_what_is_no_checkpoint_is_refused(
    refused: Refused, name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the repository may hold a checkpoints.pth
    assert f"--init_from {name}: no such checkpoint. Name a checkpoint, or the folder" in refused(f"--init_from={name}")
    assert not folder.exists()


def test_the_encoder_alone_can_come_from_a_checkpoint(learn: Learn, first: Path, folder: Path) -> None:
    learn(f"--encoder.weights={first / 'checkpoints.pth'}", "--train.seed=1")
    one, other = weights(first), weights(folder)
    assert all(torch.equal(tensor, one[name]) for name, tensor in other.items() if name.startswith("encoder"))
    assert not torch.equal(one["decoder.output.weight"], other["decoder.output.weight"])


def test_a_checkpoint_of_characters_is_refused_for_words(learn: Learn, refused: Refused, tmp_path: Path) -> None:
    rows = [(f"{number}.jpg", "一个红色的圆形", split) for number, split in enumerate(["train", "train", "val"])]
    for name, _, _ in rows:
        draw(tmp_path / name, "circle", "red")
    write_csv(tmp_path / "zh.csv", rows)
    data = (f"--data.captions_file={tmp_path / 'zh.csv'}", f"--data.image_dir={tmp_path}")
    learned = learn(*data, "--data.tokenizer=characters", "--train.batch_size=2", to=tmp_path / "zh")
    assert "generates characters, but these captions consist of words" in refused(f"--init_from={learned}")
