"""The memory for programs made with LangChain: a retriever, a vector store, a chat history, a recorder of calls.

Each takes a `MemoryGraph`, or the path of one, and several may share it: what one writes the others find.
"""

from __future__ import annotations

from .callback import RaeburnCallbackHandler
from .chat_history import RaeburnChatMessageHistory
from .embeddings import RaeburnEmbeddings
from .retriever import RaeburnRetriever
from .vector_store import RaeburnVectorStore

__all__ = [
    "RaeburnCallbackHandler",
    "RaeburnChatMessageHistory",
    "RaeburnEmbeddings",
    "RaeburnRetriever",
    "RaeburnVectorStore",
]
