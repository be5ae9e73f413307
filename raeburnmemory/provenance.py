"""Where a node comes from: who said it, when and in which session, what it was derived from, what took its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import NodeNotFound
from .nodes import (
    AGENT,
    BELONGS_TO,
    CITES,
    DERIVED_FROM,
    GENERATED_BY,
    PART_OF,
    RESPONDED_WITH,
    SESSION,
    SUPERSEDES,
    Explanation,
    Link,
    Node,
    Origin,
    Trace,
)
from .passages import speaker
from .records import checked_count, checked_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Store

__all__ = ["trace", "why"]

# The way back, in the order in which it is told. Of a session or an agent the way does not go on to all that was said
# there, and of a fact not to what was derived from it.
_WAYS = (
    (DERIVED_FROM, "out"),
    (CITES, "out"),
    (PART_OF, "out"),
    (RESPONDED_WITH, "in"),
    (GENERATED_BY, "out"),
    (BELONGS_TO, "out"),
    (SUPERSEDES, "out"),
    (SUPERSEDES, "in"),
)
_ENDS = {AGENT, SESSION}  # nothing leads to them from where they come from, but all that was said may lead to one


def trace(store: Store, namespace: str, node_id: str, depth: int | None) -> Trace:
    """Follow a node back over at most *depth* edges, or as far as there are any.

    Breadth first, so that every node is placed where the way to it is shortest; cycles end there.
    """
    limit = None if depth is None else checked_count(depth, "the depth")
    with store.snapshot():
        start = _one(store, namespace, node_id)
        nodes = {node_id: start}
        below: dict[str, list[Origin]] = {}
        came_by: dict[str, tuple[str, str, str]] = {}
        frontier, away = [node_id], 0
        while frontier and (limit is None or away < limit):
            away += 1
            steps = _steps(store, namespace, [nodes[one] for one in frontier])
            met = store.get(list({_other(link, end) for end, link in steps}), namespace)
            reached = []
            for end, link in steps:
                other = _other(link, end)
                if came_by.get(end) == _key(link) or other not in met:
                    continue  # straight back, or to a node that has expired
                again = other in nodes
                below.setdefault(end, []).append(Origin(met[other], link, away, again))
                if not again:
                    nodes[other] = met[other]
                    came_by[other] = _key(link)
                    reached.append(other)
            frontier = reached
    origins, waiting = [], [Origin(start)]
    while waiting:
        origin = waiting.pop()
        origins.append(origin)
        if not origin.again:
            waiting += reversed(below.get(origin.id, []))
    return Trace(origins)


def why(store: Store, namespace: str, node_id: str) -> Explanation:
    """Explain one node from what is around it."""
    with store.snapshot():
        node = _one(store, namespace, node_id)
        found = _around(store, namespace, [node])[node_id]
        sources = [each for each, _ in found[DERIVED_FROM, "out"]]
        around = _around(store, namespace, sources)
    return _explained(node, found, tuple(_explained(source, around[source.id], ()) for source in sources))


_Around = dict[tuple[str, str], list[tuple[Node, list[Node]]]]  # for each way the nodes, and the sessions of prompts


def _around(store: Store, namespace: str, told: Sequence[Node]) -> dict[str, _Around]:
    """Return for each of the nodes *told* the nodes that each way leads to, and the sessions of those."""
    steps = _steps(store, namespace, told)
    prompts = [_other(link, end) for end, link in steps if link.relation == RESPONDED_WITH]
    further = store.links(list(dict.fromkeys(prompts)), namespace, relation=BELONGS_TO)
    nodes = store.get(list({_other(link, end) for end, link in steps} | {link.target for link in further}), namespace)
    sessions: dict[str, list[Node]] = {}
    for link in further:
        if link.target in nodes:
            sessions.setdefault(link.source, []).append(nodes[link.target])
    found: dict[str, _Around] = {node.id: {way: [] for way in _WAYS} for node in told}
    for end, link in steps:
        other = _other(link, end)
        if other in nodes:
            way = (link.relation, "out" if link.source == end else "in")
            found[end][way].append((nodes[other], sessions.get(other, [])))
    return found


def _explained(node: Node, around: _Around, sources: tuple[Explanation, ...]) -> Explanation:
    def nodes(relation: str, direction: str) -> tuple[Node, ...]:
        return tuple(each for each, _ in around[relation, direction])

    speakers = [str(agent.attributes.get("name") or agent.id) for agent in nodes(GENERATED_BY, "out")]
    own = speaker(node)
    if own is not None and own not in speakers:
        speakers.append(own)
    # A response stands in the session of the prompt that it answers.
    through = [session for _, sessions in around[RESPONDED_WITH, "in"] for session in sessions]
    return Explanation(
        node,
        tuple(speakers),
        tuple(dict.fromkeys(session.id for session in (*nodes(BELONGS_TO, "out"), *through))),
        nodes(RESPONDED_WITH, "in"),
        sources,
        nodes(SUPERSEDES, "out"),
        nodes(SUPERSEDES, "in"),
    )


def _steps(store: Store, namespace: str, nodes: Sequence[Node]) -> list[tuple[str, Link]]:
    """Return the edges that lead back from *nodes*, each with the end that it leads back from."""
    ids = {"out": [node.id for node in nodes], "in": [node.id for node in nodes if node.kind not in _ENDS]}
    return [
        (link.source if direction == "out" else link.target, link)
        for relation, direction in _WAYS
        for link in store.links(ids[direction], namespace, direction=direction, relation=relation)
    ]


def _other(link: Link, end: str) -> str:
    return link.target if link.source == end else link.source


def _key(link: Link) -> tuple[str, str, str]:
    return link.source, link.target, link.relation


def _one(store: Store, namespace: str, node_id: str) -> Node:
    node = store.get([checked_id(node_id, "an id")], namespace).get(node_id)
    if node is None:
        raise NodeNotFound(f"No node has the id {node_id!r} in {store.location!r}.")
    return node
