"""SQLite stores of the original: `nodes(id, type, data)`, `edges(src, dst, relation)`, `vectors(id, vector)`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import stat
import uuid
from typing import Any

import numpy as np

from ..errors import StoreCorrupt
from ._files import discard, sync_folder, write_failed
from .nodelink import mended
from .sqlite_connection import Connection
from .sqlite_schema import APPLICATION_ID, ORIGINAL, SCHEMA_VERSION, SLOTS, TABLES
from .sqlite_vectors import unpack_vector

__all__ = ["migrate"]

log = logging.getLogger("raeburnmemory")


def migrate(db: sqlite3.Connection, path: str, version: int | None) -> None:
    """Bring the file at *path* from schema *version* to the present one, keeping a copy of it.

    Everything happens in one transaction: a crash leaves the old file or the new one.
    """
    assert version == ORIGINAL, version
    copy = path + ".original"
    if not os.path.exists(copy):
        _keep(db, path, copy)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("BEGIN IMMEDIATE")
    try:
        nodes = db.execute("SELECT id, type, data FROM nodes ORDER BY rowid").fetchall()
        edges = db.execute("SELECT src, dst, relation FROM edges ORDER BY rowid").fetchall()
        has_vectors = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'vectors'").fetchone()
        vectors = db.execute("SELECT id, vector FROM vectors ORDER BY rowid").fetchall() if has_vectors else []
        for table in ("vectors", "edges", "nodes"):
            db.execute(f"ALTER TABLE {table} RENAME TO original_{table}") if table != "vectors" or has_vectors else None
        for statement in TABLES.split(";"):
            if statement.strip():
                db.execute(statement)
        rows = _insert_nodes(db, nodes, edges, path)
        _insert_edges(db, edges)
        _insert_vectors(db, vectors, rows, path)
        for table in ("vectors", "edges", "nodes"):
            db.execute(f"DROP TABLE IF EXISTS original_{table}")
        db.execute("INSERT INTO meta VALUES ('store', ?)", (json.dumps(uuid.uuid4().hex),))
        db.execute("INSERT INTO log VALUES (1, ?)", (json.dumps({"mark": os.urandom(4).hex()}),))
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has rolled back by itself where the disk refused
            db.execute("ROLLBACK")
        raise
    log.warning("%r was written by an older version and is brought up to date; it is kept as %r", path, copy)


def _keep(db: sqlite3.Connection, path: str, copy: str) -> None:
    """Copy the database at *path*, with its mode, to *copy*, which appears whole or not at all, and synced."""
    temporary = f"{copy}.tmp-{os.getpid()}"
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # SQLite would obey the umask
        os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
        with contextlib.closing(sqlite3.connect(temporary, factory=Connection)) as target:
            db.backup(target)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, copy)
        sync_folder(os.path.dirname(copy))
    except OSError as exc:
        raise write_failed("make", copy, exc) from exc
    finally:
        for name in (temporary, temporary + "-journal"):
            discard(name)


def _insert_nodes(db: sqlite3.Connection, nodes: list[Any], edges: list[Any], path: str) -> dict[str, int]:
    rows: dict[str, int] = {}
    for node_id, kind, data in nodes:
        try:
            attributes = mended(json.loads(data)) if data else {}
            if not isinstance(attributes, dict):
                raise TypeError("it is no object")
            if not isinstance(attributes.get("text"), (str, type(None))):
                raise TypeError("its text is no string")
        except (ValueError, TypeError) as exc:
            raise StoreCorrupt(f"{path!r} is damaged: the data of node {node_id!r} cannot be read: {exc}.") from exc
        text = attributes.pop("text", None)
        inner = attributes.pop("type", None)
        attributes.pop("id", None)
        cursor = db.execute(
            "INSERT INTO nodes(namespace, id, kind, text, attributes) VALUES ('default', ?, ?, ?, ?)",
            (str(node_id), str(kind or inner or "node"), text, json.dumps(attributes)),
        )
        assert cursor.lastrowid is not None
        rows[str(node_id)] = cursor.lastrowid
    for end in dict.fromkeys(str(end) for edge in edges for end in edge[:2]):
        if end not in rows:  # the original never checked; the edge says that there is something
            cursor = db.execute(
                "INSERT INTO nodes(namespace, id, kind, attributes) VALUES ('default', ?, 'node', '{}')",
                (end,),
            )
            assert cursor.lastrowid is not None
            rows[end] = cursor.lastrowid
    return rows


def _insert_edges(db: sqlite3.Connection, edges: list[Any]) -> None:
    for source, target, relation in edges:
        db.execute(
            "INSERT OR IGNORE INTO edges(namespace, source, target, relation, data) VALUES ('default', ?, ?, ?, '{}')",
            (str(source), str(target), str(relation or "related_to")),
        )


def _insert_vectors(db: sqlite3.Connection, vectors: list[Any], rows: dict[str, int], path: str) -> None:
    """Keep the vectors that say something; the original's stand-in encoder stored zeros."""
    slot, dim = 0, 0
    for node_id, raw in vectors:
        values = _original_vector(raw)
        if values is None or not np.isfinite(values).all() or (dim and len(values) != dim):
            raise StoreCorrupt(f"{path!r} is damaged: the vector of {node_id!r} cannot be read. Put back a copy of it.")
        norm = float(np.linalg.norm(values))
        row = rows.get(str(node_id))
        if norm <= 1e-12 or row is None:
            continue
        if not dim:
            dim = len(values)
            db.execute("INSERT INTO sets(number, field, dim, reset_at) VALUES (1, 'prompt', ?, 1)", (dim,))
        unit = (values / norm).astype("<f4").tobytes()
        db.execute("INSERT INTO vectors VALUES (?, ?, 0, 0, -1, ?)", (SLOTS + slot, row, unit))
        slot += 1


def _original_vector(raw: Any) -> Any:
    """Return a vector written by the original: float32 bytes, or pgvector's binary or text form."""
    if isinstance(raw, str):
        try:
            values = np.array(json.loads(raw), np.float32)
        except ValueError:
            return None
        return values if values.ndim == 1 else None
    return unpack_vector(raw)
