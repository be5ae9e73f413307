"""Node-link JSON, as `export` and networkx write it: everything in it comes back exactly as it was.

The form has the nodes of a namespace in one list and its edges in another, so it is read as a whole.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, NotAStore, StoreCorrupt
from ..nodes import DEFAULT_NAMESPACE
from ..store.nodelink import mended, parse_json, read_node_link
from ._files import only_file
from ._report import Imported, Log
from ._restore import Restoring, checked_link, checked_node

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..memory_graph import MemoryGraph

__all__ = ["restore"]

_BATCH = 1000


def restore(
    memory: MemoryGraph,
    path: str,
    *,
    dry_run: bool,
    all_namespaces: bool,
    progress: Callable[[int, int], Any] | None,
    allow_unembedded: bool,
) -> Imported:
    """Write everything in the file to *memory*; see `raeburnmemory.importers.import_file`."""
    part = only_file(path)
    with part.open() as file:
        raw = file.read()
    try:
        given = parse_json(raw, path)
        data = mended(given)
        nodes, links = read_node_link(data, path)
    except (StoreCorrupt, NotAStore) as exc:
        raise InvalidInput(f"{exc} Nothing was imported.") from exc
    log = Log()
    if data != given:
        log.note("numbers that are not finite, or halves of surrogate pairs, were replaced", path)
    names = list(dict.fromkeys([DEFAULT_NAMESPACE, *(node.namespace for node in nodes)]))
    if len(names) > 1 and not all_namespaces:
        raise InvalidInput(
            f"{path!r} holds the namespaces {', '.join(map(repr, names))}. To bring them all in, each under its name: "
            f"all_namespaces=True, on the command line --all-namespaces."
        )
    nodes = [checked_node(node, path) for node in nodes]
    links = [checked_link(link, path) for link in links]
    whole, done, new = max(len(nodes) + len(links), 1), 0, 0
    for name in names:
        into = name if all_namespaces else memory.namespace
        section = Restoring(memory, into, dry_run=dry_run, allow_unembedded=allow_unembedded)
        mine = [node for node in nodes if node.namespace == name]
        edges = [link for link in links if link.namespace == name]
        for start in range(0, len(mine), _BATCH):
            section.nodes(mine[start : start + _BATCH], embed=True)
            done = _tell(progress, done + len(mine[start : start + _BATCH]), whole)
        for start in range(0, len(edges), _BATCH):
            section.links(edges[start : start + _BATCH], path)
            done = _tell(progress, done + len(edges[start : start + _BATCH]), whole)
        new += section.new
    kinds = Counter(node.kind for node in nodes)
    return Imported("node-link", path, dry_run, dict(sorted(kinds.items())), len(links), new, log.issues())


def _tell(progress: Callable[[int, int], Any] | None, done: int, whole: int) -> int:
    if progress is not None:
        progress(done, whole)
    return done
