"""Every error of the hub: of local models, and of documents.

    HubError (MemoryGraphError)
    ├── LlamafileError (RuntimeError)    something about a local model
    └── DocumentError (RuntimeError)     something about a document

Each has a `code`, by which programs tell it from others, and a `remedy`, which says what to do.
"""

from __future__ import annotations

from typing import ClassVar

from ..errors import MemoryGraphError

__all__ = ["DocumentError", "HubError", "LlamafileError"]


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
