"""Node-link JSON, as networkx and many graph programs read it; see `raeburnmemory.store.nodelink`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..export import encoded
from ..store.nodelink import node_link_data
from ._output import new_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._reading import Reading

__all__ = ["PASSES", "write"]

PASSES = 1


def write(path: str, readings: Sequence[Reading], about: dict[str, Any]) -> tuple[int, int, int]:
    """Write namespaces to a file, the first at the top; return how many nodes and edges these were."""
    spaces = {reading.namespace: (list(reading.nodes()), list(reading.links())) for reading in readings}
    data = node_link_data(spaces, readings[0].namespace)
    with new_file(path, overwrite=about["overwrite"]) as file:
        file.writelines(piece.encode() for piece in encoded(data))
    return sum(len(nodes) for nodes, _ in spaces.values()), sum(len(links) for _, links in spaces.values()), 0
