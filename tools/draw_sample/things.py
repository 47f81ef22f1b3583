"""The six things an image can show, each drawn in its own coordinates: about 2 wide, feet at y = FEET, facing right.

The shapes differ as much as possible (wheels, sails, wings, hanging ears), because a small network has to learn them in
two minutes. Every thing has one colour, with a lighter and a darker shade of it.
"""

from collections.abc import Callable, Sequence

from tools.draw_sample.pen import RGB, Pen, Point, darker, lighter

FEET = 0.7  # where a thing touches the ground
INK: RGB = (38, 34, 46)
WHITE: RGB = (255, 253, 247)
BEAK: RGB = (250, 165, 60)
ROSE: RGB = (246, 158, 160)
WOOD: RGB = (150, 106, 70)
GLASS: RGB = (214, 238, 246)


def mirrored(points: Sequence[Point]) -> list[Point]:
    """The points reflected at x = 0: the other half of a symmetric shape."""
    return [(-x, y) for x, y in points]


def _eye(pen: Pen, x: float, y: float, radius: float = 0.075) -> None:
    pen.oval(x, y, radius, radius * 1.15, WHITE)
    pen.oval(x + radius * 0.25, y + radius * 0.1, radius * 0.62, radius * 0.72, INK)
    pen.oval(x + radius * 0.45, y - radius * 0.25, radius * 0.2, radius * 0.2, WHITE)


def dog(pen: Pen, colour: RGB, action: str) -> None:
    """Long muzzle, hanging ear, a collar."""
    dark, light = darker(colour, 0.28), lighter(colour, 0.3)
    if action == "sit":
        pen.stroke([(-0.3, 0.55), (-0.62, 0.5), (-0.82, 0.2)], 0.15, dark)
        pen.line([(0.3, 0.0), (0.36, 0.62)], 0.17, dark)
        pen.blob(
            [(0.0, -0.4), (0.34, -0.2), (0.36, 0.25), (0.18, 0.62), (-0.3, 0.7), (-0.55, 0.5), (-0.36, 0.0)], colour
        )
        pen.oval(-0.22, 0.44, 0.3, 0.26, dark)
        pen.oval(-0.24, 0.42, 0.27, 0.24, colour)
        pen.line([(0.18, 0.0), (0.2, 0.6)], 0.19, colour)
        for x in (0.26, 0.43, -0.06):
            pen.oval(x, 0.64, 0.13, 0.07, light)
        pen.oval(0.3, 0.08, 0.09, 0.2, light)
        head_x, head_y = 0.2, -0.5
    else:
        tucked = action == "jump"
        legs = [(0.42, 0.1), (0.72, 0.22), (0.86, 0.1)] if tucked else [(0.42, 0.1), (0.66, 0.34), (0.92, 0.5)]
        hind = [(-0.45, 0.1), (-0.72, 0.4), (-0.98, 0.52)] if tucked else [(-0.45, 0.1), (-0.6, 0.42), (-0.92, 0.56)]
        near = [(x - 0.18, y + 0.1) for x, y in legs]
        near_hind = [(x + 0.2, y + 0.08) for x, y in hind]
        pen.stroke([(-0.55, -0.05), (-0.8, -0.2), (-0.95, -0.52)], 0.14, dark)
        for leg in (legs, hind):
            pen.stroke(leg, 0.16, dark)
        pen.blob(
            [
                (0.55, -0.3),
                (0.62, 0.05),
                (0.35, 0.28),
                (-0.2, 0.2),
                (-0.5, 0.24),
                (-0.66, 0.0),
                (-0.45, -0.22),
                (0.1, -0.2),
            ],
            colour,
        )
        pen.oval(0.3, 0.16, 0.24, 0.08, light, tilt=-8)
        for leg in (near, near_hind):
            pen.stroke(leg, 0.18, colour)
            pen.oval(leg[-1][0] + 0.03, leg[-1][1] + 0.01, 0.11, 0.08, light)
        head_x, head_y = 0.56, -0.42
    pen.line([(head_x - 0.2, head_y + 0.24), (head_x + 0.1, head_y + 0.3)], 0.1, WHITE)
    pen.oval(head_x + 0.28, head_y + 0.18, 0.08, 0.12, ROSE)
    pen.oval(head_x, head_y, 0.3, 0.27, colour)
    pen.oval(head_x + 0.27, head_y + 0.07, 0.21, 0.14, light)
    pen.oval(head_x + 0.44, head_y - 0.0, 0.08, 0.065, INK)
    _eye(pen, head_x + 0.1, head_y - 0.08)
    pen.blob(
        [
            (-0.1 + head_x, head_y - 0.24),
            (head_x - 0.02, head_y),
            (head_x - 0.16, head_y + 0.28),
            (head_x - 0.33, head_y + 0.1),
        ],
        dark,
    )


def bird(pen: Pen, colour: RGB, action: str) -> None:
    """Raised wings in the air, thin legs on the ground, and an orange beak."""
    dark, light = darker(colour, 0.3), lighter(colour, 0.35)
    if action == "fly":
        pen.blob([(0.3, 0.0), (0.42, -0.5), (0.3, -0.9), (0.08, -0.62), (-0.05, -0.1)], dark)
        pen.polygon([(-0.45, -0.02), (-0.98, -0.2), (-0.86, 0.02), (-0.98, 0.22), (-0.45, 0.16)], dark)
        pen.blob([(0.62, -0.06), (0.4, 0.26), (-0.1, 0.3), (-0.58, 0.08), (-0.2, -0.12), (0.3, -0.22)], colour)
        pen.oval(0.18, 0.18, 0.3, 0.1, light, tilt=-8)
        pen.polygon([(0.76, -0.24), (1.02, -0.1), (0.76, -0.02)], BEAK)
        pen.oval(0.58, -0.14, 0.25, 0.23, colour)
        _eye(pen, 0.66, -0.19)
        pen.blob([(0.22, 0.04), (0.1, -0.5), (-0.24, -0.98), (-0.42, -0.6), (-0.4, -0.2), (-0.16, 0.1)], light)
        for tip in ((-0.26, -0.62), (-0.3, -0.36)):
            pen.line([(0.02, -0.06), tip], 0.04, colour)
    else:
        for x in (-0.08, 0.14):
            pen.line([(x, 0.3), (x + 0.02, 0.64)], 0.06, BEAK)
            pen.line([(x - 0.08, 0.67), (x + 0.16, 0.67)], 0.06, BEAK)
        pen.polygon([(-0.35, 0.0), (-0.95, 0.16), (-0.92, 0.36), (-0.3, 0.32)], dark)
        pen.blob(
            [(0.36, -0.34), (0.46, 0.1), (0.2, 0.42), (-0.2, 0.42), (-0.5, 0.16), (-0.2, -0.14), (0.1, -0.42)], colour
        )
        pen.oval(0.26, 0.14, 0.16, 0.24, light, tilt=14)
        pen.polygon([(0.52, -0.56), (0.82, -0.42), (0.52, -0.34)], BEAK)
        pen.oval(0.3, -0.46, 0.3, 0.28, colour)
        pen.blob([(0.12, -0.02), (0.1, 0.24), (-0.2, 0.34), (-0.62, 0.26), (-0.2, -0.06)], dark)
        _eye(pen, 0.38, -0.52, 0.085)


def car(pen: Pen, colour: RGB, action: str) -> None:
    """Two big wheels and windows; a driving car has streaks of wind behind it."""
    dark, light = darker(colour, 0.25), lighter(colour, 0.4)
    if action == "drive":
        for y, start, end in ((-0.12, -1.42, -1.1), (0.1, -1.56, -1.12), (0.32, -1.4, -1.1)):
            pen.line([(start, y), (end, y)], 0.06, WHITE)
    pen.blob([(-0.72, 0.06), (-0.6, -0.3), (-0.4, -0.5), (0.16, -0.5), (0.4, -0.28), (0.66, 0.06)], colour)
    pen.polygon([(-0.55, -0.02), (-0.46, -0.28), (-0.34, -0.38), (-0.12, -0.38), (-0.12, -0.02)], GLASS)
    pen.polygon([(-0.02, -0.02), (-0.02, -0.38), (0.12, -0.38), (0.28, -0.24), (0.46, -0.02)], GLASS)
    pen.blob(
        [
            (-0.94, 0.02),
            (-0.4, -0.06),
            (0.5, -0.04),
            (0.9, 0.06),
            (0.98, 0.36),
            (0.7, 0.48),
            (-0.7, 0.48),
            (-0.98, 0.36),
        ],
        colour,
    )
    pen.line([(-0.9, 0.36), (0.9, 0.36)], 0.1, dark)
    pen.line([(-0.8, 0.08), (0.7, 0.08)], 0.05, light)
    pen.line([(-0.07, 0.0), (-0.07, 0.34)], 0.035, dark)
    pen.oval(0.88, 0.16, 0.08, 0.09, (255, 236, 170))
    pen.oval(-0.93, 0.16, 0.05, 0.08, ROSE)
    for x in (-0.52, 0.52):
        pen.oval(x, 0.45, 0.25, 0.25, INK)
        pen.oval(x, 0.45, 0.13, 0.13, (206, 208, 214))


def boat(pen: Pen, colour: RGB, action: str) -> None:
    """A coloured hull and main sail on a mast, a white foresail."""
    pen.line([(0.0, -0.95), (0.0, 0.25)], 0.07, WOOD)
    pen.blob([(0.0, -1.0), (-0.2, -0.94), (-0.34, -0.98), (-0.34, -0.84), (-0.2, -0.8), (0.0, -0.86)], ROSE)
    pen.polygon([(0.07, -0.92), (0.3, -0.6), (0.62, -0.1), (0.74, 0.12), (0.07, 0.12)], colour)
    for y, width in ((-0.46, 0.3), (-0.16, 0.48)):
        pen.line([(0.09, y), (0.08 + width, y)], 0.05, lighter(colour, 0.5))
    pen.polygon([(-0.07, -0.74), (-0.07, 0.12), (-0.62, 0.12)], WHITE)
    pen.blob(
        [(-0.96, 0.22), (-0.3, 0.26), (0.4, 0.26), (1.0, 0.16), (0.8, 0.5), (0.56, 0.72), (-0.6, 0.72), (-0.84, 0.5)],
        colour,
    )
    pen.line([(-0.84, 0.36), (0.84, 0.34)], 0.07, WHITE)
    pen.line([(-0.68, 0.56), (0.68, 0.56)], 0.16, darker(colour, 0.28))


def fish(pen: Pen, colour: RGB, action: str) -> None:
    """A fan-shaped tail, fins and stripes."""
    dark, light = darker(colour, 0.28), lighter(colour, 0.42)
    pen.blob(
        [(-0.45, -0.04), (-0.8, -0.44), (-1.0, -0.42), (-0.86, 0.0), (-1.0, 0.42), (-0.8, 0.44), (-0.45, 0.04)], dark
    )
    pen.blob([(0.3, -0.36), (0.1, -0.68), (-0.24, -0.7), (-0.34, -0.3)], dark)
    pen.blob([(0.12, 0.36), (-0.02, 0.62), (-0.22, 0.6), (-0.2, 0.32)], dark)
    pen.blob(
        [
            (0.88, 0.04),
            (0.62, -0.3),
            (0.2, -0.46),
            (-0.26, -0.36),
            (-0.6, 0.0),
            (-0.26, 0.36),
            (0.2, 0.46),
            (0.64, 0.3),
        ],
        colour,
    )
    for x, height in ((0.2, 0.38), (-0.08, 0.34), (-0.34, 0.2)):
        pen.stroke([(x, -height), (x - 0.09, 0.0), (x, height)], 0.09, light)
    pen.blob([(0.22, 0.04), (-0.02, -0.06), (-0.14, 0.14), (0.04, 0.24)], dark)
    _eye(pen, 0.54, -0.1, 0.1)
    pen.stroke([(0.84, 0.12), (0.74, 0.16), (0.66, 0.14)], 0.045, INK)


def balloon(pen: Pen, colour: RGB, action: str) -> None:
    """A striped hot-air balloon with its basket."""
    half = [(0.0, -0.98), (0.5, -0.84), (0.76, -0.36), (0.58, 0.1), (0.2, 0.5)]
    envelope = [*half, *mirrored(half[:0:-1])]
    for x in (-1, 1):
        pen.line([(x * 0.18, 0.48), (x * 0.13, 0.74)], 0.035, INK)
    for width, fill in ((1.0, colour), (0.7, lighter(colour, 0.28)), (0.38, colour)):
        pen.blob([(x * width, y) for x, y in envelope], fill)
    pen.line([(-0.18, 0.5), (0.18, 0.5)], 0.09, darker(colour, 0.3))
    pen.blob([(-0.17, 0.7), (0.17, 0.7), (0.15, 0.94), (-0.15, 0.94)], WOOD)
    pen.line([(-0.16, 0.73), (0.16, 0.73)], 0.06, lighter(WOOD, 0.4))


DRAWERS: dict[str, Callable[[Pen, RGB, str], None]] = {
    "dog": dog,
    "bird": bird,
    "car": car,
    "boat": boat,
    "fish": fish,
    "balloon": balloon,
}
