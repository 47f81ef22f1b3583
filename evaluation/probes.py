"""Do captions say true things? Three probes of the words that references can confirm: colours, numbers and objects.

A word of a caption is right if a reference of the image has it, or a word of the same meaning. That is a lower bound:
people do not name everything that is there, and may name it by a word that no row has (a child who is a boy).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.tokenizer import WORDS
from evaluation.bootstrap import INTERVAL

# Words with the same meaning in one row; the first is the one that is counted.
COLOURS = (
    "black", "white", "brown tan beige", "red maroon", "blue", "green", "yellow", "orange", "pink", "purple violet",
    "gray grey silver", "blond blonde",
)  # fmt: skip
NUMBERS = ("one", "two couple pair both", "three", "four", "five", "several six group crowd many")
OBJECTS = (
    "man men guy guys gentleman male males", "woman women lady ladies female females", "boy boys", "girl girls",
    "child children kid kids toddler baby", "dog dogs puppy puppies", "cat cats", "horse horses", "bird birds",
    "ball balls football basketball baseball", "bike bikes bicycle bicycles", "motorcycle motorcycles motorbike",
    "car cars truck van vehicle", "boat boats kayak canoe raft", "surfboard surfer surfing surfs",
    "skateboard skateboarder skateboarding", "snowboard snowboarder snowboarding", "ski skis skier skiers skiing",
    "swing swings swinging", "slide slides", "rope ropes", "frisbee", "toy toys", "stick sticks", "camera cameras",
    "guitar guitars", "hat hats cap caps", "helmet helmets", "sunglasses glasses goggles", "shirt shirts tshirt",
    "jacket jackets coat coats", "dress dresses skirt", "jeans pants shorts", "uniform uniforms",
    "water lake river ocean sea pool pond stream waves wave", "beach sand sandy shore", "snow snowy",
    "grass grassy lawn", "field meadow", "mountain mountains hill cliff", "rock rocks rocky boulder",
    "tree trees forest woods", "road street", "fence fences",
    "building buildings house", "bench benches", "stairs steps", "wall walls",
)  # fmt: skip
PROBES = {"colour": COLOURS, "number": NUMBERS, "object": OBJECTS}


@dataclass(frozen=True)
class Probe:
    """Of N images, how many words each caption has that the probe knows, and how many of them are right: (N,)."""

    mentioned: np.ndarray
    right: np.ndarray

    @property
    def precision(self) -> float:
        """The share of words that are right; nan where no caption has any."""
        return float(self.right.sum() / self.mentioned.sum()) if self.mentioned.any() else float("nan")


def probe(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, Probe]:
    """The name of each of ``PROBES`` -> what it finds.

    Args:
        captions: image name -> caption, English, of the images in ``references``.
    """
    tokens = {name: WORDS.tokenize(captions[name]) for name in references}
    known = {name: [word for each in its for word in WORDS.tokenize(each)] for name, its in references.items()}
    found = {}
    for kind, rows in PROBES.items():
        meaning = {word: row.split()[0] for row in rows for word in row.split()}
        said = [{meaning[word] for word in words if word in meaning} for words in tokens.values()]
        true = [{meaning[word] for word in words if word in meaning} for words in known.values()]
        right = [len(mine & theirs) for mine, theirs in zip(said, true, strict=True)]
        found[kind] = Probe(np.array([len(mine) for mine in said]), np.array(right))
    return found


def difference(first: Probe, other: Probe, counts: np.ndarray) -> list[float]:
    """The 95 % interval [low, high] of other's precision minus first's, both on the same resamples of the images.

    Args:
        counts: (R, N), from ``bootstrap.resample_counts``.
    """
    ours, theirs = (counts @ each.right / np.maximum(counts @ each.mentioned, 1) for each in (first, other))
    interval: list[float] = np.percentile(theirs - ours, INTERVAL).tolist()
    return interval
