"""Draws a scene: the background, then the things with their shadows, then water in front of them."""

import io
import random

from PIL import Image, ImageFilter

from tools.draw_sample import places
from tools.draw_sample.pen import RGB, SCALE, Pen, cut_out, mix
from tools.draw_sample.scenes import AIRBORNE, Scene
from tools.draw_sample.things import DRAWERS, FEET

Position = tuple[float, float, float]  # middle (x, y) and half width of a thing, as fractions of the image

SIDE = 128  # pixels; small enough to bundle 900 images, large enough to recognise what they show
QUALITY = 60  # of the JPEG: 900 images take about 2 MB, and edges are still clean

PAINT: dict[str, RGB] = {
    "red": (224, 40, 44),
    "yellow": (250, 200, 20),
    "green": (20, 150, 70),
    "blue": (24, 88, 224),
    "purple": (148, 44, 178),
    "black": (40, 40, 48),
}
SHADOW: RGB = (96, 96, 96)  # how much darker the ground is under a thing, of 255
JUMP = 0.15  # height of a jumping thing above the ground
WATERLINE = 0.56  # where the water meets the hull, in the boat's own coordinates
CROWD = 0.53  # largest half width of a thing as a fraction of its room: neighbours may touch, but not hide each other
# Half the width of a thing, as a fraction of the image, for one, two and three of them.
SIZES = {1: (0.27, 0.33), 2: (0.21, 0.235), 3: (0.16, 0.175)}


def draw_scene(scene: Scene) -> Image.Image:
    """The image of a scene: RGB, 128 x 128 pixels, the same on every call."""
    rng = random.Random(scene.seed)
    side = SIDE * SCALE
    place = places.paint(scene.place, scene.relation, side, rng, boats=scene.thing == "boat")
    left, right = _draw_behind(place, scene, rng)
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    shadows = Image.new("RGB", (side, side), (0, 0, 0))
    positions = _positions(scene, left, right, rng)
    flip = rng.random() < 0.5  # all face the same way
    for position in positions:
        _draw_thing(layer, scene, position, flip, rng)
        x, y, size = position
        if scene.action not in AIRBORNE and scene.thing not in ("boat", "fish"):
            lift = JUMP if scene.action == "jump" else 0.0
            Pen(shadows, size=side).oval(x, y + FEET * size + lift, size * (0.75 if lift else 0.95), 0.022, SHADOW)
    if scene.relation == "ball":
        x = 0.87 if left < 0.1 else 0.13
        places.ball(Pen(layer, size=side), x, 0.82)
        Pen(shadows, size=side).oval(x, 0.9, 0.09, 0.018, SHADOW)
    mask = shadows.convert("L").filter(ImageFilter.GaussianBlur(SCALE))
    image = Image.composite(Image.new("RGB", (side, side), mix(places.NIGHT, (0, 0, 0), 0.3)), place.image, mask)
    cut = cut_out(layer, 1.1 * SCALE, places.WHITE)
    image.paste(cut, mask=cut.getchannel("A"))
    for position in positions:
        _draw_water(image, place, scene, position)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _draw_behind(place: places.Place, scene: Scene, rng: random.Random) -> tuple[float, float]:
    """Draw the tree or the house behind; return the left and right border of what remains free for the things."""
    left, right = 0.03, 0.97
    on_the_left = rng.random() < 0.5
    if scene.relation == "tree":
        places.tree(place, scene.place, 0.14 if on_the_left else 0.86, rng.uniform(0.74, 0.78))
    elif scene.relation == "house":
        places.house(place, rng.uniform(0.3, 0.7), 0.72)
    if scene.relation in ("tree", "ball"):
        left, right = (0.24, right) if on_the_left else (left, 0.76)
    elif scene.action in AIRBORNE and scene.relation in ("sun", "moon"):
        left, right = (0.2, right) if place.light_on_the_left else (left, 0.8)  # nothing may cover them
    return left, right


def _positions(scene: Scene, left: float, right: float, rng: random.Random) -> list[Position]:
    """The position of every thing; those in the foreground come last."""
    room = (right - left) / scene.count
    size = min(rng.uniform(*SIZES[scene.count]), room * CROWD)
    low, high = _height_range(scene, size)
    slack = max(0.0, room / 2 - 1.1 * size)
    positions = [
        (left + room * (i + 0.5) + rng.uniform(-slack, slack), rng.uniform(low, high), size) for i in range(scene.count)
    ]
    return sorted(positions, key=lambda position: position[1])


def _height_range(scene: Scene, size: float) -> tuple[float, float]:
    """The range of y for the middle of a thing, as fractions of the image."""
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


def _draw_thing(layer: Image.Image, scene: Scene, position: Position, flip: bool, rng: random.Random) -> None:
    """One thing in its colour, with a random shade and tilt."""
    x, y, size = position
    paint = PAINT[scene.colour]
    shade = rng.uniform(-1, 1)  # black varies less, or it would be grey
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


def _draw_water(image: Image.Image, place: places.Place, scene: Scene, position: Position) -> None:
    """Water in front of a boat's hull, and where a fish has jumped out of the lake."""
    x, y, size = position
    foam, water = place.tone(places.WHITE, 0.2), place.tone((150, 208, 216))
    pen = Pen(image, x * image.width, y * image.height, size * image.width)
    if scene.action == "sail":
        for fill, lift in ((foam, 0.0), (water, 0.06)):
            crests = [(-1.1 + 0.22 * i, WATERLINE + lift + (0.05 if i % 2 else -0.03)) for i in range(11)]
            pen.blob([*crests, (1.0, WATERLINE + 0.22), (0.0, WATERLINE + 0.28), (-1.0, WATERLINE + 0.22)], fill)
    elif scene.action == "leap":
        pen = Pen(image, x * image.width, 0.8 * image.height, size * image.width)
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


def jpeg(image: Image.Image) -> bytes:
    """The content of the image's JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
