"""Rows as they travel between processes: texts and what belongs to them as JSON, vectors as bytes.

Nothing but numpy is imported here: workers run where the library is not installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows:
    """Messages with their vectors. An id is a number, a time is in whole seconds since 1970."""

    ids: list[int]
    texts: list[str]
    sessions: list[str]
    agents: list[str]
    times: list[int]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, first: int, last: int) -> Rows:
        """Return the rows from *first* until before *last*."""
        at = slice(first, last)
        return Rows(self.ids[at], self.texts[at], self.sessions[at], self.agents[at], self.times[at], self.vectors[at])

    def one_by_one(self) -> list[Rows]:
        """Return each row as rows of its own."""
        return [self.cut(at, at + 1) for at in range(len(self))]

    @staticmethod
    def joined(parts: list[Rows]) -> Rows:
        """Return *parts* one after the other."""
        return Rows(
            [one for part in parts for one in part.ids],
            [one for part in parts for one in part.texts],
            [one for part in parts for one in part.sessions],
            [one for part in parts for one in part.agents],
            [one for part in parts for one in part.times],
            np.concatenate([part.vectors for part in parts]),
        )

    def to_wire(self) -> tuple[dict[str, Any], bytes]:
        """Return what goes as JSON, and the vectors."""
        fields = {
            "ids": self.ids,
            "texts": self.texts,
            "sessions": self.sessions,
            "agents": self.agents,
            "times": self.times,
            "dim": self.vectors.shape[1],
        }
        return fields, np.ascontiguousarray(self.vectors, "<f4").tobytes()

    @classmethod
    def from_wire(cls, fields: dict[str, Any], vectors: bytes) -> Rows:
        """Return the rows that `to_wire` took apart."""
        values = np.frombuffer(vectors, "<f4").reshape(len(fields["ids"]), fields["dim"])
        return cls(fields["ids"], fields["texts"], fields["sessions"], fields["agents"], fields["times"], values)
