"""The model of a memory, for whatever in LangChain takes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..memory_graph import MemoryGraph

with extra("langchain", module="langchain_core"):
    from langchain_core.embeddings import Embeddings

if TYPE_CHECKING:
    import os

__all__ = ["RaeburnEmbeddings"]


class RaeburnEmbeddings(Embeddings):
    """The embedding model of a memory as one of LangChain's.

    *memory* is a `MemoryGraph`, the path of one, or None for the model that comes with this package, which needs no
    download. A text of which the model knows no word gets zeros.
    """

    def __init__(self, memory: MemoryGraph | str | os.PathLike[str] | None = None) -> None:
        self._model: Any = None
        self._memory: MemoryGraph | None = None
        if isinstance(memory, MemoryGraph):
            self._memory = memory
        elif memory is None:
            with MemoryGraph(":memory:", "builtin") as some:
                self._model = some.model
        else:
            with MemoryGraph(memory, read_only=True) as some:
                self._model = some.model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each of *texts*."""
        # The memory may have been moved to another model since.
        model = self._model if self._memory is None else self._memory.model
        return [[float(value) for value in row] for row in model.embed(texts)]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of *text*."""
        return self.embed_documents([text])[0]
