"""What an operation on a few nodes costs does not depend on how many others there are: counted, not timed."""

from __future__ import annotations

import sys

import pytest
from outside import STORE_FILES, fake

from raeburnmemory import MemoryGraph
from raeburnmemory.nodes import Change

FEW, MANY = 100, 1100  # messages there are already
STEPS = 10  # instructions of SQLite between two calls of the counter


def asked(memory):
    memory.add_message("unheard of", "user", "s1")
    assert memory.similar("unheard of", 1).texts == ["unheard of"]


def asked_after_something_went(memory):
    memory.forget(["m18", "m19"])
    assert memory.matching("answered").texts == ["answered"]


def asked_after_a_vector_went(memory):
    memory.forget("m30")
    assert "m30" not in memory.similar("words 30", 5).ids


def asked_after_another_text(memory):
    memory.update("m32", text="another text")
    assert memory.similar("another text", 1).texts == ["another text"]


def asked_after_another_name(memory):
    memory.update("bot", metadata={"name": "Robot"})
    assert memory.matching("answered", speaker="robot").texts


def asked_after_another_session(memory):
    (link,) = memory.links("m60", "belongs_to")
    memory.unlink("m60", link.target)
    memory.link("m60", "apart", "belongs_to")
    assert memory.matching("words", session="apart").ids == ["m60"]


def asked_after_another_agent(memory):
    memory.unlink("r1", "bot")
    memory.forget("helper")
    assert memory.matching("answered").texts


OPERATIONS = {
    "a message": lambda memory: memory.add_message("new words", "user", "s1"),
    "an answer": lambda memory: memory.add_message("new words", "assistant", "s1"),
    "an interaction": lambda memory: memory.add_interaction("new words", "other words", agent="bot", session_id="s1"),
    "other attributes": lambda memory: memory.update("m7", metadata={"n": 1}),
    "another text": lambda memory: memory.update("m8", text="changed words"),
    "put": lambda memory: memory.put([{"id": "e1", "type": "entity", "name": "Ana"}], [("e1", "m9", "mentions")]),
    "a link": lambda memory: memory.link("m10", "m11", "next"),
    "a link less": lambda memory: memory.unlink("m10", "m11"),
    "forget": lambda memory: memory.forget("m13"),
    "forget one from before": lambda memory: memory.forget("p1"),
    "get": lambda memory: memory.get("m14"),
    "vectors": lambda memory: memory.vectors(["m14"]),
    "links": lambda memory: memory.links("m14"),
    "history": lambda memory: memory.history("m14"),
    "why": lambda memory: memory.why("m14"),
    "trace": lambda memory: memory.trace("m14"),
    "a fact": lambda memory: memory.fact("Ana", "lives in", "Oslo"),
    "facts": lambda memory: memory.facts("Ana"),
    "another fact": lambda memory: memory.fact("Ana", "lives in", "Bergen", id="b"),
    "retract": lambda memory: memory.retract("b"),
    "undo": lambda memory: memory.undo("b"),
    "change": lambda memory: memory.change(lambda: Change(removed_nodes=["m15"])),
    "many": lambda memory: memory.add_messages([{"text": f"new {n}", "session_id": "s1"} for n in range(9)]),
    "get many": lambda memory: memory.get_many(["m16", "m17", "nobody"]),
    "chain": lambda memory: memory.visualise_prompt_chain("m14"),
    "neighbours": lambda memory: memory.neighbours("m14"),
    "ask after something went": asked_after_something_went,
    "ask after a vector went": asked_after_a_vector_went,
    "ask after another text": asked_after_another_text,
    "ask after another name": asked_after_another_name,
    "ask after another session": asked_after_another_session,
    "ask after another agent": asked_after_another_agent,
    "a node of the graph": lambda memory: memory.graph.nodes["m16"],
    "a change of the graph": lambda memory: memory.graph.add_edge("m16", "m17", relation="next"),
    "ask": asked,
    "ask in words": lambda memory: memory.matching("unheard"),
}


def filled(path, size, sessions):
    with MemoryGraph(path, fake) as memory:
        memory.add_interaction({"id": "p1", "text": "asked"}, "answered", agent="bot", session_id="s1")
        memory.add_interaction("asked", "told", agent="helper", session_id="apart")
        memory.add_many(
            {"prompt": "asked", "response": {"id": f"r{n}", "text": "told"}, "agent": "bot", "session_id": f"s{n}"}
            for n in range(size // 10)
        )
        memory.add_messages(
            {"id": f"m{n}", "text": f"words {n}", "session_id": "s1" if n < 20 or not sessions else f"s{n // 20}"}
            for n in range(size)
        )
        memory.within("other").add_interaction("said elsewhere", "answered elsewhere", agent="bot")


def counted(memory, operation):
    """Return how many lines of ours, each turn of a loop in one counted, and instructions of SQLite *operation* takes."""
    found = {"python": 0, "sqlite": 0}

    def trace(frame, event, _argument):
        found["python"] += event == "line"
        return trace if "raeburnmemory" in frame.f_code.co_filename else None

    def progress():
        found["sqlite"] += STEPS

    connection = getattr(memory._store, "_db", None)
    if connection is not None:
        connection.set_progress_handler(progress, STEPS)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        operation(memory)
    finally:
        sys.settrace(before)
        if connection is not None:
            connection.set_progress_handler(None, 0)
    return found


@pytest.fixture(scope="module", params=["json", "sqlite"])
def folders(request, tmp_path_factory):
    """Give the paths of a memory of few messages and of two of many, in sessions of twenty and in a single one."""
    folder = tmp_path_factory.mktemp("costs")
    made = {"few": (FEW, True), "many": (MANY, True), "one session": (MANY, False)}
    for name, (size, sessions) in made.items():
        (folder / name).mkdir()
        filled(folder / name / STORE_FILES[request.param], size, sessions)
    return {name: folder / name / STORE_FILES[request.param] for name in made}


@pytest.fixture(scope="module")
def opened(folders):
    memories = {name: MemoryGraph(path, fake) for name, path in folders.items()}
    for memory in memories.values():  # what the first write and the first question set up is not counted
        memory.add_message("warm up", "user", "s1", id="w1")
        memory.fact("Bo", "lives in", "Rome")
        memory.facts("Bo")
        memory.similar("warm up")
        memory.matching("warm up")
        memory.forget("w1")
        memory.link("m1", "m2", "next")
        memory.graph.number_of_nodes()
        memory.vectors(["m1"])
        memory.matching("warm up")
    yield memories
    for memory in memories.values():
        memory.close()


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_cost_of_an_operation_does_not_grow_with_the_memory(opened, name):
    found = {shape: counted(memory, OPERATIONS[name]) for shape, memory in opened.items()}
    few = found.pop("few")
    assert few["python"] > 10
    for shape, many in found.items():
        for what in few:
            assert many[what] <= 1.2 * few[what] + 60, (shape, what, few, many)


def test_counting_goes_through_the_links_once_however_many_relations_there_are(tmp_path):
    found = []
    for relations in (3, 300):
        with MemoryGraph(tmp_path / f"{relations}.db", fake) as memory:
            links = [("e", f"e{n}", f"relation {n % relations}") for n in range(3000)]
            memory.put(
                [{"id": "e", "type": "entity"}, *({"id": f"e{n}", "type": "entity"} for n in range(3000))], links
            )
            found.append(counted(memory, lambda memory: memory.stats())["sqlite"])
            assert memory.stats().relations == {f"relation {n}": 3000 // relations for n in range(relations)}
    assert found[1] <= 2 * found[0]
