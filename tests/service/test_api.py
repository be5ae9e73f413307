"""The routes of the service, each beside the same call of a memory in this process."""

from __future__ import annotations

import gzip
import json
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from outside import Fake

pytest.importorskip("fastapi", reason="the service needs fastapi")
pytest.importorskip("prometheus_client", reason="the service needs prometheus-client")
pytest.importorskip("httpx", reason="its test client needs httpx")
from fastapi.testclient import TestClient

from raeburnmemory import MemoryGraph
from raeburnmemory.api import app, create_app, get_memory_graph, scope
from raeburnmemory.nodes import Node
from raeburnmemory.web import OPEN, Settings

KEY = "a-long-random-text"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def memory(tmp_path):
    with MemoryGraph(tmp_path / "memory.db", embedding_model=Fake()) as made:
        yield made


@pytest.fixture(scope="module")
def application():
    """Return an application for all tests, since making one takes longer than most of them."""
    return create_app(None, Settings())


@pytest.fixture
def client(application, memory):
    application.dependency_overrides[get_memory_graph] = lambda: memory
    yield TestClient(application)
    application.state.scopes.close()
    application.dependency_overrides.clear()


def talk(memory, exchanges=6):
    """Record some exchanges of two sessions and two agents."""
    memory.add_many(
        {
            "prompt": {"id": f"p{n}", "text": f"question number {n} about cats and dogs"},
            "response": {"id": f"r{n}", "text": f"answer {n} about birds"},
            "agent": f"agent{n % 2}",
            "session_id": f"s{n % 2}",
            "metadata": {"stars": n},
        }
        for n in range(exchanges)
    )


def routes(application):
    """Yield every method and path of an application, also those that its document leaves out."""

    def walk(found, prefix=""):
        for route in found:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                yield from walk(inner.routes)
            else:
                for method in route.methods:
                    yield method, prefix + route.path

    found = set(walk(application.routes))
    for path, methods in application.openapi()["paths"].items():
        known = {route.replace(":anything}", "}") for _, route in found}
        assert path in known
        found |= {(method.upper(), path) for method in methods}
    return sorted(found)


class TestKey:
    """F1: every route there is, enumerated from the application."""

    @pytest.fixture
    def locked(self, memory):
        return TestClient(create_app(memory, Settings(key=KEY.encode(), hosts=None)))

    def test_every_route_wants_it(self, locked):
        found = routes(locked.app)
        assert len(found) > 15
        for method, path in found:
            for way in (method, "HEAD", "OPTIONS", "TRACE", "POST"):
                for asked in {path.replace("{node_id:anything}", "x").replace("{node_id}", "x"), path, path + "/"}:
                    answer = locked.request(way, asked)
                    if asked in OPEN:
                        assert answer.status_code in {200, 405}
                    else:
                        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

    def test_a_new_route_wants_it(self, memory):
        application = create_app(memory, Settings(key=KEY.encode(), hosts=None))
        application.get("/new")(lambda: "secret")
        assert TestClient(application).get("/new").status_code == 401
        assert TestClient(application).get("/new", headers={"Authorization": f"Bearer {KEY}"}).json() == "secret"

    def test_health_says_nothing(self, locked):
        for path in sorted(OPEN):
            assert locked.get(path).json() == {"status": "ok"}

    def test_health_of_a_memory_that_cannot_be_read(self, locked, memory, caplog):
        memory.close()
        answer = locked.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["detail"] == "The memory cannot be read now."
        assert locked.get("/healthz").status_code == 200

    def test_with_it(self, locked, memory):
        talk(memory)
        assert locked.get("/v1/stats", headers={"Authorization": f"Bearer {KEY}"}).json()["nodes"] == 16


class TestOriginal:
    """The two routes of the original, as it had them."""

    def test_the_graph(self, client, memory):
        talk(memory)
        assert client.get("/memory/graph").json() == json.loads(json.dumps(memory.export(False)))

    def test_similar(self, client, memory):
        talk(memory)
        said = client.post("/memory/similar", json={"text": "question number 3", "top_k": 2, "model": "x", "n": None})
        assert said.json() == {"ids": memory.get_similar_prompts("question number 3", 2)}
        assert len(client.post("/memory/similar", json={"text": "cats"}).json()["ids"]) == 5

    @pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": None}, {"text": 5}, {"top_k": 3}, [], "text", 5])
    def test_without_a_text(self, client, memory, body):
        talk(memory)
        answer = client.post("/memory/similar", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (400, "text field required")

    def test_without_embeddings(self, client):
        assert client.post("/memory/similar", json={"text": "cats"}).status_code == 404

    @pytest.mark.parametrize("top_k", [-1, 1001, 2.5, "5", None, True, 10**30])
    def test_a_number_that_is_none(self, client, memory, top_k):
        talk(memory)
        assert client.post("/memory/similar", json={"text": "cats", "top_k": top_k}).status_code == 422

    def test_overridden_as_in_the_original(self, memory):
        talk(memory)
        app.dependency_overrides[get_memory_graph] = lambda: memory
        try:
            client = TestClient(app)  # no lifespan
            assert client.get("/memory/graph").json()["nodes"][0]["id"] == "p0"
            assert client.post("/memory/similar", json={"text": "cats", "top_k": 1}).status_code == 200
        finally:
            app.dependency_overrides.clear()

    def test_overridden_by_a_generator(self, memory):
        def given():
            yield memory

        app.dependency_overrides[get_memory_graph] = given
        try:
            answer = TestClient(app).get("/v1/nodes/none")
            assert (answer.status_code, answer.json()["code"]) == (404, "NodeNotFound")
        finally:
            app.dependency_overrides.clear()


class TestInteractions:
    def test_one(self, client, memory):
        said = {
            "prompt": "hello",
            "response": {"id": "r", "text": "hi", "mood": "good"},
            "agent": {"id": "a", "name": "Ann"},
        }
        answer = client.post("/v1/interactions", json={**said, "session_id": "s", "metadata": {"n": None}})
        assert answer.status_code == 201
        [ids] = answer.json()["recorded"]
        assert (ids["response"], ids["agent"], ids["session"]) == ("r", "a", "s")
        assert memory.get(ids["prompt"]).text == "hello"
        assert memory.get("r").attributes["mood"] == "good"
        assert memory.get("a").attributes == {"name": "Ann"}
        assert "n" in memory.get("r").attributes  # null is a value
        assert [node.id for node in memory.thread("s")] == [ids["prompt"], "r"]

    def test_many_or_none(self, client, memory):
        good = [{"prompt": {"id": f"p{n}", "text": "hello"}} for n in range(3)]
        bad = [*good, {"prompt": {"id": "p9", "text": "hello"}, "timestamp": "never"}]
        assert client.post("/v1/interactions", json=bad).status_code == 422
        assert len(memory) == 0
        assert client.post("/v1/interactions", json=good).status_code == 201
        assert len(memory) == 3

    def test_get(self, client, memory):
        talk(memory)
        memory.add_interaction(
            {"id": "p1", "text": memory.get("p1").text}, {"id": "again", "text": "another"}, "agent7"
        )
        for asked in ("p1", "r1", "again"):
            found = client.get(f"/v1/interactions/{asked}").json()
            assert found["prompt"] == memory.get("p1").to_dict()
            assert {each["id"] for each in found["responses"]} == {"r1", "again"}
            assert {each["id"] for each in found["agents"]} == {"agent1", "agent7"}
            assert found["session"] == "s1"
        assert client.get("/v1/interactions/s1").status_code == 404

    def test_delete(self, client, memory):
        talk(memory)
        assert set(client.delete("/v1/interactions/r1").json()["ids"]) >= {"p1", "r1"}
        assert "p1" not in memory
        assert "r1" not in memory
        assert client.delete("/v1/interactions/r1").status_code == 404
        assert client.delete("/v1/interactions/r2", params={"secure": True}).status_code == 200

    def test_forget(self, client, memory):
        talk(memory)
        answer = client.post("/v1/forget", json={"session": "s1"})
        assert sorted(answer.json()["ids"]) == ["p1", "p3", "p5", "r1", "r3", "r5", "s1"]
        assert client.post("/v1/forget", json={}).status_code == 422

    @pytest.mark.parametrize(
        "name", ["cls", "self", "_fields_set", "_x", "model_config", "copy", "schema", "json", "values"]
    )
    def test_attributes_of_any_name(self, client, memory, name):
        talk(memory)
        client.post("/v1/interactions", json={"prompt": {"id": "p", "text": "cats"}, "metadata": {name: [1, {"a": 2}]}})
        node = client.get("/v1/nodes/p").json()
        assert node == memory.get("p").to_dict()
        assert node[name] == [1, {"a": 2}]
        assert client.post("/v1/recall", json={"query": "cats"}).status_code == 200

    @pytest.mark.parametrize(
        "node_id", ["a/b", "/a", "a//b", "a b", "ä", "a?b#c", "..", "../x", "\r\nX: y", "\0", "'; --"]
    )
    def test_ids_of_any_kind(self, client, memory, node_id):
        from urllib.parse import quote

        client.post("/v1/interactions", json={"prompt": {"id": node_id, "text": "hello"}, "session_id": node_id + "s"})
        at = quote(node_id, safe="").replace(".", "%2E")
        found = client.get(f"/v1/interactions/{at}")
        assert found.json()["prompt"]["id"] == node_id
        assert found.headers.get("x") is None
        assert client.get("/v1/graph/neighbours", params={"id": node_id}).json()["nodes"][0]["id"] == node_id + "s"
        assert client.delete(f"/v1/interactions/{at}").json()["ids"][0] == node_id

    def test_another_kind(self, client, memory):
        talk(memory)
        answer = client.post("/v1/interactions", json={"prompt": {"id": "s1", "text": "x"}})
        assert (answer.status_code, answer.json()["code"]) == (409, "KindConflict")


class TestOnce:
    """What is sent again with its Idempotency-Key is recorded once."""

    LEFT_OUT = {"prompt": "hello", "response": "hi", "agent": "a", "session_id": "s", "metadata": {"n": 1}}  # noqa: RUF012
    GIVEN = {"prompt": {"id": "p", "text": "hello"}, "response": {"id": "r", "text": "hi"}}  # noqa: RUF012
    HALF = {"prompt": {"id": "p", "text": "hello"}, "response": "hi"}  # noqa: RUF012

    def send(self, client, body, key="k"):
        return client.post("/v1/interactions", json=body, headers={"Idempotency-Key": key})

    @pytest.mark.parametrize("body", [LEFT_OUT, GIVEN, HALF, [LEFT_OUT, HALF, {"prompt": "bye"}]])
    def test_twice(self, client, memory, body):
        first = self.send(client, body)
        version = memory.version
        second = self.send(client, body)
        assert (first.status_code, second.status_code) == (201, 200)
        assert [{**one, "message": None} for one in first.json()["recorded"]] == second.json()["recorded"]
        assert memory.version == version

    @pytest.mark.parametrize(
        "change",
        [
            {"prompt": "other"},
            {"response": "other"},
            {"agent": "b"},
            {"agent": None},
            {"session_id": "t"},
            {"session_id": None},
            {"metadata": {"n": 2}},
            {"metadata": None},
            {"metadata": {"n": 1, "m": 2}},
            {"timestamp": "2020-01-01"},
            {"response": None},
        ],
        ids=str,
    )
    def test_another_body(self, client, memory, change):
        self.send(client, self.LEFT_OUT)
        before = memory.export(False)
        answer = self.send(client, {**self.LEFT_OUT, **change})
        assert (answer.status_code, answer.json()["code"]) == (422, "KeyReused")
        assert memory.export(False) == before

    def test_another_key(self, client, memory):
        ids = [self.send(client, self.LEFT_OUT, key).json()["recorded"][0]["prompt"] for key in ("k", "l", "k")]
        assert ids[0] == ids[2] != ids[1]

    def test_what_names_its_ids_may_change(self, client, memory):
        self.send(client, self.GIVEN)
        changed = {**self.GIVEN, "metadata": {"stars": 5}}
        assert self.send(client, changed, "l").status_code == 201
        assert memory.get("p").attributes["stars"] == 5
        assert self.send(client, changed, "l").status_code == 200

    def test_with_a_time(self, client, memory):
        body = {**self.LEFT_OUT, "timestamp": "2024-05-01T12:00:00+02:00"}
        assert [self.send(client, body).status_code for _ in range(2)] == [201, 200]
        assert self.send(client, {**body, "timestamp": "2024-05-01T12:00:01+02:00"}).status_code == 422

    def test_after_a_restart(self, tmp_path):
        said = []
        for _ in range(2):
            with MemoryGraph(tmp_path / "again.db", embedding_model=Fake()) as memory:
                said.append(self.send(TestClient(create_app(memory, Settings())), [self.LEFT_OUT, self.LEFT_OUT]))
        assert [answer.status_code for answer in said] == [201, 200]
        assert said[0].json()["recorded"] == said[1].json()["recorded"]

    def test_at_once(self, client, memory):
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda _: self.send(client, self.LEFT_OUT), range(8)))
        assert sorted(answer.status_code for answer in said) == [200] * 7 + [201]
        assert len({answer.json()["recorded"][0]["prompt"] for answer in said}) == 1
        assert memory.stats().kinds == {"prompt": 1, "response": 1, "agent": 1, "session": 1}

    def test_different_bodies_at_once(self, client, memory):
        bodies = [{"prompt": f"text {n}"} for n in range(8)]
        with ThreadPoolExecutor(8) as pool:
            said = [answer.status_code for answer in pool.map(lambda body: self.send(client, body), bodies)]
        assert sorted(said) == [201] + [422] * 7
        [node] = memory.nodes()
        assert node.text == bodies[said.index(201)]["prompt"]

    def test_many(self, client, memory):
        body = [{"prompt": f"text {n}", "session_id": "s"} for n in range(200)]
        assert [self.send(client, body).status_code for _ in range(2)] == [201, 200]
        assert memory.stats().kinds["prompt"] == 200

    def test_another_namespace(self, client, memory):
        for namespace in ("u", "v", None):
            said = client.post(
                "/v1/interactions",
                json=self.LEFT_OUT,
                headers={"Idempotency-Key": "k"},
                params={} if namespace is None else {"namespace": namespace},
            )
            assert said.status_code == 201

    def test_messages(self, client, memory):
        body = [
            {"text": "hello", "session_id": "s"},
            {"text": "hi", "role": "assistant", "session_id": "s", "name": "a"},
        ]
        said = [client.post("/v1/messages", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert [answer.status_code for answer in said] == [201, 200]
        assert said[0].json() == said[1].json()
        assert [node.text for node in memory.thread("s")] == ["hello", "hi"]
        for change in (
            {"text": "other"},
            {"session_id": "t"},
            {"role": "system"},
            {"metadata": {"n": 1}},
            {"name": "b"},
        ):
            other = [{**body[0], **change}, body[1]]
            answer = client.post("/v1/messages", json=other, headers={"Idempotency-Key": "k"})
            assert answer.status_code == 422, change


class TestFinding:
    QUESTIONS = (
        {"query": "cats"},
        {"query": "answer 3", "k": 3, "kinds": ["response"]},
        {"query": "birds", "session": "s1", "agent": ["agent1"], "diversity": 0.5, "fold": True},
        {"query": "dogs", "where": {"stars": {"gte": 3}}, "recency": 0.2, "half_life": 3, "legs": ["dense", "lexical"]},
        {"query": "dogs", "since": "2020-01-01", "until": 4e9, "min_coverage": 0.1, "now": "2026-01-01"},
        {"query": "dogs", "since": "2090-01-01"},
    )

    @pytest.mark.parametrize("asked", QUESTIONS)
    def test_recall(self, client, memory, asked):
        talk(memory)
        found = client.post("/v1/recall", json=asked).json()
        wanted = memory.recall(
            asked["query"], asked.get("k", 10), **{k: v for k, v in asked.items() if k not in {"query", "k"}}
        )
        assert [hit["node"] for hit in found["hits"]] == [hit.node.to_dict() for hit in wanted]
        assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in wanted])
        assert [hit["citation"] for hit in found["hits"]] == [hit.citation for hit in wanted]
        assert found["legs"] == list(wanted.legs)

    @pytest.mark.parametrize("asked", QUESTIONS)
    def test_context(self, client, memory, asked):
        talk(memory)
        more = {key: value for key, value in asked.items() if key not in {"query", "k"}}
        found = client.post("/v1/context", json={"query": asked["query"], "budget": 90, **more}).json()
        wanted = memory.context(asked["query"], 90, **more)
        assert (found["text"], found["tokens"]) == (wanted.text, wanted.tokens)

    def test_similar(self, client, memory):
        talk(memory)
        wanted = memory.similar("question number 2", 3, kinds=None, session="s0")
        asked = {"k": 3, "kinds": [], "session": "s0"}
        vector = [float(number) for number in memory.model.embed(["question number 2"])[0]]
        for more in ({"text": "question number 2"}, {"vector": vector}):
            found = client.post("/v1/similar", json={**asked, **more}).json()
            assert [hit["node"]["id"] for hit in found["hits"]] == wanted.ids
        for wrong in ({}, {"text": "a", "vector": vector}, {"vector": [1.0]}, {"vector": [0.0] * 16}, {"text": ""}):
            assert client.post("/v1/similar", json=wrong).status_code == 422

    def test_matching(self, client, memory):
        talk(memory)
        for more in ({}, {"every": True}, {"kinds": ["response"], "session": "s1"}, {"k": 2}):
            wanted = memory.matching("question number 2", **more)
            found = client.post("/v1/matching", json={"words": "question number 2", **more}).json()
            assert [(hit["node"]["id"], hit["score"], hit["coverage"]) for hit in found["hits"]] == [
                (hit.id, hit.score, hit.coverage) for hit in wanted
            ]
            assert found["legs"] == ["lexical"]
        assert client.post("/v1/matching", json={"words": "question number 2"}).json()["hits"]
        for wrong in ({}, {"words": ""}, {"words": "a", "every": "perhaps"}, {"words": "a", "legs": "dense"}):
            assert client.post("/v1/matching", json=wrong).status_code == 422

    @pytest.mark.parametrize(
        "name", ["model", "path", "db_path", "tokenizer", "explain", "embedding_model", "weights", "namespace"]
    )
    @pytest.mark.parametrize(
        "route", ["recall", "context", "similar", "matching", "forget", "messages", "interactions"]
    )
    def test_never_a_model_a_path_or_an_option(self, client, route, name):
        body = {"query": "a", "text": "a", "words": "a", "ids": ["a"], "prompt": "a"}
        wanted = {
            "recall": ["query"],
            "context": ["query"],
            "similar": ["text"],
            "matching": ["words"],
            "forget": ["ids"],
            "messages": ["text"],
            "interactions": ["prompt"],
        }
        body = {key: body[key] for key in wanted[route]}
        answer = client.post(f"/v1/{route}", json={**body, name: "/etc/passwd"})
        assert answer.status_code == 422
        assert "/etc/passwd" not in answer.text


class TestReading:
    def test_pages_give_everything_once(self, client, memory):
        talk(memory, 30)
        for path, what, wanted in (
            ("/v1/nodes", "nodes", [node.id for node in memory]),
            ("/v1/nodes?kind=prompt&kind=agent", "nodes", [node.id for node in memory.nodes(["prompt", "agent"])]),
            ("/v1/sessions", "sessions", ["s0", "s1"]),
            ("/v1/sessions/s1", "messages", [node.id for node in memory.thread("s1")]),
        ):
            for limit in (1, 7, 1000):
                found, after = [], None
                while True:
                    page = client.get(
                        f"{path}{'&' if '?' in path else '?'}limit={limit}" + (f"&after={after}" if after else "")
                    ).json()
                    assert len(page[what]) <= limit
                    found += [node["id"] for node in page[what]]
                    after = page["next"]
                    if after is None:
                        break
                assert found == wanted

    def test_a_page_that_is_none(self, client, memory):
        talk(memory)
        for path in ("/v1/nodes", "/v1/sessions", "/v1/sessions/s1", "/v1/export"):
            assert client.get(path, params={"after": "none"}).status_code == 404
            for limit in ("0", "-1", "many", "1001" if path != "/v1/export" else "0"):
                assert client.get(path, params={"limit": limit}).status_code == 422
        assert client.get("/v1/sessions/none").status_code == 404

    def test_neighbours(self, client, memory):
        talk(memory)
        for direction in ("in", "out", "both"):
            found = client.get("/v1/graph/neighbours", params={"id": "r1", "direction": direction}).json()
            assert found["nodes"] == [node.to_dict() for node in memory.neighbours("r1", None, direction)]
            assert [(one["source"], one["target"], one["relation"]) for one in found["edges"]] == [
                (link.source, link.target, link.relation) for link in memory.links("r1", None, direction)
            ]
        assert client.get("/v1/graph/neighbours", params={"id": "none"}).status_code == 404

    def test_stats(self, client, memory, tmp_path):
        talk(memory)
        found = client.get("/v1/stats")
        wanted = json.loads(json.dumps(memory.stats().to_dict()))
        assert found.json() == {key: value for key, value in wanted.items() if key != "path"}
        assert str(tmp_path) not in found.text

    def test_export(self, client, memory):
        talk(memory, 1200)
        for step in (None, 7 * 90):
            nodes, edges, after = [], [], None
            while True:
                params = {key: value for key, value in (("limit", step), ("after", after)) if value is not None}
                answer = client.get("/v1/export", params=params)
                assert answer.headers["content-type"] == "application/x-ndjson"
                lines = [json.loads(line) for line in answer.text.splitlines()]
                nodes += [line["node"] for line in lines if "node" in line]
                edges += [line["edge"] for line in lines if "edge" in line]
                if step is None or not lines:
                    break
                after = nodes[-1]["id"]
            assert nodes == [node.to_dict() for node in memory]
            whole = memory.export(False)
            key = "links" if "links" in whole else "edges"
            assert sorted((edge["source"], edge["target"], edge["relation"]) for edge in edges) == sorted(
                (edge["source"], edge["target"], edge["relation"]) for edge in whole[key]
            )

    def test_metrics(self, client, memory):
        talk(memory)
        client.get("/v1/nodes/p1")
        client.get("/v1/nodes/secret-id")
        client.get("/not/there")
        text = client.get("/metrics").text
        assert 'raeburnmemory_requests_total{method="GET",route="/v1/nodes/{node_id}",status="200"}' in text
        assert 'raeburnmemory_requests_total{method="GET",route="-",status="404"}' in text
        assert "raeburnmemory_nodes 16.0" in text
        assert "secret" not in text


class TestTags:
    """ETag and If-None-Match."""

    PATHS = ("/memory/graph", "/v1/export")

    @pytest.mark.parametrize("path", PATHS)
    def test_unchanged_and_changed(self, client, memory, path):
        talk(memory)
        tag = client.get(path).headers["etag"]
        for said in (tag, f'"other", {tag}', "*", tag.removeprefix("W/")):
            answer = client.get(path, headers={"If-None-Match": said})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
            assert "content-type" not in answer.headers
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        memory.add_interaction("new")
        answer = client.get(path, headers={"If-None-Match": tag})
        assert answer.status_code == 200
        assert answer.headers["etag"] != tag

    @pytest.mark.parametrize("path", PATHS)
    def test_another_process_wrote(self, client, memory, path):
        talk(memory)
        tag = client.get(path).headers["etag"]
        with MemoryGraph(memory.db_path, embedding_model=Fake()) as other:
            other.add_interaction("from elsewhere")
        answer = client.get(path, headers={"If-None-Match": tag})
        assert answer.status_code == 200
        assert "from elsewhere" in answer.text

    @pytest.mark.parametrize("path", PATHS)
    def test_expired(self, client, memory, path):
        gone_at = time.time() + 3
        memory.put([Node("m", "memory", "soon gone", expires_at=gone_at)])
        answer = client.get(path)
        assert "soon gone" in answer.text
        tag = answer.headers["etag"]
        time.sleep(max(0.0, gone_at - time.time()) + 0.05)
        answer = client.get(path, headers={"If-None-Match": tag})
        assert answer.status_code == 200
        assert "soon gone" not in answer.text

    def test_namespaces_and_places_differ(self, client, memory, tmp_path):
        tags = {
            client.get("/memory/graph", params=params).headers["etag"]
            for params in ({}, {"namespace": "u"}, {"namespace": "v"})
        }
        with MemoryGraph(tmp_path / "other.db", embedding_model=Fake()) as other:
            tags.add(TestClient(create_app(other, Settings())).get("/memory/graph").headers["etag"])
        assert len(tags) == 4


class TestPacked:
    @pytest.mark.parametrize("path", ["/memory/graph", "/v1/export"])
    def test_gzip(self, client, memory, path):
        talk(memory, 50)
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
            packed = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in answer.headers["vary"].lower()
        assert gzip.decompress(packed) == plain.content
        assert len(packed) < len(plain.content) / 3

    def test_small_answers_are_not_packed(self, client):
        assert "content-encoding" not in client.get("/healthz", headers={"Accept-Encoding": "gzip"}).headers


class TestNamespaces:
    """One namespace never sees another's."""

    def test_apart(self, client, memory):
        for who in ("ann", "bob"):
            said = {"prompt": {"id": "p", "text": f"the secret of {who}"}, "session_id": "s"}
            assert client.post("/v1/interactions", json=said, params={"namespace": who}).status_code == 201
        for who, other in (("ann", "bob"), ("bob", "ann"), (None, "ann")):
            params = {} if who is None else {"namespace": who}
            shown = [
                client.get(path, params=params).text
                for path in (
                    "/memory/graph",
                    "/v1/export",
                    "/v1/nodes",
                    "/v1/sessions",
                    "/v1/sessions/s",
                    "/v1/nodes/p",
                    "/v1/stats",
                    "/v1/graph/neighbours?id=p",
                )
            ]
            shown += [
                client.post(path, json=body, params=params).text
                for path, body in (
                    ("/v1/recall", {"query": f"the secret of {other}"}),
                    ("/v1/context", {"query": f"the secret of {other}"}),
                    ("/v1/similar", {"text": f"the secret of {other}"}),
                )
            ]
            assert not [text for text in shown if f"secret of {other}" in text and f'"{other}' not in text]
            assert any(f"secret of {who}" in text for text in shown) == (who is not None)
        assert client.delete("/v1/interactions/p", params={"namespace": "ann"}).status_code == 200
        assert client.get("/v1/nodes/p", params={"namespace": "ann"}).status_code == 404
        assert client.get("/v1/nodes/p", params={"namespace": "bob"}).status_code == 200

    def test_more_than_are_kept_ready(self, client, memory, monkeypatch):
        monkeypatch.setattr(scope, "_MOST", 4)
        for number in range(20):
            said = client.post(
                "/v1/interactions", json={"prompt": f"text {number}"}, params={"namespace": f"user{number}"}
            )
            assert said.status_code == 201
        for number in range(20):
            assert client.get("/v1/stats", params={"namespace": f"user{number}"}).json()["kinds"] == {"prompt": 1}

    def test_pinned(self, client, memory, monkeypatch):
        monkeypatch.setenv("RAEBURN_NAMESPACE", "default")
        assert client.get("/v1/stats", params={"namespace": "default"}).status_code == 200
        answer = client.get("/v1/stats", params={"namespace": "bob"})
        assert (answer.status_code, answer.json()["detail"]) == (403, "This service is for one namespace only.")

    def test_a_memory_that_is_only_read_stays_so(self, memory):
        talk(memory)
        with MemoryGraph(memory.db_path, embedding_model=Fake(), read_only=True) as reading:
            client = TestClient(create_app(reading, Settings()))
            for params in ({}, {"namespace": "bob"}):
                answer = client.post("/v1/interactions", json={"prompt": "x"}, params=params)
                assert (answer.status_code, answer.json()["code"]) == (403, "ReadOnly")
            assert client.get("/v1/stats").status_code == 200

    def test_in_no_file(self):
        with MemoryGraph(":memory:", embedding_model=Fake()) as memory:
            client = TestClient(create_app(memory, Settings()))
            assert client.post("/v1/interactions", json={"prompt": "x"}, params={"namespace": "a"}).status_code == 201
            assert client.get("/v1/stats").json()["nodes"] == 0
            assert client.get("/v1/stats", params={"namespace": "a"}).json()["nodes"] == 1


class TestBodies:
    """F4: JSON that is none, or that two readers read in two ways."""

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 400),
            (b"{", 400),
            (b'{"query": "a"} x', 400),
            (b"{'query': 'a'}", 400),
            (b'{"query": NaN}', 400),
            (b'{"query": "a", "k": Infinity}', 400),
            (b'{"query": "a", "where": {"n": -Infinity}}', 400),
            (b'{"query": "a", "where": {"n": 1e999}}', 400),
            (b'{"query": "a", "query": "b"}', 400),
            (b'{"query": "a", "where": {"n": 1, "n": 2}}', 400),
            (b'{"query": "\\ud800"}', 400),
            (b'{"query": "a", "where": {"\\udc00": 1}}', 400),
            (b'{"query": "a\xff"}', 400),
            (b"\xff\xfe{\x00}\x00", 400),
            (b"\xef\xbb\xbf{}", 400),
            (b'{"query": ' + b"9" * 100_000 + b"}", 400),
            (b'{"query": "a", "k": ' + b"9" * 100_000 + b"}", 400),
            (b'{"query": "a", "k": ' + b"9" * 4000 + b"}", 422),
            (b'{"query": "a", "where": {"n": {"gte": ' + b"9" * 4000 + b"}}}", 200),
            (b"[" * 500_000, 400),
            (b'{"a":' * 100_000, 400),
            (b'{"query": "a", "where": ' + b'{"a":' * 63 + b"1" + b"}" * 63 + b"}", 200),
            (b'{"query": "a", "where": ' + b'{"a":' * 99 + b"1" + b"}" * 99 + b"}", 400),
            (b"[]", 422),
            (b'"query"', 422),
            (b"null", 422),
            (b'{"query": 5}', 422),
            (b'{"query": "a", "k": "5"}', 422),
            (b'{"query": "a", "k": true}', 422),
            (b'{"query": "a", "fold": 1}', 422),
            (b'{"query": "a", "k": 0}', 422),
            (b'{"query": "a", "k": 1001}', 422),
            (b'{"query": "a", "since": "soon"}', 422),
            (b'{"query": "a", "legs": ["none"]}', 422),
            (b'{"query": ""}', 422),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_json(self, client, body, status):
        answer = client.post("/v1/recall", content=body, headers=JSON)
        assert answer.status_code == status
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert {"type", "title", "status", "detail", "request_id"} <= set(answer.json())

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            ([{"text": "x"}] * 1001, "body.list[Message]: List should have at most 1000 items"),
            ([{"text": "x"}, {"text": 5}], "body.list[Message].1.text: "),
            ([{"text": "x"}, 5], "body.list[Message].1: "),
            ({"text": 5}, "body.Message.text: "),
            ({"text": "x", "more": 1}, "body.Message.more: "),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_of_several_forms_the_one_that_was_meant_is_told(self, client, body, where):
        said = client.post("/v1/messages", json=body).json()
        assert said["detail"].startswith(where)
        assert len(said["errors"]) >= 2  # the others are said besides

    @pytest.mark.parametrize(
        "media",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
            "application/xml",
            "text/json",
        ],
    )
    def test_other_types(self, client, memory, media):
        """F12: what a form on another page can send is no body here."""
        for path in ("/v1/interactions", "/v1/recall", "/memory/similar", "/v1/forget", "/v1/messages"):
            answer = client.post(
                path, content=b'{"prompt": "a", "text": "a"}', headers={"Content-Type": media} if media else {}
            )
            assert answer.status_code == 415
        assert len(memory) == 0

    def test_forms_of_very_many_parts(self, client):
        body = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n" * 15_000
        answer = client.post("/v1/recall", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert answer.status_code == 415

    def test_too_large(self, client):
        answer = client.post("/v1/recall", content=b'{"query": "%s"}' % (b"a" * (1 << 20)), headers=JSON)
        assert answer.status_code == 413

    @pytest.mark.parametrize("charset", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
    def test_json_by_other_names(self, client, charset):
        answer = client.post("/v1/recall", content='{"query": "ä"}'.encode(), headers={"Content-Type": charset})
        assert answer.status_code == 200


class TestErrors:
    """F16: what goes wrong is said without what is nobody's business."""

    def test_methods(self, client):
        for path, allowed in (
            ("/memory/graph", "GET"),
            ("/v1/recall", "POST"),
            ("/v1/interactions/x", "DELETE, GET"),
            ("/v1/nodes", "GET"),
            ("/healthz", "GET"),
        ):
            for method in ("PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"):
                answer = client.request(method, path)
                assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
                assert answer.headers["content-type"] == "application/problem+json"

    def test_nowhere(self, client):
        for path in (
            "/",
            "/v1",
            "/v2/stats",
            "/v1/stats/",
            "/docs",
            "/redoc",
            "/v1/%2e%2e/x",
        ):
            answer = client.get(path, follow_redirects=False)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")

    def test_an_error_of_the_memory(self, client, memory, tmp_path, caplog):
        memory.close()
        for answer in (client.get("/v1/stats"), client.post("/v1/interactions", json={"prompt": "my secret"})):
            assert answer.status_code >= 500
            assert str(tmp_path) not in answer.text
            assert "Traceback" not in answer.text
        assert "my secret" not in caplog.text

    def test_an_unforeseen_error(self, memory, monkeypatch, caplog):
        def broken(*_, **__):
            raise ValueError("my secret")

        client = TestClient(create_app(memory, Settings()))
        monkeypatch.setattr(memory, "recall", broken)
        answer = client.post("/v1/recall", json={"query": "my secret"})
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert "secret" not in answer.text
        assert "secret" not in caplog.text
        assert answer.json()["request_id"] in caplog.text

    def test_an_error_in_the_middle_of_an_export(self, memory, monkeypatch):
        talk(memory, 400)
        pages = iter([[]])

        def broken(*_, **__):
            try:
                return next(pages)
            except StopIteration:
                raise ValueError("my secret") from None

        monkeypatch.setattr(memory, "links", broken)
        with pytest.raises(RuntimeError) as raised:
            TestClient(create_app(memory, Settings())).get("/v1/export")
        assert "my secret" not in "".join(traceback.format_exception(raised.value))

    def test_sentences_name_no_file(self, client, memory, tmp_path):
        for path in ("/v1/nodes/none", "/v1/sessions/none", "/v1/interactions/none"):
            answer = client.get(path)
            assert answer.status_code == 404
            assert str(tmp_path) not in answer.text

    def test_a_service_set_up_wrongly(self, monkeypatch, caplog, tmp_path):
        monkeypatch.setenv("RAEBURN_DB", ":memory:")
        answer = TestClient(app).get("/v1/stats")
        assert answer.status_code == 500
        assert "RAEBURN_DB" not in answer.text
        assert "RAEBURN_DB is ':memory:'" in caplog.text


class TestStart:
    """What the environment says is checked when the server starts."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [("RAEBURN_API_KEY", ""), ("RAEBURN_RATE_LIMIT", "0"), ("RAEBURN_DB", ""), ("RAEBURN_DB", ":memory:")],
    )
    def test_refused(self, monkeypatch, tmp_path, name, value):
        monkeypatch.setenv("RAEBURN_DB", str(tmp_path / "memory.db"))
        monkeypatch.setenv("RAEBURN_EMBED_MODEL", "builtin")
        monkeypatch.setenv(name, value)
        with pytest.raises(BaseException) as raised, TestClient(app):
            pass
        assert name in str(raised.value)

    def test_its_own_memory(self, monkeypatch, tmp_path):
        monkeypatch.setenv("RAEBURN_DB", str(tmp_path / "memory.json"))
        monkeypatch.setenv("RAEBURN_EMBED_MODEL", "builtin")
        monkeypatch.setenv("RAEBURN_NAMESPACE", "ann")
        with TestClient(app) as client:
            assert client.post("/v1/interactions", json={"prompt": "hello"}).status_code == 201
        with MemoryGraph(tmp_path / "memory.json", namespace="ann") as memory:
            assert [node.text for node in memory] == ["hello"]
