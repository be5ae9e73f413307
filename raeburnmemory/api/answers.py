"""What many routes say: errors in the OpenAPI document, tags of versions, pages."""

from __future__ import annotations

import json
import math
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from fastapi import Response

from ..memory_graph import MemoryGraph
from .schemas import ProblemShown

__all__ = ["Tags", "answer", "not_modified", "problems", "public"]

_REMEMBERED = 1024  # memories and namespaces

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
    502: "What was asked elsewhere was refused or failed.",
    503: "Not now; Retry-After says when.",
    504: "What was asked elsewhere did not answer in time.",
    507: "The disk is full or refuses.",
}


def problems(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers that are errors, for the document: those of every route, and *more*."""
    content = {"application/problem+json": {"schema": ProblemShown.model_json_schema()}}
    return {
        status: {"description": _MEANINGS[status], "content": content} for status in sorted({*_EVERYWHERE, 408, *more})
    }


def answer(value: Any, status: int = 200) -> Response:
    """Return an answer that says *value* as it is.

    It does not go through the models of the document: these would copy it twice, and trip over attributes that are
    called like a method of theirs.
    """
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, media_type="application/json")


class Tags:
    """Tags of what memories hold: another one after every change, and whenever something has expired.

    What has expired is gone without a change. So a tag names the moment at which the next node will, which is the same
    for all workers; whoever has seen all nodes of a version knows it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, ...], tuple[int, float]] = OrderedDict()

    def known(self, memory: MemoryGraph) -> str | None:
        """Return the tag of what *memory* holds now, if its nodes were seen since the last change."""
        with self._lock:
            version, until = self._known.get(self._key(memory), (-1, 0.0))
        return self._tag(memory, version, until) if version == memory.version and time.time() < until else None

    def seen(self, memory: MemoryGraph, version: int, expiries: Iterable[float | None]) -> str:
        """Return the tag of what *memory* held at *version*, with nodes that expire at these times."""
        until = min((each for each in expiries if each is not None), default=math.inf)
        with self._lock:
            self._known[self._key(memory)] = version, until
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._tag(memory, version, until)

    @staticmethod
    def _key(memory: MemoryGraph) -> tuple[Any, ...]:
        # Another memory may come to lie at the same place, and have been changed as often. Where files are replaced to
        # be changed, the number of the file changes too, which does no harm.
        try:
            file = os.stat(memory.db_path).st_ino
        except OSError:
            file = id(memory) if memory.db_path == ":memory:" else 0
        return memory.db_path, memory.namespace, file

    def _tag(self, memory: MemoryGraph, version: int, until: float) -> str:
        place = zlib.crc32(repr(self._key(memory)).encode())
        # Weak, since answers are packed for who can unpack.
        return f'W/"{place:08x}-{version}-{until:.3f}"'


def not_modified(given: str | None, tag: str) -> bool:
    """Tell whether If-None-Match names what is there."""
    if given is None:
        return False
    said = {each.strip().removeprefix("W/") for each in given.split(",")}
    return "*" in said or tag.removeprefix("W/") in said


def public(text: str, memory: MemoryGraph) -> str:
    """Return a sentence about a memory without the place where it lies."""
    return text.replace(repr(memory.db_path), "this memory").replace(memory.db_path, "this memory")
