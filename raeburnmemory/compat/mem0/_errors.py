"""What goes wrong in mem0's way: errors of ours that are also what programs written for mem0 catch."""

from __future__ import annotations

from typing import Any

from ...errors import InvalidInput, MemoryGraphError, NodeNotFound

__all__ = ["LLMError", "MemoryNotFound", "ValidationError", "VerbatimWarning"]


class ValidationError(InvalidInput):
    """Arguments of `add` that cannot be: no scope, an unknown type of memory, messages of another kind.

    `message`, `error_code`, `details` and `suggestion` are those of mem0.
    """

    def __init__(
        self, message: str, error_code: str = "", details: dict[str, Any] | None = None, suggestion: str | None = None
    ) -> None:
        super().__init__(f"{message} {suggestion}" if suggestion else message)
        self.message, self.error_code, self.details, self.suggestion = message, error_code, details or {}, suggestion

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.error_code, self.details, self.suggestion)


class MemoryNotFound(NodeNotFound, InvalidInput):
    """No memory has that id. As in mem0 it is a ValueError, and here a LookupError, too."""


class LLMError(MemoryGraphError, RuntimeError):
    """The model failed, or answered with something that is no list of facts. Nothing was stored."""


class VerbatimWarning(UserWarning):
    """There is no model to extract facts with, so that messages are stored as they are."""
