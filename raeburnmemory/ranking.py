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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .corpus import ANSWER, ASKS, DATED, NAMED, STANDING
from .errors import InvalidInput
from .evidence import DENSE, FORM, GRAPH, LEXICAL, TIME, Evidence
from .hits import Step, Why
from .nodes import RESPONDED_WITH
from .records import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return the weights as a JSON object."""
        return asdict(self)


SELDOM = frozenset({"standing", "linked"})  # observations that add to the score without being part of its whole

_LENGTH = 40  # words from which a turn is long enough
_MENTIONED = 0.001  # what adds less to a score is not worth a word
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


def observe(evidence: Evidence) -> Observations:
    """Look at the candidates."""
    numbers, corpus = evidence.candidates(), evidence.corpus
    observed = _observe(evidence, numbers)
    named = (corpus.flags[numbers] & NAMED) != 0
    lone = ~named & (corpus.sessions[numbers] < 0) & (corpus.answer[numbers] < 0) & (corpus.asked[numbers] < 0)
    return Observations(
        numbers,
        np.where(lone, KINDS.index("lone"), np.where(named, KINDS.index("people"), KINDS.index("chat"))),
        {name: observed[name] for name, (leg, *_) in OBSERVED.items() if leg in evidence.legs and name in observed},
        _newer(corpus, numbers) if GRAPH in evidence.legs else np.full(len(numbers), -1),
        # A time at which nothing was said tells nothing apart.
        bool((evidence.timely() * evidence.allowed).any()),
    )


def _newer(corpus: Corpus, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what supersedes each candidate: the next in its chain that is a candidate too, -1 for nothing."""
    found = corpus.newer[numbers].astype(np.int64)
    there = set(numbers.tolist())
    for place in np.flatnonzero(found >= 0).tolist():
        other, seen = int(found[place]), {int(numbers[place])}
        while other >= 0 and other not in there and other not in seen:
            seen.add(other)
            other = int(corpus.newer[other])
        found[place] = -1 if other in seen else other
    return found


def rank(observed: Observations, weights: Weights) -> Ranking:
    """Score the candidates."""
    parts: dict[str, Floats] = {}
    of_kind = [getattr(weights, kind) for kind in KINDS]
    totals = [total_of(one, timed=observed.timed) for one in of_kind]
    for name, values in observed.values.items():
        shares = [
            height * one.get(name, 0.0) / (total or 1.0)
            for one, total, height in zip(of_kind, totals, HEIGHT, strict=True)
        ]
        if any(shares):
            parts[name] = OBSERVED[name].sign * np.array(shares, np.float32)[observed.kinds] * values
    ranking = Ranking(observed.numbers, parts)
    ranking.sink(observed.newer)
    return ranking


def total_of(weights: Mapping[str, float], *, timed: bool) -> float:
    """Return the sum of the weights that make up a score: not of those that take away, or that seldom apply."""
    return sum(
        weight
        for name, weight in weights.items()
        if OBSERVED[name].sign > 0 and (name != "time" or timed) and name not in SELDOM
    )


def _observe(evidence: Evidence, numbers: NDArray[np.int64]) -> dict[str, Floats]:
    """Return every observation of the candidates, from 0 to 1."""
    corpus = evidence.corpus
    flags = corpus.flags
    meaning = evidence.near()
    words, exact_words = evidence.scaled(evidence.words), evidence.scaled(evidence.exact_words)

    def of(values: Floats, column: NDArray[np.int32], which: NDArray[np.bool_] | None = None) -> Floats:
        there = column >= 0 if which is None else (column >= 0) & which[column]
        return np.where(there, values[column], 0).astype(np.float32)

    previous = corpus.previous[numbers]
    before = np.where(previous >= 0, corpus.previous[previous], -1)
    sessions = corpus.sessions[numbers]
    asks = (flags & ASKS) != 0
    mine = flags[numbers]
    answer = np.where(mine & ANSWER, -1, corpus.answer[numbers])
    # What a session's best words are depends on whose session it is, as the words themselves do.
    best_words, best_exact = _best_of(corpus, words), _best_of(corpus, exact_words)
    chat = (mine & NAMED) == 0
    observed = {
        "meaning": meaning[numbers],
        "words": words[numbers],
        "exact_words": exact_words[numbers],
        "asked": of(words, previous, asks),
        "previous_meaning": of(meaning, previous),
        "before": of(words, before),
        "next_meaning": of(meaning, corpus.following[numbers]),
        "session_words": np.where(chat, of(best_exact, sessions), of(best_words, sessions)),
        "session": of(evidence.session / max(float(evidence.session.max(initial=0)), 1e-9), sessions),
        "answer_meaning": of(meaning, answer),
        "answer_words": of(exact_words, answer),
        "question": asks[numbers].astype(np.float32),
        "length": np.minimum(np.log1p(corpus.words.lengths()[numbers]) / np.log1p(_LENGTH), 1).astype(np.float32),
        "first": ((sessions >= 0) & (previous < 0)).astype(np.float32),
    }
    if evidence.question is not None:
        observed["pairs"] = _pairs(evidence, evidence.question, numbers)
        observed["name"] = _named(evidence, numbers)
    if _ASKS_WHEN.search(evidence.query):
        observed["date"] = ((mine & DATED) != 0).astype(np.float32)
    if _ASKS_HELP.search(evidence.query) and not _ASKS_BACK.search(evidence.query):
        observed["standing"] = ((mine & STANDING) != 0).astype(np.float32)
    if evidence.spans:
        observed["time"] = evidence.timely()[numbers]
    if corpus.linked:
        observed["linked"] = _linked(corpus, numbers, np.maximum(meaning, words))
    return observed


def _best_of(corpus: Corpus, values: Floats) -> Floats:
    """Return, at the number of each session, the best of the values of what was said there."""
    found = np.zeros(len(values), np.float32)
    some = np.flatnonzero((values > 0) & (corpus.sessions >= 0))
    np.maximum.at(found, corpus.sessions[some], values[some])
    return found


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
    several = np.zeros(len(corpus), np.bool_)
    several[evidence.texts[np.count_nonzero(evidence.counts, axis=0) > 1]] = True
    places = np.flatnonzero(several[numbers])
    stream, owners = corpus.words.streams_of(numbers[places])
    asked = np.full(len(corpus.words.written), -1, np.int64)
    asked[[term for term in question.terms if term >= 0]] = [at for at, term in enumerate(question.terms) if term >= 0]
    words = asked[stream]
    at = np.flatnonzero((words[:-1] >= 0) & (words[1:] >= 0) & (owners[:-1] == owners[1:]))
    low, high = np.minimum(words[at], words[at + 1]), np.maximum(words[at], words[at + 1])
    sides = np.unique((owners[at] * m + low) * m + high)  # a pair counts once in a text
    found = np.bincount(places[sides // (m * m)], worth.ravel()[sides % (m * m)] / total, len(numbers))
    return found.astype(np.float32)


def _named(evidence: Evidence, numbers: NDArray[np.int64]) -> Floats:
    """Tell whose speaker's name stands in the question."""
    corpus = evidence.corpus
    asked = set(evidence.question.words) if evidence.question is not None else set()
    speakers = np.where((corpus.flags[numbers] & NAMED) != 0, corpus.speakers[numbers], -1)
    named = [
        code
        for code in np.unique(speakers).tolist()
        if code >= 0 and asked & set(corpus.words.words.of(corpus.names[code]))
    ]
    return np.isin(speakers, named).astype(np.float32)


def _linked(corpus: Corpus, numbers: NDArray[np.int64], values: Floats) -> Floats:
    found = np.zeros(len(numbers), np.float32)
    for place, number in enumerate(numbers.tolist()):
        for other, _ in corpus.linked.get(number, ()):
            found[place] = max(found[place], values[other])
    return found


class Ranking:
    """Candidates with their scores and what these are made of."""

    def __init__(self, numbers: NDArray[np.int64], parts: Mapping[str, Floats]) -> None:
        self.numbers = numbers
        self.parts = dict(parts)
        self.scores = sum(self.parts.values(), np.zeros(len(numbers), np.float32))

    def order(self) -> list[int]:
        """Return the places of the candidates, best first; equals in the order of the store."""
        return np.lexsort((self.numbers, -self.scores)).tolist()  # type: ignore[no-any-return]

    def sink(self, newer: Numbers) -> None:
        """Put what is superseded below what supersedes it, and that where the best of the older ones was."""
        if not (newer >= 0).any():
            return
        places = {number: place for place, number in enumerate(self.numbers.tolist())}
        above = {
            place: places[int(newer[place])]
            for place in np.flatnonzero(newer >= 0).tolist()
            if int(newer[place]) in places
        }
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
        self.parts.setdefault("supersedes", np.zeros(len(self.numbers), np.float32))[place] += (
            score - self.scores[place]
        )
        self.scores[place] = score

    def renew(self, times: NDArray[np.float64], now: float, weight: float, half_life: float) -> None:
        """Mix in how new each candidate is: half as much for every *half_life* seconds of age."""
        age = np.maximum(now - np.nan_to_num(times[self.numbers], nan=-np.inf), 0)
        self.parts = {name: part * (1 - weight) for name, part in self.parts.items()}
        with np.errstate(over="ignore", under="ignore"):
            self.parts["recency"] = (weight * np.exp2(-age / half_life)).astype(np.float32)
        self.scores = self.scores * (1 - weight) + self.parts["recency"]

    def cut(self, evidence: Evidence, similarity: float | None, coverage: float | None) -> None:
        """Drop candidates below either threshold."""
        keep = np.ones(len(self.numbers), np.bool_)
        if similarity is not None:
            keep &= np.nan_to_num(evidence.similar[self.numbers], nan=-1.0) >= similarity
        if coverage is not None:
            keep &= evidence.held[self.numbers] >= coverage
        self.numbers, self.scores = self.numbers[keep], self.scores[keep]
        self.parts = {name: part[keep] for name, part in self.parts.items()}

    def whys(self, places: Sequence[int], evidence: Evidence) -> list[Why]:
        """Return the reasons of some candidates."""
        corpus, numbers = evidence.corpus, self.numbers[places]
        about = [OBSERVED.get(name) or _OTHERS[name] for name in self.parts]
        amounts = np.array([part[places] for part in self.parts.values()], np.float64)
        names = list(dict.fromkeys(leg for leg, *_ in about))
        if not names:
            return [Why() for _ in places]
        legs = np.array([amounts[[one.leg == name for one in about]].sum(axis=0) for name in names]).round(6)
        words: list[list[str]] = [[] for _ in places]
        if evidence.question is not None:
            columns = np.searchsorted(evidence.texts, numbers)
            for place, (number, column) in enumerate(zip(numbers.tolist(), columns.tolist(), strict=True)):
                if column < len(evidence.texts) and evidence.texts[column] == number:
                    held = np.flatnonzero(evidence.counts[:, column]).tolist()
                    words[place] = [evidence.question.written[at] for at in held]
        support = self._support(about, np.where(np.abs(amounts) >= _MENTIONED, amounts, 0.0), evidence, numbers)
        return [
            Why(dict(zip(names, row, strict=True)), tuple(found), _path(corpus, around))
            for row, found, around in zip(legs.T.tolist(), words, support, strict=True)
        ]

    def _support(
        self, about: Sequence[_Observed], amounts: NDArray[np.float64], evidence: Evidence, numbers: Numbers
    ) -> list[list[tuple[float, str, int]]]:
        """Return for each of some candidates how much came over which relation from which node."""
        corpus = evidence.corpus
        found: list[list[tuple[float, str, int]]] = [[] for _ in numbers]
        for relation in dict.fromkeys(one.relation for one in about if one.relation is not None):
            given = amounts[[one.relation == relation for one in about]].sum(axis=0).tolist()
            if not any(given):
                continue
            if relation == "linked":
                near = np.maximum(evidence.near(), evidence.scaled(evidence.words))
                for place, (amount, number) in enumerate(zip(given, numbers.tolist(), strict=True)):
                    if amount:
                        other, over = max(corpus.linked[number], key=lambda link: float(near[link[0]]))
                        found[place].append((amount, over, other))
                continue
            others = _neighbours(corpus, numbers, relation)
            for place, (amount, other) in enumerate(zip(given, others, strict=True)):
                if amount and other >= 0:
                    found[place].append((amount, relation, other))
        return found


def _path(corpus: Corpus, support: Sequence[tuple[float, str, int]]) -> tuple[Step, ...]:
    """Return the support of a hit, most first."""
    steps = sorted(support, key=lambda step: -abs(step[0]))
    return tuple(Step(relation, corpus.ids[other], round(amount, 6)) for amount, relation, other in steps)


_OTHERS = {"supersedes": _Observed(GRAPH, 1, "supersedes"), "recency": _Observed(TIME, 1)}


def _neighbours(corpus: Corpus, numbers: Numbers, relation: str) -> list[int]:
    """Return the nodes that support others over *relation*, -1 for none."""
    if relation == "before previous":
        previous = corpus.previous[numbers]
        return np.where(previous >= 0, corpus.previous[previous], -1).tolist()  # type: ignore[no-any-return]
    if relation == "supersedes":
        return [
            int(corpus.newer[number])
            if corpus.newer[number] >= 0
            else next((other for other, _ in corpus.linked.get(number, ()) if corpus.newer[other] == number), -1)
            for number in numbers.tolist()
        ]
    columns = {
        "previous": corpus.previous,
        "next": corpus.following,
        "session": corpus.sessions,
        RESPONDED_WITH: corpus.answer,
    }
    return columns[relation][numbers].tolist()  # type: ignore[no-any-return]


def resemblance(corpus: Corpus, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how much the texts of *numbers* share: the cosine between their words, (n, n)."""
    streams = [corpus.words.stream_of(number) for number in numbers.tolist()]
    known, places = np.unique(np.concatenate([*streams, np.empty(0, np.int32)]), return_inverse=True)
    texts = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])
    table = np.zeros((len(streams), max(len(known), 1)))
    np.add.at(table, (texts, places.ravel()), 1)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return np.asarray(table @ table.T)
