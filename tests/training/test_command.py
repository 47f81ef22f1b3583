"""Command lines to copy."""

from training.command import with_options


def test_options_are_replaced_however_they_were_typed() -> None:
    words = ["--resume", "a b.pth", "--train.stages.epochs=3", "--train.seed", "5", "--resume"]
    command = with_options(words, {"train.stages.epochs": 6, "output_dir": "my run"}, without=("resume",))
    assert command == "python train.py --train.seed 5 --train.stages.epochs 6 --output_dir 'my run'"


def test_all_values_of_an_option_that_is_kept_stay() -> None:
    assert (
        with_options(["--resume", "--decoder={name: lstm}"], {}) == "python train.py --resume '--decoder={name: lstm}'"
    )
