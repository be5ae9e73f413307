"""What Prometheus asks for. Routes are named by their pattern: a path may hold somebody's id."""

from __future__ import annotations

import os

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ..memory_graph import MemoryGraph

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TOGETHER = "PROMETHEUS_MULTIPROC_DIR"  # where workers put their figures together; `serve` sets it


class Metrics:
    """Counts answers, by method, route and status, and how long they took."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "raeburnmemory_requests_total", "Answers given.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "raeburnmemory_request_seconds",
            "Time until an answer was given.",
            ["method", "route"],
            registry=self._registry,
            buckets=_SECONDS,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        known = method if method in {"GET", "POST", "DELETE", "HEAD", "OPTIONS"} else "other"
        self._answers.labels(known, route, status).inc()
        self._seconds.labels(known, route).observe(seconds)

    def text(self, memory: MemoryGraph) -> bytes:
        """Return everything as Prometheus reads it; of all workers, if they put it together."""
        registry = self._registry
        if os.environ.get(_TOGETHER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call,unused-ignore]
        stats = memory.stats()
        own = CollectorRegistry()
        Gauge("raeburnmemory_nodes", "Nodes in the memory.", registry=own).set(stats.nodes)
        Gauge("raeburnmemory_edges", "Edges in the memory.", registry=own).set(stats.edges)
        Gauge("raeburnmemory_version", "Changes made to the memory.", registry=own).set(stats.version)
        return bytes(generate_latest(registry)) + bytes(generate_latest(own))
