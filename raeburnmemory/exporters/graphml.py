"""GraphML, as Gephi, yEd, Cytoscape, igraph and networkx read it. Each relation of a pair is an edge of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from ._output import new_file
from ._table import Columns, clean, of_edge, of_node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._reading import Reading

__all__ = ["PASSES", "write"]

PASSES = 2
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">
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
        for line in _keys(nodes, "node", "n"):
            file.write(line.encode())
        for line in _keys(edges, "edge", "e"):
            file.write(line.encode())
        file.write(b'<graph id="memory" edgedefault="directed">\n')
        for node in reading.nodes():
            counts[0] += 1
            data = _data(nodes, of_node(node), "n")
            file.write(f"<node id={_quoted(node.id)}>{data}</node>\n".encode())
        for link in reading.links():
            ends = f"source={_quoted(link.source)} target={_quoted(link.target)}"
            data = _data(edges, of_edge(link), "e")
            file.write(f'<edge id="e{counts[1]}" {ends}>{data}</edge>\n'.encode())
            counts[1] += 1
        file.write(b"</graph>\n</graphml>\n")
    return counts[0], counts[1], 0


def _keys(columns: Columns, what: str, letter: str) -> Iterator[str]:
    for number, (name, kind) in enumerate(columns.types.items()):
        yield f'<key id="{letter}{number}" for="{what}" attr.name={_quoted(name)} attr.type="{kind}"/>\n'


def _data(columns: Columns, attributes: dict[str, Any], letter: str) -> str:
    return "".join(
        f'<data key="{letter}{number}">{_escaped(text)}</data>' for number, text in columns.values(attributes)
    )


def _escaped(text: str) -> str:
    return escape(text, {"\r": "&#13;"})


def _quoted(text: str) -> str:
    return quoteattr(clean(text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
