"""Facts: statements with a time in which they hold, recorded without a model and read as of any moment.

A fact is a node that is never rewritten but for its end: `valid_to` is the end that was stated for it, or the moment
at which a fact of the same single-valued predicate took its place. In the second case a link `supersedes` leads from
the newer to the older fact and carries the end that had been stated, so that the older one can be given its time back.
What holds when therefore follows from what was stated alone, whatever the order in which it was recorded.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import InvalidInput, KindConflict, NodeNotFound
from .mutex import Mutex
from .nodes import DERIVED_FROM, FACT, SUPERSEDES, Batch, Link, Node, Where, same_json
from .records import checked_data, checked_id, checked_ids, checked_text, new_id, shown, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .nodes import Changes
    from .store import Store
    from .writer import Writer

__all__ = ["Facts", "Said", "said", "undeclared"]

T = TypeVar("T")

_PARTS = ("subject", "predicate", "object")
_HAD = "had_valid_to"  # of a link `supersedes`: the end that had been stated for the older fact
_DECLARED = "single_valued"  # the store's record of predicates by namespace
_RESERVED = {"id", "type", "text", "subject", "predicate", "object", "valid_from", "valid_to", "timestamp"}
_UNDONE_AT_MOST = 1000  # calls that one memory remembers to take back


@dataclass(frozen=True)
class _Fact:
    """A node as a fact: what it is compared by, and when it holds, in ISO 8601 as `utc` writes it."""

    node: Node
    key: tuple[str, str, str]
    start: str
    end: str | None

    @property
    def id(self) -> str:
        return self.node.id

    def holds(self, at: str) -> bool:
        return self.start <= at and (self.end is None or at < self.end)


class Said(NamedTuple):
    """What somebody stated: the node it makes if it is new, the ids it came from, and which times were given."""

    fact: _Fact
    sources: list[str]
    since_given: bool
    end: str | None


def said(
    statement: tuple[Any, Any, Any],
    *,
    namespace: str,
    valid_from: Any = None,
    valid_to: Any = None,
    source: Any = None,
    fact_id: Any = None,
    timestamp: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> Said:
    """Check subject, predicate and object, and whatever else was stated.

    Raises:
        InvalidInput: Something cannot be stored; the message names it.
    """
    subject, predicate, thing = (
        _words(part, f"the {name} of a fact") for part, name in zip(statement, _PARTS, strict=True)
    )
    time = utc(timestamp)
    start = time if valid_from is None else utc(valid_from)
    end = None if valid_to is None else utc(valid_to)
    if end is not None and end <= start:
        raise InvalidInput(f"A fact that holds from {start} cannot end at {end}. Pass a later valid_to.")
    extra = checked_data(metadata or {}, "metadata")
    if clash := sorted(_RESERVED & set(extra)):
        raise InvalidInput(f"{clash[0]!r} in the metadata of a fact is taken. Choose another name.")
    attributes = {"subject": subject, "predicate": predicate, "object": thing, "valid_from": start, "valid_to": end}
    node = Node(
        new_id() if fact_id is None else checked_id(fact_id, "a fact's id"),
        FACT,
        f"{subject} {' '.join(predicate.replace('_', ' ').split())} {thing}",
        {**attributes, **extra, "timestamp": time},
        namespace,
    )
    sources = [] if source is None else list(dict.fromkeys(checked_ids(source, "a source")))
    return Said(_Fact(node, _key(subject, predicate, thing), start, end), sources, valid_from is not None, end)


class _Call(NamedTuple):
    """One call of `Facts.record`, to be taken back: the fact it made, or the links it added to one."""

    id: str
    new: bool
    links: tuple[tuple[str, str, str, str], ...]


class Facts:
    """The facts of one namespace; safe to share between threads."""

    def __init__(self, store: Store, writer: Writer, namespace: str) -> None:
        self._store = store
        self._writer = writer
        self._namespace = namespace
        self._index = _Index(store, namespace)
        self._calls: deque[_Call] = deque(maxlen=_UNDONE_AT_MOST)

    # --- recording ----------------------------------------------------------------------------------------------

    def record(self, said: Said, *, allow_unembedded: bool = False) -> Node:
        """Record a fact; said again, it only gets its new sources. Return it as it is now."""
        call = _Call("", new=False, links=())

        def plan() -> Batch:
            nonlocal call
            call, batch = self._recording(said)
            return batch

        def then() -> Node:
            if call.new or call.links:
                self._calls.append(call)
            return self._one(call.id).node

        return self._writer.transact(plan, then, allow_unembedded=allow_unembedded)

    def _recording(self, said: Said) -> tuple[_Call, Batch]:
        """Return what recording *said* changes."""
        new = said.fact
        known = self._store.get([new.id, *said.sources], self._namespace)
        if missing := [each for each in said.sources if each not in known]:
            raise NodeNotFound(
                f"No node has the id {missing[0]!r} in {self._store.location!r}, so no fact can come from it. Record "
                f"it first, or leave it out."
            )
        same = self._again(said, known[new.id]) if new.id in known else self._known_already(said)
        fact_id = new.id if same is None else same.id
        if fact_id in said.sources:
            raise InvalidInput(f"{fact_id!r} is the fact itself, and no fact is its own source. Leave it out.")
        there = set()
        if same is not None:
            there = {e.target for e in self._store.links([fact_id], self._namespace, relation=DERIVED_FROM)}
        links = [Link(fact_id, s, DERIVED_FROM, {}, self._namespace) for s in said.sources if s not in there]
        keys = tuple((self._namespace, e.source, e.target, e.relation) for e in links)
        if same is not None:
            return _Call(fact_id, new=False, links=keys), Batch(links=links)
        batch = Batch(nodes=[new.node])
        if self._is_single(new.key[1]):
            before, after = self._beside(new)
            batch = self._settled([(before, new), (new, after)] if before else [(new, after)], new=new)
        return _Call(fact_id, new=True, links=keys), replace(batch, links=[*links, *batch.links])

    def _again(self, said: Said, there: Node) -> _Fact:
        """Return the fact that has the id of *said* already, if it says the same."""
        if there.kind != FACT:
            raise KindConflict(
                f"{there.id!r} is the id of a {there.kind} already, so it cannot be a {FACT}. Choose another id."
            )
        old = _fact(there)
        if (
            old is None
            or old.key != said.fact.key
            or (said.since_given and old.start != said.fact.start)
            or (said.end is not None and said.end != self._stated([old])[old.id])
        ):
            raise InvalidInput(
                f"{there.id!r} is the id of another fact already, {there.text!r}, and facts are not rewritten. Choose "
                f"another id, or take that one back: undo({there.id!r})."
            )
        return old

    def _known_already(self, said: Said) -> _Fact | None:
        """Return the fact that *said* says again: the same one, which holds at that time.

        Without a time of its own, saying it again is no more than that. With one, only the same time is the same
        fact: if it were left out, a fact that somebody records later for a time in between would end it for good.
        """
        found = [fact for fact in self._read(self._index.find(said.fact.key)) if fact.holds(said.fact.start)]
        stated = self._stated(found)
        for fact in reversed(found):
            same_end = stated[fact.id] == said.end
            if (fact.start == said.fact.start and same_end) if said.since_given else (said.end is None or same_end):
                return fact
        return None

    # --- ending and taking back ---------------------------------------------------------------------------------

    def retract(self, fact_id: str, at: Any = None, *, allow_unembedded: bool = False) -> Node:
        """Let a fact hold until *at* and no longer; return it."""
        end = utc(at)

        def plan() -> Batch:
            fact = self._one(fact_id)
            if end < fact.start:
                raise InvalidInput(
                    f"{fact_id!r} holds from {fact.start}, which is after {end}. Retract it at a later time, or take "
                    f"it back altogether: undo({fact_id!r})."
                )
            if fact.end is not None and fact.end <= end:
                raise InvalidInput(f"{fact_id!r} holds until {fact.end} only, so it cannot be retracted at {end}.")
            return self._settled([(fact, None)], {fact.id: end})

        return self._writer.transact(plan, lambda: self._one(fact_id).node, allow_unembedded=allow_unembedded)

    def undo(self, fact_id: str | None = None, *, allow_unembedded: bool = False) -> Node:
        """Take back a fact, or the last call of `record`; return the fact as it was."""
        if fact_id is None and not self._calls:
            raise InvalidInput("This memory object recorded no fact that could be taken back. Name one: undo(id).")
        call = self._calls[-1] if fact_id is None else _Call(fact_id, new=True, links=())
        if fact_id is None and call.id not in self._store.get([call.id], self._namespace):
            self._calls.pop()
            raise NodeNotFound("The fact that was recorded last is gone already.")  # its id may have been forgotten
        taken: Node | None = None

        def plan() -> Batch:
            nonlocal taken
            fact = self._one(call.id)
            taken = fact.node
            return self._undoing(fact) if call.new else Batch(removed_links=call.links)

        def then() -> Node:
            gone = [call] if fact_id is None else [each for each in self._calls if each.id == fact_id]
            for each in gone:
                if each in self._calls:
                    self._calls.remove(each)
            assert taken is not None
            return taken

        return self._writer.transact(plan, then, allow_unembedded=allow_unembedded)

    def _undoing(self, fact: _Fact) -> Batch:
        links = self._store.links([fact.id], self._namespace, direction="in", relation=DERIVED_FROM)
        if links:
            raise InvalidInput(
                f"{fact.id!r} cannot be taken back, because {links[0].source!r} was derived from it. Take that back "
                f"first, or end this one: retract({fact.id!r})."
            )
        if self._is_single(fact.key[1]):
            before, after = self._beside(fact)
            batch = self._settled([(before, after)] if before else [])
        else:  # the predicate was declared where the fact came from
            ended = self._store.links([fact.id], self._namespace, relation=SUPERSEDES)
            older = self._read(e.target for e in ended if _HAD in e.data)
            batch = self._settled([(each, None) for each in older])
        kept = [key for key in batch.removed_links if fact.id not in key[1:3]]  # those go with the node
        return replace(batch, removed_nodes=[(self._namespace, fact.id)], removed_links=kept)

    # --- single-valued predicates -------------------------------------------------------------------------------

    def single_valued(
        self, predicates: Any = None, *, withdraw: bool = False, allow_unembedded: bool = False
    ) -> list[str]:
        """Declare predicates to have one value at a time, or no longer; return those that are declared."""
        if predicates is None:
            if withdraw:
                raise InvalidInput("Name the predicate that may have several values at a time from now on.")
            return list(self._declared().values())
        names = [_words(each, "a predicate") for each in checked_ids(predicates, "a predicate")]
        given = {_predicate(name): name for name in names}

        def plan() -> Batch:
            declared = self._declared()
            if withdraw and (unknown := [name for key, name in given.items() if key not in declared]):
                known = ", ".join(declared.values()) or "none"
                raise InvalidInput(f"{unknown[0]!r} is not declared single-valued. Those that are: {known}.")
            changed = [key for key in given if (key in declared) == withdraw]
            now = {key: name for key, name in {**declared, **given}.items() if not (withdraw and key in given)}
            now |= {key: name for key, name in declared.items() if key in now}  # as it was written first
            everywhere = dict(self._store.meta(_DECLARED) or {})
            everywhere.pop(self._namespace, None)
            if now:
                everywhere[self._namespace] = list(now.values())
            batch = self._settled([pair for key in changed for pair in self._pairs(key, apart=withdraw)])
            return replace(batch, meta={_DECLARED: everywhere or None} if changed else {})

        self._writer.transact(plan, lambda: None, allow_unembedded=allow_unembedded)
        return list(self._declared().values())

    def _declared(self) -> dict[str, str]:
        """Return the declared predicates as they were written, by what they are compared by."""
        everywhere = self._store.meta(_DECLARED)
        names = everywhere.get(self._namespace, []) if isinstance(everywhere, dict) else []
        return {_predicate(name): name for name in names}

    def _is_single(self, predicate: str) -> bool:
        return predicate in self._declared()

    def _pairs(self, predicate: str, *, apart: bool) -> list[tuple[_Fact, _Fact | None]]:
        """Return every fact of a predicate with the one that follows it on the same subject, or *apart* with none."""
        found: dict[str, list[_Fact]] = {}
        for fact in self._read(self._index.find((None, predicate, None))):
            found.setdefault(fact.key[0], []).append(fact)
        return [
            (fact, None if apart else follower)
            for facts in found.values()
            for fact, follower in zip(facts, [*facts[1:], None], strict=True)
        ]

    # --- what holds when ----------------------------------------------------------------------------------------

    def _settled(
        self,
        pairs: Sequence[tuple[_Fact, _Fact | None]],
        restated: Mapping[str, str | None] | None = None,
        new: _Fact | None = None,
    ) -> Batch:
        """Return what to write so that each fact ends where the one that follows it begins, or else where it said.

        *restated* are ends that are stated now, *new* is a fact that is not in the store yet.
        """
        stated = {**self._stated([fact for fact, _ in pairs]), **(restated or {})}
        standing: dict[str, list[Link]] = {}
        for link in self._cuts([fact.id for fact, _ in pairs]):
            standing.setdefault(link.target, []).append(link)
        nodes, links, gone = [], [], []
        for fact, follower in pairs:
            said = stated[fact.id]
            cut = follower is not None and (said is None or follower.start < said)
            end = follower.start if cut and follower is not None else said
            if fact is new or end != fact.end:
                nodes.append(replace(fact.node, attributes={**fact.node.attributes, "valid_to": end}))
            by = follower.id if cut and follower is not None else None
            old = {link.source: link for link in standing.get(fact.id, ())}
            gone += [(self._namespace, e.source, e.target, e.relation) for e in old.values() if e.source != by]
            if by is not None and (by not in old or not same_json(old[by].data[_HAD], said)):
                data = {**(old[by].data if by in old else {}), _HAD: said}
                links.append(Link(by, fact.id, SUPERSEDES, data, self._namespace))
        return Batch(nodes=nodes, links=links, removed_links=gone)

    def _stated(self, facts: Sequence[_Fact]) -> dict[str, str | None]:
        """Return the end that was stated for each of *facts*, None for those that go on."""
        had = {link.target: link.data[_HAD] for link in self._cuts([fact.id for fact in facts])}
        return {fact.id: had.get(fact.id, fact.end) for fact in facts}

    def _cuts(self, ids: Sequence[str]) -> list[Link]:
        """Return the links by which facts took the place of those with *ids*, not those that people made."""
        links = self._store.links(list(ids), self._namespace, direction="in", relation=SUPERSEDES)
        return [link for link in links if _HAD in link.data]

    def _beside(self, fact: _Fact) -> tuple[_Fact | None, _Fact | None]:
        """Return the facts of the same subject and predicate that became valid before and after *fact*."""
        before, after = self._index.beside(fact)
        found = {each.id: each for each in self._read([each for each in (before, after) if each is not None])}
        return found.get(before or ""), found.get(after or "")

    # --- reading ------------------------------------------------------------------------------------------------

    def read(
        self,
        subject: Any = None,
        predicate: Any = None,
        thing: Any = None,
        *,
        as_of: Any = None,
        include_superseded: bool = False,
    ) -> list[Node]:
        """Return the facts that hold at *as_of*, and with *include_superseded* those that ended before it too."""
        at = utc(as_of)
        asked = zip(_PARTS, (subject, predicate, thing), (_folded, _predicate, _exact), strict=True)
        key = [None if part is None else fold(checked_text(part, f"the {name} of facts")) for name, part, fold in asked]
        with self._store.snapshot():
            found = self._read(self._index.find(key))
        return [fact.node for fact in found if fact.holds(at) or (include_superseded and fact.start <= at)]

    def _read(self, ids: Iterable[str]) -> list[_Fact]:
        """Return those of the facts with *ids* that exist, in the order in which they became valid."""
        nodes = self._store.get(list(ids), self._namespace)
        facts = [fact for fact in map(_fact, nodes.values()) if fact is not None]
        return sorted(facts, key=lambda fact: (fact.start, fact.node.row))

    def _one(self, fact_id: Any) -> _Fact:
        node = self._store.get([checked_id(fact_id, "a fact's id")], self._namespace).get(fact_id)
        if node is None:
            raise NodeNotFound(f"No node has the id {fact_id!r} in {self._store.location!r}.")
        fact = _fact(node)
        if fact is None:
            what = f"a {node.kind}" if node.kind != FACT else "without subject, predicate, object or valid_from"
            raise InvalidInput(f"{fact_id!r} is no fact, but {what}. Name a fact, or change the node with update().")
        return fact


class _Entry(NamedTuple):
    start: str
    row: float  # after all others while it is not in the store yet
    id: str


class _Index:
    """Which facts there are about what, in the order in which they became valid.

    A cache of the store that catches up by version: whoever asks holds the store's lock or a snapshot. The store is
    never called under the lock of this, because others may hold the store and wait for it.
    """

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._lock = Mutex()
        self._version = -1
        self._facts: dict[str, tuple[tuple[str, str, str], _Entry]] = {}
        self._about: dict[tuple[str, ...], list[_Entry]] = {}  # by subject; and predicate; and object

    def find(self, key: Sequence[str | None]) -> list[str]:
        """Return the ids of the facts whose subject, predicate and object are those of *key* that are not None."""
        known = tuple(part for part in key if part is not None)

        def those() -> list[str]:
            if known and known == tuple(key[: len(known)]):
                return [entry.id for entry in self._about.get(known, ())]
            wanted = [(place, part) for place, part in enumerate(key) if part is not None]
            return [e.id for own, e in self._facts.values() if all(own[place] == part for place, part in wanted)]

        return self._ask(those)

    def beside(self, fact: _Fact) -> tuple[str | None, str | None]:
        """Return the ids of the facts that became valid before and after *fact*, of its subject and predicate."""

        def around() -> tuple[str | None, str | None]:
            entries = self._about.get(fact.key[:2], [])
            at = bisect_left(entries, _Entry(fact.start, fact.node.row if fact.node.row >= 0 else math.inf, fact.id))
            after = at + 1 if at < len(entries) and entries[at].id == fact.id else at
            return (entries[at - 1].id if at else None), (entries[after].id if after < len(entries) else None)

        return self._ask(around)

    def _ask(self, question: Callable[[], T]) -> T:
        while True:
            version = self._store.version()
            with self._lock.lock:
                if self._version == version:
                    return question()
                since = self._version
            changes = self._store.changes(since)
            nodes = changes.nodes
            if changes.reset:
                nodes = list(self._store.nodes(Where(self._namespace, kinds=[FACT])))
            with self._lock.lock:
                if self._version == since:  # else another thread was faster
                    self._apply(changes, nodes)
                    if self._version == version:
                        return question()

    def _apply(self, changes: Changes, nodes: Sequence[Node]) -> None:
        if changes.reset:
            self._facts, self._about = {}, {}
        for namespace, node_id in changes.removed_nodes:
            if namespace == self._namespace:
                self._drop(node_id)
        for node in nodes:
            if node.namespace != self._namespace:
                continue
            self._drop(node.id)
            if (fact := _fact(node)) is not None:
                entry = _Entry(fact.start, node.row, node.id)
                self._facts[node.id] = (fact.key, entry)
                for length in (1, 2, 3):
                    insort(self._about.setdefault(fact.key[:length], []), entry)
        self._version = changes.version

    def _drop(self, node_id: str) -> None:
        if (known := self._facts.pop(node_id, None)) is None:
            return
        key, entry = known
        for length in (1, 2, 3):
            entries = self._about[key[:length]]
            del entries[bisect_left(entries, entry)]
            if not entries:
                del self._about[key[:length]]


def _fact(node: Node) -> _Fact | None:
    """Return *node* as a fact; None if it is another thing, or of another program that calls it by that name."""
    if node.kind != FACT:
        return None
    parts = [node.attributes.get(name) for name in _PARTS]
    since, until = node.attributes.get("valid_from"), node.attributes.get("valid_to")
    if since is None or not all(isinstance(part, str) for part in parts):
        return None
    try:
        return _Fact(node, _key(*parts), utc(since), None if until is None else utc(until))
    except InvalidInput:
        return None


def undeclared(store: Store, namespace: str, ids: Iterable[str]) -> dict[str, Any]:
    """Return what to write to meta so that no predicate stays declared that only facts among *ids* had."""
    everywhere = store.meta(_DECLARED)
    declared = everywhere.get(namespace, []) if isinstance(everywhere, dict) else []
    gone = {_predicate_of(node) for node in store.get(list(ids), namespace).values()} if declared else set()
    if not any(_predicate(name) in gone for name in declared):
        return {}
    going = set(ids)
    kept = {_predicate_of(node) for node in store.nodes(Where(namespace, kinds=[FACT])) if node.id not in going}
    names = [name for name in declared if _predicate(name) not in gone - kept]
    rest = {**everywhere, namespace: names}
    return {_DECLARED: {name: each for name, each in rest.items() if each} or None}


def _predicate_of(node: Node) -> str | None:
    fact = _fact(node)
    return None if fact is None else fact.key[1]


def _words(value: Any, what: str) -> str:
    text = checked_text(value, what).strip()
    if not text.replace("_", " ").strip():
        raise InvalidInput(f"{what[0].upper()}{what[1:]} must not be empty, as {shown(value)} is.")
    return text


def _key(subject: Any, predicate: Any, thing: Any) -> tuple[str, str, str]:
    return _folded(subject), _predicate(predicate), _exact(thing)


def _exact(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _folded(text: str) -> str:
    return _exact(text).casefold()


def _predicate(text: str) -> str:
    return _folded(text.replace("_", " "))
