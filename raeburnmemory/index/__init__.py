"""What can be rebuilt: nearest vectors. An index is a cache of the store, never a second truth.

Scores are cosine similarities, higher is nearer; hits are ordered by score, ties by the smaller slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from .._optional import extra, installed
from ..errors import InvalidInput, MissingDependency, UnknownBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "IndexName",
    "Owner",
    "RemoteIndex",
    "SavedIndex",
    "Scope",
    "VectorIndex",
    "index_maker",
    "index_name",
    "open_index",
]

IndexName = Literal["exact", "faiss", "pgvector", "qdrant"]


@dataclass(frozen=True)
class Scope:
    """What is true of every text that a search may find, for an index that can tell: None stands for anything.

    Texts of one of the *namespaces*, that are or belong to one of the *sessions* or *agents*, from *since* until before
    *until*, in seconds since 1970.
    """

    namespaces: tuple[str, ...] | None = None
    sessions: tuple[str, ...] | None = None
    agents: tuple[str, ...] | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class Owner:
    """Whose vectors an index keeps that is elsewhere, and what it may ask: a field of a store."""

    store: str
    """The id of the store."""
    field: str
    location: str
    """Where the store is, for messages."""
    lasting: bool
    """Whether the store is there again in another process."""
    version: Callable[[], int]
    mark: Callable[[int], str | None]
    """What the commit of a version was marked with, see `Store.mark`."""
    slots: Callable[[], NDArray[np.int64]]
    """Returns the slots of all vectors there are now."""
    truth: Callable[[], Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]]
    """Yields slots and rows as they should be."""
    describe: Callable[[NDArray[np.int64]], Sequence[dict[str, Any]]]
    """Says of each slot whose text it is, as JSON: what a `Scope` can ask for."""


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


@runtime_checkable
class SavedIndex(VectorIndex, Protocol):
    """An index that is made anew in every process, unless it was saved in a file."""

    def save(self, path: str, stamp: dict[str, object]) -> None:
        """Write the index to *path*, replacing what is there at once, with *stamp* in its checked header."""

    def load(self, path: str, stamp: dict[str, object]) -> dict[str, object] | None:
        """Fill this empty index from *path* and return the header's stamp.

        Returns None, and stays empty, when the file is missing, damaged, of another kind, or its stamp differs
        from *stamp* in one of *stamp*'s keys: a cache that does not fit is rebuilt, not an error.
        """


@runtime_checkable
class RemoteIndex(VectorIndex, Protocol):
    """An index that is kept elsewhere, catches up with the store, and may not be reached: `IndexUnavailable`."""

    def keep_for(self, owner: Owner) -> None:
        """Keep the vectors of *owner*, from one process to the next; called before anything else."""

    def resume(self) -> tuple[int, int] | None:
        """Return the version of the store and the greatest slot that are there, if that can be gone on with.

        None if everything is to be added again, of which what is there already may be passed over.

        Raises:
            IndexMismatch: What is there belongs to another memory or program.
        """

    def adopt(self, slots: NDArray[np.int64], last: int) -> None:
        """Go on with what `resume` found: *slots*, and none after *last*."""

    def restart(self) -> None:
        """Take back `adopt`: everything is to be added again, of which what is there may be passed over."""

    def reaching(self, version: int, mark: str | None) -> None:
        """Note that what is added and removed from now on leads to *version* of the store."""

    def check(self) -> None:
        """Complete what is there, should something be missing."""

    def describe(self, slots: NDArray[np.int64]) -> None:
        """Ask the owner again whose texts these are."""

    def caught_up(self, version: int, mark: str | None) -> None:
        """Note that everything up to *version* of the store was added and removed."""

    def settle(self) -> bool:
        """Leave everything in order for the next one; tell whether it could be reached. If not, it stays as it is."""

    def drop(self) -> None:
        """Delete what is there."""


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
    if name == "qdrant" and not installed("qdrant_client"):
        raise MissingDependency(
            "'qdrant_client' is not installed. Install it with: pip install 'raeburnmemory[qdrant]'"
        )
    return name


@dataclass(frozen=True)
class _Maker:
    """Makes indexes called `name`, and imports what is behind them only then."""

    name: str

    def __call__(self, dim: int) -> VectorIndex:
        if self.name == "exact":
            from .exact import ExactIndex

            return ExactIndex(dim)
        if self.name == "pgvector":
            from .pgvector import PgVectorIndex

            return PgVectorIndex(dim)
        from .faiss import FaissIndex

        return FaissIndex(dim)


def index_maker(name: str | None, url: str = ":memory:", location: object = None) -> Any:
    """Return what makes empty indexes called *name* (see `index_name`); *url* is where `qdrant` keeps them."""
    name = index_name(name, location)
    if name != "qdrant":
        return _Maker(name)
    with extra("qdrant", module="qdrant_client"):
        from .qdrant import Qdrant

    return Qdrant(url)


def open_index(name: str | None, dim: int, url: str = ":memory:") -> VectorIndex:
    """Open an empty index called *name* (see `index_name`) for vectors of *dim* numbers."""
    index: VectorIndex = index_maker(name, url)(dim)
    return index
