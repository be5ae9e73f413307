"""The server over streamable HTTP: who may call it, under which name, and from which page."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..errors import InvalidInput

with extra("mcp", module="mcp"):
    from mcp.server.transport_security import TransportSecuritySettings

import uvicorn  # which mcp brings

from ..web.heads import H11

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    from mcp.server import Server

    Scope = MutableMapping[str, Any]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Any, Send], Awaitable[None]]

__all__ = ["PORT", "check_address", "http_app", "serve_http"]

PORT = 4445
"""The port that is used if none is named."""

_PATH = "/mcp"
_HERE = ("127.0.0.1", "localhost", "[::1]")
_PATIENCE = 3  # seconds that open streams are given when the server ends


def http_app(
    server: Server[Any], *, host: str = "127.0.0.1", key: str | None = None, allowed_hosts: Sequence[str] = ()
) -> App:
    """Return an ASGI application that serves *server* under `/mcp`; its lifespan must be run.

    With a *key* every request needs the header `Authorization: Bearer KEY`. Requests must name *host*, this machine or
    one of *allowed_hosts* in their header `Host`, and in `Origin` if they have one: a page that a browser shows could
    otherwise make its own name lead here.

    Raises:
        InvalidInput: *host* can be reached from other machines, and there is no key; or the key is none.
    """
    check_address(host, key)
    names = list(dict.fromkeys([*_HERE, *([] if _is_any(host) else [_bracketed(host)]), *allowed_hosts]))
    # With any port: a tunnel has one of its own, and rebinding is about names.
    hosts = [name if _has_port(name) else f"{name}:*" for name in names] + names
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=hosts,
        allowed_origins=[f"{scheme}://{name}" for scheme in ("http", "https") for name in hosts],
    )
    app: Any = server.streamable_http_app(streamable_http_path=_PATH, host=host, transport_security=security)
    return app if key is None else _with_key(app, key)


def serve_http(
    server: Server[Any],
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    key: str | None = None,
    allowed_hosts: Sequence[str] = (),
    ready: Callable[[str], Any] | None = None,
) -> None:
    """Serve any number of clients over streamable HTTP, until interrupted; see `http_app`.

    *ready* is called with the URL once it is served; with port 0 the system chooses a free one. Logs go to standard
    error.

    Raises:
        InvalidInput: As `http_app` does.
        OSError: The address cannot be used.
    """
    app = http_app(server, host=host, key=key, allowed_hosts=allowed_hosts)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio would let each answer wait for an acknowledgement of its head, 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as exc:
            raise OSError(exc.errno, f"{exc.strerror}; choose another with --port", f"{host}:{port}") from exc
        if ready is not None:
            ready(f"http://{_bracketed(host)}:{listening.getsockname()[1]}{_PATH}")
        # Its own logging writes who asked for what to standard output; ours says what goes wrong.
        config = uvicorn.Config(
            app,
            loop="asyncio",  # the same whatever else is installed
            http=H11,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=_PATIENCE,
        )
        uvicorn.Server(config).run(sockets=[listening])


def check_address(host: str, key: str | None) -> None:
    """Refuse to listen where other machines reach it without a key.

    Raises:
        InvalidInput: That, or the key is none.
    """
    if key is not None and (not key.strip() or not key.isascii() or not key.isprintable()):
        raise InvalidInput("The key must be of printable ASCII characters, and not empty. Set RAEBURN_API_KEY anew.")
    if key is None and not _is_here(host):
        raise InvalidInput(
            f"{host!r} can be reached from other machines, and there is no key. Set RAEBURN_API_KEY, or serve on "
            f"127.0.0.1."
        )


def _is_here(host: str) -> bool:
    """Tell whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    """Tell whether a host means every address, and so is no name that anybody calls it by."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_port(name: str) -> bool:
    return ":" in name.rpartition("]")[2]


def _with_key(app: App, key: str) -> App:
    """Return *app* for those who send the key."""
    wanted = f"Bearer {key}".encode()

    async def guarded(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "http":
            given = [value for name, value in scope["headers"] if name == b"authorization"]
            # In constant time, so that nobody finds the key letter by letter.
            if len(given) != 1 or not hmac.compare_digest(_scheme_folded(given[0]), wanted):
                await _refuse(send)
                return
        await app(scope, receive, send)

    return guarded


def _scheme_folded(header: bytes) -> bytes:
    scheme, space, rest = header.partition(b" ")
    return b"Bearer " + rest.strip() if space and scheme.lower() == b"bearer" else header


async def _refuse(send: Send) -> None:
    body = json.dumps({"error": "The header 'Authorization: Bearer KEY' is missing or has another key."}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
