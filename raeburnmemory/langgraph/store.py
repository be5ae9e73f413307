"""A collection of items in a memory, as a store of LangGraph."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from .._optional import extra
from ..errors import EmbedderMismatch, InvalidInput
from ..items import Found, Get, Put, Search
from ..langchain._opening import opened
from ..records import checked_count, checked_data, shown, time_of, utc
from ._embedding import embedding_of
from ._filters import fitting, matches

with extra("langgraph", module="langgraph"):
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        IndexConfig,
        InvalidNamespaceError,
        Item,
        ListNamespacesOp,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        get_text_at_path,
        tokenize_path,
    )

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from ..memory_graph import MemoryGraph

__all__ = ["RaeburnStore"]

_log = logging.getLogger("raeburnmemory")

_EVERYTHING = "$"  # LangGraph's name for the whole value
_NO_TIME = utc(0)  # of a node that somebody else made without one
_SWEEP = 5.0  # minutes between two sweeps if nobody says
_INDEX = {"dims", "embed", "fields"}
_TTL = {"default_ttl", "refresh_on_read", "sweep_interval_minutes", "omit_expired"}


class RaeburnStore(BaseStore):
    """A named collection of items in a memory; each is a node of the kind `item`.

    *memory* is a `MemoryGraph`, or the path of one, which `close` then closes. Several stores may share a memory: each
    sees its own *collection* only. *namespace* is that of the memory, such as a tenant, around all of LangGraph's
    namespaces; a store never sees another's.

    *index* says what items are searched by: `{"fields": ["text"]}` by these fields, None by the whole value as JSON,
    False by nothing; then a `query` changes nothing. The memory's model embeds. With `embed` and `dims` as LangGraph
    has them, a memory that is opened here embeds with that, and one that is given must have the same model.

    *ttl* takes `default_ttl` and `sweep_interval_minutes` (in minutes) and `refresh_on_read`. An item that has expired
    is never returned, whether it was swept or not.

    Values must be JSON values. A batch reads first, then writes, all in one transaction; of several puts of one item
    the last one counts. A store is safe to share between threads; the methods for asyncio work in one.

    Raises:
        EmbedderMismatch: `embed` is not the model of the memory, or its vectors have not `dims` numbers.
        InvalidInput: *index* or *ttl* cannot be understood.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: MemoryGraph | str | os.PathLike[str] = ":memory:",
        *,
        index: IndexConfig | Literal[False] | None = None,
        ttl: TTLConfig | None = None,
        collection: str = "default",
        namespace: str | None = None,
    ) -> None:
        self.index_config: IndexConfig | None = None if index is False else _checked_index(index or {})
        self.ttl_config: TTLConfig | None = None if ttl is None else _checked_ttl(ttl)
        wanted = (self.index_config or {}).get("embed")
        self.embeddings = None if wanted is None else embedding_of(wanted)
        self._fields = _paths((self.index_config or {}).get("fields") or [_EVERYTHING])
        self.memory, self._owned = opened(memory, self.embeddings, namespace)
        try:
            self._check_dims()
            self._items = self.memory._items(collection)  # noqa: SLF001 - no name of the memory's face
        except BaseException:
            self.close()
            raise
        self._sweeper: _Sweeper | None = None

    def _check_dims(self) -> None:
        dims = (self.index_config or {}).get("dims")
        if dims is not None and dims != self.memory.model.dim:
            raise EmbedderMismatch(
                f"index says that vectors have {dims!r} numbers, but those of {self.memory.model.name!r} have "
                f"{self.memory.model.dim}. Leave 'dims' out, or pass the model as 'embed'."
            )

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._items.collection

    def node_id(self, namespace: tuple[str, ...], key: str) -> str:
        """Return the id of an item's node, for `MemoryGraph.get` and links: `"item/default/users.ana/likes"`."""
        return self._items.id(tuple(namespace), str(key))

    def close(self) -> None:
        """Stop sweeping, and close the memory if it was opened here, from a path; one that was given stays open."""
        if getattr(self, "_sweeper", None) is not None:
            self.stop_ttl_sweeper()
        if self._owned:
            self.memory.close()

    def __enter__(self) -> RaeburnStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- operations ---------------------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations, reads before writes, and return the result of each.

        Raises:
            InvalidInput: Something cannot be stored or understood; nothing was changed.
            InvalidNamespaceError: A label is empty, no string, or has a full stop or NUL in it.
        """
        ops = list(ops)
        for op in ops:
            _check_namespaces(op)
        reads = {place: self._asked(op) for place, op in enumerate(ops) if isinstance(op, (GetOp, SearchOp))}
        puts = [self._put(op) for op in ops if isinstance(op, PutOp)]
        listings = {place: op for place, op in enumerate(ops) if isinstance(op, ListNamespacesOp)}
        if len(reads) + len(puts) + len(listings) < len(ops):
            odd = next(op for op in ops if not isinstance(op, (GetOp, SearchOp, PutOp, ListNamespacesOp)))
            raise InvalidInput(f"Unknown operation type: {shown(odd)}. Use GetOp, SearchOp, PutOp or ListNamespacesOp.")
        results: list[Result] = [None] * len(ops)
        paths = self._items.paths() if listings else []
        for place, op in listings.items():
            results[place] = _listed(op, paths)
        for (place, one), found in zip(reads.items(), self._items.read(list(reads.values())), strict=True):
            if isinstance(one, Get):
                results[place] = _item(found[0]) if found else None
            else:
                results[place] = [_search_item(item) for item in found]
        self._items.write(puts)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what `batch` does in a thread. Cancelled, its writes are done whole or not at all."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _asked(self, op: GetOp | SearchOp) -> Get | Search:
        refresh = bool(op.refresh_ttl and self.ttl_config and self.ttl_config.get("refresh_on_read", False))
        if isinstance(op, GetOp):
            return Get(tuple(op.namespace), op.key, refresh)
        question: Any = None
        if op.query and self.index_config is not None:
            question = op.query if self.embeddings is None else self.embeddings.embed_query(op.query)
        return Search(tuple(op.namespace_prefix), fitting(op.filter), op.limit, op.offset, question, refresh)

    def _put(self, op: PutOp) -> Put:
        if op.value is None:
            return Put(tuple(op.namespace), op.key, None)
        value = checked_data(op.value, f"the value of {shown(op.key)}")  # so that texts are made of what is stored
        return Put(tuple(op.namespace), op.key, value, self._texts(value, op.index), op.ttl)

    def _texts(self, value: dict[str, Any], index: Literal[False] | Sequence[str] | None) -> list[str]:
        """Return what an item is to be found by."""
        if self.index_config is None or index is False:
            return []
        fields = self._fields if index is None else _paths(index)
        return [text for field in fields for text in get_text_at_path(value, field)]

    # --- time to live -------------------------------------------------------------------------------------------

    def sweep_ttl(self) -> int:
        """Remove the items of this collection that have expired from the memory; return how many there were."""
        return self._items.sweep()

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> concurrent.futures.Future[None]:
        """Sweep every so many minutes in a thread (else those of *ttl*, else 5), until the store is closed.

        The future is done when it has stopped; cancelling it stops it. Without *ttl* nothing is started, and while one
        is running no second one is.
        """
        if self._sweeper is not None and self._sweeper.running:
            return self._sweeper.future()
        if self.ttl_config is None:
            done: concurrent.futures.Future[None] = concurrent.futures.Future()
            done.set_result(None)
            return done
        minutes = sweep_interval_minutes or self.ttl_config.get("sweep_interval_minutes") or _SWEEP
        self._sweeper = _Sweeper(self, minutes * 60)
        return self._sweeper.future()

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop sweeping, and wait up to *timeout* seconds for it; tell whether it has stopped, or was not running."""
        if self._sweeper is None:
            return True
        stopped = self._sweeper.stop(timeout)
        if stopped:
            self._sweeper = None
        return stopped


class _Sweeper:
    """A thread that sweeps a store every so many seconds, and does not keep it alive."""

    def __init__(self, store: RaeburnStore, seconds: float) -> None:
        self._stopping = threading.Event()
        self._futures: list[concurrent.futures.Future[None]] = []
        weakref.finalize(store, self._stopping.set)
        self._thread = threading.Thread(
            target=self._run, args=(weakref.ref(store), seconds), name="raeburnmemory-ttl-sweeper", daemon=True
        )
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive() and not self._stopping.is_set()

    def future(self) -> concurrent.futures.Future[None]:
        """Return a future that is done when the thread is, and stops it when it is cancelled."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.add_done_callback(lambda done: self._stopping.set() if done.cancelled() else None)
        self._futures.append(future)
        return future

    def stop(self, timeout: float | None) -> bool:
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, ref: weakref.ref[RaeburnStore], seconds: float) -> None:
        while not self._stopping.wait(seconds):
            store = ref()
            if store is None:
                break
            try:
                if swept := store.sweep_ttl():
                    _log.info("%d items of %r had expired and were removed.", swept, store.collection)
            except Exception as exc:  # noqa: BLE001 - the next sweep may succeed, and nobody is here to catch it
                _log.warning("The items of %r that have expired could not be removed: %s", store.collection, exc)
            del store
        for future in self._futures:
            if future.set_running_or_notify_cancel():
                future.set_result(None)


def _check_namespaces(op: Any) -> None:
    """Refuse labels that could not be told apart in an id; LangGraph checks only what does not come in a batch."""
    if isinstance(op, ListNamespacesOp):
        given = [condition.path for condition in op.match_conditions or ()]
    else:
        given = [getattr(op, "namespace_prefix", getattr(op, "namespace", ()))]
    for namespace in given:
        for label in namespace:
            if not isinstance(label, str) or not label or "." in label or "\0" in label:
                raise InvalidNamespaceError(
                    f"{label!r} in {namespace!r} is no label of a namespace: that is a string that is not empty, "
                    f"without '.' and NUL."
                )


def _item(found: Found) -> Item:
    return Item(value=found.value, key=found.key, namespace=found.path, **_times(found))


def _search_item(found: Found) -> SearchItem:
    return SearchItem(namespace=found.path, key=found.key, value=found.value, score=found.score, **_times(found))


def _times(found: Found) -> dict[str, datetime]:
    created = time_of(found.node) or _NO_TIME
    updated = found.node.attributes.get("updated_at", created)
    return {"created_at": datetime.fromisoformat(created), "updated_at": datetime.fromisoformat(utc(updated))}


def _listed(op: ListNamespacesOp, paths: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    limit, offset = checked_count(op.limit, "the limit"), checked_count(op.offset, "the offset")
    found = (path for path in paths if all(matches(condition, path) for condition in op.match_conditions or ()))
    return sorted({path[: op.max_depth] for path in found})[offset : offset + limit]


def _paths(fields: Sequence[str]) -> list[str | list[str]]:
    """Return paths to fields as LangGraph reads them; of a put its own stores take `$` for a field of that name."""
    return [_EVERYTHING if path == _EVERYTHING else tokenize_path(path) for path in fields]


def _checked_index(index: Any) -> IndexConfig:
    if not isinstance(index, Mapping):
        raise InvalidInput(f"index is a dict such as {{'fields': ['text']}}, False or None, not {shown(index)}.")
    if odd := [name for name in index if name not in _INDEX]:
        raise InvalidInput(f"{odd[0]!r} in index is not known. Choose some of: {', '.join(sorted(_INDEX))}.")
    fields = index.get("fields")
    if fields is not None and (
        not isinstance(fields, (list, tuple)) or not all(isinstance(field, str) for field in fields)
    ):
        raise InvalidInput(f"'fields' in index is a list of paths such as ['text'], not {shown(fields)}.")
    return cast("IndexConfig", dict(index))


def _checked_ttl(ttl: Any) -> TTLConfig:
    if not isinstance(ttl, Mapping):
        raise InvalidInput(f"ttl is a dict such as {{'default_ttl': 60}} or None, not {shown(ttl)}.")
    if odd := [name for name in ttl if name not in _TTL]:
        raise InvalidInput(f"{odd[0]!r} in ttl is not known. Choose some of: {', '.join(sorted(_TTL))}.")
    for name in ("default_ttl", "sweep_interval_minutes"):
        minutes = ttl.get(name)
        if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or minutes <= 0):
            raise InvalidInput(f"{name!r} in ttl is a number of minutes above 0, not {shown(minutes)}.")
    if not ttl.get("omit_expired", True):
        raise InvalidInput("'omit_expired' in ttl cannot be False: what has expired is never returned. Leave it out.")
    return cast("TTLConfig", dict(ttl))
