"""What an operation asks of a PostgreSQL server, and what that reads for it, does not depend on how much there is."""

from __future__ import annotations

import contextlib
import uuid

import numpy as np
import pytest
from outside import fake
from test_costs import FEW, MANY, OPERATIONS, filled

from raeburnmemory import MemoryGraph
from raeburnmemory.nodes import Batch, Link, Node, Where
from raeburnmemory.store import open_store

psycopg = pytest.importorskip("psycopg", reason="a PostgreSQL store needs psycopg")

INDEXED = "&options=-c%20enable_seqscan%3Doff"  # tables this small are read whole, even where there is an index


class Counter:
    """Counts statements of ours, and the rows that the server reads for them in some tables."""

    def __init__(self, uri, monkeypatch):
        self.uri, self.patch, self.statements = uri, monkeypatch, []

    def rows(self, store, tables):
        for session in store._sessions._idle:  # each tells what it read when it has nothing else to do
            session.execute("SELECT pg_stat_force_next_flush()")
            session.execute("SELECT 1")
        with psycopg.connect(self.uri, autocommit=True) as db:
            found = db.execute(
                "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables "
                "WHERE schemaname = %s AND relname = ANY(%s)",
                (store._address.schema, list(tables)),
            ).fetchall()
        return sum(rows for _, rows in found)

    def of(self, operation, store, tables=("nodes", "edges", "history", "log", "meta")):
        """Return the statements and rows that *operation* takes."""
        self.statements = []

        def counted(call):
            def counting(cursor, sql, *args, **more):
                self.statements.append(str(sql))
                return call(cursor, sql, *args, **more)

            return counting

        before = self.rows(store, tables)
        with self.patch.context() as patch:
            for name in ("execute", "copy"):
                patch.setattr(psycopg.Cursor, name, counted(getattr(psycopg.Cursor, name)))
            operation()
        return {"statements": len(self.statements), "rows": self.rows(store, tables) - before}


@pytest.fixture
def counter(postgres_server, monkeypatch):
    with psycopg.connect(postgres_server.uri, autocommit=True) as db:
        if db.info.server_version < 15_00_00:
            pytest.skip("this server does not tell at once what a session read")
    return Counter(postgres_server.uri, monkeypatch)


@pytest.fixture(scope="module")
def opened(postgres_server):
    """Return a memory of few messages and two of many, in sessions of twenty and in a single one."""
    schemas = {name: f"costs {uuid.uuid4().hex[:12]}" for name in ("few", "many", "one session")}
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(psycopg.connect(postgres_server.uri, autocommit=True))
        memories = {}
        for name, schema in schemas.items():
            stack.callback(db.execute, f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
            url = f"{postgres_server.uri}&schema={schema.replace(' ', '%20')}{INDEXED}"
            filled(url, FEW if name == "few" else MANY, name != "one session")
            memory = memories[name] = stack.enter_context(MemoryGraph(url, fake))
            memory.add_message("warm up", "user", "s1", id="w1")
            memory.fact("Bo", "lives in", "Rome")
            memory.facts("Bo")
            memory.similar("warm up")
            memory.matching("warm up")
            memory.forget("w1")
            memory.link("m1", "m2", "next")
            memory.graph.number_of_nodes()
            memory.matching("warm up")
        db.execute("SET client_min_messages = warning")
        db.execute("ANALYZE")
        yield memories


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_cost_of_an_operation_does_not_grow_with_the_memory(opened, counter, name):
    operation = OPERATIONS[name]
    found = {
        shape: counter.of(lambda memory=memory: operation(memory), memory._store) for shape, memory in opened.items()
    }
    few = found.pop("few")
    assert few["statements"] > 0
    for shape, many in found.items():
        assert many["statements"] <= few["statements"] + 1, (shape, few, many)
        assert many["rows"] <= 1.2 * few["rows"] + 30, (shape, few, many)


@pytest.fixture
def crowded(postgres_url, postgres_server):
    """Return a store of 3,000 nodes in one namespace, and of ten nodes in another one that came after."""
    with contextlib.closing(open_store(postgres_url + INDEXED)) as store:
        for space, count in (("large", 3000), ("small", 10)):
            nodes = [Node(f"n{n}", ("note", "prompt", "tag")[n % 3], "x", namespace=space) for n in range(count)]
            links = [Link(f"n{n}", f"n{n + 1}", "next", namespace=space) for n in range(count - 1)]
            store.write(Batch(nodes=nodes, links=links))
        with psycopg.connect(postgres_server.uri, autocommit=True) as db:
            for table in ("nodes", "edges"):
                db.execute(f'VACUUM (ANALYZE) "{store._address.schema}".{table}')
        yield store


@pytest.mark.parametrize("kinds", [None, ("note",), ("prompt", "tag"), ()])
@pytest.mark.parametrize("limit", [None, 2])
def test_nodes_of_a_namespace_are_read_without_those_of_others(crowded, counter, kinds, limit):
    where = Where("small", kinds=kinds, limit=limit)
    found = []
    cost = counter.of(lambda: found.extend(crowded.nodes(where)), crowded, ("nodes",))
    wanted = [n for n in range(10) if kinds is None or ("note", "prompt", "tag")[n % 3] in kinds]
    assert [node.id for node in found] == [f"n{n}" for n in wanted[:limit]]
    assert cost["rows"] <= 60
    assert cost["statements"] == 1


def test_the_first_nodes_are_found_without_the_others(crowded, counter):
    found = []

    def look():
        found[:] = [node.id for node, _ in zip(crowded.nodes(Where("large")), range(30), strict=False)]

    assert counter.of(look, crowded, ("nodes",))["rows"] <= 400
    assert found == [f"n{n}" for n in range(30)]
    everything = [node.id for node in crowded.nodes(Where("large"))]
    assert everything == [f"n{n}" for n in range(3000)]


def test_edges_of_a_namespace_are_read_without_those_of_others(crowded, counter):
    found = []
    cost = counter.of(lambda: found.extend(crowded.links(None, "small")), crowded, ("nodes", "edges"))
    assert [link.source for link in found] == [f"n{n}" for n in range(9)]
    assert cost["rows"] <= 100


def test_all_vectors_are_compared_in_one_go(postgres_url, counter):
    rows = np.random.default_rng(0).standard_normal((1000, 256)).astype(np.float32)
    with MemoryGraph(postgres_url, "builtin") as memory:
        memory.add_many({"prompt": {"id": f"p{n}", "text": "x"}, "vector": row} for n, row in enumerate(rows))
        assert memory.similar(rows[7], 1).ids == ["p7"]
        with psycopg.connect(counter.uri, autocommit=True) as db:
            db.execute(f'VACUUM (ANALYZE) "{memory._store._address.schema}".vectors')  # as the server does in time
        cost = counter.of(lambda: memory.similar(rows[8], 3), memory._store, ("vectors",))
        assert cost["rows"] <= 1100


def test_what_goes_from_a_namespace_is_taken_out_of_what_is_known_of_it(postgres_url, counter):
    """The rows of the whole namespace are read by its first question alone."""
    with MemoryGraph(postgres_url, fake) as memory:
        other = memory.within("other")
        for one in (memory, other):
            one.add_many({"prompt": {"id": f"p{n}", "text": f"tea {n}"}} for n in range(200))
        assert memory.similar("tea 7", 1).ids == ["p7"]
        for number, change in enumerate(
            (
                lambda: memory.forget("p7"),
                lambda: memory.update("p8", text="coffee"),
                lambda: other.forget([f"p{n}" for n in range(150)]),
                lambda: memory.forget([f"p{n}" for n in range(150, 200)]),  # among them what came last
            )
        ):
            change()
            found = []
            cost = counter.of(
                lambda found=found: found.extend(memory.similar("tea 9", 200).ids), memory._store, ("nodes",)
            )
            gone = {"p7", *(f"p{n}" for n in range(150, 200) if number == 3)}
            assert set(found) == {f"p{n}" for n in range(200)} - gone
            assert not [sql for sql in counter.statements if 'COPY (SELECT "row" FROM nodes' in sql]
            assert cost["rows"] <= 700


def test_a_first_question_does_not_go_through_all_namespaces(postgres_url, counter):
    with MemoryGraph(postgres_url, fake) as memory:
        memory.similar("tea", 1)
        for number in range(300):
            memory.within(f"user {number}").add_message("tea", id="m")
        memory.similar("tea", 1)
        found = []
        cost = counter.of(lambda: found.extend(memory.within("user 7").similar("tea", 1).ids), memory._store)
        assert found == ["m"]
        assert cost["rows"] <= 30


def test_a_snapshot_knows_its_version(postgres_url, counter):
    with contextlib.closing(open_store(postgres_url)) as store, contextlib.closing(open_store(postgres_url)) as other:
        store.write(Batch(nodes=[Node("a", "note", "x")]))
        with store.snapshot():
            other.write(Batch(nodes=[Node("b", "note", "x")]))
            assert counter.of(store.version, store)["statements"] == 0
            assert store.version() == 1
            with store.snapshot():
                assert store.version() == 1
        assert store.version() == 2


def test_nothing_is_asked_about_nothing(postgres_url, counter):
    with contextlib.closing(open_store(postgres_url)) as store:
        for call in (lambda: store.at_rows([]), lambda: store.get([], "default"), lambda: store.links([], "default")):
            assert counter.of(call, store)["statements"] == 0
            assert not call()
