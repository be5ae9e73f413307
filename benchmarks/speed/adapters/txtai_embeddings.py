"""txtai with its texts in SQLite, vectors in faiss and words in its own BM25; saved whole after every write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

os.environ.setdefault("ALLOW_RESOLVE_TRANSFORM", "True")  # for the function below, which it is given by name

from numpy.typing import NDArray
from txtai import Embeddings

from ..rows import Rows
from . import Base, Hits

GIVEN: list[NDArray[Any]] = []


def given(_texts: Sequence[str]) -> NDArray[Any]:
    """Return the vectors that were handed over last; txtai finds this function by its name."""
    return GIVEN[-1]


class System(Base):
    """One index, loaded from and saved to a folder."""

    def open(self) -> None:
        self._path = os.path.join(self.folder, "index")
        self._index = Embeddings(
            method="external",
            transform=f"{__name__}.given",
            content=True,
            hybrid=True,
            faiss={"components": "IDMap,Flat"},
        )
        if os.path.exists(self._path):
            self._index.load(self._path)
        self._empty = not os.path.exists(self._path)

    def close(self) -> None:
        self._index.close()

    def bulk(self, rows: Rows) -> None:
        GIVEN[:] = [rows.vectors]
        columns = (rows.ids, rows.texts, rows.sessions, rows.agents, rows.times)
        many = [
            (one, {"text": text, "session": session, "agent": agent, "time": time})
            for one, text, session, agent, time in zip(*columns, strict=True)
        ]
        (self._index.index if self._empty else self._index.upsert)(many)
        self._empty = False
        self._index.save(self._path)

    add = bulk

    def _asked(self, vector: NDArray[Any], k: int, condition: str = "", **values: Any) -> Hits:
        GIVEN[:] = [vector[None]]
        sql = f"SELECT id, text FROM txtai WHERE similar(:question, :weight) {condition} LIMIT {k}"
        found = self._index.search(sql, k, parameters={"question": "question", "weight": 1.0, **values})
        return [(int(one["id"]), one["text"]) for one in found]

    def vector(self, vector: NDArray[Any], k: int) -> Hits:
        return self._asked(vector, k)

    def session(self, vector: NDArray[Any], session: str, k: int) -> Hits:
        return self._asked(vector, k, "AND session = :session", session=session)

    def time(self, vector: NDArray[Any], since: int, until: int, k: int) -> Hits:
        return self._asked(vector, k, "AND time >= :since AND time < :until", since=since, until=until)

    def text(self, words: Sequence[str], k: int) -> Hits:
        GIVEN[:] = [np.ones((1, self.dim), np.float32)]
        found = self._index.search(" ".join(words), k, weights=0.0)
        return [(int(one["id"]), one["text"]) for one in found]

    def hybrid(self, vector: NDArray[Any], words: Sequence[str], k: int) -> Hits:
        GIVEN[:] = [vector[None]]
        found = self._index.search(" ".join(words), k, weights=0.5)
        return [(int(one["id"]), one["text"]) for one in found]

    def count(self, ids: Sequence[int]) -> int:
        found = (
            self._index.search("SELECT id FROM txtai WHERE id = :id", 1, parameters={"id": str(one)}) for one in ids
        )
        return sum(len(one) for one in found)
