"""Answers that are being made in threads: reading along, also from the beginning, and stopping them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from ...errors import NotThere
from ..answering import LiveAnswer
from ..hub import Hub
from ..rules import needs
from ._shared import MOST, Here, OwnRoute, errors

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/threads/{thread_id}/answer", route_class=OwnRoute, tags=["chat"])

Number = Annotated[int, Path(ge=0, le=MOST)]


@router.get(
    "",
    dependencies=[needs("read")],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Its events."}, **errors(404)},
)
async def read(thread_id: Number, hub: Here) -> Response:
    """Stream the answer that is being made in a thread, from its beginning: for a page that was opened again."""
    answer = _current(hub, thread_id)
    return StreamingResponse(answer.read(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.delete("", dependencies=[needs("write")], responses=errors(404))
async def stop(thread_id: Number, hub: Here) -> dict[str, str]:
    """Stop the answer that is being made in a thread; what was said of it is kept."""
    _current(hub, thread_id).stop()
    return {"status": "ok"}


def _current(hub: Hub, thread_id: int) -> LiveAnswer:
    found = hub.answers.current(thread_id)
    if found is None:
        raise NotThere(f"No answer is being made in thread {thread_id}.", remedy="Read the thread: it may be there.")
    return found
