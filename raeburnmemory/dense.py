"""Meaning: which model a store's vectors come from, and which of them are nearest.

The store records the model's name, the length of its vectors and its vector for one fixed sentence. Two models are
the same if that sentence gets the same vector, however they are named and whatever computes them.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import zlib
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from .embed import (
    DEFAULT_MODEL,
    PROBE,
    checked_embed,
    is_address,
    is_elsewhere,
    model_name,
    open_default,
    open_embedder,
    same_model,
)
from .errors import (
    DimensionMismatch,
    EmbedderMismatch,
    EmbeddingsMissing,
    InvalidInput,
    LockTimeout,
    ModelUnavailable,
)
from .field_index import FieldIndex, remember
from .hits import Hit, Hits, Why
from .index import Scope, index_maker
from .index._arrays import by_rows
from .mutex import Mutex
from .nodes import FRAGMENT, PROMPT, Where
from .passages import EMBEDDED, PASSAGES, indexed_text
from .places import places_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .embed import Embedder
    from .field_index import Alike
    from .index import VectorIndex
    from .store import Store

__all__ = ["UNNAMED", "Dense", "describe"]

log = logging.getLogger("raeburnmemory")


class _Unnamed(str):
    """The default argument: shown as the model it stands for, but told from that model's name by identity."""

    __slots__ = ()


UNNAMED = _Unnamed("all-MiniLM-L6-v2")
_VARIABLE = "RAEBURN_EMBED_MODEL"
_AGREEMENT = 0.99  # cosine at which vectors of unknown origin count as a model's
_SAMPLE = 2048  # vectors per field from which a mean is taken
_COMMON = 0.75  # the share of the mean's direction that is taken out of a question
_FEW = 20  # texts
_SHORTEST = 1e-12  # a vector that somebody brings along is longer than that
_MANY = 1024  # vectors that are normalised at once
_SCANNED = 12_000_000  # numbers up to which all vectors are compared faster than the nearest are found
_BLOCK = 1024  # vectors that are compared while they are near the processor
_NOWHERE = 1e-6  # a vector shorter than that has no direction


class Dense:
    """The embedder of a store and the indexes over its vectors; safe to share between threads."""

    def __init__(self, store: Store, model: Any, index: Any, embedder: Embedder | None = None) -> None:
        self._store = store
        self._lock = Mutex()
        maker = index if callable(index) else index_maker(index, location=store.location)
        self.index_name = str(getattr(maker, "name", None) or getattr(maker, "__name__", "custom"))
        self._new_index: Callable[[int], VectorIndex] = maker.connected() if hasattr(maker, "connected") else maker
        self._indexes: dict[str, FieldIndex] = {}
        self._fields: tuple[int, set[str]] = (-1, set())  # that have vectors, at a version
        # The indexes that hold anything, at a version: those of whole texts, and of passages.
        self._filled: tuple[int, dict[bool, list[FieldIndex]]] = (-1, {})
        self._centres: dict[str, tuple[int, NDArray[np.float64], int]] = {}
        # Of a namespace and a field: which vectors of which index were added up, and their sum.
        self._sums: dict[tuple[str, str], tuple[VectorIndex, NDArray[np.int64], NDArray[np.float64]]] = {}
        self._embedder = embedder  # loaded already, to see whether it can be had
        self.dim_seen: int | None = None  # in the record when it was last read
        self._bound: dict[str, Any] | None = None  # the record that the embedder was compared with
        variable = os.environ.get(_VARIABLE)
        self._spec = variable or model
        if not variable and isinstance(model, str) and model is not UNNAMED:
            self._refuse_other_name(model)

    @staticmethod
    def named(model: Any) -> Any:
        """Return the model that a new store is to use if somebody named one, else None."""
        variable = os.environ.get(_VARIABLE)
        if variable:
            return open_embedder(variable)
        return None if model is UNNAMED else open_embedder(model)

    def use(self, model: Any, embedder: Embedder, record: dict[str, Any]) -> None:
        """Go on with *model*, opened as *embedder*, to which the store was moved."""
        with self._lock.lock:
            self._spec, self._embedder, self._bound = model, embedder, record

    # --- the model ----------------------------------------------------------------------------------------------

    @property
    def chosen(self) -> bool:
        """Whether a model was named when the memory was opened, rather than left to what the store records."""
        return self._spec is not UNNAMED

    def record(self) -> dict[str, Any] | None:
        """Return what the store recorded about its model: name, dim and probe; None if it holds no vectors yet."""
        found = self._store.meta("embedder")
        if not isinstance(found, dict):
            return None
        self.dim_seen = found["dim"]
        return found

    def _refuse_other_name(self, model: str) -> None:
        record = self.record()
        # An address may lead to the same model under another name; that shows when both embed the probe.
        if record is None or is_address(model):
            return
        if model_name(model) != record["name"]:
            raise self._mismatch(record, model_name(model))

    def _mismatch(self, record: dict[str, Any], other: str) -> EmbedderMismatch:
        location = self._store.location
        if other == record["name"]:
            return EmbedderMismatch(
                f"{location!r} holds vectors of {other!r}, but what goes by that name here gives other ones. Use the "
                f"model it was made with, or move it to this one: raeburnmemory --db {location} reembed --model {other}"
            )
        return EmbedderMismatch(
            f"{location!r} holds {record['dim']}-number vectors of {record['name']!r}, this graph was opened with "
            f"{other!r}. Leave embedding_model out, or run: raeburnmemory --db {location} reembed --model {other}"
        )

    def embedder(self) -> Embedder:
        """Return the model of the store, loaded and compared with what the store recorded.

        Raises:
            EmbedderMismatch: It is another model than the store's.
            MissingDependency: It cannot be loaded here.
        """
        with self._lock.lock:
            record = self.record()
            if self._embedder is not None and record is not None and record == self._bound:
                return self._embedder
            if record is not None:
                self._bind(record)
            elif self._bound is not None or self._embedder is None:
                self._embedder, self._bound = self._unrecorded(), None
            else:
                self._check_strangers(self._embedder)
            if record is None and (record := self.record()) is not None:  # somebody's first vectors, just now
                self._bind(record)
            assert self._embedder is not None
            return self._embedder

    def _bind(self, record: dict[str, Any]) -> None:
        """Make the recorded model ours, or find that the one that was given is another."""
        given = self._spec
        if self._embedder is None or (self._bound is not None and given is UNNAMED):
            name = record["name"] if given is UNNAMED else given
            if given is not UNNAMED and (name is None or isinstance(name, str)):
                other = model_name(name)
                if other != record["name"] and not is_address(name):
                    raise self._mismatch(record, other)
            if given is UNNAMED and not record["named"]:
                raise ModelUnavailable(
                    f"{self._store.location!r} was made with an object of its program, {record['name']!r}, which "
                    f"cannot be loaded by name. Pass it: MemoryGraph(…, embedding_model=…)."
                )
            if given is UNNAMED and is_elsewhere(name):
                # A file that came from somebody must not decide where the questions of its reader are sent.
                raise ModelUnavailable(
                    f"{self._store.location!r} was made with {name!r}, which is another machine. What you ask is sent "
                    f"there only if you say so: embedding_model={name!r}, or {_VARIABLE}={name}."
                )
            self._embedder = open_embedder(name)
        embedder = self._embedder
        probe, known = checked_embed(embedder, [PROBE])[0], unpack(record["probe"])
        # A model of a few words may know none of that sentence; then its name is all there is to tell it by.
        both_silent = not probe.any() and not known.any() and embedder.name == record["name"]
        if len(probe) != record["dim"] or not (both_silent or same_model(probe, known)):
            self._embedder = None
            raise self._mismatch(record, embedder.name)
        self._bound = record

    def _unrecorded(self) -> Embedder:
        """Return the model for a store that recorded none: a new one, or one that the original wrote."""
        dim = self._dim_of_strangers()
        if self._spec is not UNNAMED:
            embedder = open_embedder(self._spec)
        elif dim is None:
            embedder = open_default()
        else:
            embedder = open_embedder(DEFAULT_MODEL)
        self._check_strangers(embedder)
        return embedder

    def _dim_of_strangers(self) -> int | None:
        for block in self._store.vectors(PROMPT, -1).blocks:
            return int(block.values.shape[1])
        return None

    def _check_strangers(self, embedder: Embedder) -> None:
        """Vectors whose model nobody recorded are adopted once three of their texts, embedded again, agree."""
        with self._store.snapshot():
            block = next(self._store.vectors(PROMPT, -1).blocks, None)
            if block is None or self.record() is not None:
                return
            picked = block.rows[:3].tolist()
            nodes = self._store.at_rows(picked)
        values = checked_embed(embedder, [indexed_text(nodes[row]) or "" for row in picked])
        agree = values.shape[1] == block.values.shape[1] and bool(
            (np.sum(values * block.values[: len(picked)], axis=1) >= _AGREEMENT).all()
        )
        if not agree:
            location = self._store.location
            raise EmbedderMismatch(
                f"{location!r} holds {block.values.shape[1]}-number vectors of a model that it does not name, and "
                f"{embedder.name!r} gives other ones. Pass the model they were made with as embedding_model, or run: "
                f"raeburnmemory --db {location} reembed --model {embedder.name}"
            )

    def new_record(self) -> dict[str, Any]:
        """Return what to record about the model in use."""
        return describe(self.embedder(), named=self._spec is None or isinstance(self._spec, str))

    def embed(self, texts: Sequence[str], *, queries: bool = False) -> NDArray[np.float32]:
        """Return one unit row per text or, with *queries*, question; zeros where the model knows no word of it."""
        return checked_embed(self.embedder(), texts, queries=queries)

    def checked_vector(self, values: Any, what: str) -> NDArray[np.float32]:
        """Return a vector that somebody brought along, normalised.

        Raises:
            InvalidInput: It is no row of finite numbers, or all zero.
        """
        vector: NDArray[np.float32] = values
        if not (isinstance(values, np.ndarray) and values.dtype == np.float32):
            try:
                with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
                    vector = np.asarray(values, np.float32)
            except (ValueError, TypeError) as exc:
                raise InvalidInput(f"The vector of {what} is no row of numbers: {exc}.") from exc
        exact = vector.astype(np.float64)  # in which the length of no float32 vector overflows
        norm = math.sqrt(exact.dot(exact)) if exact.ndim == 1 and len(exact) else math.nan
        if not math.isfinite(norm):
            raise InvalidInput(f"The vector of {what} must be one row of finite numbers; its shape is {vector.shape}.")
        if norm <= _SHORTEST:
            raise InvalidInput(f"The vector of {what} is all zero, which points nowhere. Leave vector out.")
        return (exact / norm).astype(np.float32)

    def checked_vectors(self, vectors: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        """Return vectors that somebody brought along by the ids of their nodes, normalised; see `checked_vector`."""
        if len(vectors) < 2:
            return {name: self.checked_vector(values, repr(name)) for name, values in vectors.items()}
        found: dict[str, NDArray[np.float32]] = {}
        given = list(vectors.values())
        if all(isinstance(v, np.ndarray) and v.dtype == np.float32 and v.ndim == 1 for v in given):
            names = list(vectors)
            for start in range(0, len(given) if len({len(v) for v in given}) == 1 else 0, _MANY):
                exact = np.array(given[start : start + _MANY], np.float64)
                norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))
                if not (norms > _SHORTEST).all() or not np.isfinite(norms).all():
                    break  # one by one, which says which it is
                rows = (exact / norms[:, None]).astype(np.float32)
                found.update(zip(names[start : start + _MANY], rows, strict=True))
        return {
            name: found[name] if name in found else self.checked_vector(vectors[name], repr(name)) for name in vectors
        }

    def check_dim(self, vector: NDArray[np.float32], what: str, record: dict[str, Any] | None) -> None:
        """Refuse a vector that somebody brought along if it cannot be of the model in *record*, or else of ours.

        Raises:
            DimensionMismatch: It has another length than the store's.
        """
        dim = record["dim"] if record else self.embedder().dim
        if len(vector) != dim:
            name = record["name"] if record else self.embedder().name
            raise DimensionMismatch(
                f"The vector of {what} has {len(vector)} numbers, those of {name!r} have {dim}. Pass the model it was "
                f"made with as embedding_model to a new memory, or move this one over with reembed()."
            )

    # --- the index ----------------------------------------------------------------------------------------------

    def index(self, field: str = PROMPT) -> VectorIndex:
        """Return the index of *field*, up to date with the store."""
        return self._cached(field).index

    def _cached(self, field: str, version: int | None = None) -> FieldIndex:
        """Return the index of *field*, at *version* of the store: asking for that costs something, so ask once."""
        with self._lock.lock:
            cached = self._indexes.get(field)
            if cached is None:
                cached = self._indexes[field] = FieldIndex(self._store, field, self._new_index)
            version = self._store.version() if version is None else version
            if self._fields[0] != version:
                self._fields = version, self._store.vector_fields()
            cached.catch_up(version, there=field in self._fields[1])  # most memories have vectors in one or two of them
            return cached

    def _holding(self, version: int, *, passages: bool) -> list[FieldIndex]:
        """Return the indexes that hold anything, at *version* of the store."""
        if self._filled[0] != version:
            found = {
                ending == PASSAGES: [self._cached(field + ending, version) for field in EMBEDDED]
                for ending in ("", PASSAGES)
            }
            self._filled = version, {key: [one for one in some if len(one.index)] for key, some in found.items()}
        return self._filled[1][passages]

    def rebuild(self) -> int:
        """Throw the indexes away, saved ones too, and build them again; return how many texts they hold."""
        with self._lock.lock:
            fields = self._store.counts(None)["vectors"]
            for field in {PROMPT, *self._indexes, *fields}:
                (self._indexes.get(field) or FieldIndex(self._store, field, self._new_index)).drop()
            self._indexes, self._filled = {}, (-1, {})
            for field in sorted({PROMPT, *fields}):
                self._cached(field).build()
            return self.size()

    def catch_up_elsewhere(self) -> None:
        """Bring indexes that are kept elsewhere up to date now; others do that when they are asked.

        Raises:
            IndexUnavailable: They cannot be reached.
        """
        if hasattr(self._new_index, "close"):
            with self._lock.lock:
                for field in EMBEDDED:
                    for ending in ("", PASSAGES):
                        self._cached(field + ending)

    def size(self) -> int:
        """Return how many texts can be found by meaning."""
        with self._lock.lock:
            return sum(len(cached.index) for cached in self._holding(self._store.version(), passages=False))

    def search(
        self,
        question: Any,
        k: int,
        namespace: str,
        fields: Sequence[str] = (PROMPT,),
        among: tuple[int, NDArray[np.int64]] | None = None,
        scope: Scope | None = None,
    ) -> Hits:
        """Return the *k* nodes of *namespace* whose vectors in *fields* are nearest to *question*, a text or a vector.

        *among* restricts the search to the nodes at some rows (ascending), known at a version of the store, of all of
        which *scope* is true.

        Raises:
            EmbeddingsMissing: There are such nodes, but no vectors.
            InvalidInput: The vector is none.
            DimensionMismatch: It has another length than those of the store.
        """
        if (lost := self.lost()) is not None:
            raise EmbeddingsMissing(lost)
        with self._lock.lock:
            version, rows = (self._store.version(), None) if among is None else among
            query = None if isinstance(question, str) else self._checked_question(question, version)
            indexes = [
                (one, bool(ending))
                for field in fields
                for ending in ("", PASSAGES)
                if len((one := self._cached(field + ending, version)).index)
            ]
            if all(passages for _, passages in indexes):
                return self._nothing(namespace, fields)
            if query is None:
                query = self.embed([question])[0]
                if not query.any():
                    return Hits(skipped={"dense": self.unknown_words("the question")})
            hits = self._found(query, k, namespace, indexes, rows, scope, fragments=FRAGMENT in fields)
            return Hits(hits, legs=["dense"])

    def _checked_question(self, values: Any, version: int) -> NDArray[np.float32]:
        vector = self.checked_vector(values, "a question")
        # What the model is, the store has to be asked; what an index holds is known.
        if not any(one.index.dim == len(vector) for one in self._holding(version, passages=False)):
            self.check_dim(vector, "a question", self.record())
        return vector

    def lost(self) -> str | None:
        """Say that vectors are gone, and the cure, if they are."""
        if (lost := self._store.vectors_lost()) is None:
            return None
        return (
            f"The vectors of {self._store.location!r} are gone: {lost}. Make them again with: "
            f"raeburnmemory --db {self._store.location} reindex"
        )

    def unknown_words(self, where: str) -> str:
        """Say that the model knows no word in *where*."""
        return f"{self.embedder().name!r} knows no word of {where}"

    def _nothing(self, namespace: str, fields: Sequence[str]) -> Hits:
        """Answer for a store without a single vector: because nothing was said, or nothing that the model knows."""
        nodes = self._store.nodes(Where(namespace, kinds=fields))
        told = (text for node in nodes if (text := indexed_text(node)) is not None)
        some = list(islice(told, 64))
        if not some:
            return Hits()
        if self.record() is None or self.embed(some).any():
            raise EmbeddingsMissing(
                f"{self._store.location!r} holds texts, but no vectors. Make them with: "
                f"raeburnmemory --db {self._store.location} reindex"
            )
        return Hits(skipped={"dense": self.unknown_words("what is stored")})

    def _found(
        self,
        query: NDArray[np.float32],
        k: int,
        namespace: str,
        indexes: Sequence[tuple[FieldIndex, bool]],
        among: NDArray[np.int64] | None,
        scope: Scope | None,
        *,
        fragments: bool,
    ) -> list[Hit]:
        """Return hits from *indexes*, of each of which is told whether it is one of passages."""
        wanted = k
        while True:
            several = [
                self._nearest_in(one, query, wanted, namespace, among, passages, scope) for one, passages in indexes
            ]
            rows, scores = several[0] if len(several) == 1 and indexes[0][0].single else _merged(*several)
            nodes = self._store.at_rows(rows[:wanted].tolist())
            places = places_of(self._store, namespace, list(nodes.values())) if fragments else {}
            why = Why()  # making one for each takes a quarter of what a hit does
            found = [
                Hit(node, score, score, None, why, place=places.get(node.id))
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
                if (node := nodes.get(row)) is not None and node.namespace == namespace
            ]
            if len(found) >= k or len(rows) < wanted:
                return found[:k]
            wanted *= 2  # some of them expired

    def nearest(
        self,
        query: NDArray[np.float32],
        k: int,
        namespace: str,
        *,
        passages: bool,
        fields: Sequence[str] = EMBEDDED,
        among: NDArray[np.int64] | None = None,
        version: int | None = None,
        rough: bool = False,
        scope: Scope | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return node rows and cosines, nearest first: at least the *k* nearest of each of *fields*, if there are.

        With *passages* those of the nearest passage of each long text, else those of whole texts. *among* (ascending)
        restricts the search to nodes at those rows, of all of which *scope* is true. *rough* ones are most of these,
        with cosines within some hundredths, where an index has them for less.
        """
        with self._lock.lock:
            version = self._store.version() if version is None else version
            found = [self._cached(field + PASSAGES if passages else field, version) for field in fields]
            return _merged(
                *(self._nearest_in(one, query, k, namespace, among, passages, scope, rough=rough) for one in found)
            )

    def scan(
        self, query: NDArray[np.float32], namespace: str, version: int, *, passages: bool
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]] | None:
        """Compare *query* with every vector of *namespace*: for each field the node rows and the cosines, in float32.

        *version* is that of the store, here and below: asking for it costs something, so ask once.

        With *passages* those of the parts of long texts, else those of whole texts. Vectors of other namespaces may be
        among them. None if an index cannot do that, or is so large that it takes longer: then ask for the `nearest`.
        """
        with self._lock.lock:
            found = self._holding(version, passages=passages)
            whole = [one for some in (False, True) for one in self._holding(version, passages=some)]
            if not all(one.scannable for one in whole):
                return None
            numbers = sum(len(one.index) * one.index.dim for one in whole)
            if numbers > _SCANNED and any(one.skips for one in whole):
                return None
            return [cached.scan(query, namespace) for cached in found]

    def cosines(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], version: int, *, exact: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the cosines of the nodes at *rows* (ascending): of whole texts, and of their nearest passages.

        NaN stands for those without such a vector. *exact* ones are the same to the last bit, whoever computes them;
        others as `scan` has them.
        """
        found = []
        wide = query.astype(np.float64)
        with self._lock.lock:
            for passages in (False, True):
                values = np.full(len(rows), np.nan, np.float32)
                for cached in self._holding(version, passages=passages) if len(rows) else ():
                    slots, at = cached.places_of(rows)
                    if not exact and hasattr(cached.index, "products"):
                        np.fmax.at(values, at, cached.index.products(slots, query))
                        continue
                    for start in range(0, len(slots), _BLOCK):
                        some = slice(start, start + _BLOCK)
                        vectors = cached.get(slots[some])
                        if exact:  # in float64, as the indexes have it
                            products = np.einsum("ij,j->i", vectors.astype(np.float64), wide).astype(np.float32)
                        else:
                            products = by_rows(vectors, query)
                        np.fmax.at(values, at[some], products + np.float32(0))
                found.append(values)
        return found[0], found[1]

    def vectors(self, wanted: Callable[[], Sequence[int]]) -> dict[int, NDArray[np.float32]]:
        """Return the vectors of whole texts of the nodes at the *wanted* rows (ascending), of those that have one.

        The function reads the rows from the store, at the moment as of which the vectors are. It is called in here
        because whoever has a snapshot must not wait for this lock: its holder may be waiting for the store.
        """
        found: dict[int, NDArray[np.float32]] = {}
        if (lost := self.lost()) is not None:
            raise EmbeddingsMissing(lost)
        with self._lock.lock, self._store.snapshot():
            version, rows = self._store.version(), wanted()
            for cached in self._holding(version, passages=False) if rows else ():
                slots, at = cached.places_of(np.array(rows, np.int64))
                vectors = np.array(cached.get(slots))
                found.update(zip((rows[place] for place in at.tolist()), vectors, strict=True))
        return found

    def _nearest_in(
        self,
        cached: FieldIndex,
        query: NDArray[np.float32],
        k: int,
        namespace: str,
        among: NDArray[np.int64] | None,
        passages: bool,
        scope: Scope | None,
        *,
        rough: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if not len(cached.index):
            return _NOTHING
        allowed = cached.slots_of(namespace) if among is None else cached.slots_at(among)
        scope = Scope((namespace,)) if scope is None else scope
        wanted = k
        while allowed is None or len(allowed):
            slots, scores = cached.search(query, wanted, allowed, scope, rough=rough)
            if among is not None and allowed is not None and len(allowed) == len(among) and cached.single:
                return among[allowed.searchsorted(slots)], scores  # each of them has one vector, in the same place
            rows = cached.rows_of(slots)
            if not passages or len(slots) < wanted or len(set(rows.tolist())) >= k:
                known = rows >= 0
                return (rows, scores) if known.all() else (rows[known], scores[known])
            wanted *= 2  # several of them are passages of one text
        return _NOTHING

    def contrasted(self, query: NDArray[np.float32], namespace: str, version: int) -> NDArray[np.float32]:
        """Return *query* with less of what all texts of *namespace* have in common.

        What a whole conversation is about tells its parts not apart: most of the direction of the mean vector is
        taken out. Mu and Viswanath, "All-but-the-Top" (2018), do the like to word vectors.
        """
        with self._lock.lock:
            if self._centres.get(namespace, (-1,))[0] != version:
                remember(self._centres, namespace, (version, *self._centre(namespace, version)))
            _, centre, count = self._centres[namespace]
        length = float(np.linalg.norm(centre))
        if length < _NOWHERE:
            return query
        axis = (centre / length).astype(np.float32)
        # A few texts say little about what all have in common.
        lean = query - _COMMON * count / (count + _FEW) * float(query @ axis) * axis
        norm = float(np.linalg.norm(lean))
        return np.asarray(lean / norm, np.float32) if norm > _NOWHERE else query

    def _centre(self, namespace: str, version: int) -> tuple[NDArray[np.float64], int]:
        """Return the mean of a namespace's vectors, of a regular sample where there are many, and their number."""
        total, count = np.zeros(0), 0
        for field in EMBEDDED:
            cached = self._cached(field, version)
            slots = cached.slots_of(namespace)
            slots = cached.slots if slots is None else slots
            if len(slots):
                picked = slots[:: -(-len(slots) // _SAMPLE)]
                mean = self._sum(namespace, field, cached, picked) / len(picked)
                total = mean * len(slots) + (total if count else 0)
                count += len(slots)
        return total / max(count, 1), count

    def _sum(self, namespace: str, field: str, cached: FieldIndex, picked: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the vectors at the slots *picked*: of those that came since the last time and that one."""
        index, known, found = self._sums.get((namespace, field), (None, picked, np.zeros((1, 0))))
        if index is not cached.index or not np.array_equal(known, picked[: len(known)]):
            known, found = picked[:0], np.zeros((1, cached.index.dim))
        if len(known) < len(picked):
            # Row by row, as adding up all at once does, so that nothing hangs on when it was asked for.
            new = cached.get(picked[len(known) :])
            found = np.add.reduce(np.concatenate([found, new]), axis=0, keepdims=True)
            if index is not None and index is not cached.index:  # those of other namespaces are not to keep it either
                self._sums = {key: known for key, known in self._sums.items() if known[0] is not index}
            remember(self._sums, (namespace, field), (cached.index, np.array(picked), found))
        return np.asarray(found[0])

    def alike(self, after: int, namespace: str, threshold: float, field: str = PROMPT) -> Alike | None:
        """Compare the next vectors of whole texts behind slot *after* with those before; see `FieldIndex.alike`."""
        with self._lock.lock:
            return self._cached(field).alike(after, namespace, threshold)

    def close(self) -> None:
        """Save the indexes that changed enough to be worth it."""
        with self._lock.lock:
            indexes, self._indexes, self._filled = self._indexes, {}, (-1, {})
        try:
            all(cached.close() for cached in indexes.values())  # up to the first that cannot be reached: so are all
            self._save(indexes)
        finally:
            if hasattr(self._new_index, "close"):
                self._new_index.close()

    def _save(self, indexes: dict[str, FieldIndex]) -> None:
        worth = [] if self._store.read_only else [cached for cached in indexes.values() if cached.worth_saving()]
        if not worth:
            return
        try:
            with self._store.exclusive():  # nobody may erase meanwhile what is written here
                for cached in worth:
                    cached.save()
        except LockTimeout as exc:
            log.warning("The index is not saved, and will be made again: %s", exc)


_NOTHING = (np.empty(0, np.int64), np.empty(0, np.float32))


def _merged(*found: tuple[NDArray[np.int64], NDArray[np.float32]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return rows and scores, best first and equals by row; each row once, with its best score."""
    found = tuple(one for one in found if len(one[0])) or (_NOTHING,)
    if len(found) == 1:
        rows, scores = found[0]
        if (scores[1:] < scores[:-1]).all() and len(set(rows.tolist())) == len(rows):  # in order already, as mostly
            return rows, scores
    rows = np.concatenate([one for one, _ in found])
    scores = np.concatenate([other for _, other in found])
    order = np.lexsort((rows, -scores))
    rows, scores = rows[order], scores[order]
    first = np.sort(np.unique(rows, return_index=True)[1])
    return rows[first], scores[first]


def describe(embedder: Embedder, *, named: bool) -> dict[str, Any]:
    """Return what a store records about *embedder*; *named* says that its name is enough to open it again."""
    probe = checked_embed(embedder, [PROBE])[0]
    record = {"name": embedder.name, "dim": len(probe), "probe": pack(probe), "named": named}
    return {**record, "crc": record_crc(record)}


def record_crc(record: Mapping[str, Any]) -> int:
    """Return the checksum of what `describe` says: one damaged letter would make it that of another model."""
    return zlib.crc32(json.dumps([record[name] for name in ("name", "dim", "probe", "named")]).encode())


def pack(values: NDArray[np.float32]) -> str:
    """Return a vector as base64 of little-endian float32."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def unpack(text: str) -> NDArray[np.float32]:
    """Return what `pack` packed."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
