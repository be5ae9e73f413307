"""JSON values under paths and keys, as nodes of the kind `item`: read, searched and written in batches.

An item is named by a path, a tuple of labels such as `("users", "ana")`, and a key; in a collection both together are
its own id. The values are for whoever put them; the text of the node, if it has one, is what it is found by.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import InvalidInput, KindConflict
from .mutex import Mutex
from .nodes import ITEM, Batch, Node, Where, collected_id
from .records import checked_count, checked_data, checked_id, checked_text, shown, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .dense import Dense
    from .hits import Hit
    from .store import Store
    from .writer import Writer

__all__ = ["Asked", "Found", "Get", "Items", "Put", "Search"]

Path = tuple[str, ...]

_READ = 500  # nodes read at a time
_MINUTE = 60.0
# An item is written anew to live longer only where that moves its end by such a share of its time to live, so that
# what is read all the time is not written all the time.
_WORTHWHILE = 0.01


class Get(NamedTuple):
    """Ask for the item at *path* and *key*; with *refresh* its time to live begins again."""

    path: Path
    key: str
    refresh: bool = False


class Search(NamedTuple):
    """Ask for items whose path begins with *prefix* and whose value *fits*, from the *offset*-th on.

    With a *question*, a text or a vector, those with vectors come first, the nearest before all, then the rest; without
    one all come in the order in which they were first written. With *refresh* the time to live of those found begins
    again.
    """

    prefix: Path
    fits: Callable[[Mapping[str, Any]], bool] | None = None
    limit: int = 10
    offset: int = 0
    question: Any = None
    refresh: bool = False


Asked = Get | Search


class Put(NamedTuple):
    """Write *value* at *path* and *key*, to be found by *texts*; None for *value* removes it.

    *ttl* is how many minutes it lives, None for ever.
    """

    path: Path
    key: str
    value: Mapping[str, Any] | None
    texts: Sequence[str] = ()
    ttl: float | None = None


class Found(NamedTuple):
    """An item that was found; its score is the cosine between the question and the nearest of its texts."""

    path: Path
    key: str
    node: Node
    score: float | None = None

    @property
    def value(self) -> dict[str, Any]:
        """The value: what was put, or nothing for a node that somebody else made without one."""
        return _value(self.node)


class _Entry(NamedTuple):
    row: int
    key: str
    expires_at: float | None


class _Wanted(NamedTuple):
    """A search with a question: who may be found, at which version of the store, by ascending row."""

    search: Search
    version: int
    entries: dict[int, tuple[Path, str]]


class Items:
    """The items of one collection in one namespace of a store; safe to share between threads."""

    def __init__(self, store: Store, dense: Dense, writer: Writer, namespace: str, collection: str) -> None:
        self._store, self._dense, self._writer = store, dense, writer
        self._namespace = namespace
        self.collection = checked_id(collection, "a collection's name")
        self._lock = Mutex()
        self._directory = _Directory(store, namespace, self.collection)

    def id(self, path: Path, key: str) -> str:
        """Return the id of the node of an item, such as `"item/default/users.ana/likes"`."""
        labels = ".".join(_escaped(_checked_label(label)) for label in path)
        return collected_id(ITEM, self.collection, f"{labels}/{checked_text(key, 'a key')}")

    # --- reading ------------------------------------------------------------------------------------------------

    def read(self, asked: Sequence[Asked]) -> list[list[Found]]:
        """Return what each of *asked* finds, all of it as of one moment but for texts compared with a question.

        What is to live longer is written before this returns.
        """
        if not asked:
            return []
        with self._lock.lock, self._store.snapshot():  # always in this order
            found = [self._got(one) if isinstance(one, Get) else self._searched(one) for one in asked]
        results = [self._nearest(one) if isinstance(one, _Wanted) else one for one in found]
        refreshed = {item.node.id for one, items in zip(asked, results, strict=True) if one.refresh for item in items}
        if refreshed:
            now = time.time()
            nodes = [item.node for items in results for item in items if item.node.id in refreshed]
            if late := [node.id for node in nodes if _longer(node, now) is not None]:
                self._refresh(list(dict.fromkeys(late)))
        return results

    def _got(self, get: Get) -> list[Found]:
        node_id = self.id(get.path, get.key)
        node = self._store.get([node_id], self._namespace).get(node_id)
        return [] if node is None else [Found(get.path, get.key, node)]

    def _searched(self, search: Search) -> list[Found] | _Wanted:
        limit, offset = checked_count(search.limit, "the limit"), checked_count(search.offset, "the offset")
        entries = self._directory.below(search.prefix)
        if search.question is not None:
            if search.fits is not None:
                keep = {item.node.row for item in self._fitting(entries, search, None)}
                entries = [entry for entry in entries if entry[0] in keep]
            return _Wanted(search, self._directory.version, {row: (path, key) for row, path, key in entries})
        if search.fits is None:
            entries, offset = entries[offset : offset + limit], 0
        return self._fitting(entries, search, offset + limit)[offset:]

    def _fitting(self, entries: Sequence[tuple[int, Path, str]], search: Search, most: int | None) -> list[Found]:
        """Return those of *entries* whose values fit, at *most* so many."""
        found: list[Found] = []
        for start in range(0, len(entries), _READ):
            if most is not None and len(found) >= most:
                break
            some = entries[start : start + _READ]
            nodes = self._store.at_rows([row for row, _, _ in some])
            for row, path, key in some:
                node = nodes.get(row)
                if node is not None and (search.fits is None or search.fits(_value(node))):
                    found.append(Found(path, key, node))
        return found if most is None else found[:most]

    def _nearest(self, wanted: _Wanted) -> list[Found]:
        """Return what is nearest, then what has no vector to compare."""
        search, entries = wanted.search, wanted.entries
        most = search.offset + search.limit
        if not entries or not search.limit:
            return []
        rows = np.array(list(entries), np.int64)
        asked = search.question
        hits: Iterable[Hit] = ()
        if isinstance(asked, str) or np.any(asked):  # else the model knows no word of it
            hits = self._dense.search(asked, most, self._namespace, [ITEM], (wanted.version, rows))
        found = [Found(*entries[hit.node.row], hit.node, hit.similarity) for hit in hits]
        if len(found) < most:
            near = {item.node.row for item in found}
            rest = [(row, *name) for row, name in entries.items() if row not in near]
            found += self._fitting(rest, search._replace(fits=None), most - len(found))
        # One may have been replaced since its value was looked at.
        if search.fits is not None:
            found = [item for item in found if search.fits(item.value)]
        return found[search.offset : most]

    def paths(self) -> list[Path]:
        """Return the paths at which there are items, in no particular order."""
        with self._lock.lock:
            return self._directory.paths()

    # --- writing ------------------------------------------------------------------------------------------------

    def write(self, puts: Iterable[Put]) -> None:
        """Write items and remove others, in one transaction; of several with the same name the last one counts.

        What is replaced keeps the time at which it was first written.

        Raises:
            InvalidInput: Something cannot be stored; nothing was changed.
            KindConflict: A node of another kind has the id of an item.
        """
        latest = {self.id(put.path, put.key): put for put in puts}
        made = {node_id: self._node(node_id, put) for node_id, put in latest.items()}
        if latest:
            self._writer.transact(lambda: self._batch(made), lambda: None)

    def _batch(self, made: Mapping[str, Node | None]) -> Batch:
        """Return the batch that writes nodes, and removes those that are None."""
        known = self._store.get(list(made), self._namespace)
        nodes = []
        for node_id, node in made.items():
            old = known.get(node_id)
            if node is not None and old is not None:
                if old.kind != ITEM:
                    raise KindConflict(
                        f"{node_id!r} is the id of a {old.kind} already, so it cannot be an item. Choose another key."
                    )
                born = old.attributes.get("timestamp", node.attributes["timestamp"])
                node = replace(node, attributes={**node.attributes, "timestamp": born})  # noqa: PLW2901
            if node is not None:
                nodes.append(node)
        gone = [(self._namespace, node_id) for node_id, node in made.items() if node is None and node_id in known]
        return Batch(nodes=nodes, removed_nodes=gone)

    def _node(self, node_id: str, put: Put) -> Node | None:
        if put.value is None:
            return None
        now = time.time()
        attributes: dict[str, Any] = {
            "collection": self.collection,
            "namespace": list(put.path),
            "key": put.key,
            "value": checked_data(put.value, f"the value of {put.key!r}"),
            "timestamp": utc(now),
            "updated_at": utc(now),
        }
        if put.ttl is not None:
            attributes["ttl"] = _checked_ttl(put.ttl)
        texts = [checked_text(text, f"a text of {put.key!r}") for text in dict.fromkeys(put.texts) if text.strip()]
        if len(texts) > 1:
            ends = np.cumsum([len(text) + 1 for text in texts]).tolist()
            attributes["parts"] = [[end - 1 - len(text), end - 1] for text, end in zip(texts, ends, strict=True)]
        expires_at = None if put.ttl is None else now + put.ttl * _MINUTE
        return Node(node_id, ITEM, "\n".join(texts) or None, attributes, self._namespace, expires_at)

    def _refresh(self, ids: Sequence[str]) -> None:
        """Let the time to live of items begin again, of those where that makes a difference."""

        def batch() -> Batch:
            now, known = time.time(), self._store.get(ids, self._namespace)
            ends = {node_id: _longer(known[node_id], now) for node_id in ids if node_id in known}
            return Batch(nodes=[replace(known[i], expires_at=end) for i, end in ends.items() if end is not None])

        self._writer.transact(batch, lambda: None)

    def sweep(self) -> int:
        """Remove the items that have expired, and return how many there were; they were invisible before."""
        with self._store.exclusive():
            gone = [i for i in self._store.expired(self._namespace, ITEM) if self._directory.named(i) is not None]
            if gone:
                self._store.write(Batch(removed_nodes=[(self._namespace, node_id) for node_id in gone]))
        return len(gone)


class _Directory:
    """The names of the items of a collection, by path and in the order of rows, kept up with the store's changes.

    A store finds nodes by their ids and kinds, not by how their ids begin.
    """

    def __init__(self, store: Store, namespace: str, collection: str) -> None:
        self._store, self._namespace = store, namespace
        self._before = collected_id(ITEM, collection, "")
        self._by_path: dict[Path, dict[str, _Entry]] = {}
        self.version = -1

    def named(self, node_id: str) -> tuple[Path, str] | None:
        """Return the path and key that an id says, None for the id of something else."""
        if not node_id.startswith(self._before):
            return None
        labels, slash, key = node_id[len(self._before) :].partition("/")
        return (tuple(map(_unescaped, labels.split("."))) if labels else (), key) if slash else None

    def below(self, prefix: Path) -> list[tuple[int, Path, str]]:
        """Return row, path and key of every item whose path begins with *prefix*, by ascending row."""
        self._catch_up()
        now, size, found = time.time(), len(prefix), []
        for path, entries in self._by_path.items():
            if path[:size] == prefix:
                found += [(e.row, path, e.key) for e in entries.values() if e.expires_at is None or e.expires_at > now]
        return sorted(found)

    def paths(self) -> list[Path]:
        """Return the paths at which there are items."""
        self._catch_up()
        now = time.time()
        return [
            path
            for path, entries in self._by_path.items()
            if any(entry.expires_at is None or entry.expires_at > now for entry in entries.values())
        ]

    def _catch_up(self) -> None:
        if self._store.version() == self.version:
            return
        with self._store.snapshot():
            changes = self._store.changes(self.version)
            if changes.reset:
                self._by_path.clear()
                nodes: Iterable[Node] = self._store.nodes(Where(self._namespace, kinds=[ITEM]))
            else:
                for namespace, node_id in changes.removed_nodes:
                    if namespace == self._namespace:
                        self._remove(node_id)
                nodes = (node for node in changes.nodes if node.namespace == self._namespace and node.kind == ITEM)
            for node in nodes:
                if (name := self.named(node.id)) is not None:
                    path, key = name
                    self._by_path.setdefault(path, {})[key] = _Entry(node.row, key, node.expires_at)
        self.version = changes.version

    def _remove(self, node_id: str) -> None:
        if (name := self.named(node_id)) is None:
            return
        path, key = name
        entries = self._by_path.get(path, {})
        entries.pop(key, None)
        if not entries:
            self._by_path.pop(path, None)


def _value(node: Node) -> dict[str, Any]:
    value = node.attributes.get("value")
    return value if isinstance(value, dict) else {}


def _longer(node: Node, now: float) -> float | None:
    """Return when a node is to expire that is read *now*; None if that is about when it would anyway."""
    ttl = node.attributes.get("ttl")
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or node.expires_at is None:
        return None
    end = now + ttl * _MINUTE
    return end if end - node.expires_at >= _WORTHWHILE * ttl * _MINUTE else None


def _checked_ttl(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
        raise InvalidInput(f"A time to live must be a number of minutes, not {shown(value)}.")
    return value


def _checked_label(label: Any) -> str:
    if "." in checked_id(label, "a label of a path"):
        raise InvalidInput(f"A label of a path must not hold a full stop: {shown(label)}. Make it two labels.")
    return str(label)


def _escaped(label: str) -> str:
    return label.replace("%", "%25").replace("/", "%2F")


def _unescaped(label: str) -> str:
    return label.replace("%2F", "/").replace("%25", "%")
