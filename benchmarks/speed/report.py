"""A run as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .catalogue import SYSTEMS
from .goals import judge
from .results import MEASURES, Result, Results
from .spread import Spread, ratio, spread

__all__ = ["as_json", "as_markdown", "summary"]


def as_json(results: Results, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that was measured as plain data; *about* is the machine, the options and the versions."""
    return {
        **about,
        "results": [one.to_dict() for one in results],
        "goals": {by: [asdict(one) for one in judge(results, cpu=by == "cpu")] for by in ("clock", "cpu")},
    }


def as_markdown(results: Results, about: Mapping[str, Any], reference: str) -> str:
    """Return tables: all medians, every measure with ratios to the system called *reference*, and the goals."""
    parts = ["# Speed", "", _about(about, reference)]
    for size in results.sizes():
        parts += ["", f"## {size:,} rows", "", *summary(results, size, about["options"]["systems"])]
    for measure, what in MEASURES.items():
        rows = [one for one in results if one.measure == measure]
        rows.sort(key=lambda one: (one.size, about["options"]["systems"].index(one.system)))
        if rows:
            unit = f" ({what.unit})" if what.unit else ""
            parts += ["", f"## {what.title[0].upper()}{what.title[1:]}{unit}", "", *_table(results, rows, reference)]
    parts += ["", "## Goals", "", *_goals(results)]
    return "\n".join(parts) + "\n"


def _about(about: Mapping[str, Any], reference: str) -> str:
    versions = {
        f"{package} {version}" for found in about.get("versions", {}).values() for package, version in found.items()
    }
    return (
        f"{about['machine']}, load {' to '.join(about['load'])}; {about['workload']} vectors of {about['dim']} "
        f"numbers; medians of "
        f"{about['options']['rounds']} rounds with the least and the most; ratios above 1 are better than "
        f"{reference}, round by round. Versions: {', '.join(sorted(versions))}."
    )


def summary(results: Results, size: int, systems: Sequence[str]) -> list[str]:
    """Return the lines of a table of all medians at one size: by the clock, and behind it in CPU time."""
    lines = [_line(["", *systems]), _line("---" for _ in range(len(systems) + 1))]
    for measure, what in MEASURES.items():
        found = [results.get(size, system, measure) for system in systems]
        if any(found) and measure != "shapes":
            lines.append(_line([f"{measure}, {what.unit}", *(_middles(one) for one in found)]))
    return lines


def _middles(one: Result | None) -> str:
    if one is None or not one.figures:
        return "—"
    cpu = f", CPU {_number(spread(one.cpu_ms).middle)} ms" if one.cpu_ms else ""
    recall = f", recall {one.recall:.3f}" if one.recall is not None and one.recall < 0.9995 else ""
    return f"{_number(spread(one.figures).middle)}{cpu}{recall}{' (failed)' if one.reason else ''}"


def _table(results: Results, rows: Sequence[Result], reference: str) -> list[str]:
    measure = rows[0].measure
    if measure == "shapes":
        return _shapes(rows)
    extra = {"add": "syncs per add", "vector": "recall@10", "session": "recall@10", "time": "recall@10"}.get(measure)
    timed = any(one.cpu_ms for one in rows)
    heads = ["rows", "system", "durability"] if measure in {"add", "writers"} else ["rows", "system"]
    heads += [
        MEASURES[measure].unit,
        *(["CPU ms"] if timed else []),
        *([extra] if extra else []),
        f"x {reference}",
        "note",
    ]
    lines = [_line(heads), _line("---" for _ in heads)]
    for one in rows:
        cells = [f"{one.size:,}", one.system]
        if measure in {"add", "writers"}:
            cells.append(SYSTEMS[one.system].durability)
        cells.append(_shown(spread(one.figures)) if one.figures else "—")
        if timed:
            cells.append(_number(spread(one.cpu_ms).middle) if one.cpu_ms else "—")
        if extra == "recall@10":
            cells.append("—" if one.recall is None else f"{one.recall:.3f}")
        elif extra:
            cells.append("not measured" if one.syncs is None else f"{one.syncs:.2f}")
        other = results.get(one.size, reference, measure)
        if one.figures and other is not None and other.figures:
            better = ratio(one.figures, other.figures, more_is_better=MEASURES[measure].more_is_better)
            cells.append("1" if other is one else _shown(better))
        else:
            cells.append("—")
        cells.append("; ".join(filter(None, [one.note, one.reason])))
        lines.append(_line(cells))
    return lines


def _shapes(rows: Sequence[Result]) -> list[str]:
    names = list(dict.fromkeys(name for one in rows for name in one.detail))
    lines = [_line(["rows", "system", *names]), _line("---" for _ in range(len(names) + 2))]
    for one in rows:
        found = [one.detail.get(name, {}) for name in names]
        cells = [
            f"{each['recall']:.3f} (least {each['least']:.1f})" if "recall" in each else each.get("reason", one.reason)
            for each in found
        ]
        lines.append(_line([f"{one.size:,}", one.system, *cells]))
    return lines


def _goals(results: Results) -> list[str]:
    heads = ["measure", "rows", "system", "at least", "aim", "at", "against", "by the clock", "", "by CPU time", ""]
    lines = [_line(heads), _line("---" for _ in heads)]
    for wall, cpu in zip(judge(results), judge(results, cpu=True), strict=True):
        goal = wall.goal
        turned = goal.growth or not goal.peers
        unit = " x" if goal.growth or goal.peers else f" {MEASURES[goal.measure].unit}"
        bounds = [f"{'≤ ' if turned else ''}{bound:g}{unit}" for bound in (goal.at_least, goal.aim)]
        found = []
        for one in (cpu if goal.growth else wall, cpu):
            found += ["—" if one.figure is None else f"{_shown(one.figure)}{unit}", one.said]
        against = " / ".join(dict.fromkeys(one.peer for one in (wall, cpu) if one.peer)) or "—"
        name = f"{goal.measure}, growth" if goal.growth else goal.measure
        lines.append(_line([name, f"{goal.size:,}", goal.system, *bounds, f"{wall.size:,}", against, *found]))
    return lines


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def _shown(one: Spread) -> str:
    if one.least == one.most:
        return _number(one.middle)
    return f"{_number(one.middle)} ({_number(one.least)} to {_number(one.most)})"


def _number(value: float) -> str:
    """Return it with three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
