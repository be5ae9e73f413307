"""Who may ask the hub: which names it answers to, which pages may use it, and who shows a token or the page's cookie.

The page itself, health and the description of the API are open. Everything else wants one of

- `Authorization: Bearer TOKEN`, a token that a code was turned into; from a page or extension only if it is the one
  that the token was given to, or one that was named;
- the cookie of the page, with a request that comes from the page: `Sec-Fetch-Site: same-origin`, or an Origin that is
  our own with its port. Cookies know no ports, and SameSite takes all of them for one site;
- for the routes of the original alone: an origin that was named with `--trust-origin`, or with `--legacy-open` any
  program of this machine that is no page.

All of it is settled before the body is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from ...web import Guard, Problem, Settings
from ...web.guard import Receive, Send
from .credentials import ALL, Credential, Credentials
from .openai_shape import PATHS, error_body, status_of

if TYPE_CHECKING:
    from ...web.guard import Call

__all__ = ["Access", "HubGuard", "Principal", "cookie_name"]

PRINCIPAL = "raeburnmemory.principal"  # where a request's scope says who asks

CLOSED = ("/api", "/v1", "/files", "/memory", "/metrics")
OPEN = frozenset({"/api/v1/health", "/api/v1/pair"})
UPLOADS = frozenset({"/api/v1/upload_file", "/api/v1/ingest/file"})
LARGE = frozenset({"/api/v1/capture", "/api/v1/ingest/text", "/v1/chat/completions", "/v1/embeddings"})
MAX_UPLOAD, MAX_CAPTURE = 100 << 20, 20 << 20  # bytes
_TOO_LARGE = f"An upload has at most {MAX_UPLOAD:,} bytes."
_STALL = 30.0  # seconds
_EXTENSIONS = ("moz-extension://", "chrome-extension://", "safari-web-extension://")
_WRONG_CODES, _PER = 10, 60.0  # tries with codes that are not good, and seconds


def cookie_name(port: int) -> str:
    """Return what the cookie of the page is called: browsers give one to all ports of a machine."""
    return f"raeburn_hub_{port}"


@dataclass(frozen=True)
class Principal:
    """Who asks, and what for: `scopes` are of read, write, models and admin; `id` stays the same for one token."""

    name: str
    scopes: frozenset[str]
    id: str = ""


@dataclass
class Access:
    """The rules of one hub. *fixed* is a token of its environment, which may do everything."""

    credentials: Credentials
    port: int
    legacy: Callable[[str, str], bool] = lambda _method, _path: False
    trusted: frozenset[str] = frozenset()
    legacy_open: bool = False
    fixed: str | None = field(default=None, repr=False)
    _wrong: list[float] = field(default_factory=list, repr=False)

    # --- who asks -----------------------------------------------------------------------------------------------

    def principal(self, call: Call) -> Principal | None:
        """Return who makes a request; None for anybody, where it is open to all.

        Raises:
            Problem: It is not, and this is nobody who was let in.
        """
        if self.is_open(call):
            return None
        if given := call.all(b"authorization"):
            return self._by_token(call, given)
        if (secret := self._cookie(call)) is not None and self._is_ours(call):
            found = self.credentials.find(secret)
            if found is not None and found.cookie:
                return Principal(found.name, frozenset(found.scopes), found.id)
        if self.legacy(call.method, call.path):
            origins = _texts(call, b"origin")
            if len(origins) == 1 and origins[0] in self.trusted:
                return Principal(origins[0], ALL, origins[0])
            if self.legacy_open and not origins and _is_loopback(call.peer) and _no_page(call):
                return Principal("a program of this machine", ALL, "this-machine")
        raise _unknown()

    def is_open(self, call: Call) -> bool:
        """Tell whether anybody may make a request: it is for the page, health or the description of the API."""
        if call.path in OPEN:
            return True
        closed = any(call.path == one or call.path.startswith(f"{one}/") for one in CLOSED)
        return not closed and call.method in {"GET", "HEAD"}

    def _by_token(self, call: Call, given: list[bytes]) -> Principal:
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        secret = token.strip(b" ").decode("latin-1")
        if scheme.lower() != b"bearer" or not secret:
            raise _unknown()
        if self.fixed is not None:
            digests = [hashlib.sha256(one.encode()).digest() for one in (secret, self.fixed)]
            if hmac.compare_digest(*digests):
                self._check_origin(call, None)
                return Principal("the token of the environment", ALL, "environment")
        found = self.credentials.find(secret)
        if found is None or found.cookie:
            raise _unknown()
        self._check_origin(call, found.origin)
        return Principal(found.name, frozenset(found.scopes), found.id)

    def _check_origin(self, call: Call, own: str | None) -> None:
        """Raise if a page uses a token that was not given to it."""
        for origin in _texts(call, b"origin"):
            if origin not in self.trusted and origin != own and origin != _own_origin(call):
                raise Problem(403, "This token was not given to that page. Pair it, or name it with --trust-origin.")

    def _cookie(self, call: Call) -> str | None:
        for line in call.all(b"cookie"):
            try:
                found = SimpleCookie(line.decode("latin-1")).get(cookie_name(self.port))
            except CookieError:
                continue
            if found is not None:
                return found.value
        return None

    def _is_ours(self, call: Call) -> bool:
        """Tell whether a request comes from the page that the hub itself serves."""
        origins, sites = _texts(call, b"origin"), _texts(call, b"sec-fetch-site")
        if any(origin != _own_origin(call) for origin in origins) or any(site != "same-origin" for site in sites):
            return False
        return bool(origins or sites)

    # --- codes --------------------------------------------------------------------------------------------------

    def redeem(self, code: str, name: str, *, origin: str | None = None) -> tuple[str, Credential] | None:
        """Turn a code into a token; see `Credentials.redeem`.

        Raises:
            Problem: Too many codes were wrong of late.
        """
        now = time.monotonic()
        self._wrong[:] = [then for then in self._wrong if now - then < _PER]
        if len(self._wrong) >= _WRONG_CODES:
            raise Problem(429, "Too many codes were wrong. Wait a minute.", headers={"Retry-After": "60"})
        found = self.credentials.redeem(code, name, origin=origin)
        if found is None:
            self._wrong.append(now)
        return found

    def check_pairing(self, origins: list[str], own: str) -> str | None:
        """Return the origin that a token is to be given to.

        Raises:
            Problem: A page asks that nobody named.
        """
        if not origins:
            return None
        if len(origins) > 1 or not (
            origins[0] == own or origins[0] in self.trusted or origins[0].startswith(_EXTENSIONS)
        ):
            raise Problem(403, "Pages of other sites get no token. Name them with --trust-origin.")
        return None if origins[0] == own else origins[0]


class HubGuard(Guard):
    """The guard of the services, with the rules of the hub in place of a key."""

    def __init__(
        self,
        app: Any,
        settings: Callable[[], Settings],
        access: Access,
        *,
        ended: Callable[[], Awaitable[object]],
        **more: Any,
    ) -> None:
        super().__init__(app, settings, **more)
        self._access, self._ended = access, ended

    async def _live(self, receive: Receive, send: Send) -> None:
        await super()._live(receive, send)
        await self._ended()  # in the loop: connections are closed where they were opened

    async def _fail(self, call: Call, problem: Problem) -> None:
        if call.path in PATHS:
            status = problem.status = status_of(problem)
            await call.fail(problem, error_body(status, problem.detail, problem.code), "application/json")
        else:
            await super()._fail(call, problem)

    async def _let_in(self, call: Call, settings: Settings) -> None:
        call.check_host(settings)
        call.allow_origin(settings)
        if not call.preflight(settings):
            call.scope[PRINCIPAL] = self._access.principal(call)

    async def _taken(self, call: Call, receive: Receive, settings: Settings) -> Receive:
        if call.path in LARGE:
            settings = replace(settings, max_body=MAX_CAPTURE)
        if call.path not in UPLOADS or call.method != "POST":
            return await super()._taken(call, receive, settings)
        if any(not one.isdigit() or len(one) > 18 or int(one) > MAX_UPLOAD for one in call.all(b"content-length")):
            raise _too_large()
        size = 0

        async def counted() -> Any:
            nonlocal size
            try:
                message = await asyncio.wait_for(receive(), _STALL)
            except asyncio.TimeoutError:
                raise HTTPException(408, f"Nothing came for {_STALL:g} seconds.") from None
            size += len(message.get("body", b""))
            if size > MAX_UPLOAD:
                raise HTTPException(413, _TOO_LARGE)  # who reads forms lets no other error through
            return message

        return counted


def _unknown() -> Problem:
    return Problem(
        401,
        "The hub does not know who asks. Open it by the address that it printed, or pair with it for a token: "
        "Authorization: Bearer TOKEN.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _too_large() -> Problem:
    return Problem(413, _TOO_LARGE, headers={"Connection": "close"})


def _texts(call: Call, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for value in call.all(name)]


def _own_origin(call: Call) -> str:
    """Return the origin of pages that come from here; the Host was checked before."""
    return f"http://{call.all(b'host')[0].decode('latin-1').lower()}"


def _no_page(call: Call) -> bool:
    """Tell whether no page of somebody else makes a browser ask: one that shows an image sends no Origin."""
    return set(_texts(call, b"sec-fetch-site")) <= {"none", "same-origin"}


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
