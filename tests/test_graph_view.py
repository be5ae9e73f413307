"""The graph of a memory that is large: made when it is asked for, said what it costs, and nobody waits for it."""

from __future__ import annotations

import logging

import pytest
from outside import open_memory

from raeburnmemory import graph_view
from raeburnmemory.nodes import Changes


@pytest.fixture(params=["g.json", "g.db"])
def memory(request, tmp_path):
    with open_memory(tmp_path / request.param) as memory:
        memory.add_many(
            [
                ({"id": f"p{n}", "text": f"thing {n}"}, {"id": f"r{n}", "text": f"answer {n}"}, "a", "s")
                for n in range(40)
            ]
        )
        yield memory


def shown(graph):
    nodes = {n: dict(graph.nodes[n]) for n in graph.nodes}
    return nodes, {(u, v): dict(graph.edges[u, v]) for u, v in graph.edges}


def ordered(graph):
    return list(graph.nodes), {n: list(graph.successors(n)) for n in graph.nodes}


def test_a_small_graph_is_made_without_a_word(memory, caplog):
    caplog.set_level(logging.INFO, "raeburnmemory")
    assert len(memory.graph) == 82
    assert not caplog.records


def test_what_a_large_graph_costs_is_said_each_time_it_is_made(memory, caplog, monkeypatch):
    monkeypatch.setattr(graph_view, "_LARGE", 82 + 120)
    assert len(memory.graph) == 82
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    said = record.getMessage()
    assert repr(memory.db_path) in said
    assert "82 nodes and 120 links, about 1 s and 1 MB" in said
    memory.add_interaction("one more")
    assert len(memory.graph) == 83
    assert len(caplog.records) == 1, "what was added is taken in, and nothing is made anew"
    assert len(memory.to_networkx()) == 83
    assert len(caplog.records) == 2


def test_nothing_is_made_before_it_is_asked_for(memory, monkeypatch):
    monkeypatch.setattr(memory._store, "all_links", None)
    memory.neighbours("p1"), memory.links("p1"), memory.thread("s"), memory.why("r1"), memory.trace("r1")
    memory.history("p1"), memory.visualise_prompt_chain("p1"), memory.stats(), len(memory), memory.recall("thing 3")
    with pytest.raises(TypeError):
        memory.graph  # noqa: B018
    monkeypatch.undo()
    assert len(memory.graph) == 82


def meddle(memory, path):
    """Do everything that can be done to a graph, as another process would."""
    with open_memory(path) as other:
        other.add_interaction({"id": "new", "text": "new"}, {"id": "r3", "text": "another answer"}, "b", "s")
        other.update("p5", text="changed")
        other.forget(["p7", "r8"])
        other.add_interaction({"id": "p7", "text": "back again"}, None, None, "s")
        other.link("p7", "p1", "links_to")
        other.link("p1", "r1", "also", why="so")
        other.unlink("p2", "s")


@pytest.mark.parametrize("at", ["nodes", "all_links"])
@pytest.mark.parametrize("remembered", [True, False])
def test_others_write_while_it_is_made_and_all_of_it_is_there(memory, monkeypatch, at, remembered):
    """Where what they did is not remembered, it is read again at one moment."""
    store, real, changes, calls = memory._store, getattr(memory._store, at), memory._store.changes, []

    def interrupted(*args):
        for number, item in enumerate(real(*args)):
            if number == 20 and not calls:
                calls.append(at)
                meddle(memory, memory.db_path)
            yield item

    def forgetful(since):
        return changes(since) if remembered else Changes(store.version(), reset=True)

    monkeypatch.setattr(store, at, interrupted)
    monkeypatch.setattr(store, "changes", forgetful)
    graph = memory.graph
    assert calls == [at]
    monkeypatch.undo()
    assert shown(graph) == shown(memory.to_networkx())
    assert ordered(graph) == ordered(memory.to_networkx())
    memory.add_interaction({"id": "last", "text": "last"}, None, None, "s")
    assert shown(memory.graph) == shown(memory.to_networkx())
