"""The routes below `/v1`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.convertors import PathConvertor, register_url_convertor

from ..errors import NodeNotFound
from ..hits import Hit, Hits
from ..memory_graph import MemoryGraph
from ..nodes import BELONGS_TO, GENERATED_BY, PROMPT, RESPONDED_WITH, RESPONSE, SESSION, Forgotten, Link, Node, Recorded
from ..web import Problem
from . import schemas
from .answers import Tags, answer, not_modified, problems, public
from .once import record_once, say_once
from .scope import scoped
from .strict import StrictRoute

__all__ = ["router"]


class _Anything(PathConvertor):
    regex = r"[\s\S]*"  # that of "path" takes no line breaks, which an id may have


register_url_convertor("anything", _Anything())
router = APIRouter(prefix="/v1", route_class=StrictRoute)
Memory = Annotated[MemoryGraph, Depends(scoped)]
_LONGEST = 8192  # letters of an id; what is recorded under one can be read, and a list goes on after it
Id = Annotated[str, Path(min_length=1, max_length=_LONGEST)]
After = Annotated[str | None, Query(max_length=_LONGEST, description="Go on after this id.")]
Limit = Annotated[int, Query(ge=1, le=schemas.MOST)]

_PAGE = 500  # nodes of an export that are read at once


# --- interactions -----------------------------------------------------------------------------------------------


@router.post(
    "/interactions",
    status_code=201,
    tags=["interactions"],
    response_model=schemas.RecordedAll,
    responses={
        200: {"model": schemas.RecordedAll, "description": "It was recorded before, with the same Idempotency-Key."},
        **problems(409),
    },
)
def add(
    asked: schemas.Interaction | schemas.Interactions,
    memory: Memory,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Record one interaction, or many in one transaction.

    Sent again with the same Idempotency-Key, they are recorded once, by whatever process and after whatever crash: ids
    that were left out follow from the key. The answer then has the status 200. A key that was used for something else
    is refused. What names all its ids itself is recorded under these, with or without a key.
    """
    several = [one.model_dump(exclude_none=True) for one in (asked if isinstance(asked, list) else [asked])]
    if idempotency_key is None:
        recorded, new = memory.add_many(several), True
    else:
        recorded, new = record_once(memory, several, idempotency_key)
    return _recorded(recorded, new=new)


def _recorded(recorded: Sequence[Recorded], *, new: bool) -> Response:
    return answer({"recorded": [asdict(each) for each in recorded]}, 201 if new else 200)


@router.post(
    "/messages",
    status_code=201,
    tags=["interactions"],
    response_model=schemas.RecordedAll,
    responses={
        200: {"model": schemas.RecordedAll, "description": "It was recorded before, with the same Idempotency-Key."},
        **problems(409),
    },
)
def add_messages(
    asked: schemas.Message | schemas.Messages,
    memory: Memory,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Record one message of a chat, or many in one transaction, in the order in which they were said.

    A user's message is a prompt, an assistant's a response to the last prompt of its session. Idempotency-Key is as for
    interactions.
    """
    several = [one.model_dump(exclude_none=True) for one in (asked if isinstance(asked, list) else [asked])]
    if idempotency_key is None:
        recorded, new = memory.add_messages(several), True
    else:
        recorded, new = say_once(memory, several, idempotency_key)
    return _recorded(recorded, new=new)


@router.get(
    "/interactions/{node_id:anything}", tags=["interactions"], responses=problems(404), response_model=schemas.Exchange
)
def interaction(node_id: Id, memory: Memory) -> Response:
    """Return the exchange that a prompt or a response belongs to."""
    prompt, responses, links = _exchange(memory, node_id)
    answers = {node.id for node in responses}
    agents = dict.fromkeys(link.target for link in links if link.relation == GENERATED_BY and link.source in answers)
    sessions = [link.target for link in links if link.relation == BELONGS_TO]
    return answer(
        {
            "prompt": None if prompt is None else prompt.to_dict(),
            "responses": [node.to_dict() for node in responses],
            "agents": [node.to_dict() for node in memory.get_many(list(agents))],
            "session": sessions[0] if sessions else None,
        }
    )


@router.delete(
    "/interactions/{node_id:anything}", tags=["interactions"], responses=problems(404), response_model=schemas.Forgotten
)
def forget(
    node_id: Id,
    memory: Memory,
    secure: Annotated[bool, Query(description="Also from every older copy beside the memory.")] = False,
) -> Response:
    """Forget the exchange that a prompt or a response belongs to."""
    prompt, responses, _ = _exchange(memory, node_id)
    gone = memory.forget([node.id for node in (prompt, *responses) if node is not None], secure=secure)
    return _gone(gone)


@router.post("/forget", tags=["interactions"], responses=problems(), response_model=schemas.Forgotten)
def forget_chosen(asked: schemas.ForgetAsked, memory: Memory) -> Response:
    """Forget nodes by their ids, session, agent, time or attributes; what is not there is no error."""
    return _gone(memory.forget(**asked.model_dump(exclude_none=True)))


def _gone(report: Forgotten) -> Response:
    # Which files were written anew is nobody's business.
    return answer(
        {"ids": list(report.ids), "kinds": dict(report.kinds), "links": report.links, "vectors": report.vectors}
    )


def _exchange(memory: MemoryGraph, node_id: str) -> tuple[Node | None, list[Node], list[Link]]:
    """Return a prompt, its responses, and the edges of all of them."""
    with memory.snapshot():
        node = memory.get(node_id)
        if node.kind not in {PROMPT, RESPONSE}:
            raise NodeNotFound(f"{node_id!r} is a {node.kind}, no part of an interaction.")
        prompt: Node | None = node
        if node.kind == RESPONSE:
            asked = memory.links([node_id], RESPONDED_WITH, "in")
            prompt = memory.get(asked[0].source) if asked else None
        if prompt is None:
            return None, [node], memory.links([node_id])
        answers = memory.get_many([link.target for link in memory.links([prompt.id], RESPONDED_WITH, "out")])
        return prompt, answers, memory.links([prompt.id, *(each.id for each in answers)])


# --- finding ----------------------------------------------------------------------------------------------------


@router.post("/recall", tags=["finding"], responses=problems(404), response_model=schemas.HitsFound)
def recall(asked: schemas.RecallAsked, memory: Memory) -> Response:
    """Find what matters for a question, best first, each hit with the reasons."""
    given = asked.model_dump(exclude_none=True)
    hits = memory.recall(given.pop("query"), given.pop("k"), **given)
    return _found(memory, hits)


@router.post("/similar", tags=["finding"], responses=problems(404), response_model=schemas.HitsFound)
def similar(asked: schemas.SimilarWanted, memory: Memory) -> Response:
    """Find the texts nearest in meaning to a text or a vector, best first, by their cosine."""
    given = asked.model_dump(exclude_none=True)
    text, vector = given.pop("text", None), given.pop("vector", None)
    if (text is None) == (vector is None):
        raise Problem(422, "Either text or vector is asked for.", code="InvalidInput")
    kinds = given.pop("kinds", PROMPT) or None
    return _found(memory, memory.similar(text if vector is None else vector, given.pop("k"), kinds=kinds, **given))


@router.post("/matching", tags=["finding"], responses=problems(404), response_model=schemas.HitsFound)
def matching(asked: schemas.MatchingWanted, memory: Memory) -> Response:
    """Find the texts that hold any of some words, or every one, best first, by BM25."""
    given = asked.model_dump(exclude_none=True)
    return _found(memory, memory.matching(given.pop("words"), given.pop("k"), **given))


def _found(memory: MemoryGraph, hits: Hits) -> Response:
    skipped = {leg: public(reason, memory) for leg, reason in hits.skipped.items()}
    return answer({"hits": [_hit(hit) for hit in hits], "legs": list(hits.legs), "skipped": skipped})


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "node": hit.node.to_dict(),
        "score": hit.score,
        "similarity": hit.similarity,
        "coverage": hit.coverage,
        "speaker": hit.speaker,
        "session": hit.session,
        "citation": hit.citation,
        "why": hit.why.to_dict(),
        "duplicates": list(hit.duplicates),
        "place": None if hit.place is None else hit.place.to_dict(),
    }


@router.post("/context", tags=["finding"], responses=problems(404), response_model=schemas.ContextFound)
def context(asked: schemas.ContextAsked, memory: Memory) -> Response:
    """Return what matters for a question as text for a prompt, cited and marked as data."""
    given = asked.model_dump(exclude_none=True)
    made = memory.context(given.pop("query"), given.pop("budget"), **given)
    found = made.to_dict()
    for piece, shown in zip(made.pieces, found["pieces"], strict=True):
        shown["kind"] = piece.node.kind
    found["skipped"] = {leg: public(reason, memory) for leg, reason in found["skipped"].items()}
    return answer(found)


# --- reading ----------------------------------------------------------------------------------------------------


@router.get("/nodes", tags=["reading"], responses=problems(404), response_model=schemas.Nodes)
def nodes(
    memory: Memory,
    kind: Annotated[list[str] | None, Query(description="One or several kinds of nodes.")] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """Return nodes, the first written first, a page at a time."""
    found, following = _page(memory.nodes(kind, limit=limit + 1, after=after), limit)
    return answer({"nodes": found, "next": following})


@router.get("/nodes/{node_id:anything}", tags=["reading"], responses=problems(404), response_model=schemas.Shown)
def node(node_id: Id, memory: Memory) -> Response:
    """Return one node of any kind."""
    return answer(memory.get(node_id).to_dict())


@router.get("/sessions", tags=["reading"], responses=problems(404), response_model=schemas.Sessions)
def sessions(memory: Memory, after: After = None, limit: Limit = 100) -> Response:
    """Return the sessions, a page at a time."""
    found, following = _page(memory.nodes(SESSION, limit=limit + 1, after=after), limit)
    return answer({"sessions": found, "next": following})


@router.get("/sessions/{node_id:anything}", tags=["reading"], responses=problems(404), response_model=schemas.Session)
def session(node_id: Id, memory: Memory, after: After = None, limit: Limit = 100) -> Response:
    """Return what was said in a session, in order, a page at a time."""
    if after is not None and not _is_in(memory, after, node_id):
        raise NodeNotFound(f"{after!r} is not in the session {node_id!r}.")
    found, following = _page(memory.nodes(session=node_id, limit=limit + 1, after=after), limit)
    return answer({"id": node_id, "messages": found, "next": following})


def _is_in(memory: MemoryGraph, node_id: str, session: str) -> bool:
    """Tell whether something was said in a session; what was answered there has no edge of its own to it."""
    asked = [link.source for link in memory.links([node_id], RESPONDED_WITH, "in")]
    return any(link.target == session for link in memory.links([node_id, *asked], BELONGS_TO, "out"))


@router.get("/graph/neighbours", tags=["reading"], responses=problems(404), response_model=schemas.Neighbours)
def neighbours(
    memory: Memory,
    node_id: Annotated[str, Query(alias="id", min_length=1, max_length=_LONGEST)],
    relation: Annotated[str | None, Query(min_length=1, max_length=512)] = None,
    direction: Literal["out", "in", "both"] = "both",
) -> Response:
    """Return the nodes beside a node, and the edges between."""
    with memory.snapshot():
        links = memory.links(node_id, relation, direction)
        found = memory.neighbours(node_id, relation, direction)
    return answer({"nodes": [each.to_dict() for each in found], "edges": [_edge(link) for link in links]})


@router.get(
    "/export",
    tags=["reading"],
    responses={
        200: {"content": {"application/x-ndjson": {}}, "description": "One JSON object a line: nodes and edges."},
        304: {"description": "It is what it was."},
        **problems(404),
    },
    response_class=StreamingResponse,
)
def export(
    request: Request,
    memory: Memory,
    after: After = None,
    limit: Annotated[int | None, Query(ge=1, description="At most so many nodes; all if left out.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return nodes, the first written first, each page followed by the edges that leave its nodes.

    A line is `{"node": {…}}` or `{"edge": {…}}`. Whoever writes meanwhile is not kept waiting, so that what is written
    during the export may be in it.
    """
    headers = {}
    if after is None and limit is None:
        tags: Tags = request.app.state.tags
        if (tag := tags.known(memory)) is None:
            tag = tags.seen(memory, memory.version, (node.expires_at for node in memory.nodes()))
        headers["ETag"] = tag
        if not_modified(if_none_match, tag):
            return Response(status_code=304, headers=headers)
    found = memory.nodes(limit=limit, after=after)
    first = list(islice(found, _PAGE))  # before the answer begins, since there may be no such id
    return StreamingResponse(_lines(memory, first, found), media_type="application/x-ndjson", headers=headers)


def _lines(memory: MemoryGraph, page: list[Node], found: Iterator[Node]) -> Iterator[bytes]:
    while page:
        lines = [{"node": each.to_dict()} for each in page]
        lines += [{"edge": _edge(link)} for link in memory.links([each.id for each in page], None, "out")]
        yield "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        page = list(islice(found, _PAGE))


@router.get("/stats", tags=["reading"], responses=problems(), response_model=dict[str, Any])
def stats(memory: Memory) -> Response:
    """Return what the memory holds, in numbers."""
    found = memory.stats().to_dict()
    del found["path"]
    return answer(found)


def _edge(link: Link) -> dict[str, Any]:
    return {"source": link.source, "target": link.target, "relation": link.relation, "data": dict(link.data)}


def _page(found: Iterable[Node], limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Return the first *limit* nodes, and the id to go on after if there are more."""
    page = list(found)
    return [each.to_dict() for each in page[:limit]], page[limit - 1].id if len(page) > limit else None
