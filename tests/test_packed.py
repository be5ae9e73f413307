"""What is kept in memory of nodes and edges: nothing that the garbage collector walks over, and nothing that is shared."""

from __future__ import annotations

import gc
import random

import pytest

from raeburnmemory.nodes import Batch, Link, Node, Where
from raeburnmemory.store import _packed, open_store
from raeburnmemory.store._waiting import Links


def tracked():
    for _ in range(3):  # a tuple of tuples is passed over only after these are
        gc.collect()
    return len(gc.get_objects())


@pytest.mark.parametrize("name", [":memory:", "graph.json"])
def test_the_collector_walks_over_no_row(name, tmp_path):
    store = open_store(name if name == ":memory:" else tmp_path / name)

    def add(start, end):
        for first in range(start, end, 10):
            nodes = [Node(f"s{first}", "session")]
            for n in range(first, first + 10):
                attributes = {"role": "user", "name": "ann", "timestamp": f"2026-01-01T{n}", "score": n / 7}
                nodes.append(Node(f"m{n}", "prompt", f"text {n}", attributes))
            links = [Link(f"m{n}", f"s{first}", "belongs_to") for n in range(first, first + 10)]
            links += [Link(f"m{n}", f"m{n // 2}", "follows", {"score": n / 7}) for n in range(first, first + 10)]
            store.write(Batch(nodes=nodes, links=links))

    add(0, 100)
    before = tracked()
    add(100, 2100)
    # The log of changes holds a tuple for each, which the collector passes over too.
    assert tracked() - before < 300
    assert store.get(["m2000"], "default")["m2000"].attributes["timestamp"] == "2026-01-01T2000"
    store.close()


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"name": "ann", "n": 1, "x": 0.5, "yes": True, "none": None},
        {"tags": ["a", "b"], "place": {"room": [1, {"shelf": 2}]}},
        {"tags": [], "name": "ann"},
    ],
)
def test_what_readers_do_to_a_node_stays_theirs(attributes):
    given = Node("a", "note", "text", attributes, "here", 4e9)
    packed = _packed.pack_node(given, ("here", "a"), 7)
    wanted = Node("a", "note", "text", attributes, "here", 4e9, 7)
    first, second = _packed.node_of(packed), _packed.node_of(packed)
    assert first == second == wanted
    assert list(first.attributes) == list(attributes)
    assert dict(_packed.attributes_of(packed)) == attributes
    for value in (*given.attributes.values(), *first.attributes.values()):
        if isinstance(value, list):
            value.append("more")
    first.attributes["new"] = 1
    assert _packed.node_of(packed) == second


def test_names_are_kept_once_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(_packed, "_names", {})
    monkeypatch.setattr(_packed, "_SHARED", 3)
    nodes = [Node(f"n{n}", "note", None, {f"name{n}": n, "other": n}) for n in range(9)]
    packed = [_packed.pack_node(node, ("default", node.id), node.row) for node in nodes]
    assert len(_packed._names) == 3
    assert [_packed.node_of(each) for each in packed] == nodes
    assert _packed.pack_node(nodes[0], ("default", "n0"), -1)[6] is packed[0][6]


@pytest.mark.parametrize("seed", range(4))
def test_edges_around_a_node_keep_their_order(seed):
    """Few stand in a tuple, many in a dict: neither can be told from outside."""
    chance, links = random.Random(seed), Links()
    there: dict[tuple[str, str, str, str], Link] = {}
    for row in range(150):
        source, target, relation = f"n{chance.randrange(3)}", f"n{chance.randrange(8)}", chance.choice("rst")
        key = ("default", source, target, relation)
        if chance.random() < 0.4:
            links.remove(key)
            there.pop(key, None)
            continue
        data = chance.choice([{}, {"score": row}, {"list": [row]}])
        assert links.put(Link(source, target, relation, data)) == key
        old = there.get(key)
        there[key] = Link(source, target, relation, data, row=links.next_row - 1 if old is None else old.row)
        assert list(links.values()) == list(there.values())
        for side, end in ((links.leaving, 1), (links.entering, 2)):
            around = {}
            for each in there:
                around.setdefault(("default", each[end]), []).append(each)
            assert {node: list(keys) for node, keys in side.items()} == around
            assert {node: list(reversed(keys))[::-1] for node, keys in side.items()} == around


@pytest.mark.parametrize("name", [":memory:", "graph.json"])
def test_attributes_are_compared_wherever_they_are_kept(name, tmp_path):
    store = open_store(name if name == ":memory:" else tmp_path / name)
    nodes = [
        Node("plain", "note", None, {"color": "red", "n": 1}),
        Node("nested", "note", None, {"color": "red", "tags": ["a"]}),
        Node("other", "note", None, {"color": "blue"}),
        Node("none", "note"),
    ]
    store.write(Batch(nodes=nodes))
    assert [node.id for node in store.nodes(Where(attributes={"color": "red"}))] == ["plain", "nested"]
    assert [node.id for node in store.nodes(Where(attributes={"tags": ["a"]}))] == ["nested"]
    assert [node.id for node in store.nodes(Where(attributes={"color": "red", "n": 1}))] == ["plain"]
    assert list(store.nodes(Where(attributes={"missing": None}))) == []
    store.close()
