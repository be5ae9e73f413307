"""A `graph.json` that is as it was written is not parsed as a whole: what waits in it is what a parser finds there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raeburnmemory import MemoryGraph
from raeburnmemory.nodes import Batch, Link, Node, Where
from raeburnmemory.store import _waiting, open_store
from raeburnmemory.store._packed import node_of
from raeburnmemory.store._waiting import Links, Nodes, sections

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"id": "', '\\"id\\": \\"', '"}', '],\n"edges": [', "\\", '"', "}\n,{", "\u2028", "raeburnmemory_expires_at", "id"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS | st.just("id"), inner, max_size=2),
    max_leaves=4,
)
IDS = TEXTS.filter(bool)


@st.composite
def batches(draw):
    ids = draw(st.lists(IDS, min_size=1, max_size=6, unique=True))
    taken = {"id", "type", "text", "raeburnmemory_expires_at"}
    nodes = [
        Node(
            name,
            draw(st.sampled_from(["prompt", "note"])),
            draw(st.none() | TEXTS),
            {key: value for key, value in draw(st.dictionaries(TEXTS, VALUES, max_size=3)).items() if key not in taken},
            expires_at=draw(st.none() | st.just(4e9)),
        )
        for name in ids
    ]
    ends = st.sampled_from(ids)
    data = st.dictionaries(TEXTS.filter(lambda key: key not in {"relation", "relations", "source", "target"}), VALUES)
    links = [
        Link(source, target, relation, draw(data))
        for source, target, relation in draw(
            st.lists(st.tuples(ends, ends, st.sampled_from(["r", "s", "t"])), max_size=6, unique=True)
        )
    ]
    return Batch(nodes=nodes, links=links)


def everything(path):
    """Return what a store tells, and what a plain parser finds in its file."""
    store = open_store(path, read_only=True)
    waiting = store._state.nodes._waiting
    told = (
        [(n.id, n.kind, n.text, dict(n.attributes), n.expires_at, n.row) for n in store.nodes(Where(namespace=None))],
        [(e.source, e.target, e.relation, dict(e.data), e.row) for e in store.links(None, None)],
    )
    store.close()
    return told, waiting


@settings(max_examples=150, deadline=None)
@given(first=batches(), second=batches())
def test_what_waits_is_what_was_written(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("w") / "g.json"
    store = open_store(path)
    for batch in (first, second):
        store.write(batch)
    store.checkpoint()
    wanted = (
        [(n.id, n.kind, n.text, dict(n.attributes), n.expires_at, n.row) for n in store.nodes(Where(namespace=None))],
        [(e.source, e.target, e.relation, dict(e.data), e.row) for e in store.links(None, None)],
    )
    store.close()
    raw = path.read_bytes()
    plain, found = json.loads(raw), sections(raw)
    assert [json.loads(line) for line in found.nodes] == plain["nodes"]
    assert found.ids == [entry["id"] for entry in plain["nodes"]]
    assert [json.loads(line) for line in found.edges] == plain["edges"]
    assert json.loads(found.rest) == {**plain, "nodes": [], "edges": [], "links": []}
    told, waiting = everything(path)
    assert told == wanted
    assert waiting == len(plain["nodes"])


def fill(path, **options):
    with MemoryGraph(path, "builtin", vector_backend="exact", **options) as memory:
        memory.add_many(
            [({"id": f"p{n}", "text": f"A red apple {n}"}, {"id": f"r{n}", "text": "Yes"}) for n in range(50)]
        )
        memory.update("p3", text="A blue apple")
        memory.link("p1", "p2", "follows")
    return path


def test_nothing_is_made_before_somebody_looks(tmp_path, monkeypatch):
    path, made = fill(tmp_path / "g.json"), []
    read, links = _waiting.read_node, _waiting.links_of
    monkeypatch.setattr(_waiting, "read_node", lambda entry, *more: made.append(entry["id"]) or read(entry, *more))
    monkeypatch.setattr(_waiting, "links_of", lambda entry, *more: made.append("edge") or links(entry, *more))
    with MemoryGraph(path, "builtin", vector_backend="exact") as memory:
        assert made == []
        assert len(memory) == 100
        assert made == []
        assert memory.get("p7").text == "A red apple 7"
        assert made == ["p7"]
        memory.add_interaction({"id": "new", "text": "A pear"})
        assert memory.get("new").text == "A pear"
        assert [node.id for node in memory.neighbours("p9")] == ["r9"]
        assert set(made) == {"p7", "p9", "r9", "edge"}
    with MemoryGraph(path, "builtin", vector_backend="exact") as memory:
        assert len(memory.export(False)["nodes"]) == 101


def test_a_file_with_several_namespaces_is_parsed_as_a_whole(tmp_path):
    path = fill(tmp_path / "g.json")
    fill(path, namespace="other")
    (nodes, _), waiting = everything(path)
    assert (len(nodes), waiting) == (200, 0)


def test_a_file_that_somebody_changed_is_parsed_as_a_whole(tmp_path):
    path = fill(tmp_path / "g.json")
    data = json.loads(path.read_bytes())
    del data["edges"][3], data["links"][3], data["graph"]["raeburnmemory"]
    path.write_bytes(json.dumps(data).encode())
    (nodes, links), waiting = everything(path)
    assert (len(nodes), len(links), waiting) == (100, len(data["edges"]), 0)


def test_nodes_know_how_many_of_them_wait():
    nodes = Nodes()
    nodes.wait(
        [("n", "a"), ("n", "b"), ("n", "c")], [0, 1, 2], [b'{"type": "x", "id": "%s"}' % c for c in (b"a", b"b", b"c")]
    )
    assert (len(nodes), list(nodes), nodes._waiting) == (3, [("n", "a"), ("n", "b"), ("n", "c")], 3)
    assert nodes["n", "b"] == nodes["n", "b"]
    assert nodes._waiting == 2
    del nodes["n", "a"]
    nodes["n", "c"] = Node("c", "y", row=2)
    assert nodes._waiting == 0
    assert [(node.id, node.kind, node.row) for node in map(node_of, nodes.all_packed())] == [
        ("b", "x", 1),
        ("c", "y", 2),
    ]
    assert nodes.get(("n", "a"), "none") == "none"
    assert ("n", "a") not in nodes
    with pytest.raises(KeyError):
        nodes["n", "a"]


def test_edges_that_come_while_others_wait_are_numbered_after_them():
    links = Links(3)
    lines = [
        b'{"relation": "r", "relations": {"r": {}, "s": {"n": 1}}, "source": "a", "target": "b"}',
        b'{"relation": "r", "source": "b", "target": "a"}',
    ]
    links.wait("n", lines, [0, 2, 1])
    links.put(Link("b", "a", "r", {"new": True}, "n"))
    links.put(Link("b", "b", "r", {}, "n"))
    assert links._lines is not None
    found = [(e.source, e.target, e.relation, dict(e.data), e.row) for e in links.values()]
    assert found == [
        ("a", "b", "r", {}, 0),
        ("b", "a", "r", {"new": True}, 1),
        ("a", "b", "s", {"n": 1}, 2),
        ("b", "b", "r", {}, 3),
    ]
    assert links.next_row == 4
    assert list(links.leaving["n", "b"]) == [("n", "b", "a", "r"), ("n", "b", "b", "r")]
    links.remove(("n", "b", "a", "r"))
    assert ("n", "a") not in links.entering
