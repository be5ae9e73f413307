"""Fitting the weights of `recall` to questions of one's own.

Every candidate of a question has observations, and its score is their weighted sum. The weights are fitted so that the
expected candidates score above the others: softmax regression over the candidates of each question. Three things keep
it from learning its few questions by heart. Each weight is drawn to its present value, as by a normal distribution
around that (so that with few questions little moves, and with many the questions decide); only observations that have
a weight already take part; and a weight is never negative. The sum of the weights of a kind of text stays as it is,
because only proportions matter.

What the fit is worth is measured on questions that it has not seen: the questions are dealt into five parts, and each
part is ranked with weights fitted on the four others. Only if that is better than the present weights by more than
chance explains are the new ones taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import InvalidInput
from .evaluate import Figure, Question, Searchable, interval, measures, questions_from
from .ranking import HEIGHT, KINDS, OBSERVED, SELDOM, Weights, rank, total_of
from .recall import Wanted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .ranking import Observations

    Observe = Callable[[str, Wanted], tuple[list[str], Observations]]

__all__ = ["FEWEST", "Tuning", "fit", "tune"]

FEWEST = 20
"""With fewer questions nothing is fitted: what they would teach is chance."""

_HITS = 10
_PARTS = 5
_NDCG = "ndcg@10"
_SPREAD = 0.25  # how far a weight is expected to be from its present value
_FILTERS = {"kinds", "session", "agent", "speaker", "since", "until", "where", "legs", "now"}
_ROUNDS = 3  # of fitting the weights and the temperature in turn
_STEPS = 300
_Z = 1.959964  # of the normal distribution, 95 % lie within as many standard deviations


@dataclass(frozen=True)
class Tuning:
    """What fitting came to.

    `before` are the figures of the present weights, `after` those of fitted ones on questions that these have not
    seen, and `change` is how much nDCG@10 gained by that, with its 95 % interval (normal, over the differences of the
    questions). `weights` are what to use: fitted on all questions, or, if `kept`, the present ones; `reason` says why.
    """

    questions: int
    before: Mapping[str, Figure]
    after: Mapping[str, Figure]
    change: Figure
    weights: Weights
    kept: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "questions": self.questions,
            "before": {name: figure._asdict() for name, figure in self.before.items()},
            "after": {name: figure._asdict() for name, figure in self.after.items()},
            "change": self.change._asdict(),
            "weights": self.weights.to_dict(),
            "kept": self.kept,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        widest = max(map(len, self.before))
        lines = [f"{'':{widest}}  {'before':13}  after"]
        lines += [f"{name:{widest}}  {self.before[name]!s:13}  {self.after[name]}" for name in self.before]
        return "\n".join([*lines, self.reason])


class _Case(NamedTuple):
    """A question with its candidates, and which of them were expected."""

    question: Question
    ids: list[str]
    observed: Observations
    right: NDArray[np.bool_]


def tune(memory: Searchable, labelled: Iterable[Any], observe: Observe, present: Weights) -> Tuning:
    """Fit weights to *labelled* questions, as `evaluate` takes them, starting from the *present* ones.

    *observe* gives the candidates of a question; of the options of `recall`, filters, `legs` and `now` have a say in
    them.

    Raises:
        InvalidInput: There are no questions, or one cannot be understood.
        NodeNotFound: Expected ids are not in the memory; the message names them.
    """
    questions = questions_from(labelled, memory)
    for question in questions:
        if other := sorted(set(question.options) - _FILTERS):
            raise InvalidInput(
                f"{other[0]!r} of question {question.text!r} is applied after the weights. Leave it out for tuning."
            )
    cases = [_case(question, observe) for question in questions]
    before = [_measured(case, present) for case in cases]
    if len(cases) < FEWEST:
        return _report(before, before, present, None)
    after: list[dict[str, float]] = [{}] * len(cases)
    for part in range(_PARTS):
        fitted = fit([case for at, case in enumerate(cases) if at % _PARTS != part], present)
        for at in range(part, len(cases), _PARTS):
            after[at] = _measured(cases[at], fitted)
    return _report(before, after, present, lambda: fit(cases, present))


def _case(question: Question, observe: Observe) -> _Case:
    ids, observed = observe(question.text, Wanted(**question.options))
    return _Case(question, ids, observed, np.array([node_id in question.expected for node_id in ids], np.bool_))


def _measured(case: _Case, weights: Weights) -> dict[str, float]:
    order = rank(case.observed, weights).best(_HITS)
    return measures([case.ids[place] for place in order], case.question.expected, _HITS)


def _report(
    before: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
    present: Weights,
    fitted: Callable[[], Weights] | None,
) -> Tuning:
    gains = [new[_NDCG] - old[_NDCG] for old, new in zip(before, after, strict=True)]
    change = _difference(gains)
    kept = fitted is None or change.low <= 0
    shown = f"nDCG@10 changed by {change.value:+.3f} (95 %: {change.low:+.3f} to {change.high:+.3f})"
    if fitted is None:
        reason = f"The present weights are kept: {len(before)} questions teach too little. Bring at least {FEWEST}."
    elif kept:
        reason = (
            f"The present weights are kept: on questions not seen in fitting, {shown}, no more than chance explains."
        )
    else:
        reason = f"The new weights are better: on questions not seen in fitting, {shown}."
    return Tuning(
        questions=len(before),
        before={name: interval([row[name] for row in before]) for name in before[0]},
        after={name: interval([row[name] for row in after]) for name in after[0]},
        change=change,
        weights=present if kept or fitted is None else fitted(),
        kept=kept,
        reason=reason,
    )


def _difference(gains: Sequence[float]) -> Figure:
    mean = math.fsum(gains) / len(gains)
    if len(gains) == 1:
        return Figure(mean, -1.0, 1.0)
    variance = math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
    reach = _Z * math.sqrt(variance / len(gains))
    return Figure(mean, mean - reach, mean + reach)


# --- fitting ----------------------------------------------------------------------------------------------------


def fit(cases: Sequence[_Case], present: Weights) -> Weights:
    """Return the weights under which the expected candidates of *cases* are likeliest, near the *present* ones."""
    taught = [case for case in cases if case.right.any() and not case.right.all()]
    if not taught:
        return present
    problem = _Problem(taught, present)
    weights = problem.start
    for _ in range(_ROUNDS):
        weights = problem.descend(weights, problem.temperature(weights))
    return problem.named(weights)


class _Problem:
    """Softmax regression of which candidates are right on their observations.

    A question loses, for each of its right candidates, the logarithm of the probability that this one is drawn from
    itself and all wrong candidates; its right ones share its voice. The weights of all kinds of texts stand in one
    row; those of a kind that make up its score keep their sum.
    """

    def __init__(self, cases: Sequence[_Case], present: Weights) -> None:
        self._present = present
        names = [(kind, name) for kind in KINDS for name, value in getattr(present, kind).items() if value > 0]
        rows = np.concatenate([_table(case, names, present) for case in cases])
        seen = rows.any(axis=0)  # what is never observed teaches nothing, and keeps its weight
        self._rows = np.ascontiguousarray(rows[:, seen])
        self.names = [names[at] for at in np.flatnonzero(seen).tolist()]
        self.start = np.array([getattr(present, kind)[name] for kind, name in self.names])
        self._whole = [
            np.array([one == kind and OBSERVED[name].sign > 0 and name not in SELDOM for one, name in self.names])
            for kind in KINDS
        ]
        sizes = np.array([len(case.ids) for case in cases])
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._of = np.repeat(np.arange(len(cases)), sizes)
        self._right = np.concatenate([case.right for case in cases])
        rights = np.add.reduceat(self._right.astype(np.float64), self._starts)
        self._voice = 1 / rights[self._of[self._right]]

    def temperature(self, weights: NDArray[np.float64]) -> float:
        """Return by how much scores are best multiplied before they become probabilities."""
        scores, far = self._rows @ weights, self._far(weights)
        return math.exp(_least(lambda log: self._lost(math.exp(log) * scores)[0] + far, math.log(0.5), math.log(200)))

    def loss(self, weights: NDArray[np.float64], temperature: float) -> float:
        """Return what *weights* lose, with what it costs that they are far from where they started."""
        return self._lost(temperature * (self._rows @ weights))[0] + self._far(weights)

    def gradient(self, weights: NDArray[np.float64], temperature: float) -> tuple[float, NDArray[np.float64]]:
        """Return the loss and its gradient."""
        lost, slope = self._lost(temperature * (self._rows @ weights))
        pulled = (weights - self.start) / _SPREAD**2
        return lost + self._far(weights), temperature * (slope @ self._rows) + pulled

    def _far(self, weights: NDArray[np.float64]) -> float:
        return float(((weights - self.start) ** 2).sum()) / (2 * _SPREAD**2)

    def _lost(self, scores: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return what *scores* lose, and how that changes with each of them."""
        right, of = self._right, self._of
        top = np.maximum.reduceat(scores, self._starts)
        mass = np.where(right, 0.0, np.exp(scores - top[of]))
        wrong = np.add.reduceat(mass, self._starts)
        mine = np.exp(scores[right] - top[of[right]])
        behind = wrong[of[right]] / np.maximum(wrong[of[right]] + mine, 1e-300)  # the probability of a wrong one
        # log(1 + wrong / mine), where neither may vanish
        odds = np.log(np.maximum(wrong[of[right]], 1e-300)) - (scores[right] - top[of[right]])
        lost = float((self._voice * np.logaddexp(0, odds)).sum())
        blame = np.bincount(of[right], self._voice * behind, len(top))
        slope = mass * (blame / np.maximum(wrong, 1e-300))[of]
        slope[right] -= self._voice * behind
        return lost, slope

    def descend(self, weights: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
        """Return the best weights: projected gradient steps with momentum (Beck and Teboulle, FISTA, 2009)."""
        step, momentum, ahead = 1.0, 1.0, weights
        value = self.loss(weights, temperature)
        for _ in range(_STEPS):
            there, slope = self.gradient(ahead, temperature)
            while True:
                new = self.project(ahead - step * slope)
                move = new - ahead
                new_value = self.loss(new, temperature)
                if new_value <= there + float(slope @ move) + float(move @ move) / (2 * step) + 1e-12 or step < 1e-12:
                    break
                step /= 2
            if new_value > value:  # momentum carried it past the best: start again from there
                if momentum == 1.0:
                    break
                momentum, ahead = 1.0, weights
                continue
            grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = new + (momentum - 1) / grown * (new - weights)
            done = value - new_value <= 1e-7 * max(abs(value), 1) and momentum > 1.0
            weights, value, momentum = new, new_value, grown
            if done:
                break
        return weights

    def project(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the nearest weights that are allowed: none negative, and the sums of each kind as they were."""
        allowed = np.maximum(weights, 0)
        for whole in self._whole:
            if whole.any():
                allowed[whole] = _on_simplex(weights[whole], float(self.start[whole].sum()))
        return allowed

    def named(self, weights: NDArray[np.float64]) -> Weights:
        """Return the row of weights as `Weights`, rounded to three places."""
        fitted: dict[str, dict[str, float]] = {
            one.name: dict(getattr(self._present, one.name)) for one in fields(Weights)
        }
        for (kind, name), value in zip(self.names, weights.tolist(), strict=True):
            fitted[kind][name] = round(value, 3)
        return Weights(**fitted)


def _table(case: _Case, names: Sequence[tuple[str, str]], present: Weights) -> NDArray[np.float64]:
    """Return the observations of the candidates as they enter their scores, one column per weight."""
    observed = case.observed
    table = np.zeros((len(case.ids), len(names)))
    for column, (kind, name) in enumerate(names):
        if name in observed.values:
            total = total_of(getattr(present, kind), timed=observed.timed) or 1.0
            mine = observed.kinds == KINDS.index(kind)
            share = HEIGHT[KINDS.index(kind)] * OBSERVED[name].sign / total
            table[mine, column] = share * observed.values[name][mine]
    return table


def _on_simplex(values: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Return the nearest values that are not negative and add up to *total* (Duchi et al., 2008)."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(values) + 1)
    least: float = excess[np.flatnonzero(falling > excess)[-1]]
    return np.maximum(values - least, 0)


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function of one valley is least, by golden sections."""
    ratio = (math.sqrt(5) - 1) / 2
    one, two = high - ratio * (high - low), low + ratio * (high - low)
    at_one, at_two = function(one), function(two)
    for _ in range(30):
        if at_one < at_two:
            high, two, at_two = two, one, at_one
            one = high - ratio * (high - low)
            at_one = function(one)
        else:
            low, one, at_one = one, two, at_two
            two = low + ratio * (high - low)
            at_two = function(two)
    return (low + high) / 2
