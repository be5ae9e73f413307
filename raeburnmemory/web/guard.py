"""What stands before a service: an ASGI application that lets in who may come in.

The order matters. Who asks is settled before a byte of the body is read; the body is read whole, within a limit and a
time, before anything is done with it, so that no slow client holds a worker. What is let in is answered by the service
behind, and every answer gets an id by which the log knows it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http
import ipaddress
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from ..errors import InvalidInput, MemoryGraphError
from .limits import Limiter, client_of
from .problems import MEDIA_TYPE, Problem
from .settings import Settings

__all__ = ["OPEN", "Call", "Guard"]

OPEN = frozenset({"/healthz", "/readyz"})  # what answers without a key, and says nothing but whether it is there

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Observe = Callable[[str, str, int, float], None]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = "GET, POST, PATCH, DELETE"
_HEADERS = (  # that a page may send
    b"authorization, content-type, idempotency-key, if-none-match, x-request-id, x-raeburn-memory, x-raeburn-session"
)
_BODY_SECONDS = 30.0
_PLACES = 8  # of those where an error came through, the last first
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HIDDEN = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]

access = logging.getLogger("raeburnmemory.access")
log = logging.getLogger("raeburnmemory.web")


class Guard:
    """An ASGI application around another, *app*, that answers whoever may ask.

    *settings* is called at every request and gives what holds then. *start* and *stop* are called when the server
    starts and stops; an error of ours in *start* keeps it from starting, with one sentence. *observe* is told of every
    answer: method, route, status and seconds.
    """

    def __init__(
        self,
        app: App,
        settings: Callable[[], Settings],
        *,
        start: Callable[[], object] = lambda: None,
        stop: Callable[[], object] = lambda: None,
        observe: Observe = lambda *_: None,
    ) -> None:
        self.app, self._settings = app, settings
        self._start, self._stop, self._observe = start, stop, observe
        self._limiter: Limiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what an ASGI server hands over."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start and stop with the server."""
        await receive()
        try:
            self._settings()
            await asyncio.to_thread(self._start)
        except (MemoryGraphError, OSError) as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise  # servers have said it, and test clients wait for it
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await asyncio.to_thread(self._stop)
        except (MemoryGraphError, OSError) as exc:
            await send({"type": "lifespan.shutdown.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        call = Call(scope, send)
        try:
            settings = self._settings()
            await self._let_in(call, settings)
            if call.preflight(settings):
                await call.reply(204, b"", [(b"access-control-max-age", b"600"), *call.allowed(_METHODS)])
                return
            await self.app(scope, await self._taken(call, receive, settings), call.send)
        except Problem as problem:
            await self._fail(call, problem)
        except InvalidInput as exc:  # of the settings, changed while we run
            log.error("%s", exc)  # noqa: TRY400 - the sentence is all there is to it
            await self._fail(call, Problem(500, "This service is set up wrongly. Its log says how."))
        except _Gone:
            return
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the place
            # Where, not what: the message of an error may hold what somebody wrote.
            places = traceback.extract_tb(exc.__traceback__)[: -_PLACES - 1 : -1]
            where = " < ".join(f"{each.name} ({each.filename}:{each.lineno})" for each in places)
            log.error("Request %s ended with %s in %s", call.id, type(exc).__name__, where)  # noqa: TRY400
            if not call.done:
                await self._fail(call, Problem(500, "Something went wrong here. The log knows it by the request_id."))
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path_format", None) or "-"  # never the path itself, which may hold ids
            self._observe(call.method, route, call.status, seconds)
            if access.isEnabledFor(logging.INFO):
                said = {
                    "request_id": call.id,
                    "client": call.peer,
                    "method": call.method,
                    "route": route,
                    "status": call.status,
                    "ms": round(seconds * 1000, 2),
                    "bytes": call.sent,
                }
                access.info("%s", json.dumps(said))

    async def _fail(self, call: Call, problem: Problem) -> None:
        """Answer with a problem, in the form that whoever asks expects."""
        await call.fail(problem)

    async def _taken(self, call: Call, receive: Receive, settings: Settings) -> Receive:
        """Return where the application reads the body of a request from: all of it is here by then."""
        return _again(await _body(call, receive, settings.max_body), receive)

    async def _let_in(self, call: Call, settings: Settings) -> None:
        """Raise the problem with who asks, from where, by what name or how often."""
        if settings.key is None and not settings.allow_open and not _is_local(call.scope.get("server")):
            raise Problem(
                403,
                "This service has no key, so it answers only this machine: set RAEBURN_API_KEY, or "
                "RAEBURN_ALLOW_OPEN=1 to answer everybody.",
            )
        call.check_host(settings)
        call.allow_origin(settings)
        if call.path in OPEN:
            return
        if settings.rate is not None:
            if self._limiter is None or self._limiter.rate != settings.rate:
                self._limiter = Limiter(settings.rate)
            client = client_of(call.peer, call.all(b"x-forwarded-for"), settings.proxies)
            if wait := self._limiter.wait_for(client):
                headers = {"Retry-After": str(max(1, int(wait + 0.999)))}
                raise Problem(429, f"More than {settings.rate:,} requests in a minute.", headers=headers)
        if settings.key is not None and not call.preflight(settings):
            call.check_key(settings.key)
        if call.method not in _SAFE:
            call.check_origin(settings)


class _Gone(Exception):
    """The client went away before it had asked."""


class Call:
    """One request and what was answered."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self._send = scope, send
        self.method, self.path = str(scope["method"]), str(scope["path"])
        self.peer = str((scope.get("client") or ("",))[0])
        self.status = self.sent = 0
        self.done = False
        given = self.all(b"x-request-id")
        fits = len(given) == 1 and _REQUEST_ID.fullmatch(given[0])
        self.id = given[0].decode() if fits else uuid.uuid4().hex
        scope["request_id"] = self.id
        self._cors: list[tuple[bytes, bytes]] = []

    def all(self, name: bytes) -> list[bytes]:
        """Return what all headers of one name say."""
        return [value for key, value in self.scope["headers"] if key == name]

    def check_host(self, settings: Settings) -> None:
        """Raise where a browser was made to ask under another name (DNS rebinding)."""
        hosts = self.all(b"host")
        if len(hosts) != 1:
            raise Problem(400, f"A request has one Host header, not {len(hosts)}.")
        if settings.hosts is None:
            return
        host = hosts[0].decode("latin-1").lower()
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if name not in settings.hosts or not _port(host[len(name) :]):
            raise Problem(403, "This service is not asked under that name. RAEBURN_ALLOWED_HOSTS lists others.")

    def check_key(self, key: bytes) -> None:
        """Raise if the one Authorization header does not carry the key."""
        given = self.all(b"authorization")
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # Digests, so that not even the length of the key can be told from the time it takes.
        digests = [hashlib.sha256(one).digest() for one in (token.strip(b" "), key)]
        if not hmac.compare_digest(*digests) or scheme.lower() != b"bearer":
            raise Problem(
                401, "This service wants its key: Authorization: Bearer KEY.", headers={"WWW-Authenticate": "Bearer"}
            )

    def allow_origin(self, settings: Settings) -> None:
        """Let the page that asks read the answer, if it is one of those that may."""
        if settings.origins:
            self._cors.append((b"vary", b"origin"))
        origins = self.all(b"origin")
        if len(origins) == 1 and origins[0].decode("latin-1").lower() in settings.origins:
            self._cors.append((b"access-control-allow-origin", origins[0]))
            self._cors.append((b"access-control-expose-headers", b"ETag, Retry-After, X-Request-ID"))

    def check_origin(self, settings: Settings) -> None:
        """Raise where a page of somebody else makes a browser change something here (CSRF)."""
        origins = [origin.decode("latin-1").lower() for origin in self.all(b"origin")]
        if origins and set(origins) <= settings.origins:
            return
        host = self.all(b"host")[0].decode("latin-1").lower()
        foreign = any(origin not in {f"http://{host}", f"https://{host}"} for origin in origins)
        if foreign or not {*self.all(b"sec-fetch-site")} <= {b"same-origin", b"none"}:
            raise Problem(
                403, "Pages of other sites may not change anything here. RAEBURN_CORS_ORIGINS lists exceptions."
            )

    def preflight(self, settings: Settings) -> bool:
        """Tell whether a browser asks what a page that is allowed may ask."""
        asks = self.method == "OPTIONS" and bool(self.all(b"access-control-request-method"))
        return asks and bool(settings.origins) and len(self._cors) > 1

    def allowed(self, methods: str) -> Iterable[tuple[bytes, bytes]]:
        """Return what a page may ask for."""
        yield b"access-control-allow-methods", methods.encode()
        yield b"access-control-allow-headers", _HEADERS

    async def send(self, message: Message) -> None:
        """Send on, with what every answer says."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(b"x-request-id", self.id.encode()), *_HIDDEN, *self._cors]
            message["headers"] = [*message.get("headers", ()), *own]
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.done = not message.get("more_body")
        await self._send(message)

    async def reply(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer at once."""
        length = [] if status == http.HTTPStatus.NO_CONTENT else [(b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def fail(self, problem: Problem, body: bytes | None = None, media: str = MEDIA_TYPE) -> None:
        """Answer with a problem, or *body* that says it otherwise.

        If an answer has begun, an error makes the server cut that off.
        """
        if self.status:
            # The server logs this with what it came from, which may hold what somebody wrote.
            raise RuntimeError("An error came up in the middle of an answer.") from None
        headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        said = problem.body(self.id) if body is None else body
        await self.reply(problem.status, said, [(b"content-type", media.encode()), *headers])


async def _body(call: Call, receive: Receive, limit: int) -> bytes:
    """Return the body of a request, read whole.

    Raises:
        Problem: It is too large, packed, comes too slowly, or its length is none.
    """
    if any(value.strip().lower() not in {b"identity", b""} for value in call.all(b"content-encoding")):
        raise Problem(415, "A body is sent as it is, not packed.")
    too_large = Problem(413, f"A body has at most {limit:,} bytes.", headers={"Connection": "close"})
    for length in call.all(b"content-length"):
        if not length.isdigit():
            raise Problem(400, "Content-Length is no number.")
        if len(length) > 18 or int(length) > limit:
            raise too_large
    # Without either of these there is no body, and the server says so at once.
    comes = bool(call.all(b"content-length") or call.all(b"transfer-encoding"))
    comes = comes or call.scope.get("http_version") not in {None, "1.0", "1.1"}
    clock = asyncio.get_running_loop().time
    until = clock() + _BODY_SECONDS
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            message = await (asyncio.wait_for(receive(), until - clock()) if comes else receive())
        except asyncio.TimeoutError:
            raise Problem(
                408, f"The body did not come within {_BODY_SECONDS:g} seconds.", headers={"Connection": "close"}
            ) from None
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise too_large
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives *body* first, and then what the server says."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _port(text: str) -> bool:
    return not text or (text.startswith(":") and text[1:].isascii() and text[1:].isdecimal() and len(text) <= 6)


def _is_local(server: Any) -> bool:
    """Tell whether a request came in at an address that only this machine has: *server* is what ASGI says of it."""
    if server is None:  # nobody knows
        return False
    if server[1] is None:  # a socket in the file system
        return True
    try:
        address = ipaddress.ip_address(str(server[0]).partition("%")[0])
    except ValueError:
        return server[0] in {"localhost", "testserver"}
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
