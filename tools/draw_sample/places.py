"""Backgrounds: sky, ground, and objects such as trees. Their colours are pale, so that the main object stands out.

Coordinates are fractions of the image: (0, 0) is the top left corner, (1, 1) the bottom right one.
"""

import math
import random

from PIL import Image

from tools.draw_sample.pen import RGB, Pen, Point, gradient, lighter, mix, ring

NIGHT: RGB = (44, 50, 104)
WHITE: RGB = (255, 253, 247)


class Place:
    """One background while it is painted: the image, the time of day and the random numbers."""

    def __init__(self, side: int, night: bool, rng: random.Random) -> None:
        self.side, self.night, self.rng = side, night, rng
        self.image = Image.new("RGB", (side, side))
        self.pen = Pen(self.image, size=side)
        self.light_on_the_left = rng.random() < 0.5  # sun or moon, if the scene has one

    def tone(self, colour: RGB, share: float = 0.5) -> RGB:
        """The colour by day, or darkened by night."""
        return mix(colour, NIGHT, share) if self.night else colour

    def fill(self, top: float, bottom: float, above: RGB, below: RGB) -> None:
        """A horizontal band with a vertical gradient."""
        y = round(top * self.side)
        self.image.paste(gradient((self.side, round(bottom * self.side) - y), above, below), (0, y))

    def ridge(self, y: float, height: float, fill: RGB, waves: float = 1.5) -> None:
        """A rolling line of hills around `y`, filled down to the bottom."""
        phase = self.rng.uniform(0, 2 * math.pi)
        top = [(x / 24, y + height * math.sin(phase + 2 * math.pi * waves * x / 24)) for x in range(25)]
        self.pen.polygon([(0, 1), *top, (1, 1)], fill)

    def cloud(self, x: float, y: float, size: float) -> None:
        """Four puffs."""
        for dx, dy, radius in ((-1, 0.1, 0.5), (-0.3, -0.2, 0.7), (0.5, -0.05, 0.6), (1.1, 0.15, 0.4)):
            self.pen.oval(x + dx * size, y + dy * size, radius * size, radius * size * 0.75, self.tone(WHITE, 0.62))

    def sky(self, relation: str, horizon: float) -> None:
        """The sky, with the sun, or the moon and stars, if the scene has them."""
        rng = self.rng
        if self.night:
            self.fill(0, horizon, (56, 62, 118), (128, 132, 186))
            for _ in range(16):
                size = rng.uniform(0.003, 0.008)
                self.pen.oval(rng.uniform(0.02, 0.98), rng.uniform(0.02, horizon - 0.1), size, size, (255, 246, 205))
        else:
            shift = rng.uniform(0, 0.25)
            self.fill(
                0,
                horizon,
                mix((150, 205, 238), (186, 210, 244), shift * 4),
                mix((226, 242, 250), (255, 236, 214), shift * 3),
            )
            for _ in range(rng.randint(1, 2)):
                self.cloud(rng.uniform(0.1, 0.9), rng.uniform(0.07, 0.26), rng.uniform(0.05, 0.08))
        x = rng.uniform(0.13, 0.19) if self.light_on_the_left else rng.uniform(0.81, 0.87)
        y = rng.uniform(0.13, 0.17)
        if relation == "sun":
            for i in range(12):
                angle = math.radians(30 * i)
                self.pen.line(
                    [(x + r * math.cos(angle), y + r * math.sin(angle)) for r in (0.12, 0.155)], 0.016, (255, 208, 92)
                )
            self.pen.oval(x, y, 0.097, 0.097, (255, 208, 92))
            self.pen.oval(x, y, 0.08, 0.08, (255, 226, 128))
        elif relation == "moon":
            self.pen.oval(x, y, 0.12, 0.12, (92, 98, 154))
            self.pen.oval(x, y, 0.092, 0.092, (255, 244, 208))
            for dx, dy, radius in ((-0.03, -0.02, 0.02), (0.03, 0.03, 0.025), (0.025, -0.04, 0.012)):
                self.pen.oval(x + dx, y + dy, radius, radius, (236, 222, 186))

    def scatter(self, count: int, top: float, bottom: float) -> list[Point]:
        """Random positions, the far ones first."""
        return sorted(
            ((self.rng.uniform(0.03, 0.97), self.rng.uniform(top, bottom)) for _ in range(count)),
            key=lambda spot: spot[1],
        )


def _field(place: Place) -> None:
    place.ridge(0.56, 0.05, place.tone((196, 220, 172)))
    place.ridge(0.63, 0.025, place.tone((178, 212, 134)), waves=1.0)
    for x, y in place.scatter(26, 0.68, 0.98):
        place.pen.line([(x - 0.012, y - 0.03), (x, y), (x + 0.012, y - 0.03)], 0.007, place.tone((142, 188, 104)))
    for x, y in place.scatter(7, 0.7, 0.98):
        for dx, dy in ((0.011, 0), (-0.011, 0), (0, 0.011), (0, -0.011)):
            place.pen.oval(x + dx, y + dy, 0.009, 0.009, place.tone(WHITE, 0.35))
        place.pen.oval(x, y, 0.007, 0.007, place.tone((250, 210, 110), 0.3))


def _beach(place: Place, shore: float = 0.66) -> None:
    place.fill(0.47, 1, place.tone((134, 204, 214)), place.tone((176, 228, 226)))
    ripples(place, 8, 0.5, shore - 0.04)
    place.ridge(shore - 0.02, 0.012, place.tone(WHITE), waves=1.2)
    sand = [(0, 1), (0, shore), (0.3, shore + 0.012), (0.7, shore - 0.004), (1, shore + 0.01), (1, 1)]
    place.pen.polygon(sand, place.tone((246, 226, 178), 0.4))
    for x, y in place.scatter(30, shore + 0.05, 0.99):
        place.pen.oval(x, y, 0.006, 0.004, place.tone((222, 194, 138)))
    for x, y in place.scatter(3, 0.9, 0.97):  # shells
        place.pen.oval(x, y, 0.022, 0.026, place.tone((252, 240, 228)), start=180, end=360)
        place.pen.line([(x, y - 0.02), (x, y - 0.004)], 0.004, place.tone((226, 190, 170)))


def _snow(place: Place) -> None:
    place.ridge(0.52, 0.06, place.tone((214, 226, 240)), waves=1.2)
    for x in (0.08, 0.2, 0.78, 0.93):
        fir(place, x + place.rng.uniform(-0.04, 0.04), 0.63, place.rng.uniform(0.1, 0.14))
    place.ridge(0.62, 0.03, place.tone((246, 249, 253), 0.42), waves=0.8)
    place.ridge(0.86, 0.02, place.tone((234, 241, 250), 0.42), waves=1.1)
    for x, y in place.scatter(34, 0.02, 0.98):
        place.pen.oval(x, y, 0.008, 0.008, place.tone(WHITE, 0.12))


def _street(place: Place) -> None:
    rng, x = place.rng, -0.05
    walls = ((238, 216, 196), (222, 214, 226), (232, 226, 206), (214, 224, 228), (240, 206, 190))
    while x < 1:
        width, top = rng.uniform(0.17, 0.26), rng.uniform(0.24, 0.4)
        place.pen.polygon([(x, top), (x + width, top), (x + width, 0.7), (x, 0.7)], place.tone(rng.choice(walls)))
        place.pen.polygon(
            [(x, top), (x + width, top), (x + width, top + 0.02), (x, top + 0.02)], place.tone((178, 164, 160))
        )
        for row in range(4):
            for column in range(2):
                left, up = x + width * (0.2 + 0.38 * column), top + 0.06 + 0.1 * row
                glass: RGB = (250, 226, 150) if place.night and rng.random() < 0.6 else place.tone((184, 206, 216))
                place.pen.polygon(
                    [(left, up), (left + width * 0.22, up), (left + width * 0.22, up + 0.055), (left, up + 0.055)],
                    glass,
                )
        x += width
    place.fill(0.64, 0.71, place.tone((226, 220, 212)), place.tone((208, 202, 196)))
    place.fill(0.71, 1, place.tone((166, 166, 174)), place.tone((150, 150, 160)))
    start = rng.uniform(-0.2, 0)
    for i in range(5):
        left = start + 0.28 * i
        place.pen.polygon(
            [(left + 0.02, 0.9), (left + 0.16, 0.9), (left + 0.14, 0.925), (left, 0.925)], place.tone(WHITE, 0.3)
        )


def _lake(place: Place) -> None:
    for x, height in ((0.1, 0.16), (0.42, 0.22), (0.8, 0.18)):
        peak = x + place.rng.uniform(-0.06, 0.06)
        place.pen.polygon([(peak - 0.3, 0.56), (peak, 0.54 - height), (peak + 0.3, 0.56)], place.tone((190, 204, 220)))
        cap = [
            (peak - 0.068, 0.585 - height),
            (peak, 0.54 - height),
            (peak + 0.068, 0.585 - height),
            (peak + 0.02, 0.572 - height),
        ]
        place.pen.polygon(cap, place.tone(WHITE))
    place.ridge(0.53, 0.015, place.tone((178, 204, 168)), waves=2.5)
    place.fill(0.56, 1, place.tone((158, 208, 218)), place.tone((112, 178, 198)))
    ripples(place, 16, 0.6, 0.98)
    side = place.rng.choice((0.0, 0.9))
    for i in range(5):  # reeds
        x, y = side + 0.022 * i, 0.74 + place.rng.uniform(0, 0.08)
        place.pen.line([(x, 1), (x + 0.008, y)], 0.009, place.tone((132, 164, 104)))
        place.pen.oval(x + 0.008, y, 0.011, 0.034, place.tone((150, 112, 84)))


def _sea(place: Place) -> None:
    place.fill(0, 1, (172, 232, 226), (84, 168, 182))
    for _ in range(3):  # beams of light
        x = place.rng.uniform(0, 0.9)
        place.pen.polygon([(x, 0), (x + 0.1, 0), (x - 0.02, 0.8), (x - 0.22, 0.8)], (168, 226, 222))
    place.fill(0.8, 0.84, (124, 200, 204), (110, 188, 196))
    place.ridge(0.85, 0.02, (236, 220, 178))
    for x in (0.06, 0.14, 0.86, 0.94):
        sway, tall = place.rng.uniform(0.015, 0.03), place.rng.uniform(0.22, 0.4)
        weed = [(x + sway * (-1) ** i, 0.92 - tall * i / 5) for i in range(6)]
        place.pen.stroke(weed, 0.026, place.rng.choice(((92, 170, 140), (124, 184, 132))))
    for _ in range(9):
        x, y, size = place.rng.uniform(0.04, 0.96), place.rng.uniform(0.05, 0.75), place.rng.uniform(0.008, 0.02)
        place.pen.oval(x, y, size, size, (226, 248, 246))
        place.pen.oval(x, y, size * 0.7, size * 0.7, (176, 228, 226))


def ripples(place: Place, count: int, top: float, bottom: float) -> None:
    """Light strokes on water, longer in the foreground."""
    for x, y in place.scatter(count, top, bottom):
        half = 0.02 + 0.05 * (y - 0.45)
        place.pen.stroke([(x - half, y), (x, y - 0.006), (x + half, y)], 0.007, place.tone((232, 248, 248), 0.3))


def fir(place: Place, x: float, y: float, size: float) -> None:
    """A snowy fir with its base at (x, y); `size` is half its height."""
    pen = place.pen
    pen.line([(x, y), (x, y - size * 0.4)], size * 0.22, place.tone((150, 120, 100)))
    for i, half in enumerate((0.75, 0.6, 0.42)):
        foot = y - size * (0.3 + 0.52 * i)
        pen.polygon(
            [(x - size * half, foot), (x, foot - size * 0.85), (x + size * half, foot)], place.tone((126, 168, 152))
        )
        tip = [
            (x - size * half * 0.45, foot - size * 0.47),
            (x, foot - size * 0.85),
            (x + size * half * 0.45, foot - size * 0.47),
        ]
        pen.polygon(tip, place.tone(WHITE, 0.3))


def tree(place: Place, kind: str, x: float, y: float) -> None:
    """A tall tree with its base at (x, y): a fir in the snow, a palm on the beach, a broad-leaved tree elsewhere."""
    pen = place.pen
    trunk = place.tone((166, 128, 98))
    if kind == "snow":
        fir(place, x, y, 0.28)
    elif kind == "beach":
        pen.stroke([(x, y), (x + 0.01, y - 0.2), (x + 0.03, y - 0.42)], 0.04, trunk)
        for turn in (-170, -140, -95, -45, -10, 25, 155):
            dx, dy = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            leaf = [
                (x + 0.03, y - 0.43),
                (x + 0.03 + 0.1 * dx, y - 0.47 + 0.08 * dy),
                (x + 0.03 + 0.19 * dx, y - 0.4 + 0.14 * dy),
            ]
            pen.stroke(leaf, 0.036, place.tone((138, 182, 122)))
    else:
        pen.line([(x, y), (x, y - 0.3)], 0.05, trunk)
        for dx, dy, radius in ((0, -0.4, 0.15), (-0.08, -0.34, 0.1), (0.08, -0.34, 0.1)):
            pen.oval(x + dx, y + dy, radius, radius, place.tone((146, 188, 128)))
        pen.oval(x - 0.04, y - 0.44, 0.07, 0.06, place.tone((172, 206, 150)))


def house(place: Place, x: float, y: float) -> None:
    """A cottage, 0.5 wide, with the middle of its base at (x, y)."""
    pen = place.pen
    roof = place.tone((176, 140, 128))
    pen.polygon(
        [(x + 0.1, y - 0.4), (x + 0.16, y - 0.4), (x + 0.16, y - 0.25), (x + 0.1, y - 0.25)],
        place.tone((190, 160, 150)),
    )
    pen.polygon([(x - 0.22, y), (x - 0.22, y - 0.24), (x + 0.22, y - 0.24), (x + 0.22, y)], place.tone((250, 238, 216)))
    pen.polygon([(x - 0.27, y - 0.23), (x, y - 0.45), (x + 0.27, y - 0.23)], roof)
    glass: RGB = (255, 228, 140) if place.night else (200, 224, 232)
    for dx in (-0.13, 0.13):
        pen.polygon(
            [
                (x + dx - 0.055, y - 0.2),
                (x + dx + 0.055, y - 0.2),
                (x + dx + 0.055, y - 0.09),
                (x + dx - 0.055, y - 0.09),
            ],
            glass,
        )
        pen.line([(x + dx, y - 0.2), (x + dx, y - 0.09)], 0.01, place.tone(WHITE, 0.3))
    pen.polygon([(x - 0.045, y), (x - 0.045, y - 0.16), (x + 0.045, y - 0.16), (x + 0.045, y)], roof)


def ball(pen: Pen, x: float, y: float) -> None:
    """A white beach ball with grey-pink panels. `pen` decides on which layer, since it is in the foreground."""
    pen.oval(x, y, 0.08, 0.08, lighter((236, 196, 184), 0.8))
    for start in (20, 140, 260):
        pen.polygon([(x, y), *ring(x, y, 0.08, 0.08, start=start, end=start + 60)], (222, 160, 150))
    pen.oval(x, y, 0.018, 0.018, WHITE)


def paint(kind: str, relation: str, side: int, rng: random.Random, boats: bool = False) -> Place:
    """The background of an image of `side` x `side` pixels. `boats` moves the shore down: more water to sail on."""
    place = Place(side, relation == "moon", rng)
    if kind == "sea":
        _sea(place)
        return place
    place.sky(relation, 0.7)
    if kind == "beach" and boats:
        _beach(place, 0.88)
    else:
        {"field": _field, "beach": _beach, "snow": _snow, "street": _street, "lake": _lake}[kind](place)
    return place
