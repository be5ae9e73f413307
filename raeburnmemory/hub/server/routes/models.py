"""Local models: which there are, fetching, checking, starting and stopping them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from ....web import Problem
from ...models.spec import ModelSpec
from ..hub import DOWNLOAD, VERIFY
from ..rules import needs
from ._shared import Asked, Here, OwnRoute, errors

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/models", route_class=OwnRoute, tags=["models"])

Name = Annotated[str, Path(min_length=1, max_length=200)]


class ModelWanted(Asked):
    """A model to be known from now on."""

    name: str = Field(min_length=1, max_length=200)
    filename: str = Field(min_length=1, max_length=200)
    url: str = Field(min_length=1, max_length=2000)
    sha256: str | None = Field(None, max_length=64)
    size: int | None = Field(None, ge=1)
    kind: Literal["chat", "embedding"] = "chat"
    format: Literal["llamafile", "gguf"] = "llamafile"
    title: str | None = Field(None, max_length=200)
    license: str | None = Field(None, max_length=200)


class StartWanted(Asked):
    """How a model is to be started."""

    ctx: int | None = Field(None, ge=64, le=10_000_000, description="Tokens of its context.")
    threads: int | None = Field(None, ge=1, le=1024)
    gpu: Literal["auto", "nvidia", "amd", "apple", "vulkan", "disable"] = "auto"
    ngl: int | None = Field(None, ge=0, le=10_000, description="Layers that go to the GPU.")


def _shown(hub: Any, name: str) -> dict[str, Any]:
    spec, shown = hub.models.manager.spec(name), hub.models.shown(name)
    told = shown.status.to_dict()
    return {**spec.to_dict(), "state": shown.state, "message": shown.message, "status": told}


@router.get("", dependencies=[needs("read")], responses=errors())
def models(hub: Here) -> dict[str, Any]:
    """Return the models that are known, and how it stands with them."""
    running = hub.models.running()
    return {
        "models": [_shown(hub, spec.name) for spec in hub.models.specs()],
        "running": None if running is None else running.name,
    }


@router.post("", status_code=201, dependencies=[needs("admin")], responses=errors(409))
def add(asked: ModelWanted, hub: Here) -> dict[str, Any]:
    """Add a model to the catalogue of this machine; it is a program, so whoever may is to be trusted."""
    hub.models.manager.add(ModelSpec(**asked.model_dump()))
    return _shown(hub, asked.name)


@router.get("/{name}", dependencies=[needs("read")], responses=errors(404))
def model(name: Name, hub: Here) -> dict[str, Any]:
    """Return a model."""
    return _shown(hub, name)


@router.get("/{name}/plan", dependencies=[needs("models")], responses=errors(404, 409, 502, 504))
def plan(name: Name, hub: Here) -> dict[str, Any]:
    """Say what a download would take, and what speaks against running the model here."""
    return hub.models.manager.plan(name).to_dict()


@router.post("/{name}/download", status_code=202, dependencies=[needs("models")], responses=errors(404, 409, 502, 504))
def download(name: Name, hub: Here) -> dict[str, Any]:
    """Begin to fetch a model; the answer is the job."""
    return hub.download(name).to_dict()


@router.delete("/{name}/download", dependencies=[needs("models")], responses=errors(404, 409, 502, 504))
def pause(name: Name, hub: Here) -> dict[str, Any]:
    """Let a download rest; the next one goes on with what is here."""
    job = hub.jobs.current(DOWNLOAD, {"model": name})
    if job is None:
        raise Problem(409, "It is not being fetched.", code="not_under_way")
    hub.jobs.cancel(job.id)
    job.wait(10.0)
    return job.to_dict()


@router.post("/{name}/verify", status_code=202, dependencies=[needs("models")], responses=errors(404, 409, 502, 504))
def verify(name: Name, hub: Here) -> dict[str, Any]:
    """Begin to read the whole file of a model and compare it with its digest; the answer is the job."""
    hub.models.manager.spec(name)
    return hub.jobs.begin(VERIFY, {"model": name}).to_dict()


@router.post("/{name}/start", dependencies=[needs("models")], responses=errors(404, 409, 502, 504))
def start(name: Name, hub: Here, asked: StartWanted | None = None) -> dict[str, Any]:
    """Begin to start a model; chat models that run are stopped."""
    hub.models.start(name, **({} if asked is None else asked.model_dump()))
    return _shown(hub, name)


@router.post("/{name}/stop", dependencies=[needs("models")], responses=errors(404, 409))
def stop(name: Name, hub: Here) -> dict[str, Any]:
    """Stop a model."""
    hub.models.stop(name)
    return _shown(hub, name)


@router.delete("/{name}", dependencies=[needs("models")], responses=errors(404, 409, 502, 504))
def remove(name: Name, hub: Here) -> dict[str, Any]:
    """Delete the file of a model; it is stopped before. A model that only its file told of is unknown from then on."""
    removed = hub.models.remove(name)
    return {"name": name, "state": "absent", "removed": removed}


@router.get("/{name}/logs", dependencies=[needs("read")], responses=errors(404))
def logs(name: Name, hub: Here, n: Annotated[int, Query(ge=1, le=2000)] = 200) -> dict[str, Any]:
    """Return the last lines that a model printed."""
    return {"lines": hub.models.manager.logs(name, n)}
