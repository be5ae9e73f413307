"""The application: routes, how errors are answered, and the guard before all of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from .. import __version__
from ..errors import MemoryGraphError
from ..memory_graph import MemoryGraph
from ..web import Guard, Problem, Settings, problem_for, problem_of_request
from ..web.problems import MEDIA_TYPE
from .answers import Tags, problems, public
from .metrics import CONTENT_TYPE, Metrics
from .original import router as original
from .routes import router
from .scope import Scopes
from .serving import current_settings, get_memory_graph, serving

__all__ = ["Service", "app", "create_app"]

log = logging.getLogger("raeburnmemory.web")

_UNPACKED = 1024  # bytes, up to which an answer is not worth packing
_LEVEL = 5

_ABOUT = """Keep what was said, by whom and when, and find it again by meaning, by words and by time.

Errors are `application/problem+json`. Where the service has a key, every route but `/healthz` and `/readyz` wants it:
`Authorization: Bearer KEY`."""


Here = Annotated[MemoryGraph, Depends(get_memory_graph)]


class Service(FastAPI):
    """A FastAPI application behind a `Guard`."""

    guard: Guard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what an ASGI server hands over."""
        await self.guard(scope, receive, send)

    async def behind(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what the guard lets in."""
        await super().__call__(scope, receive, send)


def create_app(
    memory: MemoryGraph | None = None, settings: Callable[[], Settings] | Settings = current_settings
) -> Service:
    """Return an application that answers from *memory*, which stays the caller's to close.

    Without one, the memory that `RAEBURN_DB` names is opened when the server starts, and closed when it stops.
    *settings* are taken from the environment if left out.
    """
    application = Service(
        title="RaeburnMemory",
        description=_ABOUT,
        version=__version__,
        license_info={"name": "MIT"},
        # The pages that show the document load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat whatever Host a request names
    )
    metrics = Metrics()
    scopes = application.state.scopes = Scopes()
    application.state.tags = Tags()
    application.state.memory = memory

    def start() -> None:
        if memory is None:
            serving.start()

    def stop() -> None:
        scopes.close()
        if memory is None:
            serving.stop()

    chosen = settings if callable(settings) else lambda: settings
    application.guard = Guard(application.behind, chosen, start=start, stop=stop, observe=metrics.observe)
    application.add_middleware(GZipMiddleware, minimum_size=_UNPACKED, compresslevel=_LEVEL)
    application.add_exception_handler(Problem, _problem)
    application.add_exception_handler(MemoryGraphError, _of_the_memory)
    application.add_exception_handler(HTTPException, _of_the_framework)
    application.add_exception_handler(RequestValidationError, _of_the_request)
    application.add_exception_handler(Exception, _unexpected)
    application.include_router(original)
    application.include_router(router)
    _add_health(application, metrics)
    _describe_key(application)
    return application


def _add_health(application: FastAPI, metrics: Metrics) -> None:
    @application.get("/healthz", tags=["health"], responses=problems())
    async def alive() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @application.get("/readyz", tags=["health"], responses=problems())
    def ready(memory: Here) -> dict[str, str]:
        """Tell that the memory can be read."""
        try:
            _ = memory.version
        except Exception:  # noqa: BLE001 - the route is open to everybody, and says nothing of why
            raise Problem(503, "The memory cannot be read now.", headers={"Retry-After": "1"}) from None
        return {"status": "ok"}

    @application.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **problems()},
    )
    def figures(memory: Here) -> Response:
        """Return figures for Prometheus."""
        return Response(metrics.text(memory), headers={"Content-Type": CONTENT_TYPE})


# --- errors -----------------------------------------------------------------------------------------------------


def _answer(request: Request, problem: Problem) -> Response:
    body = problem.body(request.scope.get("request_id", ""))
    return Response(body, problem.status, {**problem.headers, "Content-Type": MEDIA_TYPE})


def _problem(request: Request, problem: Any) -> Response:
    return _answer(request, problem)


def _of_the_memory(request: Request, error: Any) -> Response:
    problem = problem_for(error) or Problem(500, "")
    memory = getattr(request.state, "memory", None)
    if memory is not None:
        problem.detail = public(problem.detail, memory)
    elif problem.status < 500:  # it is about what the environment names, whatever was asked
        problem = Problem(500, "This service is set up wrongly. Its log says how.")
    if problem.status >= 500:
        log.error("Request %s: %s", request.scope.get("request_id"), error)
    return _answer(request, problem)


def _of_the_framework(request: Request, error: Any) -> Response:
    said = {404: "There is no such route.", 405: "This route does not answer that method."}
    detail = said.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    path = getattr(request.scope.get("route"), "path_format", None)
    # Starlette names the methods of the first of several routes only.
    if error.status_code == 405 and (methods := request.app.openapi()["paths"].get(path)):
        headers["Allow"] = ", ".join(sorted(method.upper() for method in methods))
    return _answer(request, Problem(error.status_code, detail, headers=headers))


def _unexpected(request: Request, _error: Any) -> Response:
    """Answer what nobody foresaw; the guard, to which the error goes on, logs it."""
    return _answer(request, Problem(500, "Something went wrong here. The log knows it by the request_id."))


def _of_the_request(request: Request, error: Any) -> Response:
    return _answer(request, problem_of_request(error.errors()))


def _describe_key(application: FastAPI) -> None:
    """Say in the OpenAPI document that a key may be wanted."""
    make = application.openapi

    def described() -> dict[str, Any]:
        if application.openapi_schema is None:
            document = make()
            document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
            for path in ("/healthz", "/readyz"):
                document["paths"][path]["get"]["security"] = []
        return make()

    application.openapi = described  # type: ignore[method-assign]


app = create_app()
