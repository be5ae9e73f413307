"""How a batch becomes rows of a PostgreSQL store, in as few journeys to the server as may be.

What must be known before is asked for at once, then what goes is removed, then what comes is sent with the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DimensionMismatch, InvalidInput
from ._files import to_json
from .postgres_schema import POOLED, SESSION, escaped, key_of, unescaped
from .postgres_sessions import VectorBytes, pipeline
from .state import NEXT

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Sequence

    from ..nodes import Batch, Link, Node, Vector
    from .postgres_sessions import Session

__all__ = ["REMEMBERED", "VectorSet", "apply"]

REMEMBERED = 20_000  # versions that changes() can still tell apart
_TIDY = 256  # versions between two looks at which of them to forget
_MANY = 16  # vectors from which on a COPY is quicker than an INSERT for each


class VectorSet(NamedTuple):
    """The vectors of one length in a field: its number, their length, since when its slots hold, and the next one."""

    number: int
    dim: int
    reset_at: int
    next_slot: int


def sets_of(db: Session) -> dict[str, VectorSet]:
    """Return the set of each field."""
    rows = db.execute("SELECT field, number, dim, reset_at, next_slot FROM sets ORDER BY number").fetchall()
    return {unescaped(field): VectorSet(*rest) for field, *rest in rows}


def apply(db: Session, batch: Batch, mark: str, lock: tuple[int, int], token: str) -> int:
    """Write *batch* in a transaction of its own, marked with *mark*, and return its version.

    The advisory *lock* is held until the commit, so that versions become visible in their order. *token* is what the
    session was told when it was set up: with one that others set up it would be written to their memory.

    Raises:
        InvalidInput: It names a node that does not exist, or the session is not ours any more.
        DimensionMismatch: A vector has another length than those of its field.
    """
    writing = _Writing(db, batch)
    version = writing.begin(lock, token)
    writing.remove()
    writing.add_vectors(version)
    writing.finish(version, mark)
    return version


class _Writing:
    def __init__(self, db: Session, batch: Batch) -> None:
        self._db, self._batch = db, batch
        self._known: dict[tuple[str, str], int] = {}  # rows of nodes by (namespace, id)
        self._edges: dict[uuid.UUID, int] = {}  # rows of edges by their keys
        self._sets: dict[str, VectorSet] = {}
        self._next_row = self._next_edge = 0
        self._first_new = 0  # nodes at this row and later are new
        self._gone_nodes: list[tuple[str, str]] = []
        self._gone_edges: list[tuple[str, str, str, str]] = []
        self._dropped: dict[str, list[int]] = {}
        self._added: dict[str, list[int]] = {}
        self._vectors: list[tuple[VectorSet, int, int, Vector]] = []  # with slot and row
        self._settling: list[tuple[str, tuple[Any, ...]]] = []

    # --- what is there ------------------------------------------------------------------------------------------

    def begin(self, lock: tuple[int, int], token: str) -> int:
        """Begin the transaction, learn what is there, and return the version to write."""
        batch, db = self._batch, self._db
        names = dict.fromkeys(batch.removed_nodes)
        names.update(dict.fromkeys((node.namespace, node.id) for node in batch.nodes))
        for link in batch.links:
            names[link.namespace, link.source] = names[link.namespace, link.target] = None
        names.update(dict.fromkeys((vector.namespace, vector.node) for vector in batch.vectors))
        keys = {key_of(*name): name for name in names}
        self._link_keys = {key_of(e.namespace, e.source, e.target, e.relation): e for e in batch.links}
        gone = {key_of(*name): name for name in dict.fromkeys(batch.removed_links)}
        with pipeline(db):
            db.execute("BEGIN")
            db.execute("SELECT pg_advisory_xact_lock(%s, %s)", lock)
            state = db.execute(
                f"SELECT version, next_row, next_edge FROM state WHERE current_setting('{SESSION}', true) = %s",
                (token,),
            )
            nodes = db.execute('SELECT key, "row" FROM nodes WHERE key = ANY(%s)', ([*keys],)) if keys else None
            wanted = [*self._link_keys, *gone]
            edges = db.execute('SELECT key, "row" FROM edges WHERE key = ANY(%s)', (wanted,)) if wanted else None
            sets = db.execute("SELECT field, number, dim, reset_at, next_slot FROM sets ORDER BY number")
        found = state.fetchone()
        if found is None:
            raise InvalidInput(POOLED)
        version, self._next_row, self._next_edge = found
        self._first_new = self._next_row
        self._known = {keys[key]: row for key, row in nodes or ()}
        self._edges = dict(iter(edges or ()))
        self._sets = {unescaped(field): VectorSet(*rest) for field, *rest in sets}
        self._gone_edges = [name for key, name in gone.items() if key in self._edges]
        for key in gone:
            self._edges.pop(key, None)
        return int(version) + 1

    # --- what goes ----------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove what is removed, and the vectors of what is replaced."""
        batch, db = self._batch, self._db
        self._gone_nodes = [name for name in dict.fromkeys(batch.removed_nodes) if name in self._known]
        going = [self._known.pop(name) for name in self._gone_nodes]
        removed = set(batch.removed_nodes)
        for key, link in self._link_keys.items():
            if {(link.namespace, link.source), (link.namespace, link.target)} & removed:
                self._edges.pop(key, None)  # it goes with its node, and comes anew
        replaced = list(
            dict.fromkeys(
                self._known[node.namespace, node.id] for node in batch.nodes if (node.namespace, node.id) in self._known
            )
        )
        if not (self._gone_edges or going or replaced):
            return
        around = dropped = None
        with pipeline(db):
            if self._gone_edges:
                db.execute("DELETE FROM edges WHERE key = ANY(%s)", ([key_of(*name) for name in self._gone_edges],))
            if going:
                around = db.execute(
                    "DELETE FROM edges e WHERE e.source = ANY(%s) OR e.target = ANY(%s) RETURNING e.namespace, "
                    '(SELECT id FROM nodes WHERE "row" = e.source), (SELECT id FROM nodes WHERE "row" = e.target), '
                    "e.relation",
                    (going, going),
                )
            dropped = db.execute(
                'DELETE FROM vectors WHERE "row" = ANY(%s) RETURNING "set", slot', ([*going, *replaced],)
            )
            if going:
                db.execute('DELETE FROM history WHERE "row" = ANY(%s)', (going,))
                db.execute('DELETE FROM nodes WHERE "row" = ANY(%s)', (going,))
            if replaced:
                db.execute(
                    'INSERT INTO history("row", kind, text, attributes, expires_at) '
                    'SELECT "row", kind, text, attributes, expires_at FROM nodes WHERE "row" = ANY(%s)',
                    (replaced,),
                )
        for row in around or ():
            if None not in row:  # else a node at its end was missing, so that nobody knows of it
                namespace, source, target, relation = map(unescaped, row)
                self._gone_edges.append((namespace, source, target, relation))
        fields = {found.number: field for field, found in self._sets.items()}
        for number, slot in dropped:
            self._dropped.setdefault(fields[number], []).append(slot)

    # --- vectors ------------------------------------------------------------------------------------------------

    def add_vectors(self, version: int) -> None:
        """Give each vector its slot, and settle what waits."""
        self._rows_of_new()
        changed: set[str] = set()
        for vector in self._batch.vectors:
            row = self._known.get((vector.namespace, vector.node))
            if row is None:
                raise InvalidInput(f"No node has the id {vector.node!r}, so it can have no vector.")
            if vector.field not in changed:
                changed.add(vector.field)
                self._open_set(vector, version)
            found = self._sets[vector.field]
            if len(vector.values) != found.dim:
                raise DimensionMismatch(
                    f"The vector of {vector.node!r} has {len(vector.values)} numbers, the store's have {found.dim}. "
                    f"Move the store to the other model with reembed()."
                )
            slot = found.next_slot
            self._vectors.append((found, slot, row, vector))
            self._sets[vector.field] = found._replace(next_slot=slot + 1)
            self._added.setdefault(vector.field, [slot, 0])[1] = slot
        self._settling += [
            (
                "UPDATE sets SET next_slot = %s WHERE number = %s",
                (self._sets[field].next_slot, self._sets[field].number),
            )
            for field in sorted(changed)
        ]
        if self._batch.staged:
            self._settle(self._batch.staged, version)

    def _rows_of_new(self) -> None:
        for node in self._batch.nodes:
            name = node.namespace, node.id
            if name not in self._known:
                self._known[name] = self._next_row
                self._next_row += 1

    def _open_set(self, vector: Vector, version: int) -> None:
        """See that there is a set for vectors of this length in the field, if there may be one."""
        found, dim = self._sets.get(vector.field), len(vector.values)
        if found is not None and found.dim == dim:
            return
        if found is not None:
            some = self._db.execute('SELECT 1 FROM vectors WHERE "set" = %s LIMIT 1', (found.number,)).fetchone()
            if some is not None:
                return
            self._db.execute("DELETE FROM sets WHERE number = %s", (found.number,))
        made = self._db.execute(
            "INSERT INTO sets(field, dim, reset_at, next_slot) VALUES (%s, %s, %s, 0) RETURNING number",
            (escaped(vector.field), dim, version),
        ).fetchone()
        assert made is not None
        self._sets[vector.field] = VectorSet(made[0], dim, version, 0)

    def _settle(self, staged: str, version: int) -> None:
        """Let the vectors of every `X.next` replace those of `X`, or drop them."""
        waiting = {field: found for field, found in self._sets.items() if field.endswith(NEXT)}
        going = waiting if staged == "discard" else {f: s for f, s in self._sets.items() if f not in waiting}
        numbers = [found.number for found in going.values()]
        self._settling.append(('DELETE FROM vectors WHERE "set" = ANY(%s)', (numbers,)))
        self._settling.append(("DELETE FROM sets WHERE number = ANY(%s)", (numbers,)))
        if staged == "promote":
            self._settling += [
                (
                    "UPDATE sets SET field = %s, reset_at = %s WHERE number = %s",
                    (escaped(field.removesuffix(NEXT)), version, found.number),
                )
                for field, found in waiting.items()
            ]

    def _insert_vectors(self) -> None:
        sql = 'INSERT INTO vectors("set", slot, "row", part, start, "end", vector) VALUES (%s, %s, %s, %s, %s, %s, %s)'
        for found, slot, row, v in self._vectors:
            self._db.execute(sql, (found.number, slot, row, v.part, v.start, v.end, _as_bytes(v.values)))

    def _copy_vectors(self) -> None:
        by_set: dict[int, list[tuple[VectorSet, int, int, Vector]]] = {}
        for each in self._vectors:
            by_set.setdefault(each[0].number, []).append(each)
        with (
            self._db.cursor() as cursor,
            cursor.copy(
                'COPY vectors("set", slot, "row", part, start, "end", vector) FROM STDIN (FORMAT BINARY)'
            ) as out,
        ):
            out.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for several in by_set.values():
                for start in range(0, len(several), 1000):
                    out.write(_binary_rows(several[start : start + 1000]))
            out.write(b"\xff\xff")

    # --- what comes ---------------------------------------------------------------------------------------------

    def finish(self, version: int, mark: str) -> None:
        """Send everything else, and commit."""
        db, batch = self._db, self._batch
        before, after, again = self._sorted_nodes()
        edges_new, edges_old, edge_rows = self._sorted_links(batch.links)
        entry: dict[str, Any] = {
            "nodes": sorted({self._known[node.namespace, node.id] for node in batch.nodes}),
            "edges": edge_rows,
            "gone_nodes": self._gone_nodes,
            "gone_edges": self._gone_edges,
            "added": self._added,
            "dropped": self._dropped,
        }
        many = len(self._vectors) >= _MANY
        if many:
            self._copy_vectors()  # which cannot go through a pipeline
        with pipeline(db):
            if after:
                db.execute(
                    'INSERT INTO nodes("row", key, namespace, id, kind, text, attributes, expires_at) SELECT * FROM '
                    "unnest(%s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::json[], "
                    "%s::float8[])",
                    _columns(after, 8),
                )
            if again:
                db.execute(
                    "UPDATE nodes n SET kind = u.kind, text = u.text, attributes = u.attributes, expires_at = "
                    "u.expires_at FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::json[], %s::float8[]) AS "
                    'u("row", kind, text, attributes, expires_at) WHERE n."row" = u."row"',
                    _columns(again, 5),
                )
            if before:
                db.execute(
                    'INSERT INTO history("row", kind, text, attributes, expires_at) SELECT "row", kind, text, '
                    "attributes, expires_at FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::json[], "
                    '%s::float8[]) WITH ORDINALITY AS u("row", kind, text, attributes, expires_at, at) ORDER BY at',
                    _columns(before, 5),
                )
            if not many:
                self._insert_vectors()
            for statement, values in self._settling:
                db.execute(statement, values)
            if edges_new:
                db.execute(
                    'INSERT INTO edges("row", key, namespace, source, target, relation, data) SELECT * FROM '
                    "unnest(%s::bigint[], %s::uuid[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::json[])",
                    _columns(edges_new, 7),
                )
            if edges_old:
                db.execute(
                    'UPDATE edges e SET data = u.data FROM unnest(%s::bigint[], %s::json[]) AS u("row", data) '
                    'WHERE e."row" = u."row"',
                    _columns(edges_old, 2),
                )
            for name, value in batch.meta.items():
                if value is None:
                    db.execute("DELETE FROM meta WHERE key = %s", (escaped(name),))
                else:
                    db.execute(
                        "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        (escaped(name), to_json(value)),
                    )
            db.execute(
                "INSERT INTO log VALUES (%s, %s, %s)", (version, mark, to_json({k: v for k, v in entry.items() if v}))
            )
            if version % _TIDY == 0:
                db.execute("DELETE FROM log WHERE version <= %s", (version - REMEMBERED,))
            db.execute(
                "UPDATE state SET version = %s, next_row = %s, next_edge = %s",
                (version, self._next_row, self._next_edge),
            )
            db.execute("COMMIT")

    def _sorted_nodes(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Return what goes to the history at once, what is new, and what replaces what was there before."""
        latest: dict[int, Node] = {}
        before: list[tuple[Any, ...]] = []
        for node in self._batch.nodes:
            row = self._known[node.namespace, node.id]
            if row in latest:
                before.append((row, *_values(latest[row])))
            latest[row] = node
        new, old = [], []
        for row, node in latest.items():
            if row >= self._first_new:
                names = key_of(node.namespace, node.id), escaped(node.namespace), escaped(node.id)
                new.append((row, *names, *_values(node)))
            else:
                old.append((row, *_values(node)))
        return before, new, old

    def _sorted_links(self, links: Sequence[Link]) -> tuple[list[Any], list[Any], list[int]]:
        """Return new edges, those that get other data, and the rows of all."""
        for link in links:
            for end in (link.source, link.target):
                if (link.namespace, end) not in self._known:
                    raise InvalidInput(f"No node has the id {end!r}, so no {link.relation!r} edge can touch it.")
        new, old, rows = [], [], []
        for key, link in self._link_keys.items():  # of two with the same ends the later one, in the place of the first
            row = self._edges.get(key)
            if row is not None:
                old.append((row, to_json(link.data)))
            else:
                row = self._next_edge
                self._next_edge += 1
                ends = self._known[link.namespace, link.source], self._known[link.namespace, link.target]
                new.append((row, key, escaped(link.namespace), *ends, escaped(link.relation), to_json(link.data)))
            rows.append(row)
        return new, old, rows


def _values(node: Node) -> tuple[Any, ...]:
    text = None if node.text is None else escaped(node.text)
    return escaped(node.kind), text, to_json(node.attributes), node.expires_at


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    return [[row[at] for row in rows] for at in range(count)]


def _as_bytes(values: Any) -> VectorBytes:
    row = np.ascontiguousarray(values, ">f4")
    return VectorBytes(len(row).to_bytes(2, "big") + b"\0\0" + row.tobytes())


def _binary_rows(several: Iterable[tuple[VectorSet, int, int, Vector]]) -> bytes:
    """Return rows of one set in the binary form of COPY (postgresql.org/docs/current/sql-copy.html)."""
    several = list(several)
    dim = several[0][0].dim
    whole = [("set", ">i4"), ("slot", ">i8"), ("row", ">i8"), ("part", ">i4"), ("start", ">i4"), ("end", ">i4")]
    layout: list[Any] = [("columns", ">i2")]
    for name, kind in whole:
        layout += [(f"{name}_size", ">i4"), (name, kind)]
    layout += [("size", ">i4"), ("dim", ">u2"), ("unused", ">u2"), ("values", ">f4", (dim,))]
    rows = np.zeros(len(several), np.dtype(layout))
    rows["columns"] = len(whole) + 1
    for name, kind in whole:
        rows[f"{name}_size"] = int(kind[-1])
    rows["size"], rows["dim"] = 4 + 4 * dim, dim
    rows["set"] = several[0][0].number
    rows["slot"], rows["row"] = [each[1] for each in several], [each[2] for each in several]
    for name in ("part", "start", "end"):
        rows[name] = [getattr(each[3], name) for each in several]
    rows["values"] = np.array([each[3].values for each in several], np.float32)
    return rows.tobytes()
