"""Which namespace a request is about."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Annotated

from fastapi import Depends, Query, Request

from ..memory_graph import MemoryGraph
from ..web import Problem
from .serving import NAMESPACE, get_memory_graph

__all__ = ["Scopes", "scoped"]

_MOST = 256  # namespaces that are kept ready at once


class Scopes:
    """The memories of other namespaces than that of the service, those used last kept ready."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[int, str], MemoryGraph] = OrderedDict()

    def of(self, memory: MemoryGraph, namespace: str) -> MemoryGraph:
        """Return *memory* as *namespace* sees it."""
        key = (id(memory), namespace)  # what is here keeps its memory, so that no other one has its id
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
            else:
                self._open[key] = memory.within(namespace)
            # What falls out is let go when nobody uses it any more: an answer may be under way.
            if len(self._open) > _MOST:
                self._open.popitem(last=False)
            return self._open[key]

    def close(self) -> None:
        """Save what they know, while their memory is open."""
        with self._lock:
            for memory in self._open.values():
                memory.close()
            self._open.clear()


async def scoped(  # not in a thread: it waits for nothing
    request: Request,
    memory: Annotated[MemoryGraph, Depends(get_memory_graph)],
    namespace: Annotated[
        str | None, Query(min_length=1, max_length=512, description="The part of the memory to ask, such as a user.")
    ] = None,
) -> MemoryGraph:
    """Return the memory of the namespace that a request names, or that of the service.

    Raises:
        Problem: The service is for one namespace only, which is another.
    """
    request.state.memory = memory  # for sentences about it
    if namespace is None or namespace == memory.namespace:
        return memory
    if os.environ.get(NAMESPACE) is not None:
        raise Problem(403, "This service is for one namespace only.")
    scopes: Scopes = request.app.state.scopes
    return scopes.of(memory, namespace)
