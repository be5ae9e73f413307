"""What a notebook shows for a memory and for the hits of a search: tables without script, and every text escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..errors import MemoryGraphError
from .drawing import one_line
from .looks import kinds_of, outline, relations_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..hits import Hit, Hits
    from ..memory_graph import MemoryGraph

__all__ = ["hits_table", "memory_card"]

_TEXT = 400  # characters of a hit's text that the table shows
_SOFT = "opacity:.65;font-size:90%"
_CELL = "text-align:left;vertical-align:top;padding:4px 12px 4px 0"


def hits_table(hits: Hits) -> str:
    """Return hits as a table: what was found, where it comes from, and why."""
    rows = "".join(_row(rank, hit) for rank, hit in enumerate(hits, 1))
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in ("", "score", "what was found", "why"))
    legs = f"; legs: {escape(', '.join(hits.legs))}" if hits.legs else ""
    skipped = "".join(
        f'<div style="{_SOFT}">{escape(leg)} did not run: {escape(reason)}</div>'
        for leg, reason in hits.skipped.items()
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if len(hits) else ""
    return f'<div><div style="{_SOFT}">{len(hits)} hit{"s" * (len(hits) != 1)}{legs}</div>{table}{skipped}</div>'


def memory_card(memory: MemoryGraph) -> str:
    """Return what a memory holds; of one that cannot be read, the reason."""
    try:
        stats = memory.stats()
    except MemoryGraphError as exc:
        return f"<div><code>{escape(repr(memory))}</code><div>{escape(str(exc))}</div></div>"
    facts = {
        "holds": f"{stats.nodes:,} node{'s' * (stats.nodes != 1)}, {stats.edges:,} link{'s' * (stats.edges != 1)}",
        "store": f"{stats.storage_backend}, {stats.bytes / 1e6:,.2f} MB",
        "namespace": stats.namespace,
        "vectors": f"{sum(stats.vectors.values()):,} in the index {stats.vector_backend!r}"
        + (f", by {stats.embedder!r} ({stats.dim} numbers)" if stats.embedder else ""),
    }
    if stats.unembedded:
        facts["without a vector"] = f"{stats.unembedded:,} texts"
    rows = "".join(
        f'<tr><th style="{_CELL}">{name}</th><td style="{_CELL}">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return (
        f"<div><strong><code>{escape(repr(memory))}</code></strong><table><tbody>{rows}</tbody></table>"
        f"{_kinds(stats.kinds)}{_relations(stats.relations)}"
        f'<div style="{_SOFT}"><code>memory.show()</code> draws it.</div></div>'
    )


def _row(rank: int, hit: Hit) -> str:
    text = escape(one_line(hit.text, _TEXT)) or f"<code>{escape(hit.id)}</code>"
    width = max(2, min(100, round(100 * hit.score)))
    bar = (
        f'<div style="width:64px;height:6px;border-radius:3px;background:#8883">'
        f'<div style="width:{width}%;height:6px;border-radius:3px;background:#0072b2"></div></div>'
    )
    found = f'<div dir="auto" style="max-width:52em;white-space:normal">{text}</div>'
    found += f'<div style="{_SOFT}">{escape(hit.citation)}</div>'
    cells = (f"{rank}", f"{hit.score:.3f}{bar}", found, _why(hit))
    return "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"


def _why(hit: Hit) -> str:
    lines = [", ".join(f"{leg} {amount:.2f}" for leg, amount in hit.why.legs.items() if abs(amount) >= 0.005)]
    if hit.why.words:
        lines.append(f"words: {', '.join(hit.why.words)}")
    lines += [f"{step.relation} {step.id} {step.amount:+.2f}" for step in hit.why.path]
    return "".join(f'<div style="white-space:normal;{_SOFT}">{escape(line)}</div>' for line in lines if line)


def _kinds(counts: Mapping[str, int]) -> str:
    return _chips(
        (
            f'<svg width="14" height="14" viewBox="-8 -8 16 16" style="vertical-align:-2px"><path fill="{look.light}" '
            f'd="{outline(look.shape, 6.5)}"/></svg> {escape(name)} {counts[name]:,}'
            for name, look in kinds_of(counts).items()
        )
    )


def _relations(counts: Mapping[str, int]) -> str:
    return _chips(
        (
            f'<svg width="26" height="10" viewBox="0 0 26 10"><path d="M1 5H25" stroke="{look.light}" '
            f'stroke-width="{look.width}" stroke-dasharray="{look.dash}"/></svg> {escape(name)} {counts[name]:,}'
            for name, look in relations_of(counts).items()
        )
    )


def _chips(chips: Iterable[str]) -> str:
    return (
        "<div>"
        + "".join(f'<span style="margin-right:14px;white-space:nowrap">{chip}</span>' for chip in chips)
        + "</div>"
    )
