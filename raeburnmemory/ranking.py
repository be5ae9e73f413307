"""How the legs of a search become one score: pure functions over what the legs found.

Every observation of a candidate is a number from 0 to 1, scaled by the best of its kind, and the score is their
weighted sum over the sum of the weights. Reciprocal-rank fusion, the usual hybrid, lost to BM25 alone on
conversations; docs/explanation/recall.md has the picture and what each observation is worth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .corpus import ANSWER, ASKS, DATED, LINKED, NAMED, STANDING
from .errors import InvalidInput
from .evidence import DENSE, FORM, GRAPH, LEXICAL, TIME, Evidence, among
from .nodes import RESPONDED_WITH, SUPERSEDES
from .records import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .corpus import Corpus
    from .index.lexical import Question

    Floats = NDArray[np.float32]
    Numbers = NDArray[np.integer]

__all__ = [
    "HEIGHT",
    "KINDS",
    "OBSERVED",
    "SELDOM",
    "Observations",
    "Ranking",
    "Weights",
    "about",
    "observe",
    "rank",
    "resemblance",
    "total_of",
]


class _Observed(NamedTuple):
    leg: str
    sign: int  # the direction that sense demands: a weight is never negative
    relation: str | None = None  # over which another node supports the candidate


OBSERVED: dict[str, _Observed] = {
    "meaning": _Observed(DENSE, 1),  # cosine: half that of the whole text, half that of its nearest passage
    "words": _Observed(LEXICAL, 1),  # BM25 with related words, made for texts of like length
    "exact_words": _Observed(LEXICAL, 1),  # BM25 of the words themselves, made for texts of very different lengths
    "pairs": _Observed(LEXICAL, 1),  # the share of the question's neighbouring words that are neighbours in the text
    "name": _Observed(LEXICAL, 1),  # the question names the speaker
    "asked": _Observed(GRAPH, 1, "previous"),  # words of the turn before, if that is a question
    "previous_meaning": _Observed(GRAPH, 1, "previous"),
    "before": _Observed(GRAPH, 1, "before previous"),  # words of the turn before the one before
    "next_meaning": _Observed(GRAPH, 1, "next"),
    "session_words": _Observed(GRAPH, 1, "session"),  # the best of its session
    "session": _Observed(GRAPH, 1, "session"),  # BM25 of the session as one text
    "answer_meaning": _Observed(GRAPH, 1, RESPONDED_WITH),  # of the response to it
    "answer_words": _Observed(GRAPH, 1, RESPONDED_WITH),
    "linked": _Observed(GRAPH, 1, "linked"),  # the best of what is linked to it
    "time": _Observed(TIME, 1),  # said at a time that the question names
    "date": _Observed(FORM, 1),  # holds a date or number, and the question asks when or how many
    "question": _Observed(FORM, -1),  # is a question itself
    "length": _Observed(FORM, 1),
    "first": _Observed(FORM, 1),  # opens its session
    "standing": _Observed(FORM, 1),  # a wish for all times ("always show code"), and the question asks for help
}


@dataclass(frozen=True)
class Weights:
    """What each observation weighs, for the three kinds of texts there are.

    `people` is for what named people say, `chat` for the messages of users and assistants, `lone` for texts outside
    any session. Only their proportions matter. Names are those of `raeburnmemory.ranking.OBSERVED`.

    Raises:
        InvalidInput: A name is none of those, or a weight is no number, or below 0.
    """

    people: Mapping[str, float] = field(
        default_factory=lambda: {
            "words": 1.0,
            "meaning": 0.7,
            "pairs": 0.25,
            "name": 0.4,
            "asked": 0.7,
            "previous_meaning": 0.4,
            "before": 0.4,
            "next_meaning": 0.4,
            "session_words": 0.7,
            "session": 0.7,
            "date": 0.4,
            "question": 0.25,
            "length": 0.6,
            "first": 0.2,
            "linked": 0.4,
            "time": 0.8,
        }
    )
    chat: Mapping[str, float] = field(
        default_factory=lambda: {
            "exact_words": 0.7,
            "meaning": 0.9,
            "pairs": 0.4,
            "session_words": 0.5,
            "answer_meaning": 0.25,
            "answer_words": 0.15,
            "standing": 0.7,
            "first": 0.4,
            "linked": 0.4,
            "time": 0.8,
        }
    )
    lone: Mapping[str, float] = field(
        default_factory=lambda: {
            "words": 1.0,
            "exact_words": 0.5,
            "meaning": 1.0,
            "pairs": 0.5,
            "linked": 0.4,
            "time": 0.8,
        }
    )

    def __post_init__(self) -> None:
        for kind in KINDS:
            for name, weight in getattr(self, kind).items():
                if name not in OBSERVED:
                    raise InvalidInput(
                        f"Nothing called {shown(name)} is observed, for {kind}. Choose some of: {', '.join(OBSERVED)}."
                    )
                if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                    raise InvalidInput(
                        f"The weight of {name!r} for {kind} must be a number, 0 or more, not {shown(weight)}."
                    )

    def shares(self, *, timed: bool) -> dict[str, list[float]]:
        """Return what each observation adds to the scores of the three kinds, of those that add anything."""
        return self._timed if timed else self._timeless

    @cached_property
    def _timed(self) -> dict[str, list[float]]:
        return _shares([getattr(self, kind) for kind in KINDS], timed=True)

    @cached_property
    def _timeless(self) -> dict[str, list[float]]:
        return _shares([getattr(self, kind) for kind in KINDS], timed=False)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return the weights as a JSON object."""
        return asdict(self)


RECENCY = "recency"
_AFTERWARDS = {SUPERSEDES: _Observed(GRAPH, 1, SUPERSEDES), RECENCY: _Observed(TIME, 1)}  # on top of observations

SELDOM = frozenset({"standing", "linked"})  # observations that add to the score without being part of its whole

_LENGTH = 40  # words from which a turn is long enough
_APART = 1e-6  # what tells two scores apart that are nothing
_LESS = 0.9  # what is superseded has at most this share of the score of what supersedes it

_ASKS_WHEN = re.compile(
    r"\b(?:when|how (?:many|much|long|old|often|far|tall|big|soon)|"
    r"(?:what|which) (?:date|day|time|year|month|week|age|number|percentage)|"
    r"how .{0,20}\b(?:days|weeks|months|years|hours|minutes))\b",
    re.IGNORECASE,
)
_ASKS_HELP = re.compile(
    r"\b(?:can|could|would|will) you (?:please )?(?:help|suggest|recommend|show|give|explain|tell|write|provide|plan|"
    r"walk|set)|\b(?:suggest|recommend)|\bhelp me\b|\bhow (?:should|can|do|could|would) (?:i|we)\b|"
    r"\bwhat (?:should|are (?:some|good)|is (?:the best|a good)|would you|do you think)|\bwhich .{0,40}\bshould i\b|"
    r"\bany (?:tips|ideas|advice)\b|\bi(?:'m| am) (?:looking|planning|thinking|trying)",
    re.IGNORECASE,
)
_ASKS_BACK = re.compile(
    r"\b(?:did|have|had|has|was|were) (?:i|we|you|it|my|our|the)\b|"
    r"\b(?:i|we|you|we've|i've|you've) (?:said|told|mention\w*|discuss\w*|talk\w*|brought|ask\w*|recommend\w*|"
    r"suggest\w*)|\bsummar|\bso far\b|\bover time\b",
    re.IGNORECASE,
)

KINDS = ("chat", "people", "lone")
HEIGHT = (5 / 6, 1.0, 3 / 4)  # brings the best hits of the three kinds to one height, as measured in a mixed memory


@dataclass(frozen=True)
class Observations:
    """The candidates of one question, and all that their scores are made of but the weights.

    `numbers` are those of the corpus, `kinds` places in `KINDS`, `values` from 0 to 1, and `newer` the numbers of what
    supersedes each. `timed` says whether the question names a time.
    """

    numbers: NDArray[np.int64]
    kinds: NDArray[np.int64]
    values: Mapping[str, Floats]
    newer: Numbers
    timed: bool


def about(name: str) -> _Observed:
    """Return what is known of a part of a score."""
    return OBSERVED.get(name) or _AFTERWARDS[name]


def observe(evidence: Evidence) -> Observations:
    """Look at the candidates."""
    numbers, corpus = evidence.candidates(), evidence.corpus
    flags = corpus.flags[numbers]
    observed = _observe(evidence, numbers, flags)
    named = (flags & NAMED) != 0
    lone = ~named & (corpus.sessions[numbers] < 0) & (corpus.answer[numbers] < 0) & (corpus.asked[numbers] < 0)
    return Observations(
        numbers,
        np.where(lone, KINDS.index("lone"), np.where(named, KINDS.index("people"), KINDS.index("chat"))),
        {name: observed[name] for name in OBSERVED if name in observed},
        _newer(corpus, numbers) if GRAPH in evidence.legs else np.full(len(numbers), -1),
        evidence.timed,  # a time at which nothing was said tells nothing apart
    )


def _newer(corpus: Corpus, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what supersedes each candidate: the next in its chain that is a candidate too, -1 for nothing."""
    found = corpus.newer[numbers].astype(np.int64)
    some = np.flatnonzero(found >= 0)
    lost = some[among(found[some], numbers) < 0]
    there = set(numbers.tolist()) if len(lost) else set()
    for place in lost.tolist():
        other, seen = int(found[place]), {int(numbers[place])}
        while other >= 0 and other not in there and other not in seen:
            seen.add(other)
            other = int(corpus.newer[other])
        found[place] = -1 if other in seen else other
    return found


def rank(observed: Observations, weights: Weights) -> Ranking:
    """Score the candidates."""
    shares = weights.shares(timed=observed.timed)
    names = [name for name in observed.values if name in shares]
    # All at once: numpy costs by the call.
    table = np.array([observed.values[name] for name in names], np.float32).reshape(len(names), len(observed.numbers))
    table *= np.array([shares[name] for name in names], np.float32).reshape(len(names), len(KINDS))[:, observed.kinds]
    ranking = Ranking(observed.numbers, names, table)
    ranking.sink(observed.newer)
    return ranking


def total_of(weights: Mapping[str, float], *, timed: bool) -> float:
    """Return the sum of the weights that make up a score: not of those that take away, or that seldom apply."""
    return sum(
        weight
        for name, weight in weights.items()
        if OBSERVED[name].sign > 0 and (name != "time" or timed) and name not in SELDOM
    )


def _shares(of_kind: Sequence[Mapping[str, float]], *, timed: bool) -> dict[str, list[float]]:
    totals = [total_of(one, timed=timed) or 1.0 for one in of_kind]
    return {
        name: [
            OBSERVED[name].sign * height * one.get(name, 0.0) / total
            for one, total, height in zip(of_kind, totals, HEIGHT, strict=True)
        ]
        for name in OBSERVED
        if any(one.get(name) for one in of_kind)
    }


def _observe(evidence: Evidence, numbers: NDArray[np.int64], mine: NDArray[np.int32]) -> dict[str, Floats]:
    """Return every observation of the candidates, whose flags are *mine*, that a leg asks for, from 0 to 1."""
    corpus, legs, observed = evidence.corpus, evidence.legs, {}
    if DENSE in legs:
        observed["meaning"] = evidence.near()(numbers)
    if LEXICAL in legs:
        observed["words"] = evidence.scaled(evidence.words)(numbers)
        observed["exact_words"] = evidence.scaled(evidence.exact_words)(numbers)
        if evidence.question is not None:
            observed["pairs"] = _pairs(evidence, evidence.question, numbers)
            observed["name"] = _named(evidence, numbers, mine)
    if GRAPH in legs:
        observed |= _around(evidence, numbers, mine)
    if TIME in legs and evidence.spans:
        observed["time"] = evidence.timely[numbers]
    if FORM in legs:
        observed["question"] = ((mine & ASKS) != 0).astype(np.float32)
        lengths = corpus.words.lengths()[numbers]
        observed["length"] = np.minimum(np.log1p(lengths) / np.log1p(_LENGTH), 1).astype(np.float32)
        observed["first"] = ((corpus.sessions[numbers] >= 0) & (corpus.previous[numbers] < 0)).astype(np.float32)
        if _ASKS_WHEN.search(evidence.query):
            observed["date"] = ((mine & DATED) != 0).astype(np.float32)
        if _ASKS_HELP.search(evidence.query) and not _ASKS_BACK.search(evidence.query):
            observed["standing"] = ((mine & STANDING) != 0).astype(np.float32)
    return observed


def _around(evidence: Evidence, numbers: NDArray[np.int64], mine: NDArray[np.int32]) -> dict[str, Floats]:
    """Return what is observed of what stands around the candidates, whose flags are *mine*."""
    corpus, meaning = evidence.corpus, evidence.near()
    words, exact_words = evidence.scaled(evidence.words), evidence.scaled(evidence.exact_words)
    previous, sessions = corpus.previous[numbers], corpus.sessions[numbers]
    before = np.where(previous >= 0, corpus.previous[previous], -1)
    answer = np.where(mine & ANSWER, -1, corpus.answer[numbers])
    people = (mine & NAMED) != 0
    # What a session's best words are depends on whose session it is, as the words themselves do.
    best = np.zeros(len(numbers), np.float32)
    for some, values in ((~people, evidence.exact_words), (people, evidence.words)):
        if some.any():
            best[some] = evidence.best_of_sessions(values, sessions[some])
    most = max(float(evidence.session.values.max(initial=0)), 1e-9)
    observed = {
        "asked": words(previous) * ((corpus.flags[previous] & ASKS) != 0),
        "previous_meaning": meaning(previous),
        "before": words(before),
        "next_meaning": meaning(corpus.following[numbers]),
        "session_words": best,
        "session": evidence.session(sessions) / most,
        "answer_meaning": meaning(answer),
        "answer_words": exact_words(answer),
    }
    if corpus.linked:
        observed["linked"] = _linked(corpus, numbers, mine, lambda some: np.maximum(meaning(some), words(some)))
    return observed


def _pairs(evidence: Evidence, question: Question, numbers: NDArray[np.int64]) -> Floats:
    """Return the share of the question's pairs of neighbouring words that stand side by side in each text."""
    corpus, m = evidence.corpus, len(question.terms)
    worth = np.zeros((m, m))
    for one, two in question.pairs:
        if question.terms[one] >= 0 and question.terms[two] >= 0:
            worth[min(one, two), max(one, two)] += min(question.idf[one], question.idf[two])
    total = float(worth.sum())
    if total <= 0:
        return np.zeros(len(numbers), np.float32)
    places = np.flatnonzero(evidence.several(numbers))
    stream, ends = corpus.words.streams_of(numbers[places])
    known = [at for at, term in enumerate(question.terms) if term >= 0]
    asked = evidence.board.terms
    asked.put(np.array([question.terms[at] for at in known]), len(corpus.words.written))
    words = asked.of(stream)
    held = np.flatnonzero(words >= 0)
    at = held[np.flatnonzero(np.diff(held) == 1)]
    owners = np.searchsorted(ends, at, "right")
    within = np.searchsorted(ends, at + 1, "right") == owners
    at, owners = at[within], owners[within]
    if not len(at):
        return np.zeros(len(numbers), np.float32)
    asked_at = np.array(known)
    left, right = asked_at[words[at]], asked_at[words[at + 1]]
    pairs = (owners * m + np.minimum(left, right)) * m + np.maximum(left, right)
    sides = np.array(sorted(set(pairs.tolist())))  # a pair counts once in a text
    found = np.bincount(places[sides // (m * m)], worth.ravel()[sides % (m * m)] / total, len(numbers))
    return found.astype(np.float32)


def _named(evidence: Evidence, numbers: NDArray[np.int64], mine: NDArray[np.int32]) -> Floats:
    """Tell whose speaker's name stands in the question."""
    corpus = evidence.corpus
    asked = set(evidence.question.words) if evidence.question is not None else set()
    speakers = np.where((mine & NAMED) != 0, corpus.speakers[numbers], -1)
    named = [
        code
        for code in np.flatnonzero(np.bincount(speakers + 1)[1:]).tolist()
        if not asked.isdisjoint(evidence.board.words_of(corpus, code))
    ]
    if not named:  # as mostly
        return np.zeros(len(numbers), np.float32)
    return np.isin(speakers, named).astype(np.float32)


def _linked(
    corpus: Corpus, numbers: NDArray[np.int64], mine: NDArray[np.int32], near: Callable[[Numbers], Floats]
) -> Floats:
    found = np.zeros(len(numbers), np.float32)
    some = np.flatnonzero(mine & LINKED)
    links = [
        (place, other)
        for place, number in zip(some.tolist(), numbers[some].tolist(), strict=True)
        for other, _ in corpus.linked[number]
    ]
    if links:
        places, others = np.array(links).T
        np.maximum.at(found, places, near(others))
    return found


class Ranking:
    """Candidates (ascending) with their scores, and what these are made of: `parts`, a row for each of `names`."""

    def __init__(self, numbers: NDArray[np.int64], names: Sequence[str], parts: Floats) -> None:
        self.numbers = numbers
        self.names = list(names)
        self.parts = parts
        self.scores: NDArray[np.floating[Any]] = parts.sum(axis=0, dtype=np.float32)

    def best(self, count: int) -> list[int]:
        """Return the places of the *count* best candidates, best first; equals in the order of the store."""
        scores, places = self.scores, np.arange(len(self.scores))
        if 0 < count < len(places):
            places = np.flatnonzero(scores >= np.partition(scores, len(scores) - count)[len(scores) - count])
        return places[np.lexsort((self.numbers[places], -scores[places]))][:count].tolist()  # type: ignore[no-any-return]

    def _part(self, name: str) -> Floats:
        """Return the row of *name*, a new one of zeros if there is none."""
        if name not in self.names:
            self.names.append(name)
            self.parts = np.concatenate([self.parts, np.zeros((1, len(self.numbers)), np.float32)])
        return np.asarray(self.parts[self.names.index(name)])

    def sink(self, newer: Numbers) -> None:
        """Put what is superseded below what supersedes it, and that where the best of the older ones was."""
        if not (newer >= 0).any():
            return
        some = np.flatnonzero(newer >= 0)
        at = among(newer[some], self.numbers)
        above: dict[int, int] = dict(zip(some[at >= 0].tolist(), at[at >= 0].tolist(), strict=True))
        steps: dict[int, int] = {}  # from each to the newest of its chain
        for place in above:
            chain = [place]
            while chain[-1] in above and above[chain[-1]] not in chain:
                chain.append(above[chain[-1]])
            if chain[-1] not in above:  # in a circle, nothing is the newest
                steps[place] = len(chain)
        oldest_first = sorted(steps, key=lambda place: -steps[place])
        for place in oldest_first:
            self._move(above[place], max(self.scores[place], self.scores[above[place]]))
        for place in reversed(oldest_first):
            top = self.scores[above[place]]
            self._move(place, min(self.scores[place], top - max((1 - _LESS) * abs(top), _APART)))

    def _move(self, place: int, score: float) -> None:
        self._part(SUPERSEDES)[place] += score - self.scores[place]
        self.scores[place] = score

    def renew(self, times: NDArray[np.float64], now: float, weight: float, half_life: float) -> None:
        """Mix in how new each candidate is: half as much for every *half_life* seconds of age."""
        age = np.maximum(now - np.nan_to_num(times[self.numbers], nan=-np.inf), 0)
        self.parts = self.parts * (1 - weight)
        with np.errstate(over="ignore", under="ignore"):
            added = weight * np.exp2(-age / half_life)
        self._part(RECENCY)[:] = added
        self.scores = self.scores.astype(np.float64) * (1 - weight) + added  # float32 cannot tell seconds apart

    def cut(self, evidence: Evidence, similarity: float | None, coverage: float | None) -> None:
        """Drop candidates below either threshold."""
        if similarity is None and coverage is None:
            return
        keep = np.ones(len(self.numbers), np.bool_)
        if similarity is not None:
            keep &= np.nan_to_num(evidence.similar(self.numbers), nan=-1.0) >= similarity
        if coverage is not None:
            keep &= evidence.held(self.numbers) >= coverage
        self.numbers, self.scores, self.parts = self.numbers[keep], self.scores[keep], self.parts[:, keep]


def resemblance(corpus: Corpus, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how much the texts of *numbers* share: the cosine between their words, (n, n)."""
    streams = [corpus.words.stream_of(number) for number in numbers.tolist()]
    known, places = np.unique(np.concatenate([*streams, np.empty(0, np.int32)]), return_inverse=True)
    texts = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])
    table = np.zeros((len(streams), max(len(known), 1)))
    np.add.at(table, (texts, places.ravel()), 1)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return np.asarray(table @ table.T)
