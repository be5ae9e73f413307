"""sqlite-vec beside FTS5 in one SQLite file, through apsw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import apsw
import sqlite_vec
from numpy.typing import NDArray

from ..rows import Rows
from . import Base, Hits

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, text TEXT, session TEXT, agent TEXT, time INTEGER);
CREATE INDEX IF NOT EXISTS by_session ON messages (session);
CREATE INDEX IF NOT EXISTS by_time ON messages (time);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, content='messages', content_rowid='id');
CREATE VIRTUAL TABLE IF NOT EXISTS vectors USING vec0(vector float[{dim}] distance_metric=cosine);
"""
NEAREST = """
SELECT m.id, m.text FROM (SELECT rowid, distance FROM vectors WHERE vector MATCH ? AND k = ? {among}) AS near
JOIN messages AS m ON m.id = near.rowid ORDER BY near.distance
"""


class System(Base):
    """One connection, synchronous=FULL."""

    def versions(self) -> dict[str, str]:
        return {"SQLite": apsw.sqlite_lib_version()}

    def open(self) -> None:
        self._db = apsw.Connection(os.path.join(self.folder, "vec.db"))
        self._db.set_busy_timeout(30_000)
        self._db.enable_load_extension(True)
        self._db.load_extension(sqlite_vec.loadable_path())
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(SCHEMA.format(dim=self.dim))

    def close(self) -> None:
        self._db.close()

    def bulk(self, rows: Rows) -> None:
        columns = (rows.ids, rows.texts, rows.sessions, rows.agents, rows.times)
        blobs = [(one, vector.tobytes()) for one, vector in zip(rows.ids, rows.vectors, strict=True)]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", zip(*columns, strict=True))
        self._db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", zip(rows.ids, rows.texts, strict=True))
        self._db.executemany("INSERT INTO vectors (rowid, vector) VALUES (?, ?)", blobs)
        self._db.execute("COMMIT")

    add = bulk

    def vector(self, vector: NDArray[Any], k: int) -> Hits:
        return list(self._db.execute(NEAREST.format(among=""), (vector.tobytes(), k)))

    def session(self, vector: NDArray[Any], session: str, k: int) -> Hits:
        # Its scalar function over the few rows of a session is far faster than its index with a condition.
        found = self._db.execute(
            "SELECT m.id, m.text FROM messages AS m JOIN vectors AS v ON v.rowid = m.id WHERE m.session = ? "
            "ORDER BY vec_distance_cosine(v.vector, ?) LIMIT ?",
            (session, vector.tobytes(), k),
        )
        return list(found)

    def time(self, vector: NDArray[Any], since: int, until: int, k: int) -> Hits:
        among = "AND rowid IN (SELECT id FROM messages WHERE time >= ? AND time < ?)"
        return list(self._db.execute(NEAREST.format(among=among), (vector.tobytes(), k, since, until)))

    def text(self, words: Sequence[str], k: int) -> Hits:
        wanted = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute(
            "SELECT m.id, m.text FROM (SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?) "
            "AS best JOIN messages AS m ON m.id = best.rowid ORDER BY best.rank",
            (wanted, k),
        )
        return list(found)

    def count(self, ids: Sequence[int]) -> int:
        one = "SELECT count(*) FROM messages AS m JOIN vectors AS v ON v.rowid = m.id WHERE m.id = ?"
        return sum(self._db.execute(one, (row,)).fetchone()[0] for row in ids)
