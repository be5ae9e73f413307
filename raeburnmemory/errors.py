"""Every error that `raeburnmemory` raises on purpose.

    MemoryGraphError
    ├── InvalidInput (ValueError)              a value that cannot be stored or searched for
    │   ├── KindConflict                       an id already belongs to another kind of node
    │   ├── DimensionMismatch                  a vector of the wrong length
    │   └── UnknownBackend                     no store, index or embedder has that name
    ├── NodeNotFound (LookupError)             no node has that id in this namespace
    ├── MissingDependency (ImportError)        a package is not installed
    │   └── ModelUnavailable                   an embedding model cannot be loaded here
    ├── EmbeddingError (RuntimeError)          an embedder answered with something that is no vector
    ├── EmbedderMismatch (ValueError)          the store's vectors come from another model
    ├── EmbeddingsMissing (RuntimeError)       there are texts, but no vectors
    ├── ReadOnly (RuntimeError)                a write to something opened for reading or closed
    ├── GraphClosed (RuntimeError)             a call after close()
    ├── IndexMismatch (ValueError)             an index elsewhere belongs to something else
    ├── IndexUnavailable (ConnectionError)     an index elsewhere cannot be reached
    ├── LockTimeout (TimeoutError)             somebody else holds the store
    ├── RemoteError (RuntimeError)             a service refused, or failed
    └── StoreError                             something is wrong with the files
        ├── StoreMissing (FileNotFoundError)   nothing to open there
        ├── StoreCorrupt (RuntimeError)        damaged; never read as empty
        ├── StoreTooNew (RuntimeError)         written by a newer version of this library
        ├── NotAStore (ValueError)             a file or folder of something else
        ├── ErasureIncomplete (RuntimeError)   forgotten, but older copies may still hold it
        ├── StoreUnreachable (ConnectionError)  the server does not answer, or lets nobody in
        └── StoreWriteFailed (OSError)         the disk refused: full, forbidden, broken

Each is also the builtin in brackets, so that code that knows only builtins catches it.

Warnings: `EmbedderFallbackWarning` (the default model is not available, `builtin` is used).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DimensionMismatch",
    "EmbedderFallbackWarning",
    "EmbedderMismatch",
    "EmbeddingError",
    "EmbeddingsMissing",
    "ErasureIncomplete",
    "GraphClosed",
    "IndexMismatch",
    "IndexUnavailable",
    "InvalidInput",
    "KindConflict",
    "LockTimeout",
    "MemoryGraphError",
    "MissingDependency",
    "ModelUnavailable",
    "NodeNotFound",
    "NotAStore",
    "ReadOnly",
    "RemoteError",
    "StoreCorrupt",
    "StoreError",
    "StoreMissing",
    "StoreTooNew",
    "StoreUnreachable",
    "StoreWriteFailed",
    "UnknownBackend",
]


class MemoryGraphError(Exception):
    """The root of every error raised on purpose."""


class InvalidInput(MemoryGraphError, ValueError):
    """A value that cannot be stored or searched for; nothing was changed."""


class KindConflict(InvalidInput):
    """An id already belongs to another kind of node."""


class DimensionMismatch(InvalidInput):
    """A vector has another length than the ones it should join."""


class UnknownBackend(InvalidInput):
    """No store, index or embedder has that name."""


class NodeNotFound(MemoryGraphError, LookupError):
    """No node has that id in this namespace."""


class MissingDependency(MemoryGraphError, ImportError):
    """A package that was asked for is not installed."""


class ModelUnavailable(MissingDependency):
    """An embedding model cannot be loaded on this machine."""


class EmbeddingError(MemoryGraphError, RuntimeError):
    """An embedder answered with something that is no vector (NaN, ragged rows, the wrong count)."""


class EmbedderMismatch(MemoryGraphError, ValueError):
    """The vectors of the store come from another model than the one in use."""


class EmbeddingsMissing(MemoryGraphError, RuntimeError):
    """The store holds texts but no vectors, so that nothing can be found by meaning."""


class ReadOnly(MemoryGraphError, RuntimeError):
    """A write to a store that was opened with `read_only=True`, or to a read-only view."""


class GraphClosed(MemoryGraphError, RuntimeError):
    """The `MemoryGraph` was closed before this call."""


class IndexMismatch(MemoryGraphError, ValueError):
    """An index that is kept elsewhere, such as a collection of Qdrant, belongs to another memory or program."""


class IndexUnavailable(MemoryGraphError, ConnectionError):
    """An index that is kept elsewhere cannot be reached. The memory is whole, and can be written.

    `lost` says that it was reached, and holds no longer what was written to it; the next call makes it anew.
    """

    lost = False


class LockTimeout(MemoryGraphError, TimeoutError):
    """Another process or thread held the store for longer than `timeout` seconds."""


class RemoteError(MemoryGraphError, RuntimeError):
    """A service refused a request or failed at it. `status` is that of its answer, such as 401 for a wrong key."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status)


class StoreError(MemoryGraphError):
    """Something is wrong with the files of a store."""


class StoreMissing(StoreError, FileNotFoundError):
    """There is no store at that path. Takes an error number and a message, as `OSError` does."""

    def __str__(self) -> str:
        return str(self.strerror)


class StoreCorrupt(StoreError, RuntimeError):
    """The files are damaged. They are left as they are, and never read as empty."""


class StoreTooNew(StoreError, RuntimeError):
    """A newer version of this library wrote the store; this one would damage it."""


class NotAStore(StoreError, ValueError):
    """The path holds something that is no store of this library."""


class ErasureIncomplete(StoreError, RuntimeError):
    """It was forgotten, but older copies beside the store may still hold it.

    `report` says what went, as a `raeburnmemory.nodes.Forgotten`; `files` are the paths of what is left.
    """

    def __init__(self, message: str, report: Any = None, files: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.report = report
        self.files = tuple(files)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.report, self.files)


class StoreUnreachable(StoreError, ConnectionError):
    """The server of a store does not answer, or lets nobody in. Takes an error number and a message, like `OSError`."""

    def __str__(self) -> str:
        return str(self.strerror)


class StoreWriteFailed(StoreError, OSError):
    """The disk or the system refused; the store is as it was. Takes an error number and a message, like `OSError`."""

    def __str__(self) -> str:
        return str(self.strerror)


class EmbedderFallbackWarning(UserWarning):
    """The default model is not available here, so that `builtin` embeds instead."""
