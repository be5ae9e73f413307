"""The hub's routes about single memories, what stands beside them, and texts and files that are handed over."""

import io
import json

import pytest
from hub_server import running, send, until
from scripted import scripted


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with scripted() as server, running(tmp_path_factory.mktemp("memories"), url=server.url) as found:
        found.server = server
        yield found


def form(hub, fields, name, data, token=None):
    """Send a file as a browser's form does."""
    boundary, body = "a-boundary", io.BytesIO()
    for field, value in fields.items():
        body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode())
    about = f'form-data; name="file"; filename="{name}"'
    body.write(f"--{boundary}\r\nContent-Disposition: {about}\r\n\r\n".encode() + data + b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    headers = {
        "Authorization": f"Bearer {token or hub.token}",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    return send(hub.port, "POST", "/api/v1/ingest/file", headers, body.getvalue())


def test_what_is_remembered_is_found_changed_and_forgotten(hub):
    made = hub.ask("POST", "/api/v1/remember", {"text": "Ana's bicycle is green.", "metadata": {"of": "ana", "n": 1}})
    assert made.status == 201
    said = made.json()
    assert (said["kind"], said["metadata"], said["versions"]) == ("memory", {"of": "ana", "n": 1}, 0)
    path = f"/api/v1/memories/{said['id']}"
    assert hub.ask("GET", path).json() == said
    hits = hub.ask("POST", "/api/v1/search", {"query": "which colour has Ana's bicycle?"}).json()["hits"]
    assert hits[0]["text"] == "Ana's bicycle is green."
    changed = hub.ask("PATCH", path, {"text": "Ana's bicycle is red.", "metadata": {"n": None, "seen": True}}).json()
    assert (changed["text"], changed["metadata"]) == ("Ana's bicycle is red.", {"of": "ana", "seen": True})
    assert changed["versions"] >= 1
    assert hub.hub.memory.history(said["id"])[0].text == "Ana's bicycle is green."
    assert hub.hub.memory.recall("bicycle", where={"metadata.of": "ana"})[0].text == "Ana's bicycle is red."
    assert hub.ask("PATCH", path, {}).json() == changed
    assert hub.ask("DELETE", path).json()["ids"] == [said["id"]]
    for method, body in (("GET", None), ("PATCH", {"text": "x"}), ("DELETE", None)):
        assert hub.ask(method, path, body).status == 404


def test_one_key_remembers_once(hub):
    sent = [
        hub.ask("POST", "/api/v1/remember", {"text": text}, headers={"Idempotency-Key": "k"})
        for text in ("The bins go out on Tuesday.", "The bins go out on Tuesday.", "The bins go out on Friday.")
    ]
    assert [answer.status for answer in sent] == [201, 200, 200]
    assert len({answer.json()["id"] for answer in sent}) == 1
    assert sent[-1].json()["text"] == "The bins go out on Friday."
    assert len([node for node in hub.hub.memory.nodes("memory") if "bins" in node.text]) == 1


def test_only_what_was_said_or_remembered_is_changed_by_these_routes(hub):
    hub.ask("POST", "/api/v1/projects", {"name": "Kept"})
    hub.ask("POST", "/api/v1/ingest/text", {"text": "A document.", "title": "D"})
    memory = hub.hub.memory
    for kind in ("item", "document", "fragment"):
        node = next(memory.nodes(kind))
        for method, body in (("PATCH", {"metadata": {"path": "/"}}), ("DELETE", None)):
            answer = hub.ask(method, f"/api/v1/memories/{node.id}", body)
            assert (answer.status, answer.json()["code"]) == (409, "kind")
        assert memory.get(node.id) == node
    fact = memory.fact("ana", "lives_in", "Leith")
    assert hub.ask("PATCH", f"/api/v1/memories/{fact.id}", {"text": "x"}).status == 409
    assert hub.ask("DELETE", f"/api/v1/memories/{fact.id}").status == 200


def test_what_stands_around_a_node(hub):
    memory = hub.hub.memory
    for n in range(4):
        memory.add_interaction(
            {"id": f"p{n}", "text": f"Question {n}?"}, {"id": f"r{n}", "text": "Yes."}, "bot", "walk"
        )
    near = hub.ask("GET", "/api/v1/graph/neighbors?id=p0").json()
    assert near["id"] == "p0"
    assert {node["id"]: node["depth"] for node in near["nodes"]} == {"p0": 0, "r0": 1, "walk": 1}
    assert {(one["source"], one["target"], one["relation"]) for one in near["links"]} == {
        (link.source, link.target, link.relation)
        for link in memory.links(["p0", "r0", "walk"], None, "out")
        if link.target in {"p0", "r0", "walk"}
    }
    assert near["cut"] is False
    far = hub.ask("GET", "/api/v1/graph/neighbors?id=p0&depth=2").json()
    assert {node["id"] for node in far["nodes"]} == {"p0", "r0", "walk", "bot", "p1", "p2", "p3"}
    few = hub.ask("GET", "/api/v1/graph/neighbors?id=p0&depth=3&limit=4").json()
    assert (len(few["nodes"]), few["cut"]) == (4, True)
    one = hub.ask("GET", "/api/v1/graph/neighbors?id=p0&relation=responded_with&direction=out").json()
    assert [node["id"] for node in one["nodes"]] == ["p0", "r0"]
    assert hub.ask("GET", "/api/v1/graph/neighbors?id=nothing").status == 404
    assert hub.ask("GET", "/api/v1/graph/neighbors?id=p0&depth=4").status == 422


def test_texts_are_handed_over(hub):
    text = {"text": "# Tides\n\nHigh water is at noon.", "mime": "text/markdown", "title": "Tides", "uri": "note:tides"}
    made = hub.ask("POST", "/api/v1/ingest/text", text)
    assert (made.status, made.json()["outcome"], made.json()["uri"]) == (201, "added", "note:tides")
    again = hub.ask("POST", "/api/v1/ingest/text", {**text, "text": "High water is at one."})
    assert (again.status, again.json()["outcome"], again.json()["id"]) == (200, "updated", made.json()["id"])
    content = hub.ask("GET", f"/api/v1/sources/{made.json()['id']}/content").json()
    assert content["text"] == "High water is at one."
    for body in ({"text": ""}, {"text": "x", "uri": "file:///etc/passwd"}, {"text": "x", "uri": " FILE:/x"}, {}):
        assert hub.ask("POST", "/api/v1/ingest/text", body).status == 422
    assert hub.ask("POST", "/api/v1/ingest/text", {"text": "x", "project": 99}).status == 404


def test_files_are_handed_over(hub):
    alone = form(hub, {}, "tea.txt", b"Tea is picked in spring.")
    assert (alone.status, alone.json()["outcome"]) == (201, "added")
    number = hub.ask("POST", "/api/v1/projects", {"name": "Files"}).json()["id"]
    kept = form(hub, {"project": number, "path": "notes/oats.md"}, "x.md", b"# Oats\n\nOats are sown in March.")
    assert (kept.status, kept.json()["outcome"]) == (201, "added")
    assert kept.json()["name"] == "uploads/notes/oats.md"  # as a sync names it
    assert hub.ask("GET", f"/api/v1/projects/{number}/files").json()["files"] == ["Files/uploads/notes/oats.md"]
    hits = hub.ask("POST", "/api/v1/search", {"query": "when are oats sown?", "project": number}).json()["hits"]
    assert hits[0]["file"] == "Files/uploads/notes/oats.md"
    assert form(hub, {"project": number, "path": "notes/oats.md"}, "x.md", b"# Oats\n\nIn May.").status == 200
    for fields, name, status in (
        ({"project": number}, "../up.txt", 422),
        ({"project": number, "path": "/etc/passwd"}, "x", 422),
        ({"project": 99}, "x.txt", 404),
        ({"project": "x"}, "x.txt", 422),
        ({}, "bad.pdf", 422),
    ):
        answer = form(hub, fields, name, b"%PDF-1.4 no such thing")
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), fields
    # What cannot be read stays among the uploads, and is noted as it is by a sync.
    assert form(hub, {"project": number}, "bad.pdf", b"%PDF-1.4 no such thing").json()["code"] == "unreadable"

    def noted():
        sources = hub.ask("GET", f"/api/v1/projects/{number}/sources").json()["sources"]
        return {one["name"]: (one["status"], one["root"], one["attempts"]) for one in sources}

    before = noted()
    assert [(name, status) for name, (status, _, _) in before.items()] == [
        ("uploads/notes/oats.md", "ok"),
        ("uploads/bad.pdf", "failed"),
    ]
    job = hub.ask("POST", f"/api/v1/projects/{number}/sync").json()["id"]
    done = until(lambda: (now := hub.ask("GET", f"/api/v1/jobs/{job}").json())["finished_at"] and now)
    assert (done["result"]["unchanged"], done["result"]["failed"], noted()) == (1, 1, before)
    assert form(hub, {}, "x.txt", b"x", token=hub.token_for("read")).status == 403
    assert hub.ask("POST", "/api/v1/ingest/file", {"file": "x"}).status == 422


def test_a_document_is_summarised(hub):
    source = hub.ask("POST", "/api/v1/ingest/text", {"text": "Herring swim in shoals. " * 5}).json()["id"]
    hub.server.says("Fish swim together.")
    made = hub.ask("POST", "/api/v1/summarize", {"source": source, "keep": True}).json()
    assert (made["text"], made["document"]) == ("Fish swim together.", source)
    assert hub.hub.memory.get(made["recorded"]).text == "Fish swim together."
    kept = hub.ask("GET", f"/api/v1/graph/neighbors?id={made['recorded']}&relation=derived_from").json()
    assert {node["id"] for node in kept["nodes"]} == {made["recorded"], source}
    assert hub.ask("POST", "/api/v1/summarize", {"source": "nothing"}).status == 404
    hub.server.on("/v1/chat/completions", (500, {"error": {"message": "out of order"}}))
    assert hub.ask("POST", "/api/v1/summarize", {"source": source}).status == 502


def test_without_a_model_nothing_is_summarised(tmp_path):
    with running(tmp_path) as hub:
        source = hub.ask("POST", "/api/v1/ingest/text", {"text": "A text."}).json()["id"]
        answer = hub.ask("POST", "/api/v1/summarize", {"source": source})
        assert (answer.status, json.loads(answer.body)["code"]) == (409, "no_model")
