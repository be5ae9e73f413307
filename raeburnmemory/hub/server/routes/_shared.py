"""What the hub's own routes share: the hub, bodies that are read strictly, and the errors of their document."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter  # what Starlette runs on
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi import Depends, Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from ....api.answers import problems
from ....api.strict import read_json
from ....web import Problem
from ..access import Access
from ..hub import Hub

__all__ = ["AGAIN", "MOST", "Asked", "Entrance", "Here", "OwnRoute", "errors", "patiently"]

MOST = 2**53
AGAIN: dict[int | str, dict[str, Any]] = {200: {"description": "It was there already, and is as it was sent last."}}

_ANSWERS = 100  # that may wait for models at once; more wait until one of these is done
_waiting: RunVar[CapacityLimiter] = RunVar("answers")
_T = TypeVar("_T")


async def patiently(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call what waits for a model in a thread, but not in one of those that everything else is answered in."""
    try:
        limiter = _waiting.get()
    except LookupError:  # the first, in this event loop
        limiter = CapacityLimiter(_ANSWERS)
        _waiting.set(limiter)
    return await run_sync(functools.partial(function, *args, **kwargs), limiter=limiter)


class OwnRoute(APIRoute):
    """A route whose JSON bodies are read strictly; a type is wanted only where there is a body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            if self.body_field is not None and not isinstance(self.body_field.field_info, Form):
                body = await request.body()
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "application/json" and (body or kind):
                    raise Problem(415, "A body is JSON here: Content-Type: application/json.")
                if body:
                    request._json = read_json(body)  # noqa: SLF001 - what its `json()` gives from now on
            return await handler(request)

        return answer


class Asked(BaseModel):
    """What is asked for; a name that is not known is a mistake, and said to be one."""

    model_config = ConfigDict(extra="forbid")


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


async def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


Here = Annotated[Hub, Depends(_hub)]
Entrance = Annotated[Access, Depends(_access)]


def errors(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers that are errors, for the document."""
    return problems(*more)
