"""Nodes of any kind with ids of their own, many messages at once, and what is read of many nodes."""

from __future__ import annotations

import json
import re
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Fake, fake, unit

from raeburnmemory import Link, MemoryGraph, Node
from raeburnmemory.errors import EmbeddingsMissing, InvalidInput, KindConflict, NodeNotFound
from raeburnmemory.nodes import collected_id, collection_of

FILES = ["g.json", "g.db", ":memory:"]


@pytest.fixture(params=FILES)
def memory(request, tmp_path):
    name = request.param
    with MemoryGraph(name if name == ":memory:" else tmp_path / name, fake) as memory:
        yield memory


def note(key, text, collection="notes", **attributes):
    return Node(collected_id("fragment", collection, key), "fragment", text, attributes)


# --- ids in collections -----------------------------------------------------------------------------------------

names = st.text("ab/%2F5:", min_size=1, max_size=6)


@given(names, names, names, names)
def test_ids_of_collections_are_told_apart_and_name_their_collection(one, key, other, other_key):
    first, second = collected_id("item", one, key), collected_id("item", other, other_key)
    assert (first == second) == ((one, key) == (other, other_key))
    assert collection_of(first) == one
    assert first.endswith(f"/{key}")
    assert collected_id("fragment", one, key) != first


@pytest.mark.parametrize("node_id", ["p1", "a/b", "/x/y", "x//y", "x/y/"])
def test_other_ids_are_in_no_collection(node_id):
    assert collection_of(node_id) is None


# --- put --------------------------------------------------------------------------------------------------------


def test_nodes_of_any_kind_are_written_with_their_links_and_found(memory):
    before = time.time()
    assert memory.put(
        [note("1", "Rent is due on the first", page=7), {"id": "e", "type": "entity", "name": "Ana", "tags": ["x", 1]}],
        [("fragment/notes/1", "e", "mentions"), Link("e", "fragment/notes/1", "in", {"since": 2020})],
    ) == ["fragment/notes/1", "e"]
    node = memory.get("fragment/notes/1")
    assert (node.kind, node.text, node.attributes["page"]) == ("fragment", "Rent is due on the first", 7)
    stamp = np.datetime64(node.timestamp[:26]).astype("datetime64[us]").astype(float) / 1e6
    assert before - 1 <= stamp <= time.time() + 1
    assert memory.get("e").to_dict() == {"id": "e", "type": "entity", "name": "Ana", "tags": ["x", 1]}
    assert [(link.source, link.relation, dict(link.data)) for link in memory.links("e")] == [
        ("fragment/notes/1", "mentions", {}),
        ("e", "in", {"since": 2020}),
    ]
    assert memory.recall("when is the rent due", kinds="fragment").ids == ["fragment/notes/1"]
    assert memory.similar("rent is due on the first", kinds="fragment")[0].similarity == pytest.approx(1)


def test_a_memory_is_found_by_meaning_and_by_its_passages(memory):
    long = " ".join(f"Sentence {number} speaks of something else." for number in range(40)) + " Ana keeps bees."
    memory.put(
        [{"id": "m", "type": "memory", "text": "Ana lives in Vienna"}, {"id": "l", "type": "memory", "text": long}]
    )
    assert memory.similar("Ana lives in Vienna", kinds="memory")[0].similarity == pytest.approx(1)
    assert memory.stats().vectors["memory"] == 2
    assert memory.stats().vectors["memory.passages"] >= 2
    assert memory.stats().unembedded == 0
    assert memory.recall("Ana keeps bees", kinds="memory").ids[0] == "l"


@pytest.mark.parametrize(
    "where",
    [
        {"stars": {"gte": 3}},
        {"stars": 4, "tag": {"icontains": "A"}},
        {"about.who": "Ana"},
        {"or": [{"stars": 0}, {"about": {"who": "Ben"}}]},
        {"about": {"who": "Ana"}, "not": {"stars": {"in": [1, 2, 3]}}},
        {"tag": {"exists": False}},
        {"stars": {"lt": 0}},
    ],
    ids=str,
)
def test_nodes_are_read_by_the_conditions_of_a_search(memory, where):
    rows = [{"stars": n % 5, "about": {"who": "Ana" if n % 2 else "Ben"}, "n": n} for n in range(20)]
    rows = [{**row, "tag": "abc" if row["n"] % 4 else "b"} if row["n"] % 3 else row for row in rows]
    memory.put([note(f"{row['n']:02}", "words", **row) for row in rows])
    found = set(memory.recall("words", 100, kinds="fragment", where=where).ids)
    listed = [node.id for node in memory.nodes("fragment", where=where)]
    assert listed == sorted(found)
    assert [node.id for node in memory.nodes("fragment", where=where, limit=2)] == listed[:2]
    if listed:
        assert [node.id for node in memory.nodes(where=where, after=listed[0], limit=1)] == listed[1:2]


def test_what_is_there_is_replaced_keeps_its_first_time_and_its_history(memory):
    memory.put([note("1", "old words", page=1)])
    first, version = memory.get("fragment/notes/1"), memory.stats().version
    assert memory.put([note("1", "old words", page=1)]) == []
    assert memory.stats().version == version, "nothing changed, nothing is written"
    assert memory.put([note("1", "new words", stars=2)]) == []
    node = memory.get("fragment/notes/1")
    assert (node.text, dict(node.attributes)) == ("new words", {"stars": 2, "timestamp": first.timestamp})
    assert [old.text for old in memory.history(node.id)] == ["old words"]
    assert memory.similar("new words", kinds="fragment")[0].similarity == pytest.approx(1)
    assert memory.stats().vectors["fragment"] == 1


def test_the_last_of_several_with_one_id_counts(memory):
    assert memory.put([note("1", "one"), note("1", "two"), note("2", "three")]) == [
        "fragment/notes/1",
        "fragment/notes/2",
    ]
    assert [node.text for node in memory.nodes("fragment")] == ["two", "three"]
    assert memory.similar("two", 1, kinds="fragment")[0].similarity == pytest.approx(1)


def test_a_time_to_expire_is_set_changed_and_taken_away(memory):
    def until(expires_at):
        memory.put([Node("i", "item", None, {"v": 1}, expires_at=expires_at)])
        return [node.expires_at for node in memory.nodes("item")]

    later = float(int(time.time()) + 1000)
    assert until(None) == [None]
    assert until(later) == [later]
    assert until(None) == [None]
    assert until(time.time() - 1) == []


def test_all_or_nothing(memory):
    memory.add_interaction({"id": "p", "text": "a prompt"})
    version = memory.stats().version
    with pytest.raises(KindConflict, match=r"'p' is the id of a prompt already, so it cannot be a item"):
        memory.put([note("1", "one"), {"id": "p", "type": "item"}])
    with pytest.raises(NodeNotFound, match="'nobody'"):
        memory.put([note("1", "one")], [("fragment/notes/1", "nobody", "cites")])
    assert memory.stats().version == version
    assert "fragment/notes/1" not in memory


@pytest.mark.parametrize(
    ("nodes", "links", "complaint"),
    [
        ("text", (), "The nodes must be a list of them, not 'text'"),
        ({"id": "x"}, (), "The nodes must be a list"),
        ([1], (), "A node is a Node or a dict, not 1"),
        ([{"type": "item"}], (), "A item's id must be a string that is not empty, not None"),
        ([{"id": "x", "type": ""}], (), "The type of a node must be a string"),
        ([{"id": "x", "text": 1}], (), "The text of node 'x' must be a string, not 1"),
        ([Node("x", "item", None, {"type": 1})], (), "'type' of item 'x' is not for attributes"),
        ([Node("x", "item", None, {"a": {1}})], (), "'a' of item 'x' is .1., which JSON cannot hold"),
        (
            [Node("x", "item", None, {}, "elsewhere")],
            (),
            "'x' is of the namespace 'elsewhere', this memory of 'default'",
        ),
        ([Node("x", "item", None, {}, expires_at="now")], (), "expires_at of 'x' must be in seconds since 1970"),
        ([], [("x", "y")], r"A link is a Link or a tuple of source, target and relation, not \('x', 'y'\)"),
        ([], "xyz", "The links must be a list of them"),
        ([{"id": "x"}], [("x", "x", "")], "A relation must be a string that is not empty"),
        ([{"id": "x"}], [Link("x", "x", "y", {"target": 1})], "'target' is no name for the data of a link"),
    ],
)
def test_what_cannot_be_stored_is_named(nodes, links, complaint):
    with MemoryGraph(":memory:", fake) as memory:
        with pytest.raises(InvalidInput, match=complaint):
            memory.put(nodes, links)
        assert len(memory) == 0


def test_vectors_may_be_brought_along(memory):
    given = np.arange(1, 17)
    memory.put([note("1", "some words"), note("2", "other words")], vectors={"fragment/notes/1": given})
    found = memory.vectors(["fragment/notes/2", "fragment/notes/1", "nobody"])
    assert set(found) == {"fragment/notes/1", "fragment/notes/2"}
    assert np.allclose(found["fragment/notes/1"], unit(given))
    assert np.allclose(found["fragment/notes/2"], unit(fake(["other words"])[0]))
    with pytest.raises(InvalidInput, match="There is a vector for 'nobody', which is none of the nodes"):
        memory.put([note("1", "one")], vectors={"nobody": given})


def test_namespaces_are_kept_apart(tmp_path):
    with MemoryGraph(tmp_path / "g.db", fake) as one, MemoryGraph(tmp_path / "g.db", fake, namespace="two") as two:
        one.put([note("1", "of one")])
        assert two.put([note("1", "of two")]) == ["fragment/notes/1"]
        assert (one.get("fragment/notes/1").text, two.get("fragment/notes/1").text) == ("of one", "of two")
        assert np.allclose(two.vectors(["fragment/notes/1"])["fragment/notes/1"], unit(fake(["of two"])[0]))
        assert two.recall("of one", collection="notes").texts == ["of two"]


# --- reading many -----------------------------------------------------------------------------------------------


def test_many_are_read_in_the_order_asked_for(memory):
    memory.put([note(str(n), f"text {n}") for n in range(5)])
    ids = ["fragment/notes/3", "nobody", "fragment/notes/0", "fragment/notes/3"]
    assert [node.text for node in memory.get_many(ids)] == ["text 3", "text 0", "text 3"]
    assert memory.get_many([]) == []
    assert memory.vectors([]) == {}
    memory.put([{"id": "silent", "type": "note", "text": "a note has no vector"}])
    assert memory.vectors(["silent"]) == {}
    with pytest.raises(InvalidInput, match="An id must be a string"):
        memory.get_many([1])


def test_vectors_that_are_lost_are_said_to_be(tmp_path, monkeypatch):
    with MemoryGraph(tmp_path / "g.json", fake) as memory:
        memory.put([note("1", "words")])
        memory.add_interaction("more words")
    for path in tmp_path.glob("g.json.*"):
        if re.search(r"\.(faiss|npy|vectors\.json)$", path.name):
            path.unlink()
    with MemoryGraph(tmp_path / "g.json", fake) as memory, pytest.raises(EmbeddingsMissing, match="reindex"):
        memory.vectors(["fragment/notes/1"])


# --- searching in collections -----------------------------------------------------------------------------------


def test_searches_keep_to_collections_while_these_grow_and_shrink(memory):
    expected = {"red": set(), "blue": set()}
    rng = np.random.default_rng(7)
    for turn in range(6):
        for colour in expected:
            keys = [f"{turn}.{n}" for n in range(int(rng.integers(1, 6)))]
            memory.put([note(key, f"the same words {key}", colour) for key in keys])
            expected[colour] |= {f"fragment/{colour}/{key}" for key in keys}
        memory.add_interaction("the same words", "the same words")
        for colour, ids in expected.items():
            if turn % 2 and ids:
                gone = min(ids)
                memory.forget(gone)
                ids.discard(gone)
            assert set(memory.recall("the same words", 100, collection=colour).ids) == ids
            assert set(memory.similar("the same words", 100, kinds="fragment", collection=colour).ids) == ids
    both = set(memory.recall("the same words", 100, collection=["red", "blue", "green"]).ids)
    assert both == expected["red"] | expected["blue"]
    assert memory.recall("the same words", collection="green").ids == []
    assert memory.context("the same words", collection="red").text
    with pytest.raises(InvalidInput, match="must be strings, not 7"):
        memory.recall("words", collection=7)


def test_collections_are_known_again_after_opening(tmp_path):
    for _ in range(3):
        with MemoryGraph(tmp_path / "g.db", fake) as memory:
            memory.put([note(f"{n}", "words", "big") for n in range(len(memory), len(memory) + 700)])
            assert len(memory.recall("words", 5000, collection="big")) == len(memory)


def test_conditions_lead_into_nested_objects(memory):
    memory.put(
        [
            note("1", "words", metadata={"author": "Ana", "at": {"page": 3}}, **{"a.b": 1}),
            note("2", "words", metadata={"author": "Ben", "a.b": {"c": 5}}),
        ]
    )

    def found(where):
        return [one.rpartition("/")[2] for one in sorted(memory.recall("words", where=where).ids)]

    assert found({"metadata.author": "Ana"}) == ["1"]
    assert found({"metadata.author": {"in": ["Ben", "Eve"]}}) == ["2"]
    assert found({"metadata.at.page": {"gte": 3}}) == ["1"]
    assert found({"metadata.at.page": {"exists": False}}) == ["2"]
    assert found({"a.b": 1}) == ["1"], "an attribute of that very name comes first"
    assert found({"metadata.a.b.c": 5}) == ["2"]
    assert found({"metadata.nothing.there": {"ne": 1}}) == ["1", "2"]


def test_a_condition_that_is_asked_again_reads_only_what_changed(memory, monkeypatch):
    memory.put([note(str(n), "words", stars=n % 3) for n in range(30)])
    read, at_rows = [], memory._store.at_rows
    monkeypatch.setattr(memory._store, "at_rows", lambda rows: read.extend(rows) or at_rows(rows))

    def found(stars, **options):
        read.clear()
        hits = memory.similar("words", 100, kinds="fragment", where={"stars": stars}, **options)
        return sorted(int(one.rpartition("/")[2]) for one in hits.ids), len(read) - len(hits)

    twos = list(range(2, 30, 3))
    assert found(2) == (twos, 30)
    assert found(2) == (twos, 0)
    assert found(1)[0] == list(range(1, 30, 3))
    assert found(2) == (twos, 0), "others were asked between"
    memory.update("fragment/notes/3", metadata={"stars": 2})
    memory.forget("fragment/notes/2")
    changed = sorted({*twos, 3} - {2})
    assert found(2) == (changed, 1)
    memory.link("fragment/notes/3", "fragment/notes/4", "next")
    assert found(2) == (changed, 0)
    for stars in range(40):
        found({"gte": stars})
    assert found(2)[0] == changed
    memory.put([note("x", "words", "other", stars=2), note("100", "words", stars=2)])
    assert found(2, collection="notes")[0] == [*changed, 100]
    memory.put([note("2", "words", stars=2)])  # it is there again
    assert found(2, collection="notes")[0] == sorted([*changed, 2, 100])


@given(
    st.lists(
        st.tuples(st.sampled_from("pufl"), st.integers(0, 5), st.integers(0, 2), st.booleans()), min_size=1, max_size=15
    )
)
def test_what_is_remembered_of_conditions_is_what_is_true(steps):
    with MemoryGraph(":memory:", fake) as memory:
        held = {}
        for step, key, stars, asks in steps:
            node_id = f"fragment/notes/{key}"
            if step == "p":
                memory.put([note(str(key), "words", stars=stars)])
                held[key] = stars
            elif step == "u" and key in held:
                memory.update(node_id, metadata={"stars": stars})
                held[key] = stars
            elif step == "f":
                memory.forget([node_id])
                held.pop(key, None)
            elif step == "l" and key in held and stars in held and key != stars:
                memory.link(node_id, f"fragment/notes/{stars}", "next")
            if asks:
                for least in (0, 1, 2):
                    found = memory.recall("words", 10, kinds="fragment", where={"stars": {"gte": least}}).ids
                    assert sorted(found) == [f"fragment/notes/{k}" for k, v in sorted(held.items()) if v >= least]


# --- many messages ----------------------------------------------------------------------------------------------

TALK = [
    {"text": "You are kind", "role": "system"},
    {"text": "Is it raining?", "name": "Ana"},
    {"text": "let me look", "role": "assistant"},
    {"text": "sunny", "role": "tool", "id": "t"},
    {"text": "No, it is sunny", "role": "assistant", "metadata": {"model": "m"}},
    {"text": "elsewhere", "session_id": "other"},
    {"text": "Thanks", "timestamp": "2026-01-02T03:04:05Z"},
    {"text": "You are welcome", "role": "assistant", "id": "last"},
]


def shape(memory):
    """Return nodes and links with made ids replaced by texts, and without times."""
    names = {node.id: node.text or node.id for node in memory}
    nodes = [(n.kind, names[n.id], {k: v for k, v in n.attributes.items() if k != "timestamp"}) for n in memory]
    links = sorted(
        (names[e.source], e.relation, names[e.target])
        for node in memory
        for e in memory.links(node.id, direction="out")
    )
    return json.loads(json.dumps([nodes, links]))


def test_many_messages_are_those_messages_one_by_one(memory):
    with MemoryGraph(":memory:", fake) as other:
        expected = [other.add_message(**{"session_id": "s", **one}) for one in TALK]
        version = memory.stats().version
        recorded = memory.add_messages(TALK, "s")
        assert memory.stats().version == version + 1, "one transaction"
        assert shape(memory) == shape(other)
        assert [(r.prompt is None, r.response is None, r.session) for r in recorded] == [
            (r.prompt is None, r.response is None, r.session) for r in expected
        ]
    assert memory.get("last").kind == "response"
    assert memory.get(recorded[6].message).timestamp == "2026-01-02T03:04:05+00:00"
    more = memory.add_messages([{"text": "and one more", "role": "assistant"}], "s")
    assert more[0].prompt == recorded[6].prompt, "it answers what was asked before this call"
    assert "id" not in TALK[0], "what was given is not changed"


def test_messages_said_again_under_their_ids_are_the_same(memory):
    talk = [{**one, "id": f"m{number}"} for number, one in enumerate(TALK)]
    memory.add_messages(talk, "s")
    before, version = shape(memory), memory.stats().version
    memory.add_messages(talk, "s")
    assert (shape(memory), memory.stats().version) == (before, version)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ("hello", "The messages must be a list of dicts, not 'hello'"),
        ([{"text": "x"}, "hello"], "Message 1 must be a dict of the arguments of add_message: 'hello'"),
        ([{"text": "x"}, {"role": "user"}], "Message 1: The text of prompt .* must be a string, not None"),
        ([{"text": "x", "role": "king"}], "Message 0: 'king' is no role of a message"),
        ([{"text": "x", "mood": "good"}], "Message 0 must be a dict of the arguments of add_message: .*mood"),
        ([{"text": "x", "session_id": 5}], "Message 0: A session's id must be a string"),
    ],
)
def test_a_message_that_cannot_be_stored_is_named_and_none_is(messages, complaint):
    with MemoryGraph(":memory:", Fake()) as memory:
        with pytest.raises(InvalidInput, match=complaint):
            memory.add_messages(messages)
        assert len(memory) == 0


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("name", ["g.db", "g.json"])
@pytest.mark.parametrize(
    ("where", "gone"),
    [
        ({"stars": {"lt": 3}}, {"m0", "m1", "m2"}),
        ({"or": [{"stars": 0}, {"by.name": "ana"}]}, {"m0", "m5"}),
        ({"topic": "a", "not": {"stars": {"in": [0, 2]}}}, {"m4"}),
        ({"stars": {"exists": False}, "topic": "none"}, set()),
    ],
    ids=str,
)
def test_forgetting_takes_the_conditions_of_recall(tmp_path, secure, name, where, gone):
    with MemoryGraph(tmp_path / name, fake) as memory:
        for number in range(5):
            said = {"stars": number, "topic": "ab"[number % 2]}
            memory.add_message(f"number {number}", "user", id=f"m{number}", metadata=said)
        memory.add_message("number 5", "user", id="m5", metadata={"by": {"name": "ana"}})
        assert {node.id for node in memory.nodes("prompt", where=where)} == gone
        assert set(memory.forget(where=where, secure=secure).ids) == gone
        assert {node.id for node in memory.nodes("prompt")} == {f"m{number}" for number in range(6)} - gone


def test_an_empty_condition_does_not_forget_everything():
    with MemoryGraph(":memory:", fake) as memory:
        memory.add_messages([{"text": "a", "role": "user", "id": "m1"}, {"text": "b", "role": "user", "id": "m2"}])
        with pytest.raises(InvalidInput, match="delete the file"):
            memory.forget(where={})
        assert len(memory) == 2
        assert memory.forget("m1", where={}).ids == ("m1",)


@pytest.mark.parametrize("secure", [False, True])
def test_forgetting_takes_sessions_along_and_nothing_else_that_something_belongs_to(tmp_path, secure):
    with MemoryGraph(tmp_path / "g.db", fake) as memory:
        memory.put([{"id": "ana", "type": "entity"}, {"id": "team", "type": "entity"}], [("ana", "team", "belongs_to")])
        memory.add_message("hello", session_id="s", id="m")
        assert memory.forget(["ana", "m"], secure=secure).ids == ("ana", "m", "s")
        assert [node.id for node in memory] == ["team"]


def test_a_block_that_reads_and_then_writes_is_not_disturbed(memory):
    """Threads that count up what they read lose no count."""
    memory.put([{"id": "n", "type": "counter", "count": 0}])

    def count():
        for _ in range(20):
            with memory.exclusive(), memory.exclusive():
                memory.put([{"id": "n", "type": "counter", "count": memory.get("n").attributes["count"] + 1}])

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.get("n").attributes["count"] == 80


@pytest.mark.parametrize("name", ["m.json", "m.db", ":memory:"])
def test_reading_vectors_and_searching_do_not_wait_for_each_other(tmp_path, name):
    with MemoryGraph(name if name == ":memory:" else tmp_path / name, Fake()) as memory:
        memory.add_many([(f"thing {number}",) for number in range(50)])
        ids, stop, done = [node.id for node in memory.nodes("prompt")], time.monotonic() + 1, []

        def work(call):
            while time.monotonic() < stop:
                call()
            done.append(call)

        calls = [lambda: memory.vectors(ids), lambda: memory.similar("thing 7")] * 2
        threads = [threading.Thread(target=work, args=[call], daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(done) == len(threads)
