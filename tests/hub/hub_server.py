"""A hub on a port of its own, in a thread of the tests or as the command, and plain requests to it."""

import contextlib
import http.client
import json
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlencode

import pytest
from outside import Fake, environment
from stand_in import make_model

from raeburnmemory import MemoryGraph
from raeburnmemory.hub.models.manager import LlamafileManager
from raeburnmemory.hub.models.spec import ModelSpec

for _name in (
    "fastapi",
    "uvicorn",
    "python_multipart",
    "prometheus_client",
    "httpx",
    "platformdirs",
    "psutil",
    "pathspec",
):
    pytest.importorskip(_name, reason=f"the hub's server needs {_name}")

from raeburnmemory.hub.server import Access, Credentials, Hub, Pages, create_app  # noqa: E402
from raeburnmemory.hub.server.running import listening  # noqa: E402


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self):
        return json.loads(self.body)


def send(port, method, path, headers=(), body=None, *, host=None, address="127.0.0.1"):
    """Send exactly these headers (and Host, and a length where there is a body), and return the answer."""
    connection = http.client.HTTPConnection(address, port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", f"localhost:{port}" if host is None else host)
        for name, value in dict(headers).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


class Running:
    """A hub that runs: its port, its parts, and requests with its own token, or with its page's cookie."""

    def __init__(self, port, hub, access):
        self.port, self.hub, self.access = port, hub, access
        self.token = self.token_for("read", "write", "models", "admin")

    def token_for(self, *scopes, origin=None):
        credentials = self.access.credentials
        secret, _ = credentials.redeem(credentials.new_code(scopes), "a test", origin=origin)
        return secret

    def cookie(self):
        credentials = self.access.credentials
        secret, _ = credentials.redeem(credentials.new_code(), "a page", cookie=True)
        return f"raeburn_hub_{self.port}={secret}"

    def ask(self, method, path, body=None, *, query=None, token=None, headers=()):
        """Ask with a token; a body is sent as JSON."""
        sent = {"Authorization": f"Bearer {token or self.token}", **dict(headers)}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        return send(self.port, method, path + (f"?{urlencode(query)}" if query else ""), sent, data)


@contextlib.contextmanager
def running(
    folder, *, models=(), url=None, client=None, memory=None, trusted=(), legacy_open=False, fixed=None, plugins=None
):
    """Run a hub whose memory is in *folder*; *models* are descriptions, the files lie in `folder/models`."""
    import uvicorn

    with contextlib.ExitStack() as stack:
        memory = memory or stack.enter_context(MemoryGraph(folder / "memory.db", Fake()))
        (folder / "models").mkdir(exist_ok=True)
        manager = LlamafileManager(folder / "models", catalogue=list(models), idle_timeout=None, stop_grace=1.0)
        hub = Hub(
            memory,
            manager,
            folder / "hub",
            completions_url=url,
            completions_model="scripted" if url else None,
            plugins=plugins,
        )
        stack.callback(hub.close)
        sockets = listening("127.0.0.1", 0)
        for each in sockets:
            stack.callback(each.close)
        port = sockets[0].getsockname()[1]
        access = Access(
            Credentials(folder / "hub" / "access.json"),
            port,
            trusted=frozenset(trusted),
            legacy_open=legacy_open,
            fixed=fixed,
        )
        app = create_app(hub, access, client or Pages(None), start=hub.jobs.resume)
        config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield Running(port, hub, access)
        finally:
            hub.events.close()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def model(folder, name="tiny", **faults):
    """Write a stand-in for a llamafile into *folder*, and return its description."""
    (folder / "models").mkdir(exist_ok=True)
    make_model(folder / "models" / f"{name}.llamafile", "llama-server", **faults)
    return described(name)


def described(name, **more):
    return ModelSpec(name, f"{name}.llamafile", dialect="llama-server", **more)


class Command:
    """`raeburnmemory hub` as a process, with what it printed."""

    def __init__(self, home, *options, **env):
        command = [sys.executable, "-m", "raeburnmemory", "hub", "--no-browser", "--home", str(home), *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # or a line that came with the one before would wait where select does not see it
            env=environment(RAEBURN_EMBED_MODEL="builtin", **env),
        )
        self.printed, self.port, self.code = "", None, None

    def ready(self, seconds=60.0):
        """Wait until the address is printed, and return this."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            left = deadline - time.monotonic()
            found = select.select([self.process.stdout], [], [], max(0.0, left))[0]
            line = self.process.stdout.readline().decode() if found else ""
            if not line:
                self.process.kill()
                raise AssertionError(f"it did not start: {self.printed}{self.process.communicate()}")
            self.printed += line
            if match := re.search(r"http://localhost:(\d+)/\?code=(\S+)", line):
                self.port, self.code = int(match[1]), match[2]
        return self

    def end(self, number=signal.SIGTERM, seconds=60.0):
        """Send a signal, and return the exit code and what was printed on stderr."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds=60.0):
        """Wait for its end, and return the exit code and what was printed on stderr."""
        out, errors = self.process.communicate(timeout=seconds)
        self.printed += out.decode()
        return self.process.returncode, errors.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def raw(port, sent, seconds=30.0):
    """Send bytes as they are, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as link:
        link.sendall(sent)
        parts = []
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := link.recv(65536):
                parts.append(part)
        return b"".join(parts)


def until(condition, seconds=30.0):
    """Wait until *condition* holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found
