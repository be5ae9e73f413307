"""The picture as a Mermaid flowchart, for README files, wikis and chats that draw them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .drawing import label_of, one_line

if TYPE_CHECKING:
    from .drawing import Drawing

__all__ = ["mermaid"]

_SHAPES = {
    "circle": ('(["', '"])'),
    "square": ('["', '"]'),
    "hexagon": ('{{"', '"}}'),
    "diamond": ('{"', '"}'),
    "star": ('>"', '"]'),
    "page": ('[["', '"]]'),
    "triangle": ('[/"', '"\\]'),
    "drop": ('[\\"', '"/]'),
    "pentagon": ('[("', '")]'),
}
_ARROWS = {"": "-->"}  # a line for relations that are drawn as one, dots for the others
_LABEL = 60

# All but letters, digits, spaces and harmless marks; of those, what begins a list, and underscores around words.
_MEANT = re.compile(r"^[-.]|(?<=^\d)[.]|(?<=^\d\d)[.]|(?<!\w)_|_(?!\w)|[^\w .,:!?'…/\u0300-\U0010ffff-]")


def mermaid(drawing: Drawing, title: str) -> str:
    """Return a flowchart. Mermaid itself refuses more than 500 links, unless `maxEdges` is set where it runs."""
    scene = drawing.scene
    lines = ["flowchart LR", f"%% {_comment(title)}: {drawing.counts}. {_comment(scene.chosen)}."]
    if scene.left_out:
        lines.append(f"%% {_comment(scene.left_out)}.")
    kinds = list(drawing.kinds)
    for number, node in enumerate(scene.nodes):
        before, after = _SHAPES[drawing.kinds[node.kind].shape]
        lines.append(
            f"  n{number}{before}{_label(one_line(label_of(node), _LABEL))}{after}:::k{kinds.index(node.kind)}"
        )
    for source, target, link in drawing.links:
        arrow = _ARROWS.get(drawing.relations[link.relation].dash, "-.->")
        lines.append(f'  n{source} {arrow}|"{_label(link.relation)}"| n{target}')
    lines += [
        f"  classDef k{number} fill:{kind.light},stroke:#ffffff,color:#ffffff"
        for number, kind in enumerate(drawing.kinds.values())
    ]
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    """Write a label so that nothing in it is Mermaid, Markdown or HTML."""
    return _MEANT.sub(lambda char: f"#{ord(char[0])};", text)


def _comment(text: str) -> str:
    return one_line(text, 300).replace("{", "(").replace("}", ")")
