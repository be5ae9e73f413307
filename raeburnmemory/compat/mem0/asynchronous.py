"""`AsyncMemory`: mem0's asynchronous class; each call is that of `Memory` in a thread."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ._config import arguments_of
from ._model import LOOP
from .memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType

    from ...memory_graph import MemoryGraph

__all__ = ["AsyncMemory"]

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(
    method: Callable[Concatenate[Memory, P], R],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, R]]:
    """Return a method that is awaited and does what *method* does, in a thread, with the same signature."""

    @functools.wraps(method)
    async def twin(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        mark = LOOP.set(asyncio.get_running_loop())  # the thread gets a copy of it
        try:
            waiting = asyncio.to_thread(method, self._sync, *args, **kwargs)
            return await waiting
        finally:
            LOOP.reset(mark)

    return twin


class AsyncMemory:
    """What `Memory` is, with calls that are awaited; it takes the same arguments, and *llm* may be asynchronous.

    A call that is cancelled is done whole or not at all.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sync = Memory(*args, **kwargs)

    @classmethod
    def from_config(cls, config_dict: Mapping[str, Any]) -> AsyncMemory:
        """Return a memory made of a configuration; see `Memory.from_config`."""
        return cls(**arguments_of(config_dict))

    @property
    def memory(self) -> MemoryGraph:
        """The memory that holds it all."""
        return self._sync.memory

    @property
    def collection(self) -> str:
        """The collection in which the ids of memories are their own."""
        return self._sync.collection

    add = _awaited(Memory.add)
    search = _awaited(Memory.search)
    get = _awaited(Memory.get)
    get_all = _awaited(Memory.get_all)
    update = _awaited(Memory.update)
    delete = _awaited(Memory.delete)
    delete_all = _awaited(Memory.delete_all)
    history = _awaited(Memory.history)
    reset = _awaited(Memory.reset)

    def close(self) -> None:
        """Close the memory if it was opened here, from a path; one that was given stays open."""
        self._sync.close()

    async def __aenter__(self) -> AsyncMemory:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"Async{self._sync!r}"
