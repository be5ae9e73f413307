"""How a batch becomes rows of a SQLite store."""

from __future__ import annotations

import json
import os
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..errors import DimensionMismatch, InvalidInput
from ._files import to_json
from ._wal import BEGINNING
from .sqlite_schema import SLOTS, bounds, fields
from .sqlite_vectors import FORMAT, pack_vector
from .state import NEXT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from ..nodes import Batch, Link, Node, Vector

__all__ = ["CHECKPOINT", "Known", "Transaction"]

CHECKPOINT = 256  # versions between two checkpoints: keeps the -wal file at some megabytes
_MANY = 8  # rows that are worth giving numbers to before they are written, all at once
_TOGETHER = 16  # rows that one statement writes, in 0.7 of the time that it takes one by one
_REMEMBERED = 20_000  # versions that changes() can still tell apart


class Known:
    """What need not be read again while the newest entry in the log of changes is the one that *last* says.

    Every entry is marked with a number of its own, so that nobody else can have written, and nothing have been taken
    back, where that is so.
    """

    def __init__(self, last: tuple[int, str] | None = None) -> None:
        self.last = last
        self.meta: dict[str, Any] = {}  # None for what is not there
        self.fields: dict[str, tuple[int, int, int]] | None = None  # see `sqlite_schema.fields`
        self.next_keys: dict[int, int] = {}  # of the vectors of a set, by the number of that
        self.rows: dict[tuple[str, str], int | None] = {}  # of nodes by (namespace, id), None where there is none


class Transaction:
    """The writes of one transaction, which its owner begins and ends, and begins anew when this raises."""

    def __init__(
        self, db: sqlite3.Connection, said: Mapping[str, str | int] | None = None, known: Known | None = None
    ) -> None:
        self._db = db
        self._said = said or {}  # what the log of changes says first, where it can be found in the bytes of a page
        self._known = Known() if known is None else known
        self._rows = self._known.rows
        self._new: set[tuple[str, str]] = set()  # nodes that were not there before

    def apply(self, batch: Batch, version: int) -> None:
        """Write *batch* as version *version*; see `nodes.Batch` for what it says.

        Raises:
            InvalidInput: It names a node that does not exist.
            DimensionMismatch: A vector has another length than those of its field.
        """
        dropped: dict[str, list[int]] = {}
        gone_links = [key for key in batch.removed_links if self._remove_link(key)] if batch.removed_links else []
        gone_nodes = []
        for key in batch.removed_nodes:
            row = self._row(key)
            if row is None:
                continue
            for end in ("source", "target"):  # with OR, SQLite would go through all edges of the namespace
                gone_links += self._db.execute(
                    f"DELETE FROM edges WHERE namespace = ? AND {end} = ? "
                    "RETURNING namespace, source, target, relation",
                    key,
                ).fetchall()
            gone_nodes.append(key)
            self._drop_vectors(row, dropped)
            self._db.execute("DELETE FROM history WHERE row = ?", (row,))
            self._db.execute("DELETE FROM nodes WHERE row = ?", (row,))
            self._rows[key] = None
        nodes = self._put_all(batch.nodes, dropped) if batch.nodes else []
        added = self._add_vectors(batch.vectors, version) if batch.vectors else {}
        if batch.staged:
            self._settle(batch.staged, version)
        edges = self._put_links(batch.links) if batch.links else []
        for name, value in batch.meta.items():
            if value is None:
                self._db.execute("DELETE FROM meta WHERE key = ?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))
            self._known.meta.pop(name, None)
        told = {
            "nodes": nodes, "edges": edges, "gone_nodes": gone_nodes, "gone_edges": gone_links, "added": added,
            "dropped": dropped,
        }  # fmt: skip
        told = {name: what for name, what in told.items() if what}
        changes = to_json({**self._said, "mark": os.urandom(4).hex(), **told})
        self._db.execute("INSERT INTO log VALUES (?, ?)", (version, changes))
        self._known.last = version, changes[:BEGINNING]
        if version % CHECKPOINT == 0:
            self._db.execute("DELETE FROM log WHERE version <= ?", (version - _REMEMBERED,))

    def _row(self, key: tuple[str, str]) -> int | None:
        if key not in self._rows:
            found = self._db.execute("SELECT row FROM nodes WHERE namespace = ? AND id = ?", key).fetchone()
            self._rows[key] = None if found is None else int(found[0])
        return self._rows[key]

    def _put_all(self, nodes: Sequence[Node], dropped: dict[str, list[int]]) -> list[int]:
        """Write *nodes* and return their rows."""
        keys = [(node.namespace, node.id) for node in nodes]
        self._look_up([key for key in keys if key not in self._rows])
        if len(nodes) < _MANY or len(set(keys)) < len(keys) or any(self._rows[key] is not None for key in keys):
            return [self._put(node, key, dropped) for node, key in zip(nodes, keys, strict=True)]
        rows = self._next_rows("nodes", len(nodes))
        self._insert(
            "nodes",
            [
                (row, n.namespace, n.id, n.kind, n.text, _written(n.attributes), n.expires_at)
                for row, n in zip(rows, nodes, strict=True)
            ],
        )
        self._rows.update(zip(keys, rows, strict=True))
        self._new.update(keys)
        return list(rows)

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write whole *rows* of *table*, several with each statement as long as there are enough."""
        together = len(rows) - len(rows) % _TOGETHER
        if together:
            # Whoever calls takes back the whole batch if one fails, so that SQLite need not keep what each statement
            # changed: in a file among those of the system, where it is much.
            self._db.executemany(
                f"INSERT OR FAIL INTO {table} VALUES {', '.join([_places(len(rows[0]))] * _TOGETHER)}",
                (tuple(chain.from_iterable(rows[at : at + _TOGETHER])) for at in range(0, together, _TOGETHER)),
            )
        for row in rows[together:]:
            self._db.execute(f"INSERT INTO {table} VALUES {_places(len(row))}", row)

    def _look_up(self, keys: Sequence[tuple[str, str]]) -> None:
        """Find out the rows of those nodes that are there."""
        ids: dict[str, list[str]] = {}
        for namespace, node_id in keys:
            ids.setdefault(namespace, []).append(node_id)
        self._rows.update(dict.fromkeys(keys))
        for namespace, some in ids.items():
            for start in range(0, len(some), 500):  # SQLite once allowed no more than 999 variables
                block = some[start : start + 500]
                sql = f"SELECT id, row FROM nodes WHERE namespace = ? AND id IN ({', '.join('?' * len(block))})"
                for node_id, row in self._db.execute(sql, (namespace, *block)):
                    self._rows[namespace, node_id] = row

    def _next_rows(self, table: str, count: int) -> range:
        """Return rows that were never given; AUTOINCREMENT goes on after the last of them."""
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        first = (found[0] if found else 0) + 1
        return range(first, first + count)

    def _put(self, node: Node, key: tuple[str, str], dropped: dict[str, list[int]]) -> int:
        values = (node.kind, node.text, _written(node.attributes), node.expires_at)
        row = self._rows[key]
        if row is None:
            cursor = self._db.execute(
                "INSERT INTO nodes(namespace, id, kind, text, attributes, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
                (node.namespace, node.id, *values),
            )
            assert cursor.lastrowid is not None
            self._rows[key] = cursor.lastrowid
            self._new.add(key)
            return cursor.lastrowid
        self._db.execute(
            "INSERT INTO history(row, kind, text, attributes, expires_at) "
            "SELECT row, kind, text, attributes, expires_at FROM nodes WHERE row = ?",
            (row,),
        )
        self._db.execute(
            "UPDATE nodes SET kind = ?, text = ?, attributes = ?, expires_at = ? WHERE row = ?",
            (*values, row),
        )
        self._drop_vectors(row, dropped)
        return row

    def _put_links(self, links: Sequence[Link]) -> list[int]:
        """Write *links* and return their rows."""
        touched = 0
        for link in links:
            source, target = (link.namespace, link.source), (link.namespace, link.target)
            for end in (source, target):
                if self._row(end) is None:
                    raise InvalidInput(f"No node has the id {end[1]!r}, so no {link.relation!r} edge can touch it.")
            touched += source in self._new or target in self._new
        # No edge touches a node yet that this transaction made.
        new = touched == len(links) and (
            len(links) == 1 or len({(e.namespace, e.source, e.target, e.relation) for e in links}) == len(links)
        )
        if not new:
            return [self._put_link(link) for link in links]
        if len(links) < _MANY:
            return [self._add_link(link) for link in links]
        rows = self._next_rows("edges", len(links))
        self._insert(
            "edges",
            [
                (row, e.namespace, e.source, e.target, e.relation, _written(e.data))
                for row, e in zip(rows, links, strict=True)
            ],
        )
        return list(rows)

    def _add_link(self, link: Link) -> int:
        cursor = self._db.execute(
            "INSERT INTO edges(namespace, source, target, relation, data) VALUES (?, ?, ?, ?, ?)",
            (link.namespace, link.source, link.target, link.relation, _written(link.data)),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _put_link(self, link: Link) -> int:
        found = self._db.execute(
            "INSERT INTO edges(namespace, source, target, relation, data) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT(namespace, source, target, relation) DO UPDATE SET data = excluded.data RETURNING row",
            (link.namespace, link.source, link.target, link.relation, _written(link.data)),
        ).fetchone()
        return int(found[0])

    def _remove_link(self, key: tuple[str, str, str, str]) -> bool:
        sql = "DELETE FROM edges WHERE namespace = ? AND source = ? AND target = ? AND relation = ?"
        return self._db.execute(sql, key).rowcount > 0

    def _drop_vectors(self, row: int, dropped: dict[str, list[int]]) -> None:
        # The keys stay, without what they held, so that no slot is given twice.
        keys = self._db.execute("UPDATE vectors SET row = NULL, vector = NULL WHERE row = ? RETURNING key", (row,))
        names = {number: field for field, (number, _, _) in self._fields().items()}
        for (key,) in keys.fetchall():
            dropped.setdefault(names[key // SLOTS], []).append(key % SLOTS)

    def _add_vectors(self, vectors: Sequence[Vector], version: int) -> dict[str, list[int]]:
        """Write *vectors* and return the first and the last slot given in each field."""
        added: dict[str, list[int]] = {}
        form = self._form() if vectors else ""
        fields: dict[str, list[Vector]] = {}
        for vector in vectors:
            fields.setdefault(vector.field, []).append(vector)
        for field, some in fields.items():
            first, key, dim = self._set_for(some[0], version)
            rows: list[tuple[Any, ...]] = []
            for number, vector in enumerate(some, key):
                row = self._row((vector.namespace, vector.node))
                if row is None:
                    raise InvalidInput(f"No node has the id {vector.node!r}, so it can have no vector.")
                values = vector.values
                if len(values) != dim:
                    raise DimensionMismatch(
                        f"The vector of {vector.node!r} has {len(values)} numbers, the store's have {dim}. "
                        f"Move the store to the other model with reembed()."
                    )
                rows.append((number, row, vector.part, vector.start, vector.end, pack_vector(values, form)))
            self._insert("vectors", rows)
            added[field] = [key - first, key - first + len(rows) - 1]
            self._known.next_keys[first // SLOTS] = key + len(rows)
        return added

    def _form(self) -> str:
        meta = self._known.meta
        if FORMAT not in meta:
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (FORMAT,)).fetchone()
            meta[FORMAT] = None if found is None else json.loads(found[0])
        return "float32" if meta[FORMAT] is None else str(meta[FORMAT])

    def _fields(self) -> dict[str, tuple[int, int, int]]:
        """Return what `sqlite_schema.fields` does; whoever changes it forgets what is known of it."""
        if self._known.fields is None:
            self._known.fields = fields(self._db)
        return self._known.fields

    def _forget_fields(self) -> None:
        self._known.fields = None
        self._known.next_keys.clear()

    def _set_for(self, vector: Vector, version: int) -> tuple[int, int, int]:
        """Return the first key, the next key and the length of the vectors of the set that takes *vector*."""
        found = self._fields().get(vector.field)
        if found is None or (
            found[1] != len(vector.values)
            and not self._db.execute(
                "SELECT 1 FROM vectors WHERE key >= ? AND key < ? AND row IS NOT NULL LIMIT 1",
                bounds(found[0]),
            ).fetchone()
        ):
            found = self._new_set(vector.field, len(vector.values), version)
        number, dim, _ = found
        first, end = bounds(number)
        key = self._known.next_keys.get(number)
        if key is None:
            sql = "SELECT max(key) FROM vectors WHERE key >= ? AND key < ?"
            last = self._db.execute(sql, (first, end)).fetchone()[0]
            key = first if last is None else last + 1
        return first, key, dim

    def _new_set(self, field: str, dim: int, version: int) -> tuple[int, int, int]:
        if (old := self._fields().get(field)) is not None:
            self._drop_set(old[0])  # nothing but the slots it gave
        self._forget_fields()
        # A number is never given twice: AUTOINCREMENT remembers it after its set is gone.
        cursor = self._db.execute("INSERT INTO sets(field, dim, reset_at) VALUES (?, ?, ?)", (field, dim, version))
        assert cursor.lastrowid is not None
        return cursor.lastrowid, dim, version

    def _settle(self, staged: str, version: int) -> None:
        """Let the vectors of every `X.next` replace those of `X`, or drop them."""
        sets = self._fields()
        self._forget_fields()
        waiting = {name: number for name, (number, _, _) in sets.items() if name.endswith(NEXT)}
        if staged == "discard":
            for number in waiting.values():
                self._drop_set(number)
            return
        for name, (number, _, _) in sets.items():
            if name not in waiting:
                self._drop_set(number)
        for name, number in waiting.items():
            sql = "UPDATE sets SET field = ?, reset_at = ? WHERE number = ?"
            self._db.execute(sql, (name.removesuffix(NEXT), version, number))

    def _drop_set(self, number: int) -> None:
        self._db.execute("DELETE FROM vectors WHERE key >= ? AND key < ?", bounds(number))
        self._db.execute("DELETE FROM sets WHERE number = ?", (number,))


@cache
def _places(count: int) -> str:
    return f"({', '.join('?' * count)})"


def _written(data: Mapping[str, Any]) -> str:
    return to_json(data) if data else "{}"  # as that of most edges
