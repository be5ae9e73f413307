"""Reading from a large store: what is asked for is read, and not much more."""

from __future__ import annotations

import gc
import sqlite3
import sys

import pytest
from outside import open_memory

import raeburnmemory.store.sqlite_reading
from raeburnmemory.errors import StoreCorrupt

FEW, MANY = 150, 3000  # interactions, of one agent, ten to a session


@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_a_memory_stays_open_while_its_nodes_are_read(tmp_path, name):
    with open_memory(tmp_path / name) as memory:
        memory.add_many([({"id": f"p{n}", "text": f"thing {n}"},) for n in range(2500)])
    found = []
    for node in open_memory(tmp_path / name).nodes():
        gc.collect() if len(found) % 1000 == 0 else None
        found.append(node.id)
    assert found == [f"p{n}" for n in range(2500)]


@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_as_many_nodes_as_anybody_may_ask_for(tmp_path, name):
    with open_memory(tmp_path / name) as memory:
        memory.add_message("One", id="p")
        for limit in (sys.maxsize, sys.maxsize + 1, 10**30):
            assert [node.id for node in memory.nodes(limit=limit)] == ["p"]
            assert [node.id for node in memory.nodes(where={"n": None}, limit=limit)] == []


def test_attributes_may_be_json_in_anybodys_writing_and_nothing_else(tmp_path):
    """A hit is made of what was read when the search ended, but only when somebody looks at it."""
    path = tmp_path / "g.db"
    with open_memory(path) as memory:
        memory.add_interaction({"id": "p", "text": "hello"}, "yes", "agent")
        memory.recall("hello")
        with sqlite3.connect(path) as db:
            for written in ('{"stars":1}', ' {"stars": 1}', '{ "stars" : 1 }\n'):
                db.execute("UPDATE nodes SET attributes = ? WHERE id = 'p'", (written,))
                db.commit()
                assert memory.get("p").attributes == memory.recall("hello")[0].node.attributes == {"stars": 1}
            for damaged in ('{"stars":1}}', '{"stars":1}{"a":1}', '{"stars"}', "{", ""):
                db.execute("UPDATE nodes SET attributes = ? WHERE id = 'p'", (damaged,))
                db.commit()
                found = memory.recall("hello", 1)
                for looking in (lambda: memory.get("p"), lambda found=found: found[0]):
                    with pytest.raises(StoreCorrupt, match="damaged"):
                        looking()
        db.close()


def fill(memory, count):
    memory.add_many(
        [
            {
                "prompt": {"id": f"p{n}", "text": f"thing {n}"},
                "response": {"id": f"r{n}", "text": f"answer {n}"},
                "agent": "only",
                "session_id": f"s{n // 10}",
                "timestamp": 1_800_000_000 + n,
            }
            for n in range(count)
        ]
    )
    memory.link("p5", "p9", "links_to")
    memory.link("only", "s3", "opened")
    memory.update("p7", text="another thing")
    memory.fact("Ana", "lives_in", "Vienna", source="r5", id="f", timestamp=1_800_000_000)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A small and a large memory in which the same nodes have the same around them."""
    folder = tmp_path_factory.mktemp("two")
    with open_memory(folder / "few.db") as few, open_memory(folder / "many.db") as many:
        fill(few, FEW)
        fill(many, MANY)
        yield few, many


class Read:
    """Counts what SQLite does for a call, and what is made of it in Python."""

    def __init__(self, monkeypatch):
        self.steps = self.decoded = 0
        for name in ("_node", "_link"):
            real = getattr(raeburnmemory.store.sqlite_reading, name)
            monkeypatch.setattr(raeburnmemory.store.sqlite_reading, name, self._counting(real))

    def _counting(self, real):
        def decode(row):
            self.decoded += 1
            return real(row)

        return decode

    def _step(self):
        self.steps += 1
        return 0

    def during(self, memory, call):
        """Return the steps of SQLite's machine, and the nodes and links decoded; the answer, too."""
        call(memory)  # statements are prepared, and the embedder is there
        self.steps = self.decoded = 0
        with memory._store._reading() as db:
            db.set_progress_handler(self._step, 1)
        answer = call(memory)
        with memory._store._reading() as db:
            db.set_progress_handler(None, 0)
        return self.steps, self.decoded, answer


def first(found, count):
    return [node.id for node, _ in zip(found, range(count), strict=False)]


FLAT = {
    "get": lambda m: m.get("p5").id,
    "in": lambda m: ("p5" in m, "nobody" in m),
    "neighbours": lambda m: [n.id for n in m.neighbours("p5")],
    "neighbours on both sides": lambda m: [n.id for n in m.neighbours("p5", direction="both")],
    "neighbours after a hub": lambda m: [n.id for n in m.neighbours("only")],
    "links": lambda m: [(e.source, e.target, e.relation) for e in m.links("r5")],
    "thread": lambda m: [n.id for n in m.thread("s1")],
    "why": lambda m: str(m.why("r5")),
    "why of a fact": lambda m: str(m.why("f")),
    "why of a hub": lambda m: str(m.why("only")),
    "trace": lambda m: str(m.trace("f")),
    "history": lambda m: [n.text for n in m.history("p7")],
    "visualise_prompt_chain": lambda m: m.visualise_prompt_chain("p5", depth=5),
    "nodes, some": lambda m: first(m.nodes(limit=10), 10),
    "nodes, the next": lambda m: first(m.nodes(limit=10, after="p20"), 10),
    "nodes of a session": lambda m: first(m.nodes(session="s2"), 100),
    "nodes of a kind with few": lambda m: first(m.nodes(["agent", "fact"]), 100),
    "nodes of a kind with none": lambda m: [*first(m.nodes("tool"), 100), "none"],
    "nodes of a kind, some": lambda m: first(m.nodes(["session", "agent"], limit=7), 100),
    "the beginning of all": lambda m: first(m, 5),
}


@pytest.mark.parametrize("name", FLAT)
def test_what_it_costs_does_not_depend_on_what_else_there_is(two, name, monkeypatch):
    read = Read(monkeypatch)
    small, large = (read.during(memory, FLAT[name]) for memory in two)
    assert small[2] == large[2]
    assert small[2]
    assert large[0] <= small[0] * 1.1 + 30, "steps"
    assert large[1] == small[1], "nodes and links decoded"


WHOLE = {"len": (len, 5), "stats": (lambda m: m.stats().nodes, 50)}  # steps for each node


@pytest.mark.parametrize("name", WHOLE)
def test_counting_reads_no_node_and_sorts_nothing(two, name, monkeypatch):
    """One pass over what is counted, so that it grows with the memory and no faster."""
    read = Read(monkeypatch)
    call, limit = WHOLE[name]
    small, large = (read.during(memory, call) for memory in two)
    more = large[2] - small[2]
    assert more == 2 * (MANY - FEW) + (MANY - FEW) // 10
    assert large[0] - small[0] < limit * more
    assert (small[1], large[1]) == (0, 0)
