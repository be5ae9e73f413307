"""Putting nodes, links and vectors back exactly as they were: no time is added, nothing is merged."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dense import unpack
from ..embed import same_model
from ..errors import EmbedderMismatch, InvalidInput, KindConflict, NodeNotFound
from ..facts import Facts
from ..nodes import Batch, same_json
from ..records import checked_data, checked_id, checked_text, shown, utc
from ..writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from ..memory_graph import MemoryGraph
    from ..nodes import Link, Node, Vector

__all__ = ["Restoring", "checked_link", "checked_node"]

_TIMES = ("timestamp", "start_time", "valid_from", "valid_to")


class Restoring:
    """One namespace of a memory, being written; with *dry_run* only what would be new is counted."""

    def __init__(self, memory: MemoryGraph, namespace: str, *, dry_run: bool, allow_unembedded: bool) -> None:
        self._store = memory._store  # noqa: SLF001 - exactly is by the store's contract; put would add to it
        self._dense = memory._dense  # noqa: SLF001
        self._namespace = namespace
        self._writer = Writer(self._store, self._dense, namespace)
        self._dry_run = dry_run
        self._allow = allow_unembedded
        self.new = 0
        self._mine: set[str] = set()  # by a dry run
        self._rows: dict[str, NDArray[np.int64]] = {}  # which have vectors already, by field

    def nodes(self, nodes: Sequence[Node], *, embed: bool) -> None:
        """Write nodes, and with *embed* the vectors of their texts.

        Raises:
            KindConflict: An id belongs to another kind of node; of these nodes, none was written then.
        """
        nodes = [replace(node, namespace=self._namespace) for node in nodes]
        ids = dict.fromkeys(node.id for node in nodes)
        if self._dry_run:
            there = self._store.get(list(ids), self._namespace)
            self.new += len(ids.keys() - there.keys() - self._mine)
            self._mine.update(ids)
            _same_kinds(nodes, there)
            return

        def plan() -> Batch:
            there = self._store.get(list(ids), self._namespace)
            _same_kinds(nodes, there)
            plan.new = len(ids.keys() - there.keys())  # type: ignore[attr-defined]
            return Batch(nodes=[node for node in nodes if not _is(there.get(node.id), node)])

        if embed:
            self._writer.transact(plan, lambda: None, allow_unembedded=self._allow)
        else:
            with self._store.exclusive():
                self._store.write(plan())
        self.new += plan.new  # type: ignore[attr-defined]

    def links(self, links: Sequence[Link], place: str) -> None:
        """Write links.

        Raises:
            NodeNotFound: One leads to a node that is not there.
        """
        links = [replace(link, namespace=self._namespace) for link in links]
        ends = {end for link in links for end in (link.source, link.target)}
        with self._held():
            there = self._store.get(sorted(ends), self._namespace).keys() | self._mine
            if missing := sorted(ends - there):
                raise NodeNotFound(f"{place}: there is no node {missing[0]!r} for an edge to lead to.")
            if self._dry_run:
                return
            old = {
                (e.source, e.target, e.relation): e.data
                for e in self._store.links(sorted({link.source for link in links}), self._namespace)
            }
            keys = [(e.source, e.target, e.relation) for e in links]
            new = [e for e, key in zip(links, keys, strict=True) if key not in old or not same_json(old[key], e.data)]
            self._store.write(Batch(links=new))

    def vectors(self, vectors: Sequence[Vector], embedder: dict[str, Any], place: str) -> None:
        """Write the vectors of nodes that have none yet.

        Raises:
            EmbedderMismatch: They are of another model than those that are there.
            NodeNotFound: One is of a node that is not there.
        """
        with self._held():
            record = self._dense.record()
            if record is not None:
                self._same_model(record, embedder)
            there = self._store.get(sorted({vector.node for vector in vectors}), self._namespace)
            new = []
            for vector in vectors:
                if vector.node not in there and vector.node not in self._mine:
                    raise NodeNotFound(f"{place}: there is no node {vector.node!r} for a vector.")
                if len(vector.values) != embedder["dim"]:
                    raise InvalidInput(
                        f"{place}: the vector of {vector.node!r} has {len(vector.values)} numbers, not "
                        f"{embedder['dim']} as the header says."
                    )
                if vector.node in there and not self._has(vector.field, there[vector.node].row):
                    new.append(replace(vector, namespace=self._namespace))
            if new and not self._dry_run:
                self._store.write(Batch(vectors=new, meta={} if record is not None else {"embedder": embedder}))

    def _held(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self._dry_run else self._store.exclusive()

    def check_model(self, embedder: dict[str, Any]) -> None:
        """Refuse vectors of another model than that of the memory, or the one that was named for it.

        Raises:
            EmbedderMismatch: They are of another one.
        """
        record = self._dense.record()
        if record is None and self._dense.chosen:
            record = self._dense.new_record()
        if record is not None:
            self._same_model(record, embedder)

    def _same_model(self, record: dict[str, Any], other: dict[str, Any]) -> None:
        one, two = unpack(record["probe"]), unpack(other["probe"])
        silent = not one.any() and not two.any() and record["name"] == other["name"]
        if record["dim"] != other["dim"] or not (silent or same_model(one, two)):
            raise EmbedderMismatch(
                f"The file holds {other['dim']}-number vectors of {other['name']!r}, the memory {record['dim']}-number "
                f"vectors of {record['name']!r}. Export it without vectors, so that the texts are embedded here."
            )

    def _has(self, field: str, row: int) -> bool:
        if field not in self._rows:
            counted = self._store.counts(None)["vectors"]
            slots = self._store.vector_slots(field)[1] if counted.get(field) else np.empty(0, np.int64)
            self._rows[field] = np.unique(slots)
        rows = self._rows[field]
        at = int(np.searchsorted(rows, row))
        return at < len(rows) and int(rows[at]) == row

    def single_valued(self, predicates: Sequence[str]) -> None:
        """Declare predicates of which a subject has one value at a time."""
        if predicates and not self._dry_run:
            facts = Facts(self._store, self._writer, self._namespace)
            facts.single_valued(list(predicates), allow_unembedded=self._allow)


def _is(old: Node | None, new: Node) -> bool:
    return (
        old is not None
        and old.text == new.text
        and old.expires_at == new.expires_at
        and same_json(old.attributes, new.attributes)
    )


def _same_kinds(nodes: Sequence[Node], there: dict[str, Node]) -> None:
    for node in nodes:
        old = there.get(node.id)
        if old is not None and old.kind != node.kind:
            raise KindConflict(
                f"{node.id!r} is the id of a {old.kind} already, so it cannot be a {node.kind}. Import it into another "
                f"namespace."
            )


def checked_node(node: Node, place: str) -> Node:
    """Return a node of a file if it can be stored.

    Raises:
        InvalidInput: It cannot; the message names the place.
    """
    try:
        checked_id(node.id, "an id")
        checked_id(node.kind, "a kind of node")
        if node.text is not None:
            checked_text(node.text, f"the text of {node.id!r}")
        attributes = checked_data(node.attributes, f"the attributes of {node.id!r}")
        if clash := sorted({"id", "type", "text"} & set(attributes)):
            raise InvalidInput(f"{clash[0]!r} of {node.id!r} is not for attributes. Choose another name.")
        if node.kind == "fact":
            for name in _TIMES:
                if attributes.get(name) is not None:
                    utc(attributes[name])
    except InvalidInput as exc:
        raise InvalidInput(f"{place}: {exc}") from exc
    return replace(node, attributes=attributes)


def checked_link(link: Link, place: str) -> Link:
    """Return a link of a file if it can be stored.

    Raises:
        InvalidInput: It cannot; the message names the place.
    """
    try:
        for value, what in ((link.source, "a source"), (link.target, "a target"), (link.relation, "a relation")):
            checked_id(value, what)
        data = checked_data(link.data, f"the data of the {shown(link.relation)} edge")
        if clash := sorted({"source", "target", "relation", "relations"} & set(data)):
            raise InvalidInput(f"{clash[0]!r} is no name for the data of a link. Choose another one.")
    except InvalidInput as exc:
        raise InvalidInput(f"{place}: {exc}") from exc
    return replace(link, data=data)
