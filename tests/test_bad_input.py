"""What nobody should hand in, and paths that hold something else: a clear error of ours, and every byte as before."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import math
import os
import pickle
import shutil
import socket
import sqlite3
import sys
from contextlib import closing
from decimal import Decimal

import numpy as np
import pytest
from outside import contents, fake, run, start

from raeburnmemory.errors import (
    DimensionMismatch,
    EmbeddingError,
    GraphClosed,
    InvalidInput,
    KindConflict,
    MemoryGraphError,
    MissingDependency,
    NodeNotFound,
    NotAStore,
    ReadOnly,
    StoreCorrupt,
    StoreError,
    StoreMissing,
    StoreTooNew,
    StoreUnreachable,
    StoreWriteFailed,
    UnknownBackend,
)
from raeburnmemory.memory_graph import MemoryGraph

HALF = "half a pair: \ud83d!"
BACKENDS = ["g.json", "g.db"]


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no repr")


def loop():
    value = []
    value.append(value)
    return value


def ring():
    value = {}
    value["again"] = {"and": [value]}
    return value


def deep(depth):
    value = "the bottom"
    for _ in range(depth):
        value = [value]
    return value


def fill(path):
    with MemoryGraph(path, fake, vector_backend="exact") as memory:
        memory.add_interaction({"id": "p1", "text": "one red apple"}, {"id": "r1", "text": "x"}, {"id": "a1"}, "s1")
        memory.add_interaction({"id": "p2", "text": "two green pears"}, {"id": "r2", "text": "y"}, {"id": "a1"}, "s1")
        memory.export()
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder per backend to copy, because syncing takes longer than all else here."""
    folders = {}
    for name in BACKENDS:
        folders[name] = tmp_path_factory.mktemp("filled")
        fill(folders[name] / name)
    return folders


@pytest.fixture(params=BACKENDS)
def path(request, tmp_path, filled):
    shutil.copytree(filled[request.param], tmp_path / "here")
    return tmp_path / "here" / request.param


@pytest.fixture
def graph_json(tmp_path, filled):
    shutil.copytree(filled["g.json"], tmp_path, dirs_exist_ok=True)
    return tmp_path / "g.json"


def prompt(**fields):
    return lambda m: m.add_interaction({"id": "new", "text": "words", **fields}, "an answer", {"id": "a2"}, "s2")


def attribute(value):
    return prompt(odd=value)


def vector(values):
    return lambda m: m.add_interaction({"id": "new", "text": "words"}, "an answer", vector=values)


CALLS = {
    # ids
    "empty id": (prompt(id=""), InvalidInput, "''"),
    "number as id": (prompt(id=5), InvalidInput, "5"),
    "bytes as id": (prompt(id=b"p9"), InvalidInput, "p9"),
    "huge number as id": (prompt(id=10**5000), InvalidInput, "id"),
    "id without a repr": (prompt(id=Unshowable()), InvalidInput, "id"),
    "half a pair in an id": (prompt(id=HALF), InvalidInput, "surrogate"),
    "empty response id": (lambda m: m.add_interaction("x", {"id": "", "text": "y"}), InvalidInput, "response.*''"),
    "empty agent id": (lambda m: m.add_interaction("x", "y", {"id": ""}), InvalidInput, "agent.*''"),
    "agent without id": (lambda m: m.add_interaction("x", "y", {"name": "A"}), InvalidInput, "agent.*None"),
    "empty agent": (lambda m: m.add_interaction("x", "y", ""), InvalidInput, "agent.*''"),
    "empty session": (lambda m: m.add_interaction("x", "y", None, ""), InvalidInput, "session.*''"),
    "number as session": (lambda m: m.add_interaction("x", "y", None, 5), InvalidInput, "session.*5"),
    "half a pair in a session": (lambda m: m.add_interaction("x", session_id=HALF), InvalidInput, "surrogate"),
    "one id twice": (
        lambda m: m.add_interaction({"id": "n", "text": "x"}, {"id": "n", "text": "y"}),
        InvalidInput,
        "'n'",
    ),
    "one id for prompt and session": (
        lambda m: m.add_interaction({"id": "n", "text": "x"}, None, None, "n"),
        InvalidInput,
        "'n'",
    ),
    "id of an agent": (lambda m: m.add_interaction({"id": "a1", "text": "x"}), KindConflict, "'a1'.*agent"),
    "id of a prompt": (lambda m: m.add_interaction("x", {"id": "p1", "text": "x"}), KindConflict, "'p1'.*prompt"),
    "id of a response": (lambda m: m.add_interaction("x", "y", "r1"), KindConflict, "'r1'.*response"),
    "id of a session": (lambda m: m.add_interaction({"id": "s1", "text": "x"}), KindConflict, "'s1'.*session"),
    "session id of a prompt": (lambda m: m.add_interaction("x", session_id="p2"), KindConflict, "'p2'.*prompt"),
    # texts
    "no text": (lambda m: m.add_interaction({"id": "new"}), InvalidInput, "'new'.*None"),
    "number as text": (prompt(text=5), InvalidInput, "5"),
    "bytes as text": (prompt(text=b"words"), InvalidInput, "words"),
    "list as text": (prompt(text=["words"]), InvalidInput, "words"),
    "half a pair in a text": (prompt(text=HALF), InvalidInput, "surrogate.*character 13"),
    "half a pair in an answer": (lambda m: m.add_interaction("x", HALF), InvalidInput, "surrogate"),
    "number as prompt": (lambda m: m.add_interaction(5), InvalidInput, "prompt.*5"),
    "nothing as prompt": (lambda m: m.add_interaction(None), InvalidInput, "prompt.*None"),
    "list as prompt": (lambda m: m.add_interaction(["x"]), InvalidInput, "prompt.*'x'"),
    "class as prompt": (lambda m: m.add_interaction(Unshowable), InvalidInput, "prompt"),
    "unshowable as prompt": (lambda m: m.add_interaction(Unshowable()), InvalidInput, "prompt"),
    "number as response": (lambda m: m.add_interaction("x", 5), InvalidInput, "response.*5"),
    "number as agent": (lambda m: m.add_interaction("x", "y", 5), InvalidInput, "agent.*5"),
    "answer without text": (lambda m: m.add_interaction("x", {"id": "r9"}), InvalidInput, "'r9'.*None"),
    # attributes
    "NaN": (attribute(math.nan), InvalidInput, "'odd'.*nan"),
    "infinity inside": (attribute({"a": [1, -math.inf]}), InvalidInput, "'odd'.*-inf"),
    "a set": (attribute({1}), InvalidInput, "'odd'"),
    "bytes": (attribute(b"raw"), InvalidInput, "'odd'.*raw"),
    "an object": (attribute(object()), InvalidInput, "'odd'.*object"),
    "unshowable": (attribute(Unshowable()), InvalidInput, "'odd'"),
    "a decimal": (attribute(Decimal("1.5")), InvalidInput, "'odd'.*1.5"),
    "a complex number": (attribute(1j), InvalidInput, "'odd'.*1j"),
    "an array": (attribute(np.ones(3)), InvalidInput, "'odd'"),
    "a number beyond JSON": (attribute(10**5000), InvalidInput, "'odd'"),
    "itself in a list": (attribute(loop()), InvalidInput, "'odd'.*itself"),
    "itself in a dict": (attribute(ring()), InvalidInput, "'odd'.*itself"),
    "nested too deep": (attribute(deep(100_000)), InvalidInput, "'odd'.*deep"),
    "half a pair": (attribute([HALF]), InvalidInput, "surrogate"),
    "half a pair in a key": (attribute({HALF: 1}), InvalidInput, "surrogate"),
    "a number as key": (attribute({1: 2}), InvalidInput, "1"),
    "a number as name": (lambda m: m.add_interaction({"text": "x", 7: 1}), InvalidInput, "7"),
    "half a pair as name": (lambda m: m.add_interaction({"text": "x", HALF: 1}), InvalidInput, "surrogate"),
    "a reserved key": (prompt(type="agent"), InvalidInput, "'type'"),
    "a reserved key of an agent": (
        lambda m: m.add_interaction("x", "y", {"id": "n", "type": "x"}),
        InvalidInput,
        "'type'",
    ),
    "half a pair as agent's name": (
        lambda m: m.add_interaction("x", "y", {"id": "n", "name": HALF}),
        InvalidInput,
        "surrogate",
    ),
    "metadata that is no dict": (lambda m: m.add_interaction("x", metadata=5), InvalidInput, "5"),
    **{
        f"metadata named {name}": (lambda m, name=name: m.add_interaction("x", metadata={name: 1}), InvalidInput, name)
        for name in ("id", "type", "text", "timestamp")
    },
    "metadata of an attribute": (
        lambda m: m.add_interaction({"text": "x", "a": 1}, metadata={"a": 2}),
        InvalidInput,
        "'a'",
    ),
    "NaN in metadata": (lambda m: m.add_interaction("x", metadata={"deep": [math.nan]}), InvalidInput, "'deep'.*nan"),
    # times
    "words as time": (prompt(timestamp="yesterday"), InvalidInput, "yesterday"),
    "a truth as time": (prompt(timestamp=True), InvalidInput, "True"),
    "NaN as time": (lambda m: m.add_interaction("x", timestamp=math.nan), InvalidInput, "nan"),
    "a time beyond the calendar": (lambda m: m.add_interaction("x", timestamp=1e30), InvalidInput, r"1e\+30"),
    "a list as time": (lambda m: m.add_interaction("x", timestamp=[2026]), InvalidInput, "2026"),
    "unshowable as time": (lambda m: m.add_interaction("x", timestamp=Unshowable()), InvalidInput, "time"),
    # vectors
    "NaN in a vector": (vector([math.nan] * 16), InvalidInput, "'new'.*finite"),
    "infinity in a vector": (vector([math.inf] + [0.0] * 15), InvalidInput, "'new'.*finite"),
    "beyond float32": (vector([1e300] * 16), InvalidInput, "'new'.*finite"),
    "a vector of zeros": (vector(np.zeros(16)), InvalidInput, "'new'.*zero"),
    "a ragged vector": (vector([[1.0], [1.0, 2.0]]), InvalidInput, "'new'"),
    "a table": (vector(np.ones((1, 16))), InvalidInput, "'new'"),
    "a vector too long": (vector(np.ones(17)), DimensionMismatch, "'new'.*17.*16"),
    "a vector too short": (vector([1.0]), DimensionMismatch, "'new'.*1 .*16"),
    "an empty vector": (vector([]), InvalidInput, "'new'"),
    "a number as vector": (vector(5), InvalidInput, "'new'"),
    "words as vector": (vector("soon"), InvalidInput, "'new'"),
    "nothing in a vector": (vector([None] * 16), InvalidInput, "'new'"),
    "a dict as vector": (vector({}), InvalidInput, "'new'"),
    # messages
    "an unknown role": (lambda m: m.add_message("x", "narrator"), InvalidInput, "'narrator'.*user"),
    "no role": (lambda m: m.add_message("x", None), InvalidInput, "None"),
    "a list as role": (lambda m: m.add_message("x", ["user"]), InvalidInput, "user"),
    "number as message": (lambda m: m.add_message(5), InvalidInput, "5"),
    "number as speaker": (lambda m: m.add_message("x", name=5), InvalidInput, "5"),
    "empty message id": (lambda m: m.add_message("x", id=""), InvalidInput, "''"),
    "list as message id": (lambda m: m.add_message("x", "assistant", id=["r1"]), InvalidInput, "r1"),
    "empty session of a message": (lambda m: m.add_message("x", session_id=""), InvalidInput, "''"),
    "list as session of a message": (lambda m: m.add_message("x", "assistant", session_id=["s1"]), InvalidInput, "s1"),
    "NaN in a message": (lambda m: m.add_message("x", metadata={"a": math.nan}), InvalidInput, "nan"),
    "message vector": (lambda m: m.add_message("x", vector=[1]), DimensionMismatch, "16"),
    # many
    "number as interactions": (lambda m: m.add_many(5), InvalidInput, "5"),
    "a text as interactions": (lambda m: m.add_many("abc"), InvalidInput, "abc|'a'"),
    "a number among interactions": (
        lambda m: m.add_many([("x", "y"), 5]),
        InvalidInput,
        "Interaction 1.*5|5.*Interaction 1",
    ),
    "a text among interactions": (lambda m: m.add_many([("x", "y"), "abc"]), InvalidInput, "Interaction 1"),
    "five parts": (lambda m: m.add_many([("a", "b", "c", "d", "e")]), InvalidInput, "Interaction 0"),
    "no parts": (lambda m: m.add_many([()]), InvalidInput, "Interaction 0"),
    "an unknown part": (lambda m: m.add_many([{"prompt": "x", "nope": 1}]), InvalidInput, "Interaction 0.*nope"),
    "a namespace per part": (
        lambda m: m.add_many([{"prompt": "x", "namespace": "b"}]),
        InvalidInput,
        "Interaction 0.*namespace",
    ),
    "the second of two": (
        lambda m: m.add_many([("good",), ({"id": "", "text": "x"},)]),
        InvalidInput,
        "Interaction 1.*''",
    ),
    "a conflict in the second": (lambda m: m.add_many([("good",), ({"id": "a1", "text": "x"},)]), KindConflict, "'a1'"),
    "a conflict among new ones": (
        lambda m: m.add_many([({"id": "n", "text": "x"},), ("good", {"id": "n", "text": "x"})]),
        KindConflict,
        "'n'",
    ),
    "a vector in the second": (
        lambda m: m.add_many([("good",), {"prompt": "x", "vector": [1]}]),
        DimensionMismatch,
        "16",
    ),
    "batch_add": (
        lambda m: asyncio.run(m.batch_add([("good", "x", "a1", "s1"), (5, "x", "a1", "s1")])),
        InvalidInput,
        "5",
    ),
    "async": (lambda m: asyncio.run(m.add_interaction_async(5)), InvalidInput, "5"),
    # links
    "a link from nowhere": (lambda m: m.link("ghost", "p1", "x"), NodeNotFound, "'ghost'"),
    "a link to nowhere": (lambda m: m.link("p1", "ghost", "x"), NodeNotFound, "'ghost'"),
    "an empty relation": (lambda m: m.link("p1", "p2", ""), InvalidInput, "''"),
    "a number as relation": (lambda m: m.link("p1", "p2", 5), InvalidInput, "5"),
    "a number as end": (lambda m: m.link("p1", 5, "x"), InvalidInput, "5"),
    "a list as end": (lambda m: m.link(["p1"], "p2", "x"), InvalidInput, "p1"),
    "NaN on a link": (lambda m: m.link("p1", "p2", "x", weight=math.nan), InvalidInput, "weight.*nan"),
    "reserved on a link": (lambda m: m.link("p1", "p2", "x", relations={}), InvalidInput, "relations"),
    "unlink a list": (lambda m: m.unlink(["p1"], "r1"), InvalidInput, "p1"),
    "a threshold in words": (lambda m: m.link_similar_prompts("x"), InvalidInput, "'x'"),
    "a threshold of NaN": (lambda m: m.link_similar_prompts(math.nan), InvalidInput, "nan"),
    "no threshold": (lambda m: m.link_similar_prompts(None), InvalidInput, "None"),
    # changes
    "update of nobody": (lambda m: m.update("ghost", text="x"), NodeNotFound, "'ghost'"),
    "update of a number": (lambda m: m.update(5, text="x"), InvalidInput, "5"),
    "update to a number": (lambda m: m.update("p1", text=5), InvalidInput, "5"),
    "update to half a pair": (lambda m: m.update("p1", text=HALF), InvalidInput, "surrogate"),
    "update with no dict": (lambda m: m.update("p1", metadata=[5]), InvalidInput, "5"),
    "update of the kind": (lambda m: m.update("p1", metadata={"type": "x"}), InvalidInput, "'type'"),
    "update with NaN": (lambda m: m.update("p1", metadata={"x": math.nan}), InvalidInput, "nan"),
    "removal of the id": (lambda m: m.update("p1", remove=["id"]), InvalidInput, "'id'"),
    "removal of a number": (lambda m: m.update("p1", remove=5), InvalidInput, "5"),
    "forget nothing": (lambda m: m.forget(), InvalidInput, "forget"),
    "forget a number": (lambda m: m.forget(5), InvalidInput, "5"),
    "forget numbers": (lambda m: m.forget([5]), InvalidInput, "5"),
    "forget lists": (lambda m: m.forget([["p1"]]), InvalidInput, "p1"),
    "forget before words": (lambda m: m.forget(before="soon"), InvalidInput, "soon"),
    "forget where a number": (lambda m: m.forget(where=5), InvalidInput, "5"),
    "forget where $gt": (lambda m: m.forget(where={"a": {"$gt": 1}}), InvalidInput, r"{'a': {'gt': 1}}"),
    "forget where gt None": (lambda m: m.forget(where={"a": {"gt": None}}), InvalidInput, "'gt' for 'a'"),
    "recall where $gt": (lambda m: m.recall("x", where={"a": {"$gt": 1}}), InvalidInput, r"{'a': {'gt': 1}}"),
    "similar where $gt": (lambda m: m.similar("x", where={"a": {"$gt": 1}}), InvalidInput, r"{'a': {'gt': 1}}"),
    "matching where $gt": (lambda m: m.matching("x", where={"a": {"$gt": 1}}), InvalidInput, r"{'a': {'gt': 1}}"),
    "context where $gt": (lambda m: m.context("x", where={"a": {"$gt": 1}}), InvalidInput, r"{'a': {'gt': 1}}"),
    "nodes where $gt": (lambda m: list(m.nodes(where={"a": {"$gt": 1}})), InvalidInput, r"{'a': {'gt': 1}}"),
    "forget where a set": (lambda m: m.forget(where={"topic": {1}}), InvalidInput, "topic"),
    "forget the session 5": (lambda m: m.forget(session=5), InvalidInput, "5"),
    "forget the session []": (lambda m: m.forget(session=["s1"]), InvalidInput, "s1"),
    "forget the agent 5": (lambda m: m.forget(agent=5), InvalidInput, "5"),
    # questions
    "a number as question": (lambda m: m.similar(5), InvalidInput, "5"),
    "half a pair as question": (lambda m: m.similar(HALF), InvalidInput, "surrogate"),
    "minus one hit": (lambda m: m.similar("x", -1), InvalidInput, "-1"),
    "half a hit": (lambda m: m.get_similar_prompts("x", 1.5), InvalidInput, "1.5"),
    "hits in words": (lambda m: m.similar("x", "5"), InvalidInput, "'5'"),
    "a truth as hits": (lambda m: m.similar("x", True), InvalidInput, "True"),
    "get nobody": (lambda m: m.get("ghost"), NodeNotFound, "'ghost'"),
    "get a number": (lambda m: m.get(5), InvalidInput, "5"),
    "get a list": (lambda m: m.get(["p1"]), InvalidInput, "p1"),
    "get half a pair": (lambda m: m.get(HALF), InvalidInput, "surrogate"),
    "nodes of kind 5": (lambda m: list(m.nodes(5)), InvalidInput, "5"),
    "nodes of kinds 5": (lambda m: list(m.nodes([5])), InvalidInput, "5"),
    "minus one node": (lambda m: list(m.nodes(limit=-1)), InvalidInput, "-1"),
    "nodes in words": (lambda m: list(m.nodes(limit="many")), InvalidInput, "many"),
    "nodes since words": (lambda m: list(m.nodes(since="soon")), InvalidInput, "soon"),
    "nodes after nobody": (lambda m: list(m.nodes(after="ghost")), NodeNotFound, "ghost"),
    "nodes of no session": (lambda m: list(m.nodes(session="ghost")), NodeNotFound, "ghost"),
    "nodes where 5": (lambda m: list(m.nodes(where=5)), InvalidInput, "5"),
    "nodes where 5 is 6": (lambda m: list(m.nodes(where={5: 6})), InvalidInput, "5"),
    "neighbours sideways": (lambda m: m.neighbours("p1", direction="sideways"), InvalidInput, "sideways"),
    "neighbours of a list": (lambda m: m.neighbours(["p1"]), InvalidInput, "p1"),
    "neighbours by 5": (lambda m: m.neighbours("p1", 5), InvalidInput, "5"),
    "links of nobody": (lambda m: m.links("ghost"), NodeNotFound, "ghost"),
    "thread of nobody": (lambda m: m.thread("ghost"), NodeNotFound, "ghost"),
    "thread of 5": (lambda m: m.thread(5), InvalidInput, "5"),
    "history of nobody": (lambda m: m.history("ghost"), NodeNotFound, "ghost"),
    "a chain of words": (lambda m: m.visualise_prompt_chain("p1", "far"), InvalidInput, "far"),
    "export to 5": (lambda m: m.export(5), InvalidInput, "5"),
    "export to ''": (lambda m: m.export(""), InvalidInput, "''"),
    "export to NUL": (lambda m: m.export("a\0b"), InvalidInput, "x00"),
    "reembed with 5": (lambda m: m.reembed(5), InvalidInput, "int"),
    "reembed with ''": (lambda m: m.reembed(""), InvalidInput, "''"),
    # the graph
    "graph: empty node": (lambda m: m.graph.add_node(""), InvalidInput, "''"),
    "graph: number as node": (lambda m: m.graph.add_nodes_from(["good", 5]), InvalidInput, "5"),
    "graph: NaN": (lambda m: m.graph.add_node("n", x=math.nan), InvalidInput, "nan"),
    "graph: beyond JSON": (lambda m: m.graph.add_node("n", x=10**5000), InvalidInput, "n"),
    "graph: an object": (lambda m: m.graph.add_edge("p1", "p2", x=object()), InvalidInput, "'x'"),
    "graph: another kind": (lambda m: m.graph.add_node("p1", type="agent"), KindConflict, "p1"),
    "graph: write to a view": (lambda m: m.graph.nodes["p1"].update(x=1), ReadOnly, "memory.update"),
    "graph: write to an edge": (lambda m: m.graph.edges["p1", "r1"].__setitem__("x", 1), ReadOnly, "memory.link"),
}


@pytest.mark.parametrize("what", CALLS)
def test_bad_values_change_nothing(path, what):
    call, error, message = CALLS[what]
    before = contents(path.parent)
    with MemoryGraph(path, fake, vector_backend="exact") as memory:
        with pytest.raises(MemoryGraphError, match=f"(?s){message}") as caught:
            call(memory)
        assert type(caught.value) is error
        assert len(str(caught.value)) < 600  # a message shows values, it does not quote them whole
        assert len(memory) == 6
        assert memory.stats().version == 2
        assert memory.get_similar_prompts("green pears", 1) == ["p2"]
    assert contents(path.parent) == before


def test_an_error_of_the_caller_passes_and_nothing_is_stored(path):
    def interactions():
        yield "good", "x"
        raise ZeroDivisionError("mine")

    def progress(done, of):
        raise ZeroDivisionError("mine")

    before = contents(path.parent)
    with MemoryGraph(path, fake) as memory:
        with pytest.raises(ZeroDivisionError, match="mine"):
            memory.add_many(interactions())
        with pytest.raises(ZeroDivisionError, match="mine"):
            memory.add_many([("good", "x")], progress=progress)
        assert len(memory) == 6
    assert contents(path.parent) == before


ANSWERS = {
    "NaN": lambda texts: np.full((len(texts), 16), np.nan),
    "infinity": lambda texts: np.full((len(texts), 16), np.inf),
    "one row too few": lambda texts: np.ones((len(texts) - 1, 16)),
    "ragged": lambda texts: [[1.0] * (15 + i) for i in range(len(texts))] if len(texts) > 1 else [[1.0], 2.0],
    "nothing": lambda texts: None,
    "null": lambda texts: [None for _ in texts],
    "words": lambda texts: ["soon" for _ in texts],
    "no numbers": lambda texts: np.ones((len(texts), 0)),
}


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_embedder_that_answers_with_no_vectors(tmp_path, name, answer):
    with MemoryGraph(tmp_path / name, ANSWERS[answer]) as memory:
        with pytest.raises(EmbeddingError):
            memory.add_interaction({"id": "p1", "text": "words"})
        assert len(memory) == 0
        assert memory.stats().version == 0


def test_an_embedder_that_goes_bad_in_the_middle(path):
    broken = False

    def embed(texts):
        return ANSWERS["NaN"](texts) if broken else fake(texts)

    before = contents(path.parent)
    with MemoryGraph(path, embed) as memory:
        assert memory.get_similar_prompts("green pears", 1) == ["p2"]
        broken = True
        for attempt in (
            lambda: memory.add_interaction("words"),
            lambda: memory.update("p1", text="other words"),
            lambda: memory.similar("words"),
            lambda: memory.graph.add_node("n", type="prompt", text="words"),
        ):
            with pytest.raises(EmbeddingError, match="finite"):
                attempt()
        assert memory.stats().version == 2
    assert contents(path.parent) == before


OPENINGS = {
    "a number as path": ({"db_path": 5}, InvalidInput, "5"),
    "bytes as path": ({"db_path": b"g.json"}, InvalidInput, "g.json"),
    "an empty path": ({"db_path": ""}, InvalidInput, "''"),
    "NUL in a path": ({"db_path": "a\0b"}, InvalidInput, "x00"),
    "half a pair in a path": ({"db_path": "g\ud83d.json"}, MemoryGraphError, "ud83d"),
    "a name too long": ({"db_path": "n" * 300}, StoreWriteFailed, "nnn"),
    "a store that does not exist": ({"storage_backend": "mysql"}, UnknownBackend, "'mysql'.*json, sqlite"),
    "a number as store": ({"storage_backend": 5}, UnknownBackend, "5"),
    "an index that does not exist": ({"vector_backend": "annoy"}, UnknownBackend, "'annoy'.*exact, faiss"),
    "a number as index": ({"vector_backend": 5}, UnknownBackend, "5"),
    "a server that nobody knows": ({"db_path": "mysql://me:secret@host/db"}, UnknownBackend, "host"),
    "a server that is not there": (
        {"db_path": "postgresql://me:secret@127.0.0.1:1/db"},
        (StoreUnreachable, MissingDependency),
        "127.0.0.1|not installed",
    ),
    "a number as model": ({"embedding_model": 5}, InvalidInput, "int"),
    "a class as model": ({"embedding_model": Unshowable}, InvalidInput, "Unshowable"),
    "an empty model": ({"embedding_model": " "}, InvalidInput, "' '"),
    "an unknown runtime": ({"embedding_model": "abacus:all-MiniLM-L6-v2"}, MemoryGraphError, "abacus|not installed"),
    "an empty namespace": ({"namespace": ""}, InvalidInput, "''"),
    "a number as namespace": ({"namespace": 5}, InvalidInput, "5"),
    "half a pair as namespace": ({"namespace": HALF}, InvalidInput, "surrogate"),
    "words as timeout": ({"timeout": "soon"}, InvalidInput, "soon"),
    "NaN as timeout": ({"timeout": math.nan}, InvalidInput, "nan"),
    "no time at all": ({"timeout": -1}, InvalidInput, "-1"),
}


@pytest.mark.parametrize("what", OPENINGS)
def test_bad_arguments_of_the_constructor_create_nothing(tmp_path, monkeypatch, what):
    arguments, error, message = OPENINGS[what]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MemoryGraphError, match=message) as caught:
        MemoryGraph(**{"db_path": "new.json", "embedding_model": "builtin", **arguments})
    assert isinstance(caught.value, error)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named(tmp_path):
    with pytest.raises(MissingDependency, match="no/such/folder|not installed"):
        MemoryGraph(tmp_path / "g.json", f"onnx:{tmp_path}/no/such/folder")
    assert list(tmp_path.iterdir()) == []


# --- closed and read-only ---------------------------------------------------------------------------------------

WRITES = {
    "add_interaction": lambda m: m.add_interaction("x"),
    "add_many": lambda m: m.add_many([("x", "y")]),
    "batch_add": lambda m: asyncio.run(m.batch_add([("x", "y", "a", "s")])),
    "add_interaction_async": lambda m: asyncio.run(m.add_interaction_async("x")),
    "add_message": lambda m: m.add_message("x"),
    "fact": lambda m: m.fact("Ana", "likes", "tea", source="p1"),
    "single_valued": lambda m: m.single_valued("likes"),
    "link": lambda m: m.link("p1", "p2", "x"),
    "unlink": lambda m: m.unlink("p1", "r1"),
    "update": lambda m: m.update("p1", text="x"),
    "forget": lambda m: m.forget("p1"),
    "link_similar_prompts": lambda m: m.link_similar_prompts(-1),
    "reindex": lambda m: m.reindex(),
    "reembed": lambda m: m.reembed("builtin"),
    "graph.add_node": lambda m: m.graph.add_node("n"),
    "graph.remove_node": lambda m: m.graph.remove_node("p1"),
    "graph.clear": lambda m: m.graph.clear(),
}
READS = {
    "get": lambda m: m.get("p1"),
    "nodes": lambda m: list(m.nodes()),
    "iteration": list,
    "len": len,
    "in": lambda m: "p1" in m,
    "neighbours": lambda m: m.neighbours("p1"),
    "links": lambda m: m.links("p1"),
    "thread": lambda m: m.thread("s1"),
    "history": lambda m: m.history("p1"),
    "chain": lambda m: m.visualise_prompt_chain("p1"),
    "facts": lambda m: m.facts("Ana"),
    "declared": lambda m: m.single_valued(),
    "why": lambda m: m.why("r1"),
    "trace": lambda m: m.trace("r1"),
    "similar": lambda m: m.similar("apple"),
    "stats": lambda m: m.stats(),
    "graph": lambda m: list(m.graph),
    "to_networkx": lambda m: m.to_networkx(),
    "show": lambda m: m.show(),
    "export": lambda m: m.export(False),
    "load": lambda m: m.load(),
    "vector_index": lambda m: m.vector_index,
}


@pytest.mark.parametrize("what", [*WRITES, *READS])
def test_a_closed_memory_says_so(path, what):
    memory = MemoryGraph(path, fake)
    memory.close()
    before = contents(path.parent)
    with pytest.raises(GraphClosed, match=str(path)):
        {**WRITES, **READS}[what](memory)
    assert contents(path.parent) == before


@pytest.mark.parametrize("what", WRITES)
def test_a_memory_opened_for_reading_refuses_to_write(path, what):
    before = contents(path.parent)
    with MemoryGraph(path, fake, read_only=True) as memory:
        assert memory.read_only
        for read in READS.values():
            read(memory)
        with pytest.raises(ReadOnly, match=str(path)):
            WRITES[what](memory)
        assert len(memory) == 6
    assert contents(path.parent) == before


READ_ALL = """
import sys
from outside import fake
from raeburnmemory import MemoryGraph
with MemoryGraph(sys.argv[1], fake, vector_backend="exact", read_only=True) as memory:
    assert memory.similar("two green pears", 1).ids == ["p2"]
    assert memory.get("p1").text == "one red apple" and len(memory.graph) == 6
    assert [node.id for node in memory.thread("s1")] == ["p1", "r1", "p2", "r2"]
    assert len(memory.export(False)["edges"]) == 6 and memory.stats().vectors == {"prompt": 2, "response": 2}
"""
WRITE = """
import sys
from outside import fake
from raeburnmemory import MemoryGraph, MemoryGraphError
try:
    with MemoryGraph(sys.argv[1], fake) as memory:
        memory.add_interaction("more")
except MemoryGraphError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def without_power():
    """What to put before a command so that modes count for it, even if whoever runs the tests is root."""
    if sys.platform == "win32":
        pytest.skip("folders have no modes there")
    if os.geteuid():
        return []
    found = shutil.which("setpriv")
    if found is None:
        pytest.skip("modes mean nothing to root, and setpriv is not installed: apt install util-linux")
    return [found, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.mark.parametrize("locks", ["with", "without"])
def test_a_folder_that_cannot_be_written(path, without_power, locks):
    before = contents(path.parent)
    for file in path.parent.iterdir():
        file.chmod(0o444)
        if locks == "without" and file.name.endswith((".lock", ".gate")):
            file.unlink()
    path.parent.chmod(0o555)
    try:
        run(READ_ALL, path, before=without_power)
        said = run(WRITE, path, before=without_power)
        assert said.split()[0] in {"StoreWriteFailed", "ReadOnly"}
        assert str(path) in said
        assert "read_only=True" in said
    finally:
        path.parent.chmod(0o755)
    assert contents(path.parent) == before


def test_a_file_that_cannot_be_read(path, without_power):
    before = contents(path.parent)
    path.chmod(0)
    try:
        for code in (WRITE, WRITE.replace("fake)", "fake, read_only=True)")):
            said = run(code, path, before=without_power)
            assert said.split()[0] in {"StoreMissing", "StoreWriteFailed", "StoreError"}
            assert str(path) in said
    finally:
        path.chmod(0o600)
    assert contents(path.parent) == before


def test_files_are_for_their_owner_and_keep_the_mode_that_they_are_given(path):
    if sys.platform == "win32":
        pytest.skip("files have no modes there")
    old = os.umask(0)
    try:
        for name in BACKENDS:
            fill(path.parent / "new" / name)
        assert (path.parent / "new").stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in (path.parent / "new").iterdir()} == {0o600}
        for file in path.parent.iterdir():
            file.chmod(0o755 if file.is_dir() else 0o640)
        with MemoryGraph(path, fake) as memory:
            memory.add_interaction("more")
            memory.export()
        assert path.stat().st_mode & 0o777 == 0o640
        if path.suffix == ".json":
            assert path.with_name("g.json.journal").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


@pytest.mark.parametrize("name", BACKENDS)
def test_reading_what_is_not_there_creates_nothing(tmp_path, name):
    with pytest.raises(StoreMissing, match=name):
        MemoryGraph(tmp_path / "deep" / name, "builtin", read_only=True)
    assert list(tmp_path.iterdir()) == []


# --- paths that are no files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("name", ["folder", "folder.json", "folder.db"])
def test_a_folder(tmp_path, name, read_only):
    (tmp_path / name).mkdir()
    with pytest.raises(NotAStore, match=f"{name}.*folder"):
        MemoryGraph(tmp_path / name, "builtin", read_only=read_only)
    assert [p.name for p in tmp_path.rglob("*")] == [name]


OPEN = """
import sys
from raeburnmemory import MemoryGraph, MemoryGraphError
try:
    MemoryGraph(sys.argv[1], "builtin", read_only=sys.argv[2] == "True")
except MemoryGraphError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path, read_only):
    os.mkfifo(tmp_path / "pipe.json")
    process = start(OPEN, tmp_path / "pipe.json", read_only)
    try:
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert out.startswith("NotAStore")
    assert "pipe.json" in out
    assert os.listdir(tmp_path) == ["pipe.json"]


def test_a_pipe_beside_the_store_is_refused_without_waiting(tmp_path, graph_json):
    (tmp_path / "g.json.journal").unlink()
    os.mkfifo(tmp_path / "g.json.journal")
    for read_only in (False, True):
        process = start(OPEN, graph_json, read_only)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
        assert "g.json.journal" in out, err


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/full"])
def test_a_device(device, read_only):
    before = os.listdir("/dev")
    with pytest.raises(NotAStore, match=device):
        MemoryGraph(device, "builtin", read_only=read_only)
    assert os.listdir("/dev") == before


def test_a_socket(tmp_path):
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(tmp_path / "s.db"))
        with pytest.raises(NotAStore, match=r"s\.db"):
            MemoryGraph(tmp_path / "s.db", "builtin")
    assert os.listdir(tmp_path) == ["s.db"]


@pytest.mark.parametrize("read_only", [False, True])
def test_links_that_lead_nowhere_or_round_in_a_circle(tmp_path, read_only):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "dangling.json").symlink_to(tmp_path / "elsewhere.json")
    (tmp_path / "links" / "loop.json").symlink_to(tmp_path / "links" / "pool.json")
    (tmp_path / "links" / "pool.json").symlink_to(tmp_path / "links" / "loop.json")
    for name in ("dangling", "loop", "pool"):
        with pytest.raises(StoreError, match=f"{name}.json"):
            MemoryGraph(tmp_path / "links" / f"{name}.json", "builtin", read_only=read_only)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["dangling.json", "links", "loop.json", "pool.json"]


def test_a_path_through_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="file"):
        MemoryGraph(tmp_path / "file" / "g.json", "builtin")
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_lock_that_is_a_link_is_not_followed(tmp_path, name):
    (tmp_path / f"{name}.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreWriteFailed, match=rf"{name}\.lock"):
        MemoryGraph(tmp_path / name, "builtin")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("target", ["folder", "missing/out.json", "file/out.json", "/dev/full/out.json"])
def test_an_export_that_cannot_be_written(path, tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    with MemoryGraph(path, fake) as memory, pytest.raises(StoreWriteFailed, match="out.json|folder"):
        memory.export(tmp_path / target)
    assert contents(tmp_path) == before


# --- files of something else ------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89"


def a_database(path):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE songs(title TEXT, nodes TEXT)")
        db.execute("INSERT INTO songs VALUES ('Blue', 'many')")


def almost_a_database(path):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE nodes(id TEXT, colour TEXT)")
        db.execute("CREATE TABLE edges(src TEXT, dst TEXT)")


def an_empty_database(path):
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE t(x)")
        db.execute("DROP TABLE t")


def data(value):
    return lambda path: path.write_text(json.dumps(value))


def raw(value):
    return lambda path: path.write_bytes(value)


STRANGERS = {
    "another database": (a_database, NotAStore),
    "almost one of ours": (almost_a_database, NotAStore),
    "an empty database": (an_empty_database, NotAStore),
    "a list": (data([1, 2]), NotAStore),
    "a text": (data("nodes"), NotAStore),
    "an object": (data({"name": "x"}), NotAStore),
    "nodes that are no list": (data({"nodes": {"a": 1}}), NotAStore),
    "an undirected graph": (data({"directed": False, "nodes": []}), NotAStore),
    "a multigraph": (data({"multigraph": True, "nodes": []}), NotAStore),
    "HTML": (raw(b"<!DOCTYPE html><html><body>Sign in</body></html>"), MemoryGraphError),
    "PNG": (raw(PNG), MemoryGraphError),
    "a zip": (raw(b"PK\3\4" + bytes(60)), MemoryGraphError),
    "a pickle": (raw(b"\x80\4\x95\x0c\0\0\0\0\0\0\0\x8c\2os\x94."), MemoryGraphError),
    "zeros": (raw(bytes(4096)), MemoryGraphError),
    "one byte": (raw(b"{"), StoreCorrupt),
    "nothing": (raw(b""), StoreCorrupt),
    "a blank": (raw(b" \n"), MemoryGraphError),
    "a header of SQLite": (raw(b"SQLite format 3\0"), StoreCorrupt),
    "a header of SQLite and zeros": (raw(b"SQLite format 3\0" + bytes(4080)), StoreError),
    "nodes without end": (raw(b'{"nodes": ' + b"[" * 200_000), StoreCorrupt),
    "a number without end": (raw(b'{"nodes": [{"id": "a", "n": ' + b"9" * 100_000 + b"}]}"), StoreCorrupt),
    "zeros at the end": (raw(b'{"nodes": [], "edges": []}' + bytes(512)), StoreCorrupt),
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("name", ["x.json", "x.db", "x"])
@pytest.mark.parametrize("what", STRANGERS)
def test_a_file_of_something_else_is_left_alone(tmp_path, what, name, read_only):
    make, error = STRANGERS[what]
    make(tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(MemoryGraphError) as caught:
        MemoryGraph(tmp_path / name, "builtin", read_only=read_only)
    assert isinstance(caught.value, error)
    assert isinstance(caught.value, StoreError)
    assert str(tmp_path / name) in str(caught.value)
    assert contents(tmp_path) == before


def node(**fields):
    return {"id": "a", "type": "prompt", "text": "x", **fields}


GRAPHS = {
    "a number as node": {"nodes": [5]},
    "a node without id": {"nodes": [{"type": "prompt"}]},
    "a list as id": {"nodes": [node(id=[1])]},
    "a truth as id": {"nodes": [node(id=True)]},
    "one id twice": {"nodes": [node(), node()]},
    "a number as text": {"nodes": [node(text=5)]},
    "a list as type": {"nodes": [node(type=["prompt"])]},
    "an end that is no node": {"nodes": [node()], "edges": [{"source": "a", "target": "b"}]},
    "a start that is no node": {"nodes": [node()], "links": [{"source": "b", "target": "a"}]},
    "an edge without end": {"nodes": [node()], "edges": [{"source": "a"}]},
    "a number as edge": {"nodes": [node()], "edges": [5]},
    "a number as edges": {"nodes": [node()], "edges": 5},
    "an object as links": {"nodes": [node()], "links": {"a": 1}},
    "a truth as links": {"nodes": [node()], "links": True},
    "a number as relation": {"nodes": [node()], "edges": [{"source": "a", "target": "a", "relation": 5}]},
    "a list as relations": {"nodes": [node()], "edges": [{"source": "a", "target": "a", "relations": [1]}]},
    "a list as namespaces": {"nodes": [], "raeburnmemory_namespaces": []},
    "a number as namespace": {"nodes": [], "raeburnmemory_namespaces": {"b": 5}},
    "a word to expire at": {"nodes": [node(raeburnmemory_expires_at="soon")]},
}


@pytest.mark.parametrize("what", GRAPHS)
def test_a_graph_that_contradicts_itself_is_damaged(tmp_path, what):
    data(GRAPHS[what])(tmp_path / "g.json")
    before = contents(tmp_path)
    for read_only in (False, True):
        with pytest.raises(StoreCorrupt, match=r"g\.json"):
            MemoryGraph(tmp_path / "g.json", "builtin", read_only=read_only)
        assert contents(tmp_path) == before


OURS = {
    "format": ["x", None, [], 1.5],
    "store": [],
    "version": ["x", None, -1, [1]],
    "next_row": ["x", None],
    "next_link_row": ["x", None],
    "rows": [None, 5, [[0, -1]], [["a", 1]], [[0, 10**6]], "rows", [[0, 6], [0, 1]]],
    "link_rows": [None, 5, [["a", 1]]],
    "next_slots": [None, 5, [1]],
    "vectors": [None, 5, [1]],
    "meta": [None, 5, [1]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OURS.items() for value in values])
def test_our_entry_in_a_graph_that_does_not_fit_is_damage(tmp_path, graph_json, key, value):
    path = graph_json
    graph = json.loads(path.read_text())
    graph["graph"]["raeburnmemory"][key] = value
    path.write_text(json.dumps(graph))
    before = contents(tmp_path)
    for read_only in (True, False):
        with pytest.raises((StoreCorrupt, StoreTooNew), match=r"g\.json"):
            MemoryGraph(path, fake, read_only=read_only)
        assert contents(tmp_path) == before


LIMITED = (
    """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
"""
    + OPEN
)


@pytest.mark.parametrize("key", ["rows", "link_rows"])
def test_a_graph_cannot_ask_for_all_the_memory_there_is(graph_json, key):
    path = graph_json
    graph = json.loads(path.read_text())
    graph["graph"]["raeburnmemory"][key] = [[0, 10**12]]
    path.write_text(json.dumps(graph))
    assert run(LIMITED, path, True).startswith("StoreCorrupt")


@pytest.mark.parametrize("origin", ["ours", "the original's"])
def test_a_graph_cut_off_anywhere_is_damaged(tmp_path, graph_json, origin):
    path = graph_json
    if origin != "ours":
        for file in tmp_path.iterdir():
            if file != path:
                file.unlink()
        graph = json.loads(path.read_text())
        del graph["graph"]["raeburnmemory"], graph["edges"]
        path.write_text(json.dumps(graph, ensure_ascii=False))
    whole = path.read_bytes().rstrip()
    step = max(1, len(whole) // 150)
    for end in sorted({*range(0, len(whole), step), 1, 2, len(whole) - 1, len(whole) - 2}):
        path.write_bytes(whole[:end])
        before = contents(tmp_path)
        with pytest.raises(StoreCorrupt, match=r"g\.json"):
            MemoryGraph(path, fake, read_only=end % 2 == 0)
        assert contents(tmp_path) == before
    path.write_bytes(whole)


# --- newer formats ----------------------------------------------------------------------------------------------


def newer_graph(path):
    graph = json.loads(path.read_text())
    graph["graph"]["raeburnmemory"] = {"format": 2, "what": "nobody knows yet"}
    path.write_text(json.dumps(graph))


def newer_journal(path):
    import zlib

    head = json.dumps({"kind": "raeburnmemory journal", "format": 2, "whatever": 1}).encode()
    path.with_name("g.json.journal").write_bytes(b"%08x %b\n" % (zlib.crc32(head), head))


def newer_vectors(path):
    header = path.with_name("g.json.vectors.json")
    found = json.loads(header.read_text())
    header.write_text(json.dumps({**found, "format": 2}))


def newer_database(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
        db.commit()


NEWER = {
    "graph": ("g.json", newer_graph),
    "journal": ("g.json", newer_journal),
    "vectors": ("g.json", newer_vectors),
    "database": ("g.db", newer_database),
}


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_version_wrote_is_neither_read_nor_written(tmp_path, what):
    name, change = NEWER[what]
    path = fill(tmp_path / name)
    change(path)
    before = contents(tmp_path)
    for read_only in (True, False):
        with pytest.raises(StoreTooNew, match=rf"{name}.*2.*pip install -U raeburnmemory"):
            MemoryGraph(path, fake, read_only=read_only)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["x.json", "x.db"])
def test_sqlite_beside_a_damaged_json_store_makes_nothing(tmp_path, name):
    path = fill(tmp_path / "x.json")
    path.write_bytes(path.read_bytes()[:-9])
    before = contents(tmp_path)
    with pytest.raises(StoreCorrupt, match=r"x\.json"):
        MemoryGraph(tmp_path / name, fake, storage_backend="sqlite")
    assert contents(tmp_path) == before


def test_what_is_valid_but_unusual_is_taken(path):
    text = "\0 \u202e\u2028 e\u0301 \U0001f468\u200d\U0001f469 ../ '\"; DROP TABLE nodes; -- __proto__"
    with MemoryGraph(path, fake) as memory:
        for node_id in ("\0", "-x", "../..", " ", "é", "e\u0301", "a" * 10_000, "__proto__", "%", "_"):
            memory.add_interaction({"id": node_id, "text": text, "": "", "deep": deep(50), "n": 2**70, "z": -0.0})
        memory.add_interaction({"id": "big", "text": "x" * 1_000_000})
        memory.add_interaction({"id": "nothing said", "text": ""})
        memory.link("\0", "\0", "-x")
    with contextlib.ExitStack() as stack:
        memory = stack.enter_context(MemoryGraph(path, fake))
        for node_id in ("\0", "-x", "../..", " ", "é", "e\u0301", "a" * 10_000, "__proto__", "%", "_"):
            found = memory.get(node_id)
            assert (found.text, found.attributes["n"], found.attributes["deep"]) == (text, 2**70, deep(50))
            assert found.attributes[""] == ""
            assert math.copysign(1, found.attributes["z"]) == -1
        assert len(memory.get("big").text) == 1_000_000
        assert memory.get("nothing said").text == ""
        assert memory.links("\0", "-x")[0].target == "\0"
    out = run("import sys, raeburnmemory as r; m = r.MemoryGraph(sys.argv[1]); print(len(m))", path)
    assert int(out) == 6 + 12


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_memory_is_neither_pickled_nor_copied(tmp_path, how):
    with MemoryGraph(tmp_path / "m.db", "builtin") as memory, MemoryGraph(":memory:", "builtin") as unsaved:
        with pytest.raises(TypeError, match=r"cannot be pickled or copied. Pass its path, '.*m\.db', and open that"):
            how(memory)
        with pytest.raises(TypeError, match=r"backup\(\)"):
            how(unsaved)
