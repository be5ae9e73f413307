"""Facts: what holds when, whoever said it in whatever order; where things come from."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from outside import fake, finish, open_memory, start

from raeburnmemory.errors import InvalidInput, KindConflict, NodeNotFound, ReadOnly
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Explanation, Node, Origin, Trace
from raeburnmemory.store import open_store

PLACES = ["g.json", "g.db", ":memory:"]


def day(number):
    """Return a day of 2026 as the library writes it, computed by the calendar."""
    return (datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=number)).isoformat()


@pytest.fixture(params=PLACES)
def memory(request, tmp_path):
    name = request.param
    with MemoryGraph(name if name == ":memory:" else tmp_path / name, fake, vector_backend="exact") as opened:
        yield opened


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / request.param


def times(memory, *ids):
    return [(memory.get(each).attributes["valid_from"], memory.get(each).attributes["valid_to"]) for each in ids]


def cuts(memory, *ids):
    """Return the supersedes edges between nodes, as (newer, older)."""
    found = {(e.source, e.target) for each in ids for e in memory.links(each, "supersedes")}
    return sorted(found)


def edges(memory, node_id):
    return [(e.source, e.target, e.relation, e.data) for e in memory.links(node_id)]


def texts(nodes):
    return [node.text for node in nodes]


# --- recording --------------------------------------------------------------------------------------------------


def test_a_fact_is_a_node_with_what_was_stated(memory):
    memory.add_interaction({"id": "p1", "text": "I moved to Vienna."}, {"id": "r1", "text": "Lovely."}, "a", "s")
    node = memory.fact(
        " Ana ", "lives_in", "Vienna", valid_from="2026-01-01T01:00:00+01:00", source=["p1", "r1"], id="f1",
        timestamp=day(2), metadata={"sure": 0.9},
    )  # fmt: skip
    assert node == memory.get("f1")
    assert (node.kind, node.text) == ("fact", "Ana lives in Vienna")
    assert node.attributes == {
        "subject": "Ana",
        "predicate": "lives_in",
        "object": "Vienna",
        "valid_from": day(0),
        "valid_to": None,
        "sure": 0.9,
        "timestamp": day(2),
    }
    assert [(e.source, e.target) for e in memory.links("f1", "derived_from", "out")] == [("f1", "p1"), ("f1", "r1")]
    assert memory.links("f1") == memory.links("f1", "derived_from", "out"), "no edges that nobody asked for"


def test_without_times_a_fact_holds_from_when_it_was_said(memory):
    before = datetime.now(timezone.utc)
    now = memory.fact("Ana", "likes", "tea").attributes
    after = datetime.now(timezone.utc)
    assert before <= datetime.fromisoformat(now["valid_from"]) <= after
    assert now["valid_from"] == now["timestamp"]
    assert memory.fact("Ben", "likes", "tea", timestamp=day(3)).attributes["valid_from"] == day(3)
    assert memory.facts("Ana") == [memory.facts("ana", "LIKES", "tea")[0]]
    assert len(memory.fact("Ben", "likes", "milk").id) == 36


def test_ids_that_equal_subjects_and_objects_are_left_alone(memory):
    memory.add_interaction({"id": "Ana", "text": "Hello"}, session_id="Vienna")
    fact = memory.fact("Ana", "lives_in", "Vienna")
    assert memory.links(fact.id) == []


def test_the_same_fact_said_again_gets_its_sources_and_nothing_else(memory):
    for each in ("p1", "p2"):
        memory.add_interaction({"id": each, "text": each})
    first = memory.fact("Ana", "lives_in", "New  York", source="p1", timestamp=day(0))
    version = memory.stats().version
    for said in (("ana", "Lives In", "New York"), ("  ANA ", "lives__in", " New\nYork")):
        assert memory.fact(*said) == first
    assert memory.stats().version == version, "nothing was written"
    again = memory.fact("Ana", "lives in", "New York", source=["p2", "p1"], metadata={"sure": 1}, timestamp=day(5))
    assert again == first
    assert [node.id for node in memory.neighbours(first.id, "derived_from")] == ["p1", "p2"]
    assert memory.history(first.id) == []
    assert len(memory.facts(include_superseded=True)) == 1
    assert memory.fact("Ana", "lives_in", "new york").id != first.id, "the case of an object may matter"


def test_accents_are_compared_as_letters_and_not_as_code_points(memory):
    one = memory.fact("Zoe\u0308", "lives_in", "Ko\u0308ln")
    assert memory.fact("Zoë", "lives_in", "Köln") == one
    assert memory.facts("ZOË") == [one]
    assert one.text == "Zoe\u0308 lives in Ko\u0308ln", "kept as it was written"


def test_another_time_is_another_fact(memory):
    ids = {
        memory.fact("Ana", "likes", "tea", valid_from=since, valid_to=until).id
        for since, until in [(day(0), None), (day(0), day(9)), (day(4), None), (day(0), None), (day(0), day(9))]
    }
    assert len(ids) == 3
    memory.fact("Ana", "likes", "tea", valid_to=datetime(2999, 1, 1, tzinfo=timezone.utc))
    assert len(memory.facts()) == 3, "an end that was not stated before"


def test_a_fact_that_has_ended_is_not_the_same_when_it_is_said_again(memory):
    one = memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0))
    memory.retract(one.id, day(3))
    two = memory.fact("Ana", "lives_in", "Vienna")
    assert two.id != one.id
    assert memory.facts() == [two]


def test_an_id_that_is_there_says_the_same_or_is_refused(memory):
    memory.add_interaction({"id": "p1", "text": "Hello"})
    one = memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="f1")
    assert memory.fact("ana", "lives in", "Vienna", id="f1", source="p1", valid_from=day(0)) == one
    assert [e.target for e in memory.links("f1")] == ["p1"]
    memory.retract("f1", day(5))
    assert memory.fact("Ana", "lives_in", "Vienna", id="f1").id == "f1", "an import that is run twice"
    for said, more in [
        (("Ana", "lives_in", "Graz"), {}),
        (("Ana", "lives_in", "Vienna"), {"valid_from": day(1)}),
        (("Ana", "lives_in", "Vienna"), {"valid_from": day(0), "valid_to": day(4)}),
    ]:
        with pytest.raises(InvalidInput, match="'f1' is the id of another fact already, 'Ana lives in Vienna'"):
            memory.fact(*said, id="f1", **more)
    with pytest.raises(KindConflict, match="'p1' is the id of a prompt already"):
        memory.fact("Ana", "lives_in", "Vienna", id="p1")
    memory.graph.add_node("odd", type="fact", text="of another program")
    with pytest.raises(InvalidInput, match="'odd' is the id of another fact"):
        memory.fact("Ana", "lives_in", "Vienna", id="odd")


@pytest.mark.parametrize(
    ("said", "more", "message"),
    [
        (("", "likes", "tea"), {}, "The subject of a fact must not be empty, as '' is"),
        (("Ana", "_ _", "tea"), {}, "The predicate of a fact must not be empty, as '_ _' is"),
        (("Ana", "likes", 7), {}, "The object of a fact must be a string, not 7"),
        (("Ana", "likes", "\ud800"), {}, "half of a surrogate pair"),
        (("Ana", "likes", "tea"), {"valid_from": "soon"}, "'soon' is no time"),
        (("Ana", "likes", "tea"), {"valid_to": float("nan")}, "nan is no time"),
        (("Ana", "likes", "tea"), {"valid_from": day(3), "valid_to": day(3)}, "cannot end at 2026-01-04"),
        (("Ana", "likes", "tea"), {"timestamp": "x"}, "'x' is no time"),
        (("Ana", "likes", "tea"), {"source": 5}, "must be strings, not 5"),
        (("Ana", "likes", "tea"), {"source": [""]}, "A source must be a string that is not empty"),
        (("Ana", "likes", "tea"), {"id": ""}, "A fact's id must be a string that is not empty"),
        (("Ana", "likes", "tea"), {"metadata": {"object": "x"}}, "'object' in the metadata of a fact is taken"),
        (("Ana", "likes", "tea"), {"metadata": {"x": object()}}, "JSON cannot hold"),
    ],
)
def test_what_cannot_be_a_fact_is_refused_and_changes_nothing(memory, said, more, message):
    with pytest.raises(InvalidInput, match=message):
        memory.fact(*said, **more)
    assert len(memory) == 0
    assert memory.stats().version == 0


def test_a_source_must_exist_and_be_another_node(memory):
    memory.add_interaction({"id": "p1", "text": "Hello"})
    with pytest.raises(NodeNotFound, match="No node has the id 'p2'.* no fact can come from it"):
        memory.fact("Ana", "likes", "tea", source=["p1", "p2"])
    with pytest.raises(NodeNotFound, match="'f1'"):
        memory.fact("Ana", "likes", "tea", source="f1", id="f1")
    assert memory.facts() == []
    one = memory.fact("Ana", "likes", "tea", source="p1")
    with pytest.raises(InvalidInput, match="no fact is its own source"):
        memory.fact("Ana", "likes", "tea", source=one.id)
    two = memory.fact("Ana", "likes", "hot drinks", source=one.id)
    assert memory.neighbours(two.id, "derived_from") == [one]


# --- one value at a time ------------------------------------------------------------------------------------------


def test_a_newer_fact_takes_the_place_of_the_older_one(memory):
    assert memory.single_valued("lives_in") == ["lives_in"]
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
    memory.fact("ANA", "lives in", "Berlin", valid_from=day(60), id="b")
    memory.fact("Ben", "lives_in", "Oslo", valid_from=day(30), id="o")
    memory.fact("Ana", "likes", "tea", valid_from=day(30), id="t")
    assert times(memory, "v", "b", "o", "t") == [(day(0), day(60)), (day(60), None), (day(30), None), (day(30), None)]
    assert edges(memory, "b") == [("b", "v", "supersedes", {"had_valid_to": None})]
    assert [old.attributes["valid_to"] for old in memory.history("v")] == [None]
    assert texts(memory.facts("Ana", "lives_in")) == ["ANA lives in Berlin"]
    assert texts(memory.facts("Ana", "lives_in", as_of=day(59))) == ["Ana lives in Vienna"]
    assert memory.facts("Ana", "lives_in", as_of=day(-1)) == []


def test_a_fact_that_is_recorded_late_is_cut_by_the_newer_one(memory):
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(60), id="b")
    late = memory.fact("Ana", "lives_in", "Graz", valid_from=day(30), id="g")
    assert late.attributes["valid_to"] == day(60)
    assert times(memory, "v", "g", "b") == [(day(0), day(30)), (day(30), day(60)), (day(60), None)]
    assert cuts(memory, "v", "g", "b") == [("b", "g"), ("g", "v")]
    assert [old.attributes["valid_to"] for old in memory.history("v")] == [None, day(60)]
    first = memory.fact("Ana", "lives_in", "Linz", valid_from=day(-30), id="l")
    assert first.attributes["valid_to"] == day(0)


def test_of_equal_times_the_one_recorded_later_wins(memory):
    memory.single_valued("lives_in")
    for city in ("Vienna", "Berlin", "Graz"):
        memory.fact("Ana", "lives_in", city, valid_from=day(0), id=city)
    assert texts(memory.facts("Ana", as_of=day(0))) == ["Ana lives in Graz"]
    assert times(memory, "Vienna", "Berlin", "Graz") == [(day(0), day(0)), (day(0), day(0)), (day(0), None)]
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="again")
    assert texts(memory.facts("Ana", as_of=day(0))) == ["Ana lives in Vienna"]


def test_what_ended_by_itself_is_not_superseded(memory):
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), valid_to=day(20), id="v")
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(20), id="b")
    assert cuts(memory, "v", "b") == []
    memory.fact("Ana", "lives_in", "Graz", valid_from=day(10), id="g")
    assert times(memory, "v", "g", "b") == [(day(0), day(10)), (day(10), day(20)), (day(20), None)]
    assert memory.links("v", "supersedes")[0].data == {"had_valid_to": day(20)}


def test_predicates_are_declared_seen_and_withdrawn(memory):
    assert memory.single_valued() == []
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(60), id="b")
    memory.fact("Ana", "works_at", "a bank", valid_from=day(0), id="w")
    assert len(memory.facts("Ana")) == 3
    assert memory.single_valued(["lives_in", "works_at"]) == ["lives_in", "works_at"]
    assert times(memory, "v", "b", "w") == [(day(0), day(60)), (day(60), None), (day(0), None)]
    version = memory.stats().version
    assert memory.single_valued("LIVES in") == ["lives_in", "works_at"]
    assert memory.stats().version == version
    assert memory.single_valued("Lives in", withdraw=True) == ["works_at"] == memory.single_valued()
    assert times(memory, "v", "b") == [(day(0), None), (day(60), None)]
    assert cuts(memory, "v", "b") == []
    with pytest.raises(InvalidInput, match="'lives_in' is not declared single-valued. Those that are: works_at"):
        memory.single_valued("lives_in", withdraw=True)
    with pytest.raises(InvalidInput, match="Name the predicate"):
        memory.single_valued(withdraw=True)
    for wrong in ("", 5, ["_"]):
        with pytest.raises(InvalidInput):
            memory.single_valued(wrong)
    assert memory.single_valued("works_at", withdraw=True) == []


def test_edges_that_people_made_are_left_alone(memory):
    memory.fact("Ana", "likes", "tea", valid_from=day(0), id="t")
    memory.fact("Ana", "likes", "milk", valid_from=day(9), id="m")
    memory.link("m", "t", "supersedes", because="she said so")
    memory.fact("Ana", "likes", "water", valid_from=day(5), id="w")
    assert times(memory, "t", "m") == [(day(0), None), (day(9), None)]
    assert memory.fact("Ana", "likes", "tea").id == "t"
    memory.retract("t", day(20))
    memory.single_valued("likes")
    memory.undo("m")
    assert times(memory, "t", "w") == [(day(0), day(5)), (day(5), None)]
    assert edges(memory, "t") == [("w", "t", "supersedes", {"had_valid_to": day(20)})]


# --- ending and taking back -----------------------------------------------------------------------------------------


def test_a_retracted_fact_holds_no_longer(memory):
    memory.fact("Ana", "likes", "tea", valid_from=day(0), id="t")
    assert memory.retract("t", day(10)) == memory.get("t")
    assert texts(memory.facts(as_of=day(9))) == ["Ana likes tea"]
    assert memory.facts(as_of=day(10)) == []
    assert [old.attributes["valid_to"] for old in memory.history("t")] == [None]
    assert memory.retract("t", day(5)).attributes["valid_to"] == day(5)
    with pytest.raises(InvalidInput, match="'t' holds until 2026-01-06T00:00:00.00:00 only"):
        memory.retract("t")
    memory.fact("Ben", "likes", "tea", id="b")
    memory.retract("b")
    assert memory.facts() == []


def test_a_retraction_that_makes_no_sense_is_refused(memory):
    memory.add_interaction({"id": "p1", "text": "Hello"})
    memory.fact("Ana", "likes", "tea", valid_from=day(9), id="t")
    with pytest.raises(InvalidInput, match=r"which is after 2026-01-01.* undo\('t'\)"):
        memory.retract("t", day(0))
    with pytest.raises(InvalidInput, match="'p1' is no fact, but a prompt"):
        memory.retract("p1")
    with pytest.raises(NodeNotFound):
        memory.retract("nobody")
    with pytest.raises(InvalidInput, match="is no time"):
        memory.retract("t", "never")
    assert times(memory, "t") == [(day(9), None)]
    assert memory.retract("t", day(9)).attributes["valid_to"] == day(9)
    assert memory.facts(as_of=day(9)) == []


def test_what_is_retracted_before_it_was_superseded_is_not_superseded(memory):
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(60), id="b")
    memory.retract("v", day(40))
    assert times(memory, "v", "b") == [(day(0), day(40)), (day(60), None)]
    assert cuts(memory, "v", "b") == []
    memory.undo("b")
    assert times(memory, "v") == [(day(0), day(40))], "what was stated stays"


def test_a_fact_taken_back_gives_back_what_it_superseded(memory):
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), valid_to=day(90), id="v")
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(60), id="b")
    memory.fact("Ana", "lives_in", "Graz", valid_from=day(30), id="g")
    gone = memory.undo("g")
    assert (gone.id, gone.attributes["valid_to"]) == ("g", day(60))
    assert "g" not in memory
    assert times(memory, "v", "b") == [(day(0), day(60)), (day(60), None)]
    assert edges(memory, "v") == [("b", "v", "supersedes", {"had_valid_to": day(90)})]
    assert memory.undo().id == "b"
    assert times(memory, "v") == [(day(0), day(90))]
    assert [old.attributes["valid_to"] for old in memory.history("v")] == [day(90), day(60), day(30), day(60)]
    assert memory.undo().id == "v"
    with pytest.raises(InvalidInput, match="recorded no fact that could be taken back"):
        memory.undo()
    assert memory.facts(include_superseded=True) == []


def test_undo_takes_back_what_the_last_call_did(memory):
    for each in ("p1", "p2"):
        memory.add_interaction({"id": each, "text": each})
    one = memory.fact("Ana", "likes", "tea", source="p1")
    two = memory.fact("Ben", "likes", "tea")
    memory.fact("Ana", "likes", "tea", source=["p1", "p2"])
    memory.fact("Ana", "likes", "tea")
    assert memory.undo() == one
    assert [e.target for e in memory.links(one.id)] == ["p1"]
    assert memory.undo() == two
    assert texts(memory.facts()) == ["Ana likes tea"]
    memory.forget(one.id)
    with pytest.raises(NodeNotFound, match="recorded last is gone already"):
        memory.undo()
    with pytest.raises(InvalidInput, match="recorded no fact"):
        memory.undo()


def test_undo_is_refused_where_it_would_lose_something(memory):
    memory.add_interaction({"id": "p1", "text": "Hello"})
    one = memory.fact("Ana", "likes", "tea", source="p1")
    two = memory.fact("Ana", "likes", "hot drinks", source=one.id)
    with pytest.raises(InvalidInput, match=f"cannot be taken back, because {two.id!r} was derived from it"):
        memory.undo(one.id)
    with pytest.raises(InvalidInput, match="'p1' is no fact, but a prompt"):
        memory.undo("p1")
    with pytest.raises(NodeNotFound):
        memory.undo("nobody")
    memory.graph.add_node("odd", type="fact", text="of another program")
    with pytest.raises(InvalidInput, match="'odd' is no fact, but without subject"):
        memory.undo("odd")
    assert memory.undo(two.id) == two
    assert memory.undo() == one, "what was taken back by its id is not taken back again"


def test_undo_knows_what_was_superseded_where_the_predicate_was_declared_elsewhere(tmp_path, path):
    """An export carries facts and edges, but no declarations."""
    with MemoryGraph(path, fake) as memory:
        memory.single_valued("lives_in")
        memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
        memory.fact("Ana", "lives_in", "Berlin", valid_from=day(60), id="b")
        memory.export(tmp_path / "exported.json")
    with MemoryGraph(tmp_path / "exported.json", fake) as memory:
        assert memory.single_valued() == []
        assert times(memory, "v", "b") == [(day(0), day(60)), (day(60), None)]
        memory.undo("b")
        assert times(memory, "v") == [(day(0), None)]


def test_forgetting_is_not_taking_back(memory):
    """Whoever has a fact forgotten has not said that the one before it is true again."""
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(60), id="b")
    memory.forget("b")
    assert times(memory, "v") == [(day(0), day(60))]
    memory.fact("Ana", "lives_in", "Graz", valid_from=day(80), id="g")
    assert times(memory, "v", "g") == [(day(0), day(60)), (day(80), None)]
    assert cuts(memory, "v", "g") == []


# --- reading ------------------------------------------------------------------------------------------------------


def test_facts_are_chosen_by_any_of_their_parts(memory):
    said = [(s, p, o) for s in ("Ana", "Ben") for p in ("likes", "sells") for o in ("tea", "milk")]
    for number, each in enumerate(said):
        memory.fact(*each, valid_from=day(-number))
    for subject in (None, "Ana", "ben "):
        for predicate in (None, "LIKES"):
            for thing in (None, "tea"):
                wanted = [
                    " ".join(each)
                    for each in reversed(said)
                    if subject in {None, each[0], each[0].lower() + " "}
                    and predicate in {None, each[1].upper()}
                    and thing in {None, each[2]}
                ]
                assert texts(memory.facts(subject, predicate, thing)) == wanted
    assert memory.facts("Carl") == memory.facts(object="Tea") == []
    for wrong in ({"subject": 5}, {"predicate": b"x"}, {"object": ["tea"]}, {"as_of": "x"}):
        with pytest.raises(InvalidInput):
            memory.facts(**wrong)


def test_what_ended_is_listed_on_request(memory):
    memory.fact("Ana", "likes", "tea", valid_from=day(0), valid_to=day(9))
    memory.fact("Ana", "likes", "milk", valid_from=day(5))
    memory.fact("Ana", "likes", "water", valid_from=day(20))
    assert texts(memory.facts(as_of=day(10))) == ["Ana likes milk"]
    assert texts(memory.facts(as_of=day(10), include_superseded=True)) == ["Ana likes tea", "Ana likes milk"]
    assert texts(memory.facts("ana", as_of=day(4), include_superseded=True)) == ["Ana likes tea"]


def test_what_others_call_facts_is_passed_over(memory):
    memory.graph.add_node("odd", type="fact", text="The moon is round.")
    memory.graph.add_node("when", type="fact", subject="a", predicate="b", object="c", valid_from="some day")
    memory.graph.add_node("good", type="fact", subject="a", predicate="b", object="c", valid_from="2026-01-01")
    assert [node.id for node in memory.facts()] == ["good"]
    memory.single_valued("b")
    memory.fact("a", "b", "d", valid_from=day(5))
    assert memory.get("good").attributes["valid_to"] == day(5)


def test_facts_changed_by_other_means_are_found_where_they_are_now(memory):
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
    assert len(memory.facts("Ana")) == 1
    memory.update("v", metadata={"subject": "Ben", "valid_from": day(50)})
    assert memory.facts("Ana") == []
    memory.fact("Ben", "lives_in", "Graz", valid_from=day(20), id="g")
    assert times(memory, "g", "v") == [(day(20), day(50)), (day(50), None)]
    memory.forget("v")
    assert memory.facts("Ben", as_of=day(60)) == []
    assert memory.facts("Ana") == []


def test_nodes_given_are_copies(memory):
    memory.fact("Ana", "likes", "tea", id="t")
    memory.facts()[0].attributes["valid_to"] = "changed"
    assert memory.facts()[0].attributes["valid_to"] is None


# --- the same as a replay -----------------------------------------------------------------------------------------

DAYS = range(-1, 9)
statements = st.tuples(
    st.sampled_from(["lives_in", "likes"]),
    st.sampled_from("abc"),
    st.integers(0, 7),
    st.one_of(st.none(), st.integers(1, 4)),
)


def replayed(said, at, single):
    """Play everything back that began up to *at*, in the order of time: (predicate, object) of what then holds."""
    state = {"lives_in": [], "likes": []}
    for predicate, thing, since, lasts in sorted(said, key=lambda each: each[2]):
        if since <= at:
            if predicate in single:
                state[predicate] = []
            state[predicate].append((predicate, thing, None if lasts is None else since + lasts))
    return {(p, thing) for held in state.values() for p, thing, until in held if until is None or at < until}


def held(memory, at):
    found = [(n.attributes["predicate"], n.attributes["object"]) for n in memory.facts("Ana", as_of=day(at))]
    assert Counter(predicate for predicate, _ in found)["lives_in"] <= 1 or "lives_in" not in memory.single_valued()
    return set(found)


def say(memory, predicate, thing, since, lasts):
    until = None if lasts is None else day(since + lasts)
    return memory.fact("Ana", predicate, thing, valid_from=day(since), valid_to=until)


@given(st.lists(statements, max_size=12), st.integers(0, 12))
@example([("lives_in", "a", 0, None), ("lives_in", "a", 4, None), ("lives_in", "b", 2, None)], 0)
@example([("lives_in", "b", 0, None), ("lives_in", "c", 0, None), ("lives_in", "b", 0, None)], 0)
def test_reading_as_of_a_time_equals_a_replay(said, declared_at):
    with MemoryGraph(":memory:", fake, vector_backend="exact") as memory:
        for number, each in enumerate([*said, None]):
            if number == min(declared_at, len(said)):
                memory.single_valued("lives_in")
            if each is not None:
                say(memory, *each)
        for at in DAYS:
            assert held(memory, at) == replayed(said, at, {"lives_in"})


changes = st.one_of(
    st.tuples(st.just("say"), statements),
    st.tuples(st.just("undo"), st.integers(0, 20)),
    st.tuples(st.just("retract"), st.integers(0, 20), st.integers(0, 9)),
    st.tuples(st.just("turn")),
)


@pytest.mark.parametrize("name", PLACES)
def test_whatever_is_done_the_rest_holds_as_it_was_stated(tmp_path_factory, name):
    """Undo, retract, declare and withdraw in any order: what holds follows from what is left."""

    @given(st.lists(changes, max_size=14))
    def check(done):
        path = name if name == ":memory:" else tmp_path_factory.mktemp("facts") / name
        with MemoryGraph(path, fake, vector_backend="exact") as memory:
            single, said = False, {}
            for what, *how in done:
                ids = list(said)
                if what == "turn":
                    memory.single_valued("lives_in", withdraw=single)
                    single = not single
                elif what == "say":
                    node = say(memory, *how[0])
                    said.setdefault(node.id, how[0])
                elif what == "undo" and ids:
                    chosen = ids[how[0] % len(ids)]
                    memory.undo(chosen)
                    del said[chosen]
                elif what == "retract" and ids:
                    chosen, at = ids[how[0] % len(ids)], how[1]
                    predicate, thing, since, _ = said[chosen]
                    _, end = times(memory, chosen)[0]
                    if at < since or (end is not None and end <= day(at)):
                        with pytest.raises(InvalidInput):
                            memory.retract(chosen, day(at))
                    else:
                        memory.retract(chosen, day(at))
                        said[chosen] = (predicate, thing, since, at - since)
            everywhere = {"lives_in"} if single else set()
            for at in DAYS:
                assert held(memory, at) == replayed(said.values(), at, everywhere)
            assert {node.id for node in memory.facts(as_of=day(99), include_superseded=True)} == set(said)
            if not single:
                assert memory.stats().relations == {}

    check()


# --- namespaces, files, other processes ------------------------------------------------------------------------------


def test_namespaces_keep_facts_and_declarations_apart(path):
    with open_memory(path) as one, open_memory(path, namespace="work") as two:
        one.single_valued("lives_in")
        assert two.single_valued() == []
        for memory in (one, two):
            memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id=f"v-{memory.namespace}")
        for memory in (two, one):
            memory.fact("Ana", "lives_in", "Berlin", valid_from=day(9), id=f"b-{memory.namespace}")
        assert texts(one.facts()) == ["Ana lives in Berlin"]
        assert texts(two.facts()) == ["Ana lives in Vienna", "Ana lives in Berlin"]
        two.single_valued(["works_at"])
        one.single_valued("lives_in", withdraw=True)
        assert (one.single_valued(), two.single_valued()) == ([], ["works_at"])
        assert len(one.facts()) == 2
        with pytest.raises(NodeNotFound):
            two.fact("Ana", "likes", "tea", source=one.fact("Ana", "likes", "tea").id)


def test_everything_is_there_when_it_is_opened_again(path):
    with open_memory(path) as memory:
        memory.add_interaction({"id": "p1", "text": "Hello"})
        memory.single_valued("lives_in")
        memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v", source="p1")
        memory.fact("Ana", "lives_in", "Berlin", valid_from=day(9), id="b")
    for read_only in (False, True):
        with open_memory(path, read_only=read_only) as memory:
            assert memory.single_valued() == ["lives_in"]
            assert texts(memory.facts()) == ["Ana lives in Berlin"]
            assert texts(memory.facts(as_of=day(8))) == ["Ana lives in Vienna"]
            assert memory.trace("b").ids == ["b", "v", "p1"]
            assert "superseded by fact b" in str(memory.why("v"))
            if read_only:
                for change in (
                    lambda: memory.fact("Ana", "likes", "tea"),
                    lambda: memory.retract("b"),
                    lambda: memory.undo("b"),
                    lambda: memory.single_valued("likes"),
                ):
                    with pytest.raises(ReadOnly):
                        change()
            else:
                assert memory.undo("b").id == "b"
                assert texts(memory.facts()) == ["Ana lives in Vienna"]
                memory.fact("Ana", "lives_in", "Berlin", valid_from=day(9), id="b")


def test_declarations_move_along_to_another_store(tmp_path):
    with open_memory(tmp_path / "g.json") as memory:
        memory.single_valued("lives_in")
        memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0))
    with open_memory(tmp_path / "g.json", storage_backend="sqlite") as memory:
        assert memory.storage_backend == "sqlite"
        assert memory.single_valued() == ["lives_in"]
        memory.fact("Ana", "lives_in", "Berlin", valid_from=day(9))
        assert texts(memory.facts()) == ["Ana lives in Berlin"]


def test_the_next_call_sees_what_another_memory_recorded(path):
    with open_memory(path) as one, open_memory(path) as two:
        one.single_valued("lives_in")
        one.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
        assert texts(two.facts()) == ["Ana lives in Vienna"]
        two.fact("Ana", "lives_in", "Berlin", valid_from=day(9), id="b")
        assert texts(one.facts()) == ["Ana lives in Berlin"]
        one.fact("Ana", "lives_in", "Graz", valid_from=day(5), id="g")
        two.undo("v")
        assert times(one, "g", "b") == [(day(5), day(9)), (day(9), None)]
        two.undo("g")
        with pytest.raises(NodeNotFound, match="recorded last is gone already"):
            one.undo()


MOVING = """
import sys, time, os
from outside import open_memory
path, who, moves, go = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
with open_memory(path, timeout=240) as memory:
    while not os.path.exists(go):
        time.sleep(0.001)
    for number in range(moves):
        memory.fact("Ana", "lives_in", f"city {who} {number}")
"""


def test_processes_that_supersede_at_once_leave_one_current_fact(path, tmp_path):
    moves, go = 30, tmp_path / "go"
    with open_memory(path) as memory:
        memory.single_valued("lives_in")
    movers = [start(MOVING, path, who, moves, go) for who in range(3)]
    go.touch()
    list(finish(movers))
    with open_memory(path) as memory:
        check_timeline(memory, 3 * moves)


def check_timeline(memory, count):
    """The facts of the one subject follow each other without gaps, and one of them holds."""
    known = memory.facts("Ana", "lives_in", include_superseded=True)
    assert len(known) == count
    begins = [node.attributes["valid_from"] for node in known]
    assert [node.attributes["valid_to"] for node in known] == [*begins[1:], None]
    assert begins == sorted(begins)
    assert memory.facts("Ana", "lives_in") == known[-1:]
    pairs = {(newer.id, older.id) for older, newer in itertools.pairwise(known)}
    assert set(cuts(memory, *(node.id for node in known))) == pairs


def test_threads_on_one_memory(memory):
    memory.single_valued("lives_in")
    errors = []

    def move(who):
        try:
            for number in range(25):
                memory.fact("Ana", "lives_in", f"city {who} {number}")
                assert len(memory.facts("Ana", "lives_in")) == 1
                assert memory.trace(memory.facts("Ana")[0].id)
        except Exception as exc:  # noqa: BLE001 - told to the test
            errors.append(exc)

    movers = [threading.Thread(target=move, args=(who,), daemon=True) for who in range(4)]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join(120)
        assert not mover.is_alive()
    assert errors == []
    check_timeline(memory, 100)


# --- vectors --------------------------------------------------------------------------------------------------------


def test_facts_keep_their_vectors_when_their_time_changes(memory):
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(9), id="b")
    assert memory.stats().vectors == {"fact": 2}
    memory.fact("Ana", "lives_in", "Graz", valid_from=day(5), id="g")
    memory.retract("b", day(20))
    assert memory.stats().vectors == {"fact": 3}
    memory.undo("g")
    assert memory.stats().vectors == {"fact": 2}
    memory.single_valued("lives_in", withdraw=True)
    assert memory.stats().vectors == {"fact": 2}


def test_nobody_waits_while_facts_are_embedded(path):
    written = []

    def embed(texts):
        if others:  # would time out if the lock were held
            others[0].update("p1", metadata={"n": len(written)})
            written.append(texts)
        return fake(texts)

    others = []
    with MemoryGraph(path, embed, vector_backend="exact", timeout=0.5) as memory:
        memory.add_interaction({"id": "p1", "text": "Hello"})
        memory.single_valued("lives_in")
        memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), id="v")
        with open_memory(path, timeout=0.5) as other:
            others.append(other)
            memory.fact("Ana", "lives_in", "Berlin", valid_from=day(9), id="b")
            memory.retract("b", day(20))
            memory.undo("b")
            memory.single_valued("lives_in", withdraw=True)
            others.clear()
    assert written == [["Ana lives in Berlin"]]  # of facts whose time changes the vectors stay


# --- where things come from ---------------------------------------------------------------------------------------


@pytest.fixture
def told(memory):
    memory.add_message("I live in Vienna.", "user", "monday", name="Ana", id="p1", timestamp=day(0))
    memory.add_interaction(
        {"id": "p2", "text": "Where does Ana live now?"},
        {"id": "r2", "text": "In Berlin."},
        {"id": "a", "name": "Clerk"},
        "tuesday",
        timestamp=day(9),
    )
    memory.single_valued("lives_in")
    memory.fact("Ana", "lives_in", "Vienna", valid_from=day(0), source="p1", id="v", timestamp=day(1))
    memory.fact("Ana", "lives_in", "Berlin", valid_from=day(8), source="r2", id="b", timestamp=day(9))
    memory.fact("Ana", "lives_in_country", "Germany", valid_from=day(8), source="b", id="c", timestamp=day(9))
    return memory


def test_why_tells_what_is_known_of_one_node(told):
    assert str(told.why("v")) == (
        "fact v: Ana lives in Vienna\n"
        f"  valid from {day(0)} to {day(8)}\n"
        f"  recorded at {day(1)}\n"
        f"  derived from prompt p1: I live in Vienna. (said by Ana, at {day(0)}, in session monday)\n"
        "  superseded by fact b: Ana lives in Berlin"
    )
    assert str(told.why("r2")) == (
        "response r2: In Berlin.\n"
        "  said by Clerk\n"
        f"  said at {day(9)}\n"
        "  in session tuesday\n"
        "  answers prompt p2: Where does Ana live now?"
    )
    assert str(told.why("p1")) == (
        f"prompt p1: I live in Vienna.\n  said by Ana\n  said at {day(0)}\n  in session monday"
    )
    assert str(told.why("monday")) == "session monday"
    found = told.why("b")
    assert (found.node.id, texts(found.supersedes), found.superseded_by) == ("b", ["Ana lives in Vienna"], ())
    assert [(each.node.id, each.speakers, each.sessions) for each in found.sources] == [
        ("r2", ("Clerk",), ("tuesday",))
    ]
    assert f"derived from fact b: Ana lives in Berlin (at {day(9)})" in str(told.why("c"))
    with pytest.raises(NodeNotFound):
        told.why("nobody")
    with pytest.raises(InvalidInput):
        told.why("")


def test_trace_follows_a_node_all_the_way_back(told):
    found = told.trace("c")
    assert str(found) == (
        "fact c: Ana lives in country Germany\n"
        "└── derived from fact b: Ana lives in Berlin\n"
        "    ├── derived from response r2: In Berlin.\n"
        "    │   ├── answers prompt p2: Where does Ana live now?\n"
        "    │   │   └── in session tuesday\n"
        "    │   └── given by agent a: Clerk\n"
        "    └── supersedes fact v: Ana lives in Vienna\n"
        "        └── derived from prompt p1: I live in Vienna.\n"
        "            └── in session monday"
    )
    assert [(each.id, each.relation, each.source, each.depth) for each in found[:4]] == [
        ("c", None, None, 0),
        ("b", "derived_from", "c", 1),
        ("r2", "derived_from", "b", 2),
        ("p2", "responded_with", "r2", 3),
    ]
    assert told.trace("c", 1).ids == ["c", "b"]
    assert told.trace("c", depth=0).ids == ["c"]
    assert told.trace("v").ids == ["v", "p1", "monday", "b", "r2", "p2", "tuesday", "a"]
    assert [each.role for each in told.trace("v") if each.depth == 1] == ["derived from", "superseded by"]
    for wrong in (-1, 1.5, True):
        with pytest.raises(InvalidInput, match="depth"):
            told.trace("c", wrong)
    with pytest.raises(NodeNotFound):
        told.trace("nobody")


def test_cycles_end(memory):
    for each in "abc":
        memory.add_interaction({"id": each, "text": each})
    for source, target in ("ab", "bc", "ca", "cc", "ac"):
        memory.link(source, target, "derived_from")
    found = memory.trace("a")
    assert sorted(found.ids) == ["a", "b", "c"]
    assert [(each.id, each.source, each.depth) for each in found if each.again] == [
        ("c", "b", 2),
        ("a", "c", 2),
        ("c", "c", 2),
    ]
    assert str(found) == (
        "prompt a: a\n"
        "├── derived from prompt b: b\n"
        "│   └── derived from prompt c: c (again)\n"
        "└── derived from prompt c: c\n"
        "    ├── derived from prompt a: a (again)\n"
        "    └── derived from prompt c: c (again)"
    )
    assert [each.node.id for each in memory.why("c").sources] == ["a", "c"]


def test_a_long_history_is_traced_to_its_end(memory):
    steps = range(1199, 0, -1)  # deeper than Python likes to call
    memory.graph.add_edges_from((f"n{step}", f"n{step - 1}", {"relation": "derived_from"}) for step in steps)
    found = memory.trace("n1199")
    assert found.ids == [f"n{step}" for step in (*steps, 0)]
    assert len(str(found).splitlines()) == 1200


def test_explanations_and_traces_are_plain_data(told):
    for data in (told.why("b").to_dict(), told.trace("b").to_dicts()):
        assert json.loads(json.dumps(data)) == data
    found = told.trace("b")
    assert found == told.trace("b")
    assert hash(found) == hash(told.trace("b"))
    assert (found == 5) is False
    assert repr(found).startswith(f"<Trace: {len(found)} nodes>\nfact b")
    assert found.to_dicts()[1]["origin"] == {
        "depth": 1, "role": "derived from", "relation": "derived_from", "source": "b", "again": False,
    }  # fmt: skip
    assert found.to_dicts()[1]["id"] == "r2"
    with pytest.raises(AttributeError):
        found[0].depth = 5
    with pytest.raises(AttributeError):
        told.why("b").node = None
    long = Explanation(Node("x", "prompt", "word " * 50))
    assert len(str(long)) < 100
    assert str(Trace([Origin(Node("x", "thing"))])) == "thing x"


def test_a_store_without_a_graph_serves_facts_as_well(tmp_path):
    """The facts need of a store what the contract promises, and no more."""
    from raeburnmemory.dense import Dense
    from raeburnmemory.facts import Facts, said
    from raeburnmemory.writer import Writer

    with contextlib.closing(open_store(tmp_path / "g.db")) as store:
        facts = Facts(store, Writer(store, Dense(store, fake, "exact"), "default"), "default")
        node = facts.record(said(("Ana", "likes", "tea"), namespace="default"))
        assert store.get([node.id], "default") == {node.id: node}
        assert facts.read() == [node]
