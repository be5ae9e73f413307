"""Any text, any id, any shape of the graph, any clock: stored exactly as it was given, or refused with nothing changed."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import math
import os
import pickle
import shutil
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from outside import fake, open_memory, unit

from raeburnmemory import records
from raeburnmemory.errors import InvalidInput, KindConflict, NodeNotFound
from raeburnmemory.hits import Hit, Why
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Batch, Link, Node
from raeburnmemory.store._files import encoder, to_json

QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # syncs are not what is tested here
NAMES = ["g.json", "g.db"]

every_store = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(params=NAMES)
def path(request, tmp_path):
    return tmp_path / request.param


# --- texts and ids ----------------------------------------------------------------------------------------------

ODD = {
    "one character": "x",
    "NUL": "a\0b",
    "combining": "e\u0301 \u0928\u093f \u1112\u1161\u11ab",
    "right to left": "\u202eabc\u202c \u05d0\u05d1 \u061c",
    "emoji": "\U0001f469\u200d\U0001f469\u200d\U0001f466 \U0001f1e9\U0001f1ea",
    "line ends": "a\r\nb\rc\nd\u2028e\u2029f\x85g\x0bh\x0c",
    "a path": "../../etc/passwd",
    "quotes": "'\"`; DROP TABLE nodes; --",
    "__proto__": "__proto__",
    "a dash in front": "--help",
    "format": "%s {0} {{}} ${HOME} \\u0041 &amp;",
    "JSON": '{"nodes": [], "edges": []}',
    "blanks": " \t\u00a0\u200b\ufeff ",
    "the last character": "\U0010ffff\uffff\ufffe",
}
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20) | st.sampled_from(list(ODD.values()))


def storable(text):
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def everything(memory):
    return {node.id: (node.kind, node.text, dict(node.attributes)) for node in memory}, memory.stats().version


@every_store
@given(given=st.fixed_dictionaries({
    "id": any_text, "text": any_text, "answer": any_text, "agent": any_text, "name": any_text, "session": any_text,
    "key": any_text, "value": any_text, "namespace": any_text.map(lambda text: text[:10]),
}))  # fmt: skip
@example(
    given=dict.fromkeys(["id", "answer", "agent", "name", "session", "key", "value", "namespace"], "x")
    | {"text": "\ud800"}
)
def test_any_text_is_stored_as_it_is_or_refused(name, given):
    folder = Path(tempfile.mkdtemp(dir=QUICK))
    try:
        keyed = {given["key"]: given["value"]}
        prompt = {"id": given["id"], "text": given["text"], "metadata": None}
        prompt.pop("metadata")
        agent = {"id": given["agent"], "name": given["name"]}
        response = {"id": given["id"] + "!", "text": given["answer"]}
        ids = [given["id"], response["id"], given["agent"], given["session"]]
        fine = (
            all(map(storable, given.values()))
            and all(ids)
            and given["namespace"]
            and len(set(ids)) == 4
            and given["key"] not in {"id", "type", "text", "timestamp"}
        )
        call = {
            "prompt": prompt,
            "response": response,
            "agent": agent,
            "session_id": given["session"],
            "metadata": keyed,
        }
        if not given["namespace"] or not storable(given["namespace"]):
            with pytest.raises(InvalidInput):
                open_memory(folder / name, namespace=given["namespace"])
            return
        with open_memory(folder / name, namespace=given["namespace"]) as memory:
            before = everything(memory)
            if not fine:
                with pytest.raises(InvalidInput):
                    memory.add_interaction(**call)
                assert everything(memory) == before
                return
            memory.add_interaction(**call)
            found = everything(memory)[0]
        for _ in range(2):  # out of the files
            with open_memory(folder / name, namespace=given["namespace"]) as memory:
                assert everything(memory)[0] == found
                asked, answered = memory.get(given["id"]), memory.get(response["id"])
                assert (asked.text, answered.text) == (given["text"], given["answer"])
                assert asked.attributes[given["key"]] == given["value"]
                assert memory.get(given["agent"]).attributes["name"] == given["name"]
                assert [node.id for node in memory.thread(given["session"])] == [given["id"], response["id"]]
                exported = json.loads(json.dumps(memory.export(False)))
                assert {node["id"]: node.get("text") for node in exported["nodes"]} == {
                    i: f[1] for i, f in found.items()
                }
        with open_memory(folder / name) as memory:
            assert (len(memory) == 0) == (given["namespace"] != "default")
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("what", ODD)
def test_odd_texts_everywhere(path, what):
    odd = ODD[what]
    with open_memory(path) as memory:
        memory.add_interaction(
            {"id": odd, "text": odd, "k" + odd: odd}, {"id": "r" + odd, "text": odd}, "a" + odd, "s" + odd
        )
        memory.link(odd, "a" + odd, odd, **{"d" + odd: odd})
    with open_memory(path) as memory:
        assert memory.get(odd).text == odd
        assert memory.get(odd).attributes["k" + odd] == odd
        links = memory.links(odd, relation=odd)
        assert [(link.source, link.target, link.data) for link in links] == [(odd, "a" + odd, {"d" + odd: odd})]
        assert odd in memory.graph
        assert set(memory.forget([odd, "r" + odd]).ids) >= {odd, "r" + odd}
        assert odd not in memory


@pytest.mark.parametrize("megabytes", [1, pytest.param(10, marks=pytest.mark.long)])
def test_megabytes_of_text(path, megabytes):
    text = "wörd " * (200_000 * megabytes)
    with open_memory(path) as memory:
        memory.add_interaction({"id": "long", "text": text}, {"id": "short", "text": ""})
    with open_memory(path) as memory:
        assert memory.get("long").text == text
        assert memory.get("short").text == ""
        assert memory.similar("wörd", 1).ids == ["long"]


# --- ids --------------------------------------------------------------------------------------------------------


def test_an_id_given_again(path):
    with open_memory(path) as memory:
        for _ in range(2):
            memory.add_interaction({"id": "p", "text": "first"}, {"id": "r", "text": "x"}, "a", "s")
        assert (len(memory), len(memory.links("p"))) == (4, 2)
        memory.add_interaction({"id": "p", "text": "second"})
        assert memory.get("p").text == "second"
        assert memory.history("p")[-1].text == "first"
        for kind in ("r", "a", "s"):
            with pytest.raises(KindConflict, match=f"'{kind}'"):
                memory.add_interaction({"id": kind, "text": "third"})
        assert len(memory) == 4
        assert memory.similar("second", 5).ids == ["p"]
        assert memory.similar("first", 5)[0].score < 0.5  # its vector went with it


def test_a_session_is_named_as_it_was_given(path):
    class Name(str):
        __slots__ = ()

    with open_memory(path) as memory:
        for name in (Name("s"), "s", Name("s")):  # which are equal
            done = memory.add_message("hello", session_id=name), memory.add_interaction("hello", session_id=name)
            assert [type(ids.session) for ids in done] == [type(name), type(name)]


def test_nodes_and_links_are_what_their_fields_are():
    node, link = Node("a", "prompt"), Link("a", "b", "next")
    assert node == Node("a", "prompt", None, {}, "default", None, -1)
    assert link == Link("a", "b", "next", {}, "default", -1)
    assert node.attributes is not Node("a", "prompt").attributes
    assert link.data is not Link("a", "b", "next").data
    for one in (node, link):
        assert (
            copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == dataclasses.replace(one) == one
        )
        for field in dataclasses.fields(one):
            assert dataclasses.replace(one, **{field.name: "other"}) != one
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(one, field.name, "other")


def test_a_hit_is_what_its_fields_are():
    hit = Hit(Node("a", "prompt"), 0.5)
    assert hit == Hit(Node("a", "prompt"), 0.5, None, None, Why(), None, None, None, (), None)
    assert hit.why.legs is not Hit(Node("a", "prompt"), 0.5).why.legs
    assert copy.copy(hit) == copy.deepcopy(hit) == pickle.loads(pickle.dumps(hit)) == dataclasses.replace(hit) == hit
    for field in dataclasses.fields(hit):
        assert dataclasses.replace(hit, **{field.name: "other"}) != hit
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(hit, field.name, "other")


@pytest.mark.parametrize(
    "twins",
    [
        ("key", "KEY", "Key"),
        (unicodedata.normalize("NFC", "Å"), unicodedata.normalize("NFD", "Å"), "\u212b"),
        ("x", "x ", " x", "x\0"),
    ],
)
def test_ids_that_only_look_alike_are_different(path, twins):
    with open_memory(path) as memory:
        for number, twin in enumerate(twins):
            memory.add_interaction({"id": twin, "text": f"number {number}"})
    with open_memory(path) as memory:
        assert [memory.get(twin).text for twin in twins] == [f"number {number}" for number in range(len(twins))]
        memory.forget(twins[0])
        assert [node.id for node in memory.nodes()] == list(twins[1:])


# --- shapes -----------------------------------------------------------------------------------------------------


def test_links_to_oneself_and_in_circles(path):
    with open_memory(path) as memory:
        memory.add_interaction({"id": "p0", "text": "thing"})
        memory.add_interaction({"id": "p1", "text": "thing else"})
        memory.link("p0", "p0", "is")
        memory.link("p0", "p1", "next")
        memory.link("p1", "p0", "next")
        with pytest.raises(NodeNotFound, match="ghost"):
            memory.link("p0", "ghost", "next")
        assert memory.visualise_prompt_chain("p1", 5) == [("p1", "p0"), *[("p0", "p0")] * 4]
        assert {node.id for node in memory.neighbours("p0", direction="both")} == {"p0", "p1"}
        assert memory.recall("thing", k=5).ids
        memory.trace("p0")
    with open_memory(path) as memory:
        assert len(memory.export(False)["edges"]) == 3
        memory.forget("p0")
        assert memory.links("p1", direction="both") == []


@pytest.mark.parametrize("size", [3000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_chain_and_a_fan_beyond_any_recursion(path, size):
    with open_memory(path) as memory:
        memory._store.write(
            Batch(
                nodes=[Node(f"n{i}", "note", f"note {i}") for i in range(size)] + [Node("hub", "note", "hub")],
                links=[Link(f"n{i}", f"n{i + 1}", "derived_from") for i in range(size - 1)]
                + [Link("hub", f"n{i}", "has") for i in range(size)],
            )
        )
    with open_memory(path) as memory:
        chain = memory.visualise_prompt_chain("n0", size)
        assert len(chain) == size - 1
        assert chain[-1] == (f"n{size - 2}", f"n{size - 1}")
        assert len(memory.neighbours("hub")) == size
        exported = memory.export(False)
        assert (len(exported["nodes"]), len(exported["edges"])) == (size + 1, 2 * size - 1)
        assert memory.graph.out_degree("hub") == size
        memory.trace("n0")
        assert memory.forget("hub").ids == ("hub",)
        assert memory.stats().edges == size - 1


# --- clocks -----------------------------------------------------------------------------------------------------

JUMPS = {
    "back a day": lambda n: 1.8e9 - 86_400 * n,
    "forward a century": lambda n: 1.8e9 + 3.2e9 * (n % 2),
    "before 1970": lambda n: -1e6 - n,
    "standing still": lambda _: 1.8e9,
    "an hour back in autumn": lambda n: 1_793_494_800 + 3600 * (n % 3),
}


@pytest.mark.parametrize("jump", JUMPS)
def test_the_order_is_that_of_writing_whatever_the_clock_says(path, monkeypatch, jump):
    tick = iter(range(1000))
    now = [0.0]

    def move():
        now[0] = JUMPS[jump](next(tick))

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime.fromtimestamp(now[0], tz)

    monkeypatch.setattr(records, "datetime", Clock)
    monkeypatch.setattr(records.time, "time_ns", lambda: int(now[0] * 1e9))
    monkeypatch.setattr(records.time, "time", lambda: now[0])
    texts = [f"thing {n}" for n in range(12)]
    with open_memory(path, timeout=2) as memory:
        for text in texts:
            move()
            memory.add_interaction(text, f"about {text}", "agent", "s")
    move()
    with open_memory(path, timeout=2) as memory:
        assert [node.text for node in memory.nodes("prompt")] == texts
        assert [node.text for node in memory.thread("s")] == [t for text in texts for t in (text, f"about {text}")]
        assert len({node.id for node in memory}) == len(memory) == 26
        stamps = [node.attributes["timestamp"] for node in memory.nodes("prompt")]
        expected = [dt.datetime.fromtimestamp(JUMPS[jump](n), dt.timezone.utc).isoformat() for n in range(12)]
        assert stamps == expected  # as the clock had it
        assert memory.similar("thing 3", 1)[0].score > 0.999
        assert memory.recall("thing 3", k=3).ids
        memory.forget(before="1969-12-31T00:00:00Z")
        assert len(list(memory.nodes("prompt"))) == (0 if jump == "before 1970" else 12)


@given(st.integers(-62_135_596_800, 253_402_300_799))
@example(0)
@example(-1)
def test_a_time_in_whole_seconds_is_that_of_the_same_time_in_other_words(seconds):
    when = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(seconds=seconds)
    assert records.utc(seconds) == records.utc(when) == when.isoformat()


@pytest.mark.parametrize("seconds", [-62_135_596_801, 253_402_300_800, 10**30])
def test_whole_seconds_beyond_the_calendar_are_refused(seconds):
    with pytest.raises(InvalidInput, match=f"{seconds} is no time"):
        records.utc(seconds)


# --- vectors ----------------------------------------------------------------------------------------------------

VECTORS = {
    "minus zero": np.array([1.0] + [-0.0] * 15),
    "denormal": np.array([1.0] + [1e-40] * 15),
    "float64": np.linspace(-1, 1, 16),
    "float16": np.linspace(-1, 1, 16).astype(np.float16),
    "integers": np.arange(16),
    "big-endian": np.linspace(-1, 1, 16).astype(">f4"),
    "every second": np.linspace(-1, 1, 32)[::2],
    "a list": [0.5] * 16,
    "huge": np.full(16, 1e38),
}


def test_a_vector_too_short_to_point_anywhere(path):
    with MemoryGraph(path, fake, vector_backend="exact") as memory:
        with pytest.raises(InvalidInput, match="'p'.*zero"):
            memory.add_interaction({"id": "p", "text": "words"}, vector=np.full(16, 1e-40))
        assert len(memory) == 0


@pytest.mark.parametrize("what", VECTORS)
def test_vectors_of_any_kind_of_number(path, what):
    values = np.asarray(VECTORS[what], np.float64)
    expected = values / np.linalg.norm(values)
    with MemoryGraph(path, fake, vector_backend="exact") as memory:
        memory.add_interaction({"id": "p", "text": "words"}, vector=VECTORS[what])
        hits = memory.similar("some words", 1)
        assert hits[0].score == pytest.approx(float(unit(fake(["some words"]))[0] @ expected), abs=1e-4)
    with MemoryGraph(path, fake, vector_backend="exact") as memory:
        (block,) = memory._store.vectors("prompt", -1).blocks
        np.testing.assert_allclose(block.values[0], expected, atol=1e-4)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda some: st.lists(some, max_size=4) | st.dictionaries(st.text(), some, max_size=4),
)


@given(JSON_VALUES)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_json_is_written_as_python_writes_it(separators, value):
    assert encoder(*separators)(value) == json.dumps(value, separators=separators)


@pytest.mark.parametrize("own", [True, False], ids=["own", "plain"])
@pytest.mark.parametrize("value", [math.nan, -math.inf, {1, 2}, {(1,): 2}, object()], ids=repr)
def test_what_json_cannot_hold_is_refused_wherever_it_stands(value, own, monkeypatch):
    if not own:  # as where Python is not CPython
        monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    write = encoder(",", ":")
    for whole in (value, [value], {"a": {"b": [1, value]}}):
        with pytest.raises((ValueError, TypeError)):
            write(whole)
    assert write({"a": "b"}) == '{"a":"b"}'


def test_what_holds_itself_is_refused():
    value = {}
    value["a"] = [value]
    with pytest.raises(InvalidInput):
        to_json(value)
