"""A collection of documents in a memory, as a vector store of LangChain."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..errors import InvalidInput
from ..filters import condition
from ..hits import Hits
from ..nodes import FRAGMENT, collected_id
from ._documents import to_document, to_node, to_where
from ._opening import opened
from .embeddings import RaeburnEmbeddings

with extra("langchain", module="langchain_core"):
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance

if TYPE_CHECKING:
    import os

    from ..memory_graph import MemoryGraph

__all__ = ["RaeburnVectorStore"]


class RaeburnVectorStore(VectorStore):
    """A named collection of documents in a memory; each is a node of the kind `fragment`.

    *memory* is a `MemoryGraph`, or the path of one, which `close` then closes. *embedding* is a model of LangChain's;
    without one the memory's own is used, and with a memory that is open it must be the same. Several stores may share
    a memory: each sees its own *collection* only, in which ids are its own.

    Document *n* of the collection `handbook` is the node `fragment/handbook/n`: an id is unique in a whole memory, so
    it says the kind and the collection. Metadata must be JSON values; they become attributes of the node, by which
    `MemoryGraph.recall` can filter, and come back as they were. The same id again replaces a document.

    A `filter` is a condition on metadata as `recall` takes it in `where`: `{"stars": {"gte": 4}}`. Scores are cosine
    similarities, of the nearest passage of a long text; relevance scores are the same, and 0 for what is below 0.

    Raises:
        EmbedderMismatch: *embedding* is not the model of the memory.
    """

    def __init__(
        self,
        memory: MemoryGraph | str | os.PathLike[str] = ":memory:",
        embedding: Embeddings | None = None,
        *,
        collection: str = "default",
        namespace: str | None = None,
    ) -> None:
        self.collection = _checked_name(collection)
        self.memory, self._owned = opened(memory, embedding, namespace)
        self._embedding = embedding

    def close(self) -> None:
        """Close the memory if it was opened here, from a path; one that was given stays open."""
        if self._owned:
            self.memory.close()

    @property
    def embeddings(self) -> Embeddings:
        """The model: the one that was given, or that of the memory."""
        return RaeburnEmbeddings(self.memory) if self._embedding is None else self._embedding

    # --- writing ------------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those whose *ids* are there, all in one transaction; return their ids.

        Ids that are missing, or None, are made.

        Raises:
            InvalidInput: There is another number of metadatas or ids than of texts, or something cannot be stored.
        """
        _nothing_else(kwargs)
        texts = [texts] if isinstance(texts, str) else list(texts)
        for given, what in ((metadatas, "metadatas"), (ids, "ids")):
            if given is not None and len(given) != len(texts):
                raise InvalidInput(f"There are {len(given)} {what} for {len(texts)} texts. Give one for each.")
        keys = [str(uuid.uuid4()) if key is None else key for key in (ids or [None] * len(texts))]
        for key in keys:
            if not isinstance(key, str) or not key:
                raise InvalidInput(f"A document's id must be a string that is not empty, not {key!r}.")
        # A text from a loader may be a subclass that is more than a string.
        parts = zip(keys, texts, metadatas or [{}] * len(texts), strict=True)
        self.memory.put([to_node(self.collection, key, text, metadata or {}) for key, text, metadata in parts])
        return keys

    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Forget documents, all of the collection if *ids* is None; those that are not there do not matter."""
        _nothing_else(kwargs)
        gone = self._ids() if ids is None else [self._id(key) for key in _several(ids)]
        self.memory.forget(gone)
        return True

    def _ids(self) -> list[str]:
        return [node.id for node in self.memory.nodes(FRAGMENT, where={"collection": self.collection})]

    def _id(self, key: str) -> str:
        return collected_id(FRAGMENT, self.collection, key)

    # --- reading ------------------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids that there are, in that order."""
        return [to_document(node) for node in self.memory.get_many([self._id(key) for key in _several(ids)])]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the *k* documents nearest to *query*, best first; `filter` chooses among them."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return the *k* documents nearest to *query*, best first, with their cosine similarity."""
        _nothing_else(kwargs)
        return [(to_document(hit.node), float(hit.score)) for hit in self._nearest(self._asked(query), k, filter)]

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Return the *k* documents nearest to a vector of the same model, best first."""
        _nothing_else(kwargs)
        return [to_document(hit.node) for hit in self._nearest(embedding, k, filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """Return *k* of the *fetch_k* documents nearest to *query* that are near to it and unlike each other.

        *lambda_mult* weighs the two: 1 is nearness alone, 0 difference alone. Carbonell and Goldstein, "The Use of
        MMR" (1998), as LangChain computes it.
        """
        vector = self.embeddings.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        **kwargs: Any,
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search` does for a vector of the same model."""
        import numpy as np

        _nothing_else(kwargs)
        hits = self._nearest(embedding, max(fetch_k, k), filter)
        vectors = self.memory.vectors(hits.ids)
        known = [hit for hit in hits if hit.id in vectors]  # one may have been forgotten since
        if not known:
            return []
        rows: list[Any] = [vectors[hit.id] for hit in known]
        picked = maximal_marginal_relevance(np.asarray(embedding, np.float32), rows, lambda_mult, k)
        return [to_document(known[place].node) for place in picked]

    def _asked(self, query: str) -> Any:
        # Some models embed questions otherwise than documents.
        return query if self._embedding is None else self._embedding.embed_query(query)

    def _nearest(self, question: Any, k: int, conditions: Any) -> Hits:
        if conditions is not None:
            condition(conditions)  # for its errors, which name what was asked, and not what our attributes are called
        if not isinstance(question, str) and not any(question):  # the model knows no word of it
            return Hits()
        return self.memory.similar(question, k, kinds=FRAGMENT, collection=self.collection, where=to_where(conditions))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: min(max(score, 0.0), 1.0)

    # --- making one ---------------------------------------------------------------------------------------------

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        memory: MemoryGraph | str | os.PathLike[str] = ":memory:",
        collection: str = "default",
        namespace: str | None = None,
        **kwargs: Any,
    ) -> RaeburnVectorStore:
        """Return a store with *texts* in it; see the class for *memory* and the rest."""
        _nothing_else(kwargs)
        store = cls(memory, embedding, collection=collection, namespace=namespace)
        try:
            store.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            store.close()
            raise
        return store


def _checked_name(collection: Any) -> str:
    if not isinstance(collection, str) or not collection:
        raise InvalidInput(f"A collection's name must be a string that is not empty, not {collection!r}.")
    return collection


def _several(ids: Any) -> list[str]:
    return [ids] if isinstance(ids, str) else list(ids)


def _nothing_else(kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise InvalidInput(f"{next(iter(kwargs))!r} is no option of RaeburnVectorStore. Leave it out.")
