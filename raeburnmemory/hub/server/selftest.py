"""One of everything that the hub does, on a folder that is deleted afterwards: `raeburnmemory hub --selftest`.

The hub is started on a free port of this machine and asked over HTTP, as its clients ask it. Nothing is fetched from
elsewhere. Where no server was named, a stand-in takes the part of the model: what is tried is everything around one.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ..._optional import extra
from ...errors import MemoryGraphError
from ...memory_graph import MemoryGraph
from ..models.manager import LlamafileManager
from . import stand_in
from .access import Access
from .application import create_app
from .credentials import ALL, Credentials
from .hub import Hub
from .pages import Pages
from .plugins import Plugins
from .running import access_file, listening

__all__ = ["Failed", "selftest"]

_QUESTION, _WHERE = "Where is the spare key?", "under the blue pot"
_PATIENCE = 120.0  # seconds for a job, or an answer
_EMBEDDING = "stand-in-embedding"

Say = Callable[[str, str], object]


class Failed(MemoryGraphError):
    """A step of the self-test failed."""


def selftest(
    say: Say,
    *,
    pages: Pages | None = None,
    completions_url: str | None = None,
    completions_model: str | None = None,
    embedder: dict[str, Any] | None = None,
    plugins: Plugins | None = None,
) -> None:
    """Do one of everything, and *say* the name of each step and what was done in it.

    Raises:
        Failed: A step went wrong; its name stands in the message.
    """
    with tempfile.TemporaryDirectory(prefix="raeburnmemory-selftest-") as folder, contextlib.ExitStack() as stack:
        stands_in = completions_url is None
        local = stands_in and _runs_stand_ins()
        if stands_in and not local:
            completions_url = stack.enter_context(stand_in.serving())
            say("model", "a stand-in in this process, for models cannot be run from here")
        test = _Test(
            Path(folder),
            pages or Pages(None),
            completions_url,
            completions_model,
            embedder or {"embedding_model": "builtin"},
            Plugins() if plugins is None else plugins,
            stands_in=stands_in,
        )
        for name, step in test.steps(local=local):
            try:
                said = step()
            except (MemoryGraphError, OSError, AssertionError, LookupError, TypeError, ValueError) as exc:
                test.close()
                raise Failed(f"The step {name!r} failed. {type(exc).__name__}: {exc}") from exc
            except BaseException:
                test.close()
                raise
            say(name, said)
        test.close()


def _runs_stand_ins() -> bool:
    """Tell whether a script can stand for a llamafile: a bundle has no Python to run one with."""
    return os.name == "posix" and not getattr(sys, "frozen", False) and Path(stand_in.__file__).is_file()


@dataclass
class _Test:
    folder: Path
    pages: Pages
    url: str | None
    model: str | None
    embedder: dict[str, Any]
    plugins: Plugins
    stands_in: bool
    port: int = 0
    number: int = 0
    token: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def steps(self, *, local: bool) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield the steps in their order."""
        yield "start", self.start
        yield "page", self.page
        yield "pairing", self.pairing
        if local:
            yield "model", self.model_started
        else:
            yield "model", self.model_asked
        yield "project", self.project
        yield "upload", self.upload
        yield "capture", self.capture
        yield "search", self.search
        yield "memories", self.memories
        yield "answer", self.answer
        yield "thread", self.thread
        yield "summary", self.summary
        yield "openai", self.openai
        if local:
            yield "embedding", self.embedding
        yield "original", self.original
        yield "events", self.told
        yield "restart", self.restart
        yield "token", self.revoked

    # --- the hub ------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Start a hub on the folder."""
        with extra("hub", module="uvicorn"):
            import uvicorn
        self._running = stack = contextlib.ExitStack()
        home = self.folder / "hub"
        home.mkdir(exist_ok=True)
        memory = stack.enter_context(MemoryGraph(home / "memory.db", **self.embedder))
        manager = LlamafileManager(self.folder / "models", catalogue=[], idle_timeout=None, max_running=2)
        hub = Hub(memory, manager, home, completions_url=self.url, completions_model=self.model, plugins=self.plugins)
        stack.callback(hub.close)
        sockets = listening("127.0.0.1", 0)
        for each in sockets:
            stack.callback(each.close)
        self.port = sockets[0].getsockname()[1]
        self.access = Access(Credentials(access_file(home)), self.port)
        app = create_app(hub, self.access, self.pages, start=hub.jobs.resume)
        server = uvicorn.Server(
            uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=5)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)

        def end() -> None:
            hub.events.close()
            server.should_exit = True
            thread.join(_PATIENCE)

        stack.callback(end)
        thread.start()
        _until(lambda: server.started or not thread.is_alive())
        _same(self.send("GET", "/api/v1/health").json(), {"status": "ok"})
        version = self.send("GET", "/openapi.json").json()["info"]["version"]
        return f"version {version} answers on a free port"

    def close(self) -> None:
        """End the hub."""
        self._running.close()

    def page(self) -> str:
        """Fetch the page, and the list of the routes."""
        page = self.send("GET", "/", headers={"Accept": "text/html"})
        _same(page.status, 200)
        _has(page.headers.get("content-security-policy", ""), "default-src 'self'")
        _same(self.send("GET", "/docs", headers={"Accept": "text/html"}).status, 200)
        routes = sum(map(len, self.send("GET", "/openapi.json").json()["paths"].values()))
        return f"{len(page.body):,} bytes, and the description of {routes} routes"

    def pairing(self) -> str:
        """Let a browser and a program in, and nobody else."""
        _same(self.send("GET", "/api/v1/info").status, 401)
        code = self.access.credentials.new_code(long=True)
        entered = self.send("GET", f"/?code={code}", headers={"Accept": "text/html"})
        cookie = entered.headers["set-cookie"].partition(";")[0]
        own = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
        _same(self.send("GET", "/api/v1/info", headers=own).status, 200)
        _same(self.send("GET", "/api/v1/info", headers={"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}).status, 401)
        asked = {"code": self.access.credentials.new_code(ALL), "name": "the self-test"}
        self.token = self.send("POST", "/api/v1/pair", asked).json()["token"]
        _same(self.send("POST", "/api/v1/pair", asked).status, 403)
        self._listen()
        return "a cookie for a browser, a token for a program, nothing for anybody else"

    def _listen(self) -> None:
        """Hear what happens, in a thread of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        connection.request("GET", "/api/v1/events", headers={"Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()

        def hear() -> None:
            # Closed here alone, when the hub ends it: elsewhere that waits until there is something to hear.
            with contextlib.closing(connection), response, contextlib.suppress(OSError, http.client.HTTPException):
                while line := response.readline():
                    if line.startswith(b"event: "):
                        self.events.append(line[7:].decode().strip())

        threading.Thread(target=hear, daemon=True).start()

    # --- documents and memories ---------------------------------------------------------------------------------

    def project(self) -> str:
        """Make a project of a folder, and take it in."""
        folder = self.folder / "notes"
        folder.mkdir()
        (folder / "house.md").write_text(f"# House\n\nThe spare key is {_WHERE}.\n", encoding="utf-8")
        (folder / "left.txt").write_text("This is left alone.\n", encoding="utf-8")
        (folder / ".gitignore").write_text("left.txt\n", encoding="utf-8")
        self.number = self.ask("POST", "/api/v1/projects", {"name": "House"}, status=201)["id"]
        self.ask("POST", f"/api/v1/projects/{self.number}/directories", {"path": str(folder.resolve())}, status=201)
        job = self.done(self.ask("POST", f"/api/v1/projects/{self.number}/sync", status=202))
        _same((job["result"]["added"], job["result"]["failed"]), (1, 0))
        [self.source] = self.ask("GET", f"/api/v1/projects/{self.number}/sources")["sources"]
        text = self.ask("GET", f"/api/v1/sources/{quote(self.source['id'], safe='')}/content")["text"]
        _has(text, _WHERE)
        return "a folder with two files, of which one is taken in and one ignored"

    def upload(self) -> str:
        """Upload a file as the browser client does."""
        part = "----selftest"
        fields = {"project_name": "House", "file_path": "shed.txt"}
        body = "".join(
            f'--{part}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        body += f'--{part}\r\nContent-Disposition: form-data; name="file"; filename="shed.txt"\r\n\r\n'
        sent = (body + f"The ladder stands in the shed.\r\n--{part}--\r\n").encode()
        headers = {**self.bearer, "Content-Type": f"multipart/form-data; boundary={part}"}
        _same(self.send("POST", "/api/v1/upload_file", headers=headers, body=sent).json(), {"status": "ok"})
        self.done(self.ask("POST", f"/api/v1/projects/{self.number}/sync", status=202))
        files = self.ask("GET", f"/api/v1/projects/{self.number}/files")["files"]
        path = next(one for one in files if one.endswith("shed.txt"))
        _has(self.send("GET", f"/files/{quote(path)}", headers=self.bearer).body.decode(), "ladder")
        return f"one of {len(files)} files of the project"

    def capture(self) -> str:
        """Keep a page and a note, each sent twice."""
        page = {"url": "https://example.org/tea", "html": "<p>Green tea is brewed at seventy degrees.</p>"}
        first = self.ask("POST", "/api/v1/capture", page, status=201)
        _same(self.ask("POST", "/api/v1/capture", page)["id"], first["id"])
        note = {"markdown": "Buy more tea.", "title": "To do"}
        self.ask("POST", "/api/v1/capture", note, status=201)
        _same(self.ask("POST", "/api/v1/capture", note)["outcome"], "unchanged")
        return "a page and a note, kept once each"

    def search(self) -> str:
        """Find what was taken in."""
        hit = self.ask("POST", "/api/v1/search", {"query": _QUESTION, "project": self.number})["hits"][0]
        _has(hit["text"], _WHERE)
        _has([hit["text"][start:end] for start, end in hit["marks"]], "key")
        return f"found in {hit['citation']}"

    def memories(self) -> str:
        """Remember something, change it, look around it, and forget it."""
        made = self.ask("POST", "/api/v1/remember", {"text": "The bins go out on Tuesday."}, status=201)
        path = f"/api/v1/memories/{made['id']}"
        _same(self.ask("PATCH", path, {"text": "The bins go out on Friday."})["versions"] >= 1, True)
        near = self.ask("GET", f"/api/v1/graph/neighbors?{urlencode({'id': made['id']})}")
        _same([node["id"] for node in near["nodes"]], [made["id"]])
        _has(
            self.ask("POST", "/v1/recall", {"query": "When do the bins go out?", "k": 5})["hits"][0]["node"]["text"],
            "Fri",
        )
        _same(self.ask("DELETE", path)["ids"], [made["id"]])
        return "one, changed, found and forgotten"

    # --- models -------------------------------------------------------------------------------------------------

    def model_started(self) -> str:
        """Fetch a program from this machine, check it, and start it."""
        self._fetched("stand-in", "chat")
        _same(self.ask("POST", "/api/v1/models/stand-in/start", {})["state"], "running")
        _until(lambda: self.ask("GET", "/api/v1/models/stand-in")["status"]["process_state"] == "ready")
        _same(self.ask("GET", "/v1/models")["data"][0]["id"], "stand-in")
        return "a stand-in, for no server was named: fetched, checked and started as a llamafile is"

    def model_asked(self) -> str:
        """Ask a server for its models."""
        found = [one["id"] for one in self.ask("GET", "/v1/models")["data"]]
        return f"{self.url} has {', '.join(found[:3]) or 'no models'}"

    def _fetched(self, name: str, kind: str) -> None:
        program = stand_in.script()
        with _file(program) as url:
            about: dict[str, Any] = {"name": name, "filename": f"{name}.llamafile", "url": url, "kind": kind}
            digest = hashlib.sha256(program).hexdigest()
            about = {**about, "sha256": digest, "size": len(program)}
            self.ask("POST", "/api/v1/models", about, status=201)
            _same(self.done(self.ask("POST", f"/api/v1/models/{name}/download", status=202))["state"], "done")
        self.done(self.ask("POST", f"/api/v1/models/{name}/verify", status=202))

    def answer(self) -> str:
        """Have a question answered, with a citation."""
        found = self.ask("POST", "/api/v1/ask", {"question": _QUESTION, "project": self.number})
        if self.stands_in:
            _same(found["text"], stand_in.SAYS)
            _has(found["citations"][0]["quote"], _WHERE)
        return f"{len(found['text'])} letters, citations: {len(found['citations'])}"

    def thread(self) -> str:
        """Have a question answered in a thread, piece by piece."""
        thread = self.ask("POST", "/api/v1/threads", {"project": self.number}, status=201)["id"]
        sent = {"content": _QUESTION, "stream": True}
        answer = self.send("POST", f"/api/v1/threads/{thread}/messages", sent, headers=self.bearer)
        kinds = [line[7:] for line in answer.body.decode().splitlines() if line.startswith("event: ")]
        _same((kinds[0], kinds[-1]), ("retrieval", "done"))
        messages = self.ask("GET", f"/api/v1/threads/{thread}")["messages"]
        _same([one["role"] for one in messages], ["user", "assistant"])
        return f"{kinds.count('delta')} pieces, recorded"

    def summary(self) -> str:
        """Have a document made short."""
        found = self.ask("POST", "/api/v1/summarize", {"source": self.source["id"]})
        _same(bool(found["text"].strip()), True)
        return f"{len(found['text'])} letters"

    def openai(self) -> str:
        """Chat as OpenAI's clients do, and be remembered."""
        message = {"messages": [{"role": "user", "content": _QUESTION}], "max_tokens": 32}
        session = {**self.bearer, "X-Raeburn-Session": "selftest"}
        whole = self.send("POST", "/v1/chat/completions", message, headers=session)
        _same(whole.status, 200)
        used = int(whole.headers["x-raeburn-memory"])
        _same(used > 0, True)
        stream = self.send("POST", "/v1/chat/completions", {**message, "stream": True}, headers=session)
        _has(stream.body.decode(), "data: [DONE]")
        said = self.ask("GET", "/v1/sessions/selftest")["messages"]
        _same(len(said), 4)
        return f"two chats, recorded; texts of the memory that went along: {used}"

    def embedding(self) -> str:
        """Have vectors made by a second model."""
        self._fetched(_EMBEDDING, "embedding")
        self.ask("POST", f"/api/v1/models/{_EMBEDDING}/start", {})
        _until(lambda: self.ask("GET", f"/api/v1/models/{_EMBEDDING}")["status"]["process_state"] == "ready")
        found = self.ask("POST", "/v1/embeddings", {"input": ["one", "two"], "model": _EMBEDDING})["data"]
        _same(len(found), 2)
        self.ask("POST", f"/api/v1/models/{_EMBEDDING}/stop")
        _same(self.ask("DELETE", f"/api/v1/models/{_EMBEDDING}")["state"], "absent")
        return "two vectors, by a stand-in that was stopped and deleted"

    # --- others -------------------------------------------------------------------------------------------------

    def original(self) -> str:
        """Make calls of the original's client."""
        _has(str(self.ask("GET", "/api/v1/list_projects")), "House")
        body = {"project_id": self.number, "prompt": _QUESTION}
        nearest = self.ask("POST", "/api/v1/vector_db_query", body)
        _has(" ".join(one["file_content"] for one in nearest), _WHERE)
        _same(self.ask("POST", "/api/v1/rag_ask", body)["status"], "ok")
        self.ask("GET", "/api/v1/list_llamafiles")
        return "four of its calls"

    def told(self) -> str:
        """See that events were told."""
        _until(lambda: "job" in self.events)
        return f"{len(self.events)} were told"

    def restart(self) -> str:
        """End the hub, start it again, and find what was there."""
        before = self.ask("GET", "/api/v1/info")["nodes"]
        self.close()
        self.start()
        _same(self.ask("GET", "/api/v1/info")["nodes"], before)
        return f"{before} nodes are still there, and the token is still good"

    def revoked(self) -> str:
        """Take the token back."""
        [one] = [one for one in self.ask("GET", "/api/v1/tokens")["tokens"] if one["name"] == "the self-test"]
        self.ask("DELETE", f"/api/v1/tokens/{one['id']}")
        _same(self.send("GET", "/api/v1/info", headers=self.bearer).status, 401)
        return "taken back, and good for nothing"

    # --- asking -------------------------------------------------------------------------------------------------

    @property
    def bearer(self) -> dict[str, str]:
        """The header that shows the token."""
        return {"Authorization": f"Bearer {self.token}"}

    def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """Ask with the token, and return what is answered with that status."""
        answer = self.send(method, path, body, headers=self.bearer)
        if answer.status != status:
            raise Failed(f"{method} {path} was answered with {answer.status}: {answer.body[:500].decode()}")
        return answer.json()

    def send(
        self, method: str, path: str, said: Any = None, *, headers: Any = None, body: bytes | None = None
    ) -> Answer:
        """Ask, and return the answer whatever it is."""
        sent = dict(headers or {})
        if said is not None:
            body, sent["Content-Type"] = json.dumps(said).encode(), "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        try:
            connection.request(method, path, body, {"Host": f"localhost:{self.port}", **sent})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def done(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait for a job, and return how it ended."""
        path = f"/api/v1/jobs/{job['id']}"
        _until(lambda: self.ask("GET", path)["finished_at"])
        found: dict[str, Any] = self.ask("GET", path)
        if found["state"] != "done":
            raise Failed(f"the job {found['kind']} {found['state']}: {found['message']}")
        return found


@dataclass(frozen=True)
class Answer:
    """What the hub answered."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        """Return the body as what it says."""
        return json.loads(self.body)


def _same(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise Failed(f"there was {found!r:.300}, and not {wanted!r:.300}")


def _has(whole: Any, part: Any) -> None:
    if part not in whole:
        raise Failed(f"{part!r} is not in {whole!r:.500}")


def _until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"it took longer than {_PATIENCE:g} seconds")
        time.sleep(0.05)


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[str]:
    """Serve one file on this machine; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Print nothing."""

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/model"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
