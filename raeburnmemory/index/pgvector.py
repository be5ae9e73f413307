"""An index that lives in the PostgreSQL server: pgvector, over the same rows that the store writes.

There is no second copy and nothing to catch up with: what a transaction wrote is found in it. Up to 10,000 vectors (of
those that a search may find) are all compared; beyond, an HNSW graph proposes (Malkov and Yashunin, "Efficient and
robust approximate nearest neighbor search using hierarchical navigable small world graphs", 2018). Filters go along: an
iterative scan goes on until enough of what it finds is allowed, and if it gives up before, everything is compared.

The server's distances are sums of float32 and only propose; the scores are computed again from the vectors, the same
way as every index here has them.
"""

from __future__ import annotations

import logging
import shlex
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import InvalidInput, MemoryGraphError
from ._arrays import integers, scores_of, slack_for
from ._given import checked_allowed, checked_query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["EXACT", "PgVectorIndex"]

log = logging.getLogger("raeburnmemory")

EXACT = 10_000
"""Vectors up to which all are compared."""
_AT_A_SEARCH = 50_000  # vectors up to which a search that finds no graph has it made, which takes seconds
_PATIENCE = 2.0  # seconds for which such a search waits for one who began before it, as a dump did
_AGAIN = 600.0  # seconds after which the next one tries again
_WIDE, _WIDEST = 2000, 4000  # numbers that HNSW takes: of a vector, and of one with half as many bits each
# Candidates that a search keeps (ef_search). Of questions about what the texts are about, 100 miss nothing either; of
# questions that lie between the topics, 400 find 95 of 100 where 100 find 67 (20,000 vectors of 256), in 6 ms, not 4.
_BEAM, _WIDEST_BEAM = 400, 1000
_DEGREE, _EFFORT = 16, 128  # m and ef_construction of the graph
_MORE = 20  # candidates beyond k that are scored again
_SLACK = 1.01  # unit rows may be a little longer than 1

Found = tuple["NDArray[np.int64]", "NDArray[np.float32]"]


class _Home(Protocol):
    """What a PostgreSQL store offers its index."""

    location: str
    read_only: bool

    @property
    def may_build(self) -> bool:
        """Whether a graph may be made now, and would not wait for what the caller itself holds."""

    def slots_since(self, field: str, since: int) -> Any:
        """Return which slots of *field* came and went after a version."""

    def vectors_by(
        self, sql: str, values: Sequence[Any], dim: int, settings: Sequence[str] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and vectors that a query gives."""

    def numbers_by(self, sql: str, values: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and numbers that a query gives."""

    def graph_of(self, number: int) -> bool:
        """Tell whether there is an HNSW graph over set *number*."""

    def make_graph(
        self, number: int, expression: str, options: str, *, bytes_needed: int, patience: float | None = None
    ) -> bool:
        """Make that graph, unless somebody else is at it; tell whether it is there."""


class PgVectorIndex:
    """The vectors of one field of a PostgreSQL store. `bind` says which; what the store writes needs no `add`."""

    name = "pgvector"
    in_store = True
    """Whoever keeps it up need not read the vectors: they are where they belong."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._home: _Home | None = None
        self._field = ""
        self._known = np.empty(0, np.int64)  # the slots that there are
        self._number = -1  # of the store's set
        self._next = 0  # the slot after the last that was given
        self._graph = False
        self._warned = False
        self._not_before = 0.0  # when a search may try to make a graph again

    def bind(self, store: Any, field: str) -> None:
        """Say whose vectors these are.

        Raises:
            InvalidInput: That store keeps no vectors in PostgreSQL.
        """
        if not hasattr(store, "make_graph"):
            raise InvalidInput(
                f"vector_backend='pgvector' searches in a PostgreSQL server, and {store.location!r} is a {store.name} "
                f"store. Choose 'faiss' or 'exact', or name a postgresql:// URL."
            )
        self._home, self._field = store, field

    def follow(self, since: int) -> Any:
        """Return what came and went after version *since* of the store, and go on with it.

        Where others remove any of it later, it gets a row of zeros, so that what is asked for and what comes always
        fit each other.
        """
        assert self._home is not None
        changes = self._home.slots_since(self._field, since)
        if changes.reset:
            self._known = changes.slots
        else:
            self._known = np.concatenate([self._without(changes.removed), changes.slots])
        if changes.found is not None:
            if changes.found.number != self._number:
                self._number, self._graph, self._warned = changes.found.number, False, False
            self.dim, self._next = changes.found.dim, changes.found.next_slot
        return changes

    def _without(self, removed: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.setdiff1d(self._known, removed, assume_unique=True) if len(removed) else self._known

    @property
    def mode(self) -> str:
        """How a search among all vectors compares now: "float32" (every one) or "hnsw" (where a graph leads)."""
        return "hnsw" if len(self) > EXACT and self._graph else "float32"

    def add(self, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Do nothing: the store has written them, in the transaction of what they belong to."""

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Do nothing: the store has removed them."""

    def __len__(self) -> int:
        return len(self._known)

    @property
    def ntotal(self) -> int:
        """The number of vectors, under the name that FAISS gives it."""
        return len(self)

    def save(self, path: str, stamp: dict[str, object]) -> None:
        """Refuse: there is nothing that a file could be for."""
        raise InvalidInput(f"The vectors are in the server, so that there is nothing to save to {path!r} ({stamp}).")

    def load(self, path: str, stamp: dict[str, object]) -> dict[str, object] | None:  # noqa: ARG002
        """Return None: it is never saved."""
        return None

    # --- searching ----------------------------------------------------------------------------------------------

    def search(self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        """Return the slots and scores of the *k* nearest, best first; fewer when there are fewer.

        A score is the inner product in float64, rounded to float32; equal scores are ordered by slot. Up to `EXACT`
        vectors, or *allowed* slots, nothing nearer is missed; beyond, the graph may miss one in some hundreds.

        Raises:
            DimensionMismatch: The vector has another length than `dim`.
            InvalidInput: The vector is not finite, or *allowed* does not ascend.
        """
        query, length = checked_query(vector, self.dim)
        if allowed is not None:
            allowed = checked_allowed(allowed)
            allowed = allowed[(allowed >= 0) & (allowed < self._next)]
        most = len(self) if allowed is None else min(len(self), len(allowed))
        k = min(k, most)
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if most > EXACT and length and self._has_graph():
            slots, rows = self._led(query, k, allowed)
            if len(slots) >= k:
                return _best(slots, scores_of(rows, query), k)
        slots, rows = self._compared(query, k, allowed, slack_for(self.dim, length * _SLACK))
        return _best(slots, scores_of(rows, query), k)

    def get(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of those of *slots* (ascending) that are present, in their order (n, dim)."""
        sql = (
            f'SELECT slot, vector FROM vectors WHERE "set" = {self._number} AND slot = ANY(%s::bigint[]) ORDER BY slot'
        )
        wanted = integers(slots, "slots")
        if not len(wanted):
            return np.empty((0, self.dim), np.float32)
        found, rows = self._ask(sql, [wanted.tolist()])
        if len(found) == len(wanted):
            return rows
        wanted = wanted[np.isin(wanted, self._known)]
        whole = np.zeros((len(wanted), self.dim), np.float32)
        keep = np.isin(found, wanted)
        whole[np.searchsorted(wanted, found[keep])] = rows[keep]
        return whole

    def products(self, slots: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the inner products of *query* with the vectors at *slots* (ascending), as the server has them.

        In float32, which is near enough to rank by; 0 for what is gone. A hundredth of what the vectors would weigh.
        """
        assert self._home is not None
        found = np.zeros(len(slots), np.float32)
        if len(slots):
            sql = (
                f'SELECT slot, (-(vector <#> %s::vector))::float4 FROM vectors WHERE "set" = {self._number} '
                "AND slot = ANY(%s::bigint[])"
            )
            there, values = self._home.numbers_by(sql, [_literal(query), slots.tolist()])
            found[np.searchsorted(slots, there)] = values + np.float32(0)
        return found

    def _ask(self, sql: str, values: Sequence[Any], settings: Sequence[str] = ()) -> Found:
        assert self._home is not None
        return self._home.vectors_by(sql, values, self.dim, settings)

    def _compared(self, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None, slack: float) -> Found:
        """Return all that are at most *slack* behind the k-th, by comparing everything."""
        condition, values = _within(allowed)
        if not query.any():  # equally far from everything: the smallest slots
            sql = f'SELECT slot, vector FROM vectors WHERE "set" = {self._number}{condition} ORDER BY slot LIMIT %s'
            return self._ask(sql, [*values, k])
        # The vectors themselves only of those that come into question: of equal ones there may be many. As an array,
        # else the server expects a third of all, and goes through the whole table once more.
        sql = (
            f"WITH scored AS MATERIALIZED (SELECT slot, vector <#> %s::vector AS distance FROM vectors "
            f'WHERE "set" = {self._number}{condition}), '
            f"nearest AS (SELECT distance FROM scored ORDER BY distance LIMIT %s), "
            f"last AS (SELECT max(distance) AS distance FROM nearest) "
            f'SELECT slot, vector FROM vectors WHERE "set" = {self._number} AND slot = ANY(ARRAY('
            f"SELECT slot FROM scored JOIN last ON scored.distance <= last.distance + %s)) ORDER BY slot"
        )
        return self._ask(sql, [_literal(query), *values, k, slack])

    def _led(self, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None) -> Found:
        """Return the nearest that the graph leads to."""
        condition, values = _within(allowed)
        wanted = k + max(k // 2, _MORE)
        beam = min(max(wanted, _BEAM), _WIDEST_BEAM)
        kind = self._kind
        sql = (  # the set, the length and the cast as the graph has them, else it would not be used
            f'SELECT slot, vector FROM (SELECT slot, vector FROM vectors WHERE "set" = {self._number}{condition} '
            f"ORDER BY (vector::{kind}) <=> %s::{kind} LIMIT %s) t ORDER BY slot"
        )
        settings = [
            f"SET LOCAL hnsw.ef_search = {beam}",
            "SET LOCAL hnsw.iterative_scan = relaxed_order",
            # Filters keep what they let through of all, so that all must be within reach.
            f"SET LOCAL hnsw.max_scan_tuples = {max(20_000, min(self._next, 2**31 - 1))}",
            "SET LOCAL hnsw.scan_mem_multiplier = 4",
            "SET LOCAL enable_seqscan = off",
            "SET LOCAL enable_sort = off",
        ]
        return self._ask(sql, [*values, _literal(query), wanted], settings)

    # --- the graph ----------------------------------------------------------------------------------------------

    @property
    def _kind(self) -> str:
        return f"{'vector' if self.dim <= _WIDE else 'halfvec'}({self.dim})"

    def _has_graph(self) -> bool:
        """Tell whether there is a graph; make one where that takes no longer than somebody waits for a search."""
        assert self._home is not None
        if self.dim > _WIDEST:
            return False
        if not self._graph:
            self._graph = self._home.graph_of(self._number)
            if not self._graph and (self._home.read_only or len(self) > _AT_A_SEARCH):
                self._warn("")
            elif not self._graph and not self._home.may_build:
                self._warn(" None is made within a snapshot or a section.")
            elif not self._graph and time.monotonic() >= self._not_before:
                try:
                    self.build(patience=_PATIENCE)
                except MemoryGraphError as exc:  # a search needs no graph, and perhaps no right to make one
                    self._not_before = time.monotonic() + _AGAIN
                    self._warn(f" None could be made now: {str(exc).rstrip('.')}.")
        return self._graph

    def _warn(self, reason: str) -> None:
        """Say once that there is no graph."""
        assert self._home is not None
        if not self._warned:
            self._warned = True
            log.warning(
                "%r holds %d vectors of %r without an HNSW graph, so that every search compares all of them.%s Make "
                "one with: raeburnmemory --db %s reindex",
                self._home.location, len(self), self._field, reason, shlex.quote(self._home.location),
            )  # fmt: skip

    def build(self, patience: float | None = None) -> None:
        """Make the HNSW graph if there are enough vectors for it to be of use, while others read and write.

        It waits for every transaction in the database that began before, each for *patience* seconds. In one's own it
        would wait for itself, so that it is left for later.
        """
        assert self._home is not None
        if len(self) <= EXACT or self.dim > _WIDEST or not self._home.may_build:
            return
        log.info("Making an HNSW graph over %d vectors in %r.", len(self), self._home.location)
        operators = "vector_cosine_ops" if self.dim <= _WIDE else "halfvec_cosine_ops"
        self._graph = self._home.make_graph(
            self._number,
            f"(vector::{self._kind}) {operators}",
            f"m = {_DEGREE}, ef_construction = {_EFFORT}",
            bytes_needed=int(1.3 * len(self) * (4 * self.dim + 16 * _DEGREE + 200)),
            patience=patience,
        )


def _within(allowed: NDArray[np.int64] | None) -> tuple[str, list[Any]]:
    """Return a condition for slots that are allowed: a list of few, one bit for each of many."""
    if allowed is None:
        return "", []
    if len(allowed) <= EXACT:
        return " AND slot = ANY(%s::bigint[])", [allowed.tolist()]
    first, last = int(allowed[0]), int(allowed[-1])
    bits = np.zeros(last - first + 1, np.bool_)
    bits[allowed - first] = True
    # get_bit counts from the lowest bit of each byte.
    packed = np.packbits(bits, bitorder="little").tobytes()
    return f" AND slot BETWEEN {first} AND {last} AND get_bit(%s::bytea, slot - {first}) = 1", [packed]


def _literal(vector: NDArray[np.float32]) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


def _best(slots: NDArray[np.int64], values: NDArray[np.float32], k: int) -> Found:
    order = np.argsort(-values, kind="stable")[:k]  # slots ascend, so that stable means by slot
    return slots[order], values[order]
