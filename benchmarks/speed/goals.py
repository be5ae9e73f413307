"""What this memory is meant to reach, as ratios to the best peer of the same kind in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .results import MEASURES, Result, Results
from .spread import Spread, ratio, spread

__all__ = ["GOALS", "Goal", "Judged", "judge"]

MILLION = 1_000_000
EXACT = ("raw", "qdrant-edge", "sqlite-vec", "lancedb")
APPROXIMATE = ("chromadb", "chromadb-wide", "qdrant-edge-hnsw", "qdrant-edge-wide")


@dataclass(frozen=True)
class Goal:
    """One aim: a measure at a size, against the best of some peers, or against a figure if there are none.

    Of the peers those count that find as much as the goal asks for, as long as there is one. A ratio is to be at least
    so much; a figure, or a growth, at most.
    """

    measure: str
    size: int
    system: str
    at_least: float
    aim: float
    peers: Sequence[str] = ()
    recall: float = 0.0
    growth: bool = False


@dataclass(frozen=True)
class Judged:
    """What became of a goal, by the clock or by CPU time. Without a `figure`, `said` tells why."""

    goal: Goal
    size: int
    peer: str
    figure: Spread | None
    said: str


GOALS = [
    Goal("add", 100_000, "ours-sqlite", 1.5, 2, ("sqlite-vec",)),
    Goal("add", 100_000, "ours-json", 2, 3, ("sqlite-vec",)),
    Goal("add", 100_000, "ours-sqlite-process", 0.6, 1, ("qdrant-edge",)),
    Goal("add", 100_000, "ours-json-process", 1, 2, ("qdrant-edge",)),
    Goal("add", MILLION, "ours-sqlite", 1.3, 1.1, growth=True),
    Goal("add", 100_000, "ours-json", 1.3, 1.1, growth=True),
    Goal("bulk", 100_000, "ours-sqlite", 0.8, 1.2, ("lancedb", "sqlite-vec")),
    Goal("vector", 100_000, "ours-sqlite", 4, 8, EXACT, recall=0.995),
    Goal("vector", 100_000, "ours-sqlite", 2, 4, APPROXIMATE, recall=0.995),
    Goal("vector", MILLION, "ours-sqlite", 8, 12, ("raw",), recall=0.99),
    Goal("session", 100_000, "ours-sqlite", 2, 4, ("qdrant-edge",), recall=1),
    Goal("session", MILLION, "ours-sqlite", 2, 4, ("qdrant-edge",), recall=1),
    Goal("time", 100_000, "ours-sqlite", 1.3, 2, ("qdrant-edge",)),
    Goal("time", MILLION, "ours-sqlite", 3, 5, ("qdrant-edge",)),
    Goal("text", 100_000, "ours-sqlite", 8, 12, ("raw", "sqlite-vec")),
    Goal("text", 100_000, "ours-sqlite", 0.8, 1, ("qdrant-edge",)),
    Goal("text", MILLION, "ours-sqlite", 8, 12, ("raw", "sqlite-vec")),
    Goal("text", MILLION, "ours-sqlite", 0.8, 1, ("qdrant-edge",)),
    Goal("hybrid", 100_000, "ours-sqlite", 10, 5),
    Goal("hybrid", MILLION, "ours-sqlite", 40, 20),
    Goal("open", 100_000, "ours-json", 2, 2),
    Goal("open", MILLION, "ours-sqlite", 2, 2, ("sqlite-vec",)),
    Goal("open", MILLION, "ours-sqlite", 0.2, 0.2),
    Goal("memory", MILLION, "ours-sqlite", 100, 60),
    Goal("writers", 100_000, "ours-sqlite", 1.2, 1.2, ("sqlite-vec",)),
    Goal("writers", 100_000, "ours-json", 1.6, 1.6, ("sqlite-vec",)),
]


def judge(results: Results, goals: Sequence[Goal] = GOALS, *, cpu: bool = False) -> list[Judged]:
    """Return what became of *goals*, each at its size, or at the largest below it that was measured.

    With *cpu* by CPU time instead of the clock: what a busy machine leaves to judge by, though it knows nothing of
    waiting for the disk.
    """
    return [_judged(results, goal, cpu=cpu) for goal in goals]


def _judged(results: Results, goal: Goal, *, cpu: bool) -> Judged:
    sizes = [size for size in results.sizes() if size <= goal.size]
    size = sizes[-1] if sizes else goal.size
    ours = results.get(size, goal.system, goal.measure)
    if ours is None or not ours.figures or ours.reason:
        return Judged(goal, size, "", None, ours.reason if ours and ours.reason else "not measured")
    if cpu and not ours.cpu_ms:
        return Judged(goal, size, "", None, "takes no time")
    more_is_better = MEASURES[goal.measure].more_is_better and not cpu
    if goal.growth:
        first = results.get(sizes[0], goal.system, goal.measure)
        if len(sizes) < 2 or first is None or not first.cpu_ms:
            return Judged(goal, size, "", None, "measured at one size only")
        figure, peer = ratio(ours.cpu_ms, first.cpu_ms, more_is_better=True), f"CPU at {sizes[0]:,} rows"
    elif not goal.peers:
        figure, peer = spread(_figures(ours, cpu=cpu)), ""
    else:
        found = [one for name in goal.peers if (one := results.get(size, name, goal.measure)) and one.figures]
        found = [one for one in found if not one.reason]
        if not found:
            return Judged(goal, size, ", ".join(goal.peers), None, "no such peer was measured")
        sign = 1 if more_is_better else -1
        found = [one for one in found if one.recall is None or one.recall >= goal.recall] or found
        best = max(found, key=lambda one: sign * spread(_figures(one, cpu=cpu)).middle)
        figure = ratio(_figures(ours, cpu=cpu), _figures(best, cpu=cpu), more_is_better=more_is_better)
        worse = best.recall is not None and best.recall < goal.recall
        peer = f"{best.system} with recall {best.recall:.3f}" if worse else best.system
    there = "" if size == goal.size else f", at {size:,} rows only"
    return Judged(goal, size, peer, figure, _verdict(goal, figure.middle, ours) + there)


def _figures(result: Result, *, cpu: bool) -> list[float]:
    """Return the figures by the clock, or the CPU time: in milliseconds, or in seconds where that is the unit."""
    if not cpu:
        return result.figures
    scale = 1e3 if MEASURES[result.measure].unit == "s" else 1.0
    return [one / scale for one in result.cpu_ms]


def _verdict(goal: Goal, figure: float, ours: Result) -> str:
    wrong = []
    if ours.recall is not None and ours.recall < goal.recall:
        wrong.append(f"recall {ours.recall:.3f} instead of {goal.recall:g}")
    if ours.detail.get("lost"):
        wrong.append(ours.note)
    # Where less is better, both are turned round, so that one comparison does.
    if goal.growth or not goal.peers:
        share, aim = goal.at_least / figure, goal.aim / figure
    else:
        share, aim = figure / goal.at_least, figure / goal.aim
    if share < 1:
        wrong.append(f"by a factor of {1 / share:.3g}")
    if wrong:
        return f"missed: {', '.join(wrong)}"
    return "aim reached" if aim >= 1 else "reached"
