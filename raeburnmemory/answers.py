"""From the best candidates of a ranking to hits: who said it, in answer to what, and why it was found.

A search may be asked for a hundred hits of which three are looked at, so each hit is made when somebody looks at it.
What it is made of is taken when the search ends: later changes of the memory do not reach it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import compress
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .hits import Exchange, Hit, Step, Why
from .nodes import FRAGMENT, PROMPT, RESPONDED_WITH, RESPONSE
from .passages import speaker
from .ranking import about

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from .corpus import Corpus
    from .evidence import Evidence
    from .hits import Place
    from .nodes import Node
    from .ranking import Ranking

    Numbers = NDArray[np.integer[Any]]

__all__ = ["Answers", "around", "named"]

_MENTIONED = 0.001  # what adds less to a score is not worth a word


class Answers(Sequence[Hit]):
    """Hits for the *chosen* places of a ranking, each made when somebody looks at it.

    *folded* are the places of near-copies of some; *read* gives the nodes at some rows, *placed* where fragments stand.
    Who is not there is no hit.
    """

    def __init__(
        self,
        corpus: Corpus,
        ranking: Ranking,
        evidence: Evidence,
        chosen: Sequence[int],
        folded: Mapping[int, Sequence[int]],
        read: Callable[[list[int]], Mapping[int, Node]],
        placed: Callable[[Sequence[Node]], Mapping[str, Place]],
    ) -> None:
        numbers = ranking.numbers[chosen]
        found = numbers.tolist()
        agents, sessions = corpus.agents[numbers].tolist(), corpus.sessions[numbers].tolist()
        exchanges = around(corpus, numbers)
        wanted = {*found, *agents, *(one for prompt, answers in exchanges for one in (prompt, *answers))}
        wanted.discard(-1)
        self._rows = dict(zip(wanted, corpus.rows[list(wanted)].tolist(), strict=True))
        self._nodes, self._ids = read(list(self._rows.values())), corpus.ids
        fragment = corpus.code(FRAGMENT)
        fragments = [] if fragment < 0 else numbers[corpus.kinds[numbers] == fragment].tolist()
        told = [node for one in fragments if (node := self._node(one)) is not None]
        self._places = placed(told) if told else {}
        reasons = _Reasons(ranking, evidence, chosen, corpus)
        scores = ranking.scores[chosen].astype(np.float64).clip(0, 1).round(6).tolist()
        similar = evidence.similar(numbers).astype(np.float64).round(6).tolist()
        shares = evidence.shares(numbers)
        copies = [[corpus.ids[ranking.numbers[one]] for one in folded.get(place, ())] for place in chosen]
        parts = zip(found, scores, similar, shares, agents, sessions, exchanges, copies, strict=True)
        self._parts = [(at, *some) for at, some in enumerate(parts) if self._rows[some[0]] in self._nodes]
        self._reasons = reasons
        self._made: dict[int, Hit] = {}

    @property
    def ids(self) -> list[str]:
        """The ids of the hits."""
        return [self._ids[number] for _, number, *_ in self._parts]

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        found = self._made.get(place)
        if found is None:
            found = self._made.setdefault(place, self._hit(*self._parts[place]))
        return found

    def _hit(
        self,
        at: int,
        number: int,
        score: float,
        similar: float,
        share: float | None,
        agent: int,
        session: int,
        exchange: tuple[int, Sequence[int]],
        copies: Sequence[str],
    ) -> Hit:
        node, (prompt, answers) = self._nodes[self._rows[number]], exchange
        return Hit(
            node,
            score,
            None if math.isnan(similar) else similar,
            share,
            self._reasons.why(at),
            named(node, self._node(agent)),
            self._ids[session] if session >= 0 else None,
            Exchange(self._node(prompt), tuple([one for some in answers if (one := self._node(some)) is not None]))
            if node.kind in {PROMPT, RESPONSE}
            else None,
            tuple(copies),
            self._places.get(node.id),
        )

    def _node(self, number: int) -> Node | None:
        return self._nodes.get(self._rows[number]) if number >= 0 else None


def around(corpus: Corpus, numbers: Numbers) -> list[tuple[int, Sequence[int]]]:
    """Return, for each of some nodes, the prompt of its exchange and the responses; -1 for no prompt."""
    asked = corpus.asked[numbers]
    prompts = np.where((asked < 0) & (corpus.kinds[numbers] == corpus.code(PROMPT)), numbers, asked).tolist()
    return [
        (prompt, tuple(corpus.answers_to(prompt))) if prompt >= 0 else (-1, (number,))
        for prompt, number in zip(prompts, numbers.tolist(), strict=True)
    ]


def named(node: Node, agent: Node | None) -> str | None:
    """Return who said it, by name: its own, that of the agent, or the role."""
    name = speaker(node)
    if name is None and agent is not None:
        given = agent.attributes.get("name")
        name = given if isinstance(given, str) and given else agent.id
    return name or {PROMPT: "user", RESPONSE: "assistant"}.get(node.kind)


class _Reasons:
    """Why the *chosen* places of a ranking were found."""

    def __init__(self, ranking: Ranking, evidence: Evidence, chosen: Sequence[int], corpus: Corpus) -> None:
        numbers, parts = ranking.numbers[chosen], ranking.parts[:, chosen].astype(np.float64)
        self._names, by_leg, supporting, by_relation = _grouped(tuple(ranking.names))
        self._ids = corpus.ids
        # As lists, because looking up one number in an array takes longer than all of the rest.
        self._legs: list[list[float]] = (by_leg @ parts).round(6).T.tolist()
        self._written = evidence.question.written if evidence.question is not None else []
        self._held = evidence.words_in(numbers).T.tolist()
        parts[np.abs(parts) < _MENTIONED] = 0
        # For each relation how much came over it from which node.
        self._support: list[tuple[list[str], list[int], list[float]]] = []
        for relation, together in zip(supporting, by_relation @ parts, strict=True):
            amounts = together
            if not amounts.any():
                continue
            if relation == "linked":
                relations, others = _best_linked(evidence, corpus, numbers, amounts)
            else:
                relations, others = [relation] * len(numbers), _neighbours(corpus, numbers, relation)
                amounts = np.where(others >= 0, amounts, 0)
            self._support.append((relations, others.tolist(), amounts.tolist()))

    def why(self, at: int) -> Why:
        """Return the reasons of one."""
        if not self._names:
            return Why()
        steps = [
            (amounts[at], relations[at], others[at]) for relations, others, amounts in self._support if amounts[at]
        ]
        steps.sort(key=lambda step: -abs(step[0]))
        return Why(
            dict(zip(self._names, self._legs[at], strict=True)),
            tuple(compress(self._written, self._held[at])),
            tuple(Step(relation, self._ids[other], round(amount, 6)) for amount, relation, other in steps),
        )


@cache
def _grouped(names: tuple[str, ...]) -> tuple[list[str], NDArray[np.float64], list[str], NDArray[np.float64]]:
    """Return which legs, and which relations, the parts of a score called *names* are of, each with a table of 0 and 1.

    A table times the parts is the sum of those of each leg or relation. There are few sets of names: one for each
    choice of legs and a few more.
    """
    parts = [about(name) for name in names]
    legs = list(dict.fromkeys(one.leg for one in parts))
    relations = list(dict.fromkeys(one.relation for one in parts if one.relation is not None))
    by_leg = [[float(one.leg == leg) for one in parts] for leg in legs]
    by_relation = [[float(one.relation == relation) for one in parts] for relation in relations]
    return legs, _table(by_leg, len(parts)), relations, _table(by_relation, len(parts))


def _table(rows: list[list[float]], width: int) -> NDArray[np.float64]:
    return np.array(rows, np.float64).reshape(len(rows), width)


def _best_linked(
    evidence: Evidence, corpus: Corpus, numbers: Numbers, amounts: NDArray[np.float64]
) -> tuple[list[str], Numbers]:
    """Return the relation to, and the number of, what is linked to each and supports it most."""
    near, words = evidence.near(), evidence.scaled(evidence.words)
    relations, others = [""] * len(numbers), np.full(len(numbers), -1)
    for place in np.flatnonzero(amounts).tolist():
        links = list(corpus.linked[int(numbers[place])])
        ends = np.array([other for other, _ in links])
        others[place], relations[place] = links[int(np.argmax(np.maximum(near(ends), words(ends))))]
    return relations, others


def _neighbours(corpus: Corpus, numbers: Numbers, relation: str) -> Numbers:
    """Return the nodes that support others over *relation*, -1 for none."""
    if relation == "before previous":
        previous = corpus.previous[numbers]
        return np.where(previous >= 0, corpus.previous[previous], -1)
    if relation == "supersedes":
        return np.array(
            [
                int(corpus.newer[number])
                if corpus.newer[number] >= 0
                else next((other for other, _ in corpus.linked.get(number, ()) if corpus.newer[other] == number), -1)
                for number in numbers.tolist()
            ],
            np.int64,
        )
    columns = {
        "previous": corpus.previous,
        "next": corpus.following,
        "session": corpus.sessions,
        RESPONDED_WITH: corpus.answer,
    }
    return columns[relation][numbers]
