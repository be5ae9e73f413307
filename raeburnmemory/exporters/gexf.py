"""GEXF 1.2, the format of Gephi, which networkx reads too. Each relation of a pair is an edge of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from ._output import new_file
from ._table import Columns, clean, of_edge, of_node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._reading import Reading

__all__ = ["PASSES", "write"]

PASSES = 2
_LABEL = 60  # characters of a text that name a node
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<gexf xmlns="http://www.gexf.net/1.2draft" version="1.2">
<meta><creator>raeburnmemory</creator></meta>
<graph defaultedgetype="directed" mode="static" idtype="string">
"""


def write(path: str, readings: Sequence[Reading], about: dict[str, Any]) -> tuple[int, int, int]:
    """Write a namespace to a file; return how many nodes and edges it holds."""
    (reading,) = readings
    nodes, edges = Columns(), Columns()
    for node in reading.nodes():
        nodes.see(of_node(node))
    for link in reading.links():
        edges.see(of_edge(link))
    counts = [0, 0]
    with new_file(path, overwrite=about["overwrite"]) as file:
        file.write(_HEAD.encode())
        for columns, what in ((nodes, "node"), (edges, "edge")):
            file.write(f'<attributes class="{what}">\n'.encode())
            for number, (name, kind) in enumerate(columns.types.items()):
                file.write(f'<attribute id="{number}" title={_quoted(name)} type="{kind}"/>\n'.encode())
            file.write(b"</attributes>\n")
        file.write(b"<nodes>\n")
        for node in reading.nodes():
            counts[0] += 1
            label = " ".join((node.text or str(node.attributes.get("name") or node.id)).split())
            values = _values(nodes, of_node(node))
            file.write(f"<node id={_quoted(node.id)} label={_quoted(label[:_LABEL])}>{values}</node>\n".encode())
        file.write(b"</nodes>\n<edges>\n")
        for link in reading.links():
            ends = f"source={_quoted(link.source)} target={_quoted(link.target)} label={_quoted(link.relation)}"
            values = _values(edges, of_edge(link))
            file.write(f'<edge id="{counts[1]}" {ends}>{values}</edge>\n'.encode())
            counts[1] += 1
        file.write(b"</edges>\n</graph>\n</gexf>\n")
    return counts[0], counts[1], 0


def _values(columns: Columns, attributes: dict[str, Any]) -> str:
    values = columns.values(attributes)
    shown = "".join(f'<attvalue for="{number}" value={_quoted(text)}/>' for number, text in values)
    return f"<attvalues>{shown}</attvalues>" if values else ""


def _quoted(text: str) -> str:
    return quoteattr(clean(text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
