"""langchain-core's vector store in memory, which keeps what it holds by dumping all of it to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from numpy.typing import NDArray

from ..rows import Rows
from . import Base, Hits


class Given(Embeddings):
    """Gives back the vectors that it was handed."""

    def __init__(self) -> None:
        self.vectors: list[list[float]] = []

    def embed_documents(self, _texts: list[str]) -> list[list[float]]:
        return self.vectors

    def embed_query(self, _text: str) -> list[float]:
        return self.vectors[0]


class System(Base):
    """A store that is dumped after every write."""

    def open(self) -> None:
        self._path, self._given = os.path.join(self.folder, "store.json"), Given()
        if os.path.exists(self._path):
            self._store = InMemoryVectorStore.load(self._path, self._given)
        else:
            self._store = InMemoryVectorStore(self._given)

    def close(self) -> None:
        """Leave it: every write was dumped."""

    def bulk(self, rows: Rows) -> None:
        self._given.vectors = rows.vectors.tolist()
        self._store.add_documents(
            [
                Document(text, metadata={"id": one, "session": session, "agent": agent, "time": time})
                for one, text, session, agent, time in zip(
                    rows.ids, rows.texts, rows.sessions, rows.agents, rows.times, strict=True
                )
            ],
            ids=[str(one) for one in rows.ids],
        )
        self._store.dump(self._path)

    add = bulk

    def _nearest(self, vector: NDArray[Any], k: int, wanted: Any = None) -> Hits:
        found = self._store.similarity_search_by_vector(vector.tolist(), k, filter=wanted)
        return [(one.metadata["id"], one.page_content) for one in found]

    def vector(self, vector: NDArray[Any], k: int) -> Hits:
        return self._nearest(vector, k)

    def session(self, vector: NDArray[Any], session: str, k: int) -> Hits:
        return self._nearest(vector, k, lambda one: one.metadata["session"] == session)

    def time(self, vector: NDArray[Any], since: int, until: int, k: int) -> Hits:
        return self._nearest(vector, k, lambda one: since <= one.metadata["time"] < until)

    def count(self, ids: Sequence[int]) -> int:
        return len(self._store.get_by_ids([str(one) for one in ids]))
