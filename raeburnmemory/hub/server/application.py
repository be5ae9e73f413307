"""The hub as an ASGI application: the original's routes, our own, the memory's service, and the browser client."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ... import __version__
from ...api.answers import Tags
from ...api.original import router as original
from ...api.routes import router as service
from ...api.scope import Scopes
from ...errors import MemoryGraphError
from ...web import Problem, Settings, problem_of_request
from ...web.problems import MEDIA_TYPE
from .access import CLOSED, Access, HubGuard, cookie_name
from .credentials import LONG_CODE
from .files import router as files
from .hub import Hub
from .legacy import router as legacy
from .openai_shape import PATHS, error_body, status_of
from .pages import Pages, described
from .problems import problem_of
from .routes import routers
from .rules import needs_by_method

__all__ = ["HubService", "create_app"]

log = logging.getLogger("raeburnmemory.hub")

_COOKIE_SECONDS = 400 * 86_400  # the longest that browsers take; it is set anew whenever a code is used
_ABOUT = """Local models, documents, and answers with citations, over one memory on this machine.

Routes below `/api/v1` with the tags projects, files, ingest, rag, summaries and llamafile are those of the Memory Cache
hub, `/v1/chat/completions`, `/v1/embeddings` and `/v1/models` those of OpenAI. The rest of `/v1` and `/memory` are the
service of the memory. Errors of all others are `application/problem+json`."""


class HubService(FastAPI):
    """A FastAPI application behind the hub's guard."""

    guard: HubGuard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what an ASGI server hands over."""
        await self.guard(scope, receive, send)

    async def behind(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what the guard lets in."""
        await super().__call__(scope, receive, send)


def create_app(
    hub: Hub,
    access: Access,
    pages: Pages | None = None,
    *,
    hosts: frozenset[str] = frozenset(),
    start: Callable[[], object] = lambda: None,
    stop: Callable[[], object] = lambda: None,
) -> HubService:
    """Return an application over *hub*, which stays the caller's to close.

    It answers to localhost, 127.0.0.1, [::1] and *hosts*. *start* and *stop* are called with the server.
    """
    application = HubService(
        title="RaeburnMemory hub",
        description=_ABOUT,
        version=__version__,
        license_info={"name": "MIT"},
        docs_url=None,  # the page of the framework loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    state = application.state
    state.hub, state.access, state.pages = hub, access, pages or Pages(None)
    state.memory, state.tags, state.scopes = hub.memory, Tags(), Scopes()
    access.legacy = _legacy
    names = frozenset({"localhost", "127.0.0.1", "[::1]"}) | hosts

    def settings() -> Settings:
        return Settings(allow_open=True, hosts=names, origins=access.trusted | access.credentials.origins())

    def ended() -> None:
        state.scopes.close()
        stop()

    application.guard = HubGuard(application.behind, settings, access, ended=hub.models.aclose, start=start, stop=ended)
    application.add_exception_handler(Problem, _problem)
    application.add_exception_handler(MemoryGraphError, _of_ours)
    application.add_exception_handler(HTTPException, _of_the_framework)
    application.add_exception_handler(RequestValidationError, _of_the_request)
    application.include_router(legacy)
    application.include_router(files)
    for own in routers:
        application.include_router(own)
    for router in (service, original):
        application.include_router(router, dependencies=[Depends(needs_by_method)])
    _add_pages(application)
    return application


def _legacy(method: str, path: str) -> bool:
    """Tell whether a request is one of the original's."""
    for route in legacy.routes:
        if method in {*getattr(route, "methods", ()), "OPTIONS"} and route.path_regex.match(path):  # type: ignore[attr-defined]
            return True
    return False


# --- the page ---------------------------------------------------------------------------------------------------


def _add_pages(application: FastAPI) -> None:
    @application.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        body = described(application.openapi())
        return Response(body, media_type="text/html", headers={"Content-Security-Policy": "default-src 'none'"})

    @application.api_route("/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    def page(request: Request) -> Response:
        pages: Pages = request.app.state.pages
        path, accept = request.url.path, request.headers.get("accept", "")
        if any(path == one or path.startswith(f"{one}/") for one in CLOSED):
            raise Problem(404, "There is no such route.")
        if "text/html" in accept and (elsewhere := _to_localhost(request)) is not None:
            return Response(status_code=307, headers={"Location": elsewhere})
        if request.method == "GET" and "code" in request.query_params and (entered := _let_in(request)) is not None:
            return entered
        found = pages.find(path, accept)
        if found is None:
            return Response("There is no such page.", 404, media_type="text/plain")
        body, kind = found
        headers = {
            "Content-Type": kind,
            "Content-Security-Policy": pages.rules,
            "Cache-Control": "no-cache",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        return Response(body, headers=headers)


def _to_localhost(request: Request) -> str | None:
    """Return where a page that was opened by a number is to be opened instead, None for one that was not.

    The original's client is built for http://localhost: under a number its calls are those of another site.
    """
    host = request.headers["host"].lower()
    name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
    if name not in {"127.0.0.1", "[::1]"}:
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    return f"http://localhost{':' + port if port else ''}{_quoted(request)}{query}"


def _quoted(request: Request) -> str:
    raw = request.scope.get("raw_path") or request.url.path.encode()
    return bytes(raw).decode("latin-1").partition("?")[0]


def _let_in(request: Request) -> Response | None:
    """Give the page its cookie for a code in its address, and show it again without; None if the code is no good."""
    access: Access = request.app.state.access
    code = request.query_params["code"]
    # Pages of others may let a browser fetch this address as an image; they know no code, and none is spent or counted.
    # Codes for typing are short, so that trying them is counted, and that is done where programs pair.
    if len(code) < LONG_CODE or request.headers.get("sec-fetch-mode", "navigate") != "navigate":
        return None
    found = access.credentials.redeem(code, "the page in this browser", cookie=True)
    if found is None:
        return None
    secret, _ = found
    rest = [pair for pair in parse_qsl(request.url.query) if pair[0] != "code"]
    location = _quoted(request) + (f"?{urlencode(rest)}" if rest else "")
    cookie = f"{cookie_name(access.port)}={secret}; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
    # A path that begins with two slashes would be read as another host.
    return Response(status_code=303, headers={"Location": "/" + location.lstrip("/"), "Set-Cookie": cookie})


# --- errors -----------------------------------------------------------------------------------------------------


def _is_legacy(request: Request) -> bool:
    return _legacy(request.method, request.url.path)


def _answer(request: Request, problem: Problem) -> Response:
    if request.url.path in PATHS:
        status = status_of(problem)
        body = error_body(status, problem.detail, problem.code)
        return Response(body, status, problem.headers, media_type="application/json")
    body = problem.body(request.scope.get("request_id", ""))
    return Response(body, problem.status, {**problem.headers, "Content-Type": MEDIA_TYPE})


def _problem(request: Request, problem: Any) -> Response:
    return _answer(request, problem)


def _of_ours(request: Request, error: Any) -> Response:
    problem = problem_of(error) or Problem(500, "Something is wrong here. The log says what.")
    path = request.app.state.memory.db_path
    problem.detail = problem.detail.replace(repr(path), "this memory").replace(os.fspath(path), "this memory")
    if problem.status >= 500:
        log.error("Request %s: %s", request.scope.get("request_id"), error)
    return _answer(request, problem)


async def _of_the_framework(request: Request, error: Any) -> Response:
    if _is_legacy(request):
        return await http_exception_handler(request, error)
    said = {404: "There is no such route.", 405: "This route does not answer that method."}
    detail = said.get(error.status_code, str(error.detail))
    return _answer(request, Problem(error.status_code, detail, headers=dict(error.headers or {})))


async def _of_the_request(request: Request, error: Any) -> Response:
    if _is_legacy(request):  # as FastAPI has it, but for what was sent, which may be no text that JSON can hold
        told = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
        return JSONResponse({"detail": told}, 422)
    return _answer(request, problem_of_request(error.errors()))
