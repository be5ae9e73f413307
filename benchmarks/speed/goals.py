"""What this memory is meant to reach, as ratios to the best peer of the same kind in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .results import MEASURES, Result, Results
from .spread import Spread, ratio, spread

__all__ = ["GOALS", "Goal", "Judged", "judge"]

MILLION = 1_000_000
EXACT = ("raw", "qdrant-edge", "sqlite-vec", "lancedb")
APPROXIMATE = ("chromadb", "qdrant-edge-hnsw")


@dataclass(frozen=True)
class Goal:
    """One aim: a measure at a size, against the best of some peers, or against a figure if there are none.

    A ratio is to be at least so much; a figure, or a growth, at most.
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
    """What became of a goal. Without a `figure`, `said` tells why."""

    goal: Goal
    size: int
    peer: str
    figure: Spread | None
    cpu: float | None
    said: str


GOALS = [
    Goal("add", 100_000, "ours-sqlite", 1.5, 2, ("sqlite-vec",)),
    Goal("add", 100_000, "ours-json", 2, 3, ("sqlite-vec",)),
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


def judge(results: Results, goals: Sequence[Goal] = GOALS) -> list[Judged]:
    """Return what became of *goals*, each at its size, or at the largest below it that was measured."""
    return [_judged(results, goal) for goal in goals]


def _judged(results: Results, goal: Goal) -> Judged:
    sizes = [size for size in results.sizes() if size <= goal.size]
    ours = results.get(sizes[-1], goal.system, goal.measure) if sizes else None
    size = sizes[-1] if sizes else goal.size
    if ours is None or not ours.figures or ours.reason:
        return Judged(goal, size, "", None, None, ours.reason if ours and ours.reason else "not measured")
    cpu = None
    if goal.growth:
        first = results.get(sizes[0], goal.system, goal.measure)
        if len(sizes) < 2 or first is None or not first.cpu_ms:
            return Judged(goal, size, "", None, None, "measured at one size only")
        figure, peer = ratio(ours.cpu_ms, first.cpu_ms, more_is_better=True), f"CPU at {sizes[0]:,} rows"
    elif not goal.peers:
        figure, peer = spread(ours.figures), ""
    else:
        best = _best(results, goal, size)
        if best is None:
            return Judged(goal, size, ", ".join(goal.peers), None, None, "no such peer was measured")
        figure = ratio(ours.figures, best.figures, more_is_better=MEASURES[goal.measure].more_is_better)
        peer = best.system
        if ours.cpu_ms and best.cpu_ms:
            cpu = ratio(ours.cpu_ms, best.cpu_ms, more_is_better=False).middle
    return Judged(goal, size, peer, figure, cpu, _verdict(goal, figure.middle, ours))


def _best(results: Results, goal: Goal, size: int) -> Result | None:
    found = [one for peer in goal.peers if (one := results.get(size, peer, goal.measure)) and one.figures]
    found = [one for one in found if not one.reason]
    if not found:
        return None
    sign = 1 if MEASURES[goal.measure].more_is_better else -1
    return max(found, key=lambda one: sign * spread(one.figures).middle)


def _verdict(goal: Goal, figure: float, ours: Result) -> str:
    # Where less is better, both are turned round, so that one comparison does.
    turned = goal.growth or not goal.peers
    share, aim = (goal.at_least / figure, goal.aim / figure) if turned else (figure / goal.at_least, figure / goal.aim)
    if goal.recall and (ours.recall is None or ours.recall < goal.recall):
        wrong = f"recall {0 if ours.recall is None else ours.recall:.3f} instead of {goal.recall}; "
    elif goal.measure == "writers" and ours.detail.get("lost"):
        wrong = f"{ours.note}; "
    else:
        wrong = ""
    if share < 1:
        return (
            f"{wrong}missed: {1 / share:.1f} times too little"
            if not turned
            else f"{wrong}missed: {1 / share:.1f} times too much"
        )
    if wrong:
        return f"missed: {wrong.rstrip('; ')}"
    return "aim reached" if aim >= 1 else "reached"
