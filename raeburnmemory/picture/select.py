"""Which part of a memory to draw: everything, what lies around nodes, a session, or hits with what supported them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..hits import Hits
from ..nodes import AGENT, SESSION, Link
from ..records import checked_count, checked_id, checked_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..hits import Hit
    from ..memory_graph import MemoryGraph
    from ..nodes import Node

__all__ = ["SUPPORTS", "Scene", "around", "everything", "found", "of_session"]

SUPPORTS = "supports"  # the relation drawn from a node to a hit whose score it raised; no memory holds it

_ROOM = 5  # one part in five of a sample is for what the newest nodes are linked to


@dataclass(frozen=True)
class Scene:
    """What is drawn: nodes, the links between them, and which of them the picture is about.

    `chosen` says in one sentence what was taken, `left_out` what was not (empty if all of it is there). `hits` are
    those of a search, best first, by their ids.
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    chosen: str
    left_out: str = ""
    focus: tuple[str, ...] = ()
    hits: Mapping[str, Hit] = field(default_factory=dict)


def everything(memory: MemoryGraph, kinds: Sequence[str] | None, limit: int) -> Scene:
    """Take the whole memory; of one with more than *limit* nodes the newest, and what these are linked to most."""
    total = 0
    newest: deque[Node] = deque(maxlen=limit)
    for node in memory.nodes(kinds):
        newest.append(node)
        total += 1
    of_kinds = "" if kinds is None else f" of the kind{'s' * (len(kinds) != 1)} {', '.join(kinds)}"
    if total <= limit:
        links = _links(memory, [node.id for node in newest])
        return Scene(tuple(newest), links, f"Everything{of_kinds}")
    core = list(newest)[-(limit - limit // _ROOM) :]
    ids = {node.id for node in core}
    ends = Counter(end for node in core for end in _ends(memory, node.id, "out") if end not in ids)
    extra = _of_kinds(memory, [end for end, _ in ends.most_common()], kinds)[: limit - len(core)]
    ids.update(node.id for node in extra)
    others = [node for node in newest if node.id not in ids]
    more = others[len(others) - (limit - len(core) - len(extra)) :]
    nodes = sorted([*extra, *more, *core], key=lambda node: node.row)
    links = _links(memory, [node.id for node in nodes])
    chosen = f"The newest {len(core) + len(more):,} nodes{of_kinds}"
    if extra:
        chosen += f", and {len(extra):,} that they are linked to most"
    out = f"{total - len(nodes):,} of {total:,} nodes are left out"
    if kinds is None:
        edges = memory.stats().edges
        out = f"{total - len(nodes):,} of {total:,} nodes and "
        out += f"{max(edges - len(links), 0):,} of {edges:,} links are left out"
    return Scene(tuple(nodes), links, chosen, out)


def around(memory: MemoryGraph, ids: Sequence[str], depth: int, kinds: Sequence[str] | None, limit: int) -> Scene:
    """Take the nodes with those *ids* and what at most *depth* links lead to, the nearest first."""
    ids = list(dict.fromkeys(ids))
    start = [memory.get(node_id) for node_id in ids]  # for its error
    taken, left = _spread(memory, start, depth, kinds, limit)
    steps = f"at most {_count(depth, 'link')} away from" if depth else "nothing but"
    who = repr(ids[0]) if len(ids) == 1 else f"{len(ids):,} nodes"
    links = _links(memory, [node.id for node in taken])
    out = f"at least {_count(left, 'node')} there {'is' if left == 1 else 'are'} left out" if left else ""
    return Scene(tuple(taken), links, f"What is {steps} {who}", out, tuple(ids))


def of_session(memory: MemoryGraph, session: str, kinds: Sequence[str] | None, limit: int) -> Scene:
    """Take what was said in a session, the newest if it is long, and what one link leads to from there."""
    checked_id(session, "a session's id")
    thread = [node for node in memory.thread(session) if kinds is None or node.kind in kinds]
    room = limit - limit // _ROOM if len(thread) > limit else limit
    said = thread[-room:]
    taken, left = _spread(memory, [memory.get(session), *said], 1, kinds, limit, "out")
    left += len(thread) - len(said)
    links = _links(memory, [node.id for node in taken])
    out = f"at least {_count(left, 'node')} there {'is' if left == 1 else 'are'} left out" if left else ""
    return Scene(tuple(taken), links, f"The session {session!r} and what it leads to", out, (session,))


def found(memory: MemoryGraph, hits: Hits, question: str | None, limit: int) -> Scene:
    """Take hits, what supported each, the exchange it belongs to, and who said it in which session."""
    shown = list(hits[:limit])
    by_id = {hit.id: hit for hit in shown}
    near: dict[str, None] = {}
    supports = []
    for hit in shown:
        for step in hit.why.path:
            if step.amount > 0 and step.id != hit.id:
                near[step.id] = None
                supports.append(Link(step.id, hit.id, SUPPORTS, {"as": step.relation, "amount": round(step.amount, 3)}))
        if hit.exchange is not None:
            near.update((one.id, None) for one in (hit.exchange.prompt, *hit.exchange.responses) if one is not None)
        if hit.session is not None:
            near[hit.session] = None
    # A hit is what it was when it was found; one that is gone since is drawn all the same.
    supporting = memory.get_many([one for one in near if one not in by_id])
    nodes = [*(hit.node for hit in shown), *supporting][:limit]
    taken, _ = _spread(memory, nodes, 1, (AGENT, SESSION), limit, "out")
    ids = {node.id for node in taken}
    links = _links(memory, list(ids)) + tuple(link for link in supports if link.source in ids)
    left = [
        f"{_count(number, what)} {'is' if number == 1 else 'are'} left out"
        for number, what in ((len(hits) - len(shown), "hit"), (len(shown) + len(supporting) - len(nodes), "node"))
        if number > 0
    ]
    asked = f" for “{question}”" if question is not None else ""
    chosen = f"{_count(len(shown), 'hit')}{asked}, with what supported {'it' if len(shown) == 1 else 'them'}"
    return Scene(tuple(taken), links, chosen, "; ".join(left), tuple(by_id), by_id)


def about(memory: MemoryGraph, what: object, depth: int | None, kinds: Sequence[str] | None, limit: int) -> Scene:
    """Take what *what* names: hits, the id of a node, or several ids."""
    if isinstance(what, Hits):
        return found(memory, what, None, limit)
    ids = checked_ids(what, "an id") if isinstance(what, Iterable) else [checked_id(what, "an id")]
    return around(memory, ids, checked_count(2 if depth is None else depth, "the depth"), kinds, limit)


def _spread(
    memory: MemoryGraph,
    start: Sequence[Node],
    depth: int,
    kinds: Sequence[str] | None,
    limit: int,
    direction: str = "both",
) -> tuple[list[Node], int]:
    """Walk from *start* level by level; return at most *limit* nodes, and how many more were seen.

    Within a level the neighbours of each node take turns, so that one with thousands does not crowd out the others.
    """
    taken = {node.id: node for node in start[:limit]}
    left = len(start) - len(taken)
    level = list(taken)
    for _ in range(depth):
        seen = dict.fromkeys(_in_turn([list(dict.fromkeys(_ends(memory, one, direction))) for one in level]))
        new, room = [one for one in seen if one not in taken], limit - len(taken)
        if kinds is None:
            nodes, of_kinds = memory.get_many(new[:room]), len(new)
        else:
            nodes = _of_kinds(memory, new, kinds)
            of_kinds = len(nodes)
        level = [node.id for node in nodes[:room]]
        left += of_kinds - len(level)
        taken.update((node.id, node) for node in nodes[:room])
        if len(taken) >= limit:
            break
    return sorted(taken.values(), key=lambda node: node.row), left


def _in_turn(lists: Sequence[Sequence[str]]) -> Iterator[str]:
    for place in range(max(map(len, lists), default=0)):
        yield from (one[place] for one in lists if place < len(one))


def _of_kinds(memory: MemoryGraph, ids: Sequence[str], kinds: Sequence[str] | None) -> list[Node]:
    return [node for node in memory.get_many(ids) if kinds is None or node.kind in kinds]


def _ends(memory: MemoryGraph, node_id: str, direction: str) -> Iterator[str]:
    """Yield what the links of a node lead to, the newest first."""
    # Asked for several, a node that is gone meanwhile has none; asked for one, it would be an error.
    for link in reversed(memory.links([node_id], direction=direction)):
        yield link.target if link.source == node_id else link.source


def _links(memory: MemoryGraph, ids: Sequence[str]) -> tuple[Link, ...]:
    """Return the links between the nodes with those ids."""
    there = set(ids)
    links = memory.links(list(there), direction="out")
    return tuple(sorted((link for link in links if link.target in there), key=lambda link: link.row))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
