"""The 23 calls of the Memory Cache hub, shape for shape, so that its clients work as they are.

Names of functions, tags and schemas are those that clients generate their code from. Calls that do something answer
`{"status": "error", "message": …}` with 200 where they cannot; those that answer a list or an entity answer 404.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, File, Form, HTTPException, Query, Request, UploadFile
from pydantic import BaseModel

from ...errors import InvalidInput, MemoryGraphError
from ..errors import LlamafileError, NotThere
from ..models.errors import UnknownModel
from .hub import Hub
from .model_control import listed
from .routes._shared import patiently
from .rules import needs

__all__ = ["router"]

router = APIRouter(prefix="/api/v1")
log = logging.getLogger("raeburnmemory.hub")

_MOST = 2**53  # what a client's numbers can hold
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is none of that number."}}

F = TypeVar("F", bound=Callable[..., Any])


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


Here = Annotated[Hub, Depends(_hub)]
ProjectId = Annotated[int, Query(ge=0, le=_MOST)]
Filename = Annotated[str, Query(max_length=500)]


class Project(BaseModel):
    """A project."""

    id: int
    name: str
    is_removed: bool


class ProjectDirectory(BaseModel):
    """A directory of a project."""

    id: int
    path: str
    project_id: int
    is_removed: bool


class ListProjectsResponse(BaseModel):
    """Projects."""

    projects: list[Project]


class RagAskRequest(BaseModel):
    """A question about the documents of a project."""

    project_id: int
    prompt: str


class SummarizeFileRequest(BaseModel):
    """A file of a project; its path is relative to the uploads."""

    project_id: int
    file_path: str


class Fragment(BaseModel):
    """A part of a file, and the squared distance between its vector and that of the question."""

    file_path: str
    file_content: str
    distance: float


class Llamafile(BaseModel):
    """A model that can be had."""

    model: str
    size: str
    license: str
    license_url: str
    filename: str
    url: str


class LlamafileStatus(BaseModel):
    """How it stands with a model."""

    status: str
    message: str
    progress: int
    content_length: int
    written: int


def _error(exc: Exception) -> dict[str, Any]:
    return {"status": "error", "message": str(exc)}


def _shaped(function: F) -> F:
    """Let a call that does something answer errors as the original did."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (MemoryGraphError, OSError) as exc:
            if not isinstance(exc, (InvalidInput, LookupError)):
                log.warning("%s: %s", function.__name__, exc)
            return _error(exc)

    return call  # type: ignore[return-value]


def _entity(function: F) -> F:
    """Let a call that answers an entity or a list say that there is none, and never the shape of an error."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except NotThere as exc:
            raise HTTPException(404, str(exc)) from exc
        except InvalidInput as exc:
            found = {"loc": ["query"], "msg": str(exc), "type": "value_error"}
            raise HTTPException(422, [found]) from exc

    return call  # type: ignore[return-value]


def _project(project: Any) -> Project:
    return Project(id=project.id, name=project.name, is_removed=project.is_removed)


# --- projects ---------------------------------------------------------------------------------------------------


@router.get("/list_projects", tags=["projects"], dependencies=[needs("read")])
def list_projects(hub: Here) -> ListProjectsResponse:
    """Return the projects."""
    return ListProjectsResponse(projects=[_project(one) for one in hub.projects.list()])


@router.post("/create_project", tags=["projects"], dependencies=[needs("write")])
@_entity
def create_project(project_name: Annotated[str, Query()], hub: Here) -> ListProjectsResponse:
    """Make a project, and return it."""
    return ListProjectsResponse(projects=[_project(hub.projects.create(project_name))])


@router.post("/update_project", tags=["projects"], dependencies=[needs("write")], responses=_NOT_FOUND)
@_entity
def update_project(project_id: ProjectId, project_name: Annotated[str, Query()], hub: Here) -> Project:
    """Give a project another name."""
    return _project(hub.projects.rename(project_id, project_name))


@router.delete("/delete_project", tags=["projects"], dependencies=[needs("write")])
@_shaped
def delete_project(project_id: ProjectId, hub: Here) -> Any:
    """Remove a project."""
    hub.remove_project(project_id)
    return {"status": "ok"}


@router.post("/create_project_directory", tags=["projects"], dependencies=[needs("admin")])
@_shaped
def create_project_directory(project_id: ProjectId, path: Annotated[str, Query()], hub: Here) -> Any:
    """Let the files of a directory belong to a project."""
    return hub.projects.add_directory(project_id, path).to_dict()


@router.get("/list_project_directories", tags=["projects"], dependencies=[needs("read")], responses=_NOT_FOUND)
@_entity
def list_project_directories(project_id: ProjectId, hub: Here) -> list[ProjectDirectory]:
    """Return the directories of a project."""
    return [ProjectDirectory(**one.to_dict()) for one in hub.projects.directories(project_id)]


@router.delete("/delete_project_directory", tags=["projects"], dependencies=[needs("write")], responses=_NOT_FOUND)
@_entity
def api_delete_project_directory(directory_id: Annotated[int, Query(ge=0, le=_MOST)], hub: Here) -> ProjectDirectory:
    """Let a directory belong to its project no more."""
    return ProjectDirectory(**hub.projects.remove_directory(directory_id).to_dict())


# --- files ------------------------------------------------------------------------------------------------------


@router.post("/upload_file", tags=["files"], dependencies=[needs("write")])
@_shaped
def upload_file(
    project_name: Annotated[str, Form()],
    file_path: Annotated[str, Form()],
    file: Annotated[UploadFile, File()],
    hub: Here,
) -> Any:
    """Keep a file among the uploads of a project."""
    project = hub.projects.named(project_name)
    hub.projects.upload(project.id, file_path, file.file)
    return {"status": "ok"}


@router.get("/list_project_files/{project_id}", tags=["files"], dependencies=[needs("read")], responses=_NOT_FOUND)
@_entity
def list_project_files(project_id: int, hub: Here) -> list[str]:
    """Return the files of a project: uploads, those of its directories, then summaries."""
    return list(hub.projects.list_files(project_id))


@router.post("/sync_project_files", tags=["files"], dependencies=[needs("write")])
@_shaped
def api_sync_project_files(project_id: ProjectId, hub: Here) -> Any:
    """Look through the directories of a project."""
    hub.projects.sync_files(project_id)
    return {"status": "ok"}


# --- documents --------------------------------------------------------------------------------------------------


@router.post("/ingest_project_files", tags=["ingest"], dependencies=[needs("write")])
@_shaped
def ingest_project_files(project_id: ProjectId, hub: Here) -> Any:
    """Bring the documents of a project up to date, and answer when that is done."""
    job = hub.ingest(project_id)
    job.wait()
    if job.result is None:
        return {"status": "error", "message": job.message or f"It was {job.state}."}
    report = job.result
    files = report["added"] + report["updated"] + report["renamed"] + report["pruned"]
    if not files:
        failed = f" {report['failed']} could not be read." if report["failed"] else ""
        return {"status": "ok", "message": f"There was nothing to do.{failed}"}
    return {"num_files": files, "num_fragments": report["chunks_added"]}


@router.post("/check_ingestion_status", tags=["ingest"], dependencies=[needs("read")])
def check_ingestion_status(project_id: ProjectId, hub: Here) -> dict[str, Any]:
    """Tell whether the documents of a project are being taken in."""
    job = hub.ingesting(project_id)
    if job is None:
        return {"status": "ok", "isIngesting": False, "message": "Nothing is being taken in."}
    return {"status": "ok", "isIngesting": True, "message": f"{job.done} of {job.total} files are done."}


# --- finding and asking -----------------------------------------------------------------------------------------


@router.post("/rag_ask", tags=["rag"], dependencies=[needs("read")])
async def rag_ask(request: RagAskRequest, hub: Here) -> Any:
    """Answer a question from the documents of a project."""
    return await patiently(_rag_ask, request, hub)


@_shaped
def _rag_ask(request: RagAskRequest, hub: Hub) -> Any:
    answer = hub.ask(request.project_id, request.prompt)
    return {"status": "ok", "response": answer.text, "message": None}


@router.post("/vector_db_query", tags=["rag"], dependencies=[needs("read")], responses=_NOT_FOUND)
@_entity
def vector_db_query(request: RagAskRequest, hub: Here) -> list[Fragment]:
    """Return the fragments of a project that are nearest to a text."""
    found = hub.nearest(request.project_id, request.prompt)
    return [Fragment(file_path=name, file_content=text, distance=distance) for name, text, distance in found]


@router.post("/check_waiting_for_chat_status", tags=["rag"], dependencies=[needs("read")])
def check_waiting_for_chat_status(project_id: ProjectId, hub: Here) -> dict[str, Any]:
    """Tell whether somebody waits for an answer about a project."""
    waiting = hub.asked(project_id)
    message = "An answer is being written." if waiting else "Nobody waits for an answer."
    return {"status": "ok", "isWaiting": waiting, "message": message}


@router.post("/summarize_file", tags=["summaries"], dependencies=[needs("write")])
async def api_summarize_file(request: SummarizeFileRequest, hub: Here) -> dict[str, Any]:
    """Summarise a file of a project, and keep the summary beside it."""
    return await patiently(_summarize_file, request, hub)


def _summarize_file(request: SummarizeFileRequest, hub: Hub) -> dict[str, Any]:
    said: dict[str, Any] = dict.fromkeys(("status", "project_name", "summary_file_path", "summary", "message"))
    try:
        said["project_name"] = hub.projects.get(request.project_id).name
        said["summary_file_path"], said["summary"] = hub.summarise(request.project_id, request.file_path)
    except (MemoryGraphError, OSError) as exc:
        return {**said, **_error(exc)}
    return {**said, "status": "ok"}


# --- models -----------------------------------------------------------------------------------------------------


@router.get("/list_llamafiles", tags=["llamafile"], dependencies=[needs("read")])
def list_llamafiles(hub: Here) -> list[Llamafile]:
    """Return the models that can be had."""
    return [Llamafile(**listed(spec)) for spec in hub.models.specs()]


@router.post("/check_llamafile_status", tags=["llamafile"], dependencies=[needs("read")])
def check_llamafile_status(llamafile_filename: Filename, hub: Here) -> LlamafileStatus:
    """Say how it stands with a model."""
    try:
        shown = hub.models.shown(hub.models.by_file(llamafile_filename).name)
    except LlamafileError as exc:
        return LlamafileStatus(status="error", message=str(exc), progress=0, content_length=0, written=0)
    status, whole = shown.status, shown.status.bytes_total or 0
    return LlamafileStatus(
        status=shown.state,
        message=shown.message,
        progress=min(100, 100 * status.bytes_done // whole) if whole else 0,
        content_length=whole,
        written=status.bytes_done,
    )


def _model_call(function: Callable[[Any, Any], str]) -> Callable[[str, Hub], Any]:
    """Let a call that does something with a model say whether it could."""

    @functools.wraps(function)
    def call(llamafile_filename: str, hub: Hub) -> Any:
        try:
            spec = hub.models.by_file(llamafile_filename)
            return {"status": "success", "message": function(spec, hub)}
        except (MemoryGraphError, OSError) as exc:
            if not isinstance(exc, UnknownModel):
                log.warning("%s: %s", function.__name__, exc)
            return _error(exc)

    call.__annotations__ = {"llamafile_filename": Filename, "hub": Here, "return": Any}
    del call.__wrapped__  # or its parameters would be those of the route
    return call


@router.post("/download_llamafile_by_name", tags=["llamafile"], dependencies=[needs("models")])
@_model_call
def download_llamafile_by_name(spec: Any, hub: Any) -> str:
    """Begin to fetch a model."""
    hub.download(spec.name)
    return f"{spec.filename} is being fetched."


@router.post("/start_llamafile", tags=["llamafile"], dependencies=[needs("models")])
@_model_call
def api_start_llamafile(spec: Any, hub: Any) -> str:
    """Begin to start a model; the one that runs is stopped."""
    hub.models.start(spec.name)
    return f"{spec.filename} is being started."


@router.post("/stop_llamafile", tags=["llamafile"], dependencies=[needs("models")])
@_model_call
def api_stop_llamafile(spec: Any, hub: Any) -> str:
    """Stop a model."""
    return f"{spec.filename} was stopped." if hub.models.stop(spec.name) else f"{spec.filename} did not run."


@router.delete("/delete_llamafile", tags=["llamafile"], dependencies=[needs("models")])
@_model_call
def api_delete_llamafile(spec: Any, hub: Any) -> str:
    """Delete the file of a model; it is stopped before."""
    return f"{spec.filename} was deleted." if hub.models.remove(spec.name) else f"{spec.filename} was not here."


@router.get("/running_llamafile_info", tags=["llamafile"], dependencies=[needs("read")])
def api_running_llamafile_info(hub: Here) -> Llamafile | None:
    """Return the model that runs, or null."""
    spec = hub.models.running()
    return None if spec is None else Llamafile(**listed(spec))
