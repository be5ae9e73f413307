"""The write path: from records to one batch, resolved against what the store holds while nobody else writes."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ._collector import no_collections
from .errors import InvalidInput, KindConflict, NodeNotFound
from .filters import divided
from .new_vectors import NewVectors, what_is_embedded
from .nodes import (
    AGENT,
    BELONGS_TO,
    DOCUMENT,
    FRAGMENT,
    GENERATED_BY,
    PART_OF,
    PROMPT,
    RESPONDED_WITH,
    SESSION,
    Batch,
    Change,
    Forgotten,
    Link,
    Node,
    Where,
    same_json,
)
from .passages import pieces
from .records import checked_data, checked_id, checked_ids, checked_text, stated, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .dense import Dense
    from .nodes import Recorded
    from .records import Record
    from .store import Store

__all__ = ["Chosen", "Writer"]

T = TypeVar("T")

_BLOCK = 256  # nodes whose vectors are looked at together
_ID = attrgetter("id")
_LINK_KEYS = {"source", "target", "relation", "relations"}  # what an edge's JSON says besides its data


class Chosen(NamedTuple):
    """What to forget: the nodes that every condition names that is not None."""

    ids: Sequence[str] | None = None
    session: str | None = None
    agent: str | None = None
    before: str | None = None
    where: Mapping[str, Any] | None = None

    def given(self) -> list[str]:
        """Return the names of the conditions that are not None."""
        return [name for name, value in self._asdict().items() if value is not None]


class Writer:
    """Everything that changes one namespace of a store."""

    def __init__(self, store: Store, dense: Dense, namespace: str) -> None:
        self._store = store
        self._dense = dense
        self._namespace = namespace

    # --- adding -------------------------------------------------------------------------------------------------

    def record(
        self,
        records: Sequence[Record],
        *,
        allow_unembedded: bool = False,
        progress: Callable[[int, int], Any] | None = None,
    ) -> None:
        """Write *records* in one transaction; what is there already in every part changes nothing."""
        vectors = NewVectors(self._dense, allow_unembedded, progress)
        nodes, links, given = _joined(records)
        vectors.give(given)
        if vectors.needed(nodes):
            self._embed(nodes, vectors)
        with self._store.exclusive():
            self._write(nodes, links, vectors)

    def record_many(
        self,
        make: Callable[[], Sequence[Record]],
        *,
        allow_unembedded: bool = False,
        progress: Callable[[int, int], Any] | None = None,
    ) -> list[Recorded]:
        """Write the records that *make* makes, as `record` does, and return their ids."""
        vectors = NewVectors(self._dense, allow_unembedded=allow_unembedded, progress=progress)
        # All that is made for it is gone before the collector, which would walk over it, may run again.
        with contextlib.ExitStack() as held:
            held.enter_context(no_collections())
            return self._record_many(make, held, vectors)

    def _record_many(
        self, make: Callable[[], Sequence[Record]], held: contextlib.ExitStack, vectors: NewVectors
    ) -> list[Recorded]:
        records = make()
        nodes, links, given = _joined(records)
        vectors.give(given)
        if vectors.needed(nodes):
            held.close()
            self._embed(nodes, vectors)
            held.enter_context(no_collections())
        with self._store.exclusive():
            self._write(nodes, links, vectors)
        return [record.ids for record in records]

    def _write(self, nodes: Sequence[Node], links: Sequence[Link], vectors: NewVectors) -> None:
        """Write what of *nodes* and *links* is not there; somebody holds the lock."""
        known: dict[str, Node] = {}
        changed = self._changed(nodes, known)
        new = self._new_links(links, set(map(_ID, nodes)).difference(known), or_other_data=False)
        self._keep(vectors, changed, known)
        self._store.write(vectors.batch(changed, new, self._namespace))

    def _embed(self, nodes: Sequence[Node], vectors: NewVectors, *, expiring: bool = False) -> None:
        """Embed what of *nodes* is new or has another text; before the lock, because it takes long."""
        known: dict[str, Node] = {}
        changed = self._changed(nodes, known, expiring=expiring)
        self._keep(vectors, changed, known)
        vectors.embed(changed)

    def _keep(self, vectors: NewVectors, changed: Iterable[Node], known: Mapping[str, Node]) -> None:
        """Let those of *changed* keep the vectors they have of which nothing that is embedded is to change.

        These may be vectors that somebody brought along, and the model may cost money, or be out of reach.
        """
        same: dict[str, int] = {}
        for node in changed:  # one that is there twice ends as the second one says
            if (old := known.get(node.id)) is not None:
                same.pop(node.id, None)
                if what_is_embedded(old) == what_is_embedded(node):
                    same[node.id] = old.row
        found = self._store.vectors_at(list(same.values())) if same else {}
        vectors.keep({node_id: found[row] for node_id, row in same.items() if row in found})

    def converse(
        self,
        plan: Callable[[], Sequence[Record]],
        *,
        allow_unembedded: bool = False,
        progress: Callable[[int, int], Any] | None = None,
    ) -> Sequence[Record]:
        """Write the records that *plan* finds, in one transaction, and return them.

        *plan* is called twice, as in `transact`; its nodes must have the same ids each time.
        """
        expected = plan()
        vectors = NewVectors(self._dense, allow_unembedded=allow_unembedded, progress=progress)
        nodes, _, given = _joined(expected)
        vectors.give(given)
        self._embed(nodes, vectors)
        with self._store.exclusive():
            records = plan()
            nodes, links, _ = _joined(records)
            self._write(nodes, links, vectors)
        return records

    def put(
        self,
        record: Record,
        *,
        allow_unembedded: bool = False,
        progress: Callable[[int, int], Any] | None = None,
    ) -> list[str]:
        """Write nodes as they are given, and links, in one transaction; return the ids of nodes that were not there."""
        vectors = NewVectors(self._dense, allow_unembedded=allow_unembedded, progress=progress)
        vectors.give(record.vectors)
        nodes, links = record.nodes, {(link.source, link.target, link.relation): link for link in record.links}
        for link in links.values():
            _link_data(link.data)
        self._embed(nodes, vectors, expiring=True)
        with no_collections() if len(nodes) > 1 else contextlib.nullcontext(), self._store.exclusive():
            known: dict[str, Node] = {}
            changed = self._changed(nodes, known, expiring=True)
            fresh = dict.fromkeys(node.id for node in nodes if node.id not in known)
            ends = {end for link in links.values() for end in (link.source, link.target)} - {*fresh, *known}
            for end in sorted(ends - set(self._store.get(list(ends), self._namespace))):
                self._one(end)  # for its error
            new = self._new_links(list(links.values()), fresh)
            self._keep(vectors, changed, known)
            self._store.write(vectors.batch(changed, new, self._namespace))
        return list(fresh)

    def change(self, plan: Callable[[], Change], *, allow_unembedded: bool = False) -> Change:
        """Write and remove what *plan* finds, in one transaction, and return what it was; see `transact`."""
        wanted = Change()

        def batch() -> Batch:
            nonlocal wanted
            wanted = plan()
            return self._batch(wanted)

        return self.transact(batch, lambda: wanted, allow_unembedded=allow_unembedded)

    def _batch(self, wanted: Change) -> Batch:
        """Return the batch, without vectors, that makes a change; raise what is wrong with it."""
        record = stated(wanted.nodes, wanted.links, None, self._namespace)
        gone = dict.fromkeys(checked_ids(wanted.removed_nodes, "an id"))
        cut = [tuple(checked_ids(link, "an id or a relation")) for link in wanted.removed_links]
        if odd := [link for link in cut if len(link) != 3]:
            raise InvalidInput(f"A link to remove is a tuple of source, target and relation, not {odd[0]!r}.")
        links = {(link.source, link.target, link.relation): link for link in record.links}
        for link in links.values():
            _link_data(link.data)
        if both := [link for link in cut if link in links]:
            raise InvalidInput(f"The link {both[0]!r} is to be written and to be removed. Leave out one of them.")
        if twice := [node.id for node in record.nodes if node.id in gone]:
            raise InvalidInput(f"{twice[0]!r} is to be written and to be removed. Leave out one of them.")
        known: dict[str, Node] = {}
        changed = self._changed(record.nodes, known, expiring=True)
        fresh = {node.id for node in record.nodes if node.id not in known}
        ends = {end for link in links.values() for end in (link.source, link.target)} - {*fresh, *known}
        if lost := sorted(ends & set(gone)):
            raise NodeNotFound(f"A link leads to or from {lost[0]!r}, which is to be removed. Leave out one of them.")
        for end in sorted(ends - set(self._store.get(list(ends), self._namespace))):
            self._one(end)  # for its error
        there = self._store.get(list(gone), self._namespace)
        return Batch(
            nodes=changed,
            links=self._new_links(list(links.values()), fresh),
            removed_nodes=[(self._namespace, node_id) for node_id in gone if node_id in there],
            removed_links=[(self._namespace, *link) for link in self._there(cut) if not {*link[:2]} & set(gone)],
        )

    def _there(self, links: Sequence[tuple[str, ...]]) -> list[tuple[str, str, str]]:
        """Return those of *links* that exist."""
        if not links:
            return []
        found = self._store.links(list(dict.fromkeys(link[0] for link in links)), self._namespace)
        wanted = set(links)
        return [key for e in found if (key := (e.source, e.target, e.relation)) in wanted]

    def _changed(self, nodes: Sequence[Node], known: dict[str, Node], *, expiring: bool = False) -> list[Node]:
        """Return those of *nodes* that are new or differ from what is there, as they are to be written.

        What was there under their ids before is put into *known*. When they expire is kept, unless *expiring*.
        """
        known.update(self._known(nodes))
        changed: list[Node] = []
        latest: dict[str, Node] = {}
        for node in nodes:
            new = _merged(latest.get(node.id) or known.get(node.id), node, expiring=expiring)
            if new is not None:
                changed.append(new)
                latest[node.id] = new
        return changed

    def _known(self, nodes: Iterable[Node]) -> dict[str, Node]:
        return self._store.get(list(dict.fromkeys(map(_ID, nodes))), self._namespace)

    def _new_links(
        self, links: Sequence[Link], fresh: Collection[str] = (), *, or_other_data: bool = True
    ) -> list[Link]:
        """Return those of *links* that are not there, or are there with other data; none touches *fresh* nodes yet."""
        old = [link.source for link in links if link.source not in fresh and link.target not in fresh]
        if not old:
            return list(links)
        sources = list(dict.fromkeys(old))
        there = {(e.source, e.target, e.relation): e.data for e in self._store.links(sources, self._namespace)}
        keys = [(e.source, e.target, e.relation) for e in links]
        return [
            e
            for e, key in zip(links, keys, strict=True)
            if key not in there or (or_other_data and not same_json(there[key], e.data))
        ]

    def answered_by(self, session_id: str | None, message_id: str | None) -> str | None:
        """Return the prompt that a response answers: its own if it is there already, else the session's last."""
        if message_id is not None and message_id in self._store.get([message_id], self._namespace):
            links = self._store.links([message_id], self._namespace, direction="in", relation=RESPONDED_WITH)
            return links[0].source if links else None
        if session_id is None:
            return None
        for wanted in (
            1,
            16,
            None,
        ):  # the last one nearly always is a prompt; tools and systems may follow it
            links = self._store.links([session_id], self._namespace, direction="in", relation=BELONGS_TO, newest=wanted)
            nodes = self._store.get([link.source for link in links], self._namespace)
            for link in reversed(links):
                if link.source in nodes and nodes[link.source].kind == PROMPT:
                    return link.source
        return None

    # --- changing -----------------------------------------------------------------------------------------------

    def update(
        self,
        node_id: str,
        text: str | None,
        metadata: Mapping[str, Any] | None,
        remove: Sequence[str],
        *,
        allow_unembedded: bool = False,
    ) -> Node:
        """Change the text or attributes of a node."""
        extra = checked_data(metadata or {}, "metadata")
        remove = checked_ids(remove, "the name of an attribute")
        if clash := sorted({"id", "type", "text"} & {*extra, *remove}):
            raise InvalidInput(f"{clash[0]!r} is no attribute that update can change that way. Use text= for the text.")
        if text is not None:
            checked_text(text, f"the text of {node_id!r}")
        vectors = NewVectors(self._dense, allow_unembedded=allow_unembedded)

        def changed(old: Node) -> Node:
            attributes = {key: value for key, value in {**old.attributes, **extra}.items() if key not in remove}
            return replace(old, text=old.text if text is None else text, attributes=attributes)

        old = self._one(node_id)
        new = changed(old)
        self._keep(vectors, [new], {node_id: old})
        vectors.embed([new])  # before the lock, because it takes long
        with self._store.exclusive():
            old = self._one(node_id)
            new = changed(old)
            if not _same(new, old):
                self._keep(vectors, [new], {node_id: old})
                self._store.write(vectors.batch([new], [], self._namespace))
            return new

    def link(self, source: str, target: str, relation: str, data: Mapping[str, Any]) -> None:
        """Add an edge, or give it new data."""
        checked_id(relation, "a relation")
        new = Link(source, target, relation, _link_data(data), self._namespace)
        with self._store.exclusive():
            for end in (source, target):
                self._one(end)
            if links := self._new_links([new]):
                self._store.write(Batch(links=links))

    def unlink(self, source: str, target: str, relation: str | None) -> int:
        """Remove one edge, or with None all edges from *source* to *target*; return how many there were."""
        for end in (source, target):
            checked_id(end, "an id")
        with self._store.exclusive():
            found = self._store.links([source], self._namespace, relation=relation)
            keys = [(self._namespace, e.source, e.target, e.relation) for e in found if e.target == target]
            if keys:
                self._store.write(Batch(removed_links=keys))
            return len(keys)

    def transact(
        self,
        plan: Callable[[], Batch],
        then: Callable[[], T],
        *,
        allow_unembedded: bool = False,
        equals: Callable[[], Iterable[Node]] = tuple,
        counted: Callable[[int], Any] | None = None,
    ) -> T:
        """Write what *plan* finds is to be changed, with vectors, and return what *then* reads before others may write.

        *plan* is called twice: under the lock, and before it, so that nobody waits while texts are embedded. It must
        read everything from the store each time, and change nothing itself. *equals*, asked right after it, are nodes
        in the store whose vectors those of equal texts in the batch are taken from. *counted* is told how many texts
        were embedded.
        """
        vectors = NewVectors(self._dense, allow_unembedded=allow_unembedded)
        with self._store.snapshot():
            expected = plan()
            vectors.take(self._vectors_of(equals()))
            self._keep(vectors, expected.nodes, self._known(expected.nodes))
        vectors.embed(expected.nodes)
        with self._store.exclusive():
            batch = plan()
            vectors.take(self._vectors_of(equals()))  # anew: all of them may have been moved to another model
            self._keep(vectors, batch.nodes, self._known(batch.nodes))
            made = vectors.batch(batch.nodes, batch.links, self._namespace)
            self._store.write(replace(batch, vectors=made.vectors, meta={**batch.meta, **made.meta}))
            if counted is not None:
                counted(vectors.computed)
            return then()

    def _vectors_of(self, nodes: Iterable[Node]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors that the store has of the pieces of *nodes*, by what these say."""
        there = {node.row: node for node in nodes}
        found = self._store.vectors_at(list(there)) if there else {}
        return {
            piece.text: values
            for row, parts_of in found.items()
            for piece in pieces(there[row])
            if (values := parts_of.get((piece.field, piece.part))) is not None
        }

    # --- forgetting ---------------------------------------------------------------------------------------------

    def forget(self, chosen: Chosen) -> Forgotten:
        """Remove the nodes that every given condition names, and the sessions that this leaves empty."""
        with self._store.exclusive():
            return self._remove(self.chosen(chosen))

    def chosen(self, wanted: Chosen) -> set[str]:
        """Return the ids of the nodes that every given condition names; somebody holds the lock."""
        found: list[set[str]] = []
        before = wanted.before
        if wanted.ids is not None:
            found.append(set(self._store.get(wanted.ids, self._namespace)))
        if wanted.session is not None:
            found.append(self._of_session(wanted.session))
        if wanted.agent is not None:
            found.append(self._of_agent(wanted.agent))
        if before is not None or wanted.where is not None:
            plain, fits = divided(wanted.where or {})
            nodes = self._store.nodes(Where(self._namespace, attributes=plain))
            old = (n for n in nodes if before is None or (time_of(n) or before) < before)
            found.append({n.id for n in old if fits is None or fits(n.attributes)})
        return set.intersection(*found)

    def _of_session(self, session: str) -> set[str]:
        said = {e.source for e in self._store.links([session], self._namespace, direction="in", relation=BELONGS_TO)}
        found = {session} if session in self._store.get([session], self._namespace) else set()
        return found | said | self._answers_only_to(said)

    def _answers_only_to(self, prompts: set[str]) -> set[str]:
        """Return the responses to *prompts* that answer no other prompt."""
        answers = {e.target for e in self._store.links(list(prompts), self._namespace, relation=RESPONDED_WITH)}
        asked = self._store.links(list(answers), self._namespace, direction="in", relation=RESPONDED_WITH)
        return answers - {e.target for e in asked if e.source not in prompts}

    def _of_agent(self, agent: str) -> set[str]:
        given = self._store.links([agent], self._namespace, direction="in", relation=GENERATED_BY)
        answers = {e.source for e in given}
        asked = self._store.links(list(answers), self._namespace, direction="in", relation=RESPONDED_WITH)
        prompts = {e.source for e in asked}
        others = self._store.links(list(prompts), self._namespace, relation=RESPONDED_WITH)
        return answers | (prompts - {e.source for e in others if e.target not in answers})

    def _remove(self, ids: set[str]) -> Forgotten:
        report, _ = self.leaving(ids)
        if report:
            self._store.write(Batch(removed_nodes=[(self._namespace, node_id) for node_id in report.ids]))
        return report

    def leaving(self, ids: set[str]) -> tuple[Forgotten, set[str]]:
        """Return what would go with the nodes *ids*: the fragments of documents, and sessions that this leaves empty.

        The ids of all of these are returned too, with those of nodes that have expired or are not there at all.
        """
        nodes = self._store.get(list(ids), self._namespace)
        if documents := [node.id for node in nodes.values() if node.kind == DOCUMENT]:
            links = self._store.links(documents, self._namespace, direction="in", relation=PART_OF)
            parts_of = self._store.get([link.source for link in links], self._namespace)
            nodes.update({node_id: node for node_id, node in parts_of.items() if node.kind == FRAGMENT})
        around = self._store.links(list(nodes), self._namespace, direction="both")
        sessions = {e.target for e in around if e.relation == BELONGS_TO and e.source in nodes} - set(nodes)
        if sessions:
            one_more = len(nodes) + 1  # of that many messages of a session one stays
            held = self._store.links(
                list(sessions), self._namespace, direction="in", relation=BELONGS_TO, newest=one_more
            )
            empty = sessions - {e.target for e in held if e.source not in nodes}
            # A link of that name may also lead to what is no session, in a graph of somebody's own.
            found = self._store.get(list(empty), self._namespace)
            nodes.update({node_id: node for node_id, node in found.items() if node.kind == SESSION})
            around = self._store.links(list(nodes), self._namespace, direction="both")
        if not nodes:
            return Forgotten(), ids
        gone = sorted(nodes.values(), key=lambda node: node.row)
        rows = [node.row for node in gone]
        vectors = sum(
            len(found)
            for start in range(0, len(rows), _BLOCK)
            for found in self._store.vectors_at(rows[start : start + _BLOCK]).values()
        )
        kinds = dict(sorted(Counter(node.kind for node in gone).items()))
        return Forgotten(tuple(node.id for node in gone), kinds, len(around), vectors), ids | set(nodes)

    # --- for the live graph -------------------------------------------------------------------------------------

    def write_graph(
        self,
        nodes: Sequence[tuple[str, dict[str, Any]]],
        links: Sequence[tuple[str, str, str, dict[str, Any]]],
    ) -> None:
        """Upsert nodes and links as a graph knows them; see `live_graph.GraphWriter`."""
        given = {checked_id(node_id, "a node's id"): attributes for node_id, attributes in nodes}
        for source, target, relation, data in links:
            checked_id(relation, "a relation")
            _link_data(data)
            given.setdefault(checked_id(source, "a node's id"), {})
            given.setdefault(checked_id(target, "a node's id"), {})
        vectors = NewVectors(self._dense, allow_unembedded=False)
        known: dict[str, Node] = {}
        expected = self._from_graph(given, known)
        self._keep(vectors, expected, known)
        vectors.embed(expected)
        with self._store.exclusive():
            changed = self._from_graph(given, known)
            self._keep(vectors, changed, known)
            there = {
                (e.source, e.target, e.relation): e for e in self._store.links([e[0] for e in links], self._namespace)
            }
            new = []
            for source, target, relation, data in links:
                old = there.get((source, target, relation))
                merged = {**(old.data if old else {}), **checked_data(data, f"the {relation!r} edge")}
                if old is None or not same_json(merged, old.data):
                    new.append(Link(source, target, relation, merged, self._namespace))
            self._store.write(vectors.batch(changed, new, self._namespace))

    def _from_graph(self, given: Mapping[str, dict[str, Any]], known: dict[str, Node]) -> list[Node]:
        """Return the nodes that change, as they are to be written; what is there under their ids becomes *known*."""
        known.clear()
        known.update(self._store.get(list(given), self._namespace))
        changed = []
        for node_id, attributes in given.items():
            rest = checked_data(attributes, f"node {node_id!r}")
            old, kind, text = known.get(node_id), rest.pop("type", None), rest.pop("text", None)
            if kind is not None:
                checked_id(kind, "the type of a node")
            if text is not None:
                checked_text(text, f"the text of {node_id!r}")
            if "id" in rest:
                raise InvalidInput(f"'id' of node {node_id!r} is not for attributes. Choose another name.")
            if old is None:
                changed.append(Node(node_id, kind or "node", text, rest, self._namespace))
                continue
            if kind not in {None, old.kind}:
                raise _conflict(old, kind)
            new = replace(old, text=old.text if text is None else text, attributes={**old.attributes, **rest})
            if not _same(new, old):
                changed.append(new)
        return changed

    def erase_graph(self, ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        """Forget nodes and remove every link of each pair."""
        with self._store.exclusive():
            if pairs:
                wanted = set(pairs)
                found = self._store.links(list({source for source, _ in pairs}), self._namespace)
                keys = [
                    (self._namespace, e.source, e.target, e.relation) for e in found if (e.source, e.target) in wanted
                ]
                self._store.write(Batch(removed_links=keys))
            if ids:
                self._remove(set(ids))

    def _one(self, node_id: str) -> Node:
        found = self._store.get([checked_id(node_id, "an id")], self._namespace).get(node_id)
        if found is None:
            raise NodeNotFound(f"No node has the id {node_id!r} in {self._store.location!r}.")
        return found


def _joined(records: Sequence[Record]) -> tuple[Sequence[Node], Sequence[Link], Mapping[str, Any]]:
    """Return the nodes, the links and the vectors of all *records*."""
    if len(records) == 1:
        return records[0].nodes, records[0].links, records[0].vectors
    nodes = [node for record in records for node in record.nodes]
    links = [link for record in records for link in record.links]
    return nodes, links, {node_id: values for record in records for node_id, values in record.vectors.items()}


def _merged(old: Node | None, new: Node, *, expiring: bool) -> Node | None:
    """Return what to write so that *new* is there; None if it is there already."""
    if old is None:
        if new.kind != AGENT or "name" in new.attributes:
            return new
        return Node(new.id, new.kind, new.text, {**new.attributes, "name": new.id}, new.namespace, new.expires_at)
    if old.kind != new.kind:
        raise _conflict(old, new.kind)
    if new.kind in {AGENT, SESSION}:
        if not new.attributes and old.text == new.text and not expiring:
            return None
        attributes = {**old.attributes, **new.attributes}  # naming one again says nothing against what is known
    else:
        attributes = dict(new.attributes)
        if "timestamp" in old.attributes:
            attributes["timestamp"] = old.attributes["timestamp"]
    expires_at = new.expires_at if expiring else old.expires_at
    if old.text == new.text and same_json(old.attributes, attributes) and expires_at == old.expires_at:
        return None
    return replace(new, attributes=attributes, expires_at=expires_at)


def _same(one: Node, other: Node) -> bool:
    return one.text == other.text and same_json(one.attributes, other.attributes)


def _conflict(old: Node, kind: str) -> KindConflict:
    return KindConflict(f"{old.id!r} is the id of a {old.kind} already, so it cannot be a {kind}. Choose another id.")


def _link_data(data: Mapping[str, Any]) -> dict[str, Any]:
    if clash := sorted(_LINK_KEYS & set(data)):
        raise InvalidInput(f"{clash[0]!r} is no name for the data of a link. Choose another one.")
    return checked_data(data, "the data of a link")
