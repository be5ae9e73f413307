"""A new database from every row of a damaged one that can still be read."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

from ..nodes import Node
from ..store.sqlite_connection import Connection, connect
from ..store.sqlite_schema import SLOTS, TABLES, create
from ..store.sqlite_vectors import unpack_vector
from .content import bad_times, bad_vectors, object_of, some
from .generation import renew
from .index_files import index_files
from .model import FIELDS, SAMPLE, known_record, width_of
from .sqlite_pages import Pages, read_wal

if TYPE_CHECKING:
    from .report import Report

__all__ = ["Rescued", "rebuild", "rescue"]

_SEQUENCES = ("nodes", "edges", "sets", "history")
_COLUMNS = {"nodes": 7, "edges": 6, "sets": 4, "vectors": 6, "history": 6, "log": 2}
_Row = list[Any]


class Rescued:
    """The rows of a store's tables by their numbers, as far as they could be read."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[int, _Row]] = {name: {} for name in _COLUMNS}
        self.meta: dict[str, str] = {}
        self.next: dict[str, int] = {}
        self.version = 0
        self.odd: list[str] = []  # rows with another number of values than their table has columns

    def __len__(self) -> int:
        return sum(map(len, self.tables.values())) + len(self.meta)


# --- reading ----------------------------------------------------------------------------------------------------


def rescue(path: str, report: Report, *, with_log: bool = True) -> Rescued:
    """Read what can be read of the database at *path*, and note in *report* what is lost.

    *with_log*: the commits in its -wal file count; without, it is taken for another database's.
    """
    wal = read_wal(path + "-wal") if with_log else None
    pages = Pages(path, wal=wal)
    roots = _roots(pages)
    if roots is None:
        report.done.append("find the tables where a new memory has them: the list of tables is damaged")
        found, pages = max(
            (_tried(path, wal, layout) for layout in _layouts(pages.size)), key=lambda pair: len(pair[0])
        )
        roots = _roots(pages) or {}
    else:
        found = _read(pages, roots)
    report.lost += found.odd
    if pages.damaged:
        report.lost.append(
            f"what only {len(pages.damaged)} damaged pages of {path!r} held: {some(sorted(pages.damaged))}"
        )
    if wal is not None and wal.bytes and (wal.more or not wal.valid):
        behind = f"{wal.more} commits behind byte {wal.valid}" if wal.more else "whatever commits there were"
        report.lost.append(f"{behind} of {path + '-wal'!r}")
    _name_lost(pages, roots, found, report)
    _versions(path, found)
    return found


def _tried(path: str, wal: Any, first: bytes) -> tuple[Rescued, Pages]:
    pages = Pages(path, wal=wal)
    pages.replace_first(first)
    return _read(pages, _roots(pages) or {}), pages


def _layouts(size: int) -> list[bytes]:
    """Return the first page of a new memory, and of one that was vacuumed: they number their tables differently."""
    found = []
    for vacuumed in (False, True):
        with contextlib.closing(sqlite3.connect(":memory:", factory=Connection)) as db:
            db.execute(f"PRAGMA page_size = {size}")
            db.executescript(TABLES)
            if vacuumed:
                db.execute("VACUUM")
            if hasattr(db, "serialize"):  # not in Python 3.10
                found.append(db.serialize()[:size])
                continue
            import tempfile

            with tempfile.TemporaryDirectory(prefix="raeburnmemory-") as folder:
                name = os.path.join(folder, "layout.db")
                with contextlib.closing(sqlite3.connect(name, factory=Connection)) as copy:
                    db.backup(copy)
                with open(name, "rb") as file:
                    found.append(file.read(size))
    return found


def _roots(pages: Pages) -> dict[str, int] | None:
    """Return where each table and index begins; None if the list of them cannot be read."""
    roots: dict[str, int] = {}
    if not pages.count:
        return None
    for _, row in pages.table(1):
        if len(row) == 5 and isinstance(row[1], str) and isinstance(row[3], int):
            roots[row[1]] = row[3]
    return roots if set(_COLUMNS) <= set(roots) else None


def _read(pages: Pages, roots: dict[str, int]) -> Rescued:
    found = Rescued()
    for table, into in found.tables.items():
        if table in roots:
            for number, row in pages.table(roots[table]):
                if len(row) == _COLUMNS[table]:
                    into[number] = row
                else:
                    found.odd.append(f"row {number} of the table {table!r}")
    if "meta" in roots:
        for row in pages.index(roots["meta"]):
            if len(row) == 2 and all(isinstance(value, str) for value in row):
                found.meta[row[0]] = row[1]
    if "sqlite_sequence" in roots:
        for _, row in pages.table(roots["sqlite_sequence"]):
            if len(row) == 2 and row[0] in _SEQUENCES and isinstance(row[1], int):
                found.next[row[0]] = row[1]
    # Pages that no table leads to any more, because the page that led there is damaged.
    names = [name for name in roots if name not in {*_COLUMNS, "meta", "sqlite_sequence"}]
    for name in names:
        for _ in pages.index(roots[name]):
            pass  # so that its pages count as seen
    if pages.damaged:
        for number, row in pages.strays(lambda row: _table_of(row) is not None):
            found.tables[str(_table_of(row))].setdefault(number, row)
    return found


def _table_of(row: _Row) -> str | None:
    """Tell from its values which table a row belongs to."""

    def has(*kinds: type | tuple[type, ...]) -> bool:
        return len(row) == len(kinds) and all(isinstance(v, k) for v, k in zip(row, kinds, strict=True))

    none, number = type(None), (int, float, type(None))
    if has(none, str, str, str, (str, none), str, number) and _is_object(row[5]):
        return "nodes"
    if has(none, str, str, str, str, str) and _is_object(row[5]):
        return "edges"
    if has(none, (int, none), int, int, int, (bytes, none)) and (row[1] is None) == (row[5] is None):
        return "vectors"
    if has(none, int, str, (str, none), str, number) and _is_object(row[4]):
        return "history"
    if has(none, str, int, int):
        return "sets"
    return "log" if has(none, str) and _is_object(row[1]) else None


def _is_object(text: Any) -> bool:
    return object_of(text) is not None


def _name_lost(pages: Pages, roots: dict[str, int], found: Rescued, report: Report) -> None:
    """Name what indexes still know and the tables have lost; an edge without data can be had from there."""
    nodes, edges = found.tables["nodes"], found.tables["edges"]
    pages.seen.clear()
    for name in ("sqlite_autoindex_nodes_1", "sqlite_autoindex_edges_1"):
        if name not in roots:
            continue
        for entry in pages.index(roots[name]):
            if name.endswith("nodes_1") and len(entry) == 3 and isinstance(entry[2], int):
                if entry[2] not in nodes:
                    report.lost.append(f"the node {entry[1]!r}")
            elif len(entry) == 5 and isinstance(entry[4], int) and entry[4] not in edges:
                edges[entry[4]] = [None, *entry[:4], "{}"]
                report.lost.append(f"the data of the edge {entry[1]} -{entry[3]}-> {entry[2]}, if it had any")


def _versions(path: str, found: Rescued) -> None:
    """Find the highest version that anybody may know."""
    seen = [*found.tables["log"], *(row[3] for row in found.tables["sets"].values() if isinstance(row[3], int)), 0]
    for name in index_files(path).values():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(name, "rb") as file:
            file.readline(200)
            seen.append(int(json.loads(file.readline(1 << 16))["stamp"]["version"]))
    # Where the log cannot be read, a leap: it costs nothing, and a version must never come twice.
    found.version = max(seen) + (2 if found.tables["log"] else 1_000_000)


# --- writing ----------------------------------------------------------------------------------------------------


def rebuild(found: Rescued, target: str, report: Report) -> None:
    """Write a new database to *target* with all of the rows that make sense, and note those that do not."""
    store = _json(found.meta.get("store"))
    if not isinstance(store, str) or not store:
        report.done.append("give the memory a new id")
        store = uuid.uuid4().hex
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    with contextlib.closing(connect(target, "rw", 5.0)) as db:
        create(db, store)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("BEGIN IMMEDIATE")
        for key, value in found.meta.items():
            if key == "store":
                continue
            if _json(value) is None:
                report.lost.append(f"the record {key!r}")
            else:
                db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
        keys = _put_nodes(db, found, report)
        _put_edges(db, found, keys, report)
        nodes = {node.row: node for node in keys.values()}
        _put_history(db, found, set(nodes), report)
        _put_vectors(db, found, nodes, report)
        for table in _SEQUENCES:
            last = max([found.next.get(table, 0), *found.tables[table]])
            db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last))
        renew(db, found.version)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _put_nodes(db: sqlite3.Connection, found: Rescued, report: Report) -> dict[tuple[str, str], Node]:
    """Insert the nodes, and return them."""
    keys: dict[tuple[str, str], Node] = {}
    for row, (_, namespace, node_id, kind, told, attributes, expires) in sorted(found.tables["nodes"].items()):
        if not all(isinstance(value, str) for value in (namespace, node_id, kind)) or (namespace, node_id) in keys:
            report.lost.append(f"a node in row {row} that is there twice or makes no sense: {node_id!r}")
            continue
        data = object_of(attributes)
        if data is None:
            report.lost.append(f"the attributes of {node_id!r}: {str(attributes)[:60]!r}")
            data = {}
        text = told if isinstance(told, str) else None
        if text is None and told is not None:
            report.lost.append(f"the text of {node_id!r}, which was no text")
        for name in bad_times(Node(node_id, kind, text, data, namespace)):
            data[f"unreadable_{name}"] = data.pop(name)
            report.done.append(f"rename a time of {node_id!r} that is none: unreadable_{name}")
        db.execute(
            "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row, namespace, node_id, kind, text, json.dumps(data), _expiry(expires)),
        )
        keys[namespace, node_id] = Node(node_id, kind, text, data, namespace, None, row)
    return keys


def _expiry(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _put_edges(db: sqlite3.Connection, found: Rescued, keys: Any, report: Report) -> None:
    there: set[tuple[Any, ...]] = set()
    for row, (_, namespace, source, target, relation, told) in sorted(found.tables["edges"].items()):
        key = (namespace, source, target, relation)
        gone = [end for end in (source, target) if (namespace, end) not in keys]
        if gone or not isinstance(relation, str) or key in there:
            why = f"{gone[0]!r} is not there" if gone else "it is there twice or makes no sense"
            report.lost.append(f"the edge {source} -{relation}-> {target}: {why}")
            continue
        data = told if _is_object(told) else "{}"
        if data != told:
            report.lost.append(f"the data of the edge {source} -{relation}-> {target}: {str(told)[:60]!r}")
        there.add(key)
        db.execute("INSERT INTO edges VALUES (?, ?, ?, ?, ?, ?)", (row, *key, data))


def _put_history(db: sqlite3.Connection, found: Rescued, rows: set[int], report: Report) -> None:
    for number, (_, row, kind, text, attributes, expires) in sorted(found.tables["history"].items()):
        if row not in rows or not isinstance(kind, str) or not _is_object(attributes) or isinstance(text, bytes):
            report.lost.append(f"an earlier version of the node in row {row}")
            continue
        db.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?)", (number, row, kind, text, attributes, _expiry(expires))
        )


def _put_vectors(db: sqlite3.Connection, found: Rescued, nodes: dict[int, Node], report: Report) -> None:
    sets: dict[int, tuple[str, int]] = {}
    for number, (_, name, dim, _) in sorted(found.tables["sets"].items()):
        if isinstance(name, str) and isinstance(dim, int) and dim > 0 and name not in {n for n, _ in sets.values()}:
            sets[number] = (name, dim)
            db.execute("INSERT INTO sets VALUES (?, ?, ?, 0)", (number, name, dim))
    _know_model(db, found, sets, nodes, report)
    width = width_of(_json(found.meta.get("embedder")))
    taken: set[tuple[int, int, int]] = set()
    dropped = 0
    for key, (_, row, part, start, end, vector) in sorted(found.tables["vectors"].items()):
        number = key // SLOTS
        if number not in sets:
            dropped += row is not None
            continue
        name, dim = sets[number]
        values = unpack_vector(vector, dim)
        whole = (
            row in nodes
            and all(isinstance(value, int) for value in (part, start, end))
            and values is not None
            and (width is None or width == dim or name.endswith(".next"))
            and (number, row, part) not in taken
            and part >= 0
            and ((start, end) == (0, -1) or 0 <= start < end <= len(nodes[row].text or ""))
            and not bad_vectors(values[None, :])[0]
        )
        if whole:
            taken.add((number, row, part))
            db.execute("INSERT INTO vectors VALUES (?, ?, ?, ?, ?, ?)", (key, row, part, start, end, vector))
        else:  # the key stays, so that no slot is given twice
            dropped += row is not None
            db.execute("INSERT INTO vectors VALUES (?, NULL, 0, 0, -1, NULL)", (key,))
    if dropped:
        report.done.append(f"take out {dropped} vectors that are none, or nobody's")


def _know_model(db: sqlite3.Connection, found: Rescued, sets: Any, nodes: dict[int, Node], report: Report) -> None:
    """Where the record of the model is lost or wrong, write down which one it was, if that can be told."""
    sample = []
    for key, row in sorted(found.tables["vectors"].items()):
        if row[1] not in nodes or not isinstance(row[5], bytes) or len(row[5]) % 4 or row[4] != -1:
            continue
        name, _ = sets.get(key // SLOTS, (nodes[row[1]].kind, 0))  # where the sets are lost, too: of a whole text
        values = unpack_vector(row[5])
        if name in FIELDS and values is not None and not bad_vectors(values[None, :])[0]:
            sample.append((nodes[row[1]], values))
        if len(sample) == SAMPLE:
            break
    told = _json(found.meta.get("embedder"))
    widths = {dim for name, dim in sets.values() if not name.endswith(".next")} or {len(v) for _, v in sample}
    record = known_record(told, widths, sample)
    if record is not None:
        found.meta["embedder"] = json.dumps(record)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (found.meta["embedder"],))
        report.done.append(f"note again that the vectors are those of {record['name']!r}")
    elif "embedder" in found.meta and width_of(told) is None:
        found.meta.pop("embedder")
        db.execute("DELETE FROM meta WHERE key = 'embedder'")
