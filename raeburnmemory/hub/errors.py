"""Every error of the hub: of local models, of documents, of projects, and of the server.

    HubError (MemoryGraphError)
    ├── LlamafileError (RuntimeError)    something about a local model
    ├── DocumentError (RuntimeError)     something about a document
    ├── NotThere (LookupError)           no project, file, job or source has that name or number
    ├── PathRefused                      a path of a file that leads elsewhere; an InvalidInput, too
    ├── FolderMissing (FileNotFoundError)  the directory of a project is not there
    ├── AlreadyUnderWay                  the same is being done at this moment
    ├── NoModel                          no model runs that could answer
    ├── HubRuns                          another hub works on the same folder
    └── PortTaken (OSError)              somebody else listens on the port

Each has a `code`, by which programs tell it from others, and a `remedy`, which says what to do.
"""

from __future__ import annotations

from typing import ClassVar

from ..errors import InvalidInput, MemoryGraphError

__all__ = [
    "AlreadyUnderWay",
    "DocumentError",
    "FolderMissing",
    "HubError",
    "HubRuns",
    "LlamafileError",
    "NoModel",
    "NotThere",
    "PathRefused",
    "PortTaken",
]


class HubError(MemoryGraphError):
    """The root of the hub's errors: `code` for programs, `remedy` for whoever reads it."""

    code: ClassVar[str] = "hub"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".rstrip())
        self.remedy = remedy


class LlamafileError(HubError, RuntimeError):
    """Something about a local model: `model` is its name, `log_tail` the last lines that it printed."""

    code = "model"

    def __init__(
        self, message: str, *, model: str | None = None, remedy: str = "", log_tail: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.model = model
        self.log_tail = log_tail


class DocumentError(HubError, RuntimeError):
    """Something about a document: `uri` is where it came from."""

    code = "document"

    def __init__(self, message: str, *, uri: str | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.uri = uri


class NotThere(HubError, LookupError):
    """No project, directory, file, job or source has that number or name."""

    code = "not_there"


class PathRefused(HubError, InvalidInput):
    """A path that came from outside and is no plain path below a project; nothing was written."""

    code = "path_refused"


class FolderMissing(HubError, FileNotFoundError):
    """A directory of a project is not there, or is none; what is known of it stays."""

    code = "folder_missing"


class AlreadyUnderWay(HubError):
    """What was asked for is being done at this moment."""

    code = "already_under_way"


class NoModel(HubError):
    """No model runs that could answer, and none was named."""

    code = "no_model"


class HubRuns(HubError):
    """Another hub works on the same folder: `pid` is its process, 0 if unknown."""

    code = "hub_runs"

    def __init__(self, message: str, *, remedy: str = "", pid: int = 0) -> None:
        super().__init__(message, remedy=remedy)
        self.pid = pid


class PortTaken(HubError, OSError):
    """Somebody else listens on the port."""

    code = "port_taken"
