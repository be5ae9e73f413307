"""Errors as OpenAI's API has them, for the routes that programs made for it use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...web import Problem

__all__ = ["PATHS", "error_body", "status_of"]

PATHS = frozenset({"/v1/chat/completions", "/v1/embeddings", "/v1/models"})

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def status_of(problem: Problem) -> int:
    """Return the status that stands for a problem there: what cannot be taken is 400, what does not run 404.

    Their clients ask again where something is in conflict (409), which helps nobody who has to start a model.
    """
    return {409: 404, 422: 400}.get(problem.status, problem.status)


def error_body(status: int, message: str, code: str | None = None) -> bytes:
    """Return the body of an error."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    said: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": said}).encode()
