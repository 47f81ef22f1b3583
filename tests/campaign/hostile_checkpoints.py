"""Checkpoints of strangers: values that no training writes, structures without end, compressed gigabytes, code."""

import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.campaign.attack import CANARY, Attack, Make
from tests.campaign.mutations import mutate

Change = Callable[[dict[str, Any]], Any]  # of a checkpoint, in place
FILE = "bad.pth"
WORLD = Path("../world/model/checkpoints.pth")  # seen from the folder of an attack
NAN, INF = float("nan"), float("inf")
CAPTION = ("inference_visualize", (f"--checkpoint={FILE}", "--images=../world/photos/00.jpg", "--device=cpu"))
SCORE = (
    "evaluate",
    (f"--checkpoint={FILE}", "--captions_file=../world/few.csv", "--image_dir=../world/many", "--device=cpu"),
)
BEGIN = ("train", (f"--init_from={FILE}", "--captions_file=../world/few.csv", "--image_dir=../world/many"))
RESUME = ("train", (f"--resume={FILE}", "--captions_file=../world/few.csv", "--image_dir=../world/many"))
READERS = (CAPTION, CAPTION, SCORE, BEGIN, RESUME)

VALUES: dict[str, list[Any]] = {  # place in the checkpoint -> values
    "format_version": [-1, 10**30, "1", None],
    "transform": [None, [], "x", {}],
    "transform.image_size": [0, -32, "x", 3_200_000, 10**30, None, 1.5, NAN],
    "transform.mean": ["red", [], [NAN] * 3, [INF, 0, 0], [10**400] * 3, None, [[1, 2, 3]], [0.5]],
    "transform.std": [[0, 0, 0], [NAN] * 3, "x", [-1, 1, 1], [1e-320] * 3],
    "vocab": [None, "text", [], [1, 2, 3], ["<pad>"], {"a": 1}, [["<pad>"]], [b"<pad>"] * 4, 7],
    "model": [None, {}, [], "x", {"a": 1}, {1: torch.zeros(1)}],
    "config": [None, 5, [], "x", {"decoder": "lstm"}, {"data": None}, {"decoder": {"name": ["x"]}}],
    "config.data.image_size": [0, -32, 3_200_000, 10**30, "x", NAN],
    "config.encoder": [None, 3, {"name": "x"}, {"weights": 7}],
    "config.decoder.hidden_size": [10**9, 10**30, 0, -8, 2.5, "x"],
    "config.decoder.embed_size": [10**9, 0],
    "config.decoder.heads": [0, 10**9, -1],
    "config.generate.beam_size": [10**7, 0, -1, 10**30, "x"],
    "config.generate.max_length": [10**9, 0, 10**30],
    "config.generate.length_penalty": [NAN, INF, "x"],
    "config.generate.no_repeat_ngram": [-1, 1.5],
    "scales": [5, {"decoder.output.weight": torch.full((1,), NAN)}, {"nothing": torch.zeros(1)}, {1: 2}],
}


def with_value(place: str, value: Any) -> Change:
    *parents, last = place.split(".")

    def change(checkpoint: dict[str, Any]) -> None:
        inner = checkpoint
        for name in parents:
            inner = inner[name]
        inner[last] = value

    return change


def with_weights(change: Callable[[torch.Tensor], Any], name: str = "decoder.output.bias") -> Change:
    def change_checkpoint(checkpoint: dict[str, Any]) -> None:
        checkpoint["model"] = dict(checkpoint["model"])
        checkpoint["model"][name] = change(checkpoint["model"][name])

    return change_checkpoint


def with_one_nan(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().index_fill_(0, torch.tensor([3]), NAN)


def many_layers(checkpoint: dict[str, Any]) -> None:
    checkpoint["config"]["decoder"] = {"name": "transformer", "hidden_size": 8, "heads": 2, "layers": 100_000}


def contains_itself(checkpoint: dict[str, Any]) -> None:
    checkpoint["config"]["data"] = checkpoint["config"]


def deep(checkpoint: dict[str, Any]) -> None:
    for _ in range(300):  # pickle itself refuses to write a thousand
        checkpoint["config"] = {"data": checkpoint["config"]}


def many_words(checkpoint: dict[str, Any]) -> None:
    checkpoint["vocab"] = [str(number) for number in range(2_000_000)]


def one_word_of_a_book(checkpoint: dict[str, Any]) -> None:
    checkpoint["vocab"] = [*checkpoint["vocab"][:-1], "x" * 20_000_000]


def without(part: str) -> Change:
    return lambda checkpoint: checkpoint.pop(part)


CHANGES: dict[str, Change] = {
    "nan weights": with_weights(lambda tensor: tensor * NAN),
    "infinite weights": with_weights(lambda tensor: tensor + INF),
    "one nan in the encoder": with_weights(
        lambda t: t.clone().index_fill_(0, torch.tensor([3]), NAN), "encoder.stages.0.1.weight"
    ),
    "other shape": with_weights(lambda _: torch.zeros(7)),
    "no dimensions": with_weights(lambda _: torch.tensor(1.0)),
    "whole numbers": with_weights(lambda tensor: tensor.long()),
    "complex numbers": with_weights(lambda tensor: tensor.to(torch.complex64)),
    "sparse": with_weights(lambda tensor: tensor.to_sparse()),
    "a trillion weights in one byte": with_weights(lambda _: torch.zeros(1).expand(10**12)),
    "text for weights": with_weights(lambda _: "text"),
    "100000 layers": many_layers,
    "contains itself": contains_itself,
    "deep": deep,
    "many words": many_words,
    "a word of 20 MB": one_word_of_a_book,
    **{f"no {part}": without(part) for part in ("model", "config", "vocab", "transform", "format_version")},
    **{f"{place} = {value!r:.30}": with_value(place, value) for place, values in VALUES.items() for value in values},
}


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


def changed(change: Change) -> Make:
    """The world's checkpoint with one change."""

    def make(folder: Path, _: random.Random) -> None:
        checkpoint = torch.load(folder / WORLD, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, folder / FILE)

    return make


def code_in_place_of(name: str) -> Make:
    """The world's checkpoint with a pickle of code."""

    def make(folder: Path, _: random.Random) -> None:
        with zipfile.ZipFile(folder / WORLD) as old, zipfile.ZipFile(folder / FILE, "w") as new:
            for member in old.namelist():
                new.writestr(member, pickle.dumps(Code()) if member.endswith(name) else old.read(member))

    return make


def bare_pickle(folder: Path, _: random.Random) -> None:
    (folder / FILE).write_bytes(pickle.dumps({"format_version": Code()}))


def compressed(megabytes: int) -> Make:
    """A storage of zeros that is deflated: a thousandth of its size in the file."""

    def make(folder: Path, _: random.Random) -> None:
        zeros = bytes(2**20)
        with (
            zipfile.ZipFile(folder / WORLD) as old,
            zipfile.ZipFile(folder / FILE, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
        ):
            for member in old.namelist():
                if member.endswith("data/0"):
                    with new.open(member, "w", force_zip64=True) as storage:
                        for _ in range(megabytes):
                            storage.write(zeros)
                else:
                    new.writestr(member, old.read(member))

    return make


def mutated(folder: Path, rng: random.Random) -> None:
    """Damaged where it matters: in the pickle at the start, or in the directory at the end."""
    data = (folder / WORLD).read_bytes()
    head, tail = data[:30_000], data[-20_000:]
    if rng.random() < 0.5:
        head = mutate(head, rng)
    else:
        tail = mutate(tail, rng)
    (folder / FILE).write_bytes(head + data[30_000:-20_000] + tail)


def attacks() -> Iterator[Attack]:
    for number, (name, change) in enumerate(CHANGES.items()):
        yield Attack(f"checkpoint: {name}", *READERS[number % len(READERS)], changed(change))
    for number, name in enumerate(("data.pkl", "version")):
        yield Attack(
            f"checkpoint: code in {name}", *READERS[number], code_in_place_of(name), accepted=name == "version"
        )
    far = changed(with_value("config.data.feature_cache", "../elsewhere/cache"))
    yield Attack("checkpoint: a cache outside of the folder", *SCORE, far, accepted=True)
    yield Attack("checkpoint: a pickle of code", *CAPTION, bare_pickle)
    yield Attack("checkpoint: 1.5 GB of zeros, deflated", *CAPTION, compressed(1536))
    yield Attack("checkpoint: 600 MB of zeros, deflated", *SCORE, compressed(600))
    for number in range(16):
        yield Attack(f"checkpoint: mutated {number}", *READERS[number % len(READERS)], mutated, accepted=True)
