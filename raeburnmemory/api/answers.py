"""What many routes say: errors in the OpenAPI document, tags of versions, pages."""

from __future__ import annotations

import zlib
from typing import Any

from ..memory_graph import MemoryGraph
from .schemas import ProblemShown

__all__ = ["etag", "not_modified", "problems", "public"]

# What any route may answer: the guard stands before all of them.
_EVERYWHERE = (400, 401, 403, 413, 415, 422, 429, 500, 503, 507)
_MEANINGS = {
    304: "It is what it was.",
    400: "The request is no proper one.",
    401: "The key is missing or wrong.",
    403: "Not from there, or not by that name.",
    404: "There is no such thing, or nothing can be found by meaning.",
    408: "The body came too slowly.",
    409: "An id belongs to something of another kind.",
    413: "The body is too large.",
    415: "The body is of another type, or packed.",
    422: "A value cannot be taken.",
    429: "Too many requests; Retry-After says when.",
    500: "Something is wrong here.",
    503: "Not now; Retry-After says when.",
    507: "The disk is full or refuses.",
}


def problems(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers that are errors, for the document: those of every route, and *more*."""
    content = {"application/problem+json": {"schema": ProblemShown.model_json_schema()}}
    return {
        status: {"description": _MEANINGS[status], "content": content} for status in sorted({*_EVERYWHERE, 408, *more})
    }


def etag(memory: MemoryGraph) -> str:
    """Return the tag of what a memory holds: another one after every change."""
    # What has expired is gone without a change; counting notices. Another memory may come to lie at the same place.
    place = zlib.crc32(f"{memory.db_path}\n{memory.namespace}".encode())
    return f'"{place:08x}-{memory.version}-{len(memory)}"'


def not_modified(given: str | None, tag: str) -> bool:
    """Tell whether If-None-Match names what is there."""
    if given is None:
        return False
    return given.strip() == "*" or tag in {each.strip().removeprefix("W/") for each in given.split(",")}


def public(text: str, memory: MemoryGraph) -> str:
    """Return a sentence about a memory without the place where it lies."""
    return text.replace(repr(memory.db_path), "this memory").replace(memory.db_path, "this memory")
