"""A persistent collection of chromadb, with its index's defaults or a wider search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import chromadb
from numpy.typing import NDArray

from ..rows import Rows
from . import Base, Hits


class System(Base):
    """One collection; ids are texts there. Its index looks at *ef_search* candidates, if that is not its default."""

    def __init__(self, folder: str, dim: int, *, ef_search: int | None = None) -> None:
        super().__init__(folder, dim)
        self._hnsw: Any = {"space": "cosine"} if ef_search is None else {"space": "cosine", "ef_search": ef_search}

    def open(self) -> None:
        settings = chromadb.Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(self.folder, settings)
        self._collection = self._client.get_or_create_collection(
            "messages", embedding_function=None, configuration={"hnsw": self._hnsw}
        )

    def close(self) -> None:
        self._client.close()

    def bulk(self, rows: Rows) -> None:
        most = self._client.get_max_batch_size()
        for first in range(0, len(rows), most):
            some = rows.cut(first, first + most)
            self._collection.add(
                ids=[str(one) for one in some.ids],
                embeddings=some.vectors,
                documents=some.texts,
                metadatas=[
                    {"session": session, "agent": agent, "time": time}
                    for session, agent, time in zip(some.sessions, some.agents, some.times, strict=True)
                ],
            )

    add = bulk

    def _nearest(self, vector: NDArray[Any], k: int, where: dict[str, Any] | None = None) -> Hits:
        found = self._collection.query(
            query_embeddings=vector[None], n_results=k, where=where, include=["documents", "metadatas", "distances"]
        )
        return [(int(one), text) for one, text in zip(found["ids"][0], found["documents"][0], strict=True)]

    def vector(self, vector: NDArray[Any], k: int) -> Hits:
        return self._nearest(vector, k)

    def session(self, vector: NDArray[Any], session: str, k: int) -> Hits:
        return self._nearest(vector, k, {"session": session})

    def time(self, vector: NDArray[Any], since: int, until: int, k: int) -> Hits:
        return self._nearest(vector, k, {"$and": [{"time": {"$gte": since}}, {"time": {"$lt": until}}]})

    def count(self, ids: Sequence[int]) -> int:
        return len(self._collection.get(ids=[str(one) for one in ids], include=[])["ids"])
