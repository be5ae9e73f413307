"""Answers in threads that go on when nobody reads them, what a page reads of them later, and what it is told of jobs."""

import http.client
import json
import socket
import threading

import pytest
from hub_server import running, until
from ingesting import write
from scripted import chunk, scripted

QUESTION = "When are the roses watered?"


class Slow:
    """Answers in pieces, each when it is let go."""

    def __init__(self, *pieces):
        self.pieces, self.free = pieces, threading.Semaphore(0)

    def __call__(self, handler, body):
        handler.begin()
        for piece in self.pieces:
            self.free.acquire(timeout=30)
            handler.wfile.write(b"data: " + json.dumps(chunk(piece)).encode() + b"\n\n")
            handler.wfile.flush()
        handler.wfile.write(b"data: " + json.dumps(chunk(finish="stop")).encode() + b"\n\ndata: [DONE]\n\n")

    def go(self, count=1):
        for _ in range(count):
            self.free.release()


def _hold(handler, gone):
    """Say nothing until the other side is gone."""
    handler.connection.settimeout(30)
    if handler.connection.recv(1) == b"":
        gone.set()


class Listener:
    """Reads the events of an answer in a thread of its own."""

    def __init__(self, hub, method, path, body=None):
        self.found, self.status = [], None
        self._connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
        headers = {
            "Authorization": f"Bearer {hub.token}",
            "Content-Type": "application/json",
            "Host": f"localhost:{hub.port}",
        }
        self._connection.connect()
        self.connection = self._connection.sock  # which its answer takes over
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with self._connection.getresponse() as answer:
            self.status, kind = answer.status, None
            while text := answer.readline().decode().rstrip("\n") or answer.readline().decode().rstrip("\n"):
                if text.startswith("event: "):
                    kind = text[7:]
                elif text.startswith("data: "):
                    self.found.append((kind, json.loads(text[6:])))

    def said(self):
        return "".join(data["text"] for kind, data in self.found if kind == "delta").rstrip()

    def end(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._connection.close()
        return self.found


@pytest.fixture
def hub(tmp_path):
    write(tmp_path / "notes" / "garden.md", "The roses are watered on Mondays.\n")
    with scripted() as server, running(tmp_path, url=server.url) as hub:
        hub.server = server
        hub.ask("POST", "/api/v1/projects", {"name": "A"})
        hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(tmp_path / "notes")})
        job = hub.ask("POST", "/api/v1/projects/1/sync").json()
        until(lambda: hub.ask("GET", f"/api/v1/jobs/{job['id']}").json()["finished_at"])
        hub.ask("POST", "/api/v1/threads", {"project": 1})
        yield hub


def test_an_answer_is_read_from_its_beginning_by_whoever_comes_later(hub):
    slow = Slow("They are watered ", "on Mondays [1].")
    hub.server.on("/v1/chat/completions", slow)
    body = {"content": QUESTION, "stream": True, "keep": True}
    first = Listener(hub, "POST", "/api/v1/threads/1/messages", body)
    slow.go()
    until(lambda: first.said() == "They are watered")
    assert hub.ask("GET", "/api/v1/threads/1").json()["answering"] == QUESTION
    assert hub.ask("POST", "/api/v1/threads/1/messages", body).json()["code"] == "already_under_way"
    second = Listener(hub, "GET", "/api/v1/threads/1/answer")
    until(lambda: second.said() == "They are watered")
    slow.go()
    assert first.end() == second.end()
    assert [kind for kind, _ in first.found] == ["retrieval", "delta", "delta", "citation", "done"]
    until(lambda: hub.ask("GET", "/api/v1/threads/1").json()["answering"] is None)
    for method in ("GET", "DELETE"):
        assert hub.ask(method, "/api/v1/threads/1/answer").status == 404
    kept = hub.ask("GET", "/api/v1/threads/1").json()["messages"]
    assert [one["text"] for one in kept] == [QUESTION, "They are watered on Mondays [1]."]
    [citation] = kept[1]["citations"]
    assert (citation["title"], citation["quote"]) == ("garden.md", "The roses are watered on Mondays.")
    assert hub.ask("GET", f"/api/v1/sources/{citation['document']}/content").json()["text"] == citation["quote"]


def test_an_answer_goes_on_when_whoever_asked_is_gone(hub):
    slow = Slow("They are watered ", "on Mondays [1].")
    hub.server.on("/v1/chat/completions", slow)
    first = Listener(hub, "POST", "/api/v1/threads/1/messages", {"content": QUESTION, "stream": True, "keep": True})
    slow.go()
    until(first.said)
    first._connection.sock.close()
    slow.go()
    kept = until(lambda: hub.ask("GET", "/api/v1/threads/1").json()["messages"])
    assert kept[1]["text"] == "They are watered on Mondays [1]."


def test_an_answer_that_is_stopped_keeps_what_was_said(hub):
    slow = Slow("They are ", "watered ", "on Mondays.")
    hub.server.on("/v1/chat/completions", slow)
    first = Listener(hub, "POST", "/api/v1/threads/1/messages", {"content": QUESTION, "stream": True, "keep": True})
    slow.go()
    until(first.said)
    assert hub.ask("DELETE", "/api/v1/threads/1/answer").status == 200
    assert first.end()[-1] == ("stopped", {})  # whether or not the model says another word
    kept = hub.ask("GET", "/api/v1/threads/1").json()["messages"]
    assert [one["text"].rstrip() for one in kept] == [QUESTION, "They are"]
    slow.go(3)


def test_a_model_that_says_nothing_is_stopped(hub):
    """Models need minutes for a long prompt, and nothing of an answer comes by then."""
    gone = threading.Event()

    hub.server.on("/v1/chat/completions", lambda handler, body: _hold(handler, gone))
    first = Listener(hub, "POST", "/api/v1/threads/1/messages", {"content": QUESTION, "stream": True, "keep": True})
    until(lambda: hub.ask("GET", "/api/v1/threads/1").json()["answering"])
    until(hub.server.bodies)
    assert hub.ask("DELETE", "/api/v1/threads/1/answer").status == 200
    assert first.end() == [first.found[0], ("stopped", {})]
    assert gone.wait(10)  # the model knows, too
    assert hub.ask("GET", "/api/v1/threads/1").json()["answering"] is None
    hub.server.says("They are watered on Mondays [1].")
    assert hub.ask("POST", "/api/v1/threads/1/messages", {"content": QUESTION}).status == 200


def test_a_reader_that_is_gone_stops_a_model_that_says_nothing(hub):
    gone = threading.Event()
    hub.server.on("/v1/chat/completions", lambda handler, body: _hold(handler, gone))
    first = Listener(hub, "POST", "/api/v1/threads/1/messages", {"content": QUESTION, "stream": True})
    until(hub.server.bodies)
    until(lambda: first.status)
    with first.connection as connection:
        connection.shutdown(socket.SHUT_RDWR)  # another thread reads: closing it would tell nobody
        assert gone.wait(10)


def test_an_error_of_an_answer_is_told_to_whoever_reads_it(hub):
    hub.server.on("/v1/chat/completions", (400, {"error": {"message": "no such model"}}))
    found = Listener(
        hub, "POST", "/api/v1/threads/1/messages", {"content": QUESTION, "stream": True, "keep": True}
    ).end()
    assert [kind for kind, _ in found] == ["retrieval", "error"]
    assert "no such model" in found[-1][1]["detail"]
    assert hub.ask("GET", "/api/v1/threads/1").json()["answering"] is None
    unknown = hub.ask("POST", "/api/v1/threads/9/messages", {"content": QUESTION, "stream": True, "keep": True})
    assert unknown.status == 404


def test_the_reasons_of_a_hit_name_what_stands_beside_it(hub):
    hub.server.says("They are watered on Mondays [1].")
    hub.ask("POST", "/api/v1/threads/1/messages", {"content": QUESTION})
    hits = hub.ask("POST", "/api/v1/search", {"query": QUESTION, "project": 1}).json()["hits"]
    names = {step["name"] for step in hits[0]["why"]["path"] if step["relation"] == "cites"}
    assert names == {"They are watered on Mondays [1]."}


def test_who_asks_may_see_the_rules_of_the_entrance(tmp_path):
    with running(tmp_path, trusted=["http://localhost:1234"]) as hub:
        found = hub.ask("GET", "/api/v1/access").json()
        assert (found["trusted"], found["legacy_open"], found["fixed"]) == (["http://localhost:1234"], False, False)
        assert found["credential"] in {one["id"] for one in hub.ask("GET", "/api/v1/tokens").json()["tokens"]}
        assert hub.ask("GET", "/api/v1/access", token=hub.token_for("read", "write")).status == 403


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_a_thread_that_is_forgotten_during_an_answer_stays_forgotten(hub, keep, begun):
    slow = Slow("They are ", "watered ", "on Mondays.")
    hub.server.on("/v1/chat/completions", slow)
    answer = Listener(hub, "POST", "/api/v1/threads/1/messages", {"content": QUESTION, "stream": True, "keep": keep})
    until(lambda: any(kind == "retrieval" for kind, _ in answer.found))
    if begun:
        slow.go()
        until(answer.said)
    assert hub.ask("DELETE", "/api/v1/threads/1").status == 200
    slow.go(3)
    answer.end()
    assert not [node.text for node in hub.hub.memory if node.kind in {"prompt", "response", "session"}]


def test_everything_else_is_answered_while_many_wait_for_the_model(hub):
    slow = Slow("They are watered on Mondays [1].")
    hub.server.on("/v1/chat/completions", slow)
    several = [Listener(hub, "POST", "/api/v1/ask", {"question": QUESTION}) for _ in range(44)]
    try:
        until(lambda: len(hub.server.bodies()) == len(several))
        assert len(hub.ask("GET", "/api/v1/threads").json()["threads"]) == 1
    finally:
        slow.go(len(several))
        for one in several:
            one.end()
    assert [one.status for one in several] == [200] * len(several)
