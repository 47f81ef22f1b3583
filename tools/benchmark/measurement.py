"""A measured task: times of both sides, and what it needs at least."""

from dataclasses import asdict, dataclass
from typing import Any

from tools.benchmark.subject import Subject
from tools.benchmark.timing import Pairs


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Args:
        task: what was done.
        item: what is counted, in the plural; "" where the time of a single one is what matters.
        operations: floating-point operations that an item needs at least.
        limit, plain_limit: those per second that the machine could do, for the project and for the plain loop.
        remark: about the results, such as how many captions are the same.
    """

    task: str
    item: str
    pairs: Pairs
    operations: float
    limit: float
    plain_limit: float
    remark: str = ""

    @property
    def shares(self) -> tuple[float, float]:
        """The share of the machine's limit that the project reaches, and the plain loop."""
        project, plain, _ = self.pairs.medians
        return self.operations / project / self.limit, self.operations / plain / self.plain_limit

    def record(self) -> dict[str, Any]:
        """All numbers, for JSON. Times are seconds per item."""
        project, plain, ratio = self.pairs.medians
        share, plain_share = self.shares
        return {
            **asdict(self),
            "median": {"project": project, "plain": plain, "ratio": ratio},
            "share_of_limit": {"project": share, "plain": plain_share},
        }


def measured(subject: Subject, task: str, item: str, pairs: Pairs, operations: float, remark: str = "") -> Measurement:
    """A measurement of ``subject``, with the limits of the machine."""
    return Measurement(task, item, pairs, operations, subject.limit_of_project, subject.limit_of_plain, remark)
