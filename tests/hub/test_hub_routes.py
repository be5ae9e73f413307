"""The hub's own routes: projects, documents, capture, search, threads, models, jobs, events, and the memory's service."""

import base64
import hashlib
import http.client
import json
import os
import threading
import time

import pytest
from file_server import FileServer, model_bytes
from hub_server import described, model, running, send, until
from ingesting import opened, write
from scripted import scripted

from raeburnmemory.client import RemoteMemory
from raeburnmemory.errors import MemoryGraphError
from raeburnmemory.hub.server.jobs import Jobs
from raeburnmemory.hub.server.pages import Pages
from raeburnmemory.hub.server.routes.chat import marks


def events_of(port, path, headers, body=None, *, until_kind=None, seconds=30):
    """Yield the kind and the data of server-sent events."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        with connection.getresponse() as response:  # which the connection does not close where it is the last one
            assert response.status == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            kind, found = None, []
            while line := response.readline().decode().rstrip("\n"):
                pass
            while True:
                line = response.readline().decode()
                if not line:
                    return found
                if line.startswith("event: "):
                    kind = line[7:].strip()
                elif line.startswith("data: "):
                    found.append((kind, json.loads(line[6:])))
                    if kind == until_kind:
                        return found
    finally:
        connection.close()


def chat_events(hub, path, body):
    """Return all events of an answer; their stream begins with one, and not with a comment."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
    headers = {"Authorization": f"Bearer {hub.token}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    blocks = response.read().decode().split("\n\n")
    connection.close()
    found = []
    for block in filter(None, blocks):
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    write(folder / "garden.md", "The roses are watered on Mondays.\n")
    write(folder / "kitchen.txt", "The kettle is descaled with vinegar.\n")
    return folder


def done(hub, job):
    """Wait for a job, and return what it says at its end."""
    return until(lambda: (now := hub.ask("GET", f"/api/v1/jobs/{job['id']}").json())["finished_at"] and now)


def test_projects_and_their_documents(tmp_path, notes):
    with running(tmp_path) as hub:
        made = hub.ask("POST", "/api/v1/projects", {"name": "House"})
        assert made.status == 201
        assert made.json()["name"] == "House"
        assert hub.ask("PATCH", "/api/v1/projects/1", {"name": "Home"}).json()["name"] == "Home"
        added = hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(notes)})
        assert added.status == 201
        job = hub.ask("POST", "/api/v1/projects/1/sync")
        assert job.status == 202
        ended = done(hub, job.json())
        assert (ended["state"], ended["result"]["added"]) == ("done", 2)
        found = hub.ask("GET", "/api/v1/projects/1").json()
        assert found["documents"] == {"ok": 2}
        assert [one["path"] for one in found["directories"]] == [str(notes)]
        assert len(hub.ask("GET", "/api/v1/projects/1/files").json()["files"]) == 2
        sources = hub.ask("GET", "/api/v1/projects/1/sources").json()["sources"]
        assert sorted(one["name"] for one in sources) == ["notes/garden.md", "notes/kitchen.txt"]
        one = next(one for one in sources if one["name"].endswith("kitchen.txt"))
        path = f"/api/v1/sources/{one['id']}"
        assert hub.ask("GET", path).json() == one
        assert hub.ask("GET", f"{path}/content").json()["text"] == "The kettle is descaled with vinegar."
        assert hub.ask("DELETE", path).json() == {"fragments": 1}
        assert hub.ask("GET", path).status == 404
        assert hub.ask("DELETE", "/api/v1/directories/1").json()["is_removed"] is True
        assert hub.ask("GET", "/api/v1/projects/1/sources").json() == {"sources": []}
        assert hub.ask("DELETE", "/api/v1/projects/1").status == 200
        for method, path in [
            ("GET", "/api/v1/projects/1"), ("DELETE", "/api/v1/projects/1"), ("GET", "/api/v1/projects/1/files"),
            ("POST", "/api/v1/projects/1/sync"), ("DELETE", "/api/v1/directories/1"), ("GET", "/api/v1/jobs/x"),
            ("GET", "/api/v1/sources/fragment/x"),
        ]:  # fmt: skip
            answer = hub.ask(method, path)
            assert answer.status == 404, path
            assert answer.headers["content-type"] == "application/problem+json"
        assert hub.ask("GET", "/api/v1/projects").json() == {"projects": []}


def test_what_is_wrong_is_said_as_a_problem(tmp_path):
    with running(tmp_path) as hub:
        for body, status in [({"name": 5}, 422), ({"nam": "x"}, 422), ({"name": "a\nb"}, 422), ([], 422)]:
            answer = hub.ask("POST", "/api/v1/projects", body)
            assert answer.status == status
            assert answer.json()["status"] == status
            assert answer.headers["content-type"] == "application/problem+json"
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        assert hub.ask("POST", "/api/v1/projects/1/directories", {"path": "relative"}).json()["code"] == "path_refused"
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(tmp_path / "gone")})
        assert hub.ask("POST", "/api/v1/projects/1/sync").json()["code"] == "folder_missing"
        assert hub.ask("POST", "/api/v1/ask", {"question": "Anything?"}).json()["code"] == "no_model"
        assert hub.ask("GET", "/api/v1/models/nothing").json()["code"] == "unknown_model"


def test_what_is_captured_is_found_and_kept_once(tmp_path):
    with running(tmp_path) as hub:
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        page = {
            "url": "https://example.org/tea", "title": "Tea", "project": 1, "captured_at": "2026-11-01T10:00:00Z",
            "html": "<html><body><p>Green tea is brewed at seventy degrees for two minutes.</p></body></html>",
        }  # fmt: skip
        first = hub.ask("POST", "/api/v1/capture", page)
        assert (first.status, first.json()["outcome"]) == (201, "added")
        assert hub.ask("POST", "/api/v1/capture", page).status == 200
        note = {"markdown": "# Note\n\nBuy more tea.", "title": "To do"}
        for _ in range(2):
            assert hub.ask("POST", "/api/v1/capture", note).json()["uri"].startswith("note:")
        key = {"Idempotency-Key": "one"}
        ids = {
            hub.ask(
                "POST", "/api/v1/capture", {"selection": text, "url": "https://example.org/tea"}, headers=key
            ).json()["id"]
            for text in ("the first words", "other words, after an edit")
        }
        assert len(ids) == 1
        found = hub.ask("POST", "/api/v1/search", {"query": "green tea degrees", "project": 1}).json()["hits"]
        assert found[0]["place"]["uri"] == "https://example.org/tea"
        assert "seventy degrees" in found[0]["text"]
        everything = hub.ask("GET", "/v1/nodes?kind=document").json()["nodes"]
        assert len(everything) == 3
        for body in ({}, {"html": "x"}, {"text": "x", "markdown": "y"}, {"text": ""}, {"text": "x", "project": 9}):
            assert hub.ask("POST", "/api/v1/capture", body).status in {404, 422}, body
        blocked = hub.ask("POST", "/api/v1/ingest/url", {"url": f"http://127.0.0.1:{hub.port}/"})
        assert (blocked.status, blocked.json()["code"]) == (403, "blocked_url")


def test_hits_say_where_their_words_stand(tmp_path, notes):
    with running(tmp_path) as hub:
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(notes)})
        done(hub, hub.ask("POST", "/api/v1/projects/1/sync").json())
        hit = hub.ask("POST", "/api/v1/search", {"query": "when are the roses watered?", "project": 1}).json()["hits"][
            0
        ]
        assert hit["citation"] == "notes/garden.md:1"
        assert hit["file"].endswith("notes/garden.md")
        assert {hit["text"][start:end] for start, end in hit["marks"]} >= {"roses", "watered"}
        assert hit["why"]["legs"]


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("Roses and a rosebud", ("rose",), ["Roses", "rosebud"]),
        ("prose, rose", ("rose",), ["rose"]),
        ("a.b (c)", ("a.b", "(c)"), ["a.b", "(c)"]),
        ("nothing", (), []),
        ("Tee für Ämter", ("ämt", "tee"), ["Tee", "Ämter"]),
    ],
)
def test_marks(text, words, expected):
    assert [text[start:end] for start, end in marks(text, words)] == expected


def test_threads_answer_with_citations_as_they_are_made(tmp_path, notes):
    with scripted() as server, running(tmp_path, url=server.url) as hub:
        server.says("They are watered on Mondays [1].")
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(notes)})
        done(hub, hub.ask("POST", "/api/v1/projects/1/sync").json())
        thread = hub.ask("POST", "/api/v1/threads", {"title": "Garden", "project": 1})
        assert thread.status == 201
        body = {"content": "When are the roses watered?", "stream": True}
        events = chat_events(hub, "/api/v1/threads/1/messages", body)
        kinds = [kind for kind, _ in events]
        assert (kinds[0], kinds[-1]) == ("retrieval", "done")
        said = "".join(data["text"] for kind, data in events if kind == "delta")
        assert said == "They are watered on Mondays [1]."
        assert kinds.count("delta") > 2
        citation = next(data for kind, data in events if kind == "citation")
        assert citation["quote"] == "The roses are watered on Mondays."
        assert citation["verified"] is True
        kept = hub.ask("GET", "/api/v1/threads/1").json()
        assert [(one["role"], one["text"]) for one in kept["messages"]] == [
            ("user", "When are the roses watered?"), ("assistant", said),
        ]  # fmt: skip
        assert kept["messages"][1]["citations"][0]["quote"] == citation["quote"]
        whole = hub.ask("POST", "/api/v1/ask", {"question": "When are the roses watered?", "project": 1}).json()
        assert whole["text"] == said
        assert whole["citations"][0]["uri"].endswith("garden.md")
        assert [one["id"] for one in hub.ask("GET", "/api/v1/threads").json()["threads"]] == [1]
        assert hub.ask("DELETE", "/api/v1/threads/1").status == 200
        assert hub.ask("GET", "/api/v1/threads/1").status == 404
        nodes = hub.ask("GET", "/v1/nodes?kind=prompt").json()["nodes"]
        assert [node["id"] for node in nodes] == [whole["recorded"]["prompt"]]
        assert hub.ask("POST", "/api/v1/threads", {}).json()["id"] == 2
        assert hub.ask("POST", "/api/v1/threads", {"project": 7}).status == 404


def test_an_error_in_an_answer_is_its_last_event(tmp_path, notes):
    with scripted() as server, running(tmp_path, url=server.url) as hub:
        server.on("/v1/chat/completions", (400, {"error": {"message": "no such model"}}))
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(notes)})
        done(hub, hub.ask("POST", "/api/v1/projects/1/sync").json())
        body = {"question": "When are the roses watered?", "project": 1}
        kind, data = chat_events(hub, "/api/v1/ask", {**body, "stream": True})[-1]
        assert (kind, data["status"]) == ("error", 502)
        assert "no such model" in data["detail"]
        assert hub.ask("POST", "/api/v1/ask", body).status == 502


def test_events_tell_of_jobs_and_models(tmp_path):
    payload = model_bytes(100_000)
    with (
        FileServer(payload) as server,
        running(tmp_path, models=[described("big", url=server.url, size=len(payload))]) as hub,
    ):
        headers = {"Authorization": f"Bearer {hub.token}"}
        found = []
        listener = threading.Thread(
            target=lambda: found.extend(events_of(hub.port, "/api/v1/events", headers, until_kind="end"))
        )
        listener.start()
        until(lambda: hub.hub.events._waiting)
        job = hub.ask("POST", "/api/v1/models/big/download")
        assert job.status == 202
        assert done(hub, job.json())["result"]["file_state"] == "ready"
        assert hub.hub.jobs.get(job.json()["id"]).wait(30)  # then it is told, too
        hub.hub.events.tell("end")
        listener.join(30)
        assert ("model", {"name": "big", "state": "idle"}) in found
        states = [data["state"] for kind, data in found if kind == "job"]
        assert states[0] == "running"
        assert states[-1] == "done"
        missed = events_of(hub.port, "/api/v1/events", {**headers, "Last-Event-ID": "0"}, until_kind="end")
        assert missed == found
        checked = done(hub, hub.ask("POST", "/api/v1/models/big/verify").json())
        assert checked["state"] == "done"


@pytest.mark.skipif(os.name != "posix", reason="models run on POSIX systems")
def test_models(tmp_path):
    with running(tmp_path, models=[model(tmp_path, "tiny", says=["hello from tiny"])]) as hub:
        assert hub.ask("GET", "/api/v1/models").json()["running"] is None
        assert hub.ask("POST", "/api/v1/models/tiny/start", {"ctx": 512}).json()["state"] == "running"
        until(lambda: hub.ask("GET", "/api/v1/models/tiny").json()["status"]["process_state"] == "ready")
        assert hub.ask("GET", "/api/v1/models").json()["running"] == "tiny"
        assert hub.ask("GET", "/api/v1/info").json()["model"] == "tiny"
        assert "hello from tiny" in hub.ask("GET", "/api/v1/models/tiny/logs").json()["lines"]
        assert hub.ask("POST", "/api/v1/models/tiny/stop").json()["state"] == "idle"
        added = hub.ask(
            "POST",
            "/api/v1/models",
            {"name": "new", "filename": "new.gguf", "url": "https://example.org/x", "format": "gguf"},
        )
        assert (added.status, added.json()["state"]) == (201, "absent")
        for body in (
            {"name": "../x", "filename": "x.gguf", "url": "https://example.org/x"},
            {"name": "x", "filename": "../x.gguf", "url": "https://example.org/x"},
            {"name": "x", "filename": "x.gguf", "url": "http://example.org/x"},
        ):
            assert hub.ask("POST", "/api/v1/models", body).status == 422
        assert hub.ask("DELETE", "/api/v1/models/tiny/download").status == 409
        assert hub.ask("DELETE", "/api/v1/models/tiny").json()["state"] == "absent"


def test_a_program_that_used_the_service_uses_the_hub(tmp_path):
    with running(tmp_path) as hub:
        with RemoteMemory(f"http://localhost:{hub.port}", api_key=hub.token) as memory:
            memory.add_interaction("Where is the key?", "Under the mat.")
            assert memory.recall("the key")[0].text
            assert memory.get_similar_prompts("Where is the key?")
        with (
            RemoteMemory(f"http://localhost:{hub.port}", api_key=hub.token_for("read")) as memory,
            pytest.raises(MemoryGraphError),
        ):
            memory.add_interaction("Another", "one")


# --- jobs -------------------------------------------------------------------------------------------------------


def test_jobs_are_begun_again_by_the_next_hub(tmp_path):
    path, ran, go = tmp_path / "jobs.json", [], threading.Event()

    def work(job):
        ran.append(job.id)
        while not go.is_set() and not job.cancelled():
            time.sleep(0.01)
        return {"ok": True}

    first = Jobs(path, {"work": work})
    job = first.begin("work", {"x": 1})
    until(lambda: ran)
    first.close()
    assert job.state == "interrupted"
    go.set()
    second = Jobs(path, {"work": work})
    [again] = second.resume()
    assert again.wait(10)
    assert (again.id, again.state, again.result) == (job.id, "done", {"ok": True})
    second.close()
    assert ran == [job.id] * 2
    assert Jobs(path, {"work": work}).resume() == []


def test_a_job_that_somebody_cancelled_stays_so(tmp_path):
    jobs = Jobs(tmp_path / "jobs.json", {"work": lambda job: job._cancel.wait(10) and None})
    job = jobs.begin("work", {})
    until(lambda: job.state == "running")
    jobs.cancel(job.id)
    assert job.wait(10)
    assert job.state == "cancelled"
    jobs.close()
    assert Jobs(tmp_path / "jobs.json", {}).resume() == []


def test_a_job_that_fails_says_why_and_nothing_private(tmp_path, caplog):
    def wrong(job):
        raise KeyError("a private text")

    jobs = Jobs(tmp_path / "jobs.json", {"work": wrong})
    job = jobs.begin("work", {})
    assert job.wait(10)
    assert job.state == "failed"
    assert "private" not in job.message
    jobs.close()


def test_ingestion_goes_on_after_a_restart(tmp_path, notes):
    with opened(tmp_path / "memory.db") as memory, running(tmp_path, memory=memory) as hub:
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(notes)})
    left = [{"id": "left", "kind": "ingest", "about": {"project_id": 1}}]  # by a hub that was killed
    (tmp_path / "hub" / "jobs.json").write_text(json.dumps(left))
    with running(tmp_path) as hub:
        assert done(hub, {"id": "left"})["result"]["added"] == 2


# --- pages ------------------------------------------------------------------------------------------------------


def test_a_client_that_was_built_elsewhere_is_served_with_its_own_scripts(tmp_path):
    client = tmp_path / "client"
    script = '{"imports": {}}'
    write(
        client / "index.html", f'<html><script type="importmap">{script}</script><script src="/a.js"></script></html>'
    )
    write(client / "a.js", "1")
    write(client / "sub" / "b.css", "p {}")
    write(tmp_path / "secret.txt", "secret")
    (client / "link.txt").symlink_to(tmp_path / "secret.txt")
    with running(tmp_path, client=Pages(client, foreign=True)) as hub:
        html = {"Accept": "text/html"}
        for path in ("/", "/dashboard", "/models", "/projects/7"):
            answer = send(hub.port, "GET", path, html)
            assert answer.status == 200
            assert b"importmap" in answer.body
        rules = answer.headers["content-security-policy"]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'self' 'sha256-{digest}';" in rules
        assert "http" not in rules
        assert "unsafe-eval" not in rules
        answer = send(hub.port, "GET", "/a.js")
        assert (answer.body, answer.headers["content-type"]) == (b"1", "text/javascript; charset=utf-8")
        assert send(hub.port, "GET", "/sub/b.css").status == 200
        for path in (
            "/missing.js",
            "/link.txt",
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/sub/../../secret.txt",
            "/sub",
        ):
            answer = send(hub.port, "GET", path)
            assert answer.status == 404, path
            assert b"secret" not in answer.body
