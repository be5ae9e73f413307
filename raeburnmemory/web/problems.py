"""Errors as `application/problem+json` (RFC 9457), without anything that is nobody's business.

What went wrong with a request is said in full. What went wrong with the memory is said in general terms: its own
message names files, and goes to the log.
"""

from __future__ import annotations

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import errors

__all__ = ["MEDIA_TYPE", "Problem", "problem_for", "problem_of_request"]

MEDIA_TYPE = "application/problem+json"

# What RFC 9110 calls these; Python does from 3.13 on.
_TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
_BUSY = "Somebody else holds the memory. Ask again."
_DISK = "The memory could not be written. Nothing was changed."
_MODEL = "The embedding model of this memory is not available here. What needs no model still works."
_STORE = "The memory cannot be read. Whoever runs this service finds the reason in its log."


class Problem(Exception):
    """An answer that is an error: its status, one sentence about it, and what else belongs to it."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.code = status, detail, code
        self.headers = dict(headers or {})
        self.members = members

    def body(self, request_id: str = "") -> bytes:
        """Return the answer as JSON."""
        said: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.code:
            said["code"] = self.code
        if request_id:
            said["request_id"] = request_id
        return json.dumps({**said, **self.members}).encode()


# The first that fits counts: what is special stands before what is general.
_ANSWERS: tuple[tuple[type[Exception], int, str | None], ...] = (
    (errors.KindConflict, 409, None),
    (errors.InvalidInput, 422, None),
    (errors.NodeNotFound, 404, None),
    (errors.EmbeddingsMissing, 404, "There are texts, but no vectors: nothing can be found by meaning."),
    (errors.LockTimeout, 503, _BUSY),
    (errors.StoreUnreachable, 503, "The server of the memory does not answer. Ask again."),
    (errors.IndexUnavailable, 503, "The index of the memory does not answer. Ask again."),
    (errors.StoreWriteFailed, 507, _DISK),
    (errors.ReadOnly, 403, "This memory can only be read."),
    (errors.ErasureIncomplete, 500, "It was forgotten, but older copies may still hold it; the log names them."),
    (errors.MissingDependency, 503, _MODEL),
    (errors.EmbeddingError, 503, _MODEL),
    (errors.EmbedderMismatch, 503, _MODEL),
    (errors.MemoryGraphError, 500, _STORE),
)
_AGAIN = 1  # second


def problem_of_request(wrong: Sequence[Mapping[str, Any]]) -> Problem:
    """Return what to answer to a request of which pydantic says that this is *wrong*, without repeating what it said.

    Where a value may be of several kinds it tries them all: said first is what is wrong with the kind that fits best,
    which is not of another type, or goes deepest.
    """
    ordered = sorted(wrong, key=lambda each: (each["type"].endswith("_type"), -len(each["loc"])))
    found = [{"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in ordered]
    first = found[0] if found else {"where": "", "what": "it cannot be read"}
    return Problem(422, f"{first['where']}: {first['what']}", code="InvalidInput", errors=found)


def problem_for(error: Exception) -> Problem | None:
    """Return what to answer where an error of ours was raised; None for any other."""
    for kind, status, detail in _ANSWERS:
        if isinstance(error, kind):
            headers = {"Retry-After": str(_AGAIN)} if status == 503 else {}
            return Problem(status, detail or str(error), code=type(error).__name__, headers=headers)
    return None
