"""Make a data set of the size of COCO from a small one, to measure what such a size costs. Nothing is downloaded.

    python -m tools.simulate_coco DIR                                    # 118,000 images: 2 GB, from Flickr8k
    python -m tools.simulate_coco DIR --images 1000 --captions 5000
    python -m data.prepare coco DIR/annotations/captions_train2017.json DIR/annotations/captions_val2017.json
    python -m tools.benchmark --start configs/coco_attention.yaml DIR/simulated.yaml

DIR has COCO's layout: train2017/, val2017/ and annotations/. What is realistic: the number of files, each with a
content of its own; the order of the captions, which is not that of the images; their lengths; the number of distinct
words (24,000, of which 9,000 occur five times). A caption is the beginning of one and the end of another that share a
word; in one of ten, a word is replaced by an invented one, whose frequencies follow Zipf's law.

What is not: there are fewer distinct n-grams (1.4 million). A picture is one of a few (its file is that of a photo,
followed by a number, which decoders ignore), and no caption describes its image, so nothing can be learnt. With
simulated.yaml pictures are scaled to 32 pixels: the cached features of an image take 4 KB instead of 200, and are
computed 40 times as fast.
"""

import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

if not __package__:  # started as `python tools/simulate_coco.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, positive_int, run_script, say
from files import atomic_open, write_json

IMAGES, CAPTIONS = 118_000, 590_000  # of COCO's training split
VALIDATION = 24  # training images for each one of validation: COCO has 5,000
PER_IMAGE = 5  # captions of a validation image
PICTURES = 100  # distinct ones: enough for the usual variety of sizes
RARE = 0.1  # share of the captions with an invented word: together they have as many words as COCO's
INVENTED = 60_000  # different words that can be invented
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
SEED = 0


def recombined(captions: Sequence[str], generator: random.Random) -> Iterator[str]:
    """Endlessly many captions: the beginning of one up to a word, and the end of another from that word on."""
    split = [caption.split() for caption in captions if len(caption.split()) > 1]
    places: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)  # word -> (caption, position)
    for number, words in enumerate(split):
        for position, word in enumerate(words[1:], start=1):
            places[word].append((number, position))
    while True:
        beginning = generator.choice(split)
        cut = generator.randrange(1, len(beginning))
        other, position = generator.choice(places[beginning[cut]])
        words = beginning[:cut] + split[other][position:]
        if generator.random() < RARE:
            words[generator.randrange(len(words))] = invented(generator)
        yield " ".join(words)


def invented(generator: random.Random) -> str:
    """A word that Flickr8k does not have; the word of rank r is drawn with a probability of about 1 / r."""
    rank = int(INVENTED ** generator.random())
    word = "qu"
    while rank:
        rank, syllable = divmod(rank, len(SYLLABLES))
        word += SYLLABLES[syllable]
    return word


def write_pictures(folder: Path, pictures: Sequence[Path], ids: range) -> list[dict[str, Any]]:
    """One file for each id, with a content of its own.

    Returns:
        COCO's entries of these images.
    """
    contents = [(path.suffix, path.read_bytes()) for path in pictures]
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in ids:
        suffix, content = contents[number % len(contents)]
        name = f"{number:012}{suffix}"
        (folder / name).write_bytes(content + b"%d" % number)
        entries.append({"id": number, "file_name": name})
    return entries


def simulate(folder: Path, captions_file: Path, image_dir: Path, images: int, captions: int) -> None:
    """Write the data set into ``folder``.

    Raises:
        UserError: there is something in the folder already, or the captions file cannot be read.
    """
    from data.captions import read_captions, references_of

    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty. Name a new folder")
    references = references_of(read_captions(captions_file, 0), "train")
    pictures = [image_dir / name for name in islice(references, PICTURES)]
    generator = random.Random(SEED)
    texts = recombined([text for its in references.values() for text in its], generator)
    validation = max(images // VALIDATION, 2)
    counts = {"train2017": (range(images), captions), "val2017": (range(images, images + validation), 0)}
    for split, (ids, count) in counts.items():
        entries = write_pictures(folder / split, pictures, ids)
        annotations = [
            {"id": number, "image_id": ids[number % len(ids)], "caption": text}
            for number, text in enumerate(islice(texts, count or PER_IMAGE * len(ids)))
        ]
        write_json(folder / "annotations" / f"captions_{split}.json", {"images": entries, "annotations": annotations})
        say(f"{split}: {len(entries):,} images, {len(annotations):,} captions")
    import yaml  # after the options are read, as every package

    places = {"captions_file": "annotations/all_captions.csv", "image_dir": ".", "feature_cache": "features"}
    data = {name: str(folder / place) for name, place in places.items()} | {"image_size": 32}
    with atomic_open(folder / "simulated.yaml") as file:
        yaml.safe_dump({"data": data, "output_dir": str(folder / "run")}, file, sort_keys=False)


def main(argv: list[str]) -> None:
    """Make the data set and print how to use it."""
    parser = OptionParser("python -m tools.simulate_coco", __doc__)
    add = parser.add_argument
    flickr8k = Path("data/flickr8k")
    add("folder", type=Path, metavar="DIR", help="a new folder for the data set")
    add("--images", type=positive_int, default=IMAGES, metavar="N", help="training images (default: %(default)s)")
    add("--captions", type=positive_int, default=CAPTIONS, metavar="N", help="of them (default: %(default)s)")
    add(
        "--captions_file",
        type=Path,
        default=flickr8k / "captions.csv",
        metavar="FILE",
        help="captions to recombine (default: %(default)s)",
    )
    add(
        "--image_dir",
        type=Path,
        default=flickr8k / "images",
        metavar="DIR",
        help="pictures to repeat (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if options.images < 2 or options.captions < options.images:
        raise UserError("--images and --captions: at least 2 images, and a caption for each")
    simulate(options.folder, options.captions_file, options.image_dir, options.images, options.captions)
    files = " ".join(f"{options.folder}/annotations/captions_{split}2017.json" for split in ("train", "val"))
    say(
        f"Next: python -m data.prepare coco {files}",
        f"then: python -m tools.benchmark --start configs/coco_attention.yaml {options.folder / 'simulated.yaml'}",
    )


if __name__ == "__main__":
    run_script(main)
