"""Figures of several rounds: the middle with the least and the most, and ratios between two systems."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Spread", "ratio", "spread"]


@dataclass(frozen=True)
class Spread:
    """The least, the median and the most of some figures."""

    least: float
    middle: float
    most: float


def spread(figures: Sequence[float]) -> Spread:
    """Return the least, the median and the most of *figures*."""
    return Spread(min(figures), statistics.median(figures), max(figures))


def ratio(figures: Sequence[float], reference: Sequence[float], *, more_is_better: bool) -> Spread:
    """Return how many times better *figures* are than the *reference*: above 1 is better, whatever is measured.

    Rounds are compared one by one, as what slows a machine slows both in the same round. What was measured once, or in
    another number of rounds, is compared by its median.
    """
    if len(figures) != len(reference):
        figures, reference = [statistics.median(figures)], [statistics.median(reference)]
    pairs = zip(figures, reference, strict=True)
    return spread([one / other if more_is_better else other / one for one, other in pairs])
