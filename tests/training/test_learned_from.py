"""A run records in its checkpoints what its model has learnt from, also if it began before there was such a record."""

from pathlib import Path

import torch

from data.captions import read_captions
from models.checkpoint import load_checkpoint
from tests.support.training import FROZEN, Learn, last


def test_checkpoints_record_what_their_model_has_learnt_from(learn: Learn, tiny_data: Path, folder: Path) -> None:
    learn()
    assert load_checkpoint(folder / "checkpoints.pth")["learned_from"] == last(folder)["learned_from"] == "photographs"
    old = last(folder)
    del old["learned_from"]
    torch.save(old, folder / "checkpoints_last.pth")
    drawn = folder.parent / "drawn.csv"
    read_captions(tiny_data / "captions.csv", 0).assign(medium="drawing").to_csv(drawn, index=False)
    more = f"--train.stages=[{FROZEN}, {FROZEN.replace('frozen', 'more')}]"
    learn(f"--data.captions_file={drawn}", more, "--resume=auto")
    assert last(folder)["learned_from"] == "drawings"
