"""What changes and leaves a text as it is leaves its vectors as they are, brought along or made, and asks no model."""

from __future__ import annotations

import numpy as np
import pytest
from outside import STORE_FILES, Fake, fake, unit

from raeburnmemory import Agent, MemoryGraph, Prompt
from raeburnmemory.embed import PROBE
from raeburnmemory.errors import MissingDependency
from raeburnmemory.nodes import Change

GIVEN = np.arange(16, 0, -1)
LONG = " ".join(
    f"In year {n} the harvest of village {n} was good, and the mill turned until winter." for n in range(40)
)


class Counting(Fake):
    """Notes what it embeds, and does nothing once it is `gone`."""

    def __init__(self, name="fake", salt=""):
        super().__init__(name, salt=salt)
        self.asked, self.gone = [], False

    def embed(self, texts):
        if self.gone:
            raise MissingDependency("the model is gone")
        self.asked += [text for text in texts if text != PROBE]
        return super().embed(texts)


@pytest.fixture
def model():
    return Counting()


SHARED = ["json", "sqlite", "postgres"]


@pytest.fixture(params=[*SHARED, "memory"])
def where(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return tmp_path / STORE_FILES[request.param] if request.param in STORE_FILES else ":memory:"


@pytest.fixture
def memory(where, model):
    with MemoryGraph(where, model) as memory:
        memory.add_message("some words", "user", "monday", id="p", vector=GIVEN)
        yield memory


def again_as_message(memory):
    memory.add_message("some words", "user", "monday", id="p", metadata={"n": 1})


def again_as_interaction(memory):
    memory.add_interaction(Prompt("p", "some words", topic="one"), agent=Agent("a", "Clerk"), session_id="monday")


def put(memory):
    memory.put([{"id": "p", "type": "prompt", "text": "some words", "n": 1, "timestamp": "2024-01-01T00:00:00Z"}])


def through_the_graph(memory):
    memory.graph.add_node("p", n=1)


CHANGES = {
    "update": lambda memory: memory.update("p", metadata={"n": 1}),
    "the same text": lambda memory: memory.update("p", text="some words", metadata={"n": 1}),
    "a message": again_as_message,
    "an interaction": again_as_interaction,
    "put": put,
    "change": lambda memory: memory.change(
        lambda: Change([{"id": "p", "type": "prompt", "text": "some words", "n": 1}])
    ),
    "the graph": through_the_graph,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_vector_stays_while_its_text_does(memory, model, name):
    asked, before = list(model.asked), memory.get("p")
    model.gone = True
    CHANGES[name](memory)
    after = memory.get("p")
    assert after.attributes != before.attributes
    assert (after.text, after.row) == (before.text, before.row)
    assert model.asked == asked
    assert np.allclose(memory.vectors(["p"])["p"], unit(GIVEN))
    assert memory.stats().vectors["prompt"] == 1
    assert memory.stats().unembedded == 0
    model.gone = False
    assert memory.reindex().embedded == 0
    (hit,) = memory.similar("other", k=1)
    assert (hit.id, hit.score) == ("p", pytest.approx(float(unit(GIVEN) @ unit(fake(["other"])[0])), abs=1e-5))


@pytest.mark.parametrize("where", SHARED, indirect=True)
def test_it_is_there_for_whoever_opens_the_memory_next(where, memory, model):
    memory.update("p", metadata={"n": 1})
    memory.close()
    with MemoryGraph(where, model) as again:
        assert np.allclose(again.vectors(["p"])["p"], unit(GIVEN))


@pytest.mark.parametrize("change", [{"text": "new words"}, {"metadata": {"name": "Ana"}}])
def test_another_text_or_name_is_embedded(memory, model, change):
    model.asked.clear()
    memory.update("p", **change)
    text = "new words" if "text" in change else "Ana: some words"  # a text is found by its speaker, too
    assert model.asked == [text]
    assert np.allclose(memory.vectors(["p"])["p"], unit(fake([text])[0]))


def test_a_vector_that_comes_along_replaces_the_one_there(memory, model):
    model.asked.clear()
    memory.add_message("some words", "user", "monday", id="p", metadata={"n": 1}, vector=GIVEN[::-1])
    assert np.allclose(memory.vectors(["p"])["p"], unit(GIVEN[::-1]))
    assert model.asked == []


def test_another_node_with_the_same_text_is_embedded(memory, model):
    model.asked.clear()
    memory.put(
        [
            {"id": "p", "type": "prompt", "text": "some words", "n": 1},
            {"id": "q", "type": "prompt", "text": "some words"},
        ]
    )
    assert model.asked == ["some words"]
    found = memory.vectors(["p", "q"])
    assert np.allclose(found["p"], unit(GIVEN))
    assert np.allclose(found["q"], unit(fake(["some words"])[0]))


def test_one_that_is_written_twice_ends_as_the_second_one_says(memory, model):
    model.asked.clear()
    one = {"id": "p", "type": "prompt", "text": "some words", "n": 1}
    memory.put([one, {**one, "text": "new words"}])
    assert np.allclose(memory.vectors(["p"])["p"], unit(fake(["new words"])[0]))
    memory.put([{**one, "text": "some words"}, {**one, "text": "new words", "n": 2}])
    assert np.allclose(memory.vectors(["p"])["p"], unit(fake(["new words"])[0]))
    assert memory.get("p").attributes["n"] == 2


def test_passages_stay_as_well(memory, model):
    memory.add_message(LONG, "user", id="long")
    count = memory.stats().vectors["prompt.passages"]
    assert count > 3
    passage = "In year 23 the harvest of village 23 was good"
    before = memory.recall(passage, 1, legs="dense").explain()
    model.asked.clear()
    memory.update("long", metadata={"n": 1})
    assert model.asked == []
    assert memory.stats().vectors["prompt.passages"] == count
    assert memory.recall(passage, 1, legs="dense").explain() == before


def test_what_has_no_vector_gets_one(memory, model):
    model.gone = True
    memory.add_message("later", "user", id="q", allow_unembedded=True)
    with pytest.raises(MissingDependency):
        memory.update("q", metadata={"n": 1})
    memory.update("q", metadata={"n": 1}, allow_unembedded=True)
    assert memory.vectors(["q"]) == {}
    model.gone = False
    memory.update("q", metadata={"n": 2})
    assert np.allclose(memory.vectors(["q"])["q"], unit(fake(["later"])[0]))


@pytest.mark.parametrize("where", SHARED, indirect=True)
def test_what_is_moved_to_another_model_meanwhile_keeps_the_vector_of_that(where, memory, monkeypatch):
    new, moved, store = Counting("new", salt="n"), [], memory._store
    vectors_at = store.vectors_at

    def and_then_it_is_moved(rows):
        found = vectors_at(rows)
        if not moved:
            moved.append(True)
            with MemoryGraph(where, Counting()) as other:
                other.reembed(new)
        return found

    monkeypatch.setattr(store, "vectors_at", and_then_it_is_moved)
    memory.update("p", metadata={"n": 1})
    assert moved
    with MemoryGraph(where, new) as other:
        assert other.get("p").attributes["n"] == 1
        assert np.allclose(other.vectors(["p"])["p"], unit(new.embed(["some words"])[0]))
