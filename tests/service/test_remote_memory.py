"""A memory behind a real service is the memory in it: the same calls, the same answers, the same errors."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import threading
import time
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pytest

pytest.importorskip("httpx", reason="the client needs httpx")
pytest.importorskip("fastapi", reason="the service needs fastapi")
uvicorn = pytest.importorskip("uvicorn", reason="the service needs uvicorn")
pytest.importorskip("prometheus_client", reason="the service needs prometheus-client")

from raeburnmemory import MemoryGraph, Prompt, Response, errors  # noqa: E402
from raeburnmemory.api import create_app  # noqa: E402
from raeburnmemory.client import AsyncRemoteMemory, RemoteMemory  # noqa: E402
from raeburnmemory.web import Settings  # noqa: E402

KEY = "a-key-of-the-tests"


@contextlib.contextmanager
def served(app):
    """Serve *app* from a thread; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def memory(tmp_path):
    with MemoryGraph(tmp_path / "m.db", "builtin", vector_backend="exact") as found:
        yield found


@pytest.fixture
def remote(memory):
    with served(create_app(memory, Settings(key=KEY.encode()))) as url, RemoteMemory(url, api_key=KEY) as client:
        yield client


def bare(node):
    """Return what of a node travels."""
    return node.id, node.kind, node.text, dict(node.attributes)


def talk(memory):
    memory.add_interaction(
        {"id": "p1", "text": "Which allergies does Ana have?", "mood": "worried"},
        Response("r1", "Peanuts and latex.", model="small", agent_id="nurse"),
        session_id="intake",
        metadata={"stars": 4},
        timestamp="2026-11-20T09:30:00Z",
    )
    memory.add_many([(Prompt("p2", "When does the pharmacy close?", session_id="shop"), "At seven."), ("Tea?",)])
    memory.add_messages(
        [
            {"text": "Hello there", "session_id": "chat", "name": "Ana", "id": "m1"},
            {"text": "Good morning", "session_id": "chat", "role": "assistant", "id": "m2"},
        ]
    )
    memory.add_message("And tomorrow?", session_id="chat", id="m3")


def test_it_answers_as_the_memory_does(memory, remote):
    talk(remote)
    assert memory.get("p1").attributes["mood"] == "worried"
    assert (memory.get("r1").attributes["model"], memory.get("r1").attributes["stars"]) == ("small", 4)
    assert [node.text for node in memory.thread("chat")] == ["Hello there", "Good morning", "And tomorrow?"]

    assert list(map(bare, remote)) == list(map(bare, memory))
    assert list(map(bare, remote.nodes(["prompt", "agent"]))) == list(map(bare, memory.nodes(["prompt", "agent"])))
    for session in ("intake", "chat"):
        assert list(map(bare, remote.thread(session))) == list(map(bare, memory.thread(session)))
    for direction in ("out", "in", "both"):
        theirs, ours = remote.links("p1", None, direction), memory.links("p1", None, direction)
        assert [(link.source, link.target, link.relation) for link in theirs] == [
            (link.source, link.target, link.relation) for link in ours
        ]
        assert list(map(bare, remote.neighbours("p1", None, direction))) == list(
            map(bare, memory.neighbours("p1", None, direction))
        )
    for search in ({}, {"k": 2, "kinds": "response"}, {"since": "2026-11-21"}, {"where": {"stars": {"gte": 4}}}):
        theirs, ours = remote.recall("Is Ana allergic?", **search), memory.recall("Is Ana allergic?", **search)
        assert [(bare(hit.node), hit.score, hit.similarity, hit.coverage, hit.why, hit.speaker, hit.session, hit.citation)
                for hit in theirs] == [
            (bare(hit.node), hit.score, hit.similarity, hit.coverage, hit.why, hit.speaker, hit.session, hit.citation)
            for hit in ours
        ]  # fmt: skip
        assert (theirs.legs, theirs.skipped) == (ours.legs, ours.skipped)
    theirs, ours = remote.context("Is Ana allergic?", 200), memory.context("Is Ana allergic?", 200)
    assert theirs.to_dict() == ours.to_dict()
    assert [piece.node.kind for piece in theirs.pieces] == [piece.node.kind for piece in ours.pieces]
    vector = memory.vectors(["p2"])["p2"]
    for asked in ("closing time", vector, vector.tolist()):
        for kinds in ("prompt", None):
            assert remote.similar(asked, 3, kinds=kinds).ids == memory.similar(asked, 3, kinds=kinds).ids
    for more in ({}, {"k": 1, "every": True}, {"kinds": "response"}):
        theirs, ours = remote.matching("Ana allergic", **more), memory.matching("Ana allergic", **more)
        assert [(bare(hit.node), hit.score, hit.coverage, hit.why) for hit in theirs] == [
            (bare(hit.node), hit.score, hit.coverage, hit.why) for hit in ours
        ]
    assert remote.get_similar_prompts("closing time", 2) == memory.get_similar_prompts("closing time", 2)
    assert remote.export() == memory.export(False)
    assert {**remote.stats().to_dict(), "path": ""} == {**memory.stats().to_dict(), "path": ""}
    assert (len(remote), "p1" in remote, "nobody" in remote, bool(remote)) == (len(memory), True, False, True)
    gone = remote.forget(session="chat", before="2100-01-01")
    assert gone.ids
    assert gone.kinds["prompt"] == 2
    assert not remote.forget("nobody")
    assert "m1" not in memory


def test_ids_and_vectors_that_are_given_are_taken(memory, remote):
    vector = np.eye(256, dtype=np.float32)[3]
    recorded = remote.add_interaction({"id": "kind/collection/id", "text": "a/b?c=d&ü"}, vector=vector)
    assert recorded.prompt == "kind/collection/id"
    np.testing.assert_array_equal(memory.vectors([recorded.prompt])[recorded.prompt], vector)
    assert remote.get(recorded.prompt).text == "a/b?c=d&ü"
    with pytest.raises(errors.DimensionMismatch):
        remote.add_interaction("short", vector=[1.0, 0.0])
    with pytest.raises(TypeError):
        remote.add_interaction("x", colour="red")
    assert remote.add_many([]) == remote.add_messages([]) == []


@pytest.mark.parametrize("name", [".", "..", "a/../b", "x" * 600, "ü" * 600, "a?b#c%2F", "line\nbreak"])
def test_any_id_can_be_read(memory, remote, name):
    recorded = remote.add_message("what is said", id=name, session_id=f"{name} session")
    assert recorded.message == name
    remote.add_message("more", session_id=f"{name} session")
    assert bare(remote.get(name)) == bare(memory.get(name))
    assert [link.target for link in remote.links(name)] == [f"{name} session"]
    assert remote.thread(f"{name} session")[0].id == name
    memory.add_messages([{"text": "one more", "id": "y" * 600 + str(number)} for number in range(1100)])
    assert sum(1 for _ in remote.nodes("prompt")) == 1102  # the last of a page has a long id, too


def test_iterables_arrays_and_times_are_taken_as_by_the_memory(memory, remote):
    talk(memory)
    vector = memory.model.embed(["Which allergies does Ana have?"])[0]
    for asked in (vector, list(vector), vector.tolist()):
        assert remote.similar(asked, 2).ids == memory.similar(asked, 2).ids
    for kinds in ({"prompt"}, ("prompt",), iter(["prompt"]), {"prompt": 1}.keys()):
        assert set(remote.recall("Ana", kinds=kinds).ids) == set(memory.recall("Ana", kinds="prompt").ids)
    for name, when in (
        ("a", 1.5),
        ("b", datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5)))),
        ("c", "2026-01-01"),
    ):
        for each, prefix in ((memory, "here"), (remote, "there")):
            said = {"id": f"{prefix} {name}", "text": "when", "timestamp": when, "at": when}
            each.add_interaction(said, metadata={"when": [when]})
        here, there = (bare(memory.get(f"{prefix} {name}"))[2:] for prefix in ("here", "there"))
        assert here == there
    assert remote.forget(name for name in ["here a", "there a"]).kinds == {"prompt": 2}


def test_no_kind_is_not_every_kind(memory, remote):
    talk(memory)
    for each in (memory, remote):
        for kinds in ([], (), set()):
            assert each.similar("Ana", kinds=kinds).ids == each.recall("Ana", kinds=kinds).ids == []
            assert list(each.nodes(kinds)) == []


@pytest.mark.parametrize(
    "value", [float("nan"), b"bytes", {1, 2}, object(), "\ud800", date(2026, 1, 1), {1: 2}, [{"a": float("inf")}]]
)
def test_what_json_cannot_hold_is_refused_as_by_the_memory(memory, remote, value):
    for each in (memory, remote):
        for call in (
            lambda memory: memory.add_message("x", metadata={"a": value}),
            lambda memory: memory.add_interaction({"text": "x", "a": value}),
            lambda memory: memory.recall("x", where={"a": value}),
        ):
            with pytest.raises(errors.InvalidInput):
                call(each)
    assert len(memory) == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda memory: memory.get("nobody"), errors.NodeNotFound),
        (lambda memory: memory.get(""), errors.InvalidInput),
        (lambda memory: memory.get(5), errors.InvalidInput),
        (lambda memory: memory.links(""), errors.InvalidInput),
        (lambda memory: memory.thread("\ud800"), errors.InvalidInput),
        (lambda memory: memory.recall("\ud800"), errors.InvalidInput),
        (lambda memory: memory.add_message("\ud800"), errors.InvalidInput),
        (lambda memory: memory.similar([1.0, float("nan")]), errors.InvalidInput),
        (lambda memory: memory.thread("nobody"), errors.NodeNotFound),
        (lambda memory: memory.recall("x", kinds=[""]), errors.InvalidInput),
        (lambda memory: memory.recall("x", where={"a": {"gt": []}}), errors.InvalidInput),
        (lambda memory: memory.add_interaction({"id": "s", "text": "is a session"}), errors.KindConflict),
        (lambda memory: memory.forget(), errors.InvalidInput),
    ],
)
def test_errors_are_those_of_the_memory(memory, remote, call, error):
    memory.add_message("here", session_id="s")
    for each in (memory, remote):
        with pytest.raises(error):
            call(each)


def test_what_only_a_service_can_say(memory):
    with served(create_app(memory, Settings(key=KEY.encode(), rate=2))) as url:
        with RemoteMemory(url, api_key="wrong", retries=0) as client:
            with pytest.raises(errors.RemoteError, match="wants its key") as refused:
                client.stats()
            assert refused.value.status == 401
            again = pickle.loads(pickle.dumps(refused.value))
            assert (str(again), again.status) == (str(refused.value), 401)
        with RemoteMemory(url, api_key=KEY, retries=0) as client:
            client.stats()
            with pytest.raises(errors.RemoteError, match="More than 2 requests"):
                client.stats()
    with RemoteMemory(url, retries=1) as client, pytest.raises(errors.StoreUnreachable, match="does not answer"):
        client.stats()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("memory.db", {}, "no URL of a service"),
        ("ftp://host", {}, "no URL of a service"),
        ("http://user:word@localhost:1", {}, "no user"),
        ("http://example.org", {"api_key": KEY}, "for everybody on the way to read"),
        ("http://localhost:1", {"retries": -1}, "retries"),
    ],
)
def test_urls_and_options_that_make_no_sense(url, options, message):
    with pytest.raises(errors.InvalidInput, match=message):
        RemoteMemory(url, **options)


def test_the_key_comes_from_the_environment_and_goes_only_where_it_may(memory, monkeypatch):
    monkeypatch.setenv("RAEBURN_API_KEY", KEY)
    with served(create_app(memory, Settings(key=KEY.encode()))) as url, RemoteMemory(url) as client:
        assert client.stats().nodes == 0
        assert KEY not in repr(client)
    RemoteMemory("https://example.org").close()
    RemoteMemory("http://example.org", api_key="").close()


class Unreliable:
    """An application that does what it is asked, and breaks off before the answer every other time."""

    def __init__(self, app):
        self.app, self.count = app, 0

    async def __call__(self, scope, receive, send):
        self.count += 1
        broken = self.count % 2 == 1

        async def maybe(message):
            if broken and message["type"] == "http.response.body":
                raise ConnectionResetError  # makes the server cut the connection
            await send(message)

        await self.app(scope, receive, maybe)


def test_what_is_sent_again_is_recorded_once(memory):
    with served(Unreliable(create_app(memory, Settings()))) as url, RemoteMemory(url) as client:
        for n in range(10):
            client.add_interaction(f"question {n}", f"answer {n}", "bot", "s")
            client.add_message(f"message {n}", session_id="t")
    kinds = memory.stats().kinds
    assert (kinds["prompt"], kinds["response"]) == (20, 10)
    assert [node.text for node in memory.thread("t")] == [f"message {n}" for n in range(10)]


def test_a_service_that_is_busy_is_asked_again_when_it_says(memory):
    app = create_app(memory, Settings(rate=60))  # one a second, once they are used up
    with served(app) as url, RemoteMemory(url, retries=0) as hasty, RemoteMemory(url) as patient:

        def use_up():
            for _ in range(1000):
                hasty.get_similar_prompts("x")

        for _ in range(10):  # the second may be over between the two, on a machine that is busy
            with pytest.raises(errors.RemoteError, match="More than 60 requests"):
                use_up()
            before = time.monotonic()
            patient.get_similar_prompts("x")
            if time.monotonic() - before > 0.5:
                return
        raise AssertionError("it never waited")


def test_a_namespace_is_all_that_is_seen(memory):
    app = create_app(memory, Settings())
    with served(app) as url, RemoteMemory(url) as everybody, RemoteMemory(url, namespace="ana") as ana:
        everybody.add_interaction("for everybody")
        ana.add_interaction("for ana")
        assert [node.text for node in everybody] == ["for everybody"]
        assert [node.text for node in ana] == ["for ana"]
        assert [hit.text for hit in ana.recall("everybody")] in ([], ["for ana"])


def test_pages_are_put_together(memory, remote):
    memory.add_messages([{"text": f"number {n}", "session_id": "long"} for n in range(1203)])
    assert [node.text for node in remote.thread("long")] == [f"number {n}" for n in range(1203)]
    assert sum(1 for _ in remote.nodes("prompt")) == 1203


def test_the_same_to_be_awaited(memory):
    async def use(url):
        async with AsyncRemoteMemory(url, api_key=KEY) as client:
            first = await client.add_interaction("Which allergies does Ana have?", "Peanuts.", session_id="s")
            await client.add_many([("Tea?",)])
            await client.add_message("Hello", session_id="t")
            await client.add_messages([{"text": "There", "session_id": "t"}])
            assert (await client.recall("allergies", 1)).ids == memory.recall("allergies", 1).ids
            assert (await client.similar("allergies", 1)).ids == await client.get_similar_prompts("allergies", 1)
            assert (await client.matching("allergies", 1)).ids == memory.matching("allergies", 1).ids == [first.prompt]
            assert (await client.context("allergies", 200)).text == memory.context("allergies", 200).text
            assert bare(await client.get(first.prompt)) == bare(memory.get(first.prompt))
            assert [bare(node) async for node in client.nodes("prompt")] == list(map(bare, memory.nodes("prompt")))
            assert [node.text for node in await client.thread("t")] == ["Hello", "There"]
            assert len(await client.links(first.prompt)) == 2
            assert [node.id for node in await client.neighbours(first.prompt, "responded_with")] == [first.response]
            assert await client.export() == memory.export(False)
            assert (await client.forget(first.prompt)).ids == (first.prompt, "s")
            assert (await client.stats()).nodes == len(memory)
            with pytest.raises(errors.NodeNotFound):
                await client.get(first.prompt)
        async with AsyncRemoteMemory("http://127.0.0.1:9", retries=0) as client:
            with pytest.raises(errors.StoreUnreachable):
                await client.stats()

    with served(create_app(memory, Settings(key=KEY.encode()))) as url:
        asyncio.run(use(url))
