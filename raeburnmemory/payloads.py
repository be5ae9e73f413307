"""What an index elsewhere is told of a text, so that it can pass over others: whose it is, and when it was said."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from .nodes import BELONGS_TO, GENERATED_BY, RESPONDED_WITH
from .records import time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from .nodes import Link, Node
    from .store import Store

__all__ = ["payloads", "touched"]

_STRUCTURE = {BELONGS_TO, RESPONDED_WITH, GENERATED_BY}


def payloads(store: Store, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Return for each of *rows* its kind, namespace, sessions, agents and time; little of a node that is gone.

    It says rather too much than too little: a filter by sessions or agents means no node that is not among these.
    """
    with store.snapshot():
        nodes = dict(store.at_rows(list(rows)))
        spaces: dict[str, list[Node]] = {}
        for node in nodes.values():
            spaces.setdefault(node.namespace, []).append(node)
        about = {space: _Connections(store, space, some) for space, some in spaces.items()}
    return [_payload(nodes[row], about[nodes[row].namespace]) if row in nodes else {"row": row} for row in rows]


def _payload(node: Node, about: _Connections) -> dict[str, Any]:
    stamp = time_of(node)
    told = math.nan if stamp is None else datetime.fromisoformat(stamp).timestamp()
    return {
        "row": node.row,
        "kind": node.kind,
        "namespace": node.namespace,
        "session": sorted(about.sessions_of(node.id)),
        "agent": sorted(about.agents_of(node)),
        "time": None if math.isnan(told) else told,
    }


class _Connections:
    """Who belongs to which session and agent, of some nodes and of what they answer or are answered by."""

    def __init__(self, store: Store, namespace: str, nodes: Sequence[Node]) -> None:
        ids = [node.id for node in nodes]
        answers = store.links(ids, namespace, direction="both", relation=RESPONDED_WITH)
        self._asked = _targets((link.target, link.source) for link in answers)
        self._answers = _targets((link.source, link.target) for link in answers)
        every = sorted({*ids, *self._asked, *self._answers})
        self._sessions = _ends(store.links(every, namespace, relation=BELONGS_TO))
        self._agents = _ends(store.links(every, namespace, relation=GENERATED_BY))

    def sessions_of(self, node_id: str) -> set[str]:
        """Return the sessions of a node and of what it answers."""
        return _all(self._sessions, [node_id, *self._asked.get(node_id, ())])

    def agents_of(self, node: Node) -> set[str]:
        """Return who gave it, and who answered it."""
        return _all(self._agents, [node.id, *self._answers.get(node.id, ())])


def _targets(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one, other in pairs:
        found.setdefault(one, set()).add(other)
    return found


def _ends(links: Iterable[Link]) -> dict[str, set[str]]:
    return _targets((link.source, link.target) for link in links)


def _all(found: dict[str, set[str]], ids: Iterable[str]) -> set[str]:
    return {one for node_id in ids for one in found.get(node_id, ())}


def touched(store: Store, since: int) -> NDArray[np.int64] | None:
    """Return the rows, ascending, of nodes of which `payloads` may say something else than at version *since*.

    None if that is not known any more, and may be any.
    """
    with store.snapshot():
        changes = store.changes(since)
        if changes.reset:
            return None
        rows = {node.row for node in changes.nodes}
        keys = [(link.namespace, link.source, link.target, link.relation) for link in changes.links]
        ends: dict[str, set[str]] = {}
        for namespace, source, target, relation in [*keys, *changes.removed_links]:
            if relation in _STRUCTURE:
                ends.setdefault(namespace, set()).update((source, target))
        for namespace, ids in ends.items():
            answers = store.links(sorted(ids), namespace, direction="both", relation=RESPONDED_WITH)
            ids.update(end for link in answers for end in (link.source, link.target))
            rows.update(node.row for node in store.get(sorted(ids), namespace).values())
    return np.array(sorted(rows), np.int64)
