"""The two routes of the original service, as it had them."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from ..errors import EmbeddingsMissing
from ..memory_graph import MemoryGraph
from ..web import Problem
from .answers import Tags, not_modified, problems
from .schemas import SimilarAsked, SimilarFound
from .scope import scoped
from .strict import StrictRoute

__all__ = ["router"]

router = APIRouter(prefix="/memory", route_class=StrictRoute, tags=["original"])
Memory = Annotated[MemoryGraph, Depends(scoped)]


@router.get(
    "/graph",
    summary="The whole graph as node-link JSON",
    responses={
        200: {"content": {"application/json": {}}, "description": "Nodes and edges, as networkx writes them."},
        304: {"description": "It is what it was."},
        **problems(),
    },
    response_class=Response,
)
def graph(request: Request, memory: Memory, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Return the graph; with If-None-Match, only if it has changed."""
    tags: Tags = request.app.state.tags
    tag = tags.known(memory)
    if tag is not None and not_modified(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    version = memory.version  # if somebody writes now, the next to ask gets another tag
    found = memory.export(False)
    tag = tags.seen(memory, version, (node.get("raeburnmemory_expires_at") for node in found["nodes"]))
    if not_modified(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    body = json.dumps(found, ensure_ascii=False).encode()
    return Response(body, media_type="application/json", headers={"ETag": tag})


@router.post(
    "/similar",
    summary="The prompts nearest in meaning to a text",
    responses=problems(404, 400, 422),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": SimilarAsked.model_json_schema()}},
        }
    },
)
async def similar(request: Request, memory: Memory) -> SimilarFound:
    """Return ids of prompts, nearest first; 404 where the memory holds no vectors."""
    asked: Any = await request.json()
    text = asked.get("text") if isinstance(asked, dict) else None
    if not isinstance(text, str) or not text:
        raise Problem(400, "text field required")
    top_k = asked.get("top_k", 5)
    if not isinstance(top_k, int) or isinstance(top_k, bool) or not 0 <= top_k <= 1000:
        raise Problem(422, "top_k must be a whole number from 0 to 1000")

    def found() -> list[str]:
        if not memory.stats().vectors:
            raise EmbeddingsMissing("no embeddings are stored")
        return memory.get_similar_prompts(text, top_k)

    return SimilarFound(ids=await run_in_threadpool(found))
