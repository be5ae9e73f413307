"""The mem0-shaped door: the calls and answers of mem0, on a memory that every other door reads."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
import subprocess
import sys
import threading
import warnings
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import environment, fake

from raeburnmemory import MemoryGraph
from raeburnmemory._optional import installed
from raeburnmemory.compat.mem0 import (
    AsyncMemory,
    LLMError,
    Memory,
    MemoryNotFound,
    ValidationError,
    VerbatimWarning,
)
from raeburnmemory.errors import InvalidInput, MissingDependency, NodeNotFound
from raeburnmemory.importers import import_file

PLACES = ["m.json", "m.db", ":memory:"]


def opened(place=":memory:", **options):
    return Memory(place, embedding_model=fake, **options)


@pytest.fixture(params=PLACES)
def memory(request, tmp_path):
    place = request.param if request.param == ":memory:" else tmp_path / request.param
    with opened(place) as memory:
        yield memory


def add(memory, text, **options):
    """Add a text as it is; return its id."""
    options = options or {"user_id": "ana"}
    (result,) = memory.add(text, infer=False, **options)["results"]
    return result["id"]


def texts(answer):
    return [item["memory"] for item in answer["results"]]


# --- shapes -----------------------------------------------------------------------------------------------------


def test_what_was_added_is_answered_as_mem0_answers(memory):
    before = datetime.now(timezone.utc).isoformat()
    answer = memory.add(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "I like hiking", "name": "Ana"},
            {"role": "assistant", "content": "Noted"},
        ],
        user_id="ana",
        agent_id="guide",
        metadata={"topic": "sport"},
        infer=False,
    )
    first, second = answer["results"]
    assert first == {"id": first["id"], "memory": "I like hiking", "event": "ADD", "actor_id": "Ana", "role": "user"}
    assert second == {"id": second["id"], "memory": "Noted", "event": "ADD", "actor_id": None, "role": "assistant"}
    item = memory.get(first["id"])
    assert before <= item["created_at"] <= datetime.now(timezone.utc).isoformat()
    assert item == {
        "id": first["id"],
        "memory": "I like hiking",
        "hash": hashlib.md5(b"I like hiking").hexdigest(),
        "metadata": {"topic": "sport"},
        "score": None,
        "created_at": item["created_at"],
        "updated_at": item["created_at"],
        "user_id": "ana",
        "agent_id": "guide",
        "actor_id": "Ana",
        "role": "user",
    }
    without_score = {name: value for name, value in item.items() if name != "score"}
    assert memory.get_all(filters={"user_id": "ana"})["results"][0] == without_score
    (found,) = memory.search("hiking", filters={"user_id": "ana"}, top_k=1)["results"]
    assert 0 < found.pop("score") <= 1
    assert found == without_score
    assert memory.get("nothing") is None
    assert "metadata" in memory.get(add(memory, "bare"))
    assert memory.get(add(memory, "bare"))["metadata"] is None


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        ("a text", ["a text"]),
        ({"role": "user", "content": "a dict"}, ["a dict"]),
        ([{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}], ["one", "two"]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "text", "text": "this"}]}],
            ["see this"],
        ),
        ([{"role": "tool", "content": "42"}], ["42"]),
        ([], []),
    ],
)
def test_messages_of_every_form(messages, kept):
    with opened() as memory:
        assert texts(memory.add(messages, user_id="ana", infer=False)) == kept
        assert texts(memory.get_all(filters={"user_id": "ana"})) == kept


def test_messages_without_text_are_left_out_and_named(memory, caplog):
    given = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
        {"content": "nobody"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        "loose",
        {"role": "user", "content": "kept"},
    ]
    assert texts(memory.add(given, user_id="ana", infer=False)) == ["kept"]
    assert len([r for r in caplog.records if "without a role or text" in r.message]) == 4


def test_metadata_comes_back_as_it_was_and_filters(memory):
    metadata = {
        "source": "chat",
        "n": 7,
        "ratio": 0.5,
        "none": None,
        "nested": {"a": [1, {"b": None}]},
        "größe": "日本語",
        "dotted.name": 1,
        "name": "not a speaker",
        "type": "t",
        "text": "t",
        "timestamp": 12,
        "collection": "c",
        "key": ["k"],
        "metadata": {"metadata": 1},
        "deleted": False,
        "updated_at": "never",
        "and": 1,
        "not": "x",
        "hash": "h",
        "data": "d",
    }
    one = add(memory, "told", user_id="ana", metadata=metadata)
    add(memory, "another", user_id="ana")
    assert memory.get(one)["metadata"] == metadata
    for name, value in metadata.items():
        if value is not None and not isinstance(value, (dict, list)) and name != "updated_at":
            assert texts(memory.get_all(filters={"user_id": "ana", name: value})) == ["told"], name
    memory.get(one)["metadata"]["nested"]["a"].append(2)
    assert memory.get(one)["metadata"] == metadata
    memory.update(one, metadata={"n": 8, "name": "changed"})
    assert memory.get(one)["metadata"] == {**metadata, "n": 8, "name": "changed"}


def test_identity_is_set_by_arguments_and_not_by_metadata(memory, caplog):
    one = add(memory, "mine", user_id=" ana ", metadata={"user_id": "ben", "run_id": "r", "actor_id": "x", "a": 1})
    assert memory.get(one)["user_id"] == "ana"
    assert memory.get(one)["metadata"] == {"a": 1}
    assert {"run_id", "actor_id"}.isdisjoint(memory.get(one))
    memory.update(one, metadata={"user_id": "ben", "a": 2})
    assert (memory.get(one)["user_id"], memory.get(one)["metadata"]) == ("ana", {"a": 2})
    assert len([r for r in caplog.records if "identity fields" in r.message]) == 4
    assert memory.get(add(memory, "by number", user_id=7))["user_id"] == "7"


def test_when_it_was_said(memory):
    old = add(memory, "long ago", user_id="ana", metadata={"created_at": "2020-05-01T10:00:00+02:00"})
    assert memory.get(old)["created_at"] == "2020-05-01T08:00:00+00:00"
    new = add(memory, "then", user_id="ana", timestamp=0, metadata={"created_at": "x"})
    assert memory.get(new)["created_at"] == memory.get(new)["updated_at"] == "1970-01-01T00:00:00+00:00"
    memory.update(old, "long ago indeed")
    item = memory.get(old)
    assert item["created_at"] == "2020-05-01T08:00:00+00:00"
    assert item["updated_at"] > "2026"
    found = memory.get_all(filters={"user_id": "ana", "created_at": {"lt": "2000"}})
    assert texts(found) == ["then"]


# --- scopes and filters -----------------------------------------------------------------------------------------


def test_who_is_meant_must_be_said(memory):
    with pytest.raises(ValidationError, match="At least one of 'user_id', 'agent_id', or 'run_id'") as caught:
        memory.add("x")
    assert (caught.value.error_code, caught.value.details["provided_ids"]["user_id"]) == ("VALIDATION_001", None)
    assert isinstance(caught.value, ValueError)
    for call in (
        lambda: memory.search("x"),
        memory.get_all,
        lambda: memory.search("x", filters={"topic": "a"}),
        lambda: memory.search("x", filters={"OR": [{"user_id": "ana"}]}),
        lambda: memory.search("x", filters={"user_id": None}),
        lambda: memory.get_all(limit=5),
        memory.delete_all,
    ):
        with pytest.raises(InvalidInput, match="t least one"):
            call()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda m: m.add("x", user_id=" "), "empty"),
        (lambda m: m.add("x", user_id="a b"), "whitespace"),
        (lambda m: m.add("x", user_id={"in": ["a"]}), "one identifier"),
        (lambda m: m.add(5, user_id="a"), "messages must be str, dict, or list"),
        (lambda m: m.add("x", user_id="a", memory_type="episodic"), "memory_type"),
        (lambda m: m.add("x", user_id="a", expiration_date="soon"), "YYYY-MM-DD"),
        (lambda m: m.add("x", user_id="a", metadata={"a": {1}}, infer=False), "JSON"),
        (lambda m: m.search("", filters={"user_id": "a"}), "query"),
        (lambda m: m.search("x", filters={"user_id": "a"}, top_k=-1), "-1"),
        (lambda m: m.search("x", filters={"user_id": "a"}, top_k=True), "True"),
        (lambda m: m.search("x", filters={"user_id": "a"}, threshold=2), "threshold"),
        (lambda m: m.search("x", filters=["a"]), "filters"),
        (lambda m: m.search("x", filters={"user_id": "a", "n": {"above": 1}}), "above"),
        (lambda m: m.search("x", filters={"user_id": "a", "n": {}}), "no operator"),
        (lambda m: m.search("x", filters={"user_id": "a", "OR": []}), "OR"),
        (lambda m: m.search("x", filters={"user_id": "a", "NOT": {"n": 1}}), "NOT"),
        (lambda m: m.get_all(filters={"user_id": "a", "n": {"$gt": 1}}), r"operator: \$gt\. Choose one of: .*gt"),
        (lambda m: m.get_all(filters={"user_id": "a", "$or": [{"n": 1}]}), r"'\$or' is no operator .* Write 'OR'"),
        (lambda m: m.search("x", filters={"user_id": "a", "not": [{"n": 1}]}), "'not' is no operator .* Write 'NOT'"),
        (lambda m: m.update("x"), "At least one of text"),
        (lambda m: m.get(5), "5"),
        (lambda m: m.get(""), "''"),
    ],
)
def test_what_cannot_be_is_an_error_of_mem0s_kind(call, named):
    with opened() as memory, pytest.raises(ValueError, match=named) as caught:
        call(memory)
    assert isinstance(caught.value, InvalidInput)


def test_memories_that_are_not_there(memory):
    for call in (lambda: memory.update("gone", "x"), lambda: memory.delete("gone")):
        with pytest.raises(MemoryNotFound, match="Memory with id gone not found") as caught:
            call()
        assert isinstance(caught.value, (ValueError, LookupError, NodeNotFound))
    assert memory.history("gone") == []


ROWS = [
    {"user_id": "ana", "agent_id": "x", "metadata": {"n": 1, "tag": "Red apple", "list": ["a", "b"]}},
    {"user_id": "ana", "run_id": "r1", "metadata": {"n": 2, "tag": "green"}},
    {"user_id": "ana", "metadata": {"n": 3, "day": "2026-01-05"}},
    {"user_id": "ben", "agent_id": "x", "metadata": {"n": 4, "tag": "red"}},
    {"agent_id": "x", "metadata": {"n": 5, "tag": None}},
    {"run_id": "r1", "metadata": {"n": 6}},
]


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({"user_id": "ana"}, [1, 2, 3]),
        ({"agent_id": "x"}, [1, 4, 5]),
        ({"user_id": "ana", "agent_id": "x"}, [1]),
        ({"user_id": "*"}, [1, 2, 3, 4]),
        ({"user_id": "nobody"}, []),
        ({"user_id": "*", "tag": "*"}, [1, 2, 4]),
        ({"user_id": "ana", "n": {"gte": 2}}, [2, 3]),
        ({"user_id": "ana", "n": {"gt": 1, "lt": 3}}, [2]),
        ({"user_id": "ana", "n": {"in": [1, 3]}}, [1, 3]),
        ({"user_id": "ana", "n": [1, 3]}, [1, 3]),
        ({"user_id": "ana", "n": {"nin": [1, 3]}}, [2]),
        ({"user_id": "ana", "tag": {"ne": "green"}}, [1]),
        ({"user_id": "*", "tag": {"contains": "red"}}, [4]),
        ({"user_id": "*", "tag": {"icontains": "RED"}}, [1, 4]),
        ({"user_id": "ana", "list": {"contains": "a"}}, [1]),
        ({"user_id": "ana", "day": {"lt": "2026-02-01"}}, [3]),
        ({"user_id": "ana", "AND": [{"n": {"gt": 1}}, {"n": {"lt": 3}}]}, [2]),
        ({"user_id": "ana", "AND": []}, [1, 2, 3]),
        ({"user_id": "ana", "OR": [{"n": 1}, {"tag": "green"}]}, [1, 2]),
        ({"user_id": "ana", "NOT": [{"n": 1}, {"n": 2}]}, [3]),
        ({"user_id": "ana", "OR": [{"AND": [{"n": 1}, {"tag": "green"}]}, {"NOT": [{"tag": "*"}]}]}, [3]),
        ({"AND": [{"user_id": "ana"}, {"n": {"gte": 2}}]}, [2, 3]),
        ({"AND": [{"AND": [{"agent_id": "x"}]}]}, [1, 4, 5]),
        ({"user_id": "ana", "OR": [{"run_id": "r1"}, {"agent_id": "x"}]}, [1, 2]),
    ],
    ids=str,
)
def test_filters(filters, numbers):
    with opened() as memory:
        for row in ROWS:
            add(memory, f"entry {row['metadata']['n']}", **row)
        listed = memory.get_all(filters=filters)["results"]
        assert [item["metadata"]["n"] for item in listed] == numbers
        found = memory.search("entry", filters=filters, threshold=0)["results"]
        assert sorted(item["metadata"]["n"] for item in found) == numbers


def test_both_forms_of_calls(memory):
    for number in range(120):
        add(memory, f"word number{number}", user_id="ana", metadata={"even": number % 2 == 0})
    assert len(memory.get_all(filters={"user_id": "ana"})["results"]) == 20
    assert len(memory.get_all(filters={"user_id": "ana"}, top_k=50)["results"]) == 50
    assert len(memory.get_all(user_id="ana")["results"]) == 100
    assert len(memory.get_all(user_id="ana", limit=7)["results"]) == 7
    assert len(memory.get_all(user_id="ana", top_k=8)["results"]) == 8
    assert len(memory.get_all(user_id="ana", top_k=20)["results"]) == 20
    assert len(memory.search("word", filters={"user_id": "ana"})["results"]) == 20
    assert len(memory.search("word", user_id="ana")["results"]) == 100
    assert len(memory.search("word", user_id="ana", limit=3)["results"]) == 3
    assert len(memory.search("word", user_id="ana", filters={"even": True}, limit=70)["results"]) == 60
    assert memory.search("word", user_id="ana", limit=0) == {"results": []}
    assert len(memory.get_all(user_id="ana", filters={"even": {"ne": True}})["results"]) == 60


def test_a_threshold_is_a_similarity_and_words_without_a_vector_are_found(memory):
    near, far = add(memory, "blue whale"), add(memory, "lunar eclipse tomorrow")
    assert [r["id"] for r in memory.search("blue whale", filters={"user_id": "ana"}, threshold=0.9)["results"]] == [
        near
    ]
    both = memory.search("blue whale", user_id="ana")["results"]
    assert [r["id"] for r in both] == [near, far]
    digits = add(memory, "12345")  # the model knows no word of it
    assert digits in [r["id"] for r in memory.search("12345", filters={"user_id": "ana"}, threshold=0.5)["results"]]
    (explained,) = memory.search("blue whale", filters={"user_id": "ana"}, top_k=1, explain=True)["results"]
    assert explained["score_details"]["semantic_score"] == pytest.approx(1)
    assert explained["score_details"]["final_score"] == explained["score"]
    assert explained["score_details"]["threshold"] == pytest.approx(0.1)


def test_a_reranker_has_the_last_word():
    class Backwards:
        def rerank(self, query, results, count):
            assert (query, count) == ("word", 5)
            return results[::-1]

    for reranker in (Backwards(), Backwards().rerank):
        with opened(reranker=reranker) as memory:
            for number in range(3):
                add(memory, f"word {number}" + " more" * number)
            plain = texts(memory.search("word", user_id="ana", limit=5))
            assert len(plain) == 3
            assert texts(memory.search("word", user_id="ana", limit=5, rerank=True)) == plain[::-1]


def test_what_expired_is_hidden_until_asked_for(memory):
    today = datetime.now(timezone.utc).date()
    gone = add(memory, "old offer", user_id="ana", expiration_date=str(today - timedelta(days=1)))
    last = add(memory, "new offer", user_id="ana", expiration_date=today)
    for answer in (
        memory.get_all(filters={"user_id": "ana"}),
        memory.search("offer", filters={"user_id": "ana"}, threshold=0),
    ):
        assert [item["id"] for item in answer["results"]] == [last]
    assert memory.get(gone)["expiration_date"] == str(today - timedelta(days=1))
    assert len(memory.get_all(filters={"user_id": "ana"}, show_expired=True)["results"]) == 2
    assert len(memory.search("offer", filters={"user_id": "ana"}, show_expired=True)["results"]) == 2
    memory.update(gone, expiration_date=None)
    assert "expiration_date" not in memory.get(gone)
    memory.update(last, expiration_date=date(2020, 1, 1))
    assert [item["id"] for item in memory.get_all(filters={"user_id": "ana"})["results"]] == [gone]
    memory.delete_all(user_id="ana")
    assert memory.get_all(filters={"user_id": "ana"}, show_expired=True) == {"results": []}


# --- history, deleting, forgetting --------------------------------------------------------------------------------


def test_the_history_of_a_memory_survives_its_deletion(tmp_path):
    place = tmp_path / "m.db"
    with opened(place) as memory:
        one = add(memory, "tea", user_id="ana")
        assert memory.update(one, "coffee") == {"message": "Memory updated successfully!"}
        memory.update(one, data="cocoa")
        assert memory.delete(one) == {"message": "Memory deleted successfully!"}
        with pytest.raises(MemoryNotFound):
            memory.update(one, "tea again")
    with opened(place) as memory:
        events = memory.history(one)
        assert [(e["event"], e["old_memory"], e["new_memory"], e["is_deleted"]) for e in events] == [
            ("ADD", None, "tea", False),
            ("UPDATE", "tea", "coffee", False),
            ("UPDATE", "coffee", "cocoa", False),
            ("DELETE", "cocoa", None, True),
        ]
        keys = ["id", "memory_id", "old_memory", "new_memory", "event", "created_at", "updated_at", "is_deleted"]
        assert [list(event) for event in events] == [[*keys, "actor_id", "role"]] * 4
        assert {(e["memory_id"], e["created_at"], e["role"]) for e in events} == {
            (one, events[0]["created_at"], "user")
        }
        assert sorted({e["updated_at"] for e in events}) == [e["updated_at"] for e in events]
        assert len({e["id"] for e in events}) == 4
        assert memory.history(one) == events
        assert memory.get(one) is None
        # Nobody finds what was deleted.
        assert memory.memory.recall("cocoa coffee tea").ids == []
        assert texts(memory.get_all(filters={"user_id": "ana"}, show_expired=True)) == []


def test_what_is_forgotten_for_good_is_in_no_history_and_no_file(tmp_path):
    place = tmp_path / "m.db"
    with opened(place) as memory:
        one = add(memory, "xylophone", user_id="ana")
        memory.update(one, "zeppelin")
        memory.delete(one)
        other = add(memory, "kept", user_id="ben")
        memory.memory.forget(where={"user_id": "ana"}, secure=True)
        assert memory.history(one) == []
        assert texts(memory.get_all(filters={"user_id": "ben"})) == ["kept"]
        assert len(memory.history(other)) == 1
        for file in tmp_path.iterdir():
            held = file.read_bytes()
            assert b"xylophone" not in held, file
            assert b"zeppelin" not in held, file


def test_reset_forgets_the_collection_and_nothing_else(memory):
    other = Memory(memory.memory, collection="other")
    memory.memory.add_interaction("a question", "an answer", session_id="s")
    memory.memory.put(
        [{"id": "fragment/mem0/x", "type": "fragment", "text": "a page", "collection": "mem0", "key": "x"}]
    )
    one, two, kept = add(memory, "one"), add(memory, "two"), add(other, "three")
    memory.delete(two)
    assert memory.reset() is None
    assert memory.get_all(filters={"user_id": "ana"}) == {"results": []}
    assert memory.history(one) == memory.history(two) == []
    assert other.get(kept)["memory"] == "three"
    assert memory.memory.stats().kinds == {"fragment": 1, "memory": 1, "prompt": 1, "response": 1, "session": 1}


SCOPES = st.fixed_dictionaries({}, optional={n: st.sampled_from(["a", "b"]) for n in ("user_id", "agent_id", "run_id")})
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), SCOPES, st.sampled_from(["tea", "coffee", "ice cream", "?"])),
        st.tuples(st.just("update"), st.integers(0, 9), st.sampled_from(["tea", "milk", "?"])),
        st.tuples(st.just("delete"), st.integers(0, 9), st.none()),
        st.tuples(st.just("delete_all"), SCOPES, st.none()),
        st.tuples(st.just("reset"), st.none(), st.none()),
    ),
    max_size=12,
)


def matching(model, scope):
    return [key for key, (own, text) in model.items() if text is not None and scope.items() <= own.items()]


@given(steps=STEPS)
def test_any_history_against_a_dict(steps):
    """Deletes touch nothing outside their scope; every event of every memory is told, in order."""
    graph = MemoryGraph(":memory:", fake)
    graph.put(
        [{"id": "memory/elsewhere/x", "type": "memory", "text": "tea", "user_id": "a", "collection": "elsewhere"}]
    )
    before = graph.get("memory/elsewhere/x")
    memory, model, told = Memory(graph), {}, {}
    for step, what, text in steps:
        keys = list(model)
        key = keys[what % len(keys)] if step in {"update", "delete"} and keys else "none"
        if step == "add" and not what:
            with pytest.raises(ValidationError):
                memory.add(text, infer=False)
        elif step == "add":
            key = add(memory, text, **what)
            model[key], told[key] = (what, text), [("ADD", None, text)]
        elif step == "reset":
            memory.reset()
            model, told = {}, {}
        elif step == "delete_all" and not what:
            with pytest.raises(InvalidInput):
                memory.delete_all()
        elif step == "delete_all":
            memory.delete_all(**what)
            for key in matching(model, what):
                told[key].append(("DELETE", model[key][1], None))
                model[key] = (model[key][0], None)
        elif model.get(key, (None, None))[1] is None:
            with pytest.raises(MemoryNotFound):
                memory.update(key, text) if step == "update" else memory.delete(key)
        elif step == "update":
            memory.update(key, text)
            told[key].append(("UPDATE", model[key][1], text))
            model[key] = (model[key][0], text)
        else:
            memory.delete(key)
            told[key].append(("DELETE", model[key][1], None))
            model[key] = (model[key][0], None)
    for name in ("user_id", "agent_id", "run_id"):
        for scope in ({name: "a"}, {name: "b"}, {name: "a", "user_id": "b"}):
            listed = memory.get_all(filters=scope, top_k=100)["results"]
            assert [(item["id"], item["memory"]) for item in listed] == [
                (key, model[key][1]) for key in matching(model, scope)
            ]
            assert all({n: item[n] for n in model[item["id"]][0]} == model[item["id"]][0] for item in listed)
            found = memory.search("tea", filters=scope, threshold=0, top_k=100)["results"]
            assert {item["id"] for item in found} <= set(matching(model, scope))
    for key, events in told.items():
        assert [(e["event"], e["old_memory"], e["new_memory"]) for e in memory.history(key)] == events
    assert graph.get("memory/elsewhere/x") == before
    graph.close()


def test_what_was_deleted_meanwhile_is_not_brought_back(tmp_path):
    """Two open memories change one: after a deletion, no update."""
    with opened(tmp_path / "m.db") as one, opened(tmp_path / "m.db") as other:
        keys = [add(one, f"number {number}") for number in range(20)]
        lost = []

        def update():
            for key in keys:
                try:
                    other.update(key, "changed")
                except MemoryNotFound:
                    lost.append(key)

        thread = threading.Thread(target=update)
        thread.start()
        for key in reversed(keys):
            one.delete(key)
        thread.join()
        assert one.get_all(user_id="ana") == {"results": []}
        for key in keys:
            events = [event["event"] for event in one.history(key)]
            assert events == (["ADD", "DELETE"] if key in lost else ["ADD", "UPDATE", "DELETE"])


# --- with and without a model ------------------------------------------------------------------------------------


def test_without_a_model_messages_are_kept_as_they_are_and_it_is_said_once():
    with opened() as memory:
        with pytest.warns(VerbatimWarning, match="no model") as caught:
            answer = memory.add("I moved to Vienna", user_id="ana", prompt="only places")
        assert len(caught) == 1
        assert [(r["memory"], r["event"]) for r in answer["results"]] == [("I moved to Vienna", "ADD")]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            memory.add("again", user_id="ana")
            opened().add("quietly", user_id="ana", infer=False)
        procedure = memory.add(
            [{"role": "user", "content": "go"}, {"role": "assistant", "content": "went"}],
            agent_id="bot",
            memory_type="procedural_memory",
        )
        assert texts(procedure) == ["user: go\nassistant: went"]
        assert memory.get(procedure["results"][0]["id"])["metadata"] == {"memory_type": "procedural_memory"}


class Scripted:
    """A model that gives the answers it was given, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, messages):
        self.asked.append(messages)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer)


def test_a_model_extracts_facts_and_replaces_old_ones():
    llm = Scripted(
        {"facts": ["Lives in Vienna", "Has a dog", "Lives in Vienna"]},
        {"facts": ["Lives in Graz", "Has no dog any more", "Likes tea", "Has a dog"]},
        "nothing more",
    )
    with opened(llm=llm, custom_instructions="No hobbies.") as memory:
        first = memory.add("I live in Vienna and have a dog", user_id="ana", metadata={"via": "chat"})
        assert [(r["memory"], r["event"]) for r in first["results"]] == [
            ("Lives in Vienna", "ADD"),
            ("Has a dog", "ADD"),
        ]
        assert [sorted(r) for r in first["results"]] == [["event", "id", "memory"]] * 2
        assert len(llm.asked) == 1, "where there is nothing to replace, nothing more is asked"
        (system, user) = llm.asked[0]
        assert "No hobbies." in system["content"]
        assert "user: I live in Vienna" in user["content"]
        other = add(memory, "Lives in Vienna", user_id="ben")

        def decide(messages):
            entries = json.loads(messages[0]["content"].partition("Entries: ")[2].partition("\n")[0])
            number = {entry["text"]: entry["id"] for entry in entries}
            assert sorted(number) == ["Has a dog", "Lives in Vienna"]
            assert json.loads(messages[0]["content"].partition("New facts: ")[2]) == [
                "Lives in Graz",
                "Has no dog any more",
                "Likes tea",
            ], "what is there word for word is no news"
            return json.dumps(
                {
                    "memory": [
                        {"id": number["Lives in Vienna"], "text": "Lives in Graz", "event": "UPDATE"},
                        {"id": number["Has a dog"], "text": "Has a dog", "event": "DELETE"},
                        {"id": "77", "text": "Likes tea", "event": "UPDATE"},
                        {"id": "78", "text": "x", "event": "DELETE"},
                        {"text": "x", "event": "JUMP"},
                        {"id": "0", "text": "x", "event": "NONE"},
                    ]
                }
            )

        def both(messages):
            return decide(messages) if "New facts: " in messages[0]["content"] else llm(messages)

        second = memory.add("I moved", user_id="ana", llm=both, prompt="Moves.")
        assert "Moves." in llm.asked[1][0]["content"]
        assert "No hobbies." not in llm.asked[1][0]["content"]
        updated, gone, new = second["results"]
        ids = [r["id"] for r in first["results"]]
        assert updated == {
            "id": ids[0],
            "memory": "Lives in Graz",
            "event": "UPDATE",
            "previous_memory": "Lives in Vienna",
        }
        assert gone == {"id": ids[1], "memory": "Has a dog", "event": "DELETE"}
        assert (new["memory"], new["event"]) == ("Likes tea", "ADD")
        assert texts(memory.get_all(filters={"user_id": "ana"})) == ["Lives in Graz", "Likes tea"]
        assert memory.get(ids[0])["metadata"] == {"via": "chat"}
        assert [e["event"] for e in memory.history(ids[1])] == ["ADD", "DELETE"]
        assert memory.get(other)["memory"] == "Lives in Vienna"


@pytest.mark.parametrize(
    "answer",
    [
        '```json\n{"facts": ["tea"]}\n```',
        '<think>hm {"a"}</think>{"facts": ["tea"]}',
        'Sure: {"facts": [{"fact": "tea"}]} !',
    ],
)
def test_answers_of_chatty_models_are_understood(answer):
    with opened(llm=lambda _: answer) as memory:
        assert texts(memory.add("x", user_id="ana")) == ["tea"]


@pytest.mark.parametrize("answer", ["", "no", '{"facts": "tea"}', '{"other": []}', 5, OSError("no network")])
def test_a_model_that_fails_is_an_error_and_nothing_is_written(answer):
    def llm(_):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with opened(llm=llm) as memory:
        with pytest.raises(LLMError, match="Nothing was stored"):
            memory.add("x", user_id="ana")
        assert len(memory.memory) == 0


def test_models_of_every_shape(caplog):
    asked = []

    def create(**given):
        asked.append(given)
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content='{"facts": ["tea"]}'))])

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    with opened(llm=client, llm_model="small") as memory:
        assert texts(memory.add("x", user_id="ana")) == ["tea"]
    assert (asked[0]["model"], asked[0]["response_format"]) == ("small", {"type": "json_object"})
    with pytest.raises(InvalidInput, match="llm_model"):
        opened(llm=client)
    with pytest.raises(InvalidInput, match="int"):
        opened(llm=5)

    class Theirs:
        def generate_response(self, messages, response_format=None):
            return '{"facts": ["coffee"]}' if response_format else "a summary"

    with opened(llm=Theirs()) as memory:
        assert texts(memory.add("x", user_id="ana")) == ["coffee"]
        assert texts(memory.add("x", agent_id="b", memory_type="procedural_memory")) == ["a summary"]

    async def later(_):
        return '{"facts": ["tea"]}'

    with opened(llm=later) as memory, pytest.raises(InvalidInput, match="AsyncMemory"):
        memory.add("x", user_id="ana")


# --- the asynchronous twin ---------------------------------------------------------------------------------------


def test_the_asynchronous_twin_does_the_same():
    async def later(messages):
        await asyncio.sleep(0)
        return '{"facts": ["Likes tea"]}' if "conversation" in messages[0]["content"] else '{"memory": []}'

    async def everything():
        async with AsyncMemory(":memory:", embedding_model=fake, llm=later) as memory:
            (one,) = (await memory.add("I like tea", user_id="ana"))["results"]
            assert one["memory"] == "Likes tea"
            await memory.update(one["id"], "Likes coffee")
            (found,) = (await memory.search("coffee", user_id="ana"))["results"]
            assert found["id"] == one["id"]
            assert (await memory.get(one["id"]))["memory"] == "Likes coffee"
            assert len((await memory.get_all(filters={"user_id": "ana"}))["results"]) == 1
            await asyncio.gather(*(memory.add(f"n {n}", agent_id="b", infer=False) for n in range(10)))
            assert len((await memory.get_all(agent_id="b"))["results"]) == 10
            await memory.delete(one["id"])
            assert [e["event"] for e in await memory.history(one["id"])] == ["ADD", "UPDATE", "DELETE"]
            await memory.delete_all(agent_id="b")
            assert (await memory.get_all(agent_id="b"))["results"] == []
            await memory.reset()
            assert len(memory.memory) == 0

    asyncio.run(everything())


PUBLIC = ["add", "search", "get", "get_all", "update", "delete", "delete_all", "history", "reset"]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_twins_have_the_same_signature(name):
    assert inspect.signature(getattr(Memory, name)) == inspect.signature(getattr(AsyncMemory, name))
    assert inspect.iscoroutinefunction(getattr(AsyncMemory, name))
    assert getattr(AsyncMemory, name).__doc__ == getattr(Memory, name).__doc__


# --- other doors, namespaces, configuration ----------------------------------------------------------------------


def test_memories_are_nodes_that_other_doors_find(tmp_path):
    with MemoryGraph(tmp_path / "m.db", fake) as graph:
        memory = Memory(graph)
        one = add(memory, "the code of the door is 77", user_id="ana", metadata={"place": "home"})
        node = graph.get(f"memory/mem0/{one}")
        assert (node.kind, node.text, node.attributes["user_id"]) == ("memory", "the code of the door is 77", "ana")
        assert graph.recall("code of the door", where={"user_id": "ana", "metadata.place": "home"}).ids == [node.id]
        assert graph.similar("code of the door", kinds="memory", collection="mem0").ids == [node.id]
        assert "77" in str(graph.context("code of the door"))
        # And what others write under such an id, mem0's calls find.
        graph.put(
            [{"id": "memory/mem0/mine", "type": "memory", "text": "by hand", "collection": "mem0", "user_id": "ana"}]
        )
        assert memory.get("mine")["memory"] == "by hand"
        assert "mine" in [item["id"] for item in memory.search("by hand", user_id="ana")["results"]]
        memory.close()
        assert graph.get(node.id), "what was given stays open"


def test_memories_imported_from_mem0_are_those_that_were_exported(memory, tmp_path):
    said = [{"role": "user", "content": "I like tea", "name": "Ana"}, {"role": "assistant", "content": "Noted"}]
    memory.add(said, user_id="ana", agent_id="bot", metadata={"topic": "drinks", "key": 1}, infer=False, timestamp=0)
    memory.update(memory.get_all(user_id="ana")["results"][0]["id"], "I like green tea")
    told = memory.get_all(user_id="ana")
    (tmp_path / "told.json").write_text(json.dumps(told))
    with MemoryGraph(":memory:", fake) as graph:
        for _ in range(2):
            import_file(graph, "mem0", tmp_path / "told.json")
        brought = Memory(graph)
        assert brought.get_all(user_id="ana") == told
        assert texts(brought.search("tea", filters={"user_id": "ana", "key": 1}, threshold=0.3)) == ["I like green tea"]
        brought.delete_all(agent_id="bot")
        assert brought.get_all(user_id="ana") == {"results": []}


def test_namespaces_and_collections_are_kept_apart(tmp_path):
    place = tmp_path / "m.db"
    with opened(place, namespace="one") as one, opened(place, namespace="two") as two:
        key = add(one, "tea")
        assert two.get(key) is None
        assert two.get_all(user_id="ana") == two.search("tea", user_id="ana") == {"results": []}
        with pytest.raises(MemoryNotFound):
            two.delete(key)
        two.delete_all(user_id="ana")
        two.reset()
        assert one.get(key)["memory"] == "tea"
        beside = Memory(one.memory, collection="a/b %2F")
        assert beside.get_all(user_id="ana") == {"results": []}
        other = add(beside, "coffee")
        assert (one.get(other), beside.get(other)["memory"]) == (None, "coffee")
        assert texts(one.search("coffee", user_id="ana")) == ["tea"]
        with pytest.raises(InvalidInput, match="namespace"):
            Memory(one.memory, namespace="two")


def test_a_configuration_of_mem0(tmp_path, caplog):
    config = {
        "memory": str(tmp_path / "m.db"),
        "embedding_model": fake,
        "vector_store": {"provider": "qdrant", "config": {"collection_name": "notes", "path": "/nowhere"}},
        "history_db_path": "/nowhere/history.db",
        "llm": lambda _: '{"facts": ["tea"]}',
        "custom_instructions": "Drinks.",
        "version": "v1.1",
    }
    with Memory.from_config(config) as memory:
        assert (memory.collection, memory.custom_instructions) == ("notes", "Drinks.")
        assert texts(memory.add("x", user_id="ana")) == ["tea"]
        assert [node.id.split("/")[1] for node in memory.memory.nodes("memory")] == ["notes"]
    assert "history_db_path, version, vector_store (qdrant)" in caplog.text
    assert AsyncMemory.from_config({"memory": ":memory:", "embedding_model": fake}).collection == "mem0"
    caplog.clear()
    Memory.from_config({"memory": ":memory:", "embedder": {"provider": "langchain", "config": {"model": fake}}}).close()
    assert caplog.text == ""
    for wrong in ({"path": "x"}, 5, {"llm": {"provider": 5, "config": 5}}):
        with pytest.raises(InvalidInput):
            Memory.from_config(wrong)
    with pytest.raises(InvalidInput, match="from_config"):
        Memory({"vector_store": {}})
    with pytest.raises(InvalidInput, match="embedding_model"), opened() as memory:
        Memory(memory.memory, embedding_model=fake)


def test_an_openai_model_in_a_configuration(monkeypatch):
    config = {
        "memory": ":memory:",
        "llm": {
            "provider": "openai",
            "config": {"model": "m", "api_key": "k", "openai_base_url": "http://127.0.0.1:9/v1"},
        },
    }
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependency, match="openai"):
        Memory.from_config(config)


# --- mem0 itself ------------------------------------------------------------------------------------------------

# Those of mem0ai 1.0.11, of which 2.x dropped some.
OLDER = {
    "add": ["messages", "user_id", "agent_id", "run_id", "metadata", "infer", "memory_type", "prompt"],
    "get": ["memory_id"],
    "get_all": ["user_id", "agent_id", "run_id", "filters", "limit"],
    "search": ["query", "user_id", "agent_id", "run_id", "limit", "filters", "threshold", "rerank"],
    "update": ["memory_id", "data", "metadata"],
    "delete": ["memory_id"],
    "delete_all": ["user_id", "agent_id", "run_id"],
    "history": ["memory_id"],
    "reset": [],
}


def run_mem0(source, tmp_path, *arguments):
    """Run a program with mem0, which keeps to itself: what it imports warns, and it reads the environment."""
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        env={**environment(), "HOME": str(tmp_path), "MEM0_DIR": str(tmp_path / "mem0"), "MEM0_TELEMETRY": "False"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


needs_mem0 = pytest.mark.skipif(
    not (installed("mem0") and installed("qdrant_client")),
    reason="comparing with mem0 needs mem0ai and its qdrant-client",
)


@pytest.mark.parametrize("name", PUBLIC)
def test_calls_of_1_x_are_taken(name):
    taken = inspect.signature(getattr(Memory, name)).parameters
    assert set(OLDER[name]) <= set(taken)


@needs_mem0
def test_signatures_are_those_of_the_installed_mem0(theirs):
    found = theirs["signatures"]
    assert len(found) == 2 * len(PUBLIC)
    for whole, parameters in found.items():
        cls, name = whole.split(".")
        ours = inspect.signature(getattr({"Memory": Memory, "AsyncMemory": AsyncMemory}[cls], name)).parameters
        for each, kind, default in parameters:
            if kind == "VAR_KEYWORD":
                continue
            assert each in ours, f"{whole} takes {each}"
            assert ours[each].kind.name == kind, (whole, each)
            own = None if ours[each].default is inspect.Parameter.empty else repr(ours[each].default)
            assert "object object" in str(default) or own == default, (whole, each)


SAME = """
import json, re, sys, zlib
folder = sys.argv[1]
from mem0 import Memory
from mem0.utils.factory import EmbedderFactory, LlmFactory

class Embedder:
    def embed(self, text, memory_action=None):
        row = [0.001] * 16
        for word in re.findall(r"[^\\W\\d_]+", text.lower()):
            row[zlib.crc32(word.encode()) % 16] += 1
        return row
    def embed_batch(self, texts, memory_action=None):
        return [self.embed(text) for text in texts]

EmbedderFactory.create = classmethod(lambda cls, *a, **k: Embedder())
LlmFactory.create = classmethod(lambda cls, *a, **k: None)
memory = Memory.from_config({
    "vector_store": {"provider": "qdrant", "config": {"path": folder + "/q", "on_disk": True, "embedding_model_dims": 16}},
    "history_db_path": folder + "/history.db",
})
"""

PROGRAM = """
def shape(value):
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__

def error(call):
    try:
        call()
    except Exception as exc:
        return [isinstance(exc, ValueError) or type(exc).__name__ == "ValidationError", type(exc).__name__ == "ValidationError"]
    return "no error"

def program(memory):
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "tea with milk", "name": "Ana"},
            {"role": "assistant", "content": "noted, tea"}]
    added = memory.add(said, user_id="ana", agent_id="bot", metadata={"topic": "drinks", "n": 1}, infer=False)
    bare = memory.add("plain coffee", user_id="ana", infer=False)
    memory.add("tea for ben", user_id="ben", metadata={"topic": "drinks"}, infer=False)
    memory.add("dated tea", run_id="r", infer=False, expiration_date="2020-01-01")
    one, two = (result["id"] for result in added["results"])
    answers = [added, bare, memory.get(one), memory.get(bare["results"][0]["id"]), memory.get("00000000-0000-0000-0000-000000000000")]
    listed = memory.get_all(filters={"user_id": "ana"})
    listed["results"].sort(key=lambda item: item["memory"])
    answers.append(listed)
    filtered = [
        {"user_id": "ana"}, {"user_id": "ana", "topic": "drinks"}, {"user_id": "ana", "n": {"gte": 1}},
        {"user_id": "ana", "topic": {"ne": "drinks"}}, {"user_id": "ana", "agent_id": "bot"},
        {"user_id": "ana", "OR": [{"n": 1}, {"n": 2}]}, {"user_id": "ana", "NOT": [{"topic": "drinks"}]},
        {"user_id": "ana", "topic": ["drinks", "food"]}, {"user_id": "ana", "topic": {"in": ["drinks"]}},
        {"user_id": "ana", "AND": [{"n": {"gt": 0}}, {"n": {"lt": 2}}]}, {"run_id": "r"},
    ]
    found = [sorted(i["memory"] for i in memory.get_all(filters=f)["results"]) for f in filtered]
    searched = [sorted(i["memory"] for i in memory.search("tea", filters=f, threshold=0.0)["results"]) for f in filtered]
    shown = [i["memory"] for i in memory.get_all(filters={"run_id": "r"}, show_expired=True)["results"]]
    hit = memory.search("tea with milk", filters={"user_id": "ana"}, top_k=1)
    assert 0 <= hit["results"][0]["score"] <= 1
    answers.append(hit)
    updated = [memory.update(one, "cocoa"), memory.update(one, metadata={"n": 2}), memory.update(one, data="cocoa with cream")]
    after = {k: v for k, v in memory.get(one).items() if k in ("memory", "metadata", "user_id", "role", "hash")}
    gone = [memory.delete(two), memory.get(two)]
    histories = [[{k: e[k] for k in ("event", "old_memory", "new_memory", "is_deleted", "actor_id", "role")} for e in memory.history(i)] for i in (one, two)]
    answers.append(memory.history(one))
    errors = [error(call) for call in (
        lambda: memory.add("x"), lambda: memory.search("x"), lambda: memory.get_all(), lambda: memory.delete_all(),
        lambda: memory.delete(two), lambda: memory.update(two, "x"), lambda: memory.update(one),
        lambda: memory.add("x", user_id="a b"), lambda: memory.add(5, user_id="a"), lambda: memory.search(" ", filters={"user_id": "a"}),
        lambda: memory.add("x", user_id="a", memory_type="y"), lambda: memory.search("x", filters={"user_id": "a", "n": {"above": 1}}),
        lambda: memory.search("x", filters={"user_id": "a"}, top_k=-1), lambda: memory.search("x", filters={"user_id": "a"}, threshold=3),
    )]
    everybody = [memory.delete_all(user_id="ana"), memory.get_all(filters={"user_id": "ana"}), len(memory.get_all(filters={"user_id": "ben"})["results"])]
    memory.reset()
    ended = [memory.get_all(filters={"user_id": "ben"}), memory.history(one)]
    return {"shapes": [shape(a) for a in answers], "found": found, "searched": searched, "shown": shown, "updated": updated,
            "after": after, "gone": gone, "histories": histories, "errors": errors, "everybody": everybody, "ended": ended}
"""


SIGNATURES = """
import inspect
from mem0 import AsyncMemory
signatures = {}
for cls in (Memory, AsyncMemory):
    for name in %r:
        parameters = inspect.signature(getattr(cls, name)).parameters.values()
        told = [(p.name, p.kind.name, None if p.default is p.empty else repr(p.default)) for p in parameters]
        signatures[f"{cls.__name__}.{name}"] = told
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What mem0 says and does, in one process: importing it takes seconds."""
    folder = tmp_path_factory.mktemp("mem0")
    told = 'print(json.dumps({"signatures": signatures, "answers": program(memory)}))'
    return run_mem0("\n".join([SAME, SIGNATURES % PUBLIC, PROGRAM, told]), folder, str(folder))


@needs_mem0
def test_one_program_gets_the_same_from_mem0_and_from_us(theirs):
    scope = {}
    exec(PROGRAM, scope)
    with opened() as memory:
        ours = json.loads(json.dumps(scope["program"](memory)))
    assert ours == theirs["answers"]


def test_nothing_is_logged_above_debug_by_ordinary_calls(memory, caplog):
    with caplog.at_level(logging.INFO):
        one = add(memory, "tea")
        memory.update(one, "coffee")
        memory.search("coffee", user_id="ana")
        memory.delete(one)
        memory.reset()
    assert caplog.text == ""
