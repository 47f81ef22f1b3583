"""What the bundled images show, and the captions that five people could write about each.

A scene is a few facts (two red dogs run on the beach under the sun). `draw_scene` turns the facts into an image and
`captions` turns the same facts into five sentences, so a caption never mentions anything that cannot be seen.

Validation and test images are new, but every combination of thing, colour and place in them also occurs in training, in
other images. The sample therefore tests generalisation to new images, not to new combinations.
"""

import csv
import io
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

IMAGES_PER_THING = 150  # x 6 things = 900 images
CAPTIONS_PER_IMAGE = 5
NO_RELATION = "alone"

COLOURS = ("red", "yellow", "green", "blue", "purple", "black")

# Where each thing can be, and what it can be seen doing there.
LAND = ("field", "beach", "snow", "street")
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "dog": dict.fromkeys(LAND, ("run", "run", "sit", "jump")),
    "bird": {**dict.fromkeys(LAND, ("fly", "fly", "stand")), "lake": ("fly",)},
    "car": dict.fromkeys(LAND, ("drive", "drive", "park")),
    "boat": {"lake": ("sail",), "beach": ("sail",)},
    "fish": {"sea": ("swim",), "lake": ("leap",)},
    "balloon": dict.fromkeys((*LAND, "lake"), ("float",)),
}
THINGS = tuple(ACTIONS)

PLURALS = {thing: f"{thing}s" for thing in THINGS} | {"fish": "fish"}
SYNONYMS = {"boat": ("sailboat", "sailboats")}
NUMBERS = {1: "a", 2: "two", 3: "three"}

# (is ...-ing, does, do); the first is the most common wording, and sampled most often.
VERBS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "run": (("running", "runs", "run"),),
    "jump": (("jumping", "jumps", "jump"),),
    "sit": (("sitting", "sits", "sit"),),
    "fly": (("flying", "flies", "fly"),),
    "stand": (("standing", "stands", "stand"),),
    "drive": (("driving", "drives", "drive"),),
    "park": (("parked", "stands", "stand"),),
    "sail": (("sailing", "sails", "sail"),),
    "swim": (("swimming", "swims", "swim"),),
    "leap": (("jumping", "jumps", "jump"),),
    "float": (("floating", "floats", "float"), ("flying", "flies", "fly")),
}
# Wordings for a place, the most common one first. Actions in MOTION replace the preposition.
PLACES: dict[str, tuple[str, ...]] = {
    "field": ("on the grass", "in a grassy field", "in the meadow"),
    "beach": ("on the beach", "on a sandy beach", "on the sand"),
    "snow": ("in the snow", "on a snowy hill"),
    "street": ("on the street", "on a city street", "on the road"),
    "lake": ("on the lake", "on a calm lake", "on the water"),
    "sea": ("in the sea", "in the water", "under the water"),
}
MOTION: dict[str, tuple[str, ...]] = {
    "run": ("", "across"),
    "drive": ("", "across"),
    "fly": ("over", "above"),
    "float": ("over", "above"),
    "leap": ("out of",),
}
AIRBORNE = ("fly", "float")
RELATIONS: dict[str, tuple[str, ...]] = {
    "sun": ("under the sun", "in the sunshine"),
    "moon": ("under the moon", "at night"),
    "tree": ("next to a tree", "beside a tree", "by a tree"),
    "house": ("in front of a house", "next to a house"),
    "ball": ("with a ball",),
}
# Sentence templates; repetitions are relative frequencies.
TEMPLATES = ("is", "is", "is", "does", "does", "there", "noun", "noun", "the", "place", "picture")
USUAL = 0.62  # probability of the most common wording: people agree on most words, not on all


@dataclass(frozen=True)
class Scene:
    """The facts of one image. `seed` fixes all random details of the drawing and the wording."""

    image: str
    split: str
    thing: str
    colour: str
    count: int
    action: str
    place: str
    relation: str
    seed: int


def make_scenes(seed: int = 0) -> list[Scene]:
    """All scenes of the sample, ordered by file name; the same seed gives the same list on every machine."""
    rng = random.Random(seed)
    facts: list[tuple[str, str, str]] = []
    for thing in THINGS:
        triples = [(thing, colour, place) for place in ACTIONS[thing] for colour in COLOURS]
        rng.shuffle(triples)  # 150 is not a multiple of the triples: chance decides which occur once more
        facts += [triples[i % len(triples)] for i in range(IMAGES_PER_THING)]
    rng.shuffle(facts)
    splitter = random.Random(f"split {seed}")
    known: set[tuple[str, str, str]] = set()
    result = []
    for number, (thing, colour, place) in enumerate(facts, start=1):
        # The first image of a (thing, colour, place) is for training, so that val and test have no new combinations.
        split = (
            splitter.choices(("train", "val", "test"), weights=(80, 10, 10))[0]
            if (thing, colour, place) in known
            else "train"
        )
        known.add((thing, colour, place))
        action = rng.choice(ACTIONS[thing][place])
        result.append(
            Scene(
                image=f"sample_{number:04d}.jpg",
                split=split,
                thing=thing,
                colour=colour,
                count=rng.choices((1, 2, 3), weights=(78, 15, 7))[0],
                action=action,
                place=place,
                relation=rng.choice(_possible_relations(thing, action, place)),
                seed=rng.randrange(2**31),
            )
        )
    return result


def _possible_relations(thing: str, action: str, place: str) -> list[str]:
    """What else can be in the image; repetitions are relative frequencies, and nothing else is the most common."""
    if place == "sea":
        return [NO_RELATION]
    relations = [NO_RELATION, NO_RELATION, "sun", "moon"]
    if action not in AIRBORNE and place in LAND and thing != "boat":
        relations += ["tree", "tree"]
        if place in ("field", "snow"):
            relations += ["house", "house"]
    if thing == "dog":
        relations += ["ball", "ball"]
    return relations


def captions(scene: Scene) -> list[str]:
    """Five different captions of the scene, as five people might write them."""
    rng = random.Random(scene.seed)
    result: list[str] = []
    templates: list[str] = []
    while len(result) < CAPTIONS_PER_IMAGE:
        if not templates:
            templates = rng.sample(TEMPLATES, len(TEMPLATES))
        template = templates.pop()
        if template == "place" and scene.action == "leap":
            continue  # "out of the lake, a fish is jumping" is unnatural
        sentence = _sentence(scene, template, rng, USUAL)
        if sentence not in result:
            result.append(sentence)
    return result


def canonical(scene: Scene) -> str:
    """The plainest caption of the scene, in which every wording is the most common one."""
    return _sentence(scene, "is", random.Random(0), 1.0)


def _sentence(scene: Scene, template: str, rng: random.Random, usual: float) -> str:
    def pick(options: tuple[str, ...]) -> str:
        return options[0] if len(options) == 1 or rng.random() < usual else rng.choice(options[1:])

    one = scene.count == 1
    form = 0 if one else 1
    noun = (scene.thing, PLURALS[scene.thing])[form]
    if scene.thing in SYNONYMS and rng.random() > usual:
        noun = SYNONYMS[scene.thing][form]
    subject = f"{NUMBERS[scene.count]} {scene.colour} {noun}"
    be = "is" if one else "are"
    verbs = VERBS[scene.action]
    ing, does, do = verbs[0] if len(verbs) == 1 or rng.random() < usual else verbs[1]
    where = pick(PLACES[scene.place])
    motion = "near" if scene.thing == "boat" and scene.place == "beach" else pick(MOTION.get(scene.action, ("",)))
    if motion:
        where = f"{motion} {where.split(maxsplit=1)[1]}"
    relation = pick(RELATIONS[scene.relation]) if scene.relation != NO_RELATION else ""
    # Not everybody mentions the second object.
    if template not in ("is", "picture", "noun") and usual < 1 and rng.random() < 0.3:
        relation = ""
    sentence = {
        "is": f"{subject} {be} {ing} {where} {relation}",
        "does": f"{subject} {does if one else do} {where} {relation}",
        "there": f"there {be} {subject} {ing} {where} {relation}",
        "noun": f"{subject} {ing} {where} {relation}",
        "the": f"the {'' if one else NUMBERS[scene.count] + ' '}{scene.colour} {noun} {be} {ing} {where} {relation}",
        "place": f"{where}, {subject} {be} {ing} {relation}",
        "picture": f"a picture of {subject} {ing} {where} {relation}",
    }[template]
    sentence = " ".join(sentence.split())
    return f"{sentence[0].upper()}{sentence[1:]}."


def names_main_thing(caption: str, scene: Scene) -> bool:
    """Whether a caption names the main thing (singular, plural or synonym) and its colour, and no other of either.

    A comparison of words only, but enough to count how often a model recognises what an image shows.
    """
    words = set(re.findall(r"[a-z]+", caption.lower()))
    right = {scene.thing, PLURALS[scene.thing], *SYNONYMS.get(scene.thing, ())}
    other_things = {word for thing in THINGS for word in (thing, PLURALS[thing], *SYNONYMS.get(thing, ()))} - right
    other_colours = set(COLOURS) - {scene.colour}
    return bool(words & right) and scene.colour in words and not words & (other_things | other_colours)


def captions_csv(scenes: Sequence[Scene]) -> str:
    """The text of captions.csv: one row per caption. Its ``medium`` tells a trained model what it has learnt from."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("image", "caption", "split", "medium"))
    for scene in scenes:
        writer.writerows((scene.image, caption, scene.split, "drawing") for caption in captions(scene))
    return buffer.getvalue()
