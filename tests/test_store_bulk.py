"""Many rows in one batch: SQLite writes them together, and they must be what they are one by one."""

import gc
import random
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from outside import STORE_FILES, Fake

from raeburnmemory.errors import InvalidInput, StoreCorrupt
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Batch, Link, Node, Vector, Where
from raeburnmemory.testing._ledger import unit

FIELDS = ("prompt", "response")


def everything(store):
    """Return what a store holds by ids, in the order of its rows and slots."""
    nodes = list(store.nodes(Where()))
    names = {node.row: node.id for node in nodes}
    links = store.links(None, None)
    assert [e.row for e in links] == sorted({e.row for e in links})
    vectors = {
        field: [
            (slot, names[row], tuple(span), values.tolist())
            for block in store.vectors(field, -1).blocks
            for slot, row, span, values in zip(
                block.slots.tolist(), block.rows.tolist(), block.spans.tolist(), block.values, strict=True
            )
        ]
        for field in FIELDS
    }
    return (
        [(node.id, node.kind, node.text, node.attributes, node.expires_at) for node in nodes],
        [(e.source, e.target, e.relation, e.data) for e in links],
        vectors,
        {node.id: [old.text for old in store.history(node.id, "default")] for node in nodes},
    )


def made_up(dice, there, number):
    """Return a batch of nodes, new ones and old ones and perhaps one twice, with edges and vectors around them."""
    count = dice.choice([1, 3, 9, 40, 150])
    names = [f"n{number}-{i}" for i in range(count)]
    if there and dice.random() < 0.5:
        names[:1] = dice.sample(there, 1)
    if dice.random() < 0.2:
        names.append(names[-1])
    kinds = {name: dice.choice(FIELDS) for name in names}
    nodes = [Node(name, kinds[name], f"{name} of {number}.{at}", {"at": at}) for at, name in enumerate(names)]
    ends = list(dict.fromkeys([*names, *dice.sample(there, min(3, len(there)))]))
    pairs = [(dice.choice(ends), dice.choice(ends), dice.choice(["a", "b"])) for _ in range(count)]
    links = [Link(*pair, {"at": at}) for at, pair in enumerate(pairs)]
    vectors = [
        Vector(n, kinds[n], unit(dice.random(), 1.0), p)
        for n in dict.fromkeys(names)
        for p in range(dice.randint(0, 2))
    ]
    gone = [name for name in there if name not in ends]
    removed = [("default", dice.choice(gone))] if gone and dice.random() < 0.3 else []
    return Batch(nodes=nodes, links=links, vectors=vectors, removed_nodes=removed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("backend", STORE_FILES)
def test_many_at_once_are_what_they_are_in_memory(backend, seed, place):
    dice = random.Random(seed)
    opener = place(backend)
    store, other, plain = opener(), opener(), place("memory")()
    for number in range(25):
        batch = made_up(dice, [node.id for node in plain.nodes(Where())], number)
        before = plain.version()
        assert store.write(batch) == plain.write(batch) == before + 1
        assert everything(other) == everything(plain)
        ours, theirs = other.changes(before), plain.changes(before)
        assert {node.id for node in ours.nodes} == {node.id for node in theirs.nodes}
        assert {(e.source, e.target, e.relation) for e in ours.links} == {
            (e.source, e.target, e.relation) for e in theirs.links
        }
        for field in FIELDS:
            slots = [
                np.concatenate([np.empty(0, np.int64), *(block.slots for block in each.vectors(field, before).blocks)])
                for each in (other, plain)
            ]
            assert slots[0].tolist() == slots[1].tolist()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("backend", STORE_FILES)
def test_who_writes_in_turn_with_others_knows_what_they_wrote(backend, seed, place):
    """What a writer remembers of its last write holds as long as nobody else has written, and nothing was taken back."""
    dice = random.Random(seed)
    opener = place(backend)
    stores, plain, model = [opener(), opener()], place("memory")(), 0
    for number in range(40):
        store, there = dice.choice(stores), [node.id for node in plain.nodes(Where())]
        with store.exclusive():
            for part in range(dice.choice([1, 1, 3])):
                assert store.meta("embedder") == (model or None)
                if dice.random() < 0.2:
                    nodes = [Node(f"new{number}", "note"), *(Node(one, "note", "again") for one in there[:2])]
                    vectors = [Vector(node.id, "prompt", unit(0.5, 1.0)) for node in nodes]
                    meta = {"embedder": -1}
                    bad = Batch(nodes=nodes, vectors=vectors, links=[Link("nobody", "nobody", "is")], meta=meta)
                    with pytest.raises(InvalidInput):
                        store.write(bad)
                batch = made_up(dice, there, 100 * number + part)
                if dice.random() < 0.3:
                    model += 1
                    batch = replace(batch, meta={"embedder": model})
                if dice.random() < 0.3:
                    waiting = [replace(vector, field=f"{vector.field}.next") for vector in batch.vectors]
                    batch = replace(batch, vectors=waiting, staged=dice.choice(["promote", "discard"]))
                store.get([node.id for node in batch.nodes][:2], "default")
                assert store.write(batch) == plain.write(batch)
                there = [node.id for node in plain.nodes(Where())]
        if number % 4 == 3:
            assert all(everything(each) == everything(plain) for each in stores)


def test_what_was_known_is_not_believed_where_the_log_could_not_be_read(place, monkeypatch):
    opener = place("sqlite")
    store, other = opener(), opener()
    store.write(Batch(nodes=[Node("one", "note")], vectors=[Vector("one", "prompt", unit(0.1, 1.0))]))
    other.write(Batch(nodes=[Node("two", "note")], vectors=[Vector("two", "prompt", unit(0.2, 1.0))]))

    def refused(_):
        raise sqlite3.DatabaseError("database disk image is malformed")

    with store.exclusive():
        with monkeypatch.context() as patched:
            patched.setattr("raeburnmemory.store.sqlite.last_change", refused)
            with pytest.raises(StoreCorrupt):
                store.get(["two"], "default")
        assert (
            store.write(Batch(nodes=[Node("three", "note")], vectors=[Vector("three", "prompt", unit(0.3, 1.0))])) == 3
        )
    assert [slot for slot, *_ in everything(other)[2]["prompt"]] == [0, 1, 2]


def test_what_was_known_of_a_node_that_expired_does_not_hide_it(place):
    store = place("sqlite")()
    store.write(Batch(nodes=[Node("one", "note", expires_at=1.0)]))
    with store.exclusive():
        assert store.get(["one"], "default") == {}
        store.write(Batch(nodes=[Node("one", "note", "again")]))
    assert store.get(["one"], "default")["one"].text == "again"
    assert len(store.history("one", "default")) == 1


@pytest.mark.parametrize("backend", STORE_FILES)
def test_rows_go_on_after_many_and_are_never_given_twice(backend, place):
    store = place(backend)()
    store.write(Batch(nodes=[Node(f"a{i}", "note") for i in range(30)]))
    last = store.get(["a29"], "default")["a29"].row
    store.write(Batch(removed_nodes=[("default", f"a{i}") for i in range(30)]))
    store.write(Batch(nodes=[Node("one", "note")]))
    store.write(Batch(nodes=[Node(f"b{i}", "note") for i in range(30)]))
    rows = [node.row for node in store.nodes(Where())]
    assert len(set(rows)) == 31
    assert min(rows) > last
    assert rows == sorted(rows)


@pytest.mark.parametrize("backend", STORE_FILES)
def test_of_many_with_one_that_cannot_be_nothing_is_written(backend, place):
    store = place(backend)()
    nodes = [Node(f"n{i}", "note") for i in range(20)]
    links = [Link(f"n{i}", f"n{i + 1}", "next") for i in range(19)]
    with pytest.raises(InvalidInput, match="nobody"):
        store.write(Batch(nodes=nodes, links=[*links, Link("n0", "nobody", "next")]))
    assert list(store.nodes(Where())) == []
    assert store.version() == 0
    assert store.write(Batch(nodes=nodes, links=links)) == 1
    assert len(store.links(None, None)) == 19


@pytest.mark.parametrize("wanted", [True, False])
def test_while_texts_are_embedded_the_garbage_collector_is_as_it_was(wanted, tmp_path):
    seen = []

    class Watching(Fake):
        def embed(self, texts):
            if "two" in texts:
                seen.append(gc.isenabled())
            return super().embed(texts)

    was = gc.isenabled()
    (gc.enable if wanted else gc.disable)()
    try:
        with MemoryGraph(tmp_path / "memory.db", embedding_model=Watching()) as memory:
            found = memory.add_many([("one",), {"prompt": {"id": "two", "text": "two"}}, ("three", "four")])
            assert (found[1].prompt, len(memory)) == ("two", 4)
            assert gc.isenabled() is wanted
            with pytest.raises(InvalidInput, match="Interaction 1"):
                memory.add_many([("five",), (5,)])
            assert gc.isenabled() is wanted
            assert [hit.id for hit in memory.recall("two", 1)] == ["two"]
            assert gc.isenabled() is wanted
    finally:
        (gc.enable if was else gc.disable)()
    assert len(seen) > 1
    assert set(seen) == {wanted}
