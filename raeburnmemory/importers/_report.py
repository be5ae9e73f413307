"""What an import did, and what it did not: counts per reason, with the first examples and their places."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..records import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Imported", "Issue", "Log"]

_EXAMPLES = 3


@dataclass
class Issue:
    """One reason for which something was left out, or kept otherwise than it stood there.

    `skipped` tells the one from the other, `count` how often it happened, `examples` where, the first times.
    """

    reason: str
    skipped: bool
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.reason}: {self.count} ({'; '.join(self.examples)}{' …' if self.count > _EXAMPLES else ''})"


@dataclass(frozen=True)
class Imported:
    """What an import did, or with `dry_run` would do.

    `kinds` and `links` count the nodes and edges that were read, `new` the nodes of those that were not there yet.
    `issues` are what was left out or changed, and why. Printed, it is a few lines.
    """

    kind: str
    path: str
    dry_run: bool
    kinds: Mapping[str, int]
    links: int
    new: int
    issues: tuple[Issue, ...] = ()

    @property
    def nodes(self) -> int:
        """How many nodes were read."""
        return sum(self.kinds.values())

    @property
    def skipped(self) -> int:
        """How many entries of the file were left out."""
        return sum(issue.count for issue in self.issues if issue.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {**asdict(self), "nodes": self.nodes, "skipped": self.skipped}

    def __str__(self) -> str:
        what = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items()) or "nothing"
        done = "Would import" if self.dry_run else "Imported"
        lines = [f"{done} {what} from {self.path}; edges: {self.links}, new nodes: {self.new}."]
        for title, skipped in (("Left out", True), ("Changed", False)):
            lines += [f"{title}: {issue}" for issue in self.issues if issue.skipped == skipped]
        return "\n".join(lines)


class Log:
    """Where readers say what they left out and what they changed."""

    def __init__(self) -> None:
        self._issues: dict[tuple[str, bool], Issue] = {}

    def skip(self, reason: str, place: str, *value: Any) -> None:
        """Record that something was left out; *value* is shown, if it is given."""
        self._add(reason, place, value, skipped=True)

    def note(self, reason: str, place: str, *value: Any) -> None:
        """Record that something was kept, but not as it stood there."""
        self._add(reason, place, value, skipped=False)

    def _add(self, reason: str, place: str, value: tuple[Any, ...], *, skipped: bool) -> None:
        issue = self._issues.setdefault((reason, skipped), Issue(reason, skipped))
        issue.count += 1
        if len(issue.examples) < _EXAMPLES:
            issue.examples.append(f"{place} ({shown(value[0])})" if value else place)

    def issues(self) -> tuple[Issue, ...]:
        """Return them, in the order in which they first came up."""
        return tuple(self._issues.values())
