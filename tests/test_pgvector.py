"""The index that lives in PostgreSQL: exact up to 10,000 vectors, led by a graph beyond, and never without its filter."""

import contextlib
import threading
import time
import uuid
from urllib.parse import quote

import numpy as np
import pytest

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput
from raeburnmemory.index import VectorIndex, open_index
from raeburnmemory.nodes import Batch, Node, Vector
from raeburnmemory.store import open_store
from raeburnmemory.testing import INDEX_CHECKS

psycopg = pytest.importorskip("psycopg", reason="the pgvector index needs psycopg")

from raeburnmemory.index.pgvector import EXACT, PgVectorIndex  # noqa: E402

SAVING = {"check_index_file", "check_index_damaged_file"}  # it has no file
ADDING = {"check_index_refusals", "check_index_remove", "check_index_copies"}  # of `add`, which here is the store's
DIM = 48


def rows_of(count, dim, seed, topics=60, of=0):
    """Return unit rows as texts have them: around the topics that *of* stands for, not evenly in all directions."""
    rng = np.random.default_rng(seed)
    rows = np.random.default_rng(of).standard_normal((topics, dim))[
        rng.integers(topics, size=count)
    ] + 0.7 * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Written(PgVectorIndex):
    """An index whose `add` and `remove` write to the table, as a store would."""

    def __init__(self, dim, store, sql):
        super().__init__(dim)
        self._sql, field = sql, uuid.uuid4().hex
        (self._set,) = sql.execute(
            "INSERT INTO sets(field, dim, reset_at, next_slot) VALUES (%s, %s, 0, 0) RETURNING number", (field, dim)
        ).fetchone()
        self.bind(store, field)
        self.follow(-1)

    def add(self, slots, vectors):
        assert len(slots) == len(vectors)
        with self._sql.cursor() as cursor, cursor.copy("COPY vectors FROM STDIN") as out:
            for slot, row in zip(slots.tolist(), vectors.tolist(), strict=True):
                out.write_row((self._set, slot, 0, 0, 0, -1, str(row)))
        last = int(slots[-1]) + 1 if len(slots) else 0
        self._sql.execute("UPDATE sets SET next_slot = greatest(next_slot, %s) WHERE number = %s", (last, self._set))
        self.follow(-1)

    def remove(self, slots):
        self._sql.execute(
            'DELETE FROM vectors WHERE "set" = %s AND slot = ANY(%s::bigint[])', (self._set, slots.tolist())
        )
        self.follow(-1)


@pytest.fixture
def home(postgres_url):
    """Return a store, and a session of our own with its tables."""
    store = open_store(postgres_url)
    with contextlib.closing(store), psycopg.connect(postgres_url.partition("&schema=")[0], autocommit=True) as sql:
        sql.execute("SELECT set_config('search_path', quote_ident(%s) || ', public', false)", (store._address.schema,))
        yield store, sql


@pytest.mark.parametrize(
    "check",
    [check for check in INDEX_CHECKS if check.__name__ not in SAVING | ADDING],
    ids=lambda check: check.__name__.removeprefix("check_index_"),
)
def test_contract(check, home):
    check(lambda dim: Written(dim, *home))


def test_protocol(home):
    index = open_index("pgvector", 3)
    assert isinstance(index, VectorIndex)
    assert (index.name, index.dim, len(index), index.ntotal) == ("pgvector", 3, 0, 0)
    with pytest.raises(InvalidInput, match="nothing to save"):
        index.save("x", {})
    assert index.load("x", {}) is None


def test_what_is_removed_is_gone_at_once(home):
    rows, index = rows_of(500, 8, 1), Written(8, *home)
    index.add(np.arange(500), rows)
    first = index.search(rows[7], 5)[0]
    assert first[0] == 7
    index.remove(first[:2])
    assert len(index) == 498
    wanted = [
        slot for slot in np.argsort(-(rows.astype(float) @ rows[7].astype(float))).tolist() if slot not in first[:2]
    ]
    assert index.search(rows[7], 3)[0].tolist() == wanted[:3]
    assert index.get(np.array([3, 7, 9])).tolist() == rows[[3, 9]].tolist()


def test_beyond_ten_thousand_a_graph_leads_and_filters_keep_recall(home):
    store, sql = home
    count = 14_000
    rows, index = rows_of(count, DIM, 2), Written(DIM, *home)
    index.add(np.arange(count), rows)
    near, between = rows_of(20, DIM, 3), rows_of(20, DIM, 3, of=1)  # about the topics, and about none of them
    assert index.mode == "float32"
    index.build()
    assert index.mode == "hnsw"
    (plan,) = sql.execute(
        "SELECT indexdef FROM pg_indexes WHERE indexname = %s", (f"vectors_hnsw_{index._set}",)
    ).fetchone()
    assert "USING hnsw" in plan
    # A few slots, half of them, those of one stretch, and all: the oracle is a plain product.
    half = np.sort(np.random.default_rng(4).choice(count, count * 4 // 5, replace=False))
    several = (None, half, np.arange(1000, 13_500), half[:300], half[::7])
    for allowed, queries, least in [(each, *pair) for each in several for pair in ((near, 0.98), (between, 0.93))]:
        found = []
        for query in queries:
            some = np.arange(count) if allowed is None else allowed
            wanted = some[np.argsort(-(rows[some].astype(float) @ query.astype(float)), kind="stable")[:10]]
            slots, scores = index.search(query, 10, allowed)
            assert len(slots) == 10
            assert set(slots.tolist()) <= set(some.tolist())
            np.testing.assert_allclose(scores, rows[slots] @ query, atol=1e-6)
            assert (np.diff(scores) <= 0).all()
            found.append(len(set(slots.tolist()) & set(wanted.tolist())))
        with store.snapshot():  # in which settings of a search are no others' business
            assert index.search(query, 10, allowed)[0].tolist() == slots.tolist()
            assert store.query("SHOW hnsw.ef_search")[0] != ("400",)
        exact = allowed is not None and len(allowed) <= EXACT
        assert np.mean(found) / 10 >= (1.0 if exact else least), (found, None if allowed is None else len(allowed))
    # A filter that lets through nothing but what is far away gets it all the same.
    far = np.sort(np.argsort(rows @ near[0])[: EXACT + 200])
    wanted = far[np.argsort(-(rows[far].astype(float) @ near[0].astype(float)), kind="stable")[:600]]
    slots, _ = index.search(near[0], 600, far)
    assert len(set(slots.tolist()) & set(wanted.tolist())) >= 588


@pytest.mark.parametrize(("dim", "kind"), [(2000, "vector"), (2001, "halfvec"), (4000, "halfvec"), (4001, None)])
def test_wide_vectors(home, dim, kind, monkeypatch):
    """Up to 2,000 numbers the graph takes them as they are, up to 4,000 with half the bits, beyond all are compared."""
    import raeburnmemory.index.pgvector as module

    _, sql = home
    monkeypatch.setattr(module, "EXACT", 50)
    rows, index = rows_of(80, dim, 6), Written(dim, *home)
    index.add(np.arange(80), rows)
    slots, scores = index.search(rows[11], 4)
    wanted = np.argsort(-(rows.astype(float) @ rows[11].astype(float)), kind="stable")[:4]
    assert slots.tolist() == wanted.tolist()
    assert scores[0] == pytest.approx(1, abs=1e-6)
    found = sql.execute("SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'vectors_hnsw_%'").fetchall()
    assert [f"::{kind}({dim})" in definition for (definition,) in found] == ([] if kind is None else [True])
    assert index.mode == ("float32" if kind is None else "hnsw")


@pytest.fixture
def ungraphed(home, monkeypatch):
    """Return an index with enough vectors for a graph, and none yet, and its rows."""
    import raeburnmemory.index.pgvector as module

    monkeypatch.setattr(module, "EXACT", 50)
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    rows, index = rows_of(80, 8, 7), Written(8, *home)
    index.add(np.arange(80), rows)
    return index, rows


def found_at_once(index, rows):
    """Tell whether a search finds what is nearest, without having waited for anybody for long."""
    began = time.monotonic()
    found = index.search(rows[11], 1)[0].tolist()
    return found == [11] and time.monotonic() - began < 5


def test_a_search_in_a_snapshot_or_a_section_does_not_wait_for_itself(home, ungraphed, caplog):
    """Making a graph waits for every snapshot that is open, that of a statement that waits for a lock included."""
    store, sql = home
    index, rows = ungraphed
    with store.snapshot():
        assert found_at_once(index, rows)
    with contextlib.closing(open_store(store_url(store))) as other:
        waiting = threading.Thread(target=lambda: other.write(Batch(nodes=[Node("a", "note", "x")])))
        with store.exclusive():
            waiting.start()
            until = time.monotonic() + 20
            waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while sql.execute(waits).fetchone() is None and time.monotonic() < until:
                time.sleep(0.01)
            assert found_at_once(index, rows)
            index.build()  # as reindex() does
            assert waiting.is_alive()
        waiting.join(20)
    assert index.mode == "float32"
    assert ["None is made within a snapshot" in each.message for each in caplog.records] == [True]
    assert found_at_once(index, rows)
    assert index.mode == "hnsw"


def test_a_search_that_may_make_no_graph_compares_all(home, ungraphed, caplog):
    """Somebody else may be in a transaction for hours, as a dump is, or the tables may belong to another user."""
    store, sql = home
    index, rows = ungraphed
    with psycopg.connect(sql.info.dsn) as dump:
        dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        dump.execute("SELECT 1")
        assert found_at_once(index, rows)
        (warned,) = caplog.records
        assert "None could be made now" in warned.message
        index.search(rows[3], 1)
        assert len(caplog.records) == 1  # nor is it tried again at once
    role = f"looker {uuid.uuid4().hex[:8]}"
    schema = store._address.schema
    sql.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        sql.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO "{role}"')
        sql.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO "{role}"')
        url = store_url(store).replace("postgres@", f"{quote(role)}@")
        with contextlib.closing(open_store(url)) as reader:
            theirs = PgVectorIndex(8)
            theirs.bind(reader, index._field)
            theirs.follow(-1)
            assert found_at_once(theirs, rows)
            assert "must be owner" in caplog.records[-1].message
            with pytest.raises(OSError, match="must be owner"):
                theirs.build()  # which is asked for by name
    finally:
        sql.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


def test_it_searches_in_the_transaction_of_the_store(home):
    store, _ = home
    one, two = np.eye(2, dtype=np.float32)
    store.write(Batch(nodes=[Node("a", "prompt", "x")], vectors=[Vector("a", "prompt", one)]))
    index = open_index("pgvector", 1)
    index.bind(store, "prompt")
    index.follow(-1)
    with store.snapshot():
        assert index.search(two, 5)[0].tolist() == [0]
        with contextlib.closing(open_store(store_url(store))) as other:
            other.write(Batch(nodes=[Node("b", "prompt", "y")], vectors=[Vector("b", "prompt", two)]))
        index.follow(-1)
        assert index.search(two, 5)[0].tolist() == [0]
    index.follow(-1)
    assert index.search(two, 5)[0].tolist() == [1, 0]


def store_url(store):
    return store.location


def test_a_memory_answers_as_one_with_the_exact_index_does(postgres_url):
    texts = [f"{who} {does} {what}" for who in ("Ana", "Bob", "Cleo", "Dora") for does in ("likes", "sold", "lost")
             for what in ("a red bicycle", "the old piano", "peanuts", "her keys", "seven maps")]  # fmt: skip
    questions = ["who has allergies to nuts?", "the bicycle", "music", "where are the keys of Cleo"]
    found, scores = [], []
    with (
        MemoryGraph(postgres_url, "builtin") as memory,
        MemoryGraph(":memory:", "builtin", vector_backend="exact") as other,
    ):
        assert (memory.storage_backend, memory.vector_backend) == ("postgres", "pgvector")
        for one in (memory, other):
            one.add_many([{"prompt": {"id": f"p{n}", "text": text}} for n, text in enumerate(texts)])
            one.forget("p3")
            one.update("p4", text="Ana lost seven bicycles")
            one.add_interaction({"id": "later", "text": "Emil collects bicycles"})
            found.append(
                [one.get_similar_prompts(question, 7) for question in questions]
                + [[hit.id for hit in one.recall(question, 7)] for question in questions]
            )
            scores.append([(hit.score, hit.similarity) for question in questions for hit in one.recall(question, 7)])
            assert one.vector_index.ntotal == 60
        assert found[0] == found[1]
        np.testing.assert_allclose(scores[0], scores[1], atol=2e-6)
        assert memory.link_similar_prompts(0.5) == other.link_similar_prompts(0.5)
    with MemoryGraph(postgres_url, "builtin", vector_backend="exact") as memory:
        assert [memory.get_similar_prompts(question, 7) for question in questions] == found[0][:4]


def test_others_may_remove_what_is_being_asked_for(postgres_url):
    """Between looking up what there is and asking for it, another host may forget any of it."""
    with MemoryGraph(postgres_url, "builtin") as memory, contextlib.closing(open_store(postgres_url)) as other:
        memory.add_many([{"prompt": {"id": f"p{n}", "text": f"number {n} has tea"}} for n in range(30)])
        assert memory.recall("tea", 5)
        field = memory._dense._cached("prompt")
        slots = field.slots.copy()
        other.write(Batch(removed_nodes=[("default", f"p{n}") for n in range(0, 30, 2)]))
        rows, products = field.index.get(slots), field.index.products(slots, field.index.get(slots[3:4])[0])
        assert rows.shape == (30, 256)
        assert [bool(row.any()) for row in rows] == [False, True] * 15
        np.testing.assert_allclose(products, rows @ rows[3], atol=1e-6)
        assert {hit.id for hit in memory.recall("tea", 50)} == {f"p{n}" for n in range(1, 30, 2)}


def test_only_postgres_has_it(tmp_path):
    with pytest.raises(InvalidInput, match="postgresql://"):
        MemoryGraph(tmp_path / "memory.db", "builtin", vector_backend="pgvector")
    assert not list(tmp_path.iterdir())
