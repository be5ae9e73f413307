"""A process that goes on for years: what it keeps depends on what the memory holds, not on what it once held."""

from __future__ import annotations

import gc
import os
import random
import threading
import weakref

import numpy as np
import pytest

from raeburnmemory import MemoryGraph, corpus, field_index
from raeburnmemory.nodes import Batch, Node, Vector
from raeburnmemory.store import open_store, state


class Follower:
    """Somebody who keeps up with the vectors of a store by its changes."""

    def __init__(self, store):
        self.store, self.version, self.slots, self.resets = store, -1, {}, 0

    def catch_up(self):
        changes = self.store.vectors("note", self.version)
        if changes.reset:
            self.slots, self.resets = {}, self.resets + 1
        for slot in changes.removed.tolist():
            self.slots.pop(slot, None)
        for block in changes.blocks:
            found = zip(block.slots.tolist(), block.rows.tolist(), block.values.tolist(), strict=True)
            self.slots.update((slot, (row, values)) for slot, row, values in found)
        self.version = changes.version
        return self.slots


@pytest.mark.parametrize("name", [":memory:", "graph.json"])
def test_vectors_that_were_dropped_make_room(name, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "_WASTED", 8)
    monkeypatch.setattr(state, "_DROPPED", 8)
    store = open_store(name if name == ":memory:" else tmp_path / name, durability="process")
    chance, there, every, seldom = random.Random(1), {}, Follower(store), Follower(store)
    for turn in range(600):
        node = f"n{chance.randrange(12)}"
        if node in there and chance.random() < 0.3:
            store.write(Batch(removed_nodes=[("default", node)]))
            del there[node]
        else:
            values = [[float(turn), float(part)] for part in range(chance.randrange(3))]
            vectors = [Vector(node, "note", np.array(each, np.float32), part) for part, each in enumerate(values)]
            store.write(Batch(nodes=[Node(node, "note", f"{turn}")], vectors=vectors))
            there[node] = values
        wanted = sorted(each for values in there.values() for each in values)
        assert sorted(values for _, values in every.catch_up().values()) == wanted
        if turn % 97 == 96:
            assert seldom.catch_up() == every.slots
    held = store._state.sets["note"]
    assert held._n <= 2 * len(held) + 9
    assert len(held.dropped) <= 2 * max(8, len(held)) + 2
    assert every.resets == 1  # who keeps up never has to read all again
    assert seldom.resets > 3
    ids = store.vectors_at([node.row for node in store.get(list(there), "default").values()])
    assert sorted(v.tolist() for parts in ids.values() for v in parts.values()) == wanted
    store.close()


@pytest.mark.parametrize("name", [":memory:", "graph.json", "graph.db"])
def test_nodes_that_are_gone_leave_no_number(name, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_WASTED", 30)
    path = name if name == ":memory:" else tmp_path / name
    with MemoryGraph(path, "builtin", vector_backend="exact") as memory:
        kept = memory.add_message("The red apple is in the cellar", session_id="first").prompt
        most = 0
        for turn in range(12):
            texts = [{"text": f"A pear of the year {turn} and number {n}", "session_id": "s"} for n in range(20)]
            ids = [each.prompt for each in memory.add_messages(texts)]
            assert set(ids) <= set(memory.recall("pear", 50).ids)
            assert memory.recall("red apple").ids[0] == kept
            memory.forget(ids[:-1])
            assert set(memory.recall("pear", 50).ids) & set(ids) == {ids[-1]}
            most = max(most, len(memory._recall._corpus))
        assert most < 100
        found = [(hit.id, hit.score) for hit in memory.recall("pear of number 19", 20)]
        if name != ":memory:":
            with MemoryGraph(path, "builtin", vector_backend="exact", read_only=True) as other:
                assert [(hit.id, hit.score) for hit in other.recall("pear of number 19", 20)] == found


@pytest.mark.parametrize("name", [":memory:", "graph.db"])
def test_what_is_known_of_namespaces_ends_somewhere(name, tmp_path, monkeypatch):
    monkeypatch.setattr(field_index, "_KNOWN", 5)
    with MemoryGraph(name if name == ":memory:" else tmp_path / name, "builtin", vector_backend="exact") as memory:
        memory.add_message("A red apple", session_id="s")
        for n in range(8):
            memory.within(f"of {n}").add_message(f"A pear of {n}")
        for _ in range(2):
            for n in [*range(8), *range(100, 120)]:
                found = memory.within(f"of {n}").recall("pear")
                assert [hit.text for hit in found] == ([f"A pear of {n}"] if n < 8 else [])
                assert memory.recall("apple").ids
        dense = memory._dense
        known = [dense._centres, dense._sums, *(cached._allowed for cached in dense._indexes.values())]
        assert [len(each) for each in known] == [min(len(each), 5) for each in known]


def test_no_namespace_keeps_an_index_that_was_made_anew(monkeypatch):
    monkeypatch.setattr(state, "_DROPPED", 4)
    with MemoryGraph(":memory:", "builtin", vector_backend="exact") as memory:
        other = memory.within("other")
        for each in (memory, other):
            each.add_message("A red apple")
            each.recall("apple")
        old = weakref.ref(memory._dense._indexes["prompt"].index)
        ids = [each.prompt for each in memory.add_messages([{"text": f"A pear of {n}"} for n in range(40)])]
        memory.forget(ids)  # so many that the index is made anew
        assert memory.recall("apple").ids
        gc.collect()
        assert old() is None
        assert [hit.text for hit in other.recall("apple")] == ["A red apple"]


def held():
    for _ in range(3):
        gc.collect()
    folder = "/proc/self/fd"
    files = len(os.listdir(folder)) if os.path.isdir(folder) else 0
    return len(gc.get_objects()), files, threading.active_count()


@pytest.mark.parametrize("name", [":memory:", "graph.json", "graph.db"])
def test_rounds_of_everything_leave_nothing_behind(name, tmp_path):
    path, words = name if name == ":memory:" else tmp_path / name, random.Random(2)

    def text():
        return " ".join(words.choices(["apple", "pear", "plum", "cellar", "ladder", "blue", "red", "old"], k=6))

    def rounds(memory, count):
        for _ in range(count):
            chat = [{"text": text(), "session_id": f"s{n % 3}"} for n in range(12)]
            ids = [each.prompt for each in memory.add_messages(chat)]
            memory.recall(text())
            memory.similar(text())
            memory.matching("apple")
            memory.context(text(), 200)
            memory.update(ids[0], text=text())
            fact = memory.fact("ann", "likes", text())
            memory.retract(fact.id)
            memory.graph.number_of_nodes()
            memory.stats()
            memory.forget([*ids, fact.id])
            if path != ":memory:":
                with MemoryGraph(path, "builtin", read_only=True) as other:
                    other.recall(text())

    with MemoryGraph(path, "builtin", durability="full" if name == ":memory:" else "process") as memory:
        rounds(memory, 5)
        objects, files, threads = held()
        rounds(memory, 25)
        after = held()
    assert after[1:] == (files, threads)
    # What stays of each round: its place in logs that end somewhere, at most a dozen objects.
    assert after[0] - objects < 25 * 12
