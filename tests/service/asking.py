"""What the tests of services share: requests as an ASGI server hands them over, and real servers to ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

from outside import ROOT

LOCAL = ("127.0.0.1", 8000)


@dataclass
class Answer:
    """What came back, and how many pieces of the body were asked for."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    read: int = 0

    def __getitem__(self, name):
        return ", ".join(value for key, value in self.headers if key == name) or None

    @property
    def json(self):
        return json.loads(self.body)


def request(method="GET", path="/v1/stats", headers=(), *, server=LOCAL, client=("127.0.0.1", 50000), query=b""):
    """Return a scope as an ASGI server makes it; `host` is set unless *headers* name one."""
    given = [(name.lower().encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    if not any(name == b"host" for name, _ in given):
        given.insert(0, (b"host", b"127.0.0.1:8000"))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [pair for pair in given if pair[1] is not None],
        "server": server,
        "client": client,
    }


async def answered(app, scope, parts=(b"",), *, pause=None):
    """Return what *app* answers to a request whose body comes in *parts*."""
    answer, left = Answer(), list(parts)

    async def receive():
        answer.read += 1
        if pause is not None:
            await pause()
        if not left:
            return {"type": "http.disconnect"}
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message):
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode().lower(), value.decode("latin-1")) for name, value in message["headers"]]
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


def ask(app, method="GET", path="/v1/stats", headers=(), parts=(b"",), **more):
    """Do what `answered` does, from outside of a loop."""
    return asyncio.run(answered(app, request(method, path, headers, **more), parts))


def free_port():
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(folder, *options, name="memory.db", command="serve", **environment):
    """Run `raeburnmemory serve`, or `uvicorn`, on a memory in *folder*; yield its process, with `port`, `url` and `log`."""
    port, log = free_port(), folder / f"server-{time.monotonic_ns()}.log"
    known = {key: value for key, value in os.environ.items() if not key.startswith("RAEBURN_")}
    told = {"PYTHONPATH": str(ROOT), "RAEBURN_EMBED_MODEL": "builtin", "OPENBLAS_NUM_THREADS": "1"}
    if command == "serve":
        arguments = ["raeburnmemory", "--db", str(folder / name), "serve"]
    else:
        arguments = ["uvicorn", "raeburnmemory.api:app"]
        told["RAEBURN_DB"] = str(folder / name)
    with open(log, "wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", *arguments, "--port", str(port), *options],
            env={**known, **told, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    server.port, server.url, server.log = port, f"http://127.0.0.1:{port}", log
    try:
        yield server
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def talked(port, sent, seconds=60.0):
    """Return what a server answers to these bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), seconds) as line:
        line.sendall(sent)
        return b"".join(iter(lambda: line.recv(65536), b""))


def until_ready(server):
    """Wait until a server answers."""
    until = time.monotonic() + 120
    asked = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    while time.monotonic() < until:
        assert server.poll() is None, server.log.read_text()
        with contextlib.suppress(OSError):
            if talked(server.port, asked).startswith(b"HTTP/1.1 200"):
                return server
        time.sleep(0.1)
    raise AssertionError(server.log.read_text())
