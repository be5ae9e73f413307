"""This memory, as a program would use it: one `add_message` per message, the vectors given."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from raeburnmemory import MemoryGraph, __version__

from ..rows import Rows
from . import Base, Hits


class Given:
    """An embedder that gives back the vector it was handed for a question, and made-up ones for other texts."""

    name = "benchmark"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.question: tuple[str, NDArray[np.float32]] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row per text."""
        if self.question is not None and list(texts) == [self.question[0]]:
            return self.question[1][None]
        rows = [np.random.default_rng(crc32(text.encode())).standard_normal(self.dim) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.dim)


class System(Base):
    """A `MemoryGraph` in *file*; further *options* go to its constructor."""

    def __init__(self, folder: str, dim: int, file: str, **options: Any) -> None:
        super().__init__(folder, dim)
        self._path, self._options = os.path.join(folder, file), options
        self._embedder = Given(dim)

    def versions(self) -> dict[str, str]:
        return {"raeburnmemory": __version__, "SQLite": sqlite3.sqlite_version}

    def open(self) -> None:
        self._memory = MemoryGraph(self._path, embedding_model=self._embedder, **self._options)

    def close(self) -> None:
        self._memory.close()

    def add(self, rows: Rows) -> None:
        self._memory.add_message(
            rows.texts[0],
            session_id=rows.sessions[0],
            name=rows.agents[0],
            id=f"m{rows.ids[0]}",
            timestamp=rows.times[0],
            vector=rows.vectors[0],
        )

    def bulk(self, rows: Rows) -> None:
        # What add_message makes of a user's message, many at once.
        self._memory.add_many(
            {
                "prompt": {"id": f"m{row}", "text": text, "role": "user", "name": agent},
                "session_id": session,
                "timestamp": time,
                "vector": vector,
            }
            for row, text, session, agent, time, vector in zip(
                rows.ids, rows.texts, rows.sessions, rows.agents, rows.times, rows.vectors, strict=True
            )
        )

    def ready(self) -> None:
        self.text(["nothing"], 1)
        self.vector(np.ones(self.dim, np.float32) / np.float32(np.sqrt(self.dim)), 1)

    def _question(self, vector: NDArray[np.float32], text: str = "question") -> str:
        self._embedder.question = (text, vector)
        return text

    def vector(self, vector: NDArray[np.float32], k: int) -> Hits:
        return _pairs(self._memory.similar(vector, k))

    def session(self, vector: NDArray[np.float32], session: str, k: int) -> Hits:
        return _pairs(self._memory.similar(vector, k, session=session))

    def time(self, vector: NDArray[np.float32], since: int, until: int, k: int) -> Hits:
        times = (datetime.fromtimestamp(at, timezone.utc) for at in (since, until))
        first, last = times
        return _pairs(self._memory.similar(vector, k, since=first, until=last))

    def text(self, words: Sequence[str], k: int) -> Hits:
        return _pairs(self._memory.matching(" ".join(words), k))

    def hybrid(self, vector: NDArray[np.float32], words: Sequence[str], k: int) -> Hits:
        return _pairs(self._memory.recall(self._question(vector, " ".join(words)), k))

    def count(self, ids: Sequence[int]) -> int:
        return sum(f"m{one}" in self._memory for one in ids)


def _pairs(hits: Any) -> Hits:
    return [(int(hit.id[1:]), hit.node.text) for hit in hits]
