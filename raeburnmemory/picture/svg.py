"""The static picture: one SVG that says everything about itself, with legend, title and what was left out."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from .drawing import one_line
from .looks import outline
from .select import SUPPORTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .drawing import Drawing, Mark

__all__ = ["svg"]

_INVALID = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold
_FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_GROUND = {"light": ("#ffffff", "#1c2430", "#5b6675"), "dark": ("#14181f", "#e8ecf2", "#9aa6b5")}  # ground, ink, soft
_SIZE = 11  # of labels, in pixels
_MARGIN = 34
_WIDEST = 1400  # a larger picture is shown smaller, and its labels with it
_NARROWEST = 460


def svg(drawing: Drawing, title: str, theme: str) -> str:
    """Return the picture as SVG; with the theme `"auto"` it follows the reader's preference for dark or light."""
    marks = drawing.marks
    placed = list(labels(marks))
    left, top, right, bottom = _bounds(marks, placed)
    legend = list(_legend(drawing, max(right - left, _NARROWEST)))
    height_of_legend = 22 * len(legend)
    width, head = max(right - left, _NARROWEST), 62 + (17 if drawing.scene.left_out else 0)
    left -= (width - (right - left)) / 2
    height = head + (bottom - top) + height_of_legend + 24
    shown = min(1.0, _WIDEST / width)
    scaled = f'width="{width * shown:.0f}" height="{height * shown:.0f}"'
    name = f"aria-label={_attribute(f'{title}: {drawing.counts}')}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {scaled} role="img" {name}>',
        f"<style>{_style(drawing, theme)}</style>",
        _markers(drawing),
        f'<rect class="ground" width="{width:.0f}" height="{height:.0f}"/>',
        f'<text class="title" x="24" y="32">{_text(one_line(title, 90))}</text>',
        f'<text class="note" x="24" y="51">{_text(f"{drawing.scene.chosen} · {drawing.counts}")}</text>',
    ]
    if drawing.scene.left_out:
        parts.append(f'<text class="note cut" x="24" y="68">{_text(drawing.scene.left_out)}</text>')
    parts.append(f'<g transform="translate({-left:.1f} {head - top:.1f})">')
    parts += _links(drawing)
    parts += [_mark(mark, drawing) for mark in marks]
    parts += [
        f'<text class="label{" aside" if marks[number].aside else ""}" x="{x:.1f}" y="{y:.1f}">'
        f"{_text(marks[number].label)}</text>"
        for number, x, y in placed
    ]
    parts.append("</g>")
    for row, line in enumerate(legend):
        y = head + (bottom - top) + 14 + 22 * row
        parts += [f'<g transform="translate({x:.0f} {y:.0f})">{what}</g>' for x, what in line]
    parts.append("</svg>\n")
    return "\n".join(parts)


def labels(marks: list[Mark]) -> Iterator[tuple[int, float, float]]:
    """Yield the number and the place of the labels for which there is room, the most important ones first.

    A label stands below its node, or above it or beside it, and covers neither another label nor a node, but that of
    a large node may cover small ones, or none would be seen where there are many.
    """
    taken = [(m.x - m.reach, m.y - m.reach, m.x + m.reach, m.y + m.reach, m.radius) for m in marks]
    order = sorted(range(len(marks)), key=lambda number: (marks[number].rank or 10**6, -marks[number].radius, number))
    for number in order:
        mark = marks[number]
        half, large = _width(mark.label) / 2, mark.radius * 0.7 if mark.radius >= 15 else 0
        aside, below, above = mark.reach + 6 + half, mark.y + mark.reach + _SIZE + 2, mark.y - mark.reach - 5
        beside = mark.y + _SIZE / 3
        places = ((mark.x, below), (mark.x, above), (mark.x + aside, beside), (mark.x - aside, beside))
        for x, y in places:
            box = (x - half - 2, y - _SIZE + 1, x + half + 2, y + 3, math.inf)
            if not any(
                b[4] >= large and b[0] < box[2] and box[0] < b[2] and b[1] < box[3] and box[1] < b[3] for b in taken
            ):
                taken.append(box)
                yield number, x, y
                break


def _bounds(marks: list[Mark], placed: list[tuple[int, float, float]]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of nodes and labels, with a margin."""
    if not marks:
        return 0, 0, _NARROWEST, 40
    halves = [(x, _width(marks[number].label) / 2) for number, x, _ in placed]
    return (
        min([m.x - m.reach for m in marks] + [x - half for x, half in halves]) - 14,
        min(m.y - m.reach for m in marks) - _MARGIN,
        max([m.x + m.reach for m in marks] + [x + half for x, half in halves]) + 14,
        max(m.y + m.reach for m in marks) + _MARGIN,
    )


def _width(text: str) -> float:
    """Return about how wide a label is: characters of East Asian scripts are as wide as high."""
    return sum(_SIZE if unicodedata.east_asian_width(char) in "WF" else _SIZE * 0.55 for char in text)


def _style(drawing: Drawing, theme: str) -> str:
    if theme == "auto":
        return f"{_rules(drawing, 'light')}@media (prefers-color-scheme: dark){{{_rules(drawing, 'dark')}}}"
    return _rules(drawing, theme)


def _rules(drawing: Drawing, theme: str) -> str:
    ground, ink, soft = _GROUND[theme]
    bold = 0.62 if len(drawing.links) <= 300 else 0.4 if len(drawing.links) <= 900 else 0.25
    rules = [
        f"text{{font-family:{_FONT}}}",
        f".ground{{fill:{ground}}}.title{{font-size:19px;font-weight:600;fill:{ink}}}",
        f".note{{font-size:12px;fill:{soft}}}.cut{{font-weight:600;fill:{ink}}}",
        f".label{{font-size:{_SIZE}px;fill:{ink};text-anchor:middle}}.label.aside{{fill:{soft}}}",
        f".label{{paint-order:stroke;stroke:{ground};stroke-width:3px;stroke-linejoin:round}}",
        f".rank{{font-size:12px;font-weight:700;fill:{ground};text-anchor:middle}}",
        f".node{{stroke:{ground};stroke-width:2}}.node.aside{{fill-opacity:.55}}.ring{{fill:none;stroke-width:2.5}}",
        f".link{{fill:none;stroke-opacity:{bold};stroke-linecap:round}}",
    ]
    for number, kind in enumerate(drawing.kinds.values()):
        colour = getattr(kind, theme)
        rules.append(f".k{number}{{fill:{colour}}}.o{number}{{stroke:{colour}}}")
    for number, look in enumerate(drawing.relations.values()):
        colour = getattr(look, theme)
        dash = f"stroke-dasharray:{look.dash.replace(' ', ',')};" if look.dash else ""
        rules.append(f".r{number}{{stroke:{colour};{dash}stroke-width:{look.width}}}.a{number}{{fill:{colour}}}")
    return "".join(rules)


def _markers(drawing: Drawing) -> str:
    arrows = "".join(
        f'<marker id="a{number}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path class="a{number}" d="M0 1L7.5 4L0 7Z"/></marker>'
        for number in range(len(drawing.relations))
    )
    return f"<defs>{arrows}</defs>"


def _links(drawing: Drawing) -> Iterator[str]:
    numbers = {name: number for number, name in enumerate(drawing.relations)}
    for source, target, link in drawing.links:
        number = numbers[link.relation]
        path = _path(drawing.marks[source], drawing.marks[target], link.relation)
        yield f'<path class="link r{number}" marker-end="url(#a{number})" d="{path}"/>'


def _path(start: Mark, end: Mark, relation: str) -> str:
    """Return a gently bent line from the rim of one node to that of another, a loop if they are the same."""
    if start is end:
        x, y, r = start.x, start.y - start.radius, start.radius
        return f"M{x - 4:.1f} {y:.1f}c-{r:.1f}-{1.6 * r:.1f} {r + 8:.1f}-{1.6 * r:.1f} 8 -1"
    dx, dy = end.x - start.x, end.y - start.y
    far = math.hypot(dx, dy) or 1.0
    bend = min(0.17 * far, 44) if relation == SUPPORTS else min(0.07 * far, 18)
    mx, my = (start.x + end.x) / 2 - dy / far * bend, (start.y + end.y) / 2 + dx / far * bend
    x0, y0 = _towards(start.x, start.y, mx, my, start.reach + 1)
    x1, y1 = _towards(end.x, end.y, mx, my, end.reach + 3)
    return f"M{x0:.1f} {y0:.1f}Q{mx:.1f} {my:.1f} {x1:.1f} {y1:.1f}"


def _towards(x: float, y: float, to_x: float, to_y: float, distance: float) -> tuple[float, float]:
    far = math.hypot(to_x - x, to_y - y) or 1.0
    return x + (to_x - x) / far * distance, y + (to_y - y) / far * distance


def _mark(mark: Mark, drawing: Drawing) -> str:
    number = list(drawing.kinds).index(mark.node.kind)
    name = f"{mark.node.kind} {mark.node.id}: {one_line(mark.node.text or mark.label, 300)}"
    inside = f'<path class="node k{number}{" aside" if mark.aside else ""}" d="{mark.outline}"/>'
    if mark.reach > mark.radius:
        inside = f'<circle class="ring o{number}" r="{mark.radius + 5:.1f}"/>' + inside
    if mark.rank:
        inside += f'<text class="rank" y="4.2">{mark.rank}</text>'
    return f'<g transform="translate({mark.x} {mark.y})"><title>{_text(name)}</title>{inside}</g>'


def _legend(drawing: Drawing, width: float) -> Iterator[list[tuple[float, str]]]:
    """Yield rows of entries with where they begin, first the kinds, then the relations."""
    kinds = [
        (f"{name} {drawing.kind_counts[name]:,}", f'<path class="k{number}" d="{outline(kind.shape, 6)}"/>', 14)
        for number, (name, kind) in enumerate(drawing.kinds.items())
    ]
    relations = [
        (f"{name} {drawing.relation_counts[name]:,}", f'<path class="link r{number}" d="M-8 0H20"/>', 28)
        for number, name in enumerate(drawing.relations)
    ]
    for entries in (kinds, relations):
        x = 32.0
        row: list[tuple[float, str]] = []
        for name, icon, room in entries:
            name = one_line(name, 48)  # noqa: PLW2901
            needed = room + _width(name) * 1.1 + 22
            if row and x + needed > width:
                yield row
                x, row = 32.0, []
            row.append((x, f'{icon}<text class="note" x="{room - 2}" y="4">{_text(name)}</text>'))
            x += needed
        if row:
            yield row


def _text(value: str) -> str:
    return escape(_INVALID.sub("\ufffd", value))


def _attribute(value: str) -> str:
    return quoteattr(_INVALID.sub("\ufffd", value))
