"""The directed graph: networkx's where networkx is installed, ours with the same surface where it is not.

`DiGraph` follows `networkx.DiGraph` in names, argument forms and results as far as users of a memory touch
them, so that code written for the one runs with the other. It differs where copying is simpler than viewing:
`subgraph` and `reverse` return detached graphs, and calls such as `edges(data=True)` return lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ._optional import installed
from .errors import InvalidInput, NodeNotFound
from .nodes import copied

if TYPE_CHECKING:
    from .nodes import Link, Node

__all__ = ["DiGraph", "digraph_class", "edge_attributes", "node_attributes", "plain_graph"]

Attributes = dict[str, Any]
Neighbours = dict[Any, dict[Any, Attributes]]  # node → neighbour → attributes of the edge


def digraph_class() -> type[Any]:
    """Return `networkx.DiGraph`, or our `DiGraph` where networkx is not installed."""
    if not installed("networkx"):
        return DiGraph
    import networkx as nx

    found: type[Any] = nx.DiGraph
    return found


def plain_graph(nodes: Sequence[Node], links: Sequence[Link]) -> Any:
    """Return a graph of *nodes* and of those *links* whose two ends are among them, by ascending row.

    The graph shares no dict or list with what it was made from.
    """
    graph = digraph_class()()
    graph.add_nodes_from((node.id, node_attributes(node)) for node in sorted(nodes, key=lambda node: node.row))
    pairs: dict[tuple[str, str], list[Link]] = {}
    for link in sorted(links, key=lambda link: link.row):
        if link.source in graph and link.target in graph:
            pairs.setdefault((link.source, link.target), []).append(link)
    graph.add_edges_from((*pair, edge_attributes(group)) for pair, group in pairs.items())
    return graph


def node_attributes(node: Node) -> Attributes:
    """Return what a graph shows of *node*: type, text and attributes, without the id."""
    flat: Attributes = copied(node.to_dict())
    del flat["id"]
    return flat


def edge_attributes(links_of_one_pair: Sequence[Link]) -> Attributes:
    """Return what a graph shows of the links, at least one, that lead from one node to one other.

    It is the relation and the data of the oldest link, and, where there are several, `relations`: the data of
    each by relation, in the order of rows.
    """
    links = links_of_one_pair
    if len(links) > 1:
        links = sorted(links, key=lambda link: link.row)
    flat: Attributes = {"relation": links[0].relation, **copied(links[0].data)}
    if len(links) > 1:
        flat["relations"] = {link.relation: copied(link.data) for link in links}
    return flat


class DiGraph:
    """A directed graph with attributes on nodes and edges; at most one edge leads from one node to another.

    *incoming* may be another graph or edges as `add_edges_from` takes them; keywords become attributes of the
    graph itself. What is missing raises `NodeNotFound` where networkx raises `NetworkXError`.
    """

    def __init__(self, incoming: Any = None, **attr: Any) -> None:
        self.graph: Attributes = {}
        self._node: dict[Any, Attributes] = {}
        self._succ: Neighbours = {}
        self._pred: Neighbours = {}  # holds the same attribute dict per edge as _succ
        # The three dicts are only ever changed in place, so that these views stay true.
        self.nodes = NodeView(self._node)
        self.edges = self.out_edges = EdgeView(self._succ)
        self.in_edges = EdgeView(self._pred, entering=True)
        self.adj = self.succ = AdjacencyView(self._succ)
        self.pred = AdjacencyView(self._pred)
        self.degree = DegreeView(self._succ, self._pred)  # a loop counts twice
        self.in_degree = DegreeView(self._pred)
        self.out_degree = DegreeView(self._succ)
        if incoming is not None:
            self.update(incoming)
        self.graph.update(attr)

    def __contains__(self, node: object) -> bool:
        return _holds(self._node, node)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._node)

    def __len__(self) -> int:
        return len(self._node)

    def __getitem__(self, node: Any) -> Mapping[Any, Attributes]:
        return self.adj[node]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self)} nodes and {self.number_of_edges()} edges>"

    # --- reading --------------------------------------------------------------------------------------------

    def is_directed(self) -> bool:
        """Return True."""
        return True

    def is_multigraph(self) -> bool:
        """Return False."""
        return False

    def has_node(self, n: Any) -> bool:
        """Tell whether *n* is a node."""
        return n in self

    def has_edge(self, u: Any, v: Any) -> bool:
        """Tell whether an edge leads from *u* to *v*."""
        return v in self._succ.get(u, {})

    def get_edge_data(self, u: Any, v: Any, default: Any = None) -> Any:
        """Return the attributes of the edge from *u* to *v*, or *default*."""
        return self._succ.get(u, {}).get(v, default)

    def successors(self, n: Any) -> Iterator[Any]:
        """Yield the nodes to which edges lead from *n*."""
        self._must_have(n)
        return iter(self._succ[n])

    neighbors = successors

    def predecessors(self, n: Any) -> Iterator[Any]:
        """Yield the nodes from which edges lead to *n*."""
        self._must_have(n)
        return iter(self._pred[n])

    def number_of_nodes(self) -> int:
        """Return how many nodes there are."""
        return len(self._node)

    order = number_of_nodes

    def number_of_edges(self, u: Any = None, v: Any = None) -> int:
        """Return how many edges there are, in all or from *u* to *v*."""
        return len(self.edges) if u is None else int(self.has_edge(u, v))

    def size(self) -> int:
        """Return how many edges there are."""
        return len(self.edges)

    # --- writing --------------------------------------------------------------------------------------------

    def add_node(self, node_for_adding: Any, **attr: Any) -> None:
        """Add a node, or add attributes to it if it is there."""
        if node_for_adding is None:
            raise InvalidInput("None cannot be a node. Use a string.")
        if node_for_adding not in self._node:
            self._node[node_for_adding] = {}
            self._succ[node_for_adding] = {}
            self._pred[node_for_adding] = {}
        self._node[node_for_adding].update(attr)

    def add_nodes_from(self, nodes_for_adding: Iterable[Any], **attr: Any) -> None:
        """Add nodes, or pairs of a node and its attributes; keywords are attributes for all of them."""
        for item in nodes_for_adding:
            pair = isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], Mapping)
            node, own = item if pair else (item, {})
            self.add_node(node)
            self._node[node].update({**attr, **own})

    def add_edge(self, u_of_edge: Any, v_of_edge: Any, **attr: Any) -> None:
        """Add an edge and the nodes it needs, or add attributes to it if it is there."""
        self.add_edges_from([(u_of_edge, v_of_edge, attr)])

    def add_edges_from(self, ebunch_to_add: Iterable[Any], **attr: Any) -> None:
        """Add edges, given as `(u, v)` or `(u, v, attributes)`; keywords are attributes for all of them."""
        for edge in ebunch_to_add:
            if len(edge) not in (2, 3):
                raise InvalidInput(f"{edge!r} is no edge: use (source, target) or (source, target, attributes).")
            u, v = edge[:2]
            self.add_node(u)
            self.add_node(v)
            attributes = self._pred[v][u] = self._succ[u].setdefault(v, {})
            attributes.update(attr)
            attributes.update(*edge[2:])

    def add_weighted_edges_from(self, ebunch_to_add: Any, weight: str = "weight", **attr: Any) -> None:
        """Add edges given as `(u, v, number)`, and keep the number as the attribute *weight*."""
        self.add_edges_from(((u, v, {weight: number}) for u, v, number in ebunch_to_add), **attr)

    def update(self, edges: Any = None, nodes: Any = None) -> None:
        """Add *edges* and *nodes*; a graph given as *edges* adds all it has."""
        if edges is None and nodes is None:
            raise InvalidInput("update() needs nodes or edges.")
        if nodes is None and hasattr(edges, "nodes") and hasattr(edges, "edges"):
            self.graph.update(edges.graph)
            nodes, edges = edges.nodes.data(), edges.edges.data()
        self.add_nodes_from(() if nodes is None else nodes)
        self.add_edges_from(() if edges is None else edges)

    def remove_node(self, n: Any) -> None:
        """Remove a node and the edges that touch it; raise `NodeNotFound` if there is no such node."""
        self._must_have(n)
        for v in self._succ[n]:
            del self._pred[v][n]
        for u in self._pred[n]:
            del self._succ[u][n]
        del self._node[n], self._succ[n], self._pred[n]

    def remove_nodes_from(self, nodes: Iterable[Any]) -> None:
        """Remove those of *nodes* that exist, and the edges that touch them."""
        for n in list(nodes):
            if n in self._node:
                self.remove_node(n)

    def remove_edge(self, u: Any, v: Any) -> None:
        """Remove an edge; raise `NodeNotFound` if there is no such edge."""
        if not self.has_edge(u, v):
            raise NodeNotFound(f"No edge leads from {u!r} to {v!r} in the graph.")
        del self._succ[u][v], self._pred[v][u]

    def remove_edges_from(self, ebunch: Iterable[Any]) -> None:
        """Remove those edges that exist; only the first two items of each are looked at."""
        for u, v, *_ in list(ebunch):
            if self.has_edge(u, v):
                self.remove_edge(u, v)

    def clear(self) -> None:
        """Remove everything, attributes of the graph included."""
        for part in (self.graph, self._node, self._succ, self._pred):
            part.clear()

    def clear_edges(self) -> None:
        """Remove every edge."""
        for side in (self._succ, self._pred):
            for neighbours in side.values():
                neighbours.clear()

    # --- deriving -------------------------------------------------------------------------------------------

    def copy(self) -> Any:
        """Return a graph with the same nodes and edges, and attribute dicts of its own."""
        return self.subgraph(self._node)

    def subgraph(self, nodes: Any) -> Any:
        """Return the part with *nodes* and the edges between them, as a detached copy, not a view."""
        chosen = set(_chosen(nodes, self._node))
        other = type(self)()
        other.graph.update(self.graph)
        other.add_nodes_from((n, attributes.copy()) for n, attributes in self._node.items() if n in chosen)
        kept = ((u, v) for u, v in self.edges if u in chosen and v in chosen)
        other.add_edges_from((u, v, self._succ[u][v].copy()) for u, v in kept)
        return other

    def reverse(self) -> Any:
        """Return a detached copy in which every edge leads the other way."""
        other = self.copy()
        other.clear_edges()
        other.add_edges_from((v, u, attributes.copy()) for (u, v), attributes in self.edges.items())
        return other

    def _must_have(self, n: Any) -> None:
        if n not in self:
            raise NodeNotFound(f"No node {n!r} in the graph.")


class _View(Mapping[Any, Any]):
    """A read-only mapping over a dict of the graph, which shows what is in it now."""

    def __init__(self, held: Mapping[Any, Any]) -> None:
        self._held = held

    def __getitem__(self, key: Any) -> Any:
        return self._held[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {list(self)}>"


class NodeView(_View):
    """The nodes of a `DiGraph`: a mapping from node to attributes."""

    def __call__(self, data: Any = False, default: Any = None) -> Any:
        """Return the nodes; as pairs with all attributes if *data* is True, or with the one that it names."""
        return self if data is False else self.data(data, default)

    def data(self, data: Any = True, default: Any = None) -> list[Any]:
        """Return the nodes as pairs with all attributes, or with the one named by *data*."""
        return [(node, *_shown(attributes, data, default)) for node, attributes in self._held.items()]


class EdgeView(_View):
    """The edges of a `DiGraph`: a mapping from (source, target) to attributes."""

    def __init__(self, neighbours: Neighbours, *, entering: bool = False) -> None:
        super().__init__(neighbours)
        self._entering = entering

    def __getitem__(self, edge: tuple[Any, Any]) -> Attributes:
        u, v = reversed(edge) if self._entering else edge
        attributes: Attributes = self._held[u][v]
        return attributes

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self())

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def __call__(self, nbunch: Any = None, data: Any = False, default: Any = None) -> list[Any]:
        """Return the edges at *nbunch* (None: all; a node or several), with attributes as *data* asks."""
        return [
            (*((other, node) if self._entering else (node, other)), *_shown(attributes, data, default))
            for node in dict.fromkeys(_chosen(nbunch, self._held))
            for other, attributes in self._held[node].items()
        ]

    def data(self, data: Any = True, default: Any = None, nbunch: Any = None) -> list[Any]:
        """Return the edges with all attributes, or with the one named by *data*."""
        return self(nbunch, data, default)


class AdjacencyView(_View):
    """For each node of a `DiGraph` its neighbours, with the attributes of the edge between."""

    def __getitem__(self, node: Any) -> Mapping[Any, Attributes]:
        return MappingProxyType(self._held[node])


class DegreeView:
    """How many edges each node has on the given sides: index with a node, iterate over pairs, or call."""

    def __init__(self, *sides: Neighbours) -> None:
        self._sides = sides

    def __getitem__(self, node: Any) -> int:
        return sum(len(side[node]) for side in self._sides)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return iter(self())

    def __call__(self, nbunch: Any = None) -> Any:
        """Return the degree of one node, or pairs of node and degree for several (None: all)."""
        if _holds(self._sides[0], nbunch):
            return self[nbunch]
        return [(node, self[node]) for node in _chosen(nbunch, self._sides[0])]


def _holds(known: Mapping[Any, Any], node: object) -> bool:
    try:
        return node in known
    except TypeError:  # unhashable, so it cannot be a node
        return False


def _chosen(nbunch: Any, known: Mapping[Any, Any]) -> Iterable[Any]:
    """Return the nodes meant by *nbunch*, as in networkx: all (None), one, or the known ones of several."""
    if nbunch is None:
        return known
    if _holds(known, nbunch):
        return [nbunch]
    if not isinstance(nbunch, Iterable):
        raise NodeNotFound(f"No node {nbunch!r} in the graph.")
    return [node for node in nbunch if node in known]


def _shown(attributes: Attributes, data: Any, default: Any) -> tuple[Any, ...]:
    if data is False:
        return ()
    return (attributes,) if data is True else (attributes.get(data, default),)
