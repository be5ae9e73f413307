"""What the hub's own routes share: the hub, bodies that are read strictly, and the errors of their document."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from ....api.answers import problems
from ....api.strict import read_json
from ....web import Problem
from ..access import Access
from ..hub import Hub

__all__ = ["AGAIN", "MOST", "Asked", "Entrance", "Here", "OwnRoute", "errors"]

MOST = 2**53
AGAIN: dict[int | str, dict[str, Any]] = {200: {"description": "It was there already, and is as it was sent last."}}


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
