"""What was measured, system by system, and why something was not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["MEASURES", "Measure", "Result", "Results"]


@dataclass(frozen=True)
class Measure:
    """One kind of figure: its unit, and which way is better."""

    title: str
    unit: str
    more_is_better: bool


MEASURES = {
    "bulk": Measure("bulk load, text index included", "rows/s", True),
    "disk": Measure("on disk after the load", "bytes/row", False),
    "open": Measure("open to first query in a new process", "s", False),
    "memory": Measure("anonymous memory after queries", "MB", False),
    "vector": Measure("ten nearest by vector", "ms", False),
    "session": Measure("ten nearest in one session", "ms", False),
    "time": Measure("ten nearest in a tenth of the time", "ms", False),
    "text": Measure("ten best for any of three words", "ms", False),
    "hybrid": Measure("ten best by words and vector at once", "ms", False),
    "add": Measure("adds one by one", "adds/s", True),
    "writers": Measure("two processes adding at once, together", "adds/s", True),
    "shapes": Measure("recall@10 by shape of the data", "", True),
}


@dataclass
class Result:
    """The figures of one system for one measure at one size: one per round, or a reason why there are none."""

    size: int
    system: str
    measure: str
    figures: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    recall: float | None = None
    syncs: float | None = None
    note: str = ""
    reason: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, with the unit."""
        return {**asdict(self), "unit": MEASURES[self.measure].unit}


class Results:
    """All results of a run."""

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self._results = {(one.size, one.system, one.measure): one for one in results}

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def of(self, size: int, system: str, measure: str) -> Result:
        """Return the result to fill in, a new one at first."""
        key = (size, system, measure)
        if key not in self._results:
            self._results[key] = Result(*key)
        return self._results[key]

    def get(self, size: int, system: str, measure: str) -> Result | None:
        """Return a result, or None."""
        return self._results.get((size, system, measure))

    def sizes(self) -> Sequence[int]:
        """Return the sizes in order."""
        return sorted({one.size for one in self})

    def systems(self) -> Sequence[str]:
        """Return the systems in the order in which they came."""
        return list(dict.fromkeys(one.system for one in self))
