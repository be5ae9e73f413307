from __future__ import annotations

import copy
import itertools
import json
import pickle
import sys
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raeburnmemory import live_graph as live_graph_module
from raeburnmemory.errors import InvalidInput, NodeNotFound, ReadOnly
from raeburnmemory.graph import DiGraph
from raeburnmemory.live_graph import LiveGraph, ReadOnlyDict, live_graph
from raeburnmemory.nodes import Changes, Link, Node, copied


class FakeStore:
    """What several memories share: nodes and links in dicts, and a log of what was written and removed."""

    def __init__(self, *, names_replaced=True):
        self.nodes = {}  # (namespace, id) → Node
        self.links = {}  # (namespace, source, target, relation) → Link
        self.log = []  # (key, whether it was removed), one version each
        self.oldest = 0  # the first version that the log still explains
        self.rows = itertools.count()
        self.names_replaced = names_replaced  # whether a key removed and written again is also named as removed

    def put_node(self, key, attributes):
        old = self.nodes.get(key, Node(key[1], "node", row=next(self.rows)))
        given = dict(attributes)
        kind, text = given.pop("type", old.kind), given.pop("text", old.text)
        merged = copied({**old.attributes, **given})
        self.nodes[key] = Node(key[1], kind, text, merged, namespace=key[0], row=old.row)
        self.log.append((key, False))

    def put_link(self, key, data):
        namespace, source, target, relation = key
        for end in (source, target):
            if (namespace, end) not in self.nodes:
                self.put_node((namespace, end), {})
        old = self.links.get(key, Link(source, target, relation, row=next(self.rows)))
        self.links[key] = Link(source, target, relation, {**old.data, **data}, namespace=namespace, row=old.row)
        self.log.append((key, False))

    def remove(self, key):
        if len(key) == 2:
            for link in [link for link in self.links if link[0] == key[0] and key[1] in link[1:3]]:
                self.remove(link)
        held = self.nodes if len(key) == 2 else self.links
        if held.pop(key, None):
            self.log.append((key, True))

    def changes(self, since):
        if since < self.oldest:
            return Changes(len(self.log), reset=True)
        touched = dict.fromkeys(key for key, _ in self.log[since:])
        removed = {key for key, gone in self.log[since:] if gone}
        if not self.names_replaced:
            removed -= self.nodes.keys() | self.links.keys()
        return Changes(
            len(self.log),
            nodes=[self.nodes[key] for key in reversed(touched) if key in self.nodes],
            links=[self.links[key] for key in reversed(touched) if key in self.links],
            removed_nodes=[key for key in removed if len(key) == 2],
            removed_links=[key for key in removed if len(key) == 4],
        )

    def everything(self):
        return iter(self.nodes.values()), iter(self.links.values())


class FakeMemory:
    """A `GraphWriter` over a `FakeStore`: one process that has one namespace open."""

    def __init__(self, store=None, namespace="default"):
        self.store = store or FakeStore()
        self.namespace = namespace
        self.calls = []
        self.seen = -1
        self.graph = live_graph(self)

    def write_graph(self, nodes, links):
        self.calls.append(("write", list(nodes), list(links)))
        json.dumps([nodes, links])  # refuses what JSON cannot hold; the real one raises InvalidInput
        for node_id, attributes in nodes:
            self.store.put_node((self.namespace, node_id), attributes)
        for source, target, relation, data in links:
            self.store.put_link((self.namespace, source, target, relation), data)

    def erase_graph(self, ids, pairs):
        self.calls.append(("erase", list(ids), list(pairs)))
        for node_id in ids:
            self.store.remove((self.namespace, node_id))
        for key in [key for key in self.store.links if key[0] == self.namespace and key[1:3] in pairs]:
            self.store.remove(key)

    def catch_up(self, graph):
        assert graph is self.graph
        if self.seen != len(self.store.log):
            changes = self.store.changes(self.seen)
            graph.apply(changes, self.store.everything)
            self.seen = changes.version

    def current(self):
        """Return the graph as a user reads it: brought up to date first."""
        self.catch_up(self.graph)
        return self.graph


def choose(base, patch):
    """Let `digraph_class()` find networkx, or not."""
    if base == "networkx":
        pytest.importorskip("networkx", reason="tests the graph over networkx.DiGraph")
    else:
        patch.setitem(sys.modules, "networkx", None)


@pytest.fixture(params=["networkx", "own"])
def base(request, monkeypatch):
    choose(request.param, monkeypatch)
    return request.param


@pytest.fixture
def nx():
    return pytest.importorskip("networkx", reason="uses networkx's algorithms and views")


@pytest.fixture
def memory(base):
    return FakeMemory()


def nodes_of(graph):
    return {n: dict(d) for n, d in graph.nodes(data=True)}


def edges_of(graph):
    return {(u, v): dict(d) for u, v, d in graph.edges(data=True)}


def picture(graph):
    """All of a graph, in its order; both directions must show the very same dicts."""
    assert {(u, v) for u, v in graph.in_edges} == {(u, v) for u, v in graph.edges}
    assert all(graph.pred[v][u] is graph.succ[u][v] for u, v in graph.edges)
    sources = [(n, list(graph.predecessors(n))) for n in graph]
    return copy.deepcopy((list(nodes_of(graph).items()), list(edges_of(graph).items()), sources))


def fill(memory):
    """Write p1 → r1 → a1 and p1 → s1, one call, and forget that it was made."""
    nodes = [
        ("p1", {"type": "prompt", "text": "Hello", "tags": ["x"]}),
        ("r1", {"type": "response"}),
        "a1",
        "s1",
    ]
    edges = [("p1", "r1", {"relation": "responded_with"}), ("r1", "a1"), ("p1", "s1", {"w": [1]})]
    memory.graph.update(edges, nodes)
    memory.calls.clear()
    return memory.graph


# --- writing through ------------------------------------------------------------------------------------

NODE = {"type": "node"}
RELATED = {"relation": "related_to"}


@pytest.mark.parametrize(
    ("act", "call", "nodes", "edges"),
    [
        (lambda g: g.add_node("n"), ("write", [("n", {})], []), {"n": NODE}, {}),
        (
            lambda g: g.add_node("n", type="prompt", text="Hi", tags=("a", "b")),
            ("write", [("n", {"type": "prompt", "text": "Hi", "tags": ("a", "b")})], []),
            {"n": {"type": "prompt", "text": "Hi", "tags": ["a", "b"]}},
            {},
        ),
        (
            lambda g: g.add_node("n", id="n", w=None),
            ("write", [("n", {"w": None})], []),
            {"n": {**NODE, "w": None}},
            {},
        ),
        (
            lambda g: g.add_nodes_from(["n", ("m", {"w": 2}), ("n", {"v": 3})], w=1),
            ("write", [("n", {"w": 1, "v": 3}), ("m", {"w": 2})], []),
            {"n": {**NODE, "w": 1, "v": 3}, "m": {**NODE, "w": 2}},
            {},
        ),
        (
            lambda g: g.add_edge("n", "m"),
            ("write", [], [("n", "m", "related_to", {})]),
            {"n": NODE, "m": NODE},
            {("n", "m"): RELATED},
        ),
        (
            lambda g: g.add_edge("n", "n", relation="knows", since=2020),
            ("write", [], [("n", "n", "knows", {"since": 2020})]),
            {"n": NODE},
            {("n", "n"): {"relation": "knows", "since": 2020}},
        ),
        (
            lambda g: g.add_edge("n", "m", relations={"knows": {"w": 1}, "likes": {}}),
            ("write", [], [("n", "m", "knows", {"w": 1}), ("n", "m", "likes", {})]),
            {"n": NODE, "m": NODE},
            {("n", "m"): {"relation": "knows", "w": 1, "relations": {"knows": {"w": 1}, "likes": {}}}},
        ),
        (
            lambda g: g.add_edges_from([("n", "m"), ["m", "n", {"relation": "x", "w": 2}], ("n", "m", {"v": 3})], w=1),
            ("write", [], [("n", "m", "related_to", {"w": 1, "v": 3}), ("m", "n", "x", {"w": 2})]),
            {"n": NODE, "m": NODE},
            {("n", "m"): {**RELATED, "w": 1, "v": 3}, ("m", "n"): {"relation": "x", "w": 2}},
        ),
        (
            lambda g: g.add_weighted_edges_from([("n", "m", 0.5)], weight="cost", relation="near"),
            ("write", [], [("n", "m", "near", {"cost": 0.5})]),
            {"n": NODE, "m": NODE},
            {("n", "m"): {"relation": "near", "cost": 0.5}},
        ),
        (
            lambda g: g.update(edges=[("n", "m")], nodes=[("n", {"w": 1})]),
            ("write", [("n", {"w": 1})], [("n", "m", "related_to", {})]),
            {"n": {**NODE, "w": 1}, "m": NODE},
            {("n", "m"): RELATED},
        ),
        (lambda g: g.update(nodes="nm"), ("write", [("n", {}), ("m", {})], []), {"n": NODE, "m": NODE}, {}),
        (
            lambda g: g.update(DiGraph([("n", "m", {"relation": "x"})])),
            ("write", [("n", {}), ("m", {})], [("n", "m", "x", {})]),
            {"n": NODE, "m": NODE},
            {("n", "m"): {"relation": "x"}},
        ),
    ],
)
def test_adding_is_one_write_and_shows_at_once(memory, act, call, nodes, edges):
    act(memory.graph)
    assert memory.calls == [call]
    assert nodes_of(memory.graph) == nodes
    assert edges_of(memory.graph) == edges


@pytest.mark.parametrize(
    ("act", "call", "nodes", "edges"),
    [
        (lambda g: g.remove_node("r1"), ("erase", ["r1"], []), ["p1", "a1", "s1"], [("p1", "s1")]),
        (
            lambda g: g.remove_nodes_from(n for n in ["a1", "zz", "s1", "a1"]),
            ("erase", ["a1", "s1"], []),
            ["p1", "r1"],
            [("p1", "r1")],
        ),
        (
            lambda g: g.remove_edge("p1", "r1"),
            ("erase", [], [("p1", "r1")]),
            ["p1", "r1", "a1", "s1"],
            [("p1", "s1"), ("r1", "a1")],
        ),
        (
            lambda g: g.remove_edges_from([("p1", "r1", {"w": 1}), ("r1", "p1"), ("zz", "p1"), ("p1", "s1")]),
            ("erase", [], [("p1", "r1"), ("p1", "s1")]),
            ["p1", "r1", "a1", "s1"],
            [("r1", "a1")],
        ),
        (lambda g: g.clear(), ("erase", ["p1", "r1", "a1", "s1"], []), [], []),
        (
            lambda g: g.clear_edges(),
            ("erase", [], [("p1", "r1"), ("p1", "s1"), ("r1", "a1")]),
            ["p1", "r1", "a1", "s1"],
            [],
        ),
    ],
)
def test_removing_is_one_erasure_and_shows_at_once(memory, act, call, nodes, edges):
    act(fill(memory))
    assert memory.calls == [call]
    assert list(memory.graph) == nodes
    assert list(memory.graph.edges) == edges
    assert [key[1] for key in memory.store.nodes] == nodes


@pytest.mark.parametrize(
    "act",
    [
        lambda g: g.remove_nodes_from(["zz"]),
        lambda g: g.remove_edges_from([("r1", "p1"), ("zz", "yy")]),
        lambda g: g.add_nodes_from([]),
        lambda g: g.add_edges_from([]),
        lambda g: g.update(edges=[]),
    ],
)
def test_nothing_to_do_writes_nothing(memory, act):
    act(fill(memory))
    assert memory.calls == []


@pytest.mark.parametrize(
    "act", [lambda g: g.remove_node("zz"), lambda g: g.remove_edge("r1", "p1"), lambda g: g.update()]
)
def test_what_is_missing_raises_what_a_plain_graph_raises(memory, act):
    live = fill(memory)
    with pytest.raises(Exception) as of_plain:  # which one is the question
        act(live.copy())
    with pytest.raises(type(of_plain.value)) as of_live:
        act(live)
    assert str(of_live.value) == str(of_plain.value)
    assert memory.calls == []


def test_the_errors_are_those_of_networkx_and_ours(base):
    kind = NodeNotFound if base == "own" else sys.modules["networkx"].NetworkXError
    graph = FakeMemory().graph
    with pytest.raises(kind):
        graph.remove_node("zz")
    with pytest.raises(kind):
        graph.remove_edge("zz", "p1")


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda g: g.add_node(5), "5 cannot be a node"),
        (lambda g: g.add_node(""), "'' cannot be a node"),
        (lambda g: g.add_node(None), "None cannot be a node"),
        (lambda g: g.add_nodes_from(["ok", ("p1", "p2")]), r"\('p1', 'p2'\) cannot be a node"),
        (lambda g: g.add_node("n", id="m"), "'id' of node 'n'"),
        (lambda g: g.add_edge("n", 7), "7 cannot be a node"),
        (lambda g: g.add_edges_from(["nm"]), "'nm' is no edge"),
        (lambda g: g.add_edges_from([("ok", "too"), ("n",)]), r"\('n',\) is no edge"),
        (
            lambda g: g.add_edges_from([("n", "m", 3)]),
            "3 cannot be the attributes of the edge from 'n' to 'm'",
        ),
        (lambda g: g.add_edge("n", "m", relation=None), "None cannot be a relation of the edge from 'n' to"),
        (lambda g: g.add_edge("n", "m", relation=["x"]), r"\['x'\] cannot be a relation"),
        (lambda g: g.add_edge("n", "m", relations={"": {}}), "'' cannot be a relation"),
        (lambda g: g.add_edge("n", "m", relations=["x"]), r"\['x'\] cannot be 'relations'"),
        (lambda g: g.add_edge("n", "m", relations={"x": 1}), r"\{'x': 1\} cannot be 'relations'"),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_written(memory, act, named):
    with pytest.raises(InvalidInput, match=named):
        act(memory.graph)
    assert memory.calls == []


def test_what_the_writer_refuses_changes_nothing(memory):
    before = picture(fill(memory))
    with pytest.raises(TypeError, match="set"):
        memory.graph.add_node("p1", when={1, 2})
    assert picture(memory.graph) == before


def test_graph_attributes_are_refused(memory):
    with pytest.raises(ReadOnly, match=r"\{'name': 'x'\}"):
        memory.graph.update(DiGraph([("n", "m")], name="x"))
    with pytest.raises(ReadOnly):
        memory.graph.graph["name"] = "x"
    assert memory.calls == []
    assert memory.graph.graph == {}


def test_what_was_given_is_not_shared_with_the_memory(memory):
    tags = ["x"]
    memory.graph.add_node("n", tags=tags)
    tags.append("y")
    memory.graph.nodes["n"]["tags"].append("z")
    assert memory.store.nodes["default", "n"].attributes == {"tags": ["x"]}


# --- relations ------------------------------------------------------------------------------------------


def test_several_relations_of_a_pair_are_one_edge(memory):
    graph = memory.graph
    graph.add_edge("n", "m", relation="knows", w=1)
    shown = graph.edges["n", "m"]
    graph.add_edge("n", "m", relation="likes", w=2)
    graph.add_edge("n", "m", relation="knows", v=3)
    both = {"knows": {"w": 1, "v": 3}, "likes": {"w": 2}}
    assert shown == {"relation": "knows", "w": 1, "v": 3, "relations": both}
    assert graph.number_of_edges() == 1
    memory.store.remove(("default", "n", "m", "likes"))
    assert memory.current().edges["n", "m"] == {"relation": "knows", "w": 1, "v": 3}
    graph.remove_edge("n", "m")
    assert memory.store.links == {}


def test_an_edge_whose_oldest_relation_goes_moves_to_where_the_next_one_belongs(memory):
    graph = memory.graph
    graph.add_edge("n", "a", relation="old")
    graph.add_edge("n", "b")
    graph.add_edge("n", "a", relation="new")
    graph.add_edge("n", "c")
    assert list(graph.successors("n")) == ["a", "b", "c"]
    memory.store.remove(("default", "n", "a", "old"))
    assert list(memory.current().successors("n")) == ["b", "a", "c"]
    assert graph["n"]["a"] == {"relation": "new"}
    assert picture(graph) == picture(FakeMemory(memory.store).current())


def test_edges_as_they_are_read_can_be_written(memory):
    graph = memory.graph
    graph.add_edge("n", "m", relations={"knows": {"w": 1}, "likes": {"w": 2}})
    graph.add_edge("m", "n", relation="near", d=[0.5])
    other = FakeMemory()
    other.graph.update(graph.copy())
    assert picture(other.graph) == picture(graph)


# --- catching up ----------------------------------------------------------------------------------------


def test_what_others_wrote_is_there_when_it_matters(memory):
    mine, other = memory.graph, FakeMemory(memory.store)
    fill(other)
    assert list(mine) == []
    mine.remove_node("r1")  # known to it only after catching up
    assert memory.calls == [("erase", ["r1"], [])]
    other.graph.add_node("late")
    mine.clear()
    assert other.current().number_of_nodes() == 0
    assert other.store.nodes == {}


def test_a_graph_shows_one_namespace(memory):
    other = FakeMemory(memory.store, namespace="other")
    other.graph.add_edge("p1", "x", relation="theirs")
    fill(memory)
    memory.graph.add_edge("p1", "r1", relation="second")
    other.graph.add_node("p1", text="theirs")
    other.graph.add_edge("p1", "r1", relation="responded_with")
    memory.current()
    other.graph.remove_edge("p1", "r1")
    other.graph.remove_nodes_from(["x", "r1"])
    assert memory.current().nodes["p1"]["text"] == "Hello"
    assert "x" not in memory.graph
    assert list(memory.graph.edges) == [("p1", "r1"), ("p1", "s1"), ("r1", "a1")]
    assert list(memory.graph["p1"]["r1"]["relations"]) == ["responded_with", "second"]
    memory.graph.clear()
    assert nodes_of(other.current()) == {"p1": {"type": "node", "text": "theirs"}}


def test_after_a_reset_the_graph_is_rebuilt_in_place(memory):
    graph = fill(memory)
    before, views = picture(graph), (graph.nodes, graph.edges, graph.adj, graph.pred)
    other = FakeMemory(memory.store)
    other.graph.remove_node("s1")
    other.graph.add_edge("a1", "p1")
    memory.store.oldest = len(memory.store.log)  # the log is cut: only a reset helps
    memory.store.everything, everything = (lambda: 1 / 0), memory.store.everything
    with pytest.raises(ZeroDivisionError):
        memory.current()
    assert picture(graph) == before
    memory.store.everything = everything
    assert picture(memory.current()) == picture(other.graph)
    assert [len(view) for view in views] == [3, 3, 3, 3]


@pytest.mark.parametrize("names_replaced", [True, False])
def test_a_node_forgotten_and_written_anew_is_a_new_one(base, names_replaced):
    memory = FakeMemory(FakeStore(names_replaced=names_replaced))
    graph = fill(memory)
    memory.store.remove(("default", "p1"))
    memory.store.put_node(("default", "p1"), {})
    memory.store.put_link(("default", "a1", "p1", "next"), {})
    memory.current()
    assert list(nodes_of(graph).items())[-1] == ("p1", {"type": "node"})
    assert edges_of(graph) == {("r1", "a1"): RELATED, ("a1", "p1"): {"relation": "next"}}


def test_attribute_dicts_stay_true(memory):
    graph = fill(memory)
    node, edge = graph.nodes["p1"], graph["p1"]["s1"]
    other = FakeMemory(memory.store)
    other.graph.add_node("p1", text="Goodbye", mood="calm")
    other.graph.add_edge("p1", "s1", w=2)
    memory.current()
    assert node == {"type": "prompt", "text": "Goodbye", "tags": ["x"], "mood": "calm"}
    assert edge == {"relation": "related_to", "w": 2}
    memory.store.nodes["default", "p1"] = Node("p1", "prompt", row=memory.store.nodes["default", "p1"].row)
    memory.store.log.append((("default", "p1"), False))
    memory.current()
    assert node == {"type": "prompt"}
    assert node is graph.nodes["p1"]


def test_an_edge_without_its_ends_is_not_shown(memory):
    fill(memory)
    fresh = FakeMemory(memory.store)
    del memory.store.nodes["default", "r1"]  # a store hides expired nodes before it sweeps their edges
    assert list(fresh.current().edges) == [("p1", "s1")]


# --- read-only attributes -------------------------------------------------------------------------------


def set_in_place(d):
    d |= {"x": 1}


@pytest.mark.parametrize(
    "act",
    [
        lambda d: d.__setitem__("x", 1),
        lambda d: d.__delitem__("type"),
        lambda d: d.pop("type", None),
        lambda d: d.popitem(),
        lambda d: d.setdefault("x", 1),
        lambda d: d.update(x=1),
        lambda d: d.clear(),
        set_in_place,
    ],
)
def test_attributes_refuse_changes_and_name_what_makes_them(memory, act):
    graph = fill(memory)
    before = picture(graph)
    with pytest.raises(ReadOnly, match=r"memory\.update\('p1', "):
        act(graph.nodes["p1"])
    for edge in (graph.edges["p1", "r1"], graph["p1"]["r1"], graph.pred["r1"]["p1"]):
        with pytest.raises(ReadOnly, match=r"memory\.link\('p1', 'r1', 'responded_with', "):
            act(edge)
    with pytest.raises(ReadOnly, match=r"memory\.update\("):
        act(graph.graph)
    assert picture(graph) == before
    assert memory.calls == []


@pytest.mark.parametrize(
    "make",
    [dict, copy.copy, copy.deepcopy, lambda d: d.copy(), lambda d: d | {}, lambda d: {} | d, lambda d: {**d}]
    + [lambda d, p=p: pickle.loads(pickle.dumps(d, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)],
)
def test_copies_of_attributes_are_plain_dicts(memory, make):
    graph = fill(memory)
    for shown in (graph.nodes["p1"], graph["p1"]["s1"], graph.graph):
        assert isinstance(shown, ReadOnlyDict)
        made = make(shown)
        assert type(made) is dict
        assert made == shown
        made["x"] = 1
        assert "x" not in shown
        assert json.loads(json.dumps(shown)) == shown


def test_a_copied_dict_shares_no_list(memory):
    shown = fill(memory).nodes["p1"]
    shown.copy()["tags"].append("y")
    assert shown["tags"] == ["x"]


# --- derived graphs -------------------------------------------------------------------------------------


@contextmanager
def unchanged(memory):
    """Whatever happens inside must reach neither the memory nor its graph."""
    before, store = picture(memory.graph), (dict(memory.store.nodes), dict(memory.store.links))
    memory.calls.clear()
    yield
    assert memory.calls == []
    assert picture(memory.graph) == before
    assert (memory.store.nodes, memory.store.links) == store


def change_all_of(graph):
    """Change what can be changed in a plain graph."""
    graph.graph["name"] = "mine"
    for _, attributes in list(graph.nodes(data=True)):
        attributes["new"] = 1
        attributes.get("tags", []).append("new")
    for *_, attributes in list(graph.edges(data=True)):
        attributes["new"] = 1
        attributes.clear()
    graph.add_node(5, when={1, 2})
    graph.add_edge("p1", 5)
    graph.add_edges_from([("r1", 6)])
    graph.remove_node("r1")
    graph.remove_edge("p1", 5)
    graph.update(edges=[(7, 8)], nodes=[9])
    assert set(graph.nodes) == {"p1", "a1", "s1", 5, 6, 7, 8, 9}
    graph.clear()
    assert len(graph) == 0


def edges_keyword(nx):
    return "edges" if tuple(map(int, nx.__version__.split(".")[:2])) >= (3, 4) else "link"


def node_link_data(nx, graph):
    return nx.node_link_data(graph, **{edges_keyword(nx): "edges"})


def node_link_graph(nx, data):
    return nx.node_link_graph(data, **{edges_keyword(nx): "edges"})


EVERYWHERE = {
    "copy": lambda g: g.copy(),
    "reverse": lambda g: g.reverse(),
    "subgraph().copy": lambda g: g.subgraph(list(g)).copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda g: pickle.loads(pickle.dumps(g)),
    "constructor": lambda g: type(g)(g),
}
WITH_NETWORKX = {
    "DiGraph(G)": lambda nx, g: nx.DiGraph(g),
    "to_directed": lambda nx, g: g.to_directed(),
    "to_undirected": lambda nx, g: g.to_undirected(),
    "edge_subgraph().copy": lambda nx, g: g.edge_subgraph(g.edges).copy(),
    "copy of a view": lambda nx, g: g.copy(as_view=True).copy(),
    "copy of a reversed view": lambda nx, g: g.reverse(copy=False).copy(),
    "pickled view": lambda nx, g: pickle.loads(pickle.dumps(g.copy(as_view=True))).copy(),
    "relabel_nodes": lambda nx, g: nx.relabel_nodes(g, {}),
    "compose": lambda nx, g: nx.compose(g, g),
    "union": lambda nx, g: nx.union(g, nx.DiGraph()),
    "create_empty_copy": lambda nx, g: nx.create_empty_copy(g),
    "transitive_closure": lambda nx, g: nx.transitive_closure(g),
    "contracted_nodes": lambda nx, g: nx.contracted_nodes(g, "p1", "p1"),
    "node_link": lambda nx, g: node_link_graph(nx, json.loads(json.dumps(node_link_data(nx, g)))),
    "dict_of_dicts": lambda nx, g: nx.from_dict_of_dicts(copy.deepcopy(nx.to_dict_of_dicts(g)), type(g)),
}


@pytest.mark.parametrize("how", EVERYWHERE)
def test_derived_graphs_are_plain_and_never_write(memory, how):
    live = fill(memory)
    with unchanged(memory):
        derived = EVERYWHERE[how](live)
        assert not isinstance(derived, LiveGraph)
        assert nodes_of(derived) == nodes_of(live)
        assert type(derived.nodes["p1"]) is dict
        expected = edges_of(live.copy().reverse() if how == "reverse" else live)
        assert edges_of(derived) == expected
        if how not in ("copy.copy", "constructor"):  # those two share lists, as they do in networkx
            change_all_of(derived)


@pytest.mark.parametrize("how", WITH_NETWORKX)
def test_graphs_that_networkx_derives_are_plain_and_never_write(nx, how):
    memory = FakeMemory()
    live = fill(memory)
    with unchanged(memory):
        derived = WITH_NETWORKX[how](nx, live)
        assert not isinstance(derived, LiveGraph)
        assert set(derived) == set(live)
        for attributes in derived.nodes.values():
            attributes.pop("tags", None)  # networkx shares the values of attributes here and there
        change_all_of(derived)


def test_the_class_without_a_memory_makes_plain_graphs(memory):
    live = fill(memory)
    with unchanged(memory):
        plain = type(live)(name="other")
        assert type(plain) is type(live).__mro__[2]
        plain.add_edge(1, 2)
        assert plain.graph == {"name": "other"}


def test_views_show_the_memory_as_it_is_now_and_refuse_changes(nx):
    memory = FakeMemory()
    live = fill(memory)
    part = live.subgraph(["p1", "r1", "a1"])
    turned, looked = live.reverse(copy=False), live.copy(as_view=True)
    restricted, undirected = nx.restricted_view(live, ["s1"], []), live.to_undirected(as_view=True)
    live.add_edge("p1", "a1", relation="then")
    live.remove_edge("p1", "r1")
    memory.store.oldest = len(memory.store.log) + 1
    FakeMemory(memory.store).graph.add_node("p1", text="Goodbye")
    memory.current()
    assert list(part.edges(data="relation")) == [("p1", "a1", "then"), ("r1", "a1", "related_to")]
    assert list(restricted.edges) == [("p1", "a1"), ("r1", "a1")]
    assert set(turned.edges) == {("s1", "p1"), ("a1", "p1"), ("a1", "r1")}
    assert looked.nodes["p1"]["text"] == "Goodbye"
    assert undirected.has_edge("a1", "p1")
    memory.calls.clear()
    for view in (part, turned, looked, restricted, undirected):
        with pytest.raises(nx.NetworkXError, match="Frozen"):
            view.add_node("x")
        with pytest.raises(ReadOnly):
            view.nodes["p1"]["x"] = 1
    assert memory.calls == []


def test_freezing_stops_changes_from_here_but_not_from_elsewhere(nx):
    memory = FakeMemory()
    live = nx.freeze(fill(memory))
    for act in (
        lambda: live.add_node("x"),
        lambda: live.update(nodes=["x"]),
        lambda: live.update(edges=[("x", "y")]),
        lambda: live.add_weighted_edges_from([("x", "y", 1)]),
        live.clear,
    ):
        with pytest.raises(nx.NetworkXError, match="Frozen"):
            act()
    assert memory.calls == []
    FakeMemory(memory.store).graph.add_node("x")
    assert "x" in memory.current()


def test_networkx_works_on_it(nx):
    live = fill(FakeMemory())
    plain = nx.DiGraph()
    plain.add_nodes_from(["p1", "r1", "a1", "s1"])
    plain.add_edges_from([("p1", "r1"), ("r1", "a1"), ("p1", "s1")])
    assert isinstance(live, nx.DiGraph)
    assert str(live) == "LiveGraph with 4 nodes and 3 edges"
    assert nx.shortest_path(live, "p1", "a1") == ["p1", "r1", "a1"]
    assert nx.descendants(live, "p1") == {"r1", "a1", "s1"}
    assert list(nx.weakly_connected_components(live)) == [set(live)]
    assert list(nx.topological_sort(live)) == list(nx.topological_sort(plain))
    assert nx.degree_centrality(live) == nx.degree_centrality(plain)
    assert nx.is_isomorphic(live, plain)
    data = json.loads(json.dumps(node_link_data(nx, live)))
    assert {"id": "p1", "type": "prompt", "text": "Hello", "tags": ["x"]} in data["nodes"]
    assert {"source": "p1", "target": "s1", "relation": "related_to", "w": [1]} in data["edges"]
    assert nx.to_dict_of_dicts(live)["r1"] == {"a1": {"relation": "related_to"}}


def test_networkx_cannot_change_attributes_behind_the_memory(nx):
    memory = FakeMemory()
    live = fill(memory)
    with unchanged(memory):
        for act in (
            lambda: nx.set_node_attributes(live, 1, "seen"),
            lambda: nx.set_node_attributes(live, {"p1": {"seen": 1}}),
            lambda: nx.set_edge_attributes(live, {("p1", "r1"): {"seen": 1}}),
            lambda: setattr(live, "name", "mine"),
        ):
            with pytest.raises(ReadOnly):
                act()


def test_what_networkx_cached_is_dropped_when_the_memory_changes(nx):
    memory = FakeMemory()
    live = fill(memory)
    live.__networkx_cache__["backends"] = "a conversion of the graph"
    FakeMemory(memory.store).graph.add_node("x")
    memory.current()
    assert live.__networkx_cache__ == {}


# --- any order of anything ------------------------------------------------------------------------------

names = st.sampled_from("abcd")
relations = st.sampled_from(["related_to", "x", "y"])
attrs = st.dictionaries(st.sampled_from(["text", "w", "v"]), st.sampled_from(["1", "2"]), max_size=2)
nodes = st.lists(st.tuples(names, attrs), max_size=3)
links = st.lists(st.tuples(names, names, relations, attrs), max_size=3)
steps = st.one_of(
    st.tuples(st.just("write"), nodes, links),
    st.tuples(st.just("link"), names, names, relations, attrs),
    st.tuples(st.just("unlink"), names, names, relations),  # by the memory: a graph removes whole edges
    st.tuples(st.just("remove_nodes_from"), st.lists(names, max_size=2)),
    st.tuples(st.just("remove_edges_from"), st.lists(st.tuples(names, names), max_size=3)),
    st.tuples(st.just("clear_edges")),
    st.tuples(st.just("cut")),
)


class Model:
    """The same in two dicts, whose order is the order in which things were first written."""

    def __init__(self):
        self.nodes = {}
        self.links = {}

    def write(self, nodes, links):
        for node, attributes in nodes:
            self.nodes.setdefault(node, {"type": "node"}).update(attributes)
        for source, target, relation, data in links:
            self.nodes.setdefault(source, {"type": "node"})
            self.nodes.setdefault(target, {"type": "node"})
            self.links.setdefault((source, target, relation), {}).update(data)

    def link(self, *link):
        self.write([], [link])

    def unlink(self, *link):
        self.links.pop(link, None)

    def remove_nodes_from(self, ids):
        self.nodes = {node: data for node, data in self.nodes.items() if node not in ids}
        self.links = {link: data for link, data in self.links.items() if not {*link[:2]} & {*ids}}

    def remove_edges_from(self, pairs):
        self.links = {link: data for link, data in self.links.items() if link[:2] not in pairs}

    def clear_edges(self):
        self.links = {}

    def cut(self):
        pass  # the store forgets its history, and nothing else

    def picture(self):
        succ = {node: {} for node in self.nodes}
        pred = {node: {} for node in self.nodes}
        for (source, target, relation), data in self.links.items():
            succ[source].setdefault(target, {})[relation] = data
            pred[target][source] = None
        edges = []
        for source, targets in succ.items():
            for target, found in targets.items():
                oldest = next(iter(found))
                several = {"relations": found} if len(found) > 1 else {}
                edges.append(((source, target), {"relation": oldest, **found[oldest], **several}))
        return list(self.nodes.items()), edges, [(node, list(sources)) for node, sources in pred.items()]


@pytest.mark.parametrize("base", ["networkx", "own"])
@settings(max_examples=60, deadline=None)
@given(
    taken=st.lists(st.tuples(st.integers(0, 1), st.booleans(), steps), max_size=15),
    names_replaced=st.booleans(),
)
def test_two_graphs_of_one_memory_follow_whatever_happens(base, taken, names_replaced):
    with pytest.MonkeyPatch.context() as patch:
        choose(base, patch)
        store, model = FakeStore(names_replaced=names_replaced), Model()
        memories = [FakeMemory(store), FakeMemory(store)]
        stranger = FakeMemory(store, namespace="other")
        stranger.graph.add_edge("a", "b", relation="theirs")
        for who, read, (name, *args) in taken:
            graph = memories[who].graph
            getattr(model, name)(*args)
            match name:
                case "write":
                    edges = [(u, v, {"relation": relation, **data}) for u, v, relation, data in args[1]]
                    graph.update(nodes=args[0], edges=edges)
                case "link":
                    graph.add_edge(*args[:2], relation=args[2], **args[3])
                case "unlink":
                    store.remove(("default", *args))
                case "cut":
                    store.oldest = len(store.log)
                case _:
                    getattr(graph, name)(*args)
            if name not in ("unlink", "cut"):
                assert picture(graph) == model.picture()  # at once, without reading memory.graph again
            if read:
                assert picture(memories[1 - who].current()) == model.picture()
        for memory in memories:
            assert picture(memory.current()) == model.picture()
        assert list(stranger.current().edges(data=True)) == [("a", "b", {"relation": "theirs"})]


def test_the_public_names_are_there():
    assert all(hasattr(live_graph_module, name) for name in live_graph_module.__all__)
