"""Memories whose vectors lie in Qdrant: in this process, in a folder, and behind HTTP."""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from outside import Fake, fake, finish, run, start, unit

from raeburnmemory.errors import ErasureIncomplete, IndexMismatch, IndexUnavailable, InvalidInput
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.testing import INDEX_CHECKS

pytest.importorskip("qdrant_client", reason="the qdrant index needs qdrant-client")

import grpc
from qdrant_client import models
from qdrant_rpc import RpcServer
from qdrant_server import Server

from raeburnmemory.index import RemoteIndex, _qdrant_place, open_index
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
        assert ours.skipped == theirs.skipped
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


def test_what_the_server_cannot_tell_is_named(server, tmp_path, monkeypatch):
    """A condition on attributes that only far texts meet: they are not looked for among all the others."""
    monkeypatch.setattr("raeburnmemory.index.qdrant._BY_ID", 4)
    monkeypatch.setattr("raeburnmemory.index.qdrant._RUNS", 2)
    monkeypatch.setattr("raeburnmemory.index.qdrant._NAMED", 7)
    monkeypatch.setattr("raeburnmemory.index.qdrant._PATIENCE", 1)
    path = tmp_path / "memory.db"
    near = [{"prompt": {"id": f"n{n}", "text": f"w12 and w{n}"}} for n in range(100)]
    far = [{"prompt": {"id": f"f{n}", "text": f"x{n} y{n} z{n}", "rare": True}} for n in range(20)]
    mixed = [one for pair in zip(near[:20], far, strict=True) for one in pair] + near[20:]
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        memory.add_many(mixed)
        memory.similar("w12", 3)
        server.asked.clear()
        found = memory.similar("w12", 5, where={"rare": True})
        assert [(hit.id, hit.score) for hit in found] == [
            (hit.id, hit.score) for hit in measure.similar("w12", 5, where={"rare": True})
        ]
        assert len(found) == 5
        assert server.asked["POST/collections/*/points/query"] == 1 + 3  # one that gave up, and 20 slots by seven


def test_the_same_text_again_and_again_is_fetched_once(server, tmp_path):
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        memory.add_many([{"prompt": {"id": f"p{n}", "text": "ok" if n % 3 else f"w{n}"}} for n in range(600)])
        memory.similar("w3", 1)
        server.vectors = 0
        assert answers(memory, "ok") == answers(measure, "ok")
        assert server.vectors < 100  # of 400 that are equal


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


# --- forgotten, away, slow, cut short -----------------------------------------------------------------------------


def points(server):
    """The vectors that the server holds, by collection."""
    return {
        name: {record.id for record in server.local.scroll(name, limit=10_000)[0] if isinstance(record.id, int)}
        for name in (one.name for one in server.local.get_collections().collections)
    }


def test_what_is_forgotten_for_good_is_gone_there_too(server, tmp_path):
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory:
        memory.add_many(conversation(30))
        answers(memory, kinds=["prompt", "response"])
        memory.forget(["p29", "p3", "r29"], secure=True)
        assert sorted(len(slots) for slots in points(server).values() if slots) == [28, 29]
        server.stop()
        with pytest.raises(ErasureIncomplete, match="not from its index: .*cannot be reached.*call this again"):
            memory.forget(["p5"], secure=True)
        server.start()
        memory.forget(["p5"], secure=True)
        assert sorted(len(slots) for slots in points(server).values() if slots) == [27, 29]


def test_writes_go_on_while_it_is_away(server, tmp_path):
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        memory.add_many(conversation(20))
        before = answers(memory)
        server.stop()
        memory.add_many(conversation(20, 20))
        memory.forget(["p3"])
        with pytest.raises(
            IndexUnavailable, match=f"Qdrant at '{server.url}' cannot be reached.*Nothing is lost"
        ) as caught:
            answers(memory)
        assert not caught.value.lost
        assert isinstance(caught.value, ConnectionError)
        found = memory.recall("what of w25", 5)
        assert found[0].id == "p25"  # by its words
        assert "cannot be reached" in found.skipped["dense"]
        assert "dense" not in found.legs
        assert memory.recall("w25", 5, min_similarity=0.1).skipped["dense"] == found.skipped["dense"]
        server.start()
        assert answers(memory) == answers(measure) != before
        assert "dense" in memory.recall("what of w25", 5).legs


def test_a_memory_is_opened_and_closed_while_it_is_away(server, tmp_path):
    path = tmp_path / "memory.db"
    server.stop()
    with opened(path, server.url) as memory:
        memory.add_many(conversation(20))
        assert memory.recall("w5")[0].id == "p5"
    server.start()
    with opened(path, server.url) as memory:
        assert len(answers(memory)) == 15
        memory.add_many(conversation(5, 20))
        assert len(answers(memory)) == 15
        server.stop()
    server.start()
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        assert answers(memory) == answers(measure)


def test_a_server_that_stumbles_is_asked_again(server, tmp_path):
    with opened(tmp_path / "memory.db", server.url) as memory:
        memory.add_many(conversation(20))
        for failures in ([500], [503, 429]):
            server.failures = list(failures)
            assert len(answers(memory)) == 15
        server.failures = [500] * 3
        with pytest.raises(IndexUnavailable, match="answered 500 .*told to fail.*found by meaning once it is back"):
            answers(memory)
        server.failures = [400]
        with pytest.raises(IndexUnavailable, match="answered 400"):
            answers(memory)
        assert len(answers(memory)) == 15


def test_a_slow_server_is_not_waited_for_forever(server, tmp_path):
    place = Qdrant(server.url, timeout=1)
    with MemoryGraph(tmp_path / "memory.db", Fake(), vector_backend=place) as memory:
        memory.add_many(conversation(20))
        answers(memory)
        server.delay = 0.1
        assert len(answers(memory)) == 15
        server.delay = 0.0
        server.stalled.clear()
        now = time.monotonic()
        found = memory.recall("what of w5", 5)
        assert 0.9 < time.monotonic() - now < 5
        assert found[0].id == "p5"
        assert "did not answer within 1 seconds" in found.skipped["dense"]
        memory.add_many(conversation(5, 20))
        server.stalled.set()
        assert "dense" in memory.recall("what of w5", 5).legs


def test_closing_waits_for_a_silent_server_once(server, tmp_path):
    place = Qdrant(server.url, timeout=1)
    with MemoryGraph(tmp_path / "memory.db", Fake(), vector_backend=place) as memory:
        for begin in (0, 20):  # the second time, three collections are not told how far they have come
            memory.add_many(conversation(20, begin))
            memory.fact("Ana", "likes", f"w{begin}")
            memory.similar("w3", 5, kinds=["prompt", "response", "fact"])
        server.stalled.clear()
        now = time.monotonic()
        memory.close()
        assert 0.9 < time.monotonic() - now < 1.9
    server.stalled.set()


@pytest.mark.parametrize("answered", range(0, 34, 3))
def test_away_at_any_request(server, tmp_path, answered):
    """Whatever was done and said by then, what is found afterwards is what comparing all finds."""
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        memory.add_many(conversation(20))
        server.fail_after = [answered, 500]
        for _ in range(3):
            memory.recall("w3 and 4", kinds=["prompt", "response"])
            memory.add_many(conversation(3, 20 + len(memory)))
            memory.forget([f"p{answered % 20}"])
        server.fail_after = None
        for filters in FILTERS:
            assert answers(memory, **filters) == answers(measure, **filters)
    left = [slots for slots in points(server).values() if slots]
    assert sorted(map(len, left)) == sorted(n for kind, n in memory_counts(path).items())


def memory_counts(path):
    with MemoryGraph(path, Fake(), vector_backend="exact") as memory:
        return memory.stats().vectors


def test_points_that_somebody_deleted_come_back(server, tmp_path):
    path = tmp_path / "memory.db"
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        memory.add_many(conversation(40))
        before = answers(memory)
        assert before == answers(measure)
    name = next(name for name, slots in points(server).items() if len(slots) == 40)
    server.local.delete(name, models.PointIdsList(points=list(range(0, 40, 2))))
    with opened(path, server.url) as memory:
        assert answers(memory) == before
        server.local.delete(name, models.PointIdsList(points=list(range(30))))
        assert answers(memory) == before  # too few came back
        server.local.delete_collection(name)
        assert answers(memory) == before
        server.local.delete_collection(next(name for name, slots in points(server).items() if len(slots) == 40))
        memory.add_many(conversation(1, 40))
        assert len(answers(memory)) == 15


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[4])
from outside import Fake
from raeburnmemory.memory_graph import MemoryGraph
import raeburnmemory.index._qdrant_collection as collection
collection._NUMBERS = 160  # ten vectors in one request
print("open", flush=True)
with MemoryGraph(sys.argv[1], Fake(), vector_backend="qdrant", qdrant_url=sys.argv[2]) as memory:
    memory.similar("w3", 3)
    print("done", flush=True)
"""


@pytest.mark.parametrize("uploads", [1, 4, 12])
def test_killed_while_it_fills_the_collection(server, tmp_path, uploads):
    path = tmp_path / "memory.db"
    with MemoryGraph(path, Fake(), vector_backend="exact") as memory:
        memory.add_many(conversation(200))
    process = start(KILLED, path, server.url, "", Path(__file__).parent)
    server.delay = 0.02
    while server.asked["PUT/collections/*/points"] < uploads:
        time.sleep(0.001)
        assert process.poll() is None
    process.kill()
    assert process.communicate()[0] == "open\n"
    server.delay = 0.0
    (there,) = list(points(server).values()) or [set()]
    assert len(there) < 200
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        assert answers(memory) == answers(measure)
        assert server.written - len(there) <= 200 + 10  # nothing that was there was written again, but for one batch
    assert [len(slots) for slots in points(server).values()] == [200]


@pytest.mark.parametrize("kind", ["json", "db"])
def test_killed_while_it_catches_up(server, tmp_path, kind):
    path = tmp_path / f"memory.{kind}"
    with opened(path, server.url) as memory:
        memory.add_many(conversation(100))
        answers(memory)
    with MemoryGraph(path, Fake(), vector_backend="exact") as memory:
        memory.forget([f"p{n}" for n in range(0, 50, 5)])
        memory.add_many(conversation(100, 100))
    server.asked.clear()
    process = start(KILLED, path, server.url, "", Path(__file__).parent)
    server.delay = 0.02
    while server.asked["PUT/collections/*/points"] < 5:
        time.sleep(0.001)
        assert process.poll() is None
    process.kill()
    process.communicate()
    server.delay = 0.0
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        assert answers(memory) == answers(measure)
    assert [len(slots) for slots in points(server).values()] == [190]


def test_two_processes_fill_one_collection_together(server, tmp_path):
    path = tmp_path / "memory.db"
    with MemoryGraph(path, Fake(), vector_backend="exact") as memory:
        memory.add_many(conversation(150))
    server.delay = 0.005
    for out in finish([start(KILLED, path, server.url, "", Path(__file__).parent) for _ in range(3)]):
        assert out == "open\ndone\n"
    server.delay = 0.0
    assert [len(slots) for slots in points(server).values()] == [150]
    server.asked.clear()
    with opened(path, server.url) as memory, MemoryGraph(path, Fake(), vector_backend="exact") as measure:
        assert answers(memory) == answers(measure)
    assert not server.asked["PUT/collections/*/points"]


# --- clients ------------------------------------------------------------------------------------------------------


def test_one_client_for_each_place(tmp_path, server):
    folder = str(tmp_path / "vectors")
    for url in (":memory:", folder, server.url):
        with opened(tmp_path / "a.db", url) as one, opened(tmp_path / "b.db", url) as two:
            one.add_many(conversation(3))
            two.add_many(conversation(4))
            assert len(answers(one)) == 3
            assert len(answers(two)) == 4
            pools = [memory._dense._new_index._connection._pooled() for memory in (one, two)]
            assert pools[0] is pools[1]
            client = pools[0].client
            one.close()
            assert len(answers(two)) == 4
        assert client._client.closed
        assert not _qdrant_place._pool


def test_a_folder_serves_one_process(tmp_path):
    folder = str(tmp_path / "vectors")
    with opened(tmp_path / "a.db", folder) as memory:
        memory.add_many(conversation(3))
        answers(memory)
        said = run(
            "import sys\n"
            "from raeburnmemory import MemoryGraph, errors\n"
            "try:\n"
            "    MemoryGraph(sys.argv[1], 'builtin', vector_backend='qdrant', qdrant_url=sys.argv[2])\n"
            "except errors.IndexUnavailable as exc:\n"
            "    print(exc)\n",
            tmp_path / "b.db",
            folder,
        )
    assert folder in said
    assert "in use by another process, and Qdrant serves one process at a time" in said
    assert "run a Qdrant server" in said
    assert not (tmp_path / "b.db").exists()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(IndexUnavailable, match="file"):
        opened(tmp_path / "a.db", str(tmp_path / "file"))


def test_nothing_is_said_at_the_end_of_the_process(tmp_path, server):
    """Closed or not: no warning, no traceback."""
    code = (
        "import sys, warnings\n"
        "from outside import Fake\n"
        "from raeburnmemory.memory_graph import MemoryGraph\n"
        "memory = MemoryGraph(sys.argv[1], Fake(), vector_backend='qdrant', qdrant_url=sys.argv[2])\n"
        "memory.add_interaction('what of w3', 'it is v3')\n"
        "print(memory.similar('w3', 1)[0].text)\n"
        "if sys.argv[3] == 'close': memory.close()\n"
    )
    for url in (":memory:", str(tmp_path / "vectors"), server.url):
        for how in ("close", "leave"):
            place = tmp_path / f"{how}{len(url)}.db"
            process = start("import warnings; warnings.simplefilter('error')\n" + code, place, url, how)
            assert process.communicate(timeout=60) == ("what of w3\n", "")


def test_a_child_has_a_client_of_its_own(server, tmp_path):
    code = (
        "import os, sys\n"
        "from outside import Fake\n"
        "from raeburnmemory.memory_graph import MemoryGraph\n"
        "memory = MemoryGraph(sys.argv[1], Fake(), vector_backend='qdrant', qdrant_url=sys.argv[2])\n"
        "memory.add_interaction('what of w3', 'it is v3')\n"
        "memory.similar('w3', 1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    memory.add_interaction('what of w4', 'it is v4')\n"
        "    os._exit(0 if memory.similar('w4', 1)[0].text == 'what of w4' else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "print(memory.similar('w4', 1)[0].text)\n"
    )
    assert run(code, tmp_path / "a.db", server.url) == "what of w4\n"


def test_many_threads_share_it(url, tmp_path):
    with opened(tmp_path / "a.db", url) as memory:
        memory.add_many(conversation(60))
        expected = [answers(memory, f"w{n}") for n in range(20)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda n: answers(memory, f"w{n}"), range(20))) == expected


def test_above_a_number_of_vectors_the_graph_is_asked(server, tmp_path):
    """What a search asks for then; that the graph finds enough is for a real server to show."""
    place = Qdrant(server.url, exact_up_to=30)
    with MemoryGraph(tmp_path / "memory.db", Fake(), vector_backend=place) as memory:
        memory.add_many(conversation(30))
        answers(memory)
        assert memory.vector_index.mode == "float32"
        assert server.params.exact
        memory.add_many(conversation(1, 30))
        found = memory.similar("w3", 3)
        assert memory.vector_index.mode == "hnsw"
        assert (server.params.exact, server.params.hnsw_ef) == (False, 128)
        assert len(found) == 3


def test_by_grpc(tmp_path):
    """The port of REST leads nowhere: everything goes by gRPC."""
    rpc = RpcServer()
    try:
        place, path = Qdrant("http://127.0.0.1:9", grpc_port=rpc.port, timeout=5), tmp_path / "memory.db"
        with MemoryGraph(path, Fake(), vector_backend="exact") as measure:
            with MemoryGraph(path, Fake(), vector_backend=place) as memory:
                memory.add_many(conversation(60))
                for filters in FILTERS:
                    assert answers(memory, **filters) == answers(measure, **filters)
                memory.link("p5", "s3", "belongs_to")
                memory.forget(["p7"])
                assert answers(memory, session="s3") == answers(measure, session="s3")
            rpc.asked.clear()
            with MemoryGraph(path, Fake(), vector_backend=place) as memory:
                assert answers(memory) == answers(measure)
                assert not {"CreateCollection", "UpsertPoints"} & set(rpc.asked)
                for status, said in (
                    (grpc.StatusCode.UNAVAILABLE, "cannot be reached: told to fail"),
                    (grpc.StatusCode.DEADLINE_EXCEEDED, "did not answer within 5 seconds"),
                    (grpc.StatusCode.PERMISSION_DENIED, "answered PERMISSION_DENIED: told to fail"),
                ):
                    rpc.status = status
                    with pytest.raises(IndexUnavailable, match=said):
                        answers(memory)
                    assert said in memory.recall("w3").skipped["dense"]
                rpc.status = None
                (name,) = [one.name for one in rpc.local.get_collections().collections if "_prompt_" in one.name]
                rpc.local.delete_collection(name)
                assert answers(memory) == answers(measure)
    finally:
        rpc.close()
