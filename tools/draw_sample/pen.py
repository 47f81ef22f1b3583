"""A pen that draws smooth shapes in an object's own coordinates, whatever its position and size in the image.

Every shape becomes a polygon before it is drawn, so that size, position, flip and tilt are one small affine map, and a
dog is described only once: x to the right and y down, about 2 wide, facing right.
"""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFilter

RGB = tuple[int, int, int]
Point = tuple[float, float]

SCALE = 4  # everything is drawn this much larger and then downscaled, which makes edges smooth
CURVE_STEPS = 8  # line segments between two points of a curve


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour that is `share` of the way from `a` to `b`."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def lighter(colour: RGB, share: float = 0.35) -> RGB:
    """The colour with some white in it."""
    return mix(colour, (255, 255, 255), share)


def darker(colour: RGB, share: float = 0.3) -> RGB:
    """The colour with some black in it."""
    return mix(colour, (0, 0, 0), share)


def curve(points: Sequence[Point], closed: bool) -> list[Point]:
    """A Catmull-Rom curve through the points."""
    n = len(points)
    result: list[Point] = []
    for i in range(n if closed else n - 1):
        if closed:
            p0, p1, p2, p3 = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        else:
            p0, p1, p2, p3 = (points[min(max(i + k, 0), n - 1)] for k in (-1, 0, 1, 2))
        for step in range(CURVE_STEPS):
            t = step / CURVE_STEPS
            a, b, c, d = -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2
            x, y = ((a * p0[k] + b * p1[k] + c * p2[k] + d * p3[k]) / 2 for k in (0, 1))
            result.append((x, y))
    return result if closed else [*result, points[-1]]


def ring(
    x: float, y: float, rx: float, ry: float, *, tilt: float = 0.0, start: float = 0.0, end: float = 360.0
) -> list[Point]:
    """Points on an ellipse or an arc of it; angles in degrees, clockwise from the right, as in Pillow."""
    turn = math.radians(tilt)
    result = []
    for i in range(41):
        angle = math.radians(start + (end - start) * i / 40)
        dx, dy = rx * math.cos(angle), ry * math.sin(angle)
        result.append((x + dx * math.cos(turn) - dy * math.sin(turn), y + dx * math.sin(turn) + dy * math.cos(turn)))
    return result


def gradient(size: tuple[int, int], top: RGB, bottom: RGB) -> Image.Image:
    """A vertical gradient from `top` to `bottom`."""
    mask = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), mask)


def cut_out(layer: Image.Image, width: float, paper: RGB) -> Image.Image:
    """The layer with a thin edge of colour `paper` around what is drawn, so that it stands out on any background."""
    grown = (
        layer.getchannel("A").filter(ImageFilter.GaussianBlur(width)).point(lambda a: min(255, max(0, (a - 40) * 8)))
    )
    edge = Image.new("RGBA", layer.size, (*paper, 255))
    edge.putalpha(grown)
    return Image.alpha_composite(edge, layer)


class Pen:
    """Draws on `image` around (x, y), in pixels of the image; one unit of the object's coordinates is `size` pixels."""

    def __init__(
        self,
        image: Image.Image,
        x: float = 0.0,
        y: float = 0.0,
        size: float = 1.0,
        *,
        flip: bool = False,
        tilt: float = 0.0,
    ) -> None:
        self.paper = ImageDraw.Draw(image)
        self.x, self.y, self.size, self.flip = x, y, size, flip
        self.cos, self.sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))

    def place(self, points: Sequence[Point]) -> list[Point]:
        """The points in pixels of the image: tilted, then flipped, then scaled, then moved."""
        result = []
        for x, y in points:
            across, down = x * self.cos - y * self.sin, x * self.sin + y * self.cos
            result.append((self.x + self.size * (-across if self.flip else across), self.y + self.size * down))
        return result

    def polygon(self, points: Sequence[Point], fill: RGB) -> None:
        """A filled polygon."""
        self.paper.polygon(self.place(points), fill=fill)

    def blob(self, points: Sequence[Point], fill: RGB) -> None:
        """A filled smooth closed curve through the points."""
        self.polygon(curve(points, closed=True), fill)

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: RGB,
        *,
        tilt: float = 0.0,
        start: float = 0.0,
        end: float = 360.0,
    ) -> None:
        """A filled ellipse, or the part of it between two angles, closed by a straight line."""
        self.polygon(ring(x, y, rx, ry, tilt=tilt, start=start, end=end), fill)

    def line(self, points: Sequence[Point], width: float, fill: RGB) -> None:
        """A polyline with round ends; `width` in the object's units."""
        pixels = self.place(points)
        self.paper.line(pixels, fill=fill, width=max(1, round(width * self.size)), joint="curve")
        radius = width * self.size / 2
        for x, y in (pixels[0], pixels[-1]):
            self.paper.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def stroke(self, points: Sequence[Point], width: float, fill: RGB) -> None:
        """A smooth curve through the points, with round ends."""
        self.line(curve(points, closed=False), width, fill)
