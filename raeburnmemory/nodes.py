"""The plain data that travels between the floors.

`Prompt`, `Response`, `Agent`, `Session` and `Edge` are what people write; `Node`, `Link`, `Vector` and `Batch`
are what a store keeps; `Where` is what a reader asks for; the reports are what people get back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Agent",
    "Batch",
    "Change",
    "Changes",
    "Edge",
    "Explanation",
    "Forgotten",
    "Link",
    "Node",
    "Origin",
    "Prompt",
    "Recorded",
    "Reindexed",
    "Response",
    "Session",
    "Stats",
    "Trace",
    "Vector",
    "Where",
    "as_json",
    "collected_id",
    "collection_of",
    "copied",
    "same_json",
]

DEFAULT_NAMESPACE = "default"

# The node kinds and relations that this library itself gives a meaning to; users may add their own.
PROMPT, RESPONSE, AGENT, SESSION = "prompt", "response", "agent", "session"
FACT, DOCUMENT, FRAGMENT = "fact", "document", "fragment"
MEMORY = "memory"
ENTITY, OBSERVATION = "entity", "observation"
ITEM = "item"
RESPONDED_WITH, GENERATED_BY, BELONGS_TO = "responded_with", "generated_by", "belongs_to"
SEMANTICALLY_SIMILAR = "semantically_similar"
SUPERSEDES, DERIVED_FROM = "supersedes", "derived_from"
CITES, PART_OF = "cites", "part_of"


# --- what people write -----------------------------------------------------------------------------------------


@dataclass
class Prompt:
    """Something that was said or asked."""

    id: str
    text: str
    timestamp: Any = None
    session_id: str | None = None
    topic: str | None = None


@dataclass
class Response:
    """An answer to a prompt."""

    id: str
    text: str
    model: str | None = None
    agent_id: str | None = None
    score: float | None = None
    timestamp: Any = None


@dataclass
class Agent:
    """Whoever gives responses: a model, an assistant, a person."""

    id: str
    name: str
    traits: Any = None


@dataclass
class Session:
    """A conversation: what belongs together in time."""

    id: str
    start_time: Any = None


@dataclass
class Edge:
    """A named connection from one node to another."""

    source: str
    target: str
    relation: str


# --- what a store keeps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, init=False)
class Node:
    """One thing in the memory.

    `row` is a number that the store gives once and never again: rows grow in the order in which nodes were first
    written, so sorting by row is sorting by the store's own sequence. It is -1 for a node not yet written.
    `attributes` are JSON values; `expires_at` is in seconds since 1970, UTC.
    """

    id: str
    kind: str
    text: str | None
    attributes: Mapping[str, Any]
    namespace: str
    expires_at: float | None
    row: int

    def __init__(
        self,
        id: str,  # noqa: A002
        kind: str,
        text: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        expires_at: float | None = None,
        row: int = -1,
    ) -> None:
        _node_id(self, id)
        _node_kind(self, kind)
        _node_text(self, text)
        _node_attributes(self, {} if attributes is None else attributes)
        _node_namespace(self, namespace)
        _node_expires_at(self, expires_at)
        _node_row(self, row)

    @property
    def timestamp(self) -> str | None:
        """When it was said, in ISO 8601, if it carries a time."""
        value = self.attributes.get("timestamp")
        return value if isinstance(value, str) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the node as one flat JSON object: id, type, text and the attributes."""
        flat: dict[str, Any] = {"id": self.id, "type": self.kind}
        if self.text is not None:
            flat["text"] = self.text
        flat.update(self.attributes)
        return flat


@dataclass(frozen=True, slots=True, init=False)
class Link:
    """One edge as the store keeps it; `row` orders edges by when they were first written."""

    source: str
    target: str
    relation: str
    data: Mapping[str, Any]
    namespace: str
    row: int

    def __init__(
        self,
        source: str,
        target: str,
        relation: str,
        data: Mapping[str, Any] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        row: int = -1,
    ) -> None:
        _link_source(self, source)
        _link_target(self, target)
        _link_relation(self, relation)
        _link_data(self, {} if data is None else data)
        _link_namespace(self, namespace)
        _link_row(self, row)


# What sets each of their slots. The `__init__` that is generated for a frozen dataclass calls `object.__setattr__`,
# which looks for the slot first and takes twice as long; and these are made by the thousand.
(_node_id, _node_kind, _node_text, _node_attributes, _node_namespace, _node_expires_at, _node_row) = (
    getattr(Node, name).__set__ for name in Node.__slots__
)
(_link_source, _link_target, _link_relation, _link_data, _link_namespace, _link_row) = (
    getattr(Link, name).__set__ for name in Link.__slots__
)


@dataclass(slots=True, eq=False)
class Vector:
    """The unit vector of one part of a node's text.

    `field` names the index it belongs to (the kind of its node). `part` counts the parts of a long text from 0,
    `start` and `end` are the characters it covers (`end` -1: to the end). `slot` is the store's number for it,
    dense and append-only per field.
    """

    node: str
    field: str
    values: NDArray[np.float32]
    part: int = 0
    start: int = 0
    end: int = -1
    namespace: str = DEFAULT_NAMESPACE
    slot: int = -1
    row: int = -1


@dataclass(slots=True)
class Batch:
    """What one write changes, all of it or nothing.

    Applied in this order: nodes and edges removed, nodes and edges upserted, vectors. Writing a node again under
    its id replaces it, keeps its row, moves the old one to the history and drops its vectors. Removing a node
    takes its edges, vectors and history along. A vector's node must exist once the batch is applied. The vectors
    of a field `X.next` wait to replace those of `X`: `staged="promote"` drops every vector that is not waiting and
    lets those that are take their place, `"discard"` drops those that are waiting.
    """

    nodes: Sequence[Node] = ()
    links: Sequence[Link] = ()
    vectors: Sequence[Vector] = ()
    removed_nodes: Sequence[tuple[str, str]] = ()  # (namespace, id)
    removed_links: Sequence[tuple[str, str, str, str]] = ()  # (namespace, source, target, relation)
    meta: Mapping[str, Any] = field(default_factory=dict)  # None removes a key
    staged: Literal["promote", "discard"] | None = None

    def __bool__(self) -> bool:
        return bool(
            self.nodes
            or self.links
            or self.vectors
            or self.removed_nodes
            or self.removed_links
            or self.meta
            or self.staged
        )


@dataclass(frozen=True)
class Change:
    """What `MemoryGraph.change` is to do, all of it or nothing.

    `nodes` and `links` are written as `MemoryGraph.put` writes them. `removed_nodes` are ids: these nodes go, with
    their edges, vectors and history, and nothing else does. `removed_links` are tuples of source, target and relation.
    What is to be removed and is not there is no error.
    """

    nodes: Sequence[Node | Mapping[str, Any]] = ()
    links: Sequence[Link | Sequence[str]] = ()
    removed_nodes: Sequence[str] = ()
    removed_links: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Changes:
    """What happened to nodes and edges after a version, in no particular order.

    `reset` means that the store no longer knows: read everything. Otherwise `nodes` and `links` are those added
    or replaced, as they are now, and the removed ones are named by their keys.
    """

    version: int
    reset: bool = False
    nodes: Sequence[Node] = ()
    links: Sequence[Link] = ()
    removed_nodes: Sequence[tuple[str, str]] = ()
    removed_links: Sequence[tuple[str, str, str, str]] = ()


@dataclass(frozen=True)
class Where:
    """Which nodes to read. Every condition that is given must hold.

    `attributes` compares attributes for equality. `after_row` and `limit` page through the result, which always
    comes in the order of rows.
    """

    namespace: str | None = DEFAULT_NAMESPACE
    kinds: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    after_row: int = -1
    limit: int | None = None


def collected_id(kind: str, collection: str, own: str) -> str:
    """Return the id of a node that goes by the id *own* in a *collection*, such as `"fragment/handbook/page 12"`.

    Ids are unique in a namespace, whatever the kind; documents, items and entities bring their own ids, unique only
    where they come from. Only a collection is escaped, and only `/` and `%` in it: what follows the second `/` is
    the id as it was given, and no two triples give the same node.
    """
    return f"{kind}/{collection.replace('%', '%25').replace('/', '%2F')}/{own}"


def collection_of(node_id: str) -> str | None:
    """Return the collection that an id made by `collected_id` names, None for any other id."""
    parts = node_id.split("/", 2)
    return parts[1].replace("%2F", "/").replace("%25", "%") if len(parts) == 3 and all(parts) else None


# --- what people get back --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """The ids under which an interaction or message was recorded; None for a part it did not have."""

    prompt: str | None = None
    response: str | None = None
    agent: str | None = None
    session: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Forgotten:
    """What a `forget` removed.

    Of one with `secure=True` also the paths of the files that were `rewritten` without it, and of those `deleted`.
    """

    ids: tuple[str, ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    links: int = 0
    vectors: int = 0
    rewritten: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Reindexed:
    """What a `reindex` or `reembed` did.

    `embedded` texts got a new vector, `indexed` texts can be found by meaning now, `without` texts have no vector: the
    model knows no word of them.
    """

    embedded: int
    indexed: int
    without: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Stats:
    """What a memory holds.

    `kinds` and `relations` count nodes and edges, `vectors` counts vectors per field, `unembedded` the prompts,
    responses, facts, fragments, memories, entities, observations and items that have none. `embedder` is the model of
    the vectors and `dim` their length, None while there are none. `durability` is what changes made through this
    object survive: `"full"`, `"process"`, or `"none"` for `":memory:"`.
    """

    path: str
    storage_backend: str
    vector_backend: str
    namespace: str
    version: int
    nodes: int
    edges: int
    kinds: Mapping[str, int]
    relations: Mapping[str, int]
    vectors: Mapping[str, int]
    unembedded: int
    embedder: str | None
    dim: int | None
    namespaces: Sequence[str]
    bytes: int
    durability: str

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return asdict(self)


# How a node that a trace leads to is related to the one before it: by relation, and whether its edge was followed back.
_ROLES = {
    (DERIVED_FROM, False): "derived from",
    (CITES, False): "cites",
    (PART_OF, False): "part of",
    (SUPERSEDES, False): "supersedes",
    (SUPERSEDES, True): "superseded by",
    (RESPONDED_WITH, True): "answers",
    (GENERATED_BY, False): "given by",
    (BELONGS_TO, False): "in",
}


@dataclass(frozen=True)
class Origin:
    """One node of a trace.

    `link` is the edge over which the trace came to it, from the node at the other end; None for the node that was
    asked about. `depth` counts edges from there. `again` says that the node stands in the trace once more, and that
    what it comes from is shown there.
    """

    node: Node
    link: Link | None = None
    depth: int = 0
    again: bool = False

    @property
    def id(self) -> str:
        """The id of the node."""
        return self.node.id

    @property
    def relation(self) -> str | None:
        """The relation of the edge that led here."""
        return None if self.link is None else self.link.relation

    @property
    def source(self) -> str | None:
        """The id of the node from which the trace came here."""
        if self.link is None:
            return None
        return self.link.target if self.link.source == self.id else self.link.source

    @property
    def role(self) -> str:
        """What the node is to the one before it, in words: `"derived from"`, `"superseded by"` and so on."""
        if self.link is None:
            return ""
        return _ROLES.get((self.link.relation, self.link.target != self.id), self.link.relation)

    def __str__(self) -> str:
        shown = f"{self.role} {_named(self.node)}".lstrip()
        return f"{shown} (again)" if self.again else shown

    def to_dict(self) -> dict[str, Any]:
        """Return the node as a JSON object, with how the trace came to it under `origin`."""
        origin = {"depth": self.depth, "role": self.role, "relation": self.relation, "source": self.source}
        return {"origin": {**origin, "again": self.again}, **self.node.to_dict()}


class Trace(Sequence[Origin]):
    """Where a node comes from: the node itself, and each node that it leads to right before what that leads to.

    Printed, it is a tree.
    """

    def __init__(self, origins: Sequence[Origin]) -> None:
        self._origins = tuple(origins)

    @property
    def ids(self) -> list[str]:
        """The ids of the nodes, each once, in order."""
        return [origin.id for origin in self._origins if not origin.again]

    @overload
    def __getitem__(self, index: int) -> Origin: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Origin]: ...
    def __getitem__(self, index: int | slice) -> Origin | Sequence[Origin]:
        return self._origins[index]

    def __len__(self) -> int:
        return len(self._origins)

    def __iter__(self) -> Iterator[Origin]:
        return iter(self._origins)

    def __eq__(self, other: object) -> bool:
        return self._origins == tuple(other) if isinstance(other, (Trace, list, tuple)) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple((origin.id, origin.depth) for origin in self._origins))

    def __repr__(self) -> str:
        return f"<Trace: {len(self)} nodes>\n{self}"

    def __str__(self) -> str:
        lines: list[str] = []
        more: list[bool] = []  # from the last line up: does a later one hang on the same trunk, by depth
        for origin in reversed(self._origins):
            depth = origin.depth
            more += [False] * (depth + 1 - len(more))
            trunks = "".join("│   " if going_on else "    " for going_on in more[1:depth])
            branch = ("├── " if more[depth] else "└── ") if depth else ""
            lines.append(f"{trunks}{branch}{origin}")
            more[depth] = True
            del more[depth + 1 :]
        return "\n".join(reversed(lines))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the nodes as JSON objects."""
        return [origin.to_dict() for origin in self._origins]


@dataclass(frozen=True)
class Explanation:
    """One node and what is known of how it came to be; printed, a few lines.

    `speakers` are the names of those who said it, `sessions` the ids of the conversations it stands in, `answers` the
    prompts it responds to. `sources` are the nodes it was derived from, each explained without its own sources.
    `supersedes` are the facts whose place it took, `superseded_by` those that took its place.
    """

    node: Node
    speakers: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    answers: tuple[Node, ...] = ()
    sources: tuple[Explanation, ...] = ()
    supersedes: tuple[Node, ...] = ()
    superseded_by: tuple[Node, ...] = ()

    def __str__(self) -> str:
        lines = [_named(self.node)]
        if self.node.kind == FACT and self.node.attributes.get("valid_from") is not None:
            end = self.node.attributes.get("valid_to")
            lines.append(f"valid from {self.node.attributes['valid_from']}{'' if end is None else f' to {end}'}")
        if self.speakers:
            lines.append(f"said by {', '.join(self.speakers)}")
        if self.node.timestamp is not None:
            lines.append(f"{'recorded' if self.node.kind == FACT else 'said'} at {self.node.timestamp}")
        lines += [f"in session {session}" for session in self.sessions]
        lines += [f"answers {_named(node)}" for node in self.answers]
        lines += [f"derived from {source.line()}" for source in self.sources]
        lines += [f"supersedes {_named(node)}" for node in self.supersedes]
        lines += [f"superseded by {_named(node)}" for node in self.superseded_by]
        return "\n  ".join(lines)

    def line(self) -> str:
        """Return who said it, when and where, in one line with the beginning of its text."""
        said = [f"said by {', '.join(self.speakers)}"] if self.speakers else []
        said += [f"at {self.node.timestamp}"] if self.node.timestamp is not None else []
        said += [f"in session {', '.join(self.sessions)}"] if self.sessions else []
        return f"{_named(self.node)} ({', '.join(said)})" if said else _named(self.node)

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as a JSON object."""
        return {
            "node": self.node.to_dict(),
            "speakers": list(self.speakers),
            "sessions": list(self.sessions),
            "answers": [node.to_dict() for node in self.answers],
            "sources": [source.to_dict() for source in self.sources],
            "supersedes": [node.to_dict() for node in self.supersedes],
            "superseded_by": [node.to_dict() for node in self.superseded_by],
        }


def _named(node: Node, width: int = 72) -> str:
    text = " ".join(str(node.text or node.attributes.get("name") or "").split())
    text = text if len(text) <= width else text[: width - 1] + "…"
    return f"{node.kind} {node.id}: {text}" if text else f"{node.kind} {node.id}"


def same_json(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same as JSON has it, where true is not 1 and 1 is not 1.0."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(item, other[key]) for key, item in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same_json, one, other))
    return type(one) is type(other) and bool(one == other)


PLAIN = frozenset({str, int, float, bool, type(None)})


def copied(value: Any) -> Any:
    """Return the JSON value *value* without sharing any of its lists and dicts; tuples become lists."""
    if type(value) is dict and (not value or PLAIN.issuperset(map(type, value.values()))):
        return value.copy()  # nearly always, in two thirds of the time
    if isinstance(value, Mapping):
        return {key: item if type(item) in PLAIN else copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(item) for item in value]
    return value


def as_json(value: Any) -> Any:
    """Return *value* as JSON has it; what JSON cannot hold as its `str`: a record is better than none."""
    if isinstance(value, Mapping):
        return {_written(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return value if isinstance(value, float) and value - value == 0 else _written(value)


def _written(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()
