"""YAML and JSON that explode, nest, contain themselves, or hold values of the wrong kind."""

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.campaign.attack import CANARY, Attack, Content, writes
from tests.campaign.mutations import mutate

TRAIN = ("train", ("--config=bad.yaml", "--output_dir=run"))
KARPATHY = ("data.prepare", ("karpathy", "bad.json", "--image_dir=../world/many", "--output=out.csv"))
COCO = ("data.prepare", ("coco", "bad.json", "--image_dir=../world/many", "--output=out.csv"))
TABLE = ("data.prepare", ("table", "bad.json", "--image_dir=../world/many", "--output=out.csv"))
SCORE = ("evaluate", ("--predictions=bad.json", "--captions_file=../world/few.csv", "--output=metrics.json"))
REFERENCES = (
    "evaluate",
    ("--predictions=../world/captions.json", "--captions_file=bad.json", "--output=metrics.json"),
)

DEEP, LONG_NUMBER = 200_000, "9" * 20_000


def laughs(levels: int = 9) -> str:
    """a: [x, ...], b: [*a, ...], ...: ten to the power of ``levels`` values."""
    lines = ["l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for level in range(1, levels + 1):
        lines.append(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]")
    return "\n".join(lines)


YAML: dict[str, str | bytes] = {
    "billion laughs": laughs(),
    "billion laughs in an option": f"data:\n  image_dir: {{{laughs().replace(chr(10), ', ')}}}",
    "billion laughs of mappings": "\n".join(
        [
            "a0: &a0 {x: lol, y: lol}",
            *(f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(9))}}}" for n in range(1, 10)),
        ]
    ),
    "billion laughs by merging": "\n".join(
        ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
    ),
    "5000 nested mappings": "".join(f"{' ' * n}a:\n" for n in range(5000)),
    "20000 nested lists": "data: " + "[" * 20_000 + "]" * 20_000,
    "20000 open lists": "data: " + "[" * 20_000,
    "nested in braces": "{data: " * 20_000 + "}" * 20_000,
    "contains itself": "data: &a [*a]",
    "stages that contain themselves": "train: &t\n  stages: [*t]",
    "a tag that runs code": f"data: !!python/object/apply:os.system ['touch {CANARY}']",
    "a tag that makes an object": "data: !!python/object/new:tuple [[1]]",
    "an unknown tag": "data: !unknown {a: 1}",
    "no such date": "data: {captions_file: 2020-13-99}",
    "year 0": "output_dir: 0000-00-00",
    "a bad binary": "output_dir: !!binary '*'",
    "a mapping for a key": "? {a: b}\n: c",
    "a list for a key": "[a, b]: c",
    "a key that is a number": "1: 2",
    "a key that is null": "~: 2",
    "the same key twice": "device: cpu\ndevice: cuda",
    "a long number": f"train: {{seed: {LONG_NUMBER}}}",
    "a long number in hexadecimal": f"train: {{seed: 0x{LONG_NUMBER}}}",
    "not a number": "train: {weight_decay: .nan}",
    "infinite epochs": "train: {stages: [{epochs: .inf}]}",
    "1e999": "train: {grad_clip: 1e999}",
    "sixty to the power of many": "train: {seed: " + "1:" * 20_000 + "1}",
    "half a character": 'output_dir: "\\ud800"',
    "null in a path": 'output_dir: "a\\0b"',
    "escape sequences in a key": '"\\e[2J\\e[31m": 1',
    "a line end in a key": '"a\\nerror: fake": 1',
    "a key of a megabyte": f"{'k' * 1_000_000}: 1",
    "a value of a megabyte": f"device: {'v' * 1_000_000}",
    "an output folder of 5000 letters": f"output_dir: {'d' * 5000}",
    "100000 unknown keys": "\n".join(f"key{n}: 1" for n in range(100_000)),
    "10000 stages": "train: {stages: [" + ", ".join(f"{{name: s{n}, epochs: 0}}" for n in range(10_000)) + "]}",
    "two documents": "device: cpu\n---\ndevice: cpu",
    "an undefined anchor": "data: *nowhere",
    "text": "just text",
    "a list": "- 1\n- 2",
    "UTF-16": "device: cpus".encode("utf-16"),
    "not UTF-8": b"output_dir: caf\xe9\ndevice: tpu",
    "bytes": bytes(range(256)) * 20,
    "a tab": "data:\n\timage_size: 1",
    "no end": 'device: "cpu',
    "sizes beyond memory": "data: {image_size: 3200000000}\ndecoder: {hidden_size: 1000000000}",
}
WORDS = {  # options of the command line are YAML too
    "stages nested deeply": "--train.stages=" + "[" * 20_000,
    "a decoder nested deeply": "--decoder=" + "{a: " * 10_000,
    "laughs for a decoder": "--decoder={" + laughs(7).replace("\n", ", ") + "}",
    "a stage that contains itself": "--train.stages=&a [*a]",
    "an epoch of code": "--train.stages=[!!python/object/apply:os.getcwd []]",
    "an option with escapes": "--\x1b[2Jdata=1",
    "an option of 100000 letters": f"--{'o' * 100_000}=1",
    "a value that is not UTF-8": "--device=caf\udce9",
}
CAPTION = {"filename": "000.jpg", "split": "train", "sentences": [{"raw": "a red circle"}]}
JSON: dict[str, Content] = {
    "nested lists": "[" * DEEP + "]" * DEEP,
    "open lists": "[" * DEEP,
    "nested objects": '{"images":' * DEEP + "1" + "}" * DEEP,
    "nested in a sentence": json.dumps({"images": [CAPTION | {"sentences": "@"}]}).replace(
        '"@"', "[" * DEEP + "]" * DEEP
    ),
    "a long number": f'{{"images": [{LONG_NUMBER}]}}',
    "numbers that are none": '{"images": [NaN, Infinity, -1e999]}',
    "empty": "",
    "null": "null",
    "a text": '"text"',
    "cut off": '{"images": [{"filename": "a.jpg", "sen',
    "UTF-16": '{"images": []}'.encode("utf-16"),
    "bytes": bytes(range(256)) * 20,
    "a text of 20 MB": lambda: json.dumps({"images": "x" * 20_000_000}),
    "the same id twice": '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}',
}
WRONG = [None, 5, "x", [], {}, [None], [5], ["x"], {"a": 1}, True, 1e308, [[]]]


def karpathy(**changes: Any) -> str:
    return json.dumps({"images": [CAPTION | changes]})


def coco(image: dict[str, Any], annotation: dict[str, Any]) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "000.jpg"} | image],
            "annotations": [{"id": 1, "image_id": 1, "caption": "a"} | annotation],
        }
    )


def predictions(**changes: Any) -> str:
    return json.dumps([{"image": f"{number:03}.jpg", "caption": "a circle"} | changes for number in range(9, 12)])


ACCEPTED = {  # texts that may be converted or scored: what matters is what becomes of them
    "karpathy, half a character": (KARPATHY, karpathy(sentences=[{"raw": "half \ud800 a letter"}])),
    "karpathy, half a character in a name": (KARPATHY, karpathy(filename="\ud800.jpg")),
    "karpathy, escape sequences": (KARPATHY, karpathy(filename="\x1b[2J.jpg", sentences=[{"raw": "\x1b[31m"}])),
    "karpathy, out of the folder": (KARPATHY, karpathy(filename="../../../../etc/passwd")),
    "karpathy, an absolute name": (KARPATHY, karpathy(filename="/etc/passwd", filepath="/")),
    "karpathy, null in a name": (KARPATHY, karpathy(filename="a\0b.jpg")),
    "karpathy, a caption of 5 MB": (KARPATHY, lambda: karpathy(sentences=[{"raw": "word " * 1_000_000}])),
    "coco, out of the folder": (COCO, coco({"file_name": "../../x"}, {})),
    "coco, a formula": (COCO, coco({}, {"caption": "=HYPERLINK(1)"})),
    "predictions, half a character": (SCORE, predictions(caption="half \ud800 a letter")),
    "predictions, escape sequences": (SCORE, predictions(caption="\x1b[2J\n", image="\x1b[2J")),
    "predictions, a caption of 5 MB": (SCORE, lambda: predictions(caption="word " * 1_000_000)),
}


def mutated(folder: Path, rng: random.Random, text: str, name: str) -> None:
    (folder / name).write_bytes(mutate(text.encode("utf-8", "surrogatepass"), rng))


def attacks() -> Iterator[Attack]:
    for name, text in YAML.items():
        yield Attack(f"YAML: {name}", *TRAIN, writes("bad.yaml", text))
    for name, word in WORDS.items():
        yield Attack(f"options: {name}", "train", [word], writes("unused", ""))
    readers = (KARPATHY, COCO, SCORE, REFERENCES, TABLE)
    for name, text in JSON.items():
        for reader in readers[:2] if "object" in name else readers[2:]:
            yield Attack(f"JSON: {name}, {reader[1][0]}", *reader, writes("bad.json", text))
    for value in WRONG:
        for field in ("filename", "sentences", "split"):
            yield Attack(
                f"JSON: karpathy {field} {value!r}", *KARPATHY, writes("bad.json", karpathy(**{field: value})), True
            )
        yield Attack(
            f"JSON: coco id {value!r}", *COCO, writes("bad.json", coco({"id": value}, {"image_id": value})), True
        )
        yield Attack(f"JSON: coco images {value!r}", *COCO, writes("bad.json", json.dumps({"images": value})))
        yield Attack(f"JSON: prediction {value!r}", *SCORE, writes("bad.json", predictions(caption=value)), True)
    for name, (reader, text) in ACCEPTED.items():
        yield Attack(f"JSON: {name}", *reader, writes("bad.json", text), accepted=True)
    sources = {"bad.json": (KARPATHY, karpathy()), "bad.yaml": (TRAIN, "data: {image_size: 33}\ntrain: {seed: 1}\n")}
    for number in range(6):
        for file, (reader, text) in sources.items():
            make = partial(mutated, text=text, name=file)
            yield Attack(f"JSON: mutated {file} {number}", *reader, make, accepted=True)
