"""The routes below `/v1`."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from ..errors import NodeNotFound
from ..hits import Hits
from ..memory_graph import MemoryGraph
from ..nodes import BELONGS_TO, GENERATED_BY, PROMPT, RESPONDED_WITH, RESPONSE, SESSION, Link, Node
from ..web import Problem
from . import schemas
from .answers import etag, not_modified, problems, public
from .scope import scoped
from .strict import StrictRoute

__all__ = ["router"]

router = APIRouter(prefix="/v1", route_class=StrictRoute)
Memory = Annotated[MemoryGraph, Depends(scoped)]
Id = Annotated[str, Path(min_length=1, max_length=512)]
After = Annotated[str | None, Query(max_length=512, description="Go on after this id.")]
Limit = Annotated[int, Query(ge=1, le=schemas.MOST)]

_PAGE = 500  # nodes of an export that are read at once
_EMPTY_IS_LEFT_OUT = {"exclude_none": True}
_AS_SET: Any = {"response_model_exclude_unset": True}  # a node without a text says nothing of a text


# --- interactions -----------------------------------------------------------------------------------------------


@router.post("/interactions", status_code=201, tags=["interactions"], responses=problems(409))
def add(
    asked: schemas.Interaction | schemas.Interactions,
    memory: Memory,
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> schemas.RecordedAll:
    """Record one interaction, or many in one transaction.

    Sent again with the same Idempotency-Key, they are recorded once, by whatever process and after whatever crash: ids
    that were left out follow from the key. The answer then has the status 200. A key that was used for other texts is
    refused.
    """
    several = [one.model_dump(**_EMPTY_IS_LEFT_OUT) for one in (asked if isinstance(asked, list) else [asked])]
    if idempotency_key is not None:
        several = [_named(one, f"{idempotency_key}\n{number}") for number, one in enumerate(several)]
        if (known := _known(memory, several)) is not None:
            response.status_code = 200
            return known
    recorded = memory.add_many(several)
    return schemas.RecordedAll(
        recorded=[
            schemas.Recorded(prompt=one.prompt, response=one.response, agent=one.agent, session=one.session)
            for one in recorded
        ]
    )


def _named(one: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an interaction with ids for what has none, which follow from *key*."""
    named = dict(one)
    for what in ("prompt", "response"):
        if (said := named.get(what)) is not None:
            said = {"text": said} if isinstance(said, str) else dict(said)
            digest = hashlib.sha256(f"{what}\n{key}".encode()).digest()
            said.setdefault("id", str(uuid.UUID(bytes=digest[:16], version=5)))
            named[what] = said
    return named


def _known(memory: MemoryGraph, several: list[dict[str, Any]]) -> schemas.RecordedAll | None:
    """Return what is answered where all of this was recorded before; None if none of it was."""
    said = [part for one in several for what in ("prompt", "response") if (part := one.get(what)) is not None]
    found = {node.id: node for node in memory.get_many([part["id"] for part in said])}
    if not found:
        return None
    if any(part["id"] not in found or found[part["id"]].text != part["text"] for part in said):
        raise Problem(422, "That Idempotency-Key was used for other texts. Use a new one.", code="KeyReused")
    return schemas.RecordedAll(
        recorded=[
            schemas.Recorded(
                prompt=one["prompt"]["id"],
                response=one["response"]["id"] if "response" in one else None,
                agent=agent if isinstance(agent := one.get("agent"), str) or agent is None else agent["id"],
                session=one.get("session_id"),
            )
            for one in several
        ]
    )


@router.get("/interactions/{node_id:path}", tags=["interactions"], responses=problems(404), **_AS_SET)
def interaction(node_id: Id, memory: Memory) -> schemas.Exchange:
    """Return the exchange that a prompt or a response belongs to."""
    prompt, responses, links = _exchange(memory, node_id)
    answers = {node.id for node in responses}
    agents = dict.fromkeys(link.target for link in links if link.relation == GENERATED_BY and link.source in answers)
    sessions = [link.target for link in links if link.relation == BELONGS_TO]
    return schemas.Exchange(
        prompt=None if prompt is None else _shown(prompt),
        responses=[_shown(node) for node in responses],
        agents=[_shown(node) for node in memory.get_many(list(agents))],
        session=sessions[0] if sessions else None,
    )


@router.delete("/interactions/{node_id:path}", tags=["interactions"], responses=problems(404))
def forget(
    node_id: Id,
    memory: Memory,
    secure: Annotated[bool, Query(description="Also from every older copy beside the memory.")] = False,
) -> schemas.Forgotten:
    """Forget the exchange that a prompt or a response belongs to."""
    prompt, responses, _ = _exchange(memory, node_id)
    gone = memory.forget([node.id for node in (prompt, *responses) if node is not None], secure=secure)
    return schemas.Forgotten(ids=list(gone.ids))


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


@router.post("/recall", tags=["finding"], responses=problems(404), **_AS_SET)
def recall(asked: schemas.RecallAsked, memory: Memory) -> schemas.HitsFound:
    """Find what matters for a question, best first, each hit with the reasons."""
    given = asked.model_dump(**_EMPTY_IS_LEFT_OUT)
    hits = memory.recall(given.pop("query"), given.pop("k"), **given)
    return _found(memory, hits)


@router.post("/similar", tags=["finding"], responses=problems(404), **_AS_SET)
def similar(asked: schemas.SimilarWanted, memory: Memory) -> schemas.HitsFound:
    """Find the texts nearest in meaning to a text or a vector, best first, by their cosine."""
    given = asked.model_dump(**_EMPTY_IS_LEFT_OUT)
    text, vector = given.pop("text", None), given.pop("vector", None)
    if (text is None) == (vector is None):
        raise Problem(422, "Either text or vector is asked for.", code="InvalidInput")
    kinds = given.pop("kinds", PROMPT) or None
    return _found(memory, memory.similar(text if vector is None else vector, given.pop("k"), kinds=kinds, **given))


def _found(memory: MemoryGraph, hits: Hits) -> schemas.HitsFound:
    return schemas.HitsFound(
        hits=[
            schemas.HitFound.model_construct(
                node=_shown(hit.node),
                score=hit.score,
                similarity=hit.similarity,
                coverage=hit.coverage,
                speaker=hit.speaker,
                session=hit.session,
                citation=hit.citation,
                why=hit.why.to_dict(),
                duplicates=list(hit.duplicates),
            )
            for hit in hits
        ],
        legs=list(hits.legs),
        skipped={leg: public(reason, memory) for leg, reason in hits.skipped.items()},
    )


@router.post("/context", tags=["finding"], responses=problems(404))
def context(asked: schemas.ContextAsked, memory: Memory) -> schemas.ContextFound:
    """Return what matters for a question as text for a prompt, cited and marked as data."""
    given = asked.model_dump(**_EMPTY_IS_LEFT_OUT)
    found = memory.context(given.pop("query"), given.pop("budget"), **given).to_dict()
    found["skipped"] = {leg: public(reason, memory) for leg, reason in found["skipped"].items()}
    return schemas.ContextFound(**found)


# --- reading ----------------------------------------------------------------------------------------------------


@router.get("/nodes", tags=["reading"], responses=problems(404), **_AS_SET)
def nodes(
    memory: Memory,
    kind: Annotated[list[str] | None, Query(description="One or several kinds of nodes.")] = None,
    after: After = None,
    limit: Limit = 100,
) -> schemas.Nodes:
    """Return nodes, the first written first, a page at a time."""
    found, following = _page(memory.nodes(kind, limit=limit + 1, after=after), limit)
    return schemas.Nodes(nodes=found, next=following)


@router.get("/nodes/{node_id:path}", tags=["reading"], responses=problems(404), **_AS_SET)
def node(node_id: Id, memory: Memory) -> schemas.Shown:
    """Return one node of any kind."""
    return _shown(memory.get(node_id))


@router.get("/sessions", tags=["reading"], responses=problems(404), **_AS_SET)
def sessions(memory: Memory, after: After = None, limit: Limit = 100) -> schemas.Sessions:
    """Return the sessions, a page at a time."""
    found, following = _page(memory.nodes(SESSION, limit=limit + 1, after=after), limit)
    return schemas.Sessions(sessions=found, next=following)


@router.get("/sessions/{node_id:path}", tags=["reading"], responses=problems(404), **_AS_SET)
def session(node_id: Id, memory: Memory, after: After = None, limit: Limit = 100) -> schemas.Session:
    """Return what was said in a session, in order, a page at a time."""
    said = memory.thread(node_id)
    places = {each.id: number for number, each in enumerate(said)}
    if after is not None and after not in places:
        raise NodeNotFound(f"{after!r} is not in the session {node_id!r}.")
    begin = 0 if after is None else places[after] + 1
    found, following = _page(iter(said[begin : begin + limit + 1]), limit)
    return schemas.Session(id=node_id, messages=found, next=following)


@router.get("/graph/neighbours", tags=["reading"], responses=problems(404), **_AS_SET)
def neighbours(
    memory: Memory,
    node_id: Annotated[str, Query(alias="id", min_length=1, max_length=512)],
    relation: Annotated[str | None, Query(min_length=1, max_length=512)] = None,
    direction: Literal["out", "in", "both"] = "both",
) -> schemas.Neighbours:
    """Return the nodes beside a node, and the edges between."""
    with memory.snapshot():
        links = memory.links(node_id, relation, direction)
        found = memory.neighbours(node_id, relation, direction)
    return schemas.Neighbours(nodes=[_shown(each) for each in found], edges=[_edge(link) for link in links])


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
    memory: Memory,
    after: After = None,
    limit: Annotated[int | None, Query(ge=1, description="At most so many nodes; all if left out.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return nodes, the first written first, each page followed by the edges that leave its nodes.

    A line is `{"node": {…}}` or `{"edge": {…}}`. Whoever writes meanwhile is not kept waiting, so that what is written
    during the export may be in it.
    """
    tag = etag(memory)
    if not_modified(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    first = memory.nodes(limit=limit, after=after)  # finds out about the id before the answer begins
    return StreamingResponse(_lines(memory, first), media_type="application/x-ndjson", headers={"ETag": tag})


def _lines(memory: MemoryGraph, found: Iterator[Node]) -> Iterator[bytes]:
    while page := list(islice(found, _PAGE)):
        lines = [{"node": each.to_dict()} for each in page]
        lines += [{"edge": _edge(link).model_dump()} for link in memory.links([each.id for each in page], None, "out")]
        yield "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


@router.get("/stats", tags=["reading"], responses=problems())
def stats(memory: Memory) -> dict[str, Any]:
    """Return what the memory holds, in numbers."""
    found = memory.stats().to_dict()
    del found["path"]
    return found


def _shown(found: Node) -> schemas.Shown:
    return schemas.Shown.model_construct(**found.to_dict())


def _edge(link: Link) -> schemas.Edge:
    return schemas.Edge.model_construct(
        source=link.source, target=link.target, relation=link.relation, data=dict(link.data)
    )


def _page(found: Iterator[Node], limit: int) -> tuple[Sequence[schemas.Shown], str | None]:
    """Return the first *limit* nodes, and the id to go on after if there are more."""
    page = list(found)
    return [_shown(each) for each in page[:limit]], page[limit - 1].id if len(page) > limit else None
