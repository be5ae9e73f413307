"""Searching, asking, and threads: conversations that are kept, with answers that come as they are made."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from ....hits import Hit
from ....nodes import PROMPT, Node
from ...asking import AnswerStream
from ..answering import line, told
from ..hub import Hub
from ..rules import needs
from ..threads import Thread
from ._shared import MOST, Asked, Here, OwnRoute, errors, patiently

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", route_class=OwnRoute, tags=["chat"])

_TEXT, _NAME = 100_000, 200  # letters of a question, and of what something goes by
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
    """What is said in a thread; with `keep` the answer goes on when nobody reads it, see `/threads/ID/answer`."""

    content: str = Field(min_length=1, max_length=_TEXT)
    stream: bool = False
    keep: bool = False


@router.post("/search", dependencies=[needs("read")], responses=errors(404))
def search(asked: Search, hub: Here) -> dict[str, Any]:
    """Find what matters for a question, best first, each with the reasons and where its words stand."""
    given = asked.model_dump(exclude_none=True)
    project = given.pop("project", None)
    if project is not None:
        given["collection"] = hub.projects.get(project).collection
    hits = hub.memory.recall(given.pop("query"), given.pop("k"), **given)
    beside = hub.memory.get_many([step.id for hit in hits for step in hit.why.path])
    names = {node.id: _name(node) for node in beside}
    return {
        "hits": [_hit(hub, project, hit, names) for hit in hits],
        "legs": list(hits.legs),
        "skipped": dict(hits.skipped),
    }


def _name(node: Node) -> str:
    """Return what a node goes by among people; of a text, its beginning."""
    return str(node.attributes.get("title") or node.attributes.get("name") or node.text or node.id)[:_NAME]


def _hit(hub: Hub, project: int | None, hit: Hit, names: Mapping[str, str]) -> dict[str, Any]:
    file = None
    if project is not None and hit.place is not None:
        file = hub.file_of(project, hit.place.uri, hit.place.name)
    found = hit.to_dict()
    for step in found.get("why", {}).get("path", ()):
        step["name"] = names.get(step["id"], "")
    return {**found, "citation": hit.citation, "file": file, "marks": marks(hit.text, hit.why.words)}


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
    make = functools.partial(hub.answering, asked.question, project=asked.project, k=asked.k)
    return await _answered(make, stream=asked.stream)


@router.post("/summarize", dependencies=[needs("write")], responses=errors(404, 409, 502, 504))
async def summarize(asked: SummaryWanted, hub: Here) -> dict[str, Any]:
    """Make a document short; it is answered when that is done, which takes as long as the model does."""
    found = await patiently(hub.summary, asked.source, max_tokens=asked.max_tokens, keep=asked.keep)
    return found.to_dict()


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
    """Return a thread with what was said in it, and the question that is being answered."""
    found, answer = hub.threads.get(thread_id), hub.answers.current(thread_id)
    asked = None if answer is None else answer.question
    messages = _said(hub, found)
    if answer is not None and answer.over:  # a moment ago, so that it may have been recorded since
        asked, messages = None, _said(hub, found)
    return {**found.to_dict(), "messages": messages, "answering": asked}


def _said(hub: Hub, thread: Thread) -> list[dict[str, Any]]:
    return [
        {
            "id": node.id,
            "role": "user" if node.kind == PROMPT else "assistant",
            "text": node.text,
            "timestamp": node.timestamp,
            "citations": _citations(hub, node.id) if node.kind != PROMPT else [],
        }
        for node in hub.threads.said(thread)
    ]


def _citations(hub: Hub, node_id: str) -> list[dict[str, Any]]:
    """Return what an answer cites, by the number in its text, and which document each is of."""
    links = hub.memory.links([node_id], "cites", "out")
    cited = {node.id: node for node in hub.memory.get_many([link.target for link in links])}
    documents = {
        node.id: node
        for node in hub.memory.get_many(
            [one.attributes["document"] for one in cited.values() if isinstance(one.attributes.get("document"), str)]
        )
    }
    found = []
    for link in links:
        node = cited.get(link.target)
        document = documents.get(str(node.attributes.get("document"))) if node is not None else None
        known: Mapping[str, Any] = {} if document is None else document.attributes
        about = {
            "id": link.target,
            "kind": None if node is None else node.kind,
            "document": None if document is None else document.id,
            "title": known.get("title") or known.get("name"),
            "uri": known.get("uri"),
        }
        found += [{**one, **about} for one in link.data.get("citations", ())]
    return sorted(found, key=lambda one: int(one.get("number", 0)))


@router.delete("/threads/{thread_id}", dependencies=[needs("write")], responses=errors(404))
def end(thread_id: Number, hub: Here) -> dict[str, str]:
    """Forget a thread and what was said in it."""
    hub.threads.forget(thread_id)
    if (answer := hub.answers.current(thread_id)) is not None:
        answer.stop()
    return {"status": "ok"}


@router.post(
    "/threads/{thread_id}/messages", dependencies=[needs("write")], responses={**_STREAM, **errors(404, 409, 502, 504)}
)
async def say(thread_id: Number, asked: Message, hub: Here) -> Response:
    """Answer what is said in a thread, with citations, and record both."""
    found = await run_in_threadpool(hub.threads.get, thread_id)
    make = functools.partial(
        hub.answering,
        asked.content,
        project=found.project_id,
        session_id=found.session_id,
        ended=functools.partial(hub.threads.ended, found),
    )
    if not (asked.stream and asked.keep):
        return await _answered(make, stream=asked.stream)
    answer = await patiently(hub.answers.begin, thread_id, asked.content, make)
    return _streamed(answer.read())


async def _answered(make: Callable[[], AnswerStream], *, stream: bool) -> Response:
    """Answer a question: whole, or as events `retrieval`, `delta`, `citation`, `done` and `error`."""
    begun = await patiently(make)  # its errors are still answers of their own
    if stream:
        return _streamed(_events(begun))
    answer = await patiently(lambda: begun.answer)
    return Response(json.dumps(answer.to_dict()).encode(), media_type="application/json")


def _streamed(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(stream: AnswerStream) -> AsyncIterator[bytes]:
    try:
        events = told(stream)
        # Shielded, so that whoever is gone need not wait for the thread, which waits for the model's next word.
        while (one := await asyncio.shield(asyncio.ensure_future(patiently(next, events, None)))) is not None:
            yield line(*one)
    finally:
        stream.stop()
        # That takes a moment, and writes what was said.
        threading.Thread(target=_leave, args=(stream,), daemon=True).start()


def _leave(stream: AnswerStream) -> None:
    with contextlib.suppress(ValueError):  # a thread is still at it: it comes to its end, as the model was stopped
        stream.close()
