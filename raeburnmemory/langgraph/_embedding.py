"""Models as LangGraph takes them."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from .._optional import extra

with extra("langgraph", module="langgraph"):
    from langchain_core.embeddings import Embeddings
    from langgraph.store.base import ensure_embeddings

__all__ = ["embedding_of"]


def embedding_of(embed: Any) -> Embeddings:
    """Return what `embed` of an index means: a model of LangChain's, a name of one, or a function, async or not.

    A function is named by itself in the memory, so that another function is another model.
    """
    if isinstance(embed, (str, Embeddings)):
        model: Embeddings = ensure_embeddings(embed)
        return model
    called = getattr(embed, "__call__", None)  # noqa: B004 - an object may have an async one
    if inspect.iscoroutinefunction(embed) or inspect.iscoroutinefunction(called):
        return _Function(embed, lambda texts: _elsewhere(embed(texts)))
    return _Function(embed, embed)


class _Function(Embeddings):
    """A function from texts to vectors, as a model of LangChain's and of ours."""

    def __init__(self, source: Any, function: Callable[[list[str]], Any]) -> None:
        kind = source if hasattr(source, "__qualname__") else type(source)
        self.name = f"{kind.__module__}.{kind.__qualname__}"
        self.embed = function
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        if self._dim is None:
            self._dim = len(self.embed_query("dim"))
        return self._dim

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        return [list(row) for row in self.embed(texts)]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return self.embed_documents([text])[0]


_loop_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _elsewhere(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a coroutine, in a loop that is always the same: clients keep connections that belong to one."""
    global _loop  # noqa: PLW0603
    with _loop_lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="raeburnmemory-embedding", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(coroutine, _loop).result()
