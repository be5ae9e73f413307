"""`/files`: what `/api/v1/list_project_files` names, for whoever was let in, and never to be run by a browser."""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from ...api.answers import problems
from ...web import Problem
from .hub import Hub
from .rules import needs

__all__ = ["router"]

router = APIRouter()

_CHUNK = 1 << 18  # bytes


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


@router.get(
    "/files/{path:path}",
    tags=["documents"],
    dependencies=[needs("read")],
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The file, of whatever type it is."},
        **problems(404),
    },
)
def file(path: str, hub: Annotated[Hub, Depends(_hub)]) -> Any:
    """Return a file of a project, by the path under which the project lists it."""
    name = path.partition("/")[0]
    for project in hub.projects.list():
        if hub.projects.shown_name(project) == name:
            real = hub.projects.list_files(project.id).get(path)
            if real is not None:
                return _sent(real)
    raise Problem(404, "No project has such a file.")


def _sent(path: str) -> Response:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        # A folder on the way may have become a link since it was looked through.
        if os.path.realpath(path) != path:
            raise OSError
        opened = open(os.open(path, flags), "rb")  # noqa: SIM115 - closed when all is sent
    except OSError:
        raise Problem(404, "The file is gone, or may not be read.") from None
    about = os.fstat(opened.fileno())
    if not stat.S_ISREG(about.st_mode):
        opened.close()
        raise Problem(404, "That is no file any more.")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(os.fsencode(os.path.basename(path)), safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Length": str(about.st_size),
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return StreamingResponse(_pieces(opened, about.st_size), media_type=kind, headers=headers)


def _pieces(opened: BinaryIO, left: int) -> Iterator[bytes]:
    with opened:
        while left > 0 and (piece := opened.read(min(_CHUNK, left))):
            left -= len(piece)
            yield piece
