"""Health, what runs, events, jobs, and letting others in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from .... import __version__
from ....web import Problem
from ..credentials import ALL
from ..rules import needs, principal_of
from ._shared import Asked, Entrance, Here, OwnRoute, errors

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", route_class=OwnRoute)

Scope = Literal["read", "write", "models", "admin"]


@router.get("/health", tags=["system"], responses=errors())
async def health() -> dict[str, str]:
    """Tell that the hub answers, and nothing else."""
    return {"status": "ok"}


@router.get("/info", tags=["system"], responses=errors(), dependencies=[needs("read")])
def info(hub: Here, request: Request) -> dict[str, Any]:
    """Say what runs here, and what whoever asks may do."""
    running = hub.models.running()
    stats = hub.memory.stats()
    return {
        "version": __version__,
        "embedder": stats.embedder,
        "nodes": stats.nodes,
        "projects": len(hub.projects.list()),
        "model": None if running is None else running.name,
        "upstream": hub.models.url is not None,
        "scopes": sorted(principal_of(request).scopes),
        "chats": {
            "recorded": hub.remembering.recorded,
            "failed": hub.remembering.failed,
            "memory_budget": hub.remembering.budget,
        },
        "plugins": hub.plugins.to_list(),
    }


# --- events and jobs --------------------------------------------------------------------------------------------


@router.get(
    "/events",
    tags=["system"],
    dependencies=[needs("read")],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events as they come."}, **errors()},
)
async def events(hub: Here, last_event_id: Annotated[str | None, Header(max_length=20)] = None) -> Response:
    """Stream what happens: `job` and `model`, each with its state. Last-Event-ID brings what was missed."""
    given = last_event_id or ""
    after = int(given) if given.isascii() and given.isdecimal() else None
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(hub.events.stream(after), media_type="text/event-stream", headers=headers)


@router.get("/jobs", tags=["system"], dependencies=[needs("read")], responses=errors())
def jobs(hub: Here) -> dict[str, Any]:
    """Return the jobs that are under way or ended of late, the oldest first."""
    return {"jobs": [job.to_dict() for job in hub.jobs.list()]}


@router.get("/jobs/{job_id}", tags=["system"], dependencies=[needs("read")], responses=errors(404))
def job(job_id: str, hub: Here) -> dict[str, Any]:
    """Return a job."""
    return hub.jobs.get(job_id).to_dict()


@router.delete("/jobs/{job_id}", tags=["system"], dependencies=[needs("write")], responses=errors(404))
def cancel(job_id: str, hub: Here) -> dict[str, Any]:
    """Let a job end as soon as it can; what it has done stays."""
    return hub.jobs.cancel(job_id).to_dict()


# --- letting others in ------------------------------------------------------------------------------------------


class Pairing(Asked):
    """A code, and what the token is to be called."""

    code: str = Field(min_length=1, max_length=200)
    name: str = Field(min_length=1, max_length=100)


class CodeWanted(Asked):
    """What a code is to be good for."""

    scopes: list[Scope] = Field(default=["read", "write"], min_length=1)
    minutes: float = Field(10.0, gt=0, le=1440)


@router.post("/pair", tags=["pairing"], status_code=201, responses=errors())
def pair(asked: Pairing, access: Entrance, request: Request) -> dict[str, Any]:
    """Turn a code into a token; an extension's is good from this extension alone. The token is shown this once."""
    origins = [each.lower() for each in request.headers.getlist("origin")]
    origin = access.check_pairing(origins, f"http://{request.headers['host'].lower()}")
    found = access.redeem(asked.code, asked.name, origin=origin)
    if found is None:
        raise Problem(403, "This code is not good, or not any more. Have the hub make another one.", code="code")
    secret, made = found
    return {"token": secret, **made.to_dict()}


@router.post("/pair/codes", tags=["pairing"], status_code=201, responses=errors(), dependencies=[needs("admin")])
def new_code(asked: CodeWanted, access: Entrance) -> dict[str, Any]:
    """Make a code with which an extension or a program may pair."""
    code = access.credentials.new_code(ALL & set(asked.scopes), asked.minutes)
    return {"code": code, "scopes": sorted(set(asked.scopes)), "minutes": asked.minutes}


@router.get("/access", tags=["pairing"], responses=errors(), dependencies=[needs("admin")])
def access_rules(access: Entrance, request: Request) -> dict[str, Any]:
    """Say who gets in without a token, and which token or cookie asks: `credential` is its id."""
    return {
        "trusted": sorted(access.trusted),
        "legacy_open": access.legacy_open,
        "fixed": access.fixed is not None,
        "credential": principal_of(request).id,
    }


@router.get("/tokens", tags=["pairing"], responses=errors(), dependencies=[needs("admin")])
def tokens(access: Entrance) -> dict[str, Any]:
    """Return who was let in, without their tokens."""
    return {"tokens": [each.to_dict() for each in access.credentials.list()]}


@router.delete("/tokens/{token_id}", tags=["pairing"], responses=errors(404), dependencies=[needs("admin")])
def revoke(token_id: str, access: Entrance) -> dict[str, str]:
    """Take a token or a browser's cookie back."""
    if not access.credentials.revoke(token_id):
        raise Problem(404, "There is no token with that id.")
    return {"status": "ok"}
