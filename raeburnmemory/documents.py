"""Documents as nodes: one for each document, one for each fragment of its text, and what is known of their sources.

A document is a node of the kind `document` without a text, with the id `document/COLLECTION/KEY`. Its attributes say
where it came from and what was read: see `Entry`. Each fragment is a node of the kind `fragment` with the id
`fragment/COLLECTION/KEY`; its text is a part of the document's as it stands there, and its attributes are

- `collection`, `key`: as everywhere in collections;
- `document`: the id of its document's node;
- `content_hash`: the SHA-256 of its text;
- `headings`: those above it, the outermost first, where there are any;
- `context`: what stands above it and is looked for with it, such as headings or the header of a table;
- `block`: `"text"`, `"code"`, `"table"` or `"conversation"`.

A link `part_of` leads to the document; its data say where the fragment stands: `start` and `end` in characters of the
text, `order`, and where known `lines` and `pages`, each the first and the last.

So the node of a fragment never changes: an edit above it changes its link, a rename changes the document's node. Keys
of fragments begin with the hash of their text, so that equal texts find each other, and one takes the vectors of the
other.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .mutex import Mutex
from .nodes import DOCUMENT, FRAGMENT, PART_OF, Batch, Link, Node, Where, collected_id, same_json
from .records import checked_data, checked_id, checked_text, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .dense import Dense
    from .store import Store
    from .writer import Writer

__all__ = ["Documents", "Entry", "Fragment", "Written"]

_HASH = 20  # hexadecimal digits of the hash of a text in the key of a fragment: enough to find it, the text decides
_TRIED = 4  # keys of one text that are looked up at once


class Fragment(NamedTuple):
    """A part of a document's text, and where it stands."""

    text: str
    start: int
    end: int
    lines: tuple[int, int] | None = None
    pages: tuple[int, int] | None = None
    headings: tuple[str, ...] = ()
    context: str = ""
    block: str = "text"


class Entry(NamedTuple):
    """What is known of a document without reading its fragments: the id of its node, and its attributes."""

    id: str
    attributes: Mapping[str, Any]

    @property
    def uri(self) -> str:
        """Where it came from."""
        return str(self.attributes.get("uri") or "")


@dataclass(frozen=True)
class Written:
    """What writing a document changed: its id, how many fragments came, stayed and went, and what was embedded.

    `changed` is false where all of it was there already. `existed` says that there was such a document before.
    """

    id: str
    added: int = 0
    kept: int = 0
    removed: int = 0
    embedded: int = 0
    changed: bool = True
    existed: bool = False


@dataclass
class _Plan:
    """What one call is about to write; made anew whenever the store is looked at."""

    id: str = ""
    nodes: list[Node] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    equals: list[Node] = field(default_factory=list)
    added: int = 0
    kept: int = 0
    existed: bool = False


class Documents:
    """The documents of one collection in one namespace of a store; safe to share between threads and processes."""

    def __init__(self, store: Store, dense: Dense, writer: Writer, namespace: str, collection: str) -> None:
        self._store, self._dense, self._writer = store, dense, writer
        self._namespace = namespace
        self.collection = checked_id(collection, "a collection's name")
        self._directory = _Directory(store, namespace, self.collection)
        self._fragments = collected_id(FRAGMENT, self.collection, "")

    # --- reading ------------------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The name of the model that fragments are embedded with."""
        record = self._dense.record()
        return str(record["name"]) if record else self._dense.embedder().name

    def all(self) -> list[Entry]:
        """Return all documents, the oldest first."""
        with self._store.snapshot():
            return self._directory.all()

    def at(self, uri: str) -> Entry | None:
        """Return the document that came from *uri*, if there is one."""
        with self._store.snapshot():
            return self._directory.at(uri)

    def get(self, document_id: str) -> Entry | None:
        """Return the document with that id, if there is one."""
        with self._store.snapshot():
            return self._directory.get(document_id)

    def same(self, content_hash: str) -> list[Entry]:
        """Return the documents that were read from the same bytes."""
        with self._store.snapshot():
            return self._directory.same(content_hash)

    def fragments(self, document_id: str) -> list[tuple[Node, Link]]:
        """Return the fragments of a document in the order of its text, each with the link that says where it stands."""
        with self._store.snapshot():
            links = self._parts(document_id)
            nodes = self._store.get([link.source for link in links], self._namespace)
        found = [(nodes[link.source], link) for link in links if link.source in nodes]
        return sorted(found, key=lambda pair: (_order(pair[1]), pair[0].row))

    def text(self, document_id: str) -> str:
        """Return the text of a document, put together from its fragments; blanks between these become line breaks."""
        parts: list[str] = []
        reached = 0
        for node, link in self.fragments(document_id):
            start, text = int(link.data.get("start", reached)), node.text or ""
            if start > reached:
                parts.append("\n" * min(start - reached, 2) if reached else "")
                parts.append(text)
            else:
                parts.append(text[reached - start :])
            reached = max(reached, start + len(text))
        return "".join(parts)

    # --- writing ------------------------------------------------------------------------------------------------

    def write(
        self,
        uri: str,
        attributes: Mapping[str, Any],
        fragments: Sequence[Fragment] | None,
        *,
        moved: Entry | None = None,
        unless: Callable[[Entry], bool] | None = None,
        allow_unembedded: bool = False,
    ) -> Written:
        """Write the document at *uri* with its fragments in one transaction; None for these leaves them as they are.

        Fragments whose text is there already stay, and are moved; new ones come, the rest goes. Attributes that are
        None are removed, those not named stay; `timestamp` is that of new fragments, too. *moved* is a document that
        was elsewhere and is here now; it keeps its id, unless somebody else has moved it meanwhile or there is a
        document here. If *unless* says of what is here already that it is as wanted, nothing is written; nor if there
        is no document whose fragments could be left as they are: then the id returned is empty.

        Raises:
            InvalidInput: Something cannot be stored; nothing was changed.
        """
        checked_id(uri, "the URI of a document")
        given = checked_data(attributes, f"document {uri!r}")
        texts = None if fragments is None else [_checked(fragment, uri) for fragment in fragments]
        plan, embedded = _Plan(), 0

        def batch() -> Batch:
            nonlocal plan
            with self._store.snapshot():  # before the directory's lock, as everywhere: two orders would be a deadlock
                plan = self._planned(uri, given, texts, moved, unless)
            gone = [(self._namespace, node_id) for node_id in plan.removed]
            return Batch(nodes=plan.nodes, links=plan.links, removed_nodes=gone)

        def counted(number: int) -> None:
            nonlocal embedded
            embedded = number

        self._writer.transact(
            batch, lambda: None, allow_unembedded=allow_unembedded, equals=lambda: plan.equals, counted=counted
        )
        changed = bool(plan.nodes or plan.links or plan.removed)
        return Written(plan.id, plan.added, plan.kept, len(plan.removed), embedded, changed, plan.existed)

    def remove(self, ids: Iterable[str], *, only_if: Callable[[Entry], bool] | None = None) -> dict[str, int]:
        """Remove documents with their fragments in one transaction, and nothing else.

        *only_if* looks at each as it is then. Returned is how many fragments went with each that was there.
        """
        wanted = list(dict.fromkeys(ids))
        found: dict[str, int] = {}

        def batch() -> Batch:
            found.clear()
            gone: list[str] = []
            with self._store.snapshot():
                for document_id in wanted:
                    entry = self._directory.get(document_id)
                    if entry is None or (only_if is not None and not only_if(entry)):
                        continue
                    parts = [link.source for link in self._parts(document_id)]
                    found[document_id] = len(parts)
                    gone += [document_id, *parts]
            return Batch(removed_nodes=[(self._namespace, node_id) for node_id in dict.fromkeys(gone)])

        self._writer.transact(batch, lambda: None)
        return found

    # --- inside -------------------------------------------------------------------------------------------------

    def _planned(
        self,
        uri: str,
        given: Mapping[str, Any],
        fragments: Sequence[Fragment] | None,
        moved: Entry | None,
        unless: Callable[[Entry], bool] | None,
    ) -> _Plan:
        """Return what to write as things are now; somebody holds the lock, or a snapshot."""
        entry = self._directory.at(uri)
        if entry is None and moved is not None:
            found = self._directory.get(moved.id)
            entry = found if found is not None and found.uri == moved.uri else None
        plan = _Plan(existed=entry is not None)
        if entry is None:
            if fragments is None:
                return plan
            plan.id = self._directory.free(uri)
            old = None
        else:
            plan.id = entry.id
            if unless is not None and entry.uri == uri and unless(entry):
                plan.kept = len(self._parts(entry.id))
                return plan
            old = self._store.get([entry.id], self._namespace).get(entry.id)
        parts = self._parts(plan.id) if old is not None else []
        if fragments is None:
            plan.kept = len(parts)
        else:
            self._fit(plan, parts, fragments, given.get("timestamp"))
        self._describe(plan, uri, given, old, len(parts) if fragments is None else len(fragments))
        return plan

    def _describe(self, plan: _Plan, uri: str, given: Mapping[str, Any], old: Node | None, count: int) -> None:
        """Add the node of the document to what is written, if it is new or says something else now."""
        now = utc(None)
        before = {} if old is None else dict(old.attributes)
        after = {key: value for key, value in {**before, **given, "uri": uri}.items() if value is not None}
        after |= {"collection": self.collection, "key": plan.id.split("/", 2)[2], "fragments": count}
        after["timestamp"] = utc(after.get("timestamp", now))
        if old is None or not same_json(before, after) or plan.nodes or plan.removed:
            after["updated_at"] = now
            plan.nodes.insert(0, Node(plan.id, DOCUMENT, None, after, self._namespace))

    def _fit(self, plan: _Plan, parts: Sequence[Link], fragments: Sequence[Fragment], when: Any) -> None:
        """Find for each fragment the node that holds it already, or make one; what is left over goes."""
        there: defaultdict[str, list[Link]] = defaultdict(list)
        for link in sorted(parts, key=_order):
            there[self._hash_of(link.source)].append(link)
        fresh: defaultdict[str, list[tuple[int, Fragment]]] = defaultdict(list)
        for order, fragment in enumerate(fragments):
            mine = there.get(_hash(fragment))
            if mine:
                link, data = mine.pop(0), _position(fragment, order)
                plan.kept += 1
                if not same_json(link.data, data):
                    plan.links.append(Link(link.source, plan.id, PART_OF, data, self._namespace))
            else:
                fresh[_hash(fragment)].append((order, fragment))
        plan.removed = [link.source for links in there.values() for link in links]
        keys = self._keys(fresh, plan)
        for digest, several in fresh.items():
            for (order, fragment), key in zip(several, keys[digest], strict=True):
                node = self._node(key, plan.id, fragment, when)
                plan.nodes.append(node)
                plan.links.append(Link(node.id, plan.id, PART_OF, _position(fragment, order), self._namespace))
                plan.added += 1

    def _keys(self, fresh: Mapping[str, Sequence[Any]], plan: _Plan) -> dict[str, list[str]]:
        """Return free keys for so many fragments of each hash; nodes of equal texts found on the way are noted."""
        found: dict[str, list[str]] = {digest: [] for digest in fresh}
        begun, size = 0, _TRIED
        left = list(fresh)
        while left:
            keys = {digest: [_key(digest, number) for number in range(begun, begun + size)] for digest in left}
            ids = [self._fragments + key for several in keys.values() for key in several]
            there = self._store.get(ids, self._namespace)
            for digest in left:
                taken = [there[self._fragments + key] for key in keys[digest] if self._fragments + key in there]
                # A few are enough: all of one hash have the same text, or nearly all of them.
                plan.equals += taken[:2] if not begun else []
                free = [key for key in keys[digest] if self._fragments + key not in there]
                found[digest] += free[: len(fresh[digest]) - len(found[digest])]
            left = [digest for digest in left if len(found[digest]) < len(fresh[digest])]
            begun, size = begun + size, size * 4
        return found

    def _node(self, key: str, document: str, fragment: Fragment, when: Any) -> Node:
        attributes: dict[str, Any] = {
            "collection": self.collection,
            "key": key,
            "document": document,
            "content_hash": hashlib.sha256(fragment.text.encode()).hexdigest(),
            "block": fragment.block,
        }
        if fragment.headings:
            attributes["headings"] = list(fragment.headings)
        if fragment.context:
            attributes["context"] = fragment.context
        attributes["timestamp"] = utc(when)
        return Node(self._fragments + key, FRAGMENT, fragment.text, attributes, self._namespace)

    def _parts(self, document_id: str) -> list[Link]:
        """Return the links of the fragments of a document; something else may be a part of it, too."""
        links = self._store.links([document_id], self._namespace, direction="in", relation=PART_OF)
        return [link for link in links if link.source.startswith(self._fragments)]

    def _hash_of(self, node_id: str) -> str:
        return node_id[len(self._fragments) :].partition(".")[0]


class _Directory:
    """The documents of a collection by id, address and content, kept up with the store's changes.

    Whoever asks holds a snapshot of the store, or its lock: this one's is taken within those, never around them.
    """

    def __init__(self, store: Store, namespace: str, collection: str) -> None:
        self._store, self._namespace = store, namespace
        self._before = collected_id(DOCUMENT, collection, "")
        self._lock = Mutex()
        self._entries: dict[str, Entry] = {}
        self._by_uri: dict[str, str] = {}
        self._by_hash: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._version = -1

    def all(self) -> list[Entry]:
        with self._lock.lock:
            self._catch_up()
            return list(self._entries.values())

    def get(self, document_id: str) -> Entry | None:
        with self._lock.lock:
            self._catch_up()
            return self._entries.get(document_id)

    def at(self, uri: str) -> Entry | None:
        with self._lock.lock:
            self._catch_up()
            return self._entries.get(self._by_uri.get(uri, ""))

    def same(self, content_hash: str) -> list[Entry]:
        with self._lock.lock:
            self._catch_up()
            return [self._entries[one] for one in self._by_hash.get(content_hash, ())]

    def free(self, uri: str) -> str:
        """Return the id for a new document from *uri*: always the same, unless one that came from there moved away."""
        with self._lock.lock:
            self._catch_up()
            number = 0
            while True:
                found = self._before + _document_key(uri, number)
                # A node of another kind may have that id, too: it is somebody else's.
                if found not in self._entries and not self._store.get([found], self._namespace):
                    return found
                number += 1

    def _catch_up(self) -> None:
        if self._store.version() == self._version:
            return
        changes = self._store.changes(self._version)
        if changes.reset:
            self._entries.clear()
            self._by_uri.clear()
            self._by_hash.clear()
            nodes: Iterator[Node] | Sequence[Node] = self._store.nodes(Where(self._namespace, kinds=[DOCUMENT]))
        else:
            for namespace, node_id in changes.removed_nodes:
                if namespace == self._namespace:
                    self._drop(node_id)
            nodes = [node for node in changes.nodes if node.namespace == self._namespace and node.kind == DOCUMENT]
        for node in nodes:
            if node.id.startswith(self._before):
                self._drop(node.id, keep=True)
                entry = self._entries[node.id] = Entry(node.id, node.attributes)
                self._by_uri[entry.uri] = node.id
                self._by_hash[str(node.attributes.get("content_hash"))][node.id] = None
        self._version = changes.version

    def _drop(self, node_id: str, *, keep: bool = False) -> None:
        """Forget what is known of a document; *keep* its place in the order."""
        entry = self._entries.get(node_id) if keep else self._entries.pop(node_id, None)
        if entry is None:
            return
        if self._by_uri.get(entry.uri) == node_id:
            del self._by_uri[entry.uri]
        self._by_hash[str(entry.attributes.get("content_hash"))].pop(node_id, None)


def _document_key(uri: str, number: int) -> str:
    return hashlib.sha256(f"{uri}\0{number}".encode()).hexdigest()[:_HASH]


def _hash(fragment: Fragment) -> str:
    # All that its node says, so that one with other headings is another one.
    parts = (fragment.context, fragment.block, "\x1f".join(fragment.headings), fragment.text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH]


def _key(digest: str, number: int) -> str:
    return f"{digest}.{number}" if number else digest


def _position(fragment: Fragment, order: int) -> dict[str, Any]:
    data: dict[str, Any] = {"start": fragment.start, "end": fragment.end, "order": order}
    if fragment.lines is not None:
        data["lines"] = list(fragment.lines)
    if fragment.pages is not None:
        data["pages"] = list(fragment.pages)
    return data


def _order(link: Link) -> int:
    order = link.data.get("order")
    return order if type(order) is int else 0


def _checked(fragment: Fragment, uri: str) -> Fragment:
    for text in (fragment.text, fragment.context, *fragment.headings):
        checked_text(text, f"a fragment of {uri!r}")
    return fragment
