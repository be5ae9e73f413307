"""A scene with places and looks: what the page, the static picture and the diagram are made of."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..nodes import AGENT, BELONGS_TO, GENERATED_BY, RESPONDED_WITH, SESSION
from .layout import place
from .looks import kinds_of, outline, relations_of
from .select import SUPPORTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..hits import Hit
    from ..nodes import Node
    from .looks import Kind, Relation
    from .select import Scene

__all__ = ["Drawing", "Mark", "one_line"]

LABEL = 34  # characters of a label at most
_TEXT = 4000  # characters of a text that the page shows; what is cut is said
_VALUE = 400  # and of the value of an attribute


@dataclass(frozen=True)
class Mark:
    """One node as it is drawn: `rank` is its place among the hits, from 1; 0 if it is none."""

    node: Node
    x: float
    y: float
    radius: float
    reach: float  # with the ring around it, if it has one
    label: str
    outline: str
    degree: int
    rank: int
    aside: bool  # there is something that the picture is about, and this is not it


class Drawing:
    """Nodes with places and looks, and the links between them as pairs of numbers of marks."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self._seed = seed
        self.number = {node.id: number for number, node in enumerate(scene.nodes)}
        self.links = [(self.number[link.source], self.number[link.target], link) for link in scene.links]
        self.kinds: Mapping[str, Kind] = kinds_of(node.kind for node in scene.nodes)
        self.relations: Mapping[str, Relation] = relations_of(link.relation for link in scene.links)
        self.kind_counts = Counter(node.kind for node in scene.nodes)
        self.relation_counts = Counter(link.relation for link in scene.links)

    @cached_property
    def marks(self) -> list[Mark]:
        """The nodes as they are drawn; the layout is made when it is first asked for."""
        scene = self.scene
        ranks = {node_id: rank for rank, node_id in enumerate(scene.hits, 1)}
        degrees = Counter(end for source, target, _ in self.links for end in {source, target})
        radii = [
            _radius(node.kind, degrees[number], scene.hits.get(node.id)) for number, node in enumerate(scene.nodes)
        ]
        points = place(radii, [(source, target) for source, target, _ in self.links], self._seed)
        return [
            Mark(
                node,
                float(x),
                float(y),
                radius,
                radius + (8 if node.id in scene.hits or node.id in scene.focus else 0),
                one_line(label_of(node), LABEL),
                outline(self.kinds[node.kind].shape, radius),
                degrees[number],
                ranks.get(node.id, 0),
                bool(scene.hits) and node.id not in scene.hits,
            )
            for number, (node, (x, y), radius) in enumerate(zip(scene.nodes, points.tolist(), radii, strict=True))
        ]

    @property
    def counts(self) -> str:
        """How many nodes and links there are, in words."""
        nodes, links = len(self.scene.nodes), len(self.links)
        return f"{nodes:,} node{'s' * (nodes != 1)}, {links:,} link{'s' * (links != 1)}"

    def data(self, title: str, theme: str) -> dict[str, Any]:
        """Return everything the page shows as a JSON object."""
        return {
            "title": title,
            "theme": theme,
            "counts": self.counts,
            "chosen": self.scene.chosen,
            "leftOut": self.scene.left_out,
            "supports": SUPPORTS,
            "nodes": [self._node(mark) for mark in self.marks],
            "links": [
                {"s": source, "t": target, "r": link.relation, "facts": _facts(link.data)}
                for source, target, link in self.links
            ],
            "kinds": {
                name: {
                    "light": kind.light,
                    "dark": kind.dark,
                    "icon": outline(kind.shape, 6.5),
                    "count": self.kind_counts[name],
                }
                for name, kind in self.kinds.items()
            },
            "relations": {
                name: {
                    "light": look.light,
                    "dark": look.dark,
                    "dash": look.dash,
                    "width": look.width,
                    "count": self.relation_counts[name],
                }
                for name, look in self.relations.items()
            },
        }

    @cached_property
    def _said_in(self) -> dict[str, str]:
        """In which session things were said, by their ids: what the links tell, of responses what their prompts do."""
        sessions = {link.source: link.target for _, _, link in self.links if link.relation == BELONGS_TO}
        for _, _, link in self.links:
            if link.relation == RESPONDED_WITH and link.source in sessions:
                sessions.setdefault(link.target, sessions[link.source])
        return sessions | {node_id: hit.session for node_id, hit in self.scene.hits.items() if hit.session is not None}

    @cached_property
    def _said_by(self) -> dict[str, str]:
        """The names of those who said things, by the ids of these, as far as they are drawn."""
        nodes = self.scene.nodes
        return {link.source: label_of(nodes[by]) for _, by, link in self.links if link.relation == GENERATED_BY}

    def _told(self, node: Node) -> list[list[str]]:
        """Return what the page says of a node besides its text: who said it, when and where, then its attributes."""
        hit = self.scene.hits.get(node.id)
        speaker = hit.speaker if hit is not None else self._said_by.get(node.id)
        first = {
            "said by": speaker if node.kind not in {AGENT, SESSION} else None,
            "session": self._said_in.get(node.id, node.attributes.get("session_id")),
            "time": (node.timestamp or "").replace("T", " ").replace("+00:00", " UTC") or None,
        }
        others = {name: value for name, value in node.attributes.items() if name not in {"timestamp", "session_id"}}
        return _facts({**first, **others})

    def _node(self, mark: Mark) -> dict[str, Any]:
        node, text = mark.node, mark.node.text or ""
        shown = {
            "id": node.id,
            "kind": node.kind,
            "label": mark.label,
            "text": text[:_TEXT],
            "cut": max(len(text) - _TEXT, 0),
            "facts": self._told(node),
            "x": mark.x,
            "y": mark.y,
            "r": mark.radius,
            "d": mark.outline,
            "rank": mark.rank,
            "aside": mark.aside,
            "focus": node.id in self.scene.focus,
        }
        hit = self.scene.hits.get(node.id)
        if hit is not None:
            shown["hit"] = {
                "score": hit.score,
                "similarity": hit.similarity,
                "coverage": hit.coverage,
                "legs": dict(hit.why.legs),
                "words": list(hit.why.words),
                "path": [
                    {"relation": step.relation, "id": step.id, "amount": round(step.amount, 3)} for step in hit.why.path
                ],
                "duplicates": list(hit.duplicates),
            }
        return shown


def label_of(node: Node) -> str:
    """Return what a node is called in a picture: its text, else its name, else its id."""
    name = node.attributes.get("name")
    return (node.text or "").strip() or (name if isinstance(name, str) else "") or node.id


def one_line(text: str, width: int) -> str:
    """Return a text on one line of at most *width* characters, "…" for what was cut."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def _radius(kind: str, degree: int, hit: Hit | None) -> float:
    if hit is not None:
        return round(12 + 8 * min(max(hit.score, 0.0), 1.0), 1)
    if kind in {SESSION, AGENT}:
        return round(11 + 2.2 * math.log2(1 + degree), 1)
    return round(8 + 1.2 * math.log2(1 + max(degree - 1, 0)), 1)


def _facts(values: Mapping[str, Any]) -> list[list[str]]:
    """Return attributes as pairs of texts."""
    return [[key, one_line(_said(value), _VALUE)] for key, value in values.items() if value is not None]


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
