"""What can be read from a PostgreSQL store."""

from __future__ import annotations

import contextlib
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..errors import StoreCorrupt
from ..nodes import Changes, Link, Node
from ._undecoded import Undecoded
from .contract import VectorBlock, VectorChanges
from .postgres_batch import VectorSet
from .postgres_schema import NAMES, escaped, key_of, plain, unescaped
from .postgres_sessions import alone, pipeline
from .state import matches, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ..nodes import Where
    from .postgres_sessions import Session

__all__ = ["GRAPH", "Reading", "SlotChanges"]

_BLOCK = 4096  # vectors per query
_PAGE = 2000  # nodes or edges per query
_NEVER = 2**62  # no version is as high
_NODE = '"row", namespace, id, kind, text, attributes, expires_at'
GRAPH = "vectors_hnsw_"  # and the number of a set: the name of the graph over it
_EDGE = (
    'e."row", e.namespace, s.id, t.id, e.relation, e.data FROM edges e JOIN nodes s ON s."row" = e.source '
    'JOIN nodes t ON t."row" = e.target'
)
_FEW = (  # the same of a few edges, whose ends are looked up one by one: never by reading all nodes
    'e."row", e.namespace, (SELECT id FROM nodes WHERE "row" = e.source), '
    '(SELECT id FROM nodes WHERE "row" = e.target), e.relation, e.data FROM edges e'
)

_KINDS = (  # of a namespace, by hops along the index; NULL at the end
    "(SELECT kind FROM nodes WHERE namespace = %(space)s ORDER BY kind LIMIT 1) UNION ALL "
    "SELECT (SELECT kind FROM nodes WHERE namespace = %(space)s AND kind > kinds.kind ORDER BY kind LIMIT 1) "
    "FROM kinds WHERE kinds.kind IS NOT NULL"
)

Found = TypeVar("Found")
Asked = Any  # a cursor, or several


class SlotChanges(NamedTuple):
    """What happened to the slots of a field: those `removed`, those that came, with the rows of their nodes.

    `found` is the set of the field, None if it has no vectors. `reset`: forget every slot first.
    """

    version: int
    found: VectorSet | None
    reset: bool
    removed: NDArray[np.int64]
    slots: NDArray[np.int64]
    rows: NDArray[np.int64]


class Reading:
    """The reading half of the `Store` contract; see there."""

    location: str

    def _read(self, work: Callable[[Session], Found]) -> Found:
        """Do *work* with a session, again with another one if that was lost."""
        raise NotImplementedError

    def _read_at_once(self, ask: Callable[[Session], Asked], work: Callable[[Session, Asked], Found]) -> Found:
        """Let *ask* send questions, and *work* get the answers and ask more, so that all is of one version."""
        raise NotImplementedError

    def _query(
        self, sql: str, values: Sequence[Any] | Mapping[str, Any] = (), *, binary: bool = False
    ) -> list[tuple[Any, ...]]:
        return self._read(lambda db: db.execute(sql, values, binary=binary).fetchall())

    def _numbers(self, sql: str, values: Sequence[Any], count: int) -> list[NDArray[np.int64]]:
        return self._read(lambda db: _columns(db, sql, values, count))

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query over the tables, for who looks after them."""
        return self._query(sql, values)

    def version(self) -> int:
        """Return the number of the last committed batch."""
        return int(self._query("SELECT version FROM state")[0][0])

    # --- what changed -------------------------------------------------------------------------------------------

    def changes(self, since: int) -> Changes:
        """Return what happened to nodes and edges after version *since*."""
        version = self.version()
        if since >= version:
            return Changes(version)
        return self._read_at_once(lambda db: (_ask_state(db), _ask_log(db, since)), partial(_changes, since))

    def vectors(self, field: str, since: int) -> VectorChanges:
        """Return what happened to the vectors of *field* after version *since*."""
        version, found, entries = self._read(partial(_vector_log, field, since))
        nothing = np.empty(0, np.int64)
        if found is None:
            return VectorChanges(version, since < version, nothing, iter(()))
        if entries is None:
            return VectorChanges(version, True, nothing, self._blocks(found, 0, found.next_slot))
        low, high, removed = _came_and_went(field, entries)
        return VectorChanges(version, False, removed, self._blocks(found, low, high))

    def slots_since(self, field: str, since: int) -> SlotChanges:
        """Return what `vectors` does, without the vectors: which slots came and went, and how they lie in the table."""

        def look(db: Session) -> SlotChanges:
            version, found, entries = _vector_log(field, since, db)
            nothing = np.empty(0, np.int64)
            if found is None:
                return SlotChanges(version, None, True, nothing, nothing, nothing)
            low, high, removed = (0, found.next_slot, nothing) if entries is None else _came_and_went(field, entries)
            slots, rows = nothing, nothing
            if high > low:  # those of them that are gone by now will be told as removed
                sql = 'SELECT slot, "row" FROM vectors WHERE "set" = %s AND slot >= %s AND slot < %s ORDER BY slot'
                slots, rows = _columns(db, sql, (found.number, low, high), 2)
            return SlotChanges(version, found, entries is None, removed, slots, rows)

        return self._read(look)

    def _blocks(self, found: VectorSet, low: int, high: int) -> Iterator[VectorBlock]:
        """Yield the vectors at slots from *low* up to *high*, each block one query."""
        sql = (
            'SELECT slot, "row", part, start, "end", vector FROM vectors WHERE "set" = %s AND slot >= %s AND slot < %s '
            "ORDER BY slot LIMIT %s"
        )
        while low < high:
            rows = self._query(sql, (found.number, low, high, _BLOCK), binary=True)
            if not rows:
                return
            numbers = np.array([row[:5] for row in rows], np.int64)
            yield VectorBlock(
                numbers[:, 0].copy(), numbers[:, 1].copy(), self._values([row[5] for row in rows], found.dim),
                numbers[:, 2:].copy(),
            )  # fmt: skip
            low = int(numbers[-1, 0]) + 1

    def _values(self, raw: Sequence[bytes], dim: int) -> NDArray[np.float32]:
        """Return vectors as pgvector sends them as rows of float32."""
        whole = b"".join(raw)
        if len(whole) != (4 + 4 * dim) * len(raw):
            raise StoreCorrupt(
                f"{self.location!r} holds vectors of another length than {dim}. Make them again with reindex."
            )
        layout = np.dtype([("head", ">u2", (2,)), ("values", ">f4", (dim,))])
        return np.frombuffer(whole, layout)["values"].astype(np.float32)

    def vector_fields(self) -> set[str]:
        """Return the fields that have vectors, and perhaps some that had."""
        return {unescaped(field) for (field,) in self._query("SELECT field FROM sets")}

    def vector_slots(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots of the vectors in *field*, ascending, and the node row of each."""
        sql = (
            'SELECT v.slot, v."row" FROM vectors v JOIN sets s ON s.number = v."set" WHERE s.field = %s ORDER BY v.slot'
        )
        slots, rows = self._numbers(sql, (escaped(field),), 2)
        return slots, rows

    def vectors_at(self, rows: Sequence[int]) -> dict[int, dict[tuple[str, int], NDArray[np.float32]]]:
        """Return the vectors of the nodes at *rows*, by field and part."""
        sql = (
            'SELECT s.field, s.dim, v."row", v.part, v.vector FROM vectors v JOIN sets s ON s.number = v."set" '
            'WHERE v."row" = ANY(%s) ORDER BY v."set", v.slot'
        )
        found: dict[int, dict[tuple[str, int], NDArray[np.float32]]] = {}
        for field, dim, row, part, raw in self._query(sql, (list(rows),), binary=True):
            found.setdefault(row, {})[unescaped(field), part] = self._values([raw], dim)[0]
        return found

    def vectors_by(
        self, sql: str, values: Sequence[Any], dim: int, settings: Sequence[str] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and vectors of *dim* numbers that a query gives, with *settings* made for it alone."""

        def ask(db: Session) -> list[tuple[Any, ...]]:
            with contextlib.ExitStack() as stack:
                if settings:
                    stack.enter_context(pipeline(db))
                    stack.enter_context(alone(db))
                for setting in settings:
                    db.execute(setting)
                cursor = db.execute(sql, values, binary=True)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

        rows = self._read(ask)
        slots = np.array([row[0] for row in rows], np.int64)
        return slots, self._values([row[1] for row in rows], dim)

    def numbers_by(self, sql: str, values: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and numbers that a query gives."""
        rows = self._query(sql, values, binary=True)
        return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.float32)

    def graph_of(self, number: int) -> bool:
        """Tell whether there is an HNSW graph over the vectors of set *number*."""
        sql = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND indisvalid"
        return bool(self._query(sql, (GRAPH + str(number),)))

    def vectors_lost(self) -> str | None:
        """Return None: the vectors are in the same database as everything else."""
        return None

    # --- nodes --------------------------------------------------------------------------------------------------

    def get(self, ids: Sequence[str], namespace: str) -> dict[str, Node]:
        """Return those of the nodes named by *ids* that exist."""
        keys = [key_of(namespace, node_id) for node_id in dict.fromkeys(ids)]
        if not keys:
            self._read(lambda _: None)  # for its errors
            return {}
        now = time.time()
        nodes = map(_node, self._query(f"SELECT {_NODE} FROM nodes WHERE key = ANY(%s)", (keys,)))
        return {node.id: node for node in nodes if visible(node, now)}

    def at_rows(self, rows: Sequence[int]) -> Mapping[int, Node]:
        """Return those of the nodes at *rows* that exist, each decoded when it is looked at."""
        if not len(rows):
            self._read(lambda _: None)  # for its errors
            return {}
        now = time.time()
        found = self._query(f'SELECT {_NODE} FROM nodes WHERE "row" = ANY(%s::bigint[])', (list(rows),))
        return Undecoded({raw[0]: raw for raw in found if raw[-1] is None or raw[-1] > now}, _node)

    def nodes(self, where: Where) -> Iterator[Node]:
        """Yield the nodes that *where* describes, by ascending row."""
        if where.limit == 0:
            return
        now, number = time.time(), 0
        for node in self._candidates(where, now):
            if matches(node, where.attributes):
                yield node
                number += 1
                if number == where.limit:
                    return

    def expired(self, namespace: str, kind: str) -> list[str]:
        """Return the ids of the nodes of one kind that have expired, by ascending row."""
        sql = 'SELECT id FROM nodes WHERE namespace = %s AND kind = %s AND expires_at <= %s ORDER BY "row"'
        values = (escaped(namespace), escaped(kind), time.time())
        return [unescaped(node_id) for (node_id,) in self._query(sql, values)]

    def _candidates(self, where: Where, now: float) -> Iterator[Node]:
        """Yield the nodes that *where* describes, but for their attributes, a page at a time."""
        read = self._paging(where, now)
        limit = None if where.attributes else where.limit
        size = 50 if limit is None else min(_PAGE, limit)  # many look at the first ones only
        after = where.after_row
        while True:
            page = read(after, size)
            yield from (_node(raw) for raw in page if raw[-1] is None or raw[-1] > now)
            if len(page) < size:
                return
            after, size = page[-1][0], min(_PAGE, size * 4)

    def _paging(self, where: Where, now: float) -> Callable[[int, int], list[tuple[Any, ...]]]:
        """Return what reads a page of nodes, expired ones perhaps: those behind a row, so many."""
        if where.namespace is None or where.ids is not None:
            conditions, values = self._conditions(where, now)
            plain_sql = f'SELECT {_NODE} FROM nodes WHERE {conditions} AND "row" > %s ORDER BY "row" LIMIT %s'
            return lambda after, size: self._query(plain_sql, (*values, after, size))
        named: dict[str, Any] = {"space": escaped(where.namespace)}
        kinds = _KINDS
        if where.kinds is not None:
            kinds = "SELECT unnest(%(kinds)s::text[])"
            named["kinds"] = [escaped(kind) for kind in dict.fromkeys(where.kinds)]
        # Of each kind the first rows, from their index, of these the first, and then the nodes. Asked plainly for the
        # first rows of a namespace, the server goes through the nodes of all that came before it: it takes those of any
        # to lie everywhere. Compared as a whole, what the index is of is in no other order.
        sql = (
            f'WITH RECURSIVE kinds(kind) AS ({kinds}) SELECT {_NODE} FROM nodes WHERE "row" = ANY(ARRAY('
            'SELECT f."row" FROM kinds k CROSS JOIN LATERAL (SELECT n."row" FROM nodes n WHERE '
            '(n.namespace, n.kind, n."row") > (%(space)s, k.kind, %(after)s) AND (n.namespace, n.kind) <= (%(space)s, '
            'k.kind) ORDER BY n.namespace, n.kind, n."row" LIMIT %(size)s) f ORDER BY f."row" LIMIT %(size)s)) '
            'ORDER BY "row"'
        )
        return lambda after, size: self._query(sql, {**named, "after": after, "size": size})

    def _conditions(self, where: Where, now: float) -> tuple[str, list[Any]]:
        conditions, values = ["(expires_at IS NULL OR expires_at > %s)"], [now]
        more: list[tuple[str, Any]] = []
        if where.ids is not None:
            spaces = self.namespaces() if where.namespace is None else [where.namespace]
            more.append(("key = ANY(%s::uuid[])", [key_of(space, i) for space in spaces for i in where.ids]))
        elif where.namespace is not None:
            more.append(("namespace = %s", escaped(where.namespace)))
        if where.kinds is not None:
            more.append(("kind = ANY(%s::text[])", [escaped(kind) for kind in where.kinds]))
        return " AND ".join([*conditions, *(one for one, _ in more)]), [*values, *(value for _, value in more)]

    def rows(self, where: Where) -> NDArray[np.int64]:
        """Return the rows of the nodes that *where* describes, ascending."""
        if where.attributes or where.limit is not None:
            return np.array([node.row for node in self.nodes(where)], np.int64)
        conditions, values = self._conditions(where, time.time())
        sql = f'SELECT "row" FROM nodes WHERE {conditions} AND "row" > %s ORDER BY "row"'
        return self._numbers(sql, (*values, where.after_row), 1)[0]

    def history(self, node_id: str, namespace: str) -> list[Node]:
        """Return the replaced versions of a node, oldest first."""
        sql = (
            'SELECT h."row", n.namespace, n.id, h.kind, h.text, h.attributes, h.expires_at '
            'FROM history h JOIN nodes n ON n."row" = h."row" WHERE n.key = %s ORDER BY h.number'
        )
        return [_node(row) for row in self._query(sql, (key_of(namespace, node_id),))]

    def all_history(self) -> Iterator[tuple[int, Node]]:
        """Yield every replaced version and the row of its node, oldest first, a page at a time."""
        sql = (
            'SELECT h.number, h."row", n.namespace, n.id, h.kind, h.text, h.attributes, h.expires_at FROM history h '
            f'JOIN nodes n ON n."row" = h."row" WHERE h.number > %s ORDER BY h.number LIMIT {_PAGE}'
        )
        after = -1
        while page := self._query(sql, (after,)):
            for number, *row in page:
                node = _node(tuple(row))
                yield node.row, node
                after = number

    def all_nodes(self) -> Iterator[Node]:
        """Yield every node by ascending row, those that have expired, too, a page at a time."""
        sql = f'SELECT {_NODE} FROM nodes WHERE "row" > %s ORDER BY "row" LIMIT {_PAGE}'
        after = -1
        while page := [_node(row) for row in self._query(sql, (after,))]:
            yield from page
            after = page[-1].row

    # --- edges --------------------------------------------------------------------------------------------------

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
        more, values = "", []
        if relation is not None:
            more, values = " AND e.relation = %s", [escaped(relation)]
        if ids is None:
            if namespace is not None:  # that of their ends, for which there is an index
                more, values = more + " AND s.namespace = %s", [*values, escaped(namespace)]
            found = self._query(f'SELECT {_EDGE} WHERE true{more} ORDER BY e."row"', values)
            return [_link(row) for row in found]
        if not len(ids):
            self._read(lambda _: None)  # for its errors
            return []
        spaces = self.namespaces() if namespace is None else [namespace]
        keys = [key_of(space, node_id) for space in spaces for node_id in dict.fromkeys(ids)]
        links: dict[int, Link] = {}
        for end in {"out": ("source",), "in": ("target",), "both": ("source", "target")}[direction]:
            # The nodes that are asked for are found first, then the edges at that end of each.
            edges = f'SELECT * FROM edges e WHERE e.{end} = a."row"{more} ORDER BY e."row" DESC'
            limit = "" if newest is None else f" LIMIT {newest:d}"
            sql = (
                f'SELECT e."row", e.namespace, s.id, t.id, e.relation, e.data FROM nodes a CROSS JOIN LATERAL '
                f'({edges}{limit}) e JOIN nodes s ON s."row" = e.source JOIN nodes t ON t."row" = e.target '
                "WHERE a.key = ANY(%s::uuid[])"
            )
            links.update((row[0], _link(row)) for row in self._query(sql, (*values, keys)))
        return [links[row] for row in sorted(links)]

    def all_links(self, namespace: str | None) -> Iterator[Link]:
        """Yield all edges by ascending row, a page at a time."""
        condition, values = ("", []) if namespace is None else (" AND e.namespace = %s", [escaped(namespace)])
        sql = f'SELECT {_EDGE} WHERE e."row" > %s{condition} ORDER BY e."row" LIMIT {_PAGE}'
        after = -1
        while page := [_link(row) for row in self._query(sql, (after, *values))]:
            yield from page
            after = page[-1].row

    # --- counting and the rest ----------------------------------------------------------------------------------

    def count(self, namespace: str) -> int:
        """Return how many nodes a namespace holds."""
        return int(self._query("SELECT count(*) FROM nodes WHERE namespace = %s", (escaped(namespace),))[0][0])

    def counts(self, namespace: str | None) -> dict[str, dict[str, int]]:
        """Return how many nodes, edges and vectors there are of each kind, relation and field."""
        where, values = ("", []) if namespace is None else ("WHERE namespace = %s", [escaped(namespace)])
        within = "" if namespace is None else 'JOIN nodes n ON n."row" = v."row" WHERE n.namespace = %s'
        rows = self._query(  # one statement sees one version
            f"SELECT 'kinds', kind, count(*) FROM nodes {where} GROUP BY kind UNION ALL "
            f"SELECT 'relations', relation, count(*) FROM edges {where} GROUP BY relation UNION ALL "
            "SELECT 'vectors', s.field, v.n FROM sets s JOIN "
            f'(SELECT v."set", count(*) AS n FROM vectors v {within} GROUP BY v."set") v ON s.number = v."set"',
            values * 3,
        )
        found: dict[str, dict[str, int]] = {"kinds": {}, "relations": {}, "vectors": {}}
        for what, name, number in rows:
            found[what][unescaped(name)] = number
        return {what: dict(sorted(some.items())) for what, some in found.items()}

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold nodes, sorted."""
        rows = self._query(  # hops along the index instead of reading all of it
            "WITH RECURSIVE names AS ((SELECT namespace FROM nodes ORDER BY namespace LIMIT 1) UNION ALL "
            "SELECT (SELECT namespace FROM nodes WHERE namespace > names.namespace ORDER BY namespace LIMIT 1) "
            "FROM names WHERE names.namespace IS NOT NULL) SELECT namespace FROM names WHERE namespace IS NOT NULL"
        )
        return sorted(unescaped(name) for (name,) in rows)

    def meta(self, key: str) -> Any:
        """Return the JSON value kept under *key*, or None."""
        rows = self._query("SELECT value FROM meta WHERE key = %s", (escaped(key),))
        return json.loads(rows[0][0]) if rows else None

    def all_meta(self) -> dict[str, Any]:
        """Return all that is kept by key."""
        return {unescaped(key): json.loads(value) for key, value in self._query("SELECT key, value FROM meta")}

    def mark(self, version: int) -> str | None:
        """Return what the commit of *version* was marked with."""
        rows = self._query("SELECT mark FROM log WHERE version = %s", (version,))
        return rows[0][0] if rows else None

    def remembers(self, version: int) -> bool:
        """Tell whether the log reaches back to *version*."""
        return bool(self._query("SELECT 1 FROM log WHERE version = %s", (version,)))

    def size(self) -> int:
        """Return the bytes of the tables and their indexes on the server."""
        sql = "SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest(%s::text[]) AS name"
        return int(self._query(sql, (list(NAMES),))[0][0])

    def find_words(self, query: str, namespace: str, limit: int = 10) -> list[str]:
        """Return the ids of the nodes whose words fit *query*, as `websearch_to_tsquery` reads it, best first.

        In the server, by its own dictionary and ranking; `recall` goes by the scores that it has over every store.
        """
        sql = (
            "SELECT n.id FROM nodes n, websearch_to_tsquery((SELECT value #>> '{}' FROM meta WHERE key = 'language')"
            "::regconfig, %s) q WHERE n.words @@ q AND n.namespace = %s "
            "AND (n.expires_at IS NULL OR n.expires_at > %s) "
            'ORDER BY ts_rank_cd(n.words, q) DESC, n."row" LIMIT %s'
        )
        rows = self._query(sql, (escaped(query), escaped(namespace), time.time(), limit))
        return [unescaped(node_id) for (node_id,) in rows]


def _ask_state(db: Session) -> Asked:
    return db.execute("SELECT version FROM state")


def _ask_log(db: Session, since: int) -> Asked | None:
    if since < 0:
        return None
    return db.execute("SELECT version, changes FROM log WHERE version > %s ORDER BY version", (since,))


def _vector_log(field: str, since: int, db: Session) -> tuple[int, VectorSet | None, list[dict[str, Any]] | None]:
    """Return the version, the set of a field, and what happened since, None if that is not known or was reset."""
    sql = (  # one statement sees one version
        "SELECT state.version, s.number, s.dim, s.reset_at, s.next_slot, ARRAY(SELECT version || ' ' || changes "
        "FROM log WHERE version > %s ORDER BY version) FROM state LEFT JOIN sets s ON s.field = %s"
    )
    row = db.execute(sql, (since if since >= 0 else _NEVER, escaped(field))).fetchone()
    assert row is not None
    version, *of_set, told = row
    found = None if of_set[0] is None else VectorSet(*of_set)
    if found is None or since < max(found.reset_at, 0):
        return version, found, None
    return version, found, _told([tuple(each.split(" ", 1)) for each in told], since)


def _entries(asked: Asked | None, since: int) -> list[dict[str, Any]] | None:
    """Return the entries of the log after version *since*, None if not all of them are kept."""
    return None if asked is None else _told(asked.fetchall(), since)


def _told(rows: Sequence[Any], since: int) -> list[dict[str, Any]] | None:
    """Return the entries in rows of versions and changes, None if the first after version *since* is not there."""
    if rows and int(rows[0][0]) != since + 1:
        return None
    return [json.loads(changes) for _, changes in rows]


def _came_and_went(field: str, entries: Sequence[dict[str, Any]]) -> tuple[int, int, NDArray[np.int64]]:
    """Return between which slots new ones are, and which of those before are gone."""
    spans = [entry["added"][field] for entry in entries if field in entry.get("added", {})]
    gone = {slot for entry in entries for slot in entry.get("dropped", {}).get(field, ())}
    low, high = (spans[0][0], spans[-1][1] + 1) if spans else (0, 0)
    return low, high, np.array(sorted(slot for slot in gone if slot < low or not spans), np.int64)


def _changes(since: int, db: Session, asked: tuple[Any, ...]) -> Changes:
    ((version,),), entries = asked[0].fetchall(), _entries(asked[1], since)
    if since >= version:
        return Changes(version)
    if entries is None:
        return Changes(version, reset=True)
    nodes = [row for entry in entries for row in entry.get("nodes", ())]
    edges = [row for entry in entries for row in entry.get("edges", ())]
    with pipeline(db):
        found = db.execute(f'SELECT {_NODE} FROM nodes WHERE "row" = ANY(%s::bigint[])', (nodes,))
        links = db.execute(f'SELECT {_FEW} WHERE e."row" = ANY(%s::bigint[])', (edges,))
    return Changes(
        version,
        nodes=sorted(map(_node, found), key=lambda node: node.row),
        links=sorted(map(_link, links), key=lambda link: link.row),
        removed_nodes=[tuple(key) for entry in entries for key in entry.get("gone_nodes", ())],
        removed_links=[tuple(key) for entry in entries for key in entry.get("gone_edges", ())],
    )


def _columns(db: Session, sql: str, values: Sequence[Any], count: int) -> list[NDArray[np.int64]]:
    """Return what a query gives, columns of bigint without NULLs, by COPY: millions are no Python objects then."""
    with db.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT BINARY)", values) as out:
        raw = b"".join(bytes(part) for part in out)
    # postgresql.org/docs/current/sql-copy.html: a head of 19 bytes, rows with the length before each value, an end.
    cells: list[Any] = [part for n in range(count) for part in ((f"size{n}", ">i4"), (f"value{n}", ">i8"))]
    rows = np.frombuffer(raw[19:-2], np.dtype([("columns", ">i2"), *cells]))
    return [rows[f"value{n}"].astype(np.int64) for n in range(count)]


def _node(row: tuple[Any, ...]) -> Node:
    number, namespace, node_id, kind, text, attributes, expires_at = row
    return Node(
        unescaped(node_id), unescaped(kind), plain(text), _object(attributes), unescaped(namespace), expires_at, number
    )


def _link(row: tuple[Any, ...]) -> Link:
    number, namespace, source, target, relation, data = row
    return Link(unescaped(source), unescaped(target), unescaped(relation), _object(data), unescaped(namespace), number)


def _object(text: str) -> Any:
    return {} if text == "{}" else json.loads(text)  # most edges carry nothing
