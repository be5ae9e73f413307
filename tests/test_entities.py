"""Entities, observations and relations against a plain model, and in the memory where other doors find them."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import fake, finish, start

from raeburnmemory import MemoryGraph
from raeburnmemory.entities import Entities
from raeburnmemory.errors import InvalidInput, NodeNotFound


@pytest.fixture(params=["g.json", "g.db", ":memory:"])
def memory(request, tmp_path):
    name = request.param
    with MemoryGraph(name if name == ":memory:" else tmp_path / name, fake) as memory:
        yield memory


class Model:
    """What the graph must be: lists and dicts, written after the reference server's description, each thing once."""

    def __init__(self):
        self.entities, self.links = {}, []

    def create(self, entities):
        made = []
        for one in entities:
            if one["name"] not in self.entities:
                made.append({**one, "observations": list(dict.fromkeys(one["observations"]))})
                self.entities[one["name"]] = copy.deepcopy(made[-1])
        return made

    def observe(self, observations):
        if any(name not in self.entities for name, _ in observations):
            raise NodeNotFound("no such entity")
        told = []
        for name, contents in observations:
            had = self.entities[name]["observations"]
            new = [text for text in dict.fromkeys(contents) if text not in had]
            had += new
            told.append({"entityName": name, "addedObservations": new})
        return told

    def relate(self, relations):
        if any(one[end] not in self.entities for one in relations for end in ("from", "to")):
            raise NodeNotFound("no such entity")
        new = []
        for one in relations:
            if one not in self.links:
                new.append(one)
                self.links.append(one)
        return new

    def remove(self, names):
        gone = [name for name in dict.fromkeys(names) if self.entities.pop(name, None)]
        self.links = [one for one in self.links if not {one["from"], one["to"]} & set(gone)]
        return gone

    def unobserve(self, observations):
        for name, contents in observations:
            if name in self.entities:
                had = self.entities[name]["observations"]
                self.entities[name]["observations"] = [text for text in had if text not in contents]

    def unrelate(self, relations):
        gone = [one for one in relations if one in self.links]
        self.links = [one for one in self.links if one not in relations]
        return [one for number, one in enumerate(gone) if one not in gone[:number]]

    def matching(self, text):
        def holds(one):
            return any(text.lower() in part.lower() for part in (one["name"], one["entityType"], *one["observations"]))

        return [one for one in self.entities.values() if holds(one)]


def graph(entities):
    nodes = list(entities.all())
    read = entities.read(nodes)
    return read, entities.relations([one["name"] for one in read], "out")


name = st.sampled_from(["Ana", "ana", "Bo", "a/b", "entity/x", "ß %2F", "猫"])
text = st.sampled_from(["likes tea", "likes TEA", "", "Straße 7", "is allergic\nto peanuts", "猫 is a cat"])
kind = st.sampled_from(["person", "", "Cat"])
relation = st.fixed_dictionaries({"from": name, "to": name, "relationType": st.sampled_from(["knows", "part_of", "x"])})
entity = st.fixed_dictionaries({"name": name, "entityType": kind, "observations": st.lists(text, max_size=4)})
observed = st.lists(st.tuples(name, st.lists(text, max_size=3)), max_size=3)
step = st.one_of(
    st.tuples(st.just("create"), st.lists(entity, max_size=4)),
    st.tuples(st.just("create"), st.lists(entity, max_size=4)),
    st.tuples(st.just("observe"), observed),
    st.tuples(st.just("relate"), st.lists(relation, max_size=4)),
    st.tuples(st.just("remove"), st.lists(name, max_size=2)),
    st.tuples(st.just("unobserve"), observed),
    st.tuples(st.just("unrelate"), st.lists(relation, max_size=3)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(step, max_size=12), text)
def test_it_is_what_lists_and_dicts_make_of_it(steps, sought):
    with MemoryGraph(":memory:", fake) as memory:
        entities, model = Entities(memory), Model()
        Entities(memory, "other").create([{"name": "Ana", "entityType": "noise", "observations": ["likes tea"]}])
        for call, argument in steps:
            try:
                expected = getattr(model, call)(copy.deepcopy(argument))
            except NodeNotFound:
                with pytest.raises(NodeNotFound, match="Entity with name"):
                    getattr(entities, call)(argument)
            else:
                told = getattr(entities, call)(argument)
                assert call == "unobserve" or told == expected
            assert graph(entities) == (list(model.entities.values()), model.links)
        assert entities.read(entities.matching(sought)) == model.matching(sought)
        own = {node.id for node in memory.nodes(["entity", "observation"]) if "/mcp/" in node.id}
        assert len(own) == sum(1 + len(one["observations"]) for one in model.entities.values()), "nothing is left over"
        assert len(graph(Entities(memory, "other"))[0]) == 1


def test_it_is_in_the_memory_where_others_find_it(memory):
    entities = Entities(memory, "clinic")
    entities.create(
        [
            {"name": "Ana", "entityType": "patient", "observations": ["allergic to peanuts", "born in 1984"]},
            {"name": "Bo", "entityType": "nurse", "observations": []},
        ]
    )
    entities.relate([{"from": "Bo", "to": "Ana", "relationType": "cares_for"}])
    ana = memory.get("entity/clinic/Ana")
    assert (ana.kind, ana.text) == ("entity", "Ana (patient)")
    assert {**ana.attributes, "timestamp": 0} == {
        "collection": "clinic",
        "key": "Ana",
        "entity_type": "patient",
        "timestamp": 0,
    }
    assert [node.text for node in memory.neighbours(ana.id, "part_of", "in")] == ["allergic to peanuts", "born in 1984"]
    assert [node.id for node in memory.neighbours("entity/clinic/Bo", "cares_for")] == [ana.id]
    hit = memory.recall("peanuts Ana", 1, collection="clinic", kinds="observation")[0]
    assert (hit.text, hit.speaker) == ("allergic to peanuts", "Ana")
    assert hit.similarity is not None
    assert memory.recall("peanuts", collection="elsewhere").ids == []
    memory.forget(ana.id, secure=memory.storage_backend == "sqlite")
    if memory.storage_backend == "sqlite":
        assert [node.id for node in memory.nodes(["entity", "observation"])] == ["entity/clinic/Bo"]
    else:  # what was observed of it stays, and belongs to it again if it comes back and is observed again
        assert entities.create([{"name": "Ana", "entityType": "patient", "observations": ["born in 1984"]}])
        assert entities.read(entities.named(["Ana"]))[0]["observations"] == ["born in 1984"]


@pytest.mark.parametrize(
    ("call", "argument", "complaint"),
    [
        ("create", [{"entityType": "x"}], "The name of an entity must be a string that is not empty, not None"),
        ("create", [{"name": "", "entityType": "x"}], "not empty, not ''"),
        ("create", [{"name": "A", "entityType": 1}], "The type of 'A' must be a string, not 1"),
        ("create", [{"name": "A", "observations": "x"}], "The observations must be a list of texts, not 'x'"),
        ("create", [{"name": "A"}, {"name": "B", "observations": [1]}], "An observation must be a string, not 1"),
        ("create", [{"name": "A", "observations": ["\ud800"]}], "half of a surrogate pair"),
        ("observe", [("A", [None])], "An observation must be a string, not None"),
        ("relate", [{"from": "A", "to": "B"}], "The relationType of a relation must be a string"),
        ("remove", [7], "The name of an entity must be a string"),
    ],
)
def test_what_cannot_be_stored_is_named_and_changes_nothing(memory, call, argument, complaint):
    entities = Entities(memory)
    with pytest.raises(InvalidInput, match=complaint):
        getattr(entities, call)(argument)
    assert len(memory) == 0


WRITE = """
import sys
from outside import fake
from raeburnmemory import MemoryGraph
from raeburnmemory.entities import Entities
who = sys.argv[2]
with MemoryGraph(sys.argv[1], fake) as memory:
    entities = Entities(memory)
    for n in range(20):
        made = entities.create([{"name": f"E{n}", "entityType": "t", "observations": [f"made by {who}"]}])
        print(f"E{n}" if made else "")
        entities.observe([(f"E{n}", [f"{who} was here", "somebody was here"])])
        entities.relate([{"from": f"E{n}", "to": "E0", "relationType": "follows"}])
"""


@pytest.mark.parametrize("file", ["g.json", pytest.param("g.db", marks=pytest.mark.long)])
def test_two_processes_write_at_once_and_nothing_is_lost_or_there_twice(tmp_path, file):
    with MemoryGraph(tmp_path / file, fake):
        pass
    printed = list(finish([start(WRITE, tmp_path / file, who) for who in ("one", "two")]))
    made = [[line for line in out.splitlines() if line] for out in printed]
    assert sorted(made[0] + made[1]) == sorted(f"E{n}" for n in range(20)), "each was made by one of them"
    with MemoryGraph(tmp_path / file, fake, read_only=True) as memory:
        read, relations = graph(Entities(memory))
    assert sorted(one["name"] for one in read) == sorted(f"E{n}" for n in range(20))
    for one in read:
        maker = "one" if one["name"] in made[0] else "two"
        assert one["observations"][0] == f"made by {maker}"
        assert sorted(one["observations"][1:]) == ["one was here", "somebody was here", "two was here"]
    assert len(relations) == 20


def test_a_graph_in_postgresql(postgres_url):
    with MemoryGraph(postgres_url, fake) as memory, MemoryGraph(postgres_url, fake, namespace="two") as other:
        entities = Entities(memory)
        assert (
            len(entities.create([{"name": "Ana", "entityType": "", "observations": ["a", "b"]}, {"name": "Bo"}])) == 2
        )
        assert Entities(other).create([{"name": "Ana"}])
        entities.relate([{"from": "Bo", "to": "Ana", "relationType": "knows"}])
        assert entities.observe([("Ana", ["b", "c"])]) == [{"entityName": "Ana", "addedObservations": ["c"]}]
        entities.unobserve([("Ana", ["a"])])
        with memory.snapshot():
            assert graph(entities)[0][0] == {"name": "Ana", "entityType": "", "observations": ["b", "c"]}
        with pytest.raises(NodeNotFound):
            entities.relate([{"from": "Ana", "to": "nobody", "relationType": "knows"}])
        assert entities.remove(["Ana", "nobody"]) == ["Ana"]
        assert graph(entities) == ([{"name": "Bo", "entityType": "", "observations": []}], [])
        assert [node.kind for node in memory] == ["entity"]
        assert len(other) == 1
