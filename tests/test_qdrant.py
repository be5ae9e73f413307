"""Memories whose vectors lie in Qdrant: in this process, in a folder, and behind HTTP."""

from __future__ import annotations

import os
import uuid

import numpy as np
import pytest
from outside import Fake, fake, unit

from raeburnmemory.errors import IndexMismatch, IndexUnavailable, InvalidInput
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.testing import INDEX_CHECKS

pytest.importorskip("qdrant_client", reason="the qdrant index needs qdrant-client")

from qdrant_client import models
from qdrant_server import Server

from raeburnmemory.index import RemoteIndex, open_index
from raeburnmemory.index.qdrant import Qdrant

REAL = os.environ.get("RAEBURN_TEST_QDRANT_URL")


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture(params=["memory", "folder", "server", *(["real"] if REAL else [])])
def url(request, tmp_path):
    if request.param == "server":
        return request.getfixturevalue("server").url
    return {"memory": ":memory:", "folder": str(tmp_path / "vectors"), "real": REAL}[request.param]


def conversation(count, begin=0):
    return [
        {
            "prompt": {"id": f"p{n}", "text": f"what of {n % 7} and {n % 11} or w{n}"},
            "response": {"id": f"r{n}", "text": f"it is {n % 5} and v{n}"},
            "agent": {"id": f"a{n % 3}"},
            "session_id": f"s{n % 20}",
            "timestamp": 1_700_000_000 + 3600 * n,
        }
        for n in range(begin, begin + count)
    ]


def opened(path, url=":memory:", **options):
    return MemoryGraph(path, Fake(), vector_backend="qdrant", qdrant_url=url, **options)


def answers(memory, question="what of 3 and w12", **filters):
    return [(hit.id, hit.score) for hit in memory.similar(question, 15, **filters)]


FILTERS = [
    {},
    {"kinds": ["prompt", "response"]},
    {"session": "s3"},
    {"session": ["s3", "s4"], "agent": "a1"},
    {"agent": ["a0", "a2"]},
    {"since": 1_700_000_000 + 3600 * 50},
    {"until": 1_700_000_000 + 3600 * 50, "kinds": "response"},
    {"since": 1_700_000_000 + 3600 * 20, "until": 1_700_000_000 + 3600 * 60, "agent": "a1"},
    {"speaker": "user"},
]


@pytest.fixture
def pair(url, tmp_path):
    """The same memory with its vectors in Qdrant, and compared one by one."""
    path = tmp_path / "memory.db"
    with opened(path, url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        yield memory, measure


# --- the contract -------------------------------------------------------------------------------------------------


HEAVY = {"check_index_ties", "check_index_near_ties", "check_index_allowed", "check_index_remove"}
CHECKS = [
    pytest.param(
        check,
        id=check.__name__.removeprefix("check_index_"),
        marks=[pytest.mark.long]
        if check.__name__ in HEAVY
        else [],  # thousands of points; test_contract_index has them
    )
    for check in INDEX_CHECKS
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract_in_a_folder(check, tmp_path):
    check(Qdrant(str(tmp_path / "vectors")))


@pytest.mark.parametrize("check", CHECKS)
def test_contract_over_http(check, server):
    check(Qdrant(REAL or server.url))


def test_protocol():
    assert isinstance(open_index("qdrant", 3), RemoteIndex)
    assert open_index("qdrant", 3).mode == "float32"


# --- a memory -----------------------------------------------------------------------------------------------------


def test_finds_what_comparing_all_finds(pair):
    memory, measure = pair
    memory.add_many(conversation(120))
    for filters in FILTERS:
        assert answers(memory, **filters) == answers(measure, **filters)
        assert answers(memory, **filters)
    for question in ("what of 3", "v17", "is it 2 and w5"):
        ours, theirs = memory.recall(question, 8), measure.recall(question, 8)
        assert [(hit.id, hit.score, hit.similarity) for hit in ours] == [
            (hit.id, pytest.approx(hit.score, abs=1e-6), hit.similarity) for hit in theirs
        ]
        assert ours.legs == theirs.legs
        assert not ours.skipped
    assert memory.vector_backend == "qdrant"
    assert memory.vector_index.ntotal == 120
    assert memory.stats().vector_backend == "qdrant"


def test_keeps_up_with_every_change(pair):
    memory, measure = pair
    memory.add_many(conversation(60))

    def same():
        for filters in FILTERS:
            assert answers(memory, **filters) == answers(measure, **filters)

    same()
    memory.add_many(conversation(5, 60))
    same()
    memory.update("p3", text="what of 3 and w12")
    same()
    memory.forget(["p12", "r13"])
    same()
    memory.forget(session="s4")
    same()
    measure.link("p25", "s3", "belongs_to")  # by another, while this one is open
    same()
    measure.unlink("p25", "s5")
    same()
    measure.update("p30", metadata={"timestamp": "2023-11-20T00:00:00+00:00"})
    same()
    assert memory.link_similar_prompts(0.6) > 0
    same()


def test_many_are_told_to_the_server_by_what_is_true_of_them(server, tmp_path, monkeypatch):
    """Where a filter lets through more than can be named, the server is asked for sessions, agents and times."""
    monkeypatch.setattr("raeburnmemory.index.qdrant._BY_ID", 4)
    monkeypatch.setattr("raeburnmemory.index.qdrant._RUNS", 2)
    seen = []
    local = server.local
    query = local.query_points
    monkeypatch.setattr(local, "query_points", lambda *a, **b: seen.append(b["query_filter"]) or query(*a, **b))
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        memory.add_many(conversation(90))
        for filters in FILTERS:
            assert answers(memory, **filters) == answers(measure, **filters)
        keys = {condition.key for one in seen if one is not None for condition in one.must if hasattr(condition, "key")}
        assert keys == {"namespace", "session", "agent", "time"}
        memory.link("p0", "s7", "belongs_to")
        memory.link("r1", "a2", "generated_by")
        for filters in FILTERS:
            assert answers(memory, **filters) == answers(measure, **filters)
        measure.unlink("p0", "s0")
        assert answers(memory, session=["s0", "s7"]) == answers(measure, session=["s0", "s7"])
        assert answers(memory, session="s7") == answers(measure, session="s7")


def test_payloads_say_whose_a_text_is(server, tmp_path):
    with opened(tmp_path / "memory.db", server.url) as memory:
        memory.add_many(conversation(3))
        assert len(memory.similar("w1", 3, kinds=["prompt", "response"])) == 3
        found = {}
        for name in server.created:
            for record in server.local.scroll(name, limit=10)[0]:
                if isinstance(record.id, int):
                    found[record.payload["kind"], record.id] = record.payload
    assert {key: value["session"] for key, value in found.items()} == {
        (kind, n): [f"s{n}"] for kind in ("prompt", "response") for n in range(3)
    }
    assert found["prompt", 1]["agent"] == found["response", 1]["agent"] == ["a1"]
    assert found["prompt", 2]["time"] == found["response", 2]["time"] == 1_700_007_200
    assert {value["namespace"] for value in found.values()} == {"default"}


def test_namespaces_do_not_see_each_other(url, tmp_path):
    path = tmp_path / "memory.db"
    with opened(path, url) as one, opened(path, url, namespace="other") as two:
        one.add_many(conversation(30))
        two.add_many([{"prompt": {"id": f"q{n}", "text": f"what of {n} and w12"}} for n in range(40)])
        assert {name[0] for name, _ in answers(one)} == {"p"}
        assert {name[0] for name, _ in answers(two)} == {"q"}
        assert len(answers(one)) == len(answers(two)) == 15
        assert one.vector_index.ntotal == 70


def test_json_and_memory_stores(tmp_path, server):
    for place in (tmp_path / "memory.json", ":memory:"):
        with opened(place, server.url) as memory:
            memory.add_many(conversation(20))
            assert len(answers(memory)) == 15
    left = [one.name for one in server.local.get_collections().collections]
    with opened(tmp_path / "memory.json", server.url) as memory:
        assert [name for name in left if memory._store.id not in name] == []  # a memory in memory takes its own along
        uploads = server.asked["PUT/collections/*/points"]
        assert len(answers(memory)) == 15
        assert server.asked["PUT/collections/*/points"] == uploads


def test_goes_on_where_it_was(url, tmp_path, server):
    path = tmp_path / "memory.db"
    with opened(path, url) as memory:
        memory.add_many(conversation(50))
        before = answers(memory)
    with MemoryGraph(path, Fake(), vector_backend="exact") as writer:
        writer.add_many(conversation(3, 50))
        writer.forget(["p10"])
    with opened(path, url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        assert answers(memory) == answers(measure) != before
        assert memory.vector_index.ntotal == 52


def test_a_reopened_collection_is_not_filled_again(server, tmp_path):
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory:
        memory.add_many(conversation(50))
        answers(memory)
    server.asked.clear()
    with opened(path, server.url) as memory:
        answers(memory)
    assert not server.asked["PUT/collections/*/points"]
    with opened(path, server.url, read_only=True) as memory:
        assert len(answers(memory)) == 15


def test_reembedding_makes_another_collection(server, tmp_path):
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory:
        memory.add_many(conversation(30))
        answers(memory)
        (old,) = [name for name in server.created if "prompt" in name]
        memory.reembed(Fake("longer", 24))
        assert memory.vector_index.dim == 24
        assert len(answers(memory)) == 15
        assert old not in [one.name for one in server.local.get_collections().collections]
    model = Fake("longer", 24)
    with (
        MemoryGraph(path, model, vector_backend="qdrant", qdrant_url=server.url) as memory,
        MemoryGraph(path, model, vector_backend="exact") as measure,
    ):
        assert answers(memory) == answers(measure)


def test_reindex_makes_the_collections_anew(server, tmp_path):
    with opened(tmp_path / "memory.db", server.url) as memory:
        memory.add_many(conversation(20))
        before = answers(memory)
        (old,) = [name for name in server.created if "_prompt_" in name]
        memory.reindex()
        assert old not in [one.name for one in server.local.get_collections().collections]
        assert answers(memory) == before


def test_one_that_searches_while_another_reembeds(server, tmp_path):
    path = tmp_path / "memory.db"
    with (
        opened(path, server.url) as memory,
        MemoryGraph(path, fake, vector_backend="qdrant", qdrant_url=server.url) as other,
    ):
        memory.add_many(conversation(30))
        assert other.similar(unit(fake(["w3"]))[0], 1).ids == memory.similar("w3", 1).ids
        memory.reembed(Fake("longer", 24))
        answers(memory)
        vector = unit(fake(["w3"], 24))[0]
        assert other.similar(vector, 3).ids == memory.similar(vector, 3).ids


# --- whose collection it is ---------------------------------------------------------------------------------------


def test_a_collection_of_somebody_else_is_left_alone(url, tmp_path):
    name = f"test{uuid.uuid4().hex[:8]}"
    with opened(tmp_path / "a.db", Qdrant(url, collection=name).place.url) as keeper:  # keeps what is in memory there
        ask = keeper._dense._new_index._connection.ask
        for at, dim in (("prompt", 16), ("response", 9)):
            params = models.VectorParams(size=dim, distance=models.Distance.COSINE)
            ask("create_collection", f"{name}_{at}", vectors_config=params)
        with MemoryGraph(tmp_path / "b.db", Fake(), vector_backend=Qdrant(url, collection=name)) as memory:
            memory.add_many(conversation(3))
            for kind in ("prompt", "response"):
                with pytest.raises(
                    IndexMismatch, match=f"'{name}_{kind}' .* was not made for a memory. Choose another"
                ):
                    memory.similar("w1", 3, kinds=kind)
            with pytest.raises(IndexMismatch):
                memory.recall("w1")
        for at in ("prompt", "response"):
            ask("delete_collection", f"{name}_{at}")


def test_a_collection_of_another_memory_is_left_alone(server, tmp_path):
    place = Qdrant(server.url, collection="notes")
    with MemoryGraph(tmp_path / "a.db", Fake(), vector_backend=place) as one:
        one.add_many(conversation(20))
        before = answers(one)
        with MemoryGraph(tmp_path / "b.db", Fake(), vector_backend=place) as two:
            two.add_many(conversation(9))
            with pytest.raises(
                IndexMismatch, match=rf"another memory \(its id is {one._store.id}.*b.db.*delete the coll"
            ):
                answers(two)
        assert answers(one) == before
    with MemoryGraph(tmp_path / "b.db", Fake(), vector_backend=Qdrant(server.url, collection="others")) as two:
        assert len(answers(two)) == 9


def test_an_older_copy_of_the_memory_makes_its_own_collection(server, tmp_path):
    """It has the same id and slots, and another past: neither finds the other's vectors."""
    path, copy = tmp_path / "memory.db", tmp_path / "copy.db"
    with opened(path, server.url) as memory:
        memory.add_many(conversation(20))
        answers(memory)
        memory.backup(copy)
        memory.add_many(conversation(10, 20))
        after = answers(memory)
        with opened(copy, server.url) as older, MemoryGraph(copy, Fake(), vector_backend="exact") as measure:
            older.add_many([{"prompt": {"id": f"other{n}", "text": f"w{n} and 3"}} for n in range(12)])
            assert answers(older) == answers(measure) != after
            assert answers(memory) == after  # it finds that its collection was replaced
            assert answers(older) == answers(measure)


def test_options_become_those_of_collections(server, tmp_path):
    place = Qdrant(server.url, collection="notes", shards=3, replicas=2, on_disk=True)
    with MemoryGraph(tmp_path / "a.db", Fake(), vector_backend=place) as memory:
        memory.add_many(conversation(2))
        answers(memory)
    ((name, made),) = [(name, made) for name, made in server.created.items() if name.startswith("notes_prompt_")]
    assert len(name) == len("notes_prompt_") + 12
    assert (made.shard_number, made.replication_factor) == (3, 2)
    (vector,) = made.vectors.values()
    assert (vector.size, vector.distance, vector.on_disk) == (16, models.Distance.DOT, True)
    assert server.asked["PUT/collections/*/index"] == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://x"}, "'http://localhost:6333'"),
        ({"url": "localhost:6333"}, "no place for Qdrant.*'http://localhost:6333'"),
        ({"url": ""}, "no place"),
        ({"url": "http://ana:secret@x:1"}, "carries a user"),
        ({"url": 7}, "must be a string, not 7"),
        ({"shards": 2}, "shards=2 is for a server, and Qdrant in memory is none"),
        ({"url": "folder", "on_disk": True}, "on_disk=True is for a server"),
        ({"url": "folder", "grpc_port": 6334}, "is no server"),
        ({"url": "http://x", "replicas": 0}, "replicas must be a whole number, 1 or more, not 0"),
        ({"url": "http://x", "shards": True}, "shards must be"),
        ({"timeout": 0}, "timeout"),
        ({"exact_up_to": -1}, "exact_up_to must be a whole number, 0 or more"),
        ({"collection": "a/b"}, "'a/b'"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        Qdrant(**options)
    assert "secret" not in str(caught.value)


def test_a_key_is_sent_where_it_is_safe(tmp_path, monkeypatch):
    server = Server(api_key="k1")
    try:
        with opened(tmp_path / "a.db", server.url) as memory:
            memory.add_many(conversation(2))
            with pytest.raises(
                IndexUnavailable, match="answered 401.*Pass another api_key, or set RAEBURN_QDRANT_API_KEY"
            ):
                answers(memory)
        monkeypatch.setenv("RAEBURN_QDRANT_API_KEY", "k1")
        with opened(tmp_path / "a.db", server.url) as memory:
            assert len(answers(memory)) == 2
        with pytest.raises(IndexUnavailable, match="401"):
            Qdrant(server.url, api_key="k2")(3).add(np.arange(1), np.ones((1, 3), np.float32))
    finally:
        server.close()
    assert Qdrant("http://elsewhere:6333").place._api_key is None  # it would travel in the clear
    assert Qdrant("https://elsewhere:6333").place._api_key == "k1"
