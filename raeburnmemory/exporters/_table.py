"""Attributes as columns: GraphML and GEXF want a type for each, known before the first node."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..nodes import copied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..nodes import Link, Node

__all__ = ["Columns", "clean", "of_edge", "of_node"]

_LONG = 2**63
# What XML 1.0 has no place for, not even escaped.
_NO_XML = {code: "\ufffd" for code in (*range(0x20), 0xFFFE, 0xFFFF, *range(0xD800, 0xE000)) if code not in {9, 10, 13}}


def clean(text: str) -> str:
    """Return *text* with what XML cannot hold replaced."""
    return text.translate(_NO_XML)


@dataclass
class Columns:
    """The attributes seen so far, each with the one type that holds all its values: lists and objects are JSON text."""

    types: dict[str, str] = field(default_factory=dict)

    def see(self, attributes: Mapping[str, Any]) -> None:
        """Learn from the attributes of one more node or edge."""
        for name, value in attributes.items():
            if value is None:
                continue
            kind = _type(value)
            before = self.types.setdefault(name, kind)
            if before != kind:
                self.types[name] = "double" if {before, kind} == {"long", "double"} else "string"

    def values(self, attributes: Mapping[str, Any]) -> list[tuple[int, str]]:
        """Return the number of each attribute's column, with the value as text."""
        places = {name: number for number, name in enumerate(self.types)}
        return [
            (places[name], self._text(value, self.types[name]))
            for name, value in attributes.items()
            if value is not None
        ]

    @staticmethod
    def _text(value: Any, kind: str) -> str:
        if isinstance(value, str):
            return clean(value)
        if kind == "double":
            return repr(float(value))
        return clean(json.dumps(copied(value), ensure_ascii=False))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if -_LONG <= value < _LONG else "string"
    return "double" if isinstance(value, float) else "string"


def of_node(node: Node) -> dict[str, Any]:
    """Return what is to be said of a node besides its id."""
    flat = node.to_dict()
    del flat["id"]
    return flat if node.expires_at is None else {**flat, "expires_at": node.expires_at}


def of_edge(link: Link) -> dict[str, Any]:
    """Return what is to be said of an edge besides its ends."""
    return {"relation": link.relation, **link.data}
