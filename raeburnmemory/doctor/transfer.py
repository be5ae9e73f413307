"""Moving a memory from any store to any other, in small transactions, and going on where it was cut short."""

from __future__ import annotations

import contextlib
import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, StoreCorrupt, StoreMissing
from ..index import open_index
from ..nodes import Batch, Vector, Where
from ..store import COPYING, COPYING_META, VectorBlock, is_postgres, open_store, store_exists
from .content import Content, check_content
from .report import Copied, Report

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..nodes import Link, Node
    from ..store import Store

__all__ = ["copy"]

log = logging.getLogger("raeburnmemory")

COPIED = "copied_from"  # the key in meta of what was copied here: the source's id and version, and ours after it
_PAGE = 1000  # nodes with their earlier versions, edges or vectors in one transaction
_STAGES = ("nodes", "edges", "vectors")


def copy(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    timeout: float = 30.0,
    language: str = "english",
    progress: Callable[[int, int], Any] | None = None,
) -> Copied:
    """Copy the memory at *source* to *target*, which may be of another kind: JSON, SQLite or PostgreSQL.

    Every namespace comes along with its nodes, earlier versions, edges, vectors, times to live and the record of its
    model; what has expired does not. *source* is read as it is at one moment and not changed. *target* must be empty or
    new; after a copy that was cut short the same call goes on where that ended, or begins again if *source* was written
    to since. At the end both are read again and must have the same digests. *progress* is called with how many nodes,
    edges and vectors were copied, and of how many.

    Raises:
        StoreMissing: There is no memory at *source*.
        InvalidInput: *target* holds something else, or is *source*, or somebody else writes to it.
        StoreCorrupt: The copy is not what was copied, or *source* lacks vectors; mend it first.
    """
    if not store_exists(source):
        raise StoreMissing(2, f"There is no memory at {_shown(source)!r}. Check the path")
    with contextlib.closing(open_store(source, read_only=True, timeout=timeout)) as old:
        if (lost := old.vectors_lost()) is not None:
            raise StoreCorrupt(
                f"Vectors of {old.location!r} are lost ({lost}). Mend it first: "
                f"raeburnmemory --db {old.location} repair"
            )
        with contextlib.closing(_opened(target, timeout, language)) as new, old.snapshot():
            if old.id == new.id:
                raise InvalidInput(f"{new.location!r} is the memory itself. Choose another target.")
            _Copying(old, new, progress).run()
            nodes = _compare(old, new)
            return Copied(old.location, new.location, new.size(), nodes, new.version())


def _opened(target: Any, timeout: float, language: str) -> Store:
    """Open the target without the warning that its copying is not finished: this is where it is."""
    quiet = logging.Filter()
    quiet.filter = lambda record: "copy that was not finished" not in record.msg  # type: ignore[method-assign]
    log.addFilter(quiet)
    try:
        return open_store(target, timeout=timeout, language=language)
    finally:
        log.removeFilter(quiet)


def _shown(location: Any) -> str:
    if not is_postgres(location):
        return str(location)
    from ..store.postgres_url import parse

    return parse(location).shown


class _Copying:
    def __init__(self, old: Store, new: Store, progress: Callable[[int, int], Any] | None) -> None:
        self._old, self._new, self._progress = old, new, progress
        self._state: dict[str, Any] = {}
        self._done, self._all = 0, 1
        self._version = -1  # of the target: nobody else may write to it

    def run(self) -> None:
        """Copy what is not there yet."""
        old, new = self._old, self._new
        fresh = {"store": old.id, "version": old.version(), "stage": "nodes", "after": -1, "field": None}
        before, complete = new.meta(COPYING), new.meta(COPIED)
        if isinstance(complete, dict) and before is None:
            if [complete.get(key) for key in ("store", "version", "now")] == [old.id, old.version(), new.version()]:
                return  # nothing has changed on either side
            self._refuse()
        if before is None:
            if any(new.counts(None).values()):
                self._refuse()
        elif before["store"] != old.id:
            raise InvalidInput(
                f"{new.location!r} holds part of a copy of another memory. Finish that one, or choose another target."
            )
        self._version = new.version()
        if before is not None and before["version"] != fresh["version"]:
            log.info("%r was written to since its copying was cut short, so that it begins again.", old.location)
            self._clear()
            before = None
        counts = old.counts(None)
        self._all = max(1, sum(sum(some.values()) for some in counts.values()))
        if before is None:
            self._state = fresh
            self._write(Batch(), 0)
        else:
            self._state = before
            self._done = min(self._all, sum(sum(some.values()) for some in new.counts(None).values()))
        for stage, work in (("nodes", self._nodes), ("edges", self._edges), ("vectors", self._vectors)):
            if _STAGES.index(stage) < _STAGES.index(self._state["stage"]):
                continue
            if stage != self._state["stage"]:
                self._state = {**self._state, "stage": stage, "after": -1, "field": None}
            work()
        self._finish()

    def _refuse(self) -> None:
        raise InvalidInput(
            f"{self._new.location!r} holds a memory already. Choose another target, or one that is empty"
            f"{': another ?schema= of the same database will do' if self._new.name == 'postgres' else ''}."
        )

    def _write(self, batch: Batch, count: int, **state: Any) -> None:
        """Write *batch* and, in the same transaction, how far it brings us."""
        self._state = {**self._state, **state}
        meta = {**batch.meta, COPYING: self._state}
        version = self._new.write(
            Batch(
                nodes=batch.nodes,
                links=batch.links,
                vectors=batch.vectors,
                removed_nodes=batch.removed_nodes,
                meta=meta,
            )
        )
        if version != self._version + 1:
            raise InvalidInput(
                f"Somebody else writes to {self._new.location!r} while a memory is copied there. Let them end, and "
                f"choose an empty target."
            )
        self._version = version
        self._done = min(self._all, self._done + count)
        if self._progress is not None:
            self._progress(self._done, self._all)

    def _clear(self) -> None:
        """Take out what an earlier copy left, in bounded transactions, too."""
        self._state = {**(self._new.meta(COPYING) or {})}
        while page := list(islice(self._new.nodes(Where(None)), _PAGE)):
            self._write(Batch(removed_nodes=[(node.namespace, node.id) for node in page]), 0)

    # --- the stages ---------------------------------------------------------------------------------------------

    def _nodes(self) -> None:
        past = _past(self._old)
        nodes = self._old.nodes(Where(None, after_row=self._state["after"]))
        while page := list(islice(nodes, _PAGE)):
            # Earlier versions right before the node itself: writing one after the other makes them its history.
            several: list[Node] = []
            for node in page:
                several += [*past(node), node]
            self._write(Batch(nodes=several), len(page), after=page[-1].row)

    def _edges(self) -> None:
        after = self._state["after"]
        links = (link for link in self._old.all_links(None) if link.row > after)
        while page := list(islice(links, _PAGE)):
            self._write(Batch(links=self._with_both_ends(page)), len(page), after=page[-1].row)

    def _with_both_ends(self, page: Sequence[Link]) -> list[Link]:
        """Return those of *page* whose ends were copied: those of a node that has expired were not."""
        there: set[tuple[str, str]] = set()
        for space in {link.namespace for link in page}:
            ends = {end for link in page if link.namespace == space for end in (link.source, link.target)}
            there.update((space, node_id) for node_id in self._new.get(sorted(ends), space))
        return [e for e in page if {(e.namespace, e.source), (e.namespace, e.target)} <= there]

    def _vectors(self) -> None:
        first = self._state["field"]
        for field in sorted(self._old.counts(None)["vectors"]):
            if first is not None and field < first:
                continue
            after = self._state["after"] if field == first else -1
            for block in self._old.vectors(field, -1).blocks:
                nodes = self._old.at_rows(block.rows.tolist())
                for start in range(0, len(block.slots), _PAGE):
                    some = slice(start, start + _PAGE)
                    last = int(block.slots[some][-1])
                    if last <= after:
                        continue
                    vectors = [
                        Vector(nodes[row].id, field, values, part, begin, end, nodes[row].namespace)
                        for slot, row, values, (part, begin, end) in zip(
                            block.slots[some].tolist(),
                            block.rows[some].tolist(),
                            block.values[some],
                            block.spans[some].tolist(),
                            strict=True,
                        )
                        if slot > after and row in nodes
                    ]
                    self._write(Batch(vectors=vectors), len(vectors), field=field, after=last)

    def _finish(self) -> None:
        """Take over what is said about the memory, and make the target ready for use."""
        meta = {key: value for key in COPYING_META if (value := self._old.meta(key)) is not None}
        record = {"store": self._state["store"], "version": self._state["version"], "now": self._version + 1}
        self._new.write(Batch(meta={**meta, COPYING: None, COPIED: record}))
        if self._progress is not None:
            self._progress(self._all, self._all)
        self._new.checkpoint()
        if self._new.name == "postgres":
            for field in self._new.counts(None)["vectors"]:
                index: Any = open_index("pgvector", 1)
                index.bind(self._new, field)
                index.follow(-1)
                index.build()


def _past(store: Store) -> Callable[[Node], Iterable[Node]]:
    """Return a function from a node to its earlier versions, oldest first."""
    if not hasattr(store, "all_history"):
        return lambda node: store.history(node.id, node.namespace)
    past: dict[int, list[Node]] = {}  # all at once: over a network, asking for each would take the longest
    for row, node in store.all_history():
        past.setdefault(row, []).append(node)
    return lambda node: past.get(node.row, ())


# --- verifying --------------------------------------------------------------------------------------------------


def _compare(old: Store, new: Store) -> int:
    """Return how many nodes both hold, if they hold the same."""
    contents = [_content(store) for store in (old, new)]
    now = time.time()  # a node that expires between one reading and the other is in neither
    reports = []
    for store, content in zip((old, new), contents, strict=True):
        report = Report(store.location, store.name)
        check_content(_without_expired(content, now), report, None)
        reports.append(report)
    wrong = [name for name in reports[0].digests if reports[0].digests[name] != reports[1].digests[name]]
    if wrong:
        raise StoreCorrupt(
            f"The copy {new.location!r} is not what was copied: other {', '.join(wrong)} than in {old.location!r}. "
            f"Do not use it. See what is wrong with verify, and copy to another target."
        )
    return sum(reports[0].counts["nodes"].values())


def _content(store: Store) -> Content:
    """Return what a store holds, by its contract alone: what has expired is not in it."""
    nodes = {node.row: node for node in store.nodes(Where(None))}
    past = _past(store)
    keys = {(node.namespace, node.id) for node in nodes.values()}
    links = [e for e in store.all_links(None) if {(e.namespace, e.source), (e.namespace, e.target)} <= keys]
    history = [(node.row, before) for node in nodes.values() for before in past(node)]
    fields = sorted(store.counts(None)["vectors"])

    def blocks() -> Iterator[tuple[str, int, VectorBlock]]:
        for field in fields:
            for block in store.vectors(field, -1).blocks:
                yield field, block.values.shape[1], block

    return Content(nodes, links, history, {key: store.meta(key) for key in COPYING_META}, blocks)


def _without_expired(content: Content, now: float) -> Content:
    nodes = {r: n for r, n in content.nodes.items() if n.expires_at is None or n.expires_at > now}
    keys = {(node.namespace, node.id) for node in nodes.values()}
    links = [e for e in content.links if {(e.namespace, e.source), (e.namespace, e.target)} <= keys]

    def blocks() -> Iterator[tuple[str, int, VectorBlock]]:
        for field, dim, block in content.blocks():
            keep = [row in nodes for row in block.rows.tolist()]
            part = VectorBlock(block.slots[keep], block.rows[keep], block.values[keep], block.spans[keep])
            yield field, dim, part

    return Content(nodes, links, [(r, n) for r, n in content.past if r in nodes], content.meta, blocks)
