"""Every store passes the contract: on its own, reopened after every write, and through two handles in turn.

What is on disk is compared with readers that are not ours: json, sqlite3, zlib, numpy, faiss and networkx.
"""

import base64
import hashlib
import json
import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from outside import STORE_FILES

from raeburnmemory.errors import MemoryGraphError
from raeburnmemory.nodes import Batch, Link, Node, Vector, Where
from raeburnmemory.store import Erased, Store, open_store
from raeburnmemory.testing import PLACE_CHECKS, STORE_CHECKS, alternating, check_read_only, reopening

MODES = {"": lambda opener: opener, "reopening": reopening, "alternating": alternating}


def named(value):
    return value.__name__.removeprefix("check_") if callable(value) else None


BIG = {"store_many", "store_texts", "store_where", "vectors_many"}  # they hold no surprise for a second handle
RUNS = [
    ("memory", ""),
    *((backend, mode) for mode in MODES for backend in ("json", "sqlite", "postgres")),
    ("json-npy", "reopening"),  # the vectors' file is all that differs
    ("sqlite-pgvector", "reopening"),  # and here their form
]


@pytest.mark.parametrize(
    ("backend", "mode", "check"),
    [
        pytest.param(backend, mode, check, id="-".join(filter(None, [backend, mode, named(check)])))
        for backend, mode in RUNS
        for check in STORE_CHECKS
        if mode != "alternating" or named(check) not in BIG
    ],
)
def test_contract(backend, mode, check, place):
    check(MODES[mode](place(backend)))


@pytest.mark.parametrize("check", PLACE_CHECKS, ids=named)
@pytest.mark.parametrize("backend", [*STORE_FILES, "postgres"])
def test_place(backend, check, place):
    check(place(backend))


@pytest.mark.parametrize("backend", [*STORE_FILES, "postgres"])
def test_read_only(backend, place):
    opener = place(backend)
    check_read_only(opener, lambda: opener(read_only=True))


@pytest.mark.parametrize("backend", [*STORE_FILES, "postgres", "memory"])
def test_protocol(backend, place):
    store = place(backend)()
    assert isinstance(store, Store)
    assert store.name == backend.partition("-")[0]


# --- the checks themselves --------------------------------------------------------------------------------------


class Wrong:
    """A memory store with one fault, for the checks to find."""

    def __init__(self, fault):
        self._store, self._fault, self._last = open_store(":memory:"), fault, None

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write(self, batch):
        if self._fault == "links first, nodes later" and batch.links:
            self._store.write(Batch(nodes=batch.nodes))  # not one transaction
        if self._fault == "data of links is lost":
            batch = replace(batch, links=[replace(link, data={}) for link in batch.links])
        if self._fault == "meta None stays":
            batch = replace(batch, meta={k: v for k, v in batch.meta.items() if v is not None})
        if self._fault == "vectors of replaced nodes stay":
            known = [n for n in batch.nodes if self._store.get([n.id], n.namespace)]
            old = [b.values[b.rows == self._store.get([n.id], n.namespace)[n.id].row] for n in known
                   for b in self._store.vectors("prompt", -1).blocks]  # fmt: skip
            again = [Vector(n.id, "prompt", row, namespace=n.namespace) for n, rows in zip(known, old, strict=False)
                     for row in rows]  # fmt: skip
            batch = replace(batch, vectors=[*batch.vectors, *again])
        return self._store.write(batch)

    def erase(self, batch, *, backups=False, timeout=None):
        if self._fault == "erasing is told like a write":
            self._store.write(batch)
            return Erased()
        return self._store.erase(batch, backups=backups, timeout=timeout)

    def history(self, node_id, namespace):
        past = self._store.history(node_id, namespace)
        return past[::-1] if self._fault == "history backwards" else past

    def changes(self, since):
        changes = self._store.changes(since)
        if self._fault == "removed nodes are forgotten":
            return type(changes)(**{f: getattr(changes, f) for f in ("version", "reset", "nodes", "links")})
        return changes

    def vectors(self, field, since):
        changes = self._store.vectors(field, since)
        if self._fault == "dropped slots are not told":
            return changes._replace(removed=np.empty(0, np.int64))
        return changes

    def nodes(self, where):
        found = list(self._store.nodes(where))
        if self._fault == "limit before the conditions" and where.limit is not None:
            first = list(self._store.nodes(Where(where.namespace, limit=where.limit)))
            found = [node for node in found if node.row in {node.row for node in first}]
        return iter(found)


@pytest.mark.parametrize(
    ("fault", "finders"),
    [
        ("links first, nodes later", {"store_atomic"}),
        ("data of links is lost", {"store_relations", "store_any_history"}),
        ("meta None stays", {"store_meta", "store_any_history"}),
        ("vectors of replaced nodes stay", {"vectors_slots", "store_any_history"}),
        ("history backwards", {"store_replacing", "store_any_history"}),
        ("removed nodes are forgotten", {"store_any_history"}),
        ("dropped slots are not told", {"vectors_since", "store_any_history"}),
        ("erasing is told like a write", {"store_erasing"}),
        ("limit before the conditions", {"store_where"}),
    ],
)
def test_the_checks_find_faults(fault, finders):
    for check in STORE_CHECKS:
        if named(check) in finders:
            with pytest.raises((AssertionError, MemoryGraphError)):
                check(lambda: Wrong(fault))


def test_the_checks_let_pass_what_is_right():
    for check in STORE_CHECKS:
        check(lambda: Wrong("none"))


# --- what is on disk, by other readers --------------------------------------------------------------------------

A, B, C, F = (np.array(row, np.float32) for row in ([1, 0, 0], [0, 1, 0], [0, 0.6, 0.8], [0, 0, -1]))


def fill(store):
    """Write two namespaces with the same ids, two relations of a pair, history, slots with gaps, two fields."""
    store.write(
        Batch(
            nodes=[
                Node("p", "prompt", "old", {"n": 1}),
                Node("gone", "prompt", "gone"),
                Node("r", "response", "ünï \0 \U0001f98a", {"deep": {"x": [1, None, True, 1.5]}}),
                Node("p", "prompt", "other p", {}, "wörk"),
            ],
            links=[Link("p", "r", "zz", {"n": 1}), Link("p", "gone", "r")],
            vectors=[Vector("p", "prompt", A), Vector("gone", "prompt", A), Vector("p", "prompt", B, namespace="wörk")],
        )
    )
    store.write(Batch(links=[Link("r", "p", "back"), Link("p", "r", "aa", {"m": [2]})]))
    store.write(
        Batch(
            removed_nodes=[("default", "gone")],
            nodes=[Node("p", "prompt", "new", {"n": 2}, expires_at=4e9), Node("s", "session")],
            links=[Link("p", "p", "self", {}, "wörk")],
            vectors=[Vector("p", "prompt", C), Vector("r", "fact", F, 1, 2, 7)],
            meta={"graph": {"title": "T"}, "mine": [1]},
        )
    )


NODES = [
    {"type": "prompt", "text": "new", "n": 2, "id": "p", "raeburnmemory_expires_at": 4e9},
    {"type": "response", "text": "ünï \0 \U0001f98a", "deep": {"x": [1, None, True, 1.5]}, "id": "r"},
    {"type": "session", "id": "s"},
]
EDGES = [
    {"relation": "zz", "n": 1, "relations": {"zz": {"n": 1}, "aa": {"m": [2]}}, "source": "p", "target": "r"},
    {"relation": "back", "source": "r", "target": "p"},
]
WORK = {
    "nodes": [{"type": "prompt", "text": "other p", "id": "p"}],
    "edges": [{"relation": "self", "source": "p", "target": "p"}],
    "links": [{"relation": "self", "source": "p", "target": "p"}],
}


@pytest.mark.parametrize("backend", ["json", "json-npy"])
def test_json_files(backend, place, tmp_path):
    store = place(backend)()
    fill(store)
    store.close()
    raw = (tmp_path / "memory.json").read_bytes()
    data = json.loads(raw)
    ours = data["graph"].pop("raeburnmemory")
    history = data.pop("raeburnmemory_history")
    assert data == {
        "directed": True,
        "multigraph": False,
        "graph": {"title": "T"},
        "nodes": NODES,
        "edges": EDGES,
        "links": EDGES,
        "raeburnmemory_namespaces": {"wörk": WORK},
    }
    assert (ours["format"], ours["store"], ours["version"], ours["meta"]) == (1, store.id, 3, {"mine": [1]})
    assert history == [{"namespace": "default", "node": {"type": "prompt", "text": "old", "n": 1, "id": "p"}}]

    where = json.loads((tmp_path / "memory.json.map.json").read_bytes())
    assert list(where) == ["p"]
    if backend == "json":
        faiss = pytest.importorskip("faiss", reason="vectors in faiss's files need faiss-cpu")
        indexes = [faiss.read_index(str(tmp_path / f"memory.json{stem}.faiss")) for stem in ("", ".fact")]
        assert [type(index) for index in indexes] == [faiss.IndexFlatL2] * 2
        prompts, facts = (index.reconstruct_n(0, index.ntotal) for index in indexes)
        assert not list(tmp_path.glob("*.npy"))
    else:
        names = ("memory.json.vectors.npy", "memory.json.fact.vectors.npy")
        prompts, facts = (np.load(tmp_path / name, allow_pickle=False) for name in names)
        assert not list(tmp_path.glob("*.faiss"))
    assert sorted(prompts.tolist()) == sorted([B.tolist(), C.tolist()])
    assert prompts[where["p"]].tolist() == C.tolist()
    assert facts.tolist() == [F.tolist()]

    (line,) = (tmp_path / "memory.json.journal").read_bytes().splitlines()
    assert line[:8] == b"%08x" % zlib.crc32(line[9:])
    head = json.loads(line[9:])
    assert (head["store"], head["base"], head["sha256"]) == (store.id, 3, hashlib.sha256(raw).hexdigest())


def test_json_opens_in_networkx(place, tmp_path):
    networkx = pytest.importorskip("networkx", reason="reading with networkx needs networkx")
    store = place("json-npy")()
    fill(store)
    store.close()
    data = json.loads((tmp_path / "memory.json").read_bytes())
    for key in ("edges", "links"):
        graph = networkx.node_link_graph(data, edges=key)
        assert type(graph) is networkx.DiGraph
        assert list(graph.nodes(data=True)) == [(n["id"], {k: v for k, v in n.items() if k != "id"}) for n in NODES]
        assert {(u, v): attributes["relation"] for u, v, attributes in graph.edges(data=True)} == {
            ("p", "r"): "zz",
            ("r", "p"): "back",
        }


def test_json_journal(place, tmp_path):
    """Before close() everything is in the journal: one line per batch, each checksum started from the one before."""
    store = place("json")()
    empty = (tmp_path / "memory.json").read_bytes()
    fill(store)
    assert (tmp_path / "memory.json").read_bytes() == empty
    head, *lines = (tmp_path / "memory.json.journal").read_bytes().splitlines(keepends=True)
    crc = zlib.crc32(head[9:-1])
    for line in lines:
        crc = zlib.crc32(line[9:-1], crc)
        assert line[:9] == b"%08x " % crc
        assert line.endswith(b"\n")
    entries = [json.loads(line[9:]) for line in lines]
    assert [entry["version"] for entry in entries] == [1, 2, 3]
    first = entries[0]["vectors"][0]
    assert np.frombuffer(base64.b64decode(first[-1]), "<f4").tolist() == A.tolist()
    assert [node[:4] for node in entries[2]["nodes"]] == [
        ["default", "p", "prompt", "new"],
        ["default", "s", "session", None],
    ]


def test_sqlite_tables(place, tmp_path):
    store = place("sqlite")()
    fill(store)
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir() if "lock" not in path.name) == ["memory.db"]
    with closing(sqlite3.connect(f"file:{tmp_path / 'memory.db'}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT max(version) FROM log").fetchone() == (3,)
        nodes = db.execute(
            "SELECT namespace, id, kind, text, attributes, expires_at FROM nodes ORDER BY row"
        ).fetchall()
        assert [(*node[:4], json.loads(node[4]), node[5]) for node in nodes] == [
            ("default", "p", "prompt", "new", {"n": 2}, 4e9),
            ("default", "r", "response", "ünï \0 \U0001f98a", {"deep": {"x": [1, None, True, 1.5]}}, None),
            ("wörk", "p", "prompt", "other p", {}, None),
            ("default", "s", "session", None, {}, None),
        ]
        edges = db.execute("SELECT namespace, source, relation, target, data FROM edges ORDER BY row").fetchall()
        assert [(*edge[:4], json.loads(edge[4])) for edge in edges] == [
            ("default", "p", "zz", "r", {"n": 1}),
            ("default", "r", "back", "p", {}),
            ("default", "p", "aa", "r", {"m": [2]}),
            ("wörk", "p", "self", "p", {}),
        ]
        sql = (
            "SELECT s.field, n.namespace, n.id, v.part, v.start, v.end, v.vector FROM vectors v "
            "JOIN nodes n ON n.row = v.row JOIN sets s ON s.number = v.key >> 40 ORDER BY v.key"
        )
        assert [(*row[:6], np.frombuffer(row[6], "<f4").tolist()) for row in db.execute(sql)] == [
            ("prompt", "wörk", "p", 0, 0, -1, B.tolist()),
            ("prompt", "default", "p", 0, 0, -1, C.tolist()),
            ("fact", "default", "r", 1, 2, 7, F.tolist()),
        ]
        past = db.execute("SELECT n.id, h.text, h.attributes FROM history h JOIN nodes n USING (row)").fetchall()
        assert [(*old[:2], json.loads(old[2])) for old in past] == [("p", "old", {"n": 1})]


def test_postgres_tables(place, postgres_url):
    """Read back with SQL alone; a key is what the documentation says it is."""
    psycopg = pytest.importorskip("psycopg", reason="a PostgreSQL store needs psycopg")
    store = place("postgres")()
    fill(store)
    with psycopg.connect(postgres_url.partition("&schema=")[0], autocommit=True) as db:
        db.execute("SELECT set_config('search_path', quote_ident(%s) || ', public', false)", (store._address.schema,))
        assert db.execute("SELECT version, (SELECT max(version) FROM log) FROM state").fetchone() == (3, 3)
        nodes = db.execute(
            'SELECT namespace, id, kind, text, attributes, expires_at FROM nodes ORDER BY "row"'
        ).fetchall()
        assert nodes == [
            ("default", "p", "prompt", "new", {"n": 2}, 4e9),
            ("default", "r", "response", "ünï \x1a0 \U0001f98a", {"deep": {"x": [1, None, True, 1.5]}}, None),
            ("wörk", "p", "prompt", "other p", {}, None),
            ("default", "s", "session", None, {}, None),
        ]
        sql = (
            "SELECT e.namespace, s.id, e.relation, t.id, e.data FROM edges e JOIN nodes s ON s.row = e.source "
            "JOIN nodes t ON t.row = e.target ORDER BY e.row"
        )
        assert db.execute(sql).fetchall() == [
            ("default", "p", "zz", "r", {"n": 1}),
            ("default", "r", "back", "p", {}),
            ("default", "p", "aa", "r", {"m": [2]}),
            ("wörk", "p", "self", "p", {}),
        ]
        sql = (
            'SELECT s.field, n.namespace, n.id, v.part, v.start, v."end", v.vector::text FROM vectors v '
            'JOIN nodes n ON n.row = v.row JOIN sets s ON s.number = v."set" ORDER BY v."set", v.slot'
        )
        assert db.execute(sql).fetchall() == [
            ("prompt", "wörk", "p", 0, 0, -1, "[0,1,0]"),
            ("prompt", "default", "p", 0, 0, -1, "[0,0.6,0.8]"),
            ("fact", "default", "r", 1, 2, 7, "[0,0,-1]"),
        ]
        past = db.execute("SELECT n.id, h.text, h.attributes FROM history h JOIN nodes n USING (row)").fetchall()
        assert past == [("p", "old", {"n": 1})]
        sql = (
            "SELECT count(*) FROM nodes WHERE decode(replace(key::text, '-', ''), 'hex') = "
            "substring(sha256(convert_to(namespace, 'UTF8') || '\\x00' || convert_to(id, 'UTF8')) for 16)"
        )
        assert db.execute(sql).fetchone() == (4,)
