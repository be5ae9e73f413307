"""Reading and changing in one transaction."""

from __future__ import annotations

import threading

import pytest
from outside import fake, finish, start

from raeburnmemory import MemoryGraph
from raeburnmemory.errors import InvalidInput, KindConflict, NodeNotFound
from raeburnmemory.nodes import Change


@pytest.fixture(params=["g.json", "g.db", ":memory:"])
def memory(request, tmp_path):
    name = request.param
    with MemoryGraph(name if name == ":memory:" else tmp_path / name, fake) as memory:
        memory.put(
            [{"id": node_id, "type": "fragment", "text": f"text of {node_id}"} for node_id in "abc"],
            [("a", "b", "knows"), ("a", "b", "likes"), ("b", "c", "knows"), ("c", "a", "knows")],
        )
        yield memory


def links(memory):
    return {(e.source, e.target, e.relation) for e in memory.links(["a", "b", "c", "d"])}


def test_nodes_and_links_come_and_go_in_one_transaction(memory):
    version, asked = memory.stats().version, []

    def plan():
        asked.append(memory.get("a").text)
        return Change(
            nodes=[{"id": "d", "type": "fragment", "text": "new words"}],
            links=[("d", "a", "knows")],
            removed_nodes=["c", "nobody"],
            removed_links=[("a", "b", "likes"), ("a", "b", "hates"), ("b", "c", "knows")],
        )

    made = memory.change(plan)
    assert set(asked) == {"text of a"}
    assert made.removed_nodes == ["c", "nobody"]
    assert memory.stats().version == version + 1
    assert [node.id for node in memory.nodes()] == ["a", "b", "d"]
    assert links(memory) == {("a", "b", "knows"), ("d", "a", "knows")}
    assert memory.similar("new words", 1, kinds="fragment").ids == ["d"]
    assert set(memory.vectors(list("abcd"))) == {"a", "b", "d"}
    memory.change(Change)
    assert memory.stats().version == version + 1, "nothing to change is no change"


@pytest.mark.parametrize(
    ("wanted", "error", "complaint"),
    [
        (Change([{"id": "a", "type": "fragment"}], removed_nodes=["a"]), InvalidInput, "'a' is to be written and to"),
        (Change(links=[("a", "b", "x")], removed_nodes=["b"]), NodeNotFound, "'b', which is to be removed"),
        (Change(links=[("a", "b", "knows")], removed_links=[("a", "b", "knows")]), InvalidInput, "The link"),
        (Change(links=[("a", "nobody", "x")]), NodeNotFound, "'nobody'"),
        (Change([{"id": "a", "type": "other"}], removed_nodes=["b"]), KindConflict, "'a' is the id of a fragment"),
        (Change(removed_links=[("a", "b")]), InvalidInput, "A link to remove is a tuple"),
        (Change(removed_nodes=[1]), InvalidInput, "An id must be a string"),
        (Change(links=[("a", "b", "")]), InvalidInput, "A relation must be a string"),
    ],
)
def test_what_is_wrong_changes_nothing(memory, wanted, error, complaint):
    before = memory.export(False)
    with pytest.raises(error, match=complaint):
        memory.change(lambda: wanted)
    assert memory.export(False) == before


def test_a_plan_that_raises_changes_nothing_and_leaves_nobody_waiting(memory):
    before = memory.export(False)
    with pytest.raises(ZeroDivisionError):
        memory.change(lambda: 1 / 0)
    memory.change(lambda: Change(removed_nodes=["a"]))
    assert memory.export(False) != before


COUNT = """
import sys
from outside import fake
from raeburnmemory import MemoryGraph
from raeburnmemory.nodes import Change
with MemoryGraph(sys.argv[1], fake) as memory:
    for _ in range(25):
        memory.change(lambda: Change([{"id": "n", "type": "counter", "count": memory.get("n").attributes["count"] + 1}]))
"""


@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_what_a_plan_read_still_holds_when_it_is_written(tmp_path, name):
    """A process and two threads count in one node: no step is lost."""
    with MemoryGraph(tmp_path / name, fake) as memory:
        memory.put([{"id": "n", "type": "counter", "count": 0}])
        processes = [start(COUNT, tmp_path / name) for _ in range(1)]

        def count():
            for _ in range(25):
                memory.change(
                    lambda: Change([{"id": "n", "type": "counter", "count": memory.get("n").attributes["count"] + 1}])
                )

        threads = [threading.Thread(target=count) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        list(finish(processes))
        assert memory.get("n").attributes["count"] == 75


def test_a_snapshot_is_of_one_moment(tmp_path):
    with MemoryGraph(tmp_path / "g.db", fake) as memory, MemoryGraph(tmp_path / "g.db", fake) as other:
        memory.put([{"id": "a", "type": "thing"}])
        with memory.snapshot():
            assert len(memory) == 1
            other.put([{"id": "b", "type": "thing"}])
            assert len(memory) == 1
        assert len(memory) == 2


def test_namespaces_are_kept_apart(tmp_path):
    with MemoryGraph(tmp_path / "g.db", fake) as one, MemoryGraph(tmp_path / "g.db", fake, namespace="two") as two:
        one.put([{"id": "a", "type": "thing"}, {"id": "b", "type": "thing"}], [("a", "b", "x")])
        two.put([{"id": "a", "type": "thing"}])
        two.change(lambda: Change(removed_nodes=["a", "b"], removed_links=[("a", "b", "x")]))
        assert [node.id for node in one] == ["a", "b"]
        assert len(one.links("a")) == 1
        assert list(two) == []


def test_links_of_several_nodes(memory):
    assert [(e.source, e.target) for e in memory.links(["c", "nobody", "c"], direction="out")] == [("c", "a")]
    assert memory.links([]) == []
    assert len(memory.links(("a", "b"), "knows")) == 3
    with pytest.raises(InvalidInput):
        memory.links([1])
    with pytest.raises(NodeNotFound):
        memory.links("nobody")
