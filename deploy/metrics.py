"""What /metrics tells, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)  # the limits of the buckets: one photo alone takes 0.2 s on two cores
SIZES = (1, 2, 3, 4)  # of batches


class Metrics:
    """The counters of one server. The memory of the process is among them where the system tells it (Linux)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.replies = Counter("caption_replies", "Replies to POST /caption", ["status"], registry=self._registry)
        self.seconds = Histogram(
            "caption_seconds", "From the request to the reply", buckets=SECONDS, registry=self._registry
        )
        self.waiting = Gauge("caption_waiting", "Requests without a reply so far", registry=self._registry)
        self.batches = Histogram(
            "caption_batch_size", "Pictures captioned at once", buckets=SIZES, registry=self._registry
        )

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
