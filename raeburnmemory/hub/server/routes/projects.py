"""Projects, their directories and files, and the documents that were taken in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from ....errors import NodeNotFound
from ...errors import NotThere
from ...ingestor import Ingestor
from ..hub import Hub
from ..rules import needs
from ._shared import MOST, Asked, Here, OwnRoute, errors

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", route_class=OwnRoute, tags=["own projects"])

Number = Annotated[int, Path(ge=0, le=MOST)]


class ProjectWanted(Asked):
    """What a project is to be called."""

    name: str = Field("", max_length=200)


class DirectoryWanted(Asked):
    """A directory of this machine, by its absolute path."""

    path: str = Field(min_length=1, max_length=4000)


@router.get("/projects", dependencies=[needs("read")], responses=errors())
def projects(hub: Here) -> dict[str, Any]:
    """Return the projects, the oldest first."""
    return {"projects": [one.to_dict() for one in hub.projects.list()]}


@router.post("/projects", status_code=201, dependencies=[needs("write")], responses=errors())
def make_project(asked: ProjectWanted, hub: Here) -> dict[str, Any]:
    """Make a project."""
    return hub.projects.create(asked.name).to_dict()


@router.get("/projects/{project_id}", dependencies=[needs("read")], responses=errors(404))
def project(project_id: Number, hub: Here) -> dict[str, Any]:
    """Return a project with its directories, and how many documents of it there are, by their status."""
    found = hub.projects.get(project_id)
    counts: dict[str, int] = {}
    for one in hub.projects.ingestor(project_id).list():
        counts[one.status] = counts.get(one.status, 0) + 1
    job = hub.ingesting(project_id)
    return {
        **found.to_dict(),
        "directories": [one.to_dict() for one in hub.projects.directories(project_id)],
        "documents": counts,
        "job": None if job is None else job.to_dict(),
    }


@router.patch("/projects/{project_id}", dependencies=[needs("write")], responses=errors(404))
def rename_project(project_id: Number, asked: ProjectWanted, hub: Here) -> dict[str, Any]:
    """Give a project another name."""
    return hub.projects.rename(project_id, asked.name).to_dict()


@router.delete("/projects/{project_id}", dependencies=[needs("write")], responses=errors(404))
def remove_project(
    project_id: Number, hub: Here, files: Annotated[bool, Query(description="Its uploads and summaries, too.")] = False
) -> dict[str, str]:
    """Remove a project: its documents leave the memory."""
    hub.remove_project(project_id, files=files)
    return {"status": "ok"}


@router.get("/projects/{project_id}/directories", dependencies=[needs("read")], responses=errors(404))
def directories(project_id: Number, hub: Here) -> dict[str, Any]:
    """Return the directories of a project."""
    return {"directories": [one.to_dict() for one in hub.projects.directories(project_id)]}


@router.post(
    "/projects/{project_id}/directories", status_code=201, dependencies=[needs("admin")], responses=errors(404)
)
def add_directory(project_id: Number, asked: DirectoryWanted, hub: Here) -> dict[str, Any]:
    """Let the files of a directory belong to a project."""
    return hub.projects.add_directory(project_id, asked.path).to_dict()


@router.delete("/directories/{directory_id}", dependencies=[needs("write")], responses=errors(404))
def remove_directory(directory_id: Number, hub: Here) -> dict[str, Any]:
    """Let a directory belong to its project no more: documents from it leave the memory, files stay."""
    return hub.projects.remove_directory(directory_id).to_dict()


@router.get("/projects/{project_id}/files", dependencies=[needs("read")], responses=errors(404))
def files(project_id: Number, hub: Here) -> dict[str, Any]:
    """Return the files of a project as they were at the last sync; `/files/` before each leads to it."""
    return {"files": list(hub.projects.list_files(project_id))}


@router.post("/projects/{project_id}/sync", status_code=202, dependencies=[needs("write")], responses=errors(404, 409))
def sync(
    project_id: Number, hub: Here, force: Annotated[bool, Query(description="Read everything again.")] = False
) -> dict[str, Any]:
    """Look through the directories of a project, and begin to take in what changed; the answer is the job."""
    hub.projects.sync_files(project_id)
    return hub.ingest(project_id, force=force).to_dict()


# --- documents --------------------------------------------------------------------------------------------------


@router.get("/projects/{project_id}/sources", dependencies=[needs("read")], responses=errors(404))
def sources(
    project_id: Number,
    hub: Here,
    status: Annotated[str | None, Query(max_length=20, description="ok, empty or failed.")] = None,
) -> dict[str, Any]:
    """Return the documents of a project, each with what became of it."""
    return {"sources": [one.to_dict() for one in hub.projects.ingestor(project_id).list(status)]}


@router.get("/sources/{source_id:path}/content", dependencies=[needs("read")], responses=errors(404))
def content(source_id: str, hub: Here) -> dict[str, Any]:
    """Return the text of a document as it was read; citations point into it."""
    ingestor = _ingestor(hub, source_id)
    return {"id": source_id, "text": ingestor.text(source_id)}


@router.get("/sources/{source_id:path}", dependencies=[needs("read")], responses=errors(404))
def source(source_id: str, hub: Here) -> dict[str, Any]:
    """Return what is known of a document."""
    return _ingestor(hub, source_id).get(source_id).to_dict()


@router.delete("/sources/{source_id:path}", dependencies=[needs("write")], responses=errors(404))
def remove_source(source_id: str, hub: Here) -> dict[str, int]:
    """Remove a document with its fragments; its file is not touched."""
    return {"fragments": _ingestor(hub, source_id).remove(source_id)}


def _ingestor(hub: Hub, source_id: str) -> Ingestor:
    """Return what takes documents into the collection that a document is in; its id names that."""
    try:
        node = hub.memory.get(source_id)
    except NodeNotFound:
        raise NotThere(f"There is no document {source_id!r}.") from None
    collection = node.attributes.get("collection")
    if node.kind != "document" or not isinstance(collection, str):
        raise NotThere(f"There is no document {source_id!r}.")
    return Ingestor(hub.memory, collection=collection)
