"""OpenAI's routes, in front of the model that runs or a server that was named: its clients get a memory by their URL.

A chat is passed on with what the memory holds for the last question of the user, and recorded. What comes back is
passed on as it comes, and so is everything in a request that nothing is known of here.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from ....api.scope import scoped
from ....api.strict import read_json
from ....memory_graph import MemoryGraph
from ....web import Problem
from ..passed import Passed
from ..remembering import Exchange
from ..rules import needs, principal_of
from ._shared import Here

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["openai"])

Memory = Annotated[MemoryGraph, Depends(scoped)]
Session = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="The session to record it in; one of the token's if left out."),
]
Wanted = Annotated[
    str | None, Header(pattern="^(on|off)$", description="`off` adds nothing from the memory; it is recorded still.")
]


class OpenAIError(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | int | None


class OpenAIFailure(BaseModel):
    """An error as OpenAI's API has it."""

    error: OpenAIError


_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": OpenAIFailure, "description": what}
    for code, what in (
        (400, "The request cannot be taken."),
        (401, "The token is missing or wrong."),
        (403, "The token is not for that."),
        (404, "No such model runs."),
        (408, "The body came too slowly."),
        (413, "The body is too large."),
        (415, "The body is of another type, or packed."),
        ("4XX", "The server that was asked refuses."),
        ("5XX", "It cannot be reached, or fails."),
    )
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer, as it came."}
}
_JSON: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}}, "description": "The answer, as it came."}
}


def _body(**properties: Any) -> dict[str, Any]:
    """Return how a body is described: what the hub looks at, and anything else."""
    schema = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_MESSAGES = {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {"role": {"type": "string"}}}}


@router.post(
    "/chat/completions",
    dependencies=[needs("write")],
    responses={**_STREAM, **_ERRORS},
    response_class=Response,
    openapi_extra=_body(messages=_MESSAGES, model={"type": "string"}, stream={"type": "boolean"}),
)
async def chat_completions(
    request: Request, hub: Here, memory: Memory, x_raeburn_session: Session = None, x_raeburn_memory: Wanted = None
) -> Response:
    """Answer a chat, with what the memory holds for it, and record it."""
    raw, asked = await _asked(request)
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Problem(400, "'messages' is a list of objects with role and content, and not empty.", code="messages")
    if "model" not in asked and hub.models.model is not None:
        asked["model"] = hub.models.model
        raw = json.dumps(asked, ensure_ascii=False).encode()
    session = x_raeburn_session or f"client-{principal_of(request).id}"
    exchange = Exchange(memory, asked, session, hub.remembering, hub.plugins, remember=x_raeburn_memory != "off")
    return Passed(lambda: hub.models.passing("chat", _named(asked)), "POST", "/chat/completions", raw, exchange)


@router.post(
    "/embeddings",
    dependencies=[needs("read")],
    responses={**_JSON, **_ERRORS},
    response_class=Response,
    openapi_extra=_body(input={}, model={"type": "string"}),
)
async def embeddings(request: Request, hub: Here) -> Response:
    """Return vectors of texts, made by the embedding model that runs, or by the server that was named."""
    raw, asked = await _asked(request)
    if "input" not in asked:
        raise Problem(400, "'input' is missing: the text, or a list of them.", code="input")
    return Passed(lambda: hub.models.passing("embedding", _named(asked)), "POST", "/embeddings", raw)


@router.get("/models", dependencies=[needs("read")], responses={**_JSON, **_ERRORS}, response_class=Response)
async def models(hub: Here) -> Response:
    """Return the models that can be asked: those that run here, or those of the server that was named."""
    if hub.models.url is not None:
        return Passed(lambda: hub.models.passing("chat"), "GET", "/models")
    return JSONResponse({"object": "list", "data": await run_in_threadpool(hub.models.offered)})


async def _asked(request: Request) -> tuple[bytes, dict[str, Any]]:
    """Return the body of a request, as it came and as what it says."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "A body is JSON here: Content-Type: application/json.")
    raw = await request.body()
    asked = read_json(raw)
    if not isinstance(asked, dict):
        raise Problem(400, "The body is an object.")
    return raw, asked


def _named(asked: dict[str, Any]) -> str | None:
    model = asked.get("model")
    return model if isinstance(model, str) else None
