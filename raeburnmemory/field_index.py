"""The index of one field of vectors, and whose vectors they are: kept up with the store, saved when it pays."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np

from .errors import IndexUnavailable
from .index import Owner
from .index._columns import scratch_beside
from .nodes import Where
from .payloads import payloads, touched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from numpy.typing import NDArray

    from .index import RemoteIndex, SavedIndex, Scope, VectorIndex
    from .store import Store

    T = TypeVar("T")
    K = TypeVar("K")
    V = TypeVar("V")

__all__ = ["Alike", "FieldIndex", "remember"]

_SAVE_AFTER = 1000  # new vectors after which a saved index is worth replacing
_TRIES = 8  # at an index elsewhere: of several processes that begin it at once, each may take the place of another
_PAUSE = 0.05  # seconds at most before the second try, twice as long before each further one, so that they part
_PAIRS = 1 << 24  # comparisons in one block: a fraction of a second, during which the index is not to be had
_MOST = 4096  # vectors in one block
_MORE = 64  # hits to begin with where an index knows only the nearest few
_TABLE, _SPARSE = 32, 16  # for one row in so many, a table is faster than a search; none for rows that lie far apart
_TOLD = 1000  # new vectors up to which each is asked whose it is, instead of reading what all are
_KNOWN = 10_000  # namespaces of which something is remembered
_GATHER = 5  # comparing rows that are taken out costs this many times comparing all where they are


def remember(known: dict[K, V], key: K, value: V) -> None:
    """Let *known* hold *value*, and what was learnt last: anybody may ask for any number of namespaces."""
    known.pop(key, None)
    known[key] = value
    if len(known) > _KNOWN:
        del known[next(iter(known))]


class _Scanned(Protocol):
    """An index that can compare a query with all it holds; one that lives elsewhere, or skips most, cannot."""

    def scan(self, vector: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all slots and their scores in float32; equal rows score equally."""


class _Rough(Protocol):
    """An index that has most of the nearest for less than all of them."""

    def rough(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return slots and scores, best first."""


class _Scoped(Protocol):
    """An index that can be told what is true of all that is allowed."""

    def search(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None, scope: Scope | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return slots and scores."""


class _Paired(Protocol):
    """An index that can tell all pairs above a threshold at once; of others one asks for more and more hits."""

    def above(
        self, vectors: NDArray[np.float32], threshold: float, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the numbers of vectors, the slots and the scores of all pairs above *threshold*."""


class _Slots(Protocol):
    """What happened to slots after a version."""

    version: int
    reset: bool
    removed: NDArray[np.int64]
    slots: NDArray[np.int64]
    rows: NDArray[np.int64]


class _InStore(Protocol):
    """An index over the store's own vectors."""

    def follow(self, since: int) -> _Slots:
        """Return what came and went after a version, and go on with it."""


class Alike(NamedTuple):
    """One block of a namespace's vectors, each compared with all before it.

    `rows` and `others` are the node rows of the pairs above the threshold, `scores` their cosines. `last` is the last
    slot of the block and `last_row` the row of its node. `compared` counts the comparisons, `done` and `whole` the
    vectors up to there and all of them.
    """

    rows: NDArray[np.int64]
    others: NDArray[np.int64]
    scores: NDArray[np.float32]
    last: int
    last_row: int
    compared: int
    done: int
    whole: int


class _Labelled(Protocol):
    """An index that saves a number for every vector along with it."""

    labels: NDArray[np.int64] | None

    @property
    def slots(self) -> NDArray[np.int64]:
        """All slots, ascending."""


class FieldIndex:
    """One index and what it knows: which slots belong to which node rows, at which version of the store.

    For one thread at a time.
    """

    def __init__(self, store: Store, field: str, fresh: Callable[[int], VectorIndex]) -> None:
        self._store, self._field, self._fresh = store, field, fresh
        self.index = self._new(1)
        self._elsewhere = hasattr(self.index, "keep_for")
        # Of a namespace, as of so many removals and the last slot then: its slots, None if all are.
        self._allowed: dict[str, tuple[int, int, NDArray[np.int64] | None]] = {}
        self._taken_out = 0  # how often slots went
        self._forget_all()
        self._version = -1
        self._order: NDArray[np.int64] | None = None  # of the rows, once somebody asked
        self._in_step = -1  # the version at which the index has the slots that are known here
        self._unsaved = 0

    def _new(self, dim: int) -> VectorIndex:
        """Return an empty index, which may keep files where its cache goes, and asks the store for what it loses."""
        index, path = self._fresh(dim), self._store.cache_path(self._field)
        if hasattr(index, "scratch") and path is not None:
            index.scratch = scratch_beside(path, read_only=self._store.read_only)
        if hasattr(index, "source"):
            index.source = self._truth
        if hasattr(index, "keep_for"):
            cast("RemoteIndex", index).keep_for(self._owner())
        if hasattr(index, "bind"):
            index.bind(self._store, self._field)
        return index

    def _owner(self) -> Owner:
        store = self._store
        lasting = store.durability != "none"
        return Owner(
            store.id,
            self._field,
            store.location,
            lasting,
            store.version,
            store.mark,
            lambda: store.vector_slots(self._field)[0],
            self._truth,
            self._described,
        )

    def _described(self, slots: NDArray[np.int64]) -> list[dict[str, Any]]:
        return payloads(self._store, self.rows_of(slots).tolist())

    def _truth(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for block in self._store.vectors(self._field, -1).blocks:
            yield block.slots, block.values

    def _forget_all(self) -> None:
        self._slots = self._rows = np.empty(0, np.int64)  # the first _count are in use
        self._count, self._rising = 0, True  # rows ascend as slots do, until a text is replaced
        self._single = True  # and no row has two of them
        self._allowed.clear()

    def _take_out(self, removed: NDArray[np.int64]) -> None:
        gone = np.searchsorted(self.slots, removed)
        gone = gone[gone < self._count]
        gone = gone[np.isin(self.slots[gone], removed)]
        self._slots, self._rows = np.delete(self.slots, gone), np.delete(self.rows, gone)
        self._count = len(self._slots)
        self._taken_out += 1

    def _know(self, slots: NDArray[np.int64], rows: NDArray[np.int64], *, kept: bool = False) -> None:
        """Note whose vectors are at *slots*, which are greater than all before; the first as they are, if *kept*."""
        if not len(slots):
            return
        end = self._count + len(slots)
        if kept and not self._count:
            self._slots, self._rows = slots, rows
        else:
            if end > len(self._slots):
                longer = max(end, 2 * len(self._slots))
                self._slots = np.concatenate([self.slots, np.empty(longer - self._count, np.int64)])
                self._rows = np.concatenate([self.rows, np.empty(longer - self._count, np.int64)])
            self._slots[self._count : end], self._rows[self._count : end] = slots, rows
        before = max(self._count - 1, 0)
        steps = np.diff(self._rows[before:end])
        self._rising = self._rising and bool(np.all(steps >= 0))
        self._single = self._single and bool(np.all(steps > 0))
        self._count = end

    @property
    def slots(self) -> NDArray[np.int64]:
        """The slots of all vectors, ascending; not to be changed."""
        return self._slots[: self._count]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The node row of each of `slots`; not to be changed."""
        return self._rows[: self._count]

    def catch_up(self, version: int, *, there: bool = True) -> None:
        """Bring the index to the version of the store, which was *version* a moment ago.

        If nothing of this field is *there*, an empty index is at that version already.
        """
        if version == self._version:
            return
        if not there and not self._elsewhere and not len(self.index):
            self._version = version
            return
        if hasattr(self.index, "in_store"):
            self._follow()
            return
        for tried in range(_TRIES):
            try:
                self._catch_up()
            except IndexUnavailable as exc:
                self._start_over()
                if tried == _TRIES - 1 or not exc.lost:
                    raise
                import random

                time.sleep(random.uniform(0, _PAUSE * 2**tried))  # noqa: S311 - not a secret
            else:
                return

    @property
    def single(self) -> bool:
        """Whether no row has two vectors, rows ascend as slots do, and nobody else can know of others."""
        return self._single and not self._elsewhere

    @property
    def _remote(self) -> RemoteIndex | None:
        """The index, if it is elsewhere."""
        return cast("RemoteIndex", self.index) if self._elsewhere else None

    def _start_over(self) -> None:
        """Know nothing any more: what an index elsewhere holds is looked up the next time."""
        self.index, self._version = self._new(self.index.dim), -1
        self._forget_all()

    def _catch_up(self) -> None:
        begun = self._version
        if begun < 0:
            self._load()
        changes, remote = self._store.vectors(self._field, self._version), self._remote
        if changes.reset and begun >= 0 and remote is not None:
            self._start_over()
            self._load()  # another process may have brought there what is new already
            changes, remote = self._store.vectors(self._field, self._version), self._remote
        since = -1 if changes.reset else self._version
        if changes.reset:
            self._forget_all()
            if remote is None:
                self.index = self._new(self.index.dim)
            elif self._version >= 0:
                remote.restart()
        if remote is not None:
            remote.reaching(changes.version, self._store.mark(changes.version))
        if len(changes.removed) and not changes.reset:
            self.index.remove(changes.removed)
            self._take_out(changes.removed)
            self._unsaved += len(changes.removed)
        known = int(self.slots[-1]) if self._count else -1
        for block in changes.blocks:
            if not len(self.index) and self.index.dim != block.values.shape[1]:
                self.index = self._new(block.values.shape[1])
                if (remote := self._remote) is not None:
                    if remote.resume() is not None:
                        remote.restart()
                    remote.reaching(changes.version, self._store.mark(changes.version))
            new = int(np.searchsorted(block.slots, known, "right"))
            self._know(block.slots[new:], block.rows[new:])
            self.index.add(block.slots, block.values)
            self._unsaved += len(block.slots)
        if remote is not None:
            if since >= 0:
                self._describe_anew(remote, since, known)
                if begun < 0:
                    remote.check()
            remote.caught_up(changes.version, self._store.mark(changes.version))
        self._order, self._version = None, changes.version

    def _describe_anew(self, index: RemoteIndex, since: int, known: int) -> None:
        """Tell *index* whose texts its vectors are now, of those that it had at version *since*."""
        self._order = None
        rows = touched(self._store, since)
        slots = self.slots if rows is None else self.slots_at(rows)
        index.describe(slots[slots <= known])

    def _asked(self, what: Callable[[VectorIndex], T]) -> T:
        """Ask the index; once more where it turns out to have been replaced elsewhere."""
        try:
            return what(self.index)
        except IndexUnavailable as exc:
            if not exc.lost:
                raise
        self._start_over()
        self.catch_up(self._store.version())
        return what(self.index)

    def search(
        self,
        query: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None,
        scope: Scope | None = None,
        *,
        rough: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and scores of the *k* nearest; *scope* is true of all that are *allowed*.

        *rough* ones are most of the nearest, where the index has a search for them.
        """
        if self._remote is not None:
            return self._asked(lambda index: cast("_Scoped", index).search(query, k, allowed, scope))
        if rough and hasattr(self.index, "rough"):
            return cast("_Rough", self.index).rough(query, k, allowed)
        return self.index.search(query, k, allowed)

    def get(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of those of *slots* (ascending) that are present."""
        return self._asked(lambda index: index.get(slots))

    def _follow(self) -> None:
        """Learn which slots there are, of an index whose vectors are in the store: none of them has to be read."""
        changes = cast("_InStore", self.index).follow(self._version)
        if changes.reset:
            self._forget_all()
        elif len(changes.removed):
            self._take_out(changes.removed)
        self._know(changes.slots, changes.rows)
        self._order, self._version = None, changes.version

    def build(self) -> None:
        """Let an index that prepares itself at leisure do so."""
        if hasattr(self.index, "build"):
            self.index.build()

    def rows_of(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the node row of each of *slots*, -1 for one that is gone."""
        known = self.slots
        if not len(known):
            return np.full(len(slots), -1)
        at = np.minimum(known.searchsorted(slots), len(known) - 1)
        return np.where(known[at] == slots, self.rows[at], -1)

    def slots_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slots of the nodes at *rows* (ascending), ascending."""
        known, slots = self.rows, self.slots
        if len(rows) and self._rising:  # nothing but what lies between the first and the last of them
            low, high = known.searchsorted((int(rows[0]), int(rows[-1]) + 1))
            known, slots = known[low:high], slots[low:high]
            if len(known) == len(rows) and not np.count_nonzero(known != rows):  # as of a session of prompts
                return slots
        if len(rows) * _TABLE < len(known) or not len(rows):
            return self.places_of(rows)[0]
        first = min(int(rows[0]), int(known.min(initial=rows[0])))
        last = max(int(rows[-1]), int(known.max(initial=rows[-1])))
        if last - first > _SPARSE * len(known):
            return self.places_of(rows)[0]
        there = np.zeros(last - first + 1, np.bool_)
        there[rows - first] = True
        return slots[there[known - first]]

    def places_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots of the nodes at *rows* (ascending), and for each slot the place of its row in *rows*."""
        if self._single and self._count:
            found = np.minimum(np.searchsorted(self.rows, rows), self._count - 1)
            places = np.flatnonzero(self.rows[found] == rows)
            return self.slots[found[places]], places
        if self._order is None and not self._rising:
            self._order = np.argsort(self.rows, kind="stable")
        low = np.searchsorted(self.rows, rows, "left", sorter=self._order)
        sizes = np.searchsorted(self.rows, rows, "right", sorter=self._order) - low
        at = np.repeat(np.arange(len(rows)), sizes)
        positions = np.arange(len(at)) + (low - np.cumsum(sizes) + sizes)[at]
        if self._order is None:
            return self.slots[positions], at
        positions = self._order[positions]
        ascending = np.argsort(positions)
        return self.slots[positions[ascending]], at[ascending]

    def slots_of(self, namespace: str) -> NDArray[np.int64] | None:
        """Return the slots of *namespace*, None if that is all of them."""
        if not self._count:
            return self.slots  # whose namespaces need not be asked for
        taken_out, last, allowed = self._allowed.get(namespace, (-1, -1, None))
        newest = int(self.slots[-1])
        if (taken_out, last) != (self._taken_out, newest):
            if allowed is not None and taken_out != self._taken_out:
                places = np.minimum(self.slots.searchsorted(allowed), self._count - 1)
                allowed = allowed[self.slots[places] == allowed]
            first = int(np.searchsorted(self.slots, last, "right")) if last >= 0 else -1
            if first >= 0 and self._count - first <= _TOLD:
                allowed = self._allowed_with(allowed, first, namespace)
            elif self._alone(namespace):
                allowed = None
            else:
                allowed = self.slots[np.isin(self.rows, self._store.rows(Where(namespace)))]
            remember(self._allowed, namespace, (self._taken_out, newest, allowed))
        return allowed

    def _alone(self, namespace: str) -> bool:
        """Tell whether there is no other namespace; without listing them all where what is at the ends tells."""
        ends = self._store.at_rows([int(self.rows[0]), int(self.rows[-1])])
        return all(node.namespace == namespace for node in ends.values()) and self._store.namespaces() == [namespace]

    def _allowed_with(self, allowed: NDArray[np.int64] | None, first: int, namespace: str) -> NDArray[np.int64] | None:
        """Return what of *namespace* were *allowed* (None: all), and of the slots from place *first* on those of it."""
        rows, new = self.rows[first:].tolist(), self.slots[first:]
        if not rows:
            return allowed
        nodes = self._store.at_rows(list(dict.fromkeys(rows)))
        own = np.array([row in nodes and nodes[row].namespace == namespace for row in rows], np.bool_)
        if allowed is None and own.all():
            return None
        return np.concatenate([self.slots[:first] if allowed is None else allowed, new[own]])

    def alike(self, after: int, namespace: str, threshold: float) -> Alike | None:
        """Compare the next vectors of *namespace* behind slot *after* with all before them; None if there are none."""
        slots = self.slots_of(namespace)
        slots = self.slots if slots is None else slots
        start = int(np.searchsorted(slots, after, "right"))
        end = min(len(slots), start + max(1, min(_MOST, _PAIRS // max(start, _MOST))))
        block = slots[start:end]
        if not len(block):
            return None
        numbers, found, scores = self._above(self.get(block), threshold, slots[:end])
        told = self.rows_of(block)
        rows, others = told[numbers], self.rows_of(found)
        keep = (found < block[numbers]) & (rows != others) & (others >= 0)
        compared = end * len(block)
        return Alike(rows[keep], others[keep], scores[keep], int(block[-1]), int(told[-1]), compared, end, len(slots))

    def _above(
        self, vectors: NDArray[np.float32], threshold: float, allowed: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        if hasattr(self.index, "above"):
            return cast("_Paired", self.index).above(vectors, threshold, allowed)
        numbers, slots, scores = [], [], []
        for number, vector in enumerate(vectors):
            wanted = _MORE
            found, values = self.search(vector, wanted, allowed)
            while len(found) == wanted and values[-1] > threshold:
                wanted *= 4
                found, values = self.search(vector, wanted, allowed)
            over = values > threshold
            numbers.append(np.full(int(over.sum()), number))
            slots.append(found[over])
            scores.append(values[over])
        return np.concatenate(numbers), np.concatenate(slots), np.concatenate(scores)

    @property
    def mode(self) -> str:
        """How the index compares at present (see `raeburnmemory.index.faiss`), or its name if it does not say."""
        return str(getattr(self.index, "mode", self.index.name))

    @property
    def scannable(self) -> bool:
        """Whether `scan` can be asked."""
        return hasattr(self.index, "scan")

    @property
    def skips(self) -> bool:
        """Whether a search does without comparing most vectors whole."""
        return bool(getattr(self.index, "mode", "float32") != "float32")

    def scan(self, query: NDArray[np.float32], namespace: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return node rows and the scores of their vectors, of all of *namespace* and perhaps of others."""
        allowed = self.slots_of(namespace)
        if allowed is not None and len(allowed) * _GATHER < len(self.slots):
            return self.rows_of(allowed), np.einsum("ij,j->i", self.get(allowed), query)
        slots, scores = cast("_Scanned", self.index).scan(query)
        if self._in_step != self._version and np.array_equal(slots, self.slots):
            self._in_step = self._version
        return self.rows if self._in_step == self._version else self.rows_of(slots), scores

    def _stamp(self) -> dict[str, object]:
        return {"store": self._store.id, "field": self._field}

    def _load(self) -> None:
        path, record = self._store.cache_path(self._field), self._store.meta("embedder")
        if self._remote is not None:
            self._resume(record)
            return
        if path is None or not isinstance(record, dict) or not os.path.exists(path):
            return
        index = cast("SavedIndex", self._new(record["dim"]))
        stamp = index.load(path, self._stamp())
        version = stamp.get("version") if stamp else None
        if isinstance(version, int) and stamp and stamp.get("mark") == self._store.mark(version) is not None:
            self.index, self._version = index, version
            rows = getattr(index, "labels", None)
            if rows is not None:
                # The index holds them too, and does not write into them: a million are 16 MB.
                self._know(cast("_Labelled", index).slots, rows, kept=True)
            else:
                # Newer than the file, perhaps: what the index lacks comes with the changes, and is known by then.
                self._know(*self._store.vector_slots(self._field), kept=True)

    def _resume(self, record: Any) -> None:
        """Go on with what an index elsewhere holds already."""
        if not isinstance(record, dict):
            return
        index = cast("RemoteIndex", self._new(record["dim"]))
        self.index, found = index, index.resume()
        if found is not None:
            self._version, last = found
            slots, rows = self._store.vector_slots(self._field)
            index.adopt(slots[slots <= last], last)
            self._know(slots, rows)

    def close(self) -> bool:
        """Leave an index elsewhere in order; tell whether it can be reached."""
        return True if (remote := self._remote) is None else remote.settle()

    def drop(self) -> None:
        """Throw away what is kept of the index from one process to the next."""
        path = self._store.cache_path(self._field)
        if (remote := self._remote) is not None:
            remote.drop()
        elif path is not None and os.path.exists(path):
            os.unlink(path)

    def worth_saving(self) -> bool:
        """Tell whether the index changed enough since it was loaded, or has to replace a file that was damaged."""
        if getattr(self.index, "mended", False):
            return True
        if self._remote is not None:
            return False
        enough = 0 if getattr(self.index, "extensible", False) else len(self.slots) // 10
        return self._unsaved > max(_SAVE_AFTER, enough)

    def save(self) -> None:
        """Save the index, unless what it holds may have been erased since it caught up."""
        path, mark = self._store.cache_path(self._field), self._store.mark(self._version)
        if path is not None and mark is not None:
            if hasattr(self.index, "labels"):
                index = cast("_Labelled", self.index)
                index.labels = self.rows if np.array_equal(index.slots, self.slots) else None
            cast("SavedIndex", self.index).save(path, {**self._stamp(), "version": self._version, "mark": mark})
            self._unsaved = 0
