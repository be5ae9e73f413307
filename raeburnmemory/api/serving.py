"""The memory that a service answers from, and its settings, both from the environment."""

from __future__ import annotations

import os
import threading

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from ..errors import InvalidInput, StoreWriteFailed
from ..memory_graph import MemoryGraph
from ..web import Settings
from ..web.settings import NAMES

__all__ = ["DATABASE", "DEFAULT_DATABASE", "NAMESPACE", "Serving", "current_settings", "get_memory_graph"]

DATABASE, NAMESPACE = "RAEBURN_DB", "RAEBURN_NAMESPACE"
DEFAULT_DATABASE = "~/.raeburnbrain/graph.json"


class Serving:
    """The memory of this process: opened when it is first wanted, closed when the server stops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory: MemoryGraph | None = None

    @property
    def opened(self) -> MemoryGraph | None:
        """The memory, if it is open."""
        return self._memory

    def memory(self) -> MemoryGraph:
        """Return the memory, opened."""
        memory = self._memory
        if memory is None:
            with self._lock:
                memory = self._memory = self._memory or _open()
        return memory

    def start(self) -> None:
        """Open the memory, and see that it can be written.

        Raises:
            MemoryGraphError: It cannot.
        """
        memory = self.memory()
        path = memory.db_path
        if os.path.exists(path):
            for each in (path, os.path.dirname(os.path.abspath(path))):
                if not os.access(each, os.W_OK):
                    raise StoreWriteFailed(13, f"{each!r} cannot be written. Let this user write it, or name another")

    def stop(self) -> None:
        """Close the memory."""
        with self._lock:
            if self._memory is not None:
                self._memory.close()
                self._memory = None


def _open() -> MemoryGraph:
    path = os.environ.get(DATABASE, DEFAULT_DATABASE)
    if not path or path == ":memory:":
        raise InvalidInput(
            f"{DATABASE} is {path!r}, which no two requests would share. Name a file: {DATABASE}=memory.db"
        )
    return MemoryGraph(path, namespace=os.environ.get(NAMESPACE, "default"))


serving = Serving()
_settings: tuple[tuple[str | None, ...], Settings] | None = None


def current_settings() -> Settings:
    """Return what the environment says now, read anew only where it changed.

    Raises:
        InvalidInput: It makes no sense.
    """
    global _settings  # noqa: PLW0603 - remembered, since this is asked at every request
    said = tuple(os.environ.get(name) for name in NAMES)
    if _settings is None or _settings[0] != said:
        _settings = (said, Settings.of(os.environ))
    return _settings[1]


async def get_memory_graph(request: Request) -> MemoryGraph:
    """Return the memory of the service; the dependency of every route."""
    # Not by overriding this dependency, which FastAPI would then read anew at every request. And not in a thread, which
    # would cost every request a change of threads for a name that is looked up.
    for own in (getattr(request.app.state, "memory", None), serving.opened):
        if own is not None:
            return own
    return await run_in_threadpool(serving.memory)
