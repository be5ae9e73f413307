"""Nearest vectors in Qdrant: in this process, in a folder of its own, or on a server or cluster.

Every field of a memory has a collection, see `_qdrant_collection`. Vectors have length 1, so the inner product is the
cosine. Distance "Cosine" was turned down: Qdrant then scales what it is given, and what it gives back is not what the
store holds to the last bit.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from qdrant_client import models

from ..errors import IndexUnavailable, InvalidInput
from ._arrays import grown, integers, longest, scores_of, slack_for
from ._given import checked_allowed, checked_dim, checked_new, checked_query
from ._qdrant_collection import VECTOR, Collection
from ._qdrant_place import Connection, LostError, Place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import Owner, Scope

__all__ = ["Qdrant", "QdrantIndex"]

log = logging.getLogger("raeburnmemory")

_SPARE = 16  # hits beyond those that are wanted: scores of the server are rounded
_BY_ID = 1000  # slots up to which they are named one by one
_RUNS = 64  # runs of slots up to which these are named
_NAMED = 100_000  # slots that are named in one request where nothing else tells them apart
_PATIENCE = 64  # times as many hits are looked through for those that are allowed, before these are named
_KEPT = 8192  # vectors that were found of late, and are often asked for next
_NOTE_AFTER = 1000  # points that a crash may make us write again
_EXACT = 100_000
_NO_SLOTS = np.empty(0, np.int64)


class Qdrant:
    """A place for the vectors of memories: pass it as `vector_backend`, where `qdrant_url` alone does not say enough.

    *url* is `":memory:"`, a folder, or that of a server. *api_key* is sent to a server; without it, the variable
    `RAEBURN_QDRANT_API_KEY` is taken, but only if the URL is https or leads to this machine. With *grpc_port* (6334
    as a rule) gRPC is used where it can be. *collection* begins the names of the collections, else that is
    `raeburnmemory_` and the id of the memory. *shards* and *replicas* are for collections that are made; *on_disk*
    keeps their vectors there instead of in the server's memory. Up to *exact_up_to* vectors all are compared with a
    question, beyond that the nearest are found by a graph, which now and then misses one. *timeout* is how many
    seconds a call waits for the server.

    Raises:
        InvalidInput: One of these cannot be, or is for servers and *url* is none.

    >>> from raeburnmemory import MemoryGraph
    >>> with MemoryGraph(":memory:", "builtin", vector_backend=Qdrant(":memory:", collection="notes")) as memory:
    ...     _ = memory.add_interaction({"id": "p1", "text": "Where is the spare key?"}, "Under the blue pot.")
    ...     memory.get_similar_prompts("the key")
    ['p1']
    """

    name = "qdrant"

    def __init__(
        self,
        url: str = ":memory:",
        *,
        api_key: str | None = None,
        grpc_port: int | None = None,
        collection: str | None = None,
        shards: int | None = None,
        replicas: int | None = None,
        on_disk: bool = False,
        exact_up_to: int = _EXACT,
        timeout: float = 10.0,
    ) -> None:
        if not isinstance(url, str):
            raise InvalidInput(f"The URL of Qdrant must be a string, not {url!r}.")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 1 <= timeout < 1e6:
            raise InvalidInput(f"The timeout of Qdrant must be a number of seconds, 1 or more, not {timeout!r}.")
        for name, value, least in (
            ("grpc_port", grpc_port, 1),
            ("shards", shards, 1),
            ("replicas", replicas, 1),
            ("exact_up_to", exact_up_to, 0),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InvalidInput(f"{name} must be a whole number, {least} or more, not {value!r}.")
        if collection is not None and not re.fullmatch(r"[\w.-]{1,128}", str(collection)):
            raise InvalidInput(
                f"The name of a collection is made of letters, digits, '_', '-' and '.', which {collection!r} is not."
            )
        self.place = Place(url, api_key, grpc_port, float(timeout))
        for name, value in (("shards", shards), ("replicas", replicas), ("on_disk", on_disk or None)):
            if value is not None and self.place.local:
                raise InvalidInput(f"{name}={value!r} is for a server, and Qdrant {self.place.shown} is none.")
        self.collection, self.exact_up_to = collection, exact_up_to
        self.shards, self.replicas, self.on_disk = shards, replicas, on_disk

    def __call__(self, dim: int) -> QdrantIndex:
        """Return an empty index for vectors of *dim* numbers, in a collection that goes when the index goes."""
        return QdrantIndex(self, Connection(self.place), dim)

    def connected(self) -> Connected:
        """Return what makes indexes until it is closed. A folder that is in use is an error now, not later."""
        return Connected(self, Connection(self.place))


class Connected:
    """A function from a dimension to an empty index, which has the connection to the place that all of them use."""

    name = "qdrant"

    def __init__(self, settings: Qdrant, connection: Connection) -> None:
        self._settings, self._connection = settings, connection

    def __call__(self, dim: int) -> QdrantIndex:
        """Return an empty index."""
        return QdrantIndex(self._settings, self._connection, dim)

    def close(self) -> None:
        """Let go of the client; the last one who uses it closes it."""
        self._connection.close()


class QdrantIndex:
    """Rows by slot in a collection. For one thread at a time.

    Every score is computed here from the vector that Qdrant found, as the exact indexes do it: the same to the last
    bit. Up to `exact_up_to` vectors the hits are proven to be the nearest, unless rounding hides more equals of the
    last hit than there are vectors; beyond that they are those that Qdrant's graph found.
    """

    name = "qdrant"

    def __init__(self, settings: Qdrant, connection: Connection, dim: int) -> None:
        self.dim = checked_dim(dim)
        self._settings = settings
        self._collection = Collection(settings, connection, dim)
        self._slots, self._count = _NO_SLOTS, 0  # the first _count are in use, ascending
        self._last, self._longest = -1, 1.0
        self._unnoted = 0  # changes since the collection was told how far it has come
        self._recent: dict[int, NDArray[np.float32]] = {}

    # --- what a search needs ------------------------------------------------------------------------------------

    @property
    def mode(self) -> str:
        """How a search compares now: "float32" (every vector, on the server) or "hnsw" (a graph of neighbours)."""
        return "float32" if self._count <= self._settings.exact_up_to or self._settings.place.local else "hnsw"

    @property
    def _live(self) -> NDArray[np.int64]:
        return self._slots[: self._count]

    def __len__(self) -> int:
        return self._count

    @property
    def ntotal(self) -> int:
        """The number of vectors, under the name that FAISS gives it."""
        return self._count

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        scope: Scope | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and scores of the *k* nearest, best first; fewer when there are fewer.

        *allowed* restricts the search before the top k is taken. *scope* is true of all that is allowed, and more:
        with it the server passes over most others.

        Raises:
            DimensionMismatch: The vector has another length than `dim`.
            InvalidInput: The vector is not finite, or *allowed* does not ascend.
            IndexUnavailable: Qdrant cannot be reached.
        """
        query, length = checked_query(vector, self.dim)
        live = self._live
        if allowed is not None:
            live = _common(live, checked_allowed(allowed))
        k = min(k, len(live))
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scale = length * self._longest
        if scale == 0.0:  # a query of zeros is equally far from everything: the smallest slots
            return live[:k].copy(), np.zeros(k, np.float32)
        slack = slack_for(self.dim, scale)
        found = self._candidates(query, k, live, slack, self._condition(live, scope))
        if found is None or len(found[0]) < k:  # the server knows too little of what is allowed: name it
            parts = [live[at : at + _NAMED] for at in range(0, len(live), _NAMED)]
            each = [self._candidates(query, k, part, slack, _named(part), patient=True) for part in parts]
            slots, rows = (np.concatenate(columns) for columns in zip(*filter(None, each), strict=True))
        else:
            slots, rows = found
        if len(slots) < k and self.mode == "float32":
            raise LostError(f"Qdrant {self._settings.place.shown} does not hold all that was written to it")
        values = scores_of(rows, query)
        order = np.lexsort((slots, -values))[:k]
        return slots[order], values[order]

    def _condition(self, live: NDArray[np.int64], scope: Scope | None) -> models.Filter | None:
        """Return what the server can check of *live*, or more than that."""
        if len(live) == self._count:
            return None
        if len(live) <= _BY_ID:
            return _named(live)
        must: list[Any] = []
        if scope is not None:
            for key, values in (("namespace", scope.namespaces), ("session", scope.sessions), ("agent", scope.agents)):
                if values is not None:
                    must.append(models.FieldCondition(key=key, match=models.MatchAny(any=list(values))))
            if scope.since is not None or scope.until is not None:
                must.append(models.FieldCondition(key="time", range=models.Range(gte=scope.since, lt=scope.until)))
        breaks = np.flatnonzero(np.diff(np.searchsorted(self._live, live)) != 1)  # others that live lie between
        if len(breaks) < _RUNS:
            firsts, lasts = live[np.append(0, breaks + 1)], live[np.append(breaks, -1)]
            runs: list[Any] = [
                models.FieldCondition(key="slot", range=models.Range(gte=first, lte=last))
                for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
            ]
            must.append(models.Filter(should=runs))
        return models.Filter(must=must) if must else None

    def _candidates(
        self,
        query: NDArray[np.float32],
        k: int,
        live: NDArray[np.int64],
        slack: float,
        condition: models.Filter | None,
        *,
        patient: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Return slots of *live*, and their vectors: the *k* nearest among them, or proven to be.

        None if *condition* lets through so much else that it is not worth going on; a *patient* search goes on.
        """
        limit, floor, most = k + _SPARE, None, _PATIENCE * (k + _SPARE)
        exact = len(live) <= self._settings.exact_up_to
        while True:
            params = None  # Qdrant in this process compares all, and warns of anything else
            if not self._settings.place.local:
                params = models.SearchParams(exact=True) if exact else models.SearchParams(hnsw_ef=max(128, limit))
            first = limit == k + _SPARE
            points = self._collection.ask(
                "query_points",
                query=query.tolist(),
                using=VECTOR,
                query_filter=condition,
                search_params=params,
                limit=limit,
                score_threshold=floor,
                with_payload=False if first else ["sum"],
                with_vectors=[VECTOR] if first else False,
            ).points
            found = np.array([point.id for point in points], np.int64)
            mine = np.flatnonzero(np.isin(found, live))  # others may have written what is not known here yet
            least = points[mine[k - 1]].score - slack if len(mine) >= k else None
            if len(points) < limit or (least is not None and (not exact or points[-1].score < least)):
                break
            if least is None:
                limit *= 4
                if limit > most and not patient:
                    return None
            else:  # more of them than expected score alike
                floor, limit = least - slack, 8 * limit
        chosen = [points[at] for at in mine.tolist() if least is None or points[at].score >= least]
        slots = np.array([point.id for point in chosen], np.int64)
        if not first:
            return slots, self._rows_alike(slots, [(point.score, (point.payload or {}).get("sum")) for point in chosen])
        rows = np.array([point.vector[VECTOR] for point in chosen], np.float32).reshape(-1, self.dim)
        self._remember(slots, rows)
        return slots, rows

    def _rows_alike(self, slots: NDArray[np.int64], known: list[tuple[float, Any]]) -> NDArray[np.float32]:
        """Return the vectors at *slots*; of those with equal score and checksum, which are equal, one is fetched."""
        firsts: dict[Any, int] = {}
        for slot, one in zip(slots.tolist(), known, strict=True):
            firsts.setdefault(one, slot)
        wanted = np.array(sorted(firsts.values()), np.int64)
        places = np.searchsorted(wanted, [firsts[one] for one in known])
        return np.asarray(self.get(wanted)[places])

    def _remember(self, slots: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        if len(self._recent) + len(slots) > _KEPT:
            self._recent.clear()
        self._recent.update(zip(slots[-_KEPT:].tolist(), rows[-_KEPT:], strict=True))

    def get(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of those of *slots* (ascending) that are present, in their order (n, dim).

        Raises:
            IndexUnavailable: Qdrant cannot be reached.
        """
        wanted = _common(self._live, integers(slots, "slots")).tolist()
        lacking = [slot for slot in wanted if slot not in self._recent]
        found = {slot: self._recent[slot] for slot in wanted if slot in self._recent}
        step = self._collection.at_once
        for start in range(0, len(lacking), step):
            some = lacking[start : start + step]
            records = self._collection.ask("retrieve", ids=some, with_payload=False, with_vectors=[VECTOR])
            found.update({record.id: np.array(record.vector[VECTOR], np.float32) for record in records})
        if len(found) < len(wanted):
            raise LostError(f"Qdrant {self._settings.place.shown} does not hold all that was written to it")
        if lacking:
            self._remember(np.array(lacking, np.int64), np.array([found[slot] for slot in lacking], np.float32))
        return np.array([found[slot] for slot in wanted], np.float32).reshape(-1, self.dim)

    # --- what is written ----------------------------------------------------------------------------------------

    def add(self, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add unit rows (n, dim) under ascending *slots*, each greater than any ever added here.

        Raises:
            DimensionMismatch: The rows have another length than `dim`.
            InvalidInput: A slot out of order, another number of slots than rows, or a row that is not finite.
            IndexUnavailable: Qdrant cannot be reached; some of them may be there.
        """
        slots, rows = checked_new(slots, vectors, self.dim, self._last)
        if not len(slots):
            return
        if slots[0] < 0:
            raise InvalidInput(f"Slots begin with 0; these begin with {slots[:3].tolist()}.")
        length = longest(rows)
        self._collection.upload(slots, rows)
        self._slots = grown(self._slots, self._count, len(slots))
        self._slots[self._count : self._count + len(slots)] = slots
        self._count += len(slots)
        self._last, self._longest = int(slots[-1]), max(self._longest, length)
        self._unnoted += len(slots)

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Remove those of *slots* that are present.

        Raises:
            IndexUnavailable: Qdrant cannot be reached; some of them may be gone.
        """
        slots = integers(slots, "slots")
        # Of a collection that others fill as well, more may be present than is known here.
        gone = np.unique(slots[(slots >= 0) & (slots <= self._last)])
        if not len(gone):
            return
        self._collection.delete(gone)
        left = self._live[~np.isin(self._live, gone)]
        self._slots, self._count = left, len(left)
        for slot in gone.tolist():
            self._recent.pop(slot, None)
        self._unnoted += len(gone)

    # --- what is kept from one process to the next, see `RemoteIndex` -------------------------------------------

    def keep_for(self, owner: Owner) -> None:
        """Keep the vectors of *owner*."""
        self._collection.owner = owner

    def resume(self) -> tuple[int, int] | None:
        """Look for the collection of the owner; return its version and the last slot in it if it can be gone on with.

        Raises:
            IndexMismatch: There is a collection of that name, and it is somebody else's.
            IndexUnavailable: Qdrant cannot be reached.
        """
        last = self._collection.find()
        return None if last is None else (self._collection.at[0], last)

    def adopt(self, slots: NDArray[np.int64], last: int) -> None:
        """Go on with the collection that `resume` found, in which *slots* are, and none after *last*."""
        self._slots, self._count, self._last = slots.copy(), len(slots), last

    def restart(self) -> None:
        """Take back `adopt`: everything is added again, of which what is there is passed over."""
        self._slots, self._count, self._last = _NO_SLOTS, 0, -1
        self._collection.at = (-1, None)
        self._collection.compare()

    def reaching(self, version: int, mark: str | None) -> None:
        """Note that what is added and removed from now on leads to *version* of the store."""
        self._collection.reaching(version, mark)

    def describe(self, slots: NDArray[np.int64]) -> None:
        """Write anew what the owner says about the texts of those of *slots* that are present."""
        self._collection.describe(_common(self._live, slots))

    def check(self) -> None:
        """Count what is there, and complete it if something is missing: a collection can be changed by anybody."""
        collection, owner = self._collection, self._collection.owner
        if collection.name is None or owner is None or collection.count(self._last) == self._count:
            return
        log.warning("%s does not hold what was written to it, and is completed.", collection.shown)
        collection.compare()
        for slots, rows in owner.truth():
            mine = np.isin(slots, self._live)
            collection.upload(slots[mine], rows[mine])
        collection.delete(collection.strangers())

    def caught_up(self, version: int, mark: str | None) -> None:
        """Note that all up to *version* of the store is here; in the collection, once that is worth a request."""
        first = not self._collection.full
        self._collection.delete(self._collection.strangers())
        self._collection.arrived(version, mark)
        if first or self._unnoted >= _NOTE_AFTER:
            self._collection.note(self._last)
            self._unnoted = 0

    def settle(self) -> bool:
        """Leave everything in order for the next one; what cannot be noted now is written again then."""
        owner = self._collection.owner
        try:
            if owner is not None and not owner.lasting:
                self.drop()
            elif self._unnoted:
                self._collection.note(self._last)
                self._unnoted = 0
        except IndexUnavailable as exc:
            log.info("How far the collection has come is not noted: %s", exc)
            return False
        return True

    def drop(self) -> None:
        """Delete the collection."""
        self._collection.drop()


def _named(slots: NDArray[np.int64]) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=slots.tolist())])


def _common(live: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of *slots* that live, in their order."""
    if not len(live):
        return slots[:0]
    at = np.minimum(np.searchsorted(live, slots), len(live) - 1)
    return np.asarray(slots[live[at] == slots])
