"""A shard of qdrant-edge, after its own guide; words are ranked by its BM25 as sparse vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import qdrant_edge as edge
from numpy.typing import NDArray

from ..rows import Rows
from . import Base, Hits


class System(Base):
    """A shard with one search thread; *optimized* builds an HNSW index once all rows are in.

    Searches look at *hnsw_ef* candidates, if that is not the index's default.
    """

    def __init__(self, folder: str, dim: int, *, optimized: bool, hnsw_ef: int | None = None) -> None:
        super().__init__(folder, dim)
        self._optimized = optimized
        self._params = None if hnsw_ef is None else edge.SearchParams(hnsw_ef=hnsw_ef)
        self._bm25 = edge.Bm25(edge.Bm25Config())

    def open(self) -> None:
        path = os.path.join(self.folder, "shard")
        if os.path.isdir(path):
            self._shard = edge.EdgeShard.load(path)
            return
        os.makedirs(path)
        config = edge.EdgeConfig(
            vectors={"vector": edge.EdgeVectorParams(self.dim, edge.Distance.Cosine)},
            sparse_vectors={"words": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
            max_search_threads=1,
        )
        self._shard = edge.EdgeShard.create(path, config)
        for name, kind in (("session", edge.PayloadSchemaType.Keyword), ("time", edge.PayloadSchemaType.Integer)):
            self._shard.update(edge.UpdateOperation.create_field_index(name, kind))

    def close(self) -> None:
        self._shard.flush()
        self._shard.close()

    def _points(self, rows: Rows) -> list[Any]:
        return [
            edge.Point(
                rows.ids[at],
                {"vector": rows.vectors[at].tolist(), "words": self._bm25.embed_document(text)},
                {"text": text, "session": rows.sessions[at], "agent": rows.agents[at], "time": rows.times[at]},
            )
            for at, text in enumerate(rows.texts)
        ]

    def add(self, rows: Rows) -> None:
        self._shard.update(edge.UpdateOperation.upsert_points(self._points(rows)))

    def bulk(self, rows: Rows) -> None:
        for first in range(0, len(rows), 1000):
            self.add(rows.cut(first, first + 1000))

    def ready(self) -> None:
        if self._optimized:
            self._shard.optimize()

    def _asked(self, query: Any, k: int, condition: Any = None) -> Hits:
        chosen = None if condition is None else edge.Filter(must=[condition])
        found = self._shard.query(
            edge.QueryRequest(k, query=query, filter=chosen, with_payload=True, params=self._params)
        )
        return [(point.id, point.payload["text"]) for point in found]

    def vector(self, vector: NDArray[Any], k: int) -> Hits:
        return self._asked(edge.Query.Nearest(vector.tolist(), using="vector"), k)

    def session(self, vector: NDArray[Any], session: str, k: int) -> Hits:
        condition = edge.FieldCondition("session", match=edge.MatchValue(session))
        return self._asked(edge.Query.Nearest(vector.tolist(), using="vector"), k, condition)

    def time(self, vector: NDArray[Any], since: int, until: int, k: int) -> Hits:
        condition = edge.FieldCondition("time", range=edge.RangeFloat(gte=since, lt=until))
        return self._asked(edge.Query.Nearest(vector.tolist(), using="vector"), k, condition)

    def text(self, words: Sequence[str], k: int) -> Hits:
        return self._asked(edge.Query.Nearest(self._bm25.embed_query(" ".join(words)), using="words"), k)

    def hybrid(self, vector: NDArray[Any], words: Sequence[str], k: int) -> Hits:
        legs = [
            edge.Query.Nearest(vector.tolist(), using="vector"),
            edge.Query.Nearest(self._bm25.embed_query(" ".join(words)), using="words"),
        ]
        request = edge.QueryRequest(
            k,
            query=edge.Fusion.Rrf(k=60),
            prefetches=[edge.Prefetch(limit=100, query=leg) for leg in legs],
            with_payload=True,
        )
        return [(point.id, point.payload["text"]) for point in self._shard.query(request)]

    def count(self, ids: Sequence[int]) -> int:
        condition = edge.HasIdCondition(set(ids))
        return int(self._shard.count(edge.CountRequest(filter=edge.Filter(must=[condition]))))
