"""What can be rebuilt: nearest vectors. An index is a cache of the store, never a second truth.

Scores are cosine similarities, higher is nearer; hits are ordered by score, ties by the smaller slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from .._optional import extra, installed
from ..errors import InvalidInput, MissingDependency, UnknownBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["IndexName", "VectorIndex", "index_name", "open_index"]

IndexName = Literal["exact", "faiss", "pgvector"]


@runtime_checkable
class VectorIndex(Protocol):
    """Vectors of one length, found by nearness. Not safe for threads: `dense.py` holds a lock around it."""

    name: str
    dim: int

    def add(self, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add unit rows (n, dim) under ascending *slots*, each greater than any ever added here."""

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Remove those of *slots* that are present."""

    def search(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and scores of the *k* nearest, best first; fewer when there are fewer.

        *allowed* (ascending slots, absent ones are ignored) restricts the search before the top k is taken.
        """

    def get(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of those of *slots* (ascending) that are present, in their order (n, dim)."""

    def __len__(self) -> int: ...

    @property
    def ntotal(self) -> int:
        """The number of vectors, under the name that FAISS gives it."""

    def save(self, path: str, stamp: dict[str, object]) -> None:
        """Write the index to *path*, replacing what is there at once, with *stamp* in its checked header."""

    def load(self, path: str, stamp: dict[str, object]) -> dict[str, object] | None:
        """Fill this empty index from *path* and return the header's stamp.

        Returns None, and stays empty, when the file is missing, damaged, of another kind, or its stamp differs
        from *stamp* in one of *stamp*'s keys: a cache that does not fit is rebuilt, not an error.
        """


def index_name(name: str | None, location: object = None) -> str:
    """Return the name of the index to use, without importing what is behind it.

    None chooses `faiss` where it is installed and `exact` where it is not; a memory at the *location* of a PostgreSQL
    database has `pgvector` instead, because what is in the server need not be brought here to be searched.

    Raises:
        UnknownBackend: No index has that name.
        InvalidInput: `pgvector` has no server at *location*.
        MissingDependency: The package behind it is not installed.
    """
    in_server = isinstance(location, str) and location.startswith(("postgresql://", "postgres://"))
    if name is None and in_server:
        return "pgvector"
    if name == "pgvector" and location is not None and not in_server:
        raise InvalidInput(
            f"vector_backend='pgvector' searches in a PostgreSQL server, and {str(location)!r} is no URL of one. "
            f"Choose 'faiss' or 'exact', or name a URL that begins with postgresql://"
        )
    if name is None:
        return "faiss" if installed("faiss") else "exact"
    if name not in get_args(IndexName):
        choices = ", ".join(get_args(IndexName))
        raise UnknownBackend(f"No vector backend is called {name!r}. Choose one of: {choices}.")
    if name == "faiss" and not installed("faiss"):
        raise MissingDependency("'faiss' is not installed. Install it with: pip install 'faiss-cpu'")
    return name


def open_index(name: str | None, dim: int) -> VectorIndex:
    """Open an empty index called *name* (see `index_name`) for vectors of *dim* numbers."""
    chosen = index_name(name)
    if chosen == "exact":
        from .exact import ExactIndex

        return ExactIndex(dim)
    if chosen == "pgvector":
        from .pgvector import PgVectorIndex

        return PgVectorIndex(dim)
    with extra("", module="faiss"):
        from .faiss import FaissIndex

    return FaissIndex(dim)
