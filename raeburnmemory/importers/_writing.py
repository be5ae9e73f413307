"""Writing what a reader yields: some hundred messages in one transaction, each whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, NodeNotFound
from ..nodes import AGENT, ENTITY, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..memory_graph import MemoryGraph
    from ..nodes import Link, Node
    from ._chat import Group
    from ._report import Log

__all__ = ["Tally", "write"]

_NODES = 512  # in one transaction: two blocks of texts to embed


class Tally:
    """What of a memory was read or written so far."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.links = 0
        self.new = 0
        self._shared: set[str] = set()

    def count(self, groups: Iterable[Group]) -> None:
        """Count the nodes and links of *groups*; a session or agent, which stands in many, once."""
        for group in groups:
            self.links += len(group.links)
            for node in group.nodes:
                if node.kind in {AGENT, ENTITY, SESSION}:
                    if node.id in self._shared:
                        continue
                    self._shared.add(node.id)
                self.kinds[node.kind] += 1


def write(
    memory: MemoryGraph,
    groups: Iterable[Group],
    log: Log,
    *,
    dry_run: bool,
    progress: Callable[[int], Any],
    allow_unembedded: bool = False,
) -> Tally:
    """Write *groups* to *memory*, or with *dry_run* only see what is new; *progress* gets the groups done so far."""
    tally = Tally()
    done = 0

    def flush() -> None:
        nonlocal done
        if dry_run:
            ids = dict.fromkeys(node.id for group in pending for node in group.nodes)
            there = {node.id for node in memory.get_many(list(ids))}
            fresh = ids.keys() - there - seen
            seen.update(ids)
            tally.new += len(fresh)
            tally.count(pending)
        else:
            written = _put(memory, pending, log, tally, allow_unembedded=allow_unembedded)
            tally.count(written)
        done += len(pending)
        progress(done)

    seen: set[str] = set()  # by a dry run
    pending: list[Group] = []
    size = 0
    for group in groups:
        pending.append(group)
        size += len(group.nodes)
        if size >= _NODES:
            flush()
            pending, size = [], 0
    if pending:
        flush()
    return tally


def _put(memory: MemoryGraph, groups: list[Group], log: Log, tally: Tally, *, allow_unembedded: bool) -> list[Group]:
    """Write *groups* in one transaction, and return those that were written.

    Where something in them cannot be stored, each is tried by itself, so that only what is wrong is left out.
    """
    nodes: dict[int, Node] = {}
    links: dict[tuple[str, str, str], Link] = {}
    for group in groups:
        # Sessions and agents are the same objects, or equal ones, in group after group: each need be written once.
        nodes.update({hash((n.id, n.text, str(n.attributes))): n for n in group.nodes})
        links.update({(link.source, link.target, link.relation): link for link in group.links})
    try:
        new = memory.put(list(nodes.values()), list(links.values()), allow_unembedded=allow_unembedded)
    except (InvalidInput, NodeNotFound) as exc:
        if len(groups) == 1:
            log.skip("it cannot be stored", f"{groups[0].place}: {exc}")
            return []
        middle = len(groups) // 2
        halves = (groups[:middle], groups[middle:])
        return [group for half in halves for group in _put(memory, half, log, tally, allow_unembedded=allow_unembedded)]
    tally.new += len(new)
    return groups
