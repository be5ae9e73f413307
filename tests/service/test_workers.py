"""Real servers: several workers on one store, slow clients, the wire, and how they stop."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asking import serving, talked, until_ready
from outside import waits_for_the_other_side

from raeburnmemory import MemoryGraph

for module in ("fastapi", "uvicorn", "httpx", "prometheus_client", "typer"):
    pytest.importorskip(module, reason=f"a running service needs {module}")
import httpx  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="servers are stopped by signals here")

WRITERS, EACH = 8, 12
KEY = "a-long-random-text"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Run one worker, with a memory of some size."""
    folder = tmp_path_factory.mktemp("one")
    with MemoryGraph(folder / "memory.db", embedding_model="builtin") as memory:
        memory.add_many({"prompt": {"id": f"p{n}", "text": f"question {n} " + "about cats " * 40}} for n in range(3000))
    with serving(folder) as server:
        yield until_ready(server)


@pytest.mark.parametrize("name", ["memory.db", pytest.param("memory.json", marks=pytest.mark.long)])
def test_four_workers_and_eight_writers(tmp_path, name):
    """Nothing is lost, and everybody sees all of it."""
    with serving(tmp_path, "--workers", "4", name=name) as server:
        until_ready(server)
        processes = set()

        def write(writer):
            with httpx.Client(base_url=server.url, timeout=120) as client:
                for number in range(EACH):
                    said = {
                        "prompt": {"id": f"{writer}-{number}", "text": f"text {number} of {writer}"},
                        "session_id": f"s{writer}",
                    }
                    answer = client.post(
                        "/v1/interactions", json=said, headers={"Idempotency-Key": f"{writer} {number}"}
                    )
                    assert answer.status_code == 201, answer.text
                    # A connection of its own, which any worker may take.
                    seen = httpx.get(f"{server.url}/v1/nodes/{writer}-{number}", timeout=120)
                    assert seen.json()["text"] == said["prompt"]["text"]

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))
        wanted = sorted(f"{writer}-{number}" for writer in range(WRITERS) for number in range(EACH))
        for _ in range(12):
            answer = httpx.get(f"{server.url}/v1/nodes", params={"kind": "prompt", "limit": 1000}, timeout=120)
            assert sorted(node["id"] for node in answer.json()["nodes"]) == wanted
        found = httpx.post(f"{server.url}/v1/recall", json={"query": "text 7 of 3", "k": 1}, timeout=120).json()
        assert found["hits"][0]["node"]["text"] == "text 7 of 3"
        assert not waits_for_the_other_side(server.port, "GET", "/v1/nodes?limit=10")
        # The figures are those of all workers together.
        counted = httpx.get(f"{server.url}/metrics", timeout=120).text
        [line] = [
            line for line in counted.splitlines() if 'route="/v1/interactions",status="201"' in line and "total" in line
        ]
        assert float(line.split()[-1]) == WRITERS * EACH
        processes.update(
            json.loads(line).get("status") for line in server.log.read_text().splitlines() if "request_id" in line
        )
        assert processes == {200, 201}
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    with MemoryGraph(tmp_path / name, embedding_model="builtin") as memory:
        assert sorted(node.id for node in memory.nodes("prompt")) == wanted


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_what_is_under_way_is_finished(tmp_path, how):
    with serving(tmp_path) as server:
        until_ready(server)
        body = json.dumps({"prompt": {"id": "late", "text": "hello"}}).encode()
        with socket.create_connection(("127.0.0.1", server.port), 60) as line:
            head = f"POST /v1/interactions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            line.sendall(head.encode() + body[:5])
            time.sleep(0.5)
            server.send_signal(how)
            time.sleep(0.5)
            with pytest.raises(OSError):  # nobody new comes in
                talked(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            line.sendall(body[5:])
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 201")
        assert server.wait(60) == 0
        assert "Traceback" not in server.log.read_text()
    assert not (tmp_path / "memory.db-wal").exists()  # it was closed
    with sqlite3.connect(tmp_path / "memory.db") as db:
        assert db.execute("SELECT count(*) FROM nodes").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"RAEBURN_API_KEY": ""}, "RAEBURN_API_KEY is empty"),
        ({"RAEBURN_DB": "/proc/none/memory.db"}, "'/proc/none' cannot be made"),
    ],
    ids=["key", "store"],
)
def test_wrong_settings_stop_a_bare_server(tmp_path, told, says):
    with serving(tmp_path, command="uvicorn", **told) as server:
        assert server.wait(120) == 3
        said = server.log.read_text()
        assert says in said
        assert "Traceback" not in said


class TestSlowClients:
    """F5: whoever is slow keeps nobody waiting."""

    def others(self, server):
        """Return the middle time of some answers, in seconds."""
        taken = []
        for number in range(9):
            start = time.monotonic()
            answer = httpx.get(f"{server.url}/v1/nodes/p{number}", timeout=60)
            taken.append(time.monotonic() - start)
            assert answer.status_code == 200
        return statistics.median(taken)

    def lines(self, server, count, sent):
        lines = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(count)]
        for line in lines:
            line.sendall(sent)
        return lines

    @pytest.mark.parametrize(
        "sent",
        [
            b"GET /v1/stats HTTP/1.1\r\nHost: loc",
            b"POST /v1/interactions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{",
            b"GET /memory/graph HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /v1/export HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ],
        ids=["half headers", "slow bodies", "slow readers of the graph", "slow readers of an export"],
    )
    def test_others_are_answered(self, server, sent):
        lines = self.lines(server, 200 if b"GET /v1/s" in sent else 50, sent)
        try:
            time.sleep(0.2)
            assert self.others(server) < 1
        finally:
            for line in lines:
                line.close()


class TestWire:
    """What only a real server shows."""

    def status(self, server, sent):
        return int(talked(server.port, sent).split(b" ", 2)[1])

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"GET http://evil.test/v1/stats HTTP/1.1\r\nHost: evil.test\r\n", 403),
            (b"GET /v1/stats HTTP/1.1\r\nHost: evil.test\r\n", 403),
            (b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
            (b"GET /v1/stats HTTP/1.0\r\n", 400),
            (b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n", 200),
            (b"TRACE /v1/stats HTTP/1.1\r\nHost: localhost\r\n", 405),
            (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n", 404),
            (b"POST /v1/recall HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n", 413),
            (b"POST /v1/recall HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n", 400),
            (b"GET /v1/nodes/%zz HTTP/1.1\r\nHost: localhost\r\n", 404),
            (b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", 200),
        ],
        ids=lambda value: str(value)[2:60],
    )
    def test_answers(self, server, sent, status):
        closing = b"" if b"Connection" in sent else b"Connection: close\r\n"
        if b"Upgrade" in sent:
            closing = b"X-Request-ID: ws\r\n"
            with socket.create_connection(("127.0.0.1", server.port), 60) as line:
                line.sendall(sent + closing + b"\r\n")
                # Not taken for a websocket: there is none.
                assert b" 101 " not in line.recv(65536)
            return
        assert self.status(server, sent + closing + b"\r\n") == status

    def test_a_chunked_body_beyond_the_limit(self, server):
        head = b"POST /v1/recall HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), 60) as line:
            line.sendall(head)
            answer = threading.Thread(target=lambda: said.append(line.recv(65536)))
            said = []
            answer.start()
            try:
                for _ in range(40):
                    line.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            except OSError:
                pass  # it was closed
            answer.join(60)
        assert said
        assert said[0].startswith(b"HTTP/1.1 413")

    def test_one_line_a_request_without_what_was_asked(self, server):
        httpx.get(f"{server.url}/v1/nodes/secret-id", params={"key": "secret-key"}, headers={"User-Agent": "secret"})
        httpx.post(f"{server.url}/v1/recall", json={"query": "secret text"}, timeout=60)
        httpx.get(f"{server.url}/v1/nodes/p1%0d%0aX-Bad: 1")
        lines = server.log.read_text().splitlines()
        assert all(isinstance(json.loads(line), dict) for line in lines)
        assert "secret" not in "\n".join(lines)
        assert str(server.log.parent) not in "\n".join(lines)


@pytest.mark.long
def test_ten_thousand_requests_leak_nothing(tmp_path):
    def resident():
        said = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
        return int(said.partition("VmRSS:")[2].split()[0])

    with MemoryGraph(tmp_path / "memory.db", embedding_model="builtin") as memory:
        memory.add_many({"prompt": {"id": f"p{n}", "text": f"question {n} about cats"}} for n in range(500))
    with serving(tmp_path) as server:
        until_ready(server)

        def ask(count):
            with httpx.Client(base_url=server.url, timeout=120) as client:
                for number in range(count // 5):
                    client.post("/v1/recall", json={"query": f"question {number}"})
                    client.get(f"/v1/nodes/p{number % 500}")
                    client.get("/v1/nodes/none")
                    client.get("/memory/graph" if number % 20 == 0 else "/v1/stats")
                    client.post(
                        "/v1/similar", json={"text": f"cats {number}"}, params={"namespace": f"n{number % 300}"}
                    )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, [500] * 4))
            before = resident()
            list(pool.map(ask, [2500] * 4))
        assert resident() < before * 1.1
