"""What `MemoryGraph.recall` finds, as documents of LangChain."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..memory_graph import MemoryGraph
from ._documents import found
from ._opening import opened

with extra("langchain", module="langchain_core"):
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

if TYPE_CHECKING:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun

__all__ = ["RaeburnRetriever"]


class RaeburnRetriever(BaseRetriever):
    """Finds what matters in a memory: prompts, responses, facts, documents, whatever has a text.

    *memory* is a `MemoryGraph`, or the path of one, which is then opened with *namespace*, and closed by `close`. The
    other fields are arguments of `MemoryGraph.recall`; *score_threshold* is its `min_similarity`, because scores only
    order the hits of one question. Each can be given to `invoke` as well, for one question.

    The metadata of a document has what is known of the node (`id`, `kind`, `session`, `speaker`, `timestamp`, and
    `collection` and `key` of a document), how it was found (`score`, `similarity`, `coverage`, `why`), a `citation`,
    and the attributes of the node or the metadata of the document. Where those have one of these names themselves,
    all metadata of a document is under `metadata` too.
    """

    memory: Any
    namespace: str | None = None
    k: int = 10
    kinds: Any = None
    session: Any = None
    agent: Any = None
    speaker: Any = None
    collection: Any = None
    since: Any = None
    until: Any = None
    where: dict[str, Any] | None = None
    legs: Any = None
    score_threshold: float | None = None
    min_coverage: float | None = None
    recency: float = 0.0
    half_life: float = 30.0
    diversity: float = 0.0
    fold: bool = False

    def __init__(self, memory: MemoryGraph | str | os.PathLike[str], **fields: Any) -> None:
        if unknown := sorted(set(fields) - set(type(self).model_fields)):
            raise TypeError(f"{unknown[0]!r} is no field of {type(self).__name__}.")
        graph, owned = opened(memory, namespace=fields.get("namespace"))
        fields["memory"] = graph
        super().__init__(**fields)
        self._owned = owned

    _owned: bool = False

    def close(self) -> None:
        """Close the memory if it was opened here, from a path; one that was given stays open."""
        if self._owned:
            self.memory.close()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        del run_manager  # nothing happens on the way that it could tell
        search = {name: options.pop(name, getattr(self, name)) for name in _SEARCH}
        if options:
            raise TypeError(f"{min(options)!r} is no option of {type(self).__name__}.")
        search["min_similarity"] = search.pop("score_threshold")
        return [found(hit) for hit in self.memory.recall(query, **search)]

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **options: Any) -> list[Document]:
        from langchain_core.runnables import run_in_executor

        def search() -> list[Document]:
            return self._get_relevant_documents(query, run_manager=run_manager.get_sync(), **options)

        documents: list[Document] = await run_in_executor(None, search)
        return documents


_SEARCH = (
    "k",
    "kinds",
    "session",
    "agent",
    "speaker",
    "collection",
    "since",
    "until",
    "where",
    "legs",
    "score_threshold",
    "min_coverage",
    "recency",
    "half_life",
    "diversity",
    "fold",
)
