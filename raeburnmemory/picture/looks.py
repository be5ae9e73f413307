"""How kinds of nodes and of links look: a colour and a shape for each kind, a colour and a dash for each relation.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), which people of every colour vision can tell
apart, made a little darker or lighter where the background asks for it; no difference is one of colour alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..nodes import (
    AGENT,
    BELONGS_TO,
    CITES,
    DERIVED_FROM,
    FACT,
    FRAGMENT,
    GENERATED_BY,
    PART_OF,
    PROMPT,
    RESPONDED_WITH,
    RESPONSE,
    SEMANTICALLY_SIMILAR,
    SESSION,
    SUPERSEDES,
)
from .select import SUPPORTS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Kind", "Relation", "kinds_of", "outline", "relations_of"]


@dataclass(frozen=True)
class Kind:
    """The look of one kind of node: its colour on light and on dark ground, and its shape."""

    light: str
    dark: str
    shape: str


@dataclass(frozen=True)
class Relation:
    """The look of one relation: its colours, its dashes (in pixels, empty for a line) and its width."""

    light: str
    dark: str
    dash: str
    width: float


_BLUE, _GREEN, _ORANGE = ("#0072b2", "#4aa8e0"), ("#009e73", "#35c79d"), ("#d98a00", "#f0b040")
_RED, _PINK, _SKY = ("#c94f00", "#f0803c"), ("#b9609a", "#dd96c2"), ("#3f9bcf", "#86cdf5")
_YELLOW, _GREY = ("#a89b00", "#f0e442"), ("#6b7280", "#a3abb8")

_KINDS = {
    PROMPT: (_BLUE, "circle"),
    RESPONSE: (_GREEN, "square"),
    SESSION: (_ORANGE, "hexagon"),
    AGENT: (_PINK, "diamond"),
    FACT: (_RED, "star"),
    FRAGMENT: (_SKY, "page"),
    "message": (_GREY, "triangle"),
    "entity": (_YELLOW, "pentagon"),
    "observation": (_SKY, "drop"),
    "item": (_GREY, "square"),
    "memory": (_RED, "circle"),
}
_RELATIONS = {
    RESPONDED_WITH: (_GREEN, "", 1.6),
    BELONGS_TO: (_ORANGE, "2 4", 1.4),
    GENERATED_BY: (_PINK, "7 4", 1.3),
    SEMANTICALLY_SIMILAR: (_BLUE, "10 3 2 3", 1.3),
    SUPERSEDES: (_RED, "", 2.4),
    DERIVED_FROM: (_GREY, "5 3", 1.6),
    CITES: (_SKY, "1 3", 1.8),
    PART_OF: (_SKY, "8 3", 1.4),
    SUPPORTS: (_RED, "1 4", 2.4),
}
_COLOURS = (_GREY, _BLUE, _ORANGE, _PINK, _GREEN, _RED, _SKY, _YELLOW)
_SHAPES = ("triangle", "pentagon", "drop", "page", "star", "diamond", "hexagon", "square", "circle")
_DASHES = ("", "4 2", "12 4", "2 2", "8 2 2 2")


def kinds_of(names: Iterable[str]) -> dict[str, Kind]:
    """Return the look of each kind: of ours always the same, of others by their order in the alphabet."""
    names = set(names)
    ours = [name for name in _KINDS if name in names]
    looks = {name: Kind(*_KINDS[name][0], _KINDS[name][1]) for name in ours}
    for number, name in enumerate(sorted(names - set(ours))):
        looks[name] = Kind(*_COLOURS[number % len(_COLOURS)], _SHAPES[number % len(_SHAPES)])
    return looks


def relations_of(names: Iterable[str]) -> dict[str, Relation]:
    """Return the look of each relation, as `kinds_of` does."""
    names = set(names)
    ours = [name for name in _RELATIONS if name in names]
    looks = {name: Relation(*_RELATIONS[name][0], *_RELATIONS[name][1:]) for name in ours}
    for number, name in enumerate(sorted(names - set(ours))):
        looks[name] = Relation(*_COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)], 1.5)
    return looks


def outline(shape: str, radius: float) -> str:
    """Return the outline of a shape around the origin as the data of an SVG path; all cover about the same area."""
    if shape == "circle":
        r = _n(radius)
        return f"M-{r} 0A{r} {r} 0 1 1 {r} 0A{r} {r} 0 1 1-{r} 0Z"
    if shape == "square":
        half, corner = radius * 0.88, radius * 0.3
        h, c, s = _n(half), _n(corner), _n(half - corner)
        return (
            f"M-{s}-{h}H{s}A{c} {c} 0 0 1 {h}-{s}V{s}A{c} {c} 0 0 1 {s} {h}"
            f"H-{s}A{c} {c} 0 0 1-{h} {s}V-{s}A{c} {c} 0 0 1-{s}-{h}Z"
        )
    return "M" + "L".join(f"{_n(x * radius)} {_n(y * radius)}" for x, y in _corners(shape)) + "Z"


def _corners(shape: str) -> list[tuple[float, float]]:
    if shape == "page":
        return [(-0.75, -0.95), (0.3, -0.95), (0.75, -0.5), (0.75, 0.95), (-0.75, 0.95)]
    if shape == "star":
        return [_at(number * 36 - 90, 1.22 if number % 2 == 0 else 0.62) for number in range(10)]
    sides, turn, size = {
        "hexagon": (6, 0, 1.08),
        "diamond": (4, -90, 1.2),
        "triangle": (3, -90, 1.3),
        "drop": (3, 90, 1.3),
        "pentagon": (5, -90, 1.12),
    }[shape]
    return [_at(turn + number * 360 / sides, size) for number in range(sides)]


def _at(degrees: float, distance: float) -> tuple[float, float]:
    return distance * math.cos(math.radians(degrees)), distance * math.sin(math.radians(degrees))


def _n(value: float) -> str:
    return (
        f"{value:.2f}".rstrip("0").rstrip(".").replace("-0", "0")
        if abs(value) < 0.005
        else f"{value:.2f}".rstrip("0").rstrip(".")
    )
