"""What became of documents: one outcome and a reason for each, and all of it together."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["OUTCOMES", "IngestItem", "IngestReport"]

OUTCOMES = ("added", "updated", "unchanged", "renamed", "pruned", "empty", "skipped", "failed")


@dataclass(frozen=True)
class IngestItem:
    """What became of one document.

    `outcome` is one of `OUTCOMES`; `reason` says why, where that is not plain, and `code` is that of an error, for
    programs. `id` is that of the document's node, None where there is none. `fragments` is how many it has now.
    """

    uri: str
    outcome: str
    reason: str = ""
    code: str | None = None
    id: str | None = None
    name: str = ""
    fragments: int = 0

    def __str__(self) -> str:
        return f"{self.outcome:9}  {self.name or self.uri}{f': {self.reason}' if self.reason else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass
class IngestReport:
    """What became of everything that was looked at, an item for each.

    `chunks_added`, `chunks_kept` and `chunks_removed` count fragments, `embeddings_computed` the texts that the model
    was asked for, `duplicates` the documents with the very bytes of another one, `bytes` what was read, `seconds` what
    it took. `dry_run` says that nothing was written, `cancelled` that it ended early; `notes` are sentences about the
    whole. Printed, it shows the counts and every item that is neither as it was nor as it should be.
    """

    items: list[IngestItem] = field(default_factory=list)
    chunks_added: int = 0
    chunks_kept: int = 0
    chunks_removed: int = 0
    embeddings_computed: int = 0
    duplicates: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    cancelled: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many documents came to each outcome."""
        found = Counter(item.outcome for item in self.items)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    @property
    def added(self) -> int:
        """How many documents are new."""
        return self.counts["added"]

    @property
    def updated(self) -> int:
        """How many documents have another text now, or were read in another way."""
        return self.counts["updated"]

    @property
    def unchanged(self) -> int:
        """How many documents are as they were."""
        return self.counts["unchanged"]

    @property
    def renamed(self) -> int:
        """How many documents moved to another path."""
        return self.counts["renamed"]

    @property
    def pruned(self) -> int:
        """How many documents went because their source is gone."""
        return self.counts["pruned"]

    @property
    def empty(self) -> int:
        """How many sources hold no text, such as scans."""
        return self.counts["empty"]

    @property
    def skipped(self) -> int:
        """How many sources were left alone."""
        return self.counts["skipped"]

    @property
    def failed(self) -> int:
        """How many sources could not be read."""
        return self.counts["failed"]

    def of(self, *outcomes: str) -> list[IngestItem]:
        """Return the items with one of these outcomes."""
        return [item for item in self.items if item.outcome in outcomes]

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {outcome}" for outcome, number in self.counts.items() if number) or "nothing"
        head = "Would be: " if self.dry_run else ""
        more = f" ({self.duplicates:,} with the bytes of another)" if self.duplicates else ""
        parts = f"{self.chunks_added:,} added, {self.chunks_kept:,} kept, {self.chunks_removed:,} removed"
        cost = f"{self.embeddings_computed:,} embedded; {self.bytes:,} bytes in {self.seconds:.1f} s"
        lines = [f"{head}{counts}{more}", f"fragments: {parts}; {cost}"]
        lines += [f"  {item}" for item in self.of("failed", "empty", "skipped", "pruned", "renamed")]
        if self.cancelled:
            lines.append("Cancelled: what is done stays, the rest comes with the next run.")
        return "\n".join([*lines, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object, with the counts beside the items."""
        return {**self.counts, **asdict(self)}
