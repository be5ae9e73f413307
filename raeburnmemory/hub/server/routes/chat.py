"""Searching, asking, and threads: conversations that are kept, with answers that come as they are made."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from ....errors import MemoryGraphError
from ....hits import Hit
from ....nodes import PROMPT
from ....web import Problem
from ...asking import AnswerStream
from ..hub import Hub
from ..problems import problem_of
from ..rules import needs
from ._shared import MOST, Asked, Here, OwnRoute, errors

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", route_class=OwnRoute, tags=["chat"])

_TEXT = 100_000  # letters of a question
Number = Annotated[int, Path(ge=0, le=MOST)]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer, or its events."}
}


class Search(Asked):
    """What is looked for, and among what."""

    query: str = Field(min_length=1, max_length=_TEXT)
    project: int | None = Field(None, ge=0, le=MOST, description="Only its documents.")
    k: int = Field(10, ge=1, le=100)
    kinds: list[str] | None = Field(None, min_length=1, max_length=20)
    since: str | None = Field(None, max_length=40)
    until: str | None = Field(None, max_length=40)
    min_coverage: float | None = Field(None, ge=0, le=1)


class Question(Asked):
    """A question; with `stream` its answer comes as events."""

    question: str = Field(min_length=1, max_length=_TEXT)
    project: int | None = Field(None, ge=0, le=MOST)
    stream: bool = False
    k: int = Field(8, ge=1, le=50)


class SummaryWanted(Asked):
    """A document by its id, and how long its summary may be; with `keep` it becomes a memory of its own."""

    source: str = Field(min_length=1, max_length=512)
    max_tokens: int = Field(256, ge=16, le=4096)
    keep: bool = False


class ThreadWanted(Asked):
    """What a thread is called, and whose documents it draws on: a project's, or the whole memory."""

    title: str = Field("", max_length=200)
    project: int | None = Field(None, ge=0, le=MOST)


class Message(Asked):
    """What is said in a thread."""

    content: str = Field(min_length=1, max_length=_TEXT)
    stream: bool = False


@router.post("/search", dependencies=[needs("read")], responses=errors(404))
def search(asked: Search, hub: Here) -> dict[str, Any]:
    """Find what matters for a question, best first, each with the reasons and where its words stand."""
    given = asked.model_dump(exclude_none=True)
    project = given.pop("project", None)
    if project is not None:
        given["collection"] = hub.projects.get(project).collection
    hits = hub.memory.recall(given.pop("query"), given.pop("k"), **given)
    return {"hits": [_hit(hub, project, hit) for hit in hits], "legs": list(hits.legs), "skipped": dict(hits.skipped)}


def _hit(hub: Hub, project: int | None, hit: Hit) -> dict[str, Any]:
    file = None
    if project is not None and hit.place is not None:
        file = hub.file_of(project, hit.place.uri, hit.place.name)
    return {**hit.to_dict(), "citation": hit.citation, "file": file, "marks": marks(hit.text, hit.why.words)}


def marks(text: str, words: tuple[str, ...]) -> list[list[int]]:
    """Return where words stand in a text, also in longer forms: the first and the last character of each, plus one."""
    if not words:
        return []
    some = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return [[found.start(), found.end()] for found in re.finditer(rf"(?<!\w)(?:{some})\w*", text, re.IGNORECASE)]


# --- asking -----------------------------------------------------------------------------------------------------


@router.post("/ask", dependencies=[needs("write")], responses={**_STREAM, **errors(404, 409, 502, 504)})
async def ask_once(asked: Question, hub: Here) -> Response:
    """Answer a question with citations, and record it."""
    return await _answered(hub, asked.question, stream=asked.stream, project=asked.project, k=asked.k)


@router.post("/summarize", dependencies=[needs("write")], responses=errors(404, 409, 502, 504))
def summarize(asked: SummaryWanted, hub: Here) -> dict[str, Any]:
    """Make a document short; it is answered when that is done, which takes as long as the model does."""
    return hub.summary(asked.source, max_tokens=asked.max_tokens, keep=asked.keep).to_dict()


@router.get("/threads", dependencies=[needs("read")], responses=errors())
def threads(hub: Here) -> dict[str, Any]:
    """Return the threads, the oldest first."""
    return {"threads": [one.to_dict() for one in hub.threads.list()]}


@router.post("/threads", status_code=201, dependencies=[needs("write")], responses=errors(404))
def begin(asked: ThreadWanted, hub: Here) -> dict[str, Any]:
    """Begin a thread."""
    if asked.project is not None:
        hub.projects.get(asked.project)
    return hub.threads.begin(asked.title, asked.project).to_dict()


@router.get("/threads/{thread_id}", dependencies=[needs("read")], responses=errors(404))
def thread(thread_id: Number, hub: Here) -> dict[str, Any]:
    """Return a thread with what was said in it."""
    found = hub.threads.get(thread_id)
    said = [
        {
            "id": node.id,
            "role": "user" if node.kind == PROMPT else "assistant",
            "text": node.text,
            "timestamp": node.timestamp,
            "citations": _citations(hub, node.id) if node.kind != PROMPT else [],
        }
        for node in hub.threads.said(found)
    ]
    return {**found.to_dict(), "messages": said}


def _citations(hub: Hub, node_id: str) -> list[dict[str, Any]]:
    """Return what an answer cites, by the number in its text."""
    found = [
        {**one, "id": link.target}
        for link in hub.memory.links([node_id], "cites", "out")
        for one in link.data.get("citations", ())
    ]
    return sorted(found, key=lambda one: int(one.get("number", 0)))


@router.delete("/threads/{thread_id}", dependencies=[needs("write")], responses=errors(404))
def end(thread_id: Number, hub: Here) -> dict[str, str]:
    """Forget a thread and what was said in it."""
    hub.threads.forget(thread_id)
    return {"status": "ok"}


@router.post(
    "/threads/{thread_id}/messages", dependencies=[needs("write")], responses={**_STREAM, **errors(404, 409, 502, 504)}
)
async def say(thread_id: Number, asked: Message, hub: Here) -> Response:
    """Answer what is said in a thread, with citations, and record both."""
    found = await run_in_threadpool(hub.threads.get, thread_id)
    return await _answered(
        hub, asked.content, stream=asked.stream, project=found.project_id, session_id=found.session_id
    )


async def _answered(hub: Hub, question: str, *, stream: bool, **options: Any) -> Response:
    """Answer a question: whole, or as events `retrieval`, `delta`, `citation`, `done` and `error`."""
    begun = await run_in_threadpool(hub.answering, question, **options)  # its errors are still answers of their own
    if stream:
        return StreamingResponse(_events(begun), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    answer = await run_in_threadpool(lambda: begun.answer)
    return Response(json.dumps(answer.to_dict()).encode(), media_type="application/json")


async def _events(stream: AnswerStream) -> AsyncIterator[bytes]:
    try:
        yield _event("retrieval", {"query": stream.query, "sources": [one.to_dict() for one in stream.sources]})
        while (piece := await run_in_threadpool(next, stream, None)) is not None:
            yield _event("delta", {"text": piece})
        answer = stream.answer
        for citation in answer.citations:
            yield _event("citation", citation.to_dict())
        yield _event("done", answer.to_dict())
    except MemoryGraphError as exc:
        problem = problem_of(exc) or Problem(500, "Something is wrong here.")
        yield _event("error", {"status": problem.status, "code": problem.code, "detail": problem.detail})
    finally:
        # Whoever listened may be gone: the model is to stop, which takes a moment and writes what was said.
        threading.Thread(target=stream.close, daemon=True).start()


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
