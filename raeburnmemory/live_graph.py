"""A memory as a directed graph that writes through and catches up.

`live_graph` makes an instance of a subclass of `networkx.DiGraph` (or of our own where networkx is not
installed). Its mutators hand one write each to a `GraphWriter`, then let it bring the graph up to date; the
attribute dicts are read-only; and whatever is derived from it is a plain graph that never writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

from .errors import InvalidInput, ReadOnly
from .graph import digraph_class, edge_attributes, node_attributes
from .nodes import copied

if TYPE_CHECKING:
    from .nodes import Changes, Link, Node

__all__ = ["GraphWriter", "LiveGraph", "ReadOnlyDict", "live_graph"]

DEFAULT_RELATION = "related_to"


class GraphWriter(Protocol):
    """The owner of a live graph: it writes for it, one transaction per call, and tells it what changed."""

    @property
    def namespace(self) -> str:
        """The namespace that the graph shows."""

    def write_graph(
        self,
        nodes: Sequence[tuple[str, dict[str, Any]]],
        links: Sequence[tuple[str, str, str, dict[str, Any]]],
    ) -> None:
        """Upsert nodes (id, attributes) and links (source, target, relation, data), each at most once.

        Attributes, of which `type` and `text` are two, are merged into those of an existing node, and data
        into that of an existing link. A new node without a type, and an end of a link that does not exist,
        get the kind `node`. What it is given belongs to the caller: the writer keeps copies.

        Raises:
            InvalidInput: An id, attribute or relation cannot be stored; nothing was written.
        """

    def erase_graph(self, ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        """Forget nodes, and remove every link from the first to the second node of each pair.

        All of them existed when the graph last caught up; those that are gone since are not missed.
        """

    def catch_up(self, graph: LiveGraph) -> None:
        """Call `graph.apply` with what happened since the last time, if anything did."""


def live_graph(writer: GraphWriter) -> Any:
    """Return a graph that writes to *writer*. It is empty until the writer brings it up to date."""
    plain_class: Any = digraph_class()
    live_class = _live_class(plain_class)
    graph = object.__new__(live_class)
    plain_class.__init__(graph)
    graph.graph = ReadOnlyDict()
    graph.writer = writer
    return graph


@cache
def _live_class(plain_class: Any) -> Any:
    members = {"plain_class": plain_class, "__doc__": LiveGraph.__doc__}
    return type("LiveGraph", (LiveGraph, plain_class), members)


class LiveGraph:
    """The nodes and edges of a memory, live: what is changed here is changed in the memory.

    Every call that changes something is one transaction. Attributes are read-only here; `memory.update` and
    `memory.link` change them. A pair with several relations has one edge: `relation` is the oldest of them,
    `relations` holds all. Copies, views' copies and pickles are plain graphs of their own.
    """

    plain_class: ClassVar[Any]
    writer: GraphWriter
    copy: Callable[[], Any]
    _node: dict[str, _NodeAttributes]
    _succ: dict[str, dict[str, _EdgeAttributes]]
    _pred: dict[str, dict[str, _EdgeAttributes]]  # holds the same object per edge as _succ

    def __new__(cls, *args: Any, **attr: Any) -> Any:
        """Make a plain graph: networkx builds whatever it derives from a graph with `graph.__class__()`."""
        return cls.plain_class(*args, **attr)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.plain_class, (self.copy(),)  # copy.copy, copy.deepcopy and pickle: plain as well

    # --- changes made here: one write each ------------------------------------------------------------------

    def add_node(self, node_for_adding: str, **attr: Any) -> None:
        """Add a node, or attributes to one that is there; without a `type` a new one has the kind `node`."""
        self._write([(node_for_adding, attr)], (), {})

    def add_nodes_from(self, nodes_for_adding: Iterable[Any], **attr: Any) -> None:
        """Add nodes, or pairs of a node and its attributes; keywords are attributes for all of them."""
        self._write(nodes_for_adding, (), attr)

    def add_edge(self, u_of_edge: str, v_of_edge: str, **attr: Any) -> None:
        """Link two nodes, which are made if they are missing.

        `relation` names the relation ("related_to" if it is not given), `relations` gives several with the
        data of each; all else is data of the link.
        """
        self._write((), [(u_of_edge, v_of_edge, attr)], {})

    def add_edges_from(self, ebunch_to_add: Iterable[Any], **attr: Any) -> None:
        """Add edges, `(u, v)` or `(u, v, attributes)`, as `add_edge` does; keywords are for all of them."""
        self._write((), ebunch_to_add, attr)

    def update(self, edges: Any = None, nodes: Any = None) -> None:
        """Add *edges* and *nodes*, or all of a graph given as *edges*, in one transaction."""
        if (edges is None and nodes is None) or getattr(self, "frozen", False):  # by networkx.freeze
            self.plain_class.update(self, edges, nodes)  # raises what this kind of graph raises
        if nodes is None and hasattr(edges, "nodes") and hasattr(edges, "edges"):
            if edges.graph:
                raise ReadOnly(f"The graph attributes {edges.graph!r} have no place in a memory. Clear them.")
            nodes, edges = edges.nodes.data(), edges.edges.data()
        self._write(() if nodes is None else nodes, () if edges is None else edges, {})

    def remove_node(self, n: str) -> None:
        """Forget a node: it, its edges and its vectors are gone for good. A missing one is an error."""
        self.writer.catch_up(self)
        if n not in self._node:
            self.plain_class.remove_node(self, n)  # raises what this kind of graph raises
        self._erase([n], ())

    def remove_nodes_from(self, nodes: Iterable[Any]) -> None:
        """Forget those of *nodes* that exist."""
        nodes = dict.fromkeys(nodes)
        self.writer.catch_up(self)
        self._erase([n for n in nodes if n in self._node], ())

    def remove_edge(self, u: str, v: str) -> None:
        """Remove every relation from *u* to *v*. If there is none, that is an error."""
        self.writer.catch_up(self)
        if v not in self._succ.get(u, {}):
            self.plain_class.remove_edge(self, u, v)  # raises what this kind of graph raises
        self._erase((), [(u, v)])

    def remove_edges_from(self, ebunch: Iterable[Any]) -> None:
        """Remove those edges that exist; only the first two items of each are looked at."""
        pairs = dict.fromkeys((edge[0], edge[1]) for edge in ebunch)
        self.writer.catch_up(self)
        self._erase((), [(u, v) for u, v in pairs if v in self._succ.get(u, {})])

    def clear(self) -> None:
        """Forget every node of the namespace."""
        self.writer.catch_up(self)
        self._erase(list(self._node), ())

    def clear_edges(self) -> None:
        """Remove every edge of the namespace."""
        self.writer.catch_up(self)
        self._erase((), [(u, v) for u, others in self._succ.items() for v in others])

    def _write(self, nodes: Iterable[Any], edges: Iterable[Any], shared: Mapping[str, Any]) -> None:
        """Read all of the input, so that what is wrong with it is known before anything is written."""
        new_nodes: dict[str, dict[str, Any]] = {}
        for item in nodes:
            node_id, attributes = _node_given(item, shared)
            new_nodes.setdefault(node_id, {}).update(attributes)
        new_links: dict[tuple[str, str, str], dict[str, Any]] = {}
        for item in edges:
            for source, target, relation, data in _links_given(item, shared):
                new_links.setdefault((source, target, relation), {}).update(data)
        if new_nodes or new_links:
            links = [(*key, data) for key, data in new_links.items()]
            self.writer.write_graph(nodes=list(new_nodes.items()), links=links)
        self.writer.catch_up(self)

    def _erase(self, ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        if ids or pairs:
            self.writer.erase_graph(ids=ids, pairs=pairs)
            self.writer.catch_up(self)

    # --- changes of the memory ------------------------------------------------------------------------------

    def apply(self, changes: Changes, everything: Callable[[], tuple[Iterable[Node], Iterable[Link]]]) -> None:
        """Bring the graph up to date with *changes*; the writer calls this, one thread at a time.

        After a reset *everything* is called for all nodes and links, both by ascending row, which are taken one by
        one. Those of other namespaces are passed over, and so are links of which an end is not among the nodes (if
        such a node ever shows again, that takes a reset). Nodes and edges come in the order of rows.
        """
        nodes: Iterable[Node]
        links: Iterable[Link]
        if changes.reset:
            nodes, links = everything()
            for part in (self._node, self._succ, self._pred):  # in place: networkx's views hold on to them
                part.clear()
        else:
            nodes = sorted(changes.nodes, key=lambda node: node.row)
            links = sorted(changes.links, key=lambda link: link.row)
        for namespace, node_id in changes.removed_nodes:
            if namespace == self.writer.namespace:
                self._drop_node(node_id)
        for namespace, source, target, relation in changes.removed_links:
            if namespace == self.writer.namespace:
                self._put_links(source, target, relation, [])
        for node in nodes:
            if node.namespace == self.writer.namespace:
                self._put_node(node)
        for link in links:
            if link.namespace == self.writer.namespace:
                self._put_links(link.source, link.target, link.relation, [link])
        if cached := getattr(self, "__networkx_cache__", None):
            cached.clear()

    def _put_node(self, node: Node) -> None:
        shown = self._node.get(node.id)
        if shown is not None and shown.row == node.row:
            _refresh(shown, node_attributes(node))
            return
        self._drop_node(node.id)  # another row: it was forgotten, edges and all, and written anew
        self._node[node.id] = _NodeAttributes(node)
        self._succ[node.id] = {}
        self._pred[node.id] = {}

    def _drop_node(self, node_id: str) -> None:
        if self._node.pop(node_id, None) is None:
            return
        for target in self._succ[node_id]:
            del self._pred[target][node_id]
        for source in self._pred[node_id]:
            del self._succ[source][node_id]
        del self._succ[node_id], self._pred[node_id]

    def _put_links(self, source: str, target: str, relation: str, links: list[Link]) -> None:
        """Let *links*, one or none, be all that leads from *source* to *target* with *relation*."""
        if source not in self._node or target not in self._node:
            return
        shown = self._succ[source].get(target)
        if shown is not None:
            links = [link for link in shown.links if link.relation != relation] + links
            links.sort(key=lambda link: link.row)
        if shown is not None and links and links[0].row == shown.links[0].row:
            _refresh(shown, edge_attributes(links))
            shown.links = tuple(links)
        else:  # the first, the last, or another oldest one, which gives the edge another place in the order
            self._succ[source].pop(target, None)
            self._pred[target].pop(source, None)
            if links:
                edge = _EdgeAttributes(links)
                _insert_by_row(self._succ[source], target, edge)
                _insert_by_row(self._pred[target], source, edge)


class ReadOnlyDict(dict[str, Any]):
    """A dict that only its owner changes; copies of it are plain dicts."""

    __slots__ = ()

    def _cure(self) -> str:
        return "The graph itself has no attributes; those of a node are changed with memory.update(...)."

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise ReadOnly(f"This dict is a read-only view of the memory. {self._cure()}")

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __ior__: Any = _refuse
    clear: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def copy(self) -> dict[str, Any]:
        """Return a plain dict that shares no list and no dict with this one."""
        plain: dict[str, Any] = copied(self)
        return plain

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class _NodeAttributes(ReadOnlyDict):
    __slots__ = ("node_id", "row")

    def __init__(self, node: Node) -> None:
        super().__init__(node_attributes(node))
        self.node_id = node.id
        self.row = node.row

    def _cure(self) -> str:
        return f"Change the node with memory.update({self.node_id!r}, ...)."


class _EdgeAttributes(ReadOnlyDict):
    __slots__ = ("links",)

    def __init__(self, links: Sequence[Link]) -> None:
        super().__init__(edge_attributes(links))
        self.links = tuple(links)  # by ascending row, never empty

    def _cure(self) -> str:
        oldest = self.links[0]
        edge = f"{oldest.source!r}, {oldest.target!r}, {oldest.relation!r}"
        return f"Change the edge with memory.link({edge}, ...)."


def _refresh(shown: ReadOnlyDict, attributes: dict[str, Any]) -> None:
    """Let *shown* hold *attributes*. It is never empty on the way: other threads may be reading it."""
    dict.update(shown, attributes)
    for key in shown.keys() - attributes.keys():
        dict.__delitem__(shown, key)


def _insert_by_row(others: dict[str, _EdgeAttributes], other: str, edge: _EdgeAttributes) -> None:
    """Put *edge* where its oldest link belongs: at the end, unless the edge there is younger."""
    last = next(reversed(others.values()), None)
    others[other] = edge
    if last is not None and last.links[0].row > edge.links[0].row:
        ordered = sorted(others.items(), key=lambda item: item[1].links[0].row)
        others.clear()
        others.update(ordered)


def _node_given(item: Any, shared: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Read what `add_nodes_from` takes: an id, or a pair of an id and attributes."""
    pair = isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], Mapping)
    node_id, own = item if pair else (item, {})
    attributes = {**shared, **own}
    if attributes.pop("id", _checked_id(node_id)) != node_id:
        raise InvalidInput(f"The attribute 'id' of node {node_id!r} names another node. Leave it out.")
    return node_id, attributes


def _links_given(item: Any, shared: Mapping[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Read what `add_edges_from` takes, and yield its links: source, target, relation, data."""
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        raise InvalidInput(f"{item!r} is no edge. Use (source, target) or (source, target, attributes).")
    source, target, own = (*item, {})[:3]
    where = f"the edge from {_checked_id(source)!r} to {_checked_id(target)!r}"
    if not isinstance(own, Mapping):
        raise InvalidInput(f"{own!r} cannot be the attributes of {where}. Use a dict.")
    data = {**shared, **own}
    relations = data.pop("relations", {})
    if not isinstance(relations, Mapping) or not all(isinstance(each, Mapping) for each in relations.values()):
        raise InvalidInput(f"{relations!r} cannot be 'relations' of {where}. Use a dict of dicts.")
    oldest = data.pop("relation", next(iter(relations), DEFAULT_RELATION))
    for relation in (oldest, *relations):
        if not isinstance(relation, str) or not relation:
            raise InvalidInput(f"{relation!r} cannot be a relation of {where}. Use a non-empty string.")
    for relation, each in {oldest: {}, **relations}.items():
        yield source, target, relation, {**each, **data} if relation == oldest else dict(each)


def _checked_id(node_id: Any) -> str:
    if not isinstance(node_id, str) or not node_id:
        raise InvalidInput(f"{node_id!r} cannot be a node. Use a non-empty string.")
    return node_id
