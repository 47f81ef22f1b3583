"""Draws the bundled sample: `python -m tools.draw_sample.draw` writes data/sample/images/*.jpg and captions.csv.

A dataset that travels inside the repository lets everybody train, score and look at captions within minutes and without a network.
`scenes` says what each picture shows, `places` paints where, `things` draws what; here they are put together.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageFilter

from tools.draw_sample import places
from tools.draw_sample.pen import RGB, SCALE, Pen, cut_out, mix
from tools.draw_sample.scenes import AIRBORNE, COLOURS, PLURALS, THINGS, Scene, captions, names_main_thing, scenes
from tools.draw_sample.things import DRAWERS, FEET

__all__ = [
    "COLOURS",
    "PLURALS",
    "THINGS",
    "Scene",
    "captions",
    "captions_csv",
    "draw",
    "jpeg",
    "main",
    "names_main_thing",
    "scenes",
]

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "data" / "sample" / "images"
CAPTIONS_FILE = ROOT / "captions.csv"

Spot = tuple[float, float, float]  # middle (x, y) and half width of a thing, as shares of the picture

SIDE = 128  # pixels; small enough to bundle 900 of them, large enough to look at
QUALITY = 60  # JPEG: 900 pictures stay near 2 MB, and the edges still look clean

PAINT: dict[str, RGB] = {
    "red": (224, 40, 44),
    "yellow": (250, 200, 20),
    "green": (20, 150, 70),
    "blue": (24, 88, 224),
    "purple": (148, 44, 178),
    "black": (40, 40, 48),
}
SHADOW: RGB = (96, 96, 96)  # how dark the ground gets under a thing, of 255
JUMP = 0.15  # how far a jumping thing is off the ground
WATERLINE = 0.56  # where the water cuts the hull, in the boat's own coordinates
CROWD = 0.53  # of its room is the most a thing may take to each side: neighbours may touch, not hide each other
# Half the width of a thing, as a share of the picture, for one, two and three of them.
SIZES = {1: (0.27, 0.33), 2: (0.21, 0.235), 3: (0.16, 0.175)}


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 160 x 160 pixels, the same one on every call."""
    rng = random.Random(scene.seed)
    side = SIDE * SCALE
    place = places.paint(scene.place, scene.relation, side, rng, boats=scene.thing == "boat")
    left, right = _furnish(place, scene, rng)
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    shadows = Image.new("RGB", (side, side), (0, 0, 0))
    spots = _spots(scene, left, right, rng)
    flip = rng.random() < 0.5  # a herd looks one way
    for spot in spots:
        _draw_thing(layer, scene, spot, flip, rng)
        x, y, size = spot
        if scene.action not in AIRBORNE and scene.thing not in ("boat", "fish"):
            lift = JUMP if scene.action == "jump" else 0.0
            Pen(shadows, size=side).oval(x, y + FEET * size + lift, size * (0.75 if lift else 0.95), 0.022, SHADOW)
    if scene.relation == "ball":
        x = 0.87 if left < 0.1 else 0.13
        places.ball(Pen(layer, size=side), x, 0.82)
        Pen(shadows, size=side).oval(x, 0.9, 0.09, 0.018, SHADOW)
    mask = shadows.convert("L").filter(ImageFilter.GaussianBlur(SCALE))
    picture = Image.composite(Image.new("RGB", (side, side), mix(places.NIGHT, (0, 0, 0), 0.3)), place.image, mask)
    cut = cut_out(layer, 1.1 * SCALE, places.WHITE)
    picture.paste(cut, mask=cut.getchannel("A"))
    for spot in spots:
        _wet(picture, place, scene, spot)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _furnish(place: places.Place, scene: Scene, rng: random.Random) -> tuple[float, float]:
    """Puts up the tree or the house behind; returns the left and right border of what remains free for the things."""
    left, right = 0.03, 0.97
    on_the_left = rng.random() < 0.5
    if scene.relation == "tree":
        places.tree(place, scene.place, 0.14 if on_the_left else 0.86, rng.uniform(0.74, 0.78))
    elif scene.relation == "house":
        places.house(place, rng.uniform(0.3, 0.7), 0.72)
    if scene.relation in ("tree", "ball"):
        left, right = (0.24, right) if on_the_left else (left, 0.76)
    elif scene.action in AIRBORNE and scene.relation in ("sun", "moon"):
        left, right = (0.2, right) if place.light_on_the_left else (left, 0.8)  # nothing flies in front of them
    return left, right


def _spots(scene: Scene, left: float, right: float, rng: random.Random) -> list[Spot]:
    """Where every thing goes; those in front come last."""
    room = (right - left) / scene.count
    size = min(rng.uniform(*SIZES[scene.count]), room * CROWD)
    low, high = _height(scene, size)
    slack = max(0.0, room / 2 - 1.1 * size)
    spots = [
        (left + room * (i + 0.5) + rng.uniform(-slack, slack), rng.uniform(low, high), size) for i in range(scene.count)
    ]
    return sorted(spots, key=lambda spot: spot[1])


def _height(scene: Scene, size: float) -> tuple[float, float]:
    """How high the middle of a thing can be: from, to, as shares of the picture from the top."""
    if scene.action in AIRBORNE:
        return (0.4, 0.48) if scene.count == 1 else (0.3, 0.52)
    if scene.action == "swim":
        return (0.4, 0.56) if scene.count == 1 else (0.32, 0.64)
    if scene.action == "leap":
        return (0.44, 0.52)
    if scene.action == "sail":
        return (0.8 - WATERLINE * size - 0.06, 0.8 - WATERLINE * size)
    lift = JUMP if scene.action == "jump" else 0.0
    return (0.86 - FEET * size - lift, 0.92 - FEET * size - lift)


def _draw_thing(layer: Image.Image, scene: Scene, spot: Spot, flip: bool, rng: random.Random) -> None:
    """One thing in its paint, a little different every time."""
    x, y, size = spot
    paint = PAINT[scene.colour]
    shade = rng.uniform(-1, 1)  # black gets no lighter by much, or it would be grey
    paint = mix(
        paint, (255, 255, 255) if shade > 0 else (0, 0, 0), abs(shade) * (0.06 if scene.colour == "black" else 0.1)
    )
    tilt = rng.uniform(-4, 4)
    if scene.action in ("jump", "leap"):
        tilt += -16 if scene.action == "jump" else -34
    elif scene.action == "sit" or scene.thing == "car":
        tilt = 0.0
    pen = Pen(layer, x * layer.width, y * layer.height, size * layer.width, flip=flip, tilt=tilt)
    DRAWERS[scene.thing](pen, paint, scene.action)


def _wet(picture: Image.Image, place: places.Place, scene: Scene, spot: Spot) -> None:
    """Water in front of a boat's hull, and where a fish has left the lake."""
    x, y, size = spot
    foam, water = place.tone(places.WHITE, 0.2), place.tone((150, 208, 216))
    pen = Pen(picture, x * picture.width, y * picture.height, size * picture.width)
    if scene.action == "sail":
        for fill, lift in ((foam, 0.0), (water, 0.06)):
            crests = [(-1.1 + 0.22 * i, WATERLINE + lift + (0.05 if i % 2 else -0.03)) for i in range(11)]
            pen.blob([*crests, (1.0, WATERLINE + 0.22), (0.0, WATERLINE + 0.28), (-1.0, WATERLINE + 0.22)], fill)
    elif scene.action == "leap":
        pen = Pen(picture, x * picture.width, 0.8 * picture.height, size * picture.width)
        for radius, fill in ((0.75, foam), (0.62, water), (0.4, foam), (0.3, water)):
            pen.oval(0, 0, radius, radius * 0.22, fill)
        for dx, dy, radius in (
            (-0.5, -0.25, 0.07),
            (-0.3, -0.42, 0.05),
            (0.0, -0.3, 0.07),
            (0.3, -0.45, 0.05),
            (0.5, -0.22, 0.08),
        ):
            pen.oval(dx, dy, radius, radius * 1.3, foam)


def jpeg(picture: Image.Image) -> bytes:
    """The picture as the bytes of its JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def captions_csv(sample: Sequence[Scene]) -> str:
    """The text of captions.csv: one row a caption."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("image", "caption", "split"))
    for scene in sample:
        writer.writerows((scene.image, caption, scene.split) for caption in captions(scene))
    return buffer.getvalue()


def main() -> None:
    """Writes all pictures and captions.csv, replacing what is there."""
    sample = scenes()
    IMAGES.mkdir(parents=True, exist_ok=True)
    for old in IMAGES.glob("sample_*.jpg"):
        old.unlink()
    for scene in sample:
        (IMAGES / scene.image).write_bytes(jpeg(draw(scene)))
    CAPTIONS_FILE.write_text(captions_csv(sample), encoding="utf-8", newline="")
    size = sum(path.stat().st_size for path in IMAGES.glob("sample_*.jpg"))
    print(
        f"{len(sample)} pictures, {size / 1e6:.2f} MB in {IMAGES.relative_to(ROOT)}; captions in {CAPTIONS_FILE.name}"
    )


if __name__ == "__main__":
    main()
