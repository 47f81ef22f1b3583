"""Times of two programs that do the same work, taken in turn: other load on the machine meets both."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], float]  # does some work and returns the seconds that it took per item


@dataclass(frozen=True)
class Pairs:
    """Seconds per item of each repeat, the project's and the plain loop's measured one after the other."""

    project: list[float]
    plain: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as long the plain loop took, in each pair."""
        return [plain / project for project, plain in zip(self.project, self.plain, strict=True)]

    @property
    def medians(self) -> tuple[float, float, float]:
        """Of the project's times, of the plain loop's, and of the ratios."""
        return statistics.median(self.project), statistics.median(self.plain), statistics.median(self.ratios)


def interleave(project: Work, plain: Work, repeats: int, *, warm_up: bool = True) -> Pairs:
    """Run both in turn, ``repeats`` times.

    Args:
        warm_up: first run each once without counting it.
    """
    if warm_up:
        project()
        plain()
    pairs = [(project(), plain()) for _ in range(repeats)]
    return Pairs([first for first, _ in pairs], [second for _, second in pairs])


def typical(work: Work, repeats: int) -> float:
    """The median time of ``repeats``, after one that is not counted."""
    work()
    return statistics.median(work() for _ in range(repeats))


def timed(work: Callable[[], object], items: int) -> float:
    """Seconds per item of a call that works on ``items``."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / items
