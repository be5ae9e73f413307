"""What one gets without a library for it: rows and FTS5 in SQLite, a flat index over the vectors in memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rows import Rows
from . import Base, Hits

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, text TEXT, session TEXT, agent TEXT, time INTEGER);
CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, vector BLOB);
CREATE INDEX IF NOT EXISTS by_session ON messages (session);
CREATE INDEX IF NOT EXISTS by_time ON messages (time);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, content='messages', content_rowid='id');
"""


class Numpy:
    """A growing array, compared as a whole."""

    def __init__(self, dim: int) -> None:
        self._array = np.empty((1024, dim), np.float32)
        self._count = 0

    def add(self, vectors: NDArray[np.float32]) -> None:
        end = self._count + len(vectors)
        if end > len(self._array):
            wider = np.empty((max(end, 2 * len(self._array)), self._array.shape[1]), np.float32)
            wider[: self._count] = self._array[: self._count]
            self._array = wider
        self._array[self._count : end] = vectors
        self._count = end

    def search(self, vector: NDArray[np.float32], k: int, among: NDArray[np.int64] | None) -> list[int]:
        rows = self._array[: self._count] if among is None else self._array[among]
        scores = rows @ vector
        k = min(k, len(scores))
        best = np.argpartition(-scores, k - 1)[:k] if k else np.zeros(0, np.int64)
        best = best[np.argsort(-scores[best])]
        return (best if among is None else among[best]).tolist()


class Faiss:
    """A flat index of faiss."""

    def __init__(self, dim: int) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._faiss, self._index = faiss, faiss.IndexFlatIP(dim)

    def add(self, vectors: NDArray[np.float32]) -> None:
        self._index.add(np.ascontiguousarray(vectors))

    def search(self, vector: NDArray[np.float32], k: int, among: NDArray[np.int64] | None) -> list[int]:
        options = {}
        if among is not None:
            chosen = self._faiss.IDSelectorBatch(among)
            options["params"] = self._faiss.SearchParameters(sel=chosen)
        _, found = self._index.search(vector[None], k, **options)
        return [one for one in found[0].tolist() if one >= 0]


class System(Base):
    """SQLite with *synchronous* as it is told, and vectors compared by *flat*: faiss or numpy."""

    def __init__(self, folder: str, dim: int, flat: str, synchronous: str) -> None:
        super().__init__(folder, dim)
        self._flat, self._synchronous = {"faiss": Faiss, "numpy": Numpy}[flat], synchronous

    def versions(self) -> dict[str, str]:
        return {"SQLite": sqlite3.sqlite_version}

    def open(self) -> None:
        self._db = sqlite3.connect(os.path.join(self.folder, "raw.db"), timeout=30, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._db.executescript(SCHEMA)
        self._index, self._ids = self._flat(self.dim), np.zeros(0, np.int64)
        self._places: dict[int, int] = {}
        rows = self._db.execute("SELECT id, vector FROM vectors ORDER BY id")
        while some := rows.fetchmany(10_000):
            self._take([one for one, _ in some], np.frombuffer(b"".join(blob for _, blob in some), "<f4"))

    def _take(self, ids: list[int], values: NDArray[np.float32]) -> None:
        self._index.add(values.reshape(len(ids), self.dim))
        self._places.update(zip(ids, range(len(self._places), len(self._places) + len(ids)), strict=True))

    def close(self) -> None:
        self._db.close()

    def bulk(self, rows: Rows) -> None:
        columns = (rows.ids, rows.texts, rows.sessions, rows.agents, rows.times)
        blobs = [(one, vector.tobytes()) for one, vector in zip(rows.ids, rows.vectors, strict=True)]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", zip(*columns, strict=True))
        self._db.executemany("INSERT INTO vectors VALUES (?, ?)", blobs)
        self._db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", zip(rows.ids, rows.texts, strict=True))
        self._db.execute("COMMIT")
        self._take(rows.ids, rows.vectors)

    add = bulk

    def _fetched(self, ids: Sequence[int]) -> Hits:
        marks = ", ".join("?" * len(ids))
        texts = dict(self._db.execute(f"SELECT id, text FROM messages WHERE id IN ({marks})", ids))
        return [(one, texts[one]) for one in ids]

    def _nearest(self, vector: NDArray[np.float32], k: int, among: list[int] | None = None) -> Hits:
        places = None if among is None else np.array([self._places[one] for one in among], np.int64)
        if len(self._ids) != len(self._places):
            self._ids = np.fromiter(self._places, np.int64, len(self._places))
        return self._fetched(self._ids[self._index.search(vector, k, places)].tolist())

    def vector(self, vector: NDArray[np.float32], k: int) -> Hits:
        return self._nearest(vector, k)

    def session(self, vector: NDArray[np.float32], session: str, k: int) -> Hits:
        return self._nearest(vector, k, self._chosen("session = ?", session))

    def time(self, vector: NDArray[np.float32], since: int, until: int, k: int) -> Hits:
        return self._nearest(vector, k, self._chosen("time >= ? AND time < ?", since, until))

    def _chosen(self, condition: str, *values: Any) -> list[int]:
        return [one for (one,) in self._db.execute(f"SELECT id FROM messages WHERE {condition}", values)]

    def text(self, words: Sequence[str], k: int) -> Hits:
        wanted = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (wanted, k))
        return self._fetched([one for (one,) in found])

    def count(self, ids: Sequence[int]) -> int:
        one = "SELECT count(*) FROM messages JOIN vectors USING (id) WHERE id = ?"
        return sum(self._db.execute(one, (row,)).fetchone()[0] for row in ids)
