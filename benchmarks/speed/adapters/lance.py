"""A table of lancedb with its full-text index and indexes on session and time; vectors are compared one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("LANCEDB_LOG", "error")  # it would warn at every question

import lancedb
import pyarrow as pa
from lancedb.index import FTS, BTree
from numpy.typing import NDArray

from ..rows import Rows
from . import Base, Hits


class System(Base):
    """One table. `ready` makes the indexes, or brings them up to date."""

    def open(self) -> None:
        self._db = lancedb.connect(self.folder)
        fields = [("id", pa.int64()), ("text", pa.string()), ("session", pa.string()), ("agent", pa.string())]
        fields += [("time", pa.int64()), ("vector", pa.list_(pa.float32(), self.dim))]
        self._schema = pa.schema(fields)
        self._table = self._db.create_table("messages", schema=self._schema, exist_ok=True)

    def close(self) -> None:
        """Leave it: a connection holds nothing that has to be written."""

    def bulk(self, rows: Rows) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.reshape(-1)), self.dim)
        columns = [pa.array(one) for one in (rows.ids, rows.texts, rows.sessions, rows.agents, rows.times)]
        self._table.add(pa.table([*columns, vectors], schema=self._schema))

    add = bulk

    def ready(self) -> None:
        if not self._table.list_indices():
            self._table.create_index("text", config=FTS())
            self._table.create_index("session", config=BTree())
            self._table.create_index("time", config=BTree())
        self._table.optimize()

    def _nearest(self, vector: NDArray[Any], k: int, where: str | None = None) -> Hits:
        query = self._table.search(vector, vector_column_name="vector").distance_type("cosine").limit(k)
        return _hits(query if where is None else query.where(where, prefilter=True))

    def vector(self, vector: NDArray[Any], k: int) -> Hits:
        return self._nearest(vector, k)

    def session(self, vector: NDArray[Any], session: str, k: int) -> Hits:
        return self._nearest(vector, k, f"session = '{session}'")

    def time(self, vector: NDArray[Any], since: int, until: int, k: int) -> Hits:
        return self._nearest(vector, k, f"time >= {since} AND time < {until}")

    def text(self, words: Sequence[str], k: int) -> Hits:
        return _hits(self._table.search(" ".join(words), query_type="fts").limit(k))

    def hybrid(self, vector: NDArray[Any], words: Sequence[str], k: int) -> Hits:
        query = self._table.search(query_type="hybrid", vector_column_name="vector", fts_columns="text")
        return _hits(query.vector(vector).text(" ".join(words)).distance_type("cosine").limit(k))

    def count(self, ids: Sequence[int]) -> int:
        wanted = ", ".join(map(str, ids))
        return int(self._table.count_rows(f"id IN ({wanted})"))


def _hits(query: Any) -> Hits:
    found = query.select(["id", "text", "session"]).to_arrow()
    return list(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))
