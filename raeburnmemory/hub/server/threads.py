"""Threads: conversations with a name, each a session of the memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import NodeNotFound
from ...items import Get, Put, Search
from ...records import utc
from ..errors import NotThere
from ..projects import COLLECTION

if TYPE_CHECKING:
    import builtins

    from ...memory_graph import MemoryGraph
    from ...nodes import Node

__all__ = ["Thread", "Threads"]

_THREADS, _COUNTERS = ("threads",), ("counters",)
_ALL = 1_000_000
_UNNAMED = "New thread"


@dataclass(frozen=True)
class Thread:
    """A thread; `project_id` is the project whose documents it draws on, None for the whole memory."""

    id: int
    title: str
    project_id: int | None
    session_id: str
    created_at: str
    is_removed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class Threads:
    """The threads of one namespace of *memory*. Their numbers are never used again."""

    def __init__(self, memory: MemoryGraph) -> None:
        self.memory = memory
        self._items = memory._items(COLLECTION)  # noqa: SLF001 - its door for such

    def list(self) -> list[Thread]:
        """Return the threads, the oldest first."""
        [found] = self._items.read([Search(_THREADS, limit=_ALL)])
        threads = [Thread(**item.value) for item in found]
        return sorted((one for one in threads if not one.is_removed), key=lambda one: one.id)

    def get(self, thread_id: int) -> Thread:
        """Return a thread.

        Raises:
            NotThere: There is none of that number.
        """
        [found] = self._items.read([Get(_THREADS, str(thread_id))])
        if not found or found[0].value["is_removed"]:
            raise NotThere(f"There is no thread {thread_id}.", remedy="List them to see which there are.")
        return Thread(**found[0].value)

    def begin(self, title: str = "", project_id: int | None = None) -> Thread:
        """Begin a thread."""
        with self.memory.exclusive():
            [found] = self._items.read([Get(_COUNTERS, "thread")])
            number = int(found[0].value["last"]) + 1 if found else 1
            made = Thread(number, title.strip() or _UNNAMED, project_id, f"hub-thread-{number}", utc(None))
            puts = [Put(_THREADS, str(number), made.to_dict()), Put(_COUNTERS, "thread", {"last": number})]
            self._items.write(puts)
        return made

    def said(self, thread: Thread) -> builtins.list[Node]:
        """Return what was said in a thread, in order."""
        try:
            return self.memory.thread(thread.session_id)
        except NodeNotFound:  # nothing yet
            return []

    def forget(self, thread_id: int) -> None:
        """Forget a thread and what was said in it.

        Raises:
            NotThere: There is none of that number.
        """
        with self.memory.exclusive():
            gone = replace(self.get(thread_id), is_removed=True, title="")
            self._items.write([Put(_THREADS, str(thread_id), gone.to_dict())])
        self.memory.forget(session=gone.session_id)

    def ended(self, thread: Thread) -> None:
        """Forget what an answer has recorded, if its thread was forgotten while it was made."""
        try:
            self.get(thread.id)
        except NotThere:
            self.memory.forget(session=thread.session_id)
