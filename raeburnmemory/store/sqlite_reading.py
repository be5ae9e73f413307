"""What can be read from a SQLite store, whoever opened it."""

from __future__ import annotations

import contextlib
import heapq
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StoreCorrupt
from ..nodes import Changes, Link, Node
from ._undecoded import Undecoded
from .contract import VectorBlock, VectorChanges
from .sqlite_schema import SLOTS, bounds, fields
from .sqlite_vectors import unpack_vectors
from .state import matches, visible

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from ..mutex import Mutex
    from ..nodes import Where

__all__ = ["Reading"]

_BLOCK = 8192  # vectors per query
_PAGE = 1000  # nodes per query
_PASS = 20  # conditions that are tried in one pass over a table
_NODE = "row, namespace, id, kind, text, attributes, expires_at"
_EDGE = "row, namespace, source, target, relation, data"
_decode = json.JSONDecoder().raw_decode  # a third of what `json.loads` takes for a few attributes


class DamagedRowError(ValueError):
    """A value of a kind that was never written: of a damaged record, SQLite gives anything."""


class Reading:
    """The reading half of the `Store` contract; see there."""

    _path: str
    _mutex: Mutex

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """Give the connection for the length of the block, in which the mutex is held."""
        raise NotImplementedError

    def _translated(self) -> AbstractContextManager[None]:
        """Say in our words what SQLite or JSON has to say in the block."""
        raise NotImplementedError

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._mutex.lock, self._reading() as db:
            return db.execute(sql, values).fetchall()

    @staticmethod
    def _version(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT max(version) FROM log").fetchone()[0] or 0)

    def version(self) -> int:
        """Return the number of the last committed batch."""
        with self._mutex.lock, self._reading() as db:
            return self._version(db)

    def changes(self, since: int) -> Changes:
        """Return what happened to nodes and edges after version *since*."""
        with self._mutex.lock, self._reading() as db, _snapshot(db):
            version = self._version(db)
            if since >= version:
                return Changes(version)
            entries = self._log(db, since)
            if entries is None:
                return Changes(version, reset=True)
            nodes = {row for entry in entries for row in entry.get("nodes", ())}
            edges = {row for entry in entries for row in entry.get("edges", ())}
            return Changes(
                version,
                nodes=[_node(r) for r in _by_rows(db, f"SELECT {_NODE} FROM nodes", sorted(nodes))],
                links=[_link(r) for r in _by_rows(db, f"SELECT {_EDGE} FROM edges", sorted(edges))],
                removed_nodes=[tuple(key) for entry in entries for key in entry.get("gone_nodes", ())],
                removed_links=[tuple(key) for entry in entries for key in entry.get("gone_edges", ())],
            )

    @staticmethod
    def _log(db: sqlite3.Connection, since: int) -> list[dict[str, Any]] | None:
        """Return the entries after version *since*, None if not all of them are kept."""
        rows = db.execute("SELECT version, changes FROM log WHERE version > ? ORDER BY version", (since,)).fetchall()
        if since < 0 or (rows and rows[0][0] != since + 1):
            return None
        return [json.loads(changes) for _, changes in rows]

    def get(self, ids: Sequence[str], namespace: str) -> dict[str, Node]:
        """Return those of the nodes named by *ids* that exist."""
        now = time.time()
        with self._mutex.lock, self._reading() as db:
            rows = _chunked(db, f"SELECT {_NODE} FROM nodes WHERE namespace = ? AND id IN", list(ids), (namespace,))
            nodes = list(map(_node, rows))
            self._note(ids, namespace, nodes)
            return {node.id: node for node in nodes if visible(node, now)}

    def _note(self, ids: Sequence[str], namespace: str, nodes: Sequence[Node]) -> None:
        """Learn that of the nodes named by *ids* there are these, expired ones included; for those who write."""

    def at_rows(self, rows: Sequence[int]) -> Mapping[int, Node]:
        """Return those of the nodes at *rows* that exist, each decoded when it is looked at."""
        now = time.time()
        with self._mutex.lock, self._reading() as db:
            found = _by_rows(db, f"SELECT {_NODE} FROM nodes", list(rows))
            return Undecoded({raw[0]: raw for raw in found if raw[-1] is None or raw[-1] > now}, self._decoded)

    def _decoded(self, raw: tuple[Any, ...]) -> Node:
        try:
            return _node(raw)
        except Exception:
            with self._translated():  # only here: entering it takes as long as making a node
                raise

    def nodes(self, where: Where) -> Iterator[Node]:
        """Yield the nodes that *where* describes, by ascending row."""
        if where.limit == 0:
            return
        number, now = 0, time.time()
        for node in self._candidates(where, now):
            if (
                node.row > where.after_row
                and (where.kinds is None or node.kind in where.kinds)
                and visible(node, now)
                and matches(node, where.attributes)
            ):
                yield node
                number += 1
                if number == where.limit:
                    return

    def expired(self, namespace: str, kind: str) -> list[str]:
        """Return the ids of the nodes of one kind that have expired, by ascending row."""
        sql = "SELECT id FROM nodes WHERE namespace = ? AND kind = ? AND expires_at <= ? ORDER BY row"
        return [node_id for (node_id,) in self._query(sql, (namespace, kind, time.time()))]

    def _candidates(self, where: Where, now: float) -> Iterator[Node]:
        """Yield nodes by ascending row, those that *where* describes among them."""
        if where.ids is not None:
            spaces = self.namespaces() if where.namespace is None else [where.namespace]
            found = [node for space in spaces for node in self.get(list(dict.fromkeys(where.ids)), space).values()]
            return iter(sorted(found, key=lambda node: node.row))
        limit = None if where.attributes else where.limit
        if where.kinds is None or where.namespace is None:
            # By its rows and not by the index over kinds, which would have to be sorted for every page.
            space = [] if where.namespace is None else [where.namespace]
            condition = f"{'namespace = ? AND ' if space else ''}row > ?"
            return self._paged("NOT INDEXED", condition, space, where.after_row, limit)
        several = []
        for kind in dict.fromkeys(where.kinds):
            # In the index over kinds, nodes of one kind that do not expire stand by their rows.
            lasting = "namespace = ? AND kind = ? AND expires_at IS NULL AND row > ?"
            own = (where.namespace, kind)
            several.append(self._paged("INDEXED BY nodes_kind", lasting, own, where.after_row, limit))
            sql = "SELECT row FROM nodes WHERE namespace = ? AND kind = ? AND expires_at > ?"
            several.append(self._at(sorted(row for (row,) in self._query(sql, (*own, now)))))
        return heapq.merge(*several, key=lambda node: node.row)

    def _paged(
        self, index: str, condition: str, values: Sequence[Any], after: int, limit: int | None
    ) -> Iterator[Node]:
        """Yield the nodes of *condition* by row, a page at a time: nothing stays locked in between."""
        sql = f"SELECT {_NODE} FROM nodes {index} WHERE {condition} ORDER BY row LIMIT ?"
        size = 50 if limit is None else min(_PAGE, limit)  # many look at the first ones only
        while True:
            with self._mutex.lock, self._reading() as db:
                page = [_node(row) for row in db.execute(sql, (*values, after, size))]
            self._expect_order([node.row for node in page], after + 1)
            yield from page
            if len(page) < size:
                return
            after, size = page[-1].row, min(_PAGE, size * 4)

    def _at(self, rows: Sequence[int]) -> Iterator[Node]:
        for start in range(0, len(rows), _PAGE):
            found = self.at_rows(rows[start : start + _PAGE])
            yield from (found[row] for row in sorted(found))

    def links(
        self,
        ids: Sequence[str] | None,
        namespace: str | None,
        *,
        direction: str = "out",
        relation: str | None = None,
        newest: int | None = None,
    ) -> list[Link]:
        """Return edges by ascending row."""
        conditions, values = ["1"], []
        if namespace is not None:
            conditions.append("namespace = ?")
            values.append(namespace)
        if relation is not None:
            conditions.append("relation = ?")
            values.append(relation)
        base = f"SELECT {_EDGE} FROM edges WHERE {' AND '.join(conditions)}"
        found: dict[int, Link] = {}
        with self._mutex.lock, self._reading() as db:
            if ids is None:
                for row in db.execute(base, values):
                    found[row[0]] = _link(row)
            else:
                for column in {"out": ["source"], "in": ["target"], "both": ["source", "target"]}[direction]:
                    if newest is None:
                        rows = _chunked(db, f"{base} AND {column} IN", list(ids), values)
                    else:
                        last = f"{base} AND {column} = ? ORDER BY row DESC LIMIT {newest:d}"
                        rows = [row for node_id in ids for row in db.execute(last, (*values, node_id)).fetchall()]
                    found.update((row[0], _link(row)) for row in rows)
        return [found[row] for row in sorted(found)]

    def all_links(self, namespace: str | None) -> Iterator[Link]:
        """Yield all edges by ascending row, a page at a time."""
        condition, values = ("row > ?", []) if namespace is None else ("namespace = ? AND row > ?", [namespace])
        sql = f"SELECT {_EDGE} FROM edges NOT INDEXED WHERE {condition} ORDER BY row LIMIT {_PAGE}"
        after = -1
        while page := [_link(row) for row in self._query(sql, (*values, after))]:
            self._expect_order([link.row for link in page], after + 1)
            yield from page
            after = page[-1].row

    def _expect_order(self, keys: Any, low: int) -> None:
        """See that the keys of a page ascend from *low* on: a damaged tree may lead back to where they began."""
        if len(keys) and (keys[0] < low or (np.diff(keys) <= 0).any()):
            raise StoreCorrupt(
                f"{self._path!r} is damaged: its rows are out of order. Nothing was changed. Run repair, or put back a "
                f"copy of it."
            )

    def history(self, node_id: str, namespace: str) -> list[Node]:
        """Return the replaced versions of a node, oldest first."""
        sql = (
            "SELECT h.row, n.namespace, n.id, h.kind, h.text, h.attributes, h.expires_at "
            "FROM history h JOIN nodes n ON n.row = h.row WHERE n.namespace = ? AND n.id = ? ORDER BY h.number"
        )
        with self._mutex.lock, self._reading() as db:
            return [_node(row) for row in db.execute(sql, (namespace, node_id))]

    def vectors(self, field: str, since: int) -> VectorChanges:
        """Return what happened to the vectors of *field* after version *since*."""
        with self._mutex.lock, self._reading() as db, _snapshot(db):
            version = self._version(db)
            found = fields(db).get(field)
            if found is None:
                return VectorChanges(version, since < version, np.empty(0, np.int64), iter(()))
            first, end = bounds(found[0])
            entries = None if since < found[2] else self._log(db, since)
            if entries is None:
                last = db.execute("SELECT max(key) FROM vectors WHERE key >= ? AND key < ?", (first, end)).fetchone()[0]
                blocks = self._blocks(first, first if last is None else last + 1, first, found[1])
                return VectorChanges(version, True, np.empty(0, np.int64), blocks)
        spans = [entry["added"][field] for entry in entries if field in entry.get("added", {})]
        gone = {slot for entry in entries for slot in entry.get("dropped", {}).get(field, ())}
        low, high = (spans[0][0], spans[-1][1] + 1) if spans else (0, 0)
        removed = np.array(sorted(slot for slot in gone if slot < low or not spans), np.int64)
        return VectorChanges(version, False, removed, self._blocks(first + low, first + high, first, found[1]))

    def _blocks(self, low: int, high: int, first: int, dim: int) -> Iterator[VectorBlock]:
        """Yield the vectors with keys from *low* up to *high*, each block one query."""
        sql = (
            'SELECT key, row, vector, part, start, "end" FROM vectors '
            "WHERE key >= ? AND key < ? AND row IS NOT NULL ORDER BY key LIMIT ?"  # a page a query
        )
        while low < high and (rows := self._query(sql, (low, high, _BLOCK))):
            values = unpack_vectors([row[2] for row in rows], dim)
            if values is None:
                raise self._other_length(dim)
            keys = np.array([row[0] for row in rows], np.int64)
            spans = np.array([row[3:] for row in rows], np.int64)
            self._expect_order(keys, low)
            yield VectorBlock(keys - first, np.array([row[1] for row in rows], np.int64), values, spans)
            low = rows[-1][0] + 1

    def rows(self, where: Where) -> NDArray[np.int64]:
        """Return the rows of the nodes that *where* describes, ascending."""
        if where.ids is not None or where.attributes or where.limit is not None:
            return np.array([node.row for node in self.nodes(where)], np.int64)
        conditions = ["row > ?", "(expires_at IS NULL OR expires_at > ?)"]
        values: list[Any] = [where.after_row, time.time()]
        if where.namespace is not None:
            conditions.append("namespace = ?")
            values.append(where.namespace)
        if where.kinds is not None:
            conditions.append(f"kind IN ({', '.join('?' * len(where.kinds))})")
            values += where.kinds
        found = self._query(f"SELECT row FROM nodes WHERE {' AND '.join(conditions)}", values)
        return np.sort(np.array([row for (row,) in found], np.int64))

    def vector_fields(self) -> set[str]:
        """Return the fields that have vectors, and perhaps some that had."""
        return {field for (field,) in self._query("SELECT field FROM sets")}

    def vector_slots(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots of the vectors in *field*, ascending, and the node row of each."""
        with self._mutex.lock, self._reading() as db:
            found = fields(db).get(field)
            if found is None:
                return np.empty(0, np.int64), np.empty(0, np.int64)
            # From the index over rows alone, which has no vectors in it.
            sql = "SELECT key, row FROM vectors INDEXED BY vectors_row WHERE row IS NOT NULL AND key >= ? AND key < ?"
            pairs = np.array(db.execute(sql, bounds(found[0])).fetchall(), np.int64).reshape(-1, 2)
        pairs = pairs[np.argsort(pairs[:, 0])]
        return pairs[:, 0] - found[0] * SLOTS, pairs[:, 1]

    def vectors_at(self, rows: Sequence[int]) -> dict[int, dict[tuple[str, int], NDArray[np.float32]]]:
        """Return the vectors of the nodes at *rows*, by field and part."""
        found: dict[int, dict[tuple[str, int], NDArray[np.float32]]] = {}
        with self._mutex.lock, self._reading() as db, _snapshot(db):
            sets = {number: (field, dim) for field, (number, dim, _) in fields(db).items()}
            sql = "SELECT key, row, part, vector FROM vectors WHERE row IN"
            read = sorted(_chunked(db, sql, list(dict.fromkeys(rows)))) if sets else []  # by key, so by slot
        for key, row, part, raw in read:
            field, dim = sets[key // SLOTS]
            values = unpack_vectors([raw], dim)
            if values is None:
                raise self._other_length(dim)
            found.setdefault(row, {})[field, part] = values[0]
        return found

    def _other_length(self, dim: int) -> StoreCorrupt:
        return StoreCorrupt(f"{self._path!r} holds vectors of another length than {dim}. Make them again with reindex.")

    def vectors_lost(self) -> str | None:
        """Return None: the vectors are in the same file as everything else."""
        return None

    def count(self, namespace: str) -> int:
        """Return how many nodes a namespace holds."""
        return int(self._query("SELECT count(*) FROM nodes WHERE namespace = ?", (namespace,))[0][0])

    def counts(self, namespace: str | None) -> dict[str, dict[str, int]]:
        """Return how many nodes, edges and vectors there are of each kind, relation and field."""
        # Each of them one pass over an index, without the rows, which may be long.
        where, values = ("", []) if namespace is None else ("WHERE namespace = ?", [namespace])
        with self._mutex.lock, self._reading() as db, _snapshot(db):
            kinds = db.execute(
                f"SELECT kind, count(*) FROM nodes {where} GROUP BY kind ORDER BY kind", values
            ).fetchall()
            relations = [name for (name,) in db.execute(f"SELECT DISTINCT relation FROM edges {where}", values)]
            if len(relations) > _PASS:
                edges = dict(db.execute(f"SELECT relation, count(*) FROM edges {where} GROUP BY relation", values))
            else:  # grouping would sort all of the edges for the sake of a few relations
                named = [("relation = ?", (name,)) for name in relations]
                edges = dict(zip(relations, _tallied(db, f"FROM edges {where}", values, named), strict=True))
            sets = fields(db)
            source = "FROM vectors v INDEXED BY vectors_row"
            if namespace is None or self._is_alone(db, namespace):
                source, values = f"{source} WHERE v.row IS NOT NULL", []
            else:
                source += " CROSS JOIN nodes n ON n.row = v.row WHERE v.row IS NOT NULL AND n.namespace = ?"
            within = [("v.key >= ? AND v.key < ?", bounds(number)) for number, _, _ in sets.values()]
            vectors = dict(zip(sets, _tallied(db, source, values, within), strict=True))
        return {
            "kinds": dict(kinds),
            "relations": {name: n for name, n in sorted(edges.items()) if n},
            "vectors": {field: n for field, n in sorted(vectors.items()) if n},
        }

    @staticmethod
    def _is_alone(db: sqlite3.Connection, namespace: str) -> bool:
        ends = {db.execute(f"SELECT {end}(namespace) FROM nodes").fetchone()[0] for end in ("min", "max")}
        return ends == {namespace}

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold nodes, sorted."""
        found: list[str] = []
        while True:  # hops along the index instead of reading all of it
            sql = "SELECT min(namespace) FROM nodes" + (" WHERE namespace > ?" if found else "")
            name = self._query(sql, found[-1:])[0][0]
            if name is None:
                return found
            found.append(name)

    def meta(self, key: str) -> Any:
        """Return the JSON value kept under *key*, or None."""
        with self._mutex.lock, self._reading() as db:
            return self._meta(db, key)

    @staticmethod
    def _meta(db: sqlite3.Connection, key: str) -> Any:
        row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def mark(self, version: int) -> str | None:
        """Return what the commit of *version* was marked with."""
        # By SQLite, because the changes of a large batch are megabytes.
        rows = self._query("SELECT json_extract(changes, '$.mark') FROM log WHERE version = ?", (version,))
        return rows[0][0] if rows else None

    def remembers(self, version: int) -> bool:
        """Tell whether the log reaches back to *version*."""
        return bool(self._query("SELECT 1 FROM log WHERE version = ?", (version,)))


@contextlib.contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Let several queries see one version."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")


def _tallied(
    db: sqlite3.Connection, source: str, values: Sequence[Any], tests: Sequence[tuple[str, Sequence[Any]]]
) -> Iterator[int]:
    """Yield for each of *tests*, a condition and its values, how many rows of *source* pass it."""
    for start in range(0, len(tests), _PASS):
        some = tests[start : start + _PASS]
        columns = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition, _ in some)
        given = [value for _, several in some for value in several]
        yield from db.execute(f"SELECT {columns} {source}", (*given, *values)).fetchone()


def _chunked(db: sqlite3.Connection, sql: str, items: list[Any], before: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(items), 500):  # SQLite once allowed no more than 999 variables
        some = items[start : start + 500]
        found += db.execute(f"{sql} (?{', ?' * (len(some) - 1)})", (*before, *some)).fetchall()
    return found


def _by_rows(db: sqlite3.Connection, select: str, rows: list[int]) -> list[tuple[Any, ...]]:
    return _chunked(db, f"{select} WHERE row IN", rows)


def _node(row: tuple[Any, ...]) -> Node:
    number, namespace, node_id, kind, text, attributes, expires_at = row
    if not (type(node_id) is type(kind) is str and (text is None or type(text) is str)):
        raise DamagedRowError(f"row {number} of the nodes has an id, a kind or a text that is none")
    return Node(node_id, kind, text, _object(attributes), namespace, expires_at, number)


def _link(row: tuple[Any, ...]) -> Link:
    number, namespace, source, target, relation, data = row
    return Link(source, target, relation, _object(data), namespace, number)


def _object(text: Any) -> Any:
    if text == "{}":  # most edges carry nothing
        return {}
    if not isinstance(text, str):
        raise DamagedRowError(f"{text!r:.40} stands where JSON should")
    try:
        value, end = _decode(text)
    except json.JSONDecodeError:
        end = -1
    return value if end == len(text) else json.loads(text)  # which allows for white space, and says what is wrong
