"""Where the nodes of a picture lie: a force layout in numpy, the same every time for the same nodes and seed.

Links pull with the distance, nodes push each other away with its inverse, the more the more links they have, and
everything falls gently to the middle: the model of ForceAtlas2 (Jacomy, Venturini, Heymann, Bastian: "ForceAtlas2, a
Continuous Graph Layout Algorithm", PLoS ONE 9(6), 2014), cooled down step by step as Fruchterman and Reingold do
(Software: Practice and Experience 21(11), 1991). At the end nodes that overlap are pushed apart and the whole is turned
so that it is wider than high.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["place"]

_STEPS = 420  # of cooling, for small pictures
_WORK = 4e7  # pairs of nodes to compare at most, roughly: large pictures take fewer steps
_FEWEST = 90
_LENGTH = 88.0  # of a link, in pixels, as a rule
_STRETCH = 1.22  # labels are wider than high
_ROOM = 2.6  # times the squares around its nodes that a part covers at least
_GAP = 13.0  # between the outlines of two nodes
_GRAVITY = 0.05
_ASIDE = (96.0, 64.0)  # between parts that nothing links, in pixels: beside and below each other
_SHAPE = 1.7  # of the whole: how much wider than high


def place(radii: Sequence[float], links: Sequence[tuple[int, int]], seed: int = 0) -> NDArray[np.float64]:
    """Return a row of x and y, in pixels around the middle, for each node of the radius at its place in *radii*.

    *links* are pairs of places. A thousand nodes take some seconds; the time grows with the square of their number.
    """
    n = len(radii)
    points = np.zeros((n, 2))
    if n == 0:
        return points
    pairs = np.array(sorted({(min(pair), max(pair)) for pair in links if pair[0] != pair[1]}), np.int64).reshape(-1, 2)
    sizes, random = np.asarray(radii, np.float64), np.random.default_rng(seed)
    parts = _parts(n, pairs)
    for part in parts:
        within = np.searchsorted(part, pairs[np.isin(pairs[:, 0], part)])
        points[part] = _apart(_turned(_forced(sizes[part], within, random)), sizes[part])
    _packed(points, sizes, parts)
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    placed: NDArray[np.float64] = np.round(points - middle, 1)
    return placed


def _parts(n: int, pairs: Any) -> list[Any]:
    """Return the nodes that hang together, part by part, the largest first."""
    root = list(range(n))

    def top(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for one, other in pairs.tolist():
        root[top(other)] = top(one)
    found: dict[int, list[int]] = {}
    for number in range(n):
        found.setdefault(top(number), []).append(number)
    return [np.array(part) for part in sorted(found.values(), key=lambda part: (-len(part), part[0]))]


def _packed(points: Any, sizes: Any, parts: Sequence[Any]) -> None:
    """Set the parts side by side in rows, as lines of text are set, so that the whole is somewhat wider than high."""
    boxes = []
    for part in parts:
        low = (points[part] - sizes[part, None]).min(axis=0)
        high = (points[part] + sizes[part, None]).max(axis=0)
        boxes.append((part, low, high - low + _ASIDE))
    widest = max(np.sqrt(sum(box[0] * box[1] for _, _, box in boxes) * _SHAPE), boxes[0][2][0])
    rows: list[list[Any]] = [[]]
    for entry in boxes:
        if rows[-1] and sum(box[0] for _, _, box in rows[-1]) + entry[2][0] > widest:
            rows.append([])
        rows[-1].append(entry)
    y = 0.0
    for row in rows:
        height, x = max(box[1] for _, _, box in row), -sum(box[0] for _, _, box in row) / 2
        for part, low, box in row:
            points[part] += np.array([x, y + (height - box[1]) / 2]) - low
            x += box[0]
        y += height


def _forced(sizes: Any, pairs: Any, random: np.random.Generator) -> Any:
    """Return places for nodes that hang together."""
    n = len(sizes)
    if n == 1:
        return np.zeros((1, 2))
    degree = np.bincount(pairs.ravel(), minlength=n).astype(np.float64)
    spread = _LENGTH * np.sqrt(n)
    points = random.normal(size=(n, 2)) * spread * 0.35
    steps = int(np.clip(_WORK / n**2, _FEWEST, _STEPS))
    mass = 1 + degree**0.6  # with the degree itself, agents who say everything would push everything away
    for step in range(steps):
        heat = (1 - step / steps) ** 1.5 * spread * 0.08 + 0.5
        moves = _pushes(points, mass) + _pulls(points, pairs, degree) - points * (_GRAVITY * mass[:, None])
        far = np.sqrt((moves**2).sum(axis=1, keepdims=True))
        points = points + moves / np.maximum(far, 1e-9) * np.minimum(far, heat)
        # The last bits of a sum differ between processors, and a layout makes much of small differences.
        points = np.round(points, 3)
    between = points[pairs[:, 1]] - points[pairs[:, 0]]
    usual = float(np.median(np.sqrt((between**2).sum(axis=1))))
    # Large parts need room for their nodes rather than links of a certain length.
    area = max(float(np.prod(points.max(axis=0) - points.min(axis=0))), 1.0)
    room = np.sqrt(_ROOM * float(((2 * sizes + _GAP) ** 2).sum()) / area) if n > 60 else 0.0
    return np.round(points * max(_LENGTH / max(usual, 1.0), room), 3)


def _pushes(points: Any, mass: Any) -> Any:
    """Return the force on each node from all others: the product of their masses over the distance."""
    x, y = (points[:, 0][:, None] - points[:, 0], points[:, 1][:, None] - points[:, 1])
    square = x * x + y * y
    strength = (_LENGTH**2 * 0.32) * mass[:, None] * mass / np.maximum(square, 4.0)
    return np.stack([(x * strength).sum(axis=1), (y * strength).sum(axis=1)], axis=1)


def _pulls(points: Any, pairs: Any, degree: Any) -> Any:
    """Return the force on each node from its links. Those of hubs pull gently: sessions hold together, not agents."""
    force = np.zeros_like(points)
    if len(pairs):
        between = points[pairs[:, 1]] - points[pairs[:, 0]]
        busier = np.maximum(degree[pairs[:, 0]], degree[pairs[:, 1]])
        between = between * (1.5 / busier**0.75)[:, None]
        np.add.at(force, pairs[:, 0], between)
        np.add.at(force, pairs[:, 1], -between)
    return force


def _turned(points: Any) -> Any:
    """Turn the points so that the direction in which they spread most lies flat, the first of them on the left."""
    if len(points) < 2:
        return points
    centred = points - points.mean(axis=0)
    xx, yy, xy = (centred[:, 0] ** 2).sum(), (centred[:, 1] ** 2).sum(), (centred[:, 0] * centred[:, 1]).sum()
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.stack([centred[:, 0] * cos + centred[:, 1] * sin, centred[:, 1] * cos - centred[:, 0] * sin], axis=1)
    if turned[0, 0] > 0:
        turned = -turned
    return np.round(turned * (_STRETCH, 1), 3)


def _apart(points: Any, radii: Any) -> Any:
    """Push apart whatever overlaps."""
    room = radii[:, None] + radii + _GAP
    np.fill_diagonal(room, 0)
    for _ in range(int(np.clip(_WORK / 4 / len(points) ** 2, 20, 120))):
        x, y = (points[:, 0][:, None] - points[:, 0], points[:, 1][:, None] - points[:, 1])
        distance = np.sqrt(x * x + y * y)
        overlap = room - distance
        if not (overlap > 0.05).any():
            break
        share = np.where(overlap > 0, overlap / np.maximum(distance, 0.1), 0) * 0.5
        points = np.round(points + np.stack([(x * share).sum(axis=1), (y * share).sum(axis=1)], axis=1), 3)
    return points
