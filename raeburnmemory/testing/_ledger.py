"""What a store must hold after the batches it was given, kept as plain dicts and lists.

`Ledger` applies the rules of `Batch` in the simplest way there is, `Follower` catches up with a store as an index
or a graph does, and `batches` makes up batches that touch every rule.
"""

from __future__ import annotations

import json
import math
import random
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nodes import Batch, Link, Node, Vector, Where
from ._expect import equal, that

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ..store import Store

__all__ = ["Follower", "Ledger", "batches", "ends_of", "ids_of", "link_facts", "node", "node_facts", "unit", "vector"]

NodeKey = tuple[str, str]
LinkKey = tuple[str, str, str, str]
Held = tuple[NodeKey, tuple[int, int, int], list[float]]  # node, span, values

SPACES = ("default", "wörk")
FIELDS = ("prompt", "fact")
_NEXT = ".next"


def unit(*numbers: float) -> NDArray[np.float32]:
    """Return *numbers* as a vector of length 1."""
    length = math.sqrt(math.fsum(number * number for number in numbers))
    return np.array([number / length for number in numbers], np.float32)


def vector(node_id: str, *numbers: float, field: str = "prompt", space: str = "default") -> Vector:
    """Return a vector of length 1 for the whole text of a node."""
    return Vector(node_id, field, unit(*numbers), namespace=space)


def node(
    node_id: str, text: str | None = None, kind: str = "prompt", space: str = "default", **attributes: Any
) -> Node:
    """Return a node of *space*; keywords are its attributes."""
    return Node(node_id, kind, text, attributes, space)


def ids_of(nodes: Iterable[Node]) -> list[str]:
    """Return the ids of *nodes*, in their order."""
    return [found.id for found in nodes]


def ends_of(links: Iterable[Link]) -> list[str]:
    """Return *links* as "source-relation-target"."""
    return [f"{link.source}-{link.relation}-{link.target}" for link in links]


def node_facts(node: Node) -> tuple[Any, ...]:
    """Return everything of a node but its row; as JSON, so that 1, 1.0 and True differ and the order of keys counts."""
    return node.namespace, node.id, node.kind, node.text, json.dumps(node.attributes), node.expires_at


def link_facts(link: Link) -> tuple[Any, ...]:
    """Return everything of a link but its row."""
    return link.namespace, link.source, link.target, link.relation, json.dumps(link.data)


@dataclass
class Ledger:
    """Nodes, links, history, vectors and meta, in the order in which a store must give them back."""

    version: int = 0
    nodes: dict[NodeKey, Node] = field(default_factory=dict)
    links: dict[LinkKey, Link] = field(default_factory=dict)
    past: dict[NodeKey, list[Node]] = field(default_factory=dict)
    vectors: dict[str, list[Held]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    rows: dict[NodeKey, int] = field(default_factory=dict)  # as the store gave them
    last_row: int = -1
    last_link_row: int = -1
    link_rows: dict[LinkKey, int] = field(default_factory=dict)

    def write(self, store: Store, batch: Batch) -> None:
        """Write *batch* to *store* and here; the version must grow by one, or stay for an empty batch."""
        self.apply(batch)
        equal(store.write(batch), self.version, "the version that write returned")

    def apply(self, batch: Batch) -> None:
        """Do what `Batch` says, in the order it says."""
        if batch:
            self.version += 1
        for node_key in batch.removed_nodes:
            if node_key in self.nodes:
                del self.nodes[node_key]
                self.rows.pop(node_key, None)
                self.past.pop(node_key, None)
                self._drop_vectors(node_key)
                for link_key in [k for k in self.links if node_key in {(k[0], k[1]), (k[0], k[2])}]:
                    self._drop_link(link_key)
        for link_key in batch.removed_links:
            self._drop_link(link_key)
        for node in batch.nodes:
            node_key = (node.namespace, node.id)
            if node_key in self.nodes:
                self.past.setdefault(node_key, []).append(self.nodes[node_key])
                self._drop_vectors(node_key)
            self.nodes[node_key] = deepcopy(node)
        for vector in batch.vectors:
            held = (vector.namespace, vector.node), (vector.part, vector.start, vector.end), vector.values.tolist()
            self.vectors.setdefault(vector.field, []).append(held)
        if batch.staged:
            waiting = {name: several for name, several in self.vectors.items() if name.endswith(_NEXT)}
            if batch.staged == "promote":
                self.vectors = {name.removesuffix(_NEXT): several for name, several in waiting.items()}
            else:
                self.vectors = {name: several for name, several in self.vectors.items() if name not in waiting}
        for link in batch.links:
            self.links[link.namespace, link.source, link.target, link.relation] = deepcopy(link)
        for name, value in batch.meta.items():
            self.meta[name] = deepcopy(value)

    def _drop_vectors(self, key: NodeKey) -> None:
        for name, several in self.vectors.items():
            self.vectors[name] = [held for held in several if held[0] != key]

    def _drop_link(self, key: LinkKey) -> None:
        self.links.pop(key, None)
        self.link_rows.pop(key, None)

    # --- comparing ----------------------------------------------------------------------------------------------

    def compare(self, store: Store) -> None:
        """Raise AssertionError where *store* holds, finds, orders or counts something else."""
        equal(store.version(), self.version, "version()")
        equal(store.namespaces(), sorted({key[0] for key in self.nodes}), "namespaces()")
        for space in (*SPACES, None):
            nodes = [node for key, node in self.nodes.items() if space in {None, key[0]}]
            found = list(store.nodes(Where(space)))
            equal([*map(node_facts, found)], [*map(node_facts, nodes)], f"the nodes of {space!r}")
            equal(store.rows(Where(space)).tolist(), [node.row for node in found], f"rows() of {space!r}")
            links = [link for key, link in self.links.items() if space in {None, key[0]}]
            edges = store.links(None, space)
            equal([*map(link_facts, edges)], [*map(link_facts, links)], f"the links of {space!r}")
            equal([*map(link_facts, store.all_links(space))], [*map(link_facts, links)], f"all links of {space!r}")
            self._compare_counts(store, space, nodes, links)
        self._compare_rows(found, edges)
        by_row = {node.row: node_facts(node) for node in found}
        equal({row: node_facts(node) for row, node in store.at_rows([*by_row, 10**9]).items()}, by_row, "at_rows()")
        for key in self.nodes:
            past = store.history(key[1], key[0])
            equal([*map(node_facts, past)], [*map(node_facts, self.past.get(key, []))], f"the history of {key}")
        for space in SPACES:
            ids = [key[1] for key in self.nodes if key[0] == space]
            got = store.get([*ids, "nobody", *ids[:1]], space)
            wanted = {node_id: node_facts(self.nodes[space, node_id]) for node_id in ids}
            equal({node_id: node_facts(node) for node_id, node in got.items()}, wanted, f"get() in {space!r}")
        for name in (*FIELDS, *(name + _NEXT for name in FIELDS)):
            self._compare_vectors(store, name)
        self._compare_vectors_at(store)
        for name, value in self.meta.items():
            equal(store.meta(name), value, f"meta({name!r})")

    def _compare_counts(self, store: Store, space: str | None, nodes: list[Node], links: list[Link]) -> None:
        def count(names: list[str]) -> dict[str, int]:
            return {name: names.count(name) for name in sorted(set(names))}

        fields = [name for name, several in self.vectors.items() for held in several if space in {None, held[0][0]}]
        equal(
            store.counts(space),
            {
                "kinds": count([node.kind for node in nodes]),
                "relations": count([link.relation for link in links]),
                "vectors": count(fields),
            },
            f"counts({space!r})",
        )
        if space is not None:
            equal(store.count(space), len(nodes), f"count({space!r})")

    def _compare_rows(self, nodes: list[Node], links: list[Link]) -> None:
        """Rows grow, stay what they were, and are never given twice."""
        for node in nodes:
            key = node.namespace, node.id
            if key in self.rows:
                equal(node.row, self.rows[key], f"the row of {key} moved")
            else:
                that(node.row > self.last_row, f"the new node {key} has row {node.row}, after {self.last_row}")
                self.rows[key] = self.last_row = node.row
        for link in links:
            link_key = link.namespace, link.source, link.target, link.relation
            if link_key in self.link_rows:
                equal(link.row, self.link_rows[link_key], f"the row of {link_key} moved")
            else:
                that(link.row > self.last_link_row, f"the new link {link_key} has row {link.row}")
                self.link_rows[link_key] = self.last_link_row = link.row

    def _compare_vectors(self, store: Store, name: str) -> None:
        changes = store.vectors(name, -1)
        that(changes.reset or not self.vectors.get(name), f"vectors({name!r}, -1) is no reset")
        equal(changes.version, self.version, f"the version of vectors({name!r}, -1)")
        slots: list[int] = []
        rows: list[int] = []
        found: list[tuple[int, tuple[int, int, int], list[float]]] = []
        for block in changes.blocks:
            slots += block.slots.tolist()
            rows += block.rows.tolist()
            equal(block.values.dtype, np.float32, "the type of vectors")
            found += [
                (row, (span[0], span[1], span[2]), values)
                for row, span, values in zip(
                    block.rows.tolist(), block.spans.tolist(), block.values.tolist(), strict=True
                )
            ]
        wanted = [(self.rows[key], span, values) for key, span, values in self.vectors.get(name, [])]
        equal(found, wanted, f"the vectors of {name!r}")
        equal(slots, sorted(set(slots)), f"the slots of {name!r} in vectors()")
        given, of = store.vector_slots(name)
        equal((given.tolist(), of.tolist()), (slots, rows), f"vector_slots({name!r})")

    def _compare_vectors_at(self, store: Store) -> None:
        wanted: dict[int, dict[tuple[str, int], list[float]]] = {}
        for name, several in self.vectors.items():
            for key, span, values in several:
                wanted.setdefault(self.rows[key], {})[name, span[0]] = values
        rows = [*self.rows.values(), self.last_row + 1]  # those of nodes that are gone, too, and of none
        that(set(filter(self.vectors.get, self.vectors)) <= store.vector_fields(), "vector_fields() lacks one")
        found = store.vectors_at([*rows, *rows[:1]])
        plain = {row: {part: values.tolist() for part, values in parts.items()} for row, parts in found.items()}
        equal(plain, wanted, "vectors_at()")
        equal(store.vectors_at([]), {}, "vectors_at() of no rows")


class Follower:
    """Keeps a copy of what a store holds by applying only what it says has changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version = -1
        self._at = dict.fromkeys((*FIELDS, *(name + _NEXT for name in FIELDS)), -1)
        self._nodes: dict[NodeKey, Node] = {}
        self._links: dict[LinkKey, Link] = {}
        self._vectors: dict[str, dict[int, tuple[int, list[int], list[float]]]] = {name: {} for name in self._at}

    def catch_up(self) -> None:
        """Apply what happened since the last time."""
        changes = self._store.changes(self._version)
        nodes, links = changes.nodes, changes.links
        if changes.reset:
            self._nodes, self._links = {}, {}
            nodes, links = list(self._store.nodes(Where(None))), self._store.links(None, None)
        for node_key in changes.removed_nodes:
            self._nodes.pop(tuple(node_key), None)  # type: ignore[arg-type]
        for link_key in changes.removed_links:
            self._links.pop(tuple(link_key), None)  # type: ignore[arg-type]
        self._nodes.update(((node.namespace, node.id), node) for node in nodes)
        self._links.update(((e.namespace, e.source, e.target, e.relation), e) for e in links)
        self._version = changes.version
        for name, since in self._at.items():
            self._follow(name, since)

    def _follow(self, name: str, since: int) -> None:
        changes = self._store.vectors(name, since)
        held = self._vectors[name]
        if changes.reset:
            held.clear()
        for slot in changes.removed.tolist():
            held.pop(slot, None)
        last = max(held, default=-1)
        for block in changes.blocks:
            for slot, *rest in zip(
                block.slots.tolist(), block.rows.tolist(), block.spans.tolist(), block.values.tolist(), strict=True
            ):
                that(slot > last, f"slot {slot} of {name!r} came after slot {last}")
                held[slot], last = (rest[0], rest[1], rest[2]), slot
        self._at[name] = changes.version

    def compare(self, ledger: Ledger) -> None:
        """Raise AssertionError where the copy differs from what the store must hold."""
        nodes = sorted(self._nodes.values(), key=lambda node: node.row)
        equal([*map(node_facts, nodes)], [*map(node_facts, ledger.nodes.values())], "the nodes by changes()")
        links = sorted(self._links.values(), key=lambda link: link.row)
        equal([*map(link_facts, links)], [*map(link_facts, ledger.links.values())], "the links by changes()")
        for name, held in self._vectors.items():
            wanted = [(ledger.rows[key], list(span), values) for key, span, values in ledger.vectors.get(name, [])]
            equal([held[slot] for slot in sorted(held)], wanted, f"the vectors of {name!r} by what changed")


def batches(seed: int, ledger: Ledger, count: int) -> Iterator[Batch]:
    """Yield *count* batches, each fitting what *ledger* holds when it is asked for."""
    rng = random.Random(seed)  # noqa: S311 - made-up data, the same at every run
    for number in range(count):
        yield _batch(rng, ledger, number)


def _batch(rng: random.Random, ledger: Ledger, number: int) -> Batch:
    def key() -> NodeKey:
        return rng.choice(SPACES), f"n{rng.randrange(9)}"

    def up_to(most: int) -> range:
        return range(rng.choice((0, rng.randint(0, most))))

    removed = [key() for _ in up_to(3)]
    nodes = [
        Node(
            node_id,
            rng.choice(("prompt", "response", "näme")),
            rng.choice((None, "", f"text {number}", "zwei\nZeilen \0 \U0001f98a")),
            {"number": number, "deep": [{"x": [None, True, 1.5]}]} if rng.random() < 0.5 else {},
            space,
            rng.choice((None, None, 4e9)),
        )
        for space, node_id in (key() for _ in range(rng.randint(0, 3)))
    ]
    there = sorted({*(set(ledger.nodes) - set(removed)), *((node.namespace, node.id) for node in nodes)})
    links: list[Link] = []
    vectors: list[Vector] = []
    for _ in up_to(4) if there else ():
        space, source = rng.choice(there)
        target = rng.choice([node_id for where, node_id in there if where == space])
        links.append(Link(source, target, rng.choice(("a", "b", "ç")), rng.choice(({}, {"at": number})), space))
    for _ in up_to(4) if there else ():
        space, node_id = rng.choice(there)
        span = rng.choice(((0, 0, -1), (1, 4, 9)))
        values = unit(*(rng.gauss(0, 1) for _ in range(4)))
        name = rng.choice(FIELDS) + rng.choice(("", "", "", _NEXT))
        vectors.append(Vector(node_id, name, values, *span, namespace=space))
    known = [*ledger.links, ("default", "n1", "n2", "never")]
    return Batch(
        nodes=nodes,
        links=links,
        vectors=vectors,
        removed_nodes=removed,
        removed_links=[rng.choice(known) for _ in up_to(3)],
        meta={rng.choice(("one", "two")): rng.choice((None, number, {"list": [number]}))} if rng.random() < 0.2 else {},
        staged=rng.choice(("promote", "discard")) if rng.random() < 0.15 else None,
    )
