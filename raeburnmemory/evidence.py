"""What the legs of a search say about the nodes of a corpus, and which nodes are worth comparing.

A question has to do with some of the nodes. What is said of these is held in lists as long as there are such nodes,
so that a question to a large memory does not pay for all of it.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from .corpus import LINKED
from .passages import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .corpus import Corpus
    from .index.lexical import Question
    from .related import RelatedWords
    from .wanted import Allowed
    from .when import Span

    Floats = NDArray[np.float32]
    Numbers = NDArray[Any]
    Compare = Callable[[NDArray[np.int64]], tuple[Floats, Floats]]

__all__ = ["DENSE", "FORM", "GRAPH", "LEGS", "LEXICAL", "TIME", "Board", "Evidence", "Listed", "among"]

DENSE, LEXICAL, GRAPH, TIME, FORM = "dense", "lexical", "graph", "time", "form"
LEGS = (DENSE, LEXICAL, GRAPH, TIME, FORM)

_TOP = 50  # candidates whose links are followed
_SHORT, _LONG, _SESSION = (0.9, 0.4), (1.2, 0.95), (1.2, 0.75)  # k1 and b of BM25
_META = 0.5  # the weight of words that speak of the memory itself
_WEEK = 7 * 86_400.0
_LARGE, _SPARSE = 8192, 16  # values of which a sample, one in so many, tells which are worth sorting
_FAR = 32  # numbers that are so few, of so many as there could be, are sorted in less time than a table of all takes


class Places:
    """The places of some numbers in a list, looked up without a search. Used again for the next list."""

    def __init__(self) -> None:
        self._at = np.full(1, -1, np.int32)  # the last place is that of -1, nobody
        self._numbers: Numbers = np.empty(0, np.int64)

    def put(self, numbers: Numbers, n: int, *, once: bool = True) -> Numbers:
        """Take *numbers* (below *n*, none below 0) instead of those before; return them, each *once* in any order."""
        if n >= len(self._at):
            self._at = np.full(n + n // 8 + 2, -1, np.int32)
        else:
            self._at[self._numbers] = -1
        places = np.arange(len(numbers), dtype=np.int32)
        self._at[numbers] = places
        if not once:
            numbers = numbers[self._at[numbers] == places]  # one of equal ones wrote last
            self._at[numbers] = places[: len(numbers)]
        self._numbers = numbers
        return numbers

    def of(self, numbers: Numbers) -> NDArray[np.int32]:
        """Return the place of each of *numbers*, -1 for those that are not there, and for -1."""
        return self._at.take(numbers)


class Board:
    """What evidence is written on: arrays as long as the corpus, made once for many questions. For one at a time."""

    def __init__(self) -> None:
        self.texts, self.sessions, self.compared, self.terms = Places(), Places(), Places(), Places()
        self._said: Floats = np.empty(0, np.float32)
        self._spoken = (0, 0.0)
        self._names: list[str] = []
        self._words: dict[int, frozenset[str]] = {}

    def words_of(self, corpus: Corpus, code: int) -> frozenset[str]:
        """Return the words of the name of a speaker."""
        if corpus.names is not self._names:
            self._names, self._words = corpus.names, {}
        found = self._words.get(code)
        if found is None:
            found = self._words[code] = frozenset(corpus.words.words.of(corpus.names[code]))
        return found

    def spoken(self, said: Floats) -> tuple[int, float]:
        """Return how many sessions have words, and how many in the mean, from how many each has."""
        if said is not self._said:
            held = int(np.count_nonzero(said))
            self._said, self._spoken = said, (held, float(said.sum(dtype=np.float64)) / max(held, 1))
        return self._spoken


class Values:
    """A value for each of some nodes; for all others, and for nobody (-1), the last one.

    The *best* of those that may be found is what others are compared with.
    """

    def __init__(self, values: Floats, places: Places | None = None, best: float = 0.0) -> None:
        self.values, self._places, self.best = values, places, best

    def __call__(self, numbers: Numbers) -> Floats:
        """Return the value of each of *numbers*."""
        return self.values[numbers if self._places is None else self._places.of(numbers)]


class _Nothing(Values):
    """The same for everybody."""

    def __init__(self, value: float) -> None:
        super().__init__(np.full(1, value, np.float32))

    def __call__(self, numbers: Numbers) -> Floats:
        """Return it for each of *numbers*."""
        return np.repeat(self.values, len(numbers))


class Listed(Values):
    """Values of the nodes with some *numbers* (ascending), looked up by a search: NaN for others."""

    def __init__(self, numbers: Numbers, values: Floats) -> None:
        super().__init__(values)
        self._numbers = numbers

    def __call__(self, numbers: Numbers) -> Floats:
        """Return the value of each of *numbers*."""
        found = np.full(len(numbers), np.nan, np.float32)
        if len(self._numbers):
            at = np.minimum(np.searchsorted(self._numbers, numbers), len(self._numbers) - 1)
            there = self._numbers[at] == numbers
            found[there] = self.values[at[there]]
        return found


class Evidence:
    """What the legs say about the nodes of a corpus, for one question, until *board* is used for the next."""

    def __init__(
        self,
        corpus: Corpus,
        query: str,
        question: Question | None,
        related: RelatedWords,
        allowed: Allowed,
        spans: Sequence[Span],
        legs: frozenset[str],
        pool: int,
        board: Board,
    ) -> None:
        self.corpus, self.query, self.question = corpus, query, question
        self.allowed, self.spans, self.legs, self.pool = allowed.mask, spans, legs, pool
        self.board = board
        nothing = _Nothing(0.0)
        self.similar: Values = _Nothing(np.nan)  # cosines with the question itself, for hits
        # Cosines with what sets the question apart, for the ranking: of whole texts, and of their nearest passages.
        self.whole: Values = _Nothing(np.nan)
        self.passage: Values = _Nothing(np.nan)
        self.nearest: Numbers = np.empty(0, np.int64)  # by meaning, in no order, some twice
        self.found: Numbers = np.empty(0, np.int64)  # texts that hold words of the question, or related ones
        self.words: Values = nothing
        self.exact_words: Values = nothing
        self.session: Values = nothing
        self.holds = np.empty((0, 0), np.bool_)  # which words of the question stand in which of the texts found
        self.many: Numbers = np.zeros(1, np.int64)  # and how many in each, and in nobody's
        self._weights: NDArray[Any] = np.empty(0, np.float64)  # what each of them weighs
        self._all = allowed.numbers is None  # whoever has a text may be found
        self._compare: Compare | None = None
        if question is not None:
            self._look_for(question, related)

    # --- words --------------------------------------------------------------------------------------------------

    def _look_for(self, question: Question, related: RelatedWords) -> None:
        """Fill in what the words say; all words at once, because numpy costs by the call."""
        corpus, index = self.corpus, self.corpus.words
        mean = index.total / max(index.held, 1)
        share = np.array([_META if word in corpus.about_memory else 1.0 for word in question.words], np.float32)
        weights = question.idf.astype(np.float32) * share

        own = [(at, term, 1.0) for at, term in enumerate(question.terms) if term >= 0]
        near = [
            (at, term, closeness)
            for at, (some, mine) in enumerate(zip(related.of(question.written), question.terms, strict=True))
            for term, closeness in some
            if term != mine
        ]
        texts, often, sizes = index.postings_of([term for _, term, _ in (*own, *near)])
        place, often = self.board.texts, often.astype(np.float32)
        texts = texts.astype(np.int64)  # as numpy looks things up; else it converts them every time
        self.found = place.put(texts, len(corpus), once=False)
        n, mine = len(self.found), int(sizes[: len(own)].sum())
        at = place.of(texts).astype(np.int64)
        rows = np.repeat(np.array([row for row, *_ in (*own, *near)], np.int64), sizes)
        cells = rows * n + at  # of a table (words, texts): how often each stands in each
        counts = np.zeros(len(weights) * n, np.float32)
        counts[cells[:mine]] = often[:mine]
        table = counts.reshape(len(weights), n)
        self.holds = table > 0
        self._weights = weights.astype(np.float64)
        lengths = index.lengths()[self.found].astype(np.float32)

        # The words themselves: what each adds to each text. There are less of these than places in the table.
        worth, here, some = weights[rows[:mine]], at[:mine], often[:mine]
        k1, _ = _LONG
        parts = worth * np.float32(k1 + 1) * (some / (some + _slowness(lengths, mean, _LONG)[here]))
        self.exact_words = self._valued(np.bincount(here, parts, n + 1))
        self.many = np.bincount(here, minlength=n + 1)
        if GRAPH in self.legs:
            self._look_in_sessions(rows[:mine], self._sessions[here], some, share)

        # Of a text that holds several words related to one of the question's, the best one counts.
        closeness = np.repeat(np.array([close for *_, close in near], np.float32), sizes[len(own) :])
        np.maximum.at(counts, cells[mine:], closeness * often[mine:])
        self.words = self._valued(_bm25(table, lengths, weights, mean, _SHORT))

    @cached_property
    def _may(self) -> NDArray[np.bool_]:
        return self.allowed[self.found]

    @cached_property
    def _sessions(self) -> NDArray[np.int64]:
        return self.corpus.sessions[self.found].astype(np.int64)

    def _valued(self, values: NDArray[Any]) -> Values:
        """Return values of the texts found, and of nobody."""
        values = values.astype(np.float32, copy=False)
        return Values(values, self.board.texts, float(self._allowed(values).max(initial=np.float32(0))))

    def _allowed(self, values: Floats) -> Floats:
        """Return the values of the texts found, 0 for those that may not be found."""
        return values[:-1] if self._all else values[:-1] * self._may

    def _look_in_sessions(self, words: Numbers, sessions: Numbers, often: Numbers, share: Floats) -> None:
        """Fill in BM25 of every session as one text, from which word stands how often in a text of which session."""
        inside = sessions >= 0
        if not inside.all():
            words, sessions, often = words[inside], sessions[inside], often[inside]
        if not len(sessions):
            return
        said = self.corpus.said()
        held, mean = self.board.spoken(said)
        place = self.board.sessions
        numbers = place.put(sessions, len(self.corpus), once=False)
        cells = words * len(numbers) + place.of(sessions)
        counts = np.bincount(cells, often, len(share) * len(numbers)).astype(np.float32)
        counts = counts.reshape(len(share), len(numbers))
        spread = np.count_nonzero(counts, axis=1)  # sessions that hold the word
        rarity = np.log1p((held - spread + 0.5) / (spread + 0.5)).astype(np.float32) * share
        # The mean is that of the sessions, not of all texts.
        self.session = Values(_bm25(counts, said[numbers], rarity, mean, _SESSION), place)

    def best_of_sessions(self, values: Values, sessions: Numbers) -> Floats:
        """Return the best of the scaled *values* (`words` or `exact_words`) of what was said in each of *sessions*."""
        wanted = np.zeros(len(self.corpus) + 1, np.bool_)
        wanted[sessions] = True
        wanted[-1] = False  # nobody's
        theirs = self._sessions
        some = np.flatnonzero(wanted[theirs] & (values.values[:-1] > 0))
        best = np.zeros(len(wanted), np.float32)
        np.maximum.at(best, theirs[some], _scale(values.best)(values.values[some]))
        return best[sessions]

    # --- meaning ------------------------------------------------------------------------------------------------

    @property
    def cosines(self) -> Callable[[Numbers], Floats]:
        """The cosine of the nearest passage or of the whole; NaN where there is no vector, or nobody looked."""
        return lambda numbers: np.fmax(self.whole(numbers), self.passage(numbers))

    def know(self, whole: Floats, passage: Floats) -> None:
        """Take the cosines of all nodes, and of nobody at the end, NaN for those without a vector."""
        at = [np.flatnonzero(self.allowed & ~np.isnan(values[:-1])) for values in (whole, passage)]
        allowed = [(numbers, values[numbers]) for numbers, values in zip(at, (whole, passage), strict=True)]
        self._note_nearest(*allowed)
        self.whole, self.passage = (
            Values(values, None, float(some.max(initial=np.float32(0))))
            for values, (_, some) in zip((whole, passage), allowed, strict=True)
        )

    def know_nearest(self, whole: tuple[Numbers, Floats], passage: tuple[Numbers, Floats], compare: Compare) -> None:
        """Take most of the nearest, their numbers and rough cosines, and a function that compares nodes (ascending)."""
        self._note_nearest(whole, passage)
        self._compare = compare
        self._fill(self.to_compare())
        for values in (self.whole, self.passage):
            values.best = float(np.fmax.reduce(values(self.candidates()), initial=np.float32(0)))

    def _note_nearest(self, whole: tuple[Numbers, Floats], passage: tuple[Numbers, Floats]) -> None:
        """Note the nearest texts of each kind, as wholes and by their passages."""
        codes = [code for kind in EMBEDDED if (code := self.corpus.code(kind)) >= 0]
        parts = [self.nearest]
        for numbers, values in (whole, passage):
            kinds = self.corpus.kinds[numbers]
            for code in codes:
                some = np.flatnonzero(kinds == code)
                if len(some):
                    parts.append(numbers[some[_top(values[some], self.pool)]])
        self.nearest = np.concatenate(parts)

    def _fill(self, numbers: Numbers) -> None:
        """Compare the nodes with these *numbers* (ascending)."""
        if self._compare is not None:
            places, nobody = self.board.compared, np.full(1, np.nan, np.float32)
            places.put(numbers, len(self.corpus))
            whole, passage = self._compare(numbers)
            self.whole = Values(np.concatenate([whole, nobody]), places, self.whole.best)
            self.passage = Values(np.concatenate([passage, nobody]), places, self.passage.best)

    # --- who is compared ----------------------------------------------------------------------------------------

    def candidates(self) -> NDArray[np.int64]:
        """Return the numbers of the nodes worth comparing, ascending: chosen once, when all legs have found theirs."""
        return self._candidates

    @cached_property
    def _candidates(self) -> NDArray[np.int64]:
        corpus = self.corpus
        parts = [self.nearest]
        for scores in (self.words, self.exact_words):
            if scores.best > 0:
                values = self._allowed(scores.values)
                best = _top(values, self.pool)
                parts.append(self.found[best[values[best] > 0]])
        if self.spans:
            parts.append(np.flatnonzero((self.timely > 0) & self.allowed)[-self.pool :])
        found = _once(parts, len(corpus))
        if GRAPH in self.legs:
            parts = [found]
            if corpus.linked:
                self._fill(found)
                linked = [other for number in self._first(found) for other, _ in corpus.linked.get(number, ())]
                parts.append(np.array(linked, np.int64))
            columns = (corpus.previous, corpus.following, corpus.asked, corpus.answer, corpus.newer)
            found = _once([*parts, *(column[found] for column in columns)], len(corpus))
            newest: Numbers = found
            while len(newest):  # along chains of what supersedes
                newer = corpus.newer[newest]
                newer = newer[newer >= 0]
                newest = newer[among(newer, found) < 0]
                found = _once([found, newest], len(corpus)) if len(newest) else found
        return found[self.allowed[found]]

    def _first(self, numbers: Numbers) -> list[int]:
        """Return those of *numbers* whose links are followed: the best by words and meaning."""
        scores = self.scaled(self.words)(numbers) + np.nan_to_num(self.cosines(numbers))
        return [int(number) for number in numbers[np.argsort(-scores, kind="stable")[:_TOP]]]

    def to_compare(self) -> NDArray[np.int64]:
        """Return the nodes whose cosines the ranking asks for, ascending."""
        numbers, corpus = self.candidates(), self.corpus
        parts: list[Numbers] = [numbers, corpus.previous[numbers], corpus.following[numbers], corpus.answer[numbers]]
        if corpus.linked:
            links = [corpus.linked[number] for number in numbers[(corpus.flags[numbers] & LINKED) != 0].tolist()]
            parts.append(np.array([other for other, _ in chain.from_iterable(links)], np.int64))
        return _once(parts, len(corpus))

    @cached_property
    def timely(self) -> Floats:
        """How well the time of each node fits the times that the question names."""
        fit = np.zeros(len(self.corpus), np.float32)
        times = self.corpus.times
        for start, end, _ in self.spans:
            # People speak of a thing soon after it happened: the week after a time fits half as well.
            with np.errstate(invalid="ignore"):
                fit = np.maximum(fit, np.where((times >= start) & (times < end), 1.0, 0.0).astype(np.float32))
                fit = np.maximum(fit, np.where((times >= end) & (times < end + _WEEK), 0.5, 0.0).astype(np.float32))
        return fit

    @property
    def timed(self) -> bool:
        """Whether anything that may be found was said at the times that the question names."""
        return bool(self.spans) and bool((self.timely * self.allowed).any())

    # --- on one scale -------------------------------------------------------------------------------------------

    def scaled(self, values: Values) -> Callable[[Numbers], Floats]:
        """Return a function from numbers of nodes to *values* over the best of those that may be found, from 0 to 1.

        Nobody, -1, has 0.
        """
        scale = _scale(values.best)
        return lambda numbers: scale(values(numbers))

    def near(self) -> Callable[[Numbers], Floats]:
        """Return a function that tells how near nodes are: half as wholes, half by the nearest passage, each scaled."""
        whole, passage = _scale(self.whole.best), _scale(max(self.whole.best, self.passage.best))

        def of(numbers: Numbers) -> Floats:
            mine = self.whole(numbers)
            together = whole(mine) + passage(np.fmax(mine, self.passage(numbers)))
            return np.asarray(together * np.float32(0.5), np.float32)

        return of

    # --- for hits -----------------------------------------------------------------------------------------------

    def words_in(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Tell which words of the question stand in which of some texts, (words, texts)."""
        if not len(self.found):
            return np.zeros((len(self.holds), len(numbers)), np.bool_)
        places = self.board.texts.of(numbers)
        return np.asarray(self.holds[:, places] & (places >= 0))

    def several(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Tell which of some texts hold more than one word of the question."""
        return np.asarray(self.many[self.board.texts.of(numbers)] > 1)

    def held(self, numbers: Numbers) -> Floats:
        """Return the share of the question's words that each of some nodes holds, by idf."""
        total = max(float(self._weights.sum()), 1e-9)
        return np.asarray(self._weights @ self.words_in(numbers) / total, np.float32)

    def shares(self, numbers: Numbers) -> list[float | None]:
        """Return the share of the question's words that each of some nodes holds, by idf."""
        if self.question is None:
            return [None] * len(numbers)
        return np.minimum(self.held(numbers).astype(np.float64), 1).round(6).tolist()  # type: ignore[no-any-return]


def _bm25(counts: Floats, lengths: Floats, weights: Floats, mean: float, parameters: tuple[float, float]) -> Floats:
    """Return BM25 of texts of some *lengths*, and of nobody, from how often each word stands in each (words, texts)."""
    k1, _ = parameters
    worth = counts + _slowness(lengths, mean, parameters)
    np.divide(counts, worth, out=worth)
    found = np.zeros(counts.shape[1] + 1, np.float32)
    np.matmul(weights * np.float32(k1 + 1), worth, out=found[:-1])
    return found


def _slowness(lengths: Floats, mean: float, parameters: tuple[float, float]) -> Floats:
    """Return how often a word has to stand in texts of some *lengths* to be worth half as much as it can be."""
    k1, b = parameters
    return (k1 * (1 - b) + k1 * b / max(mean, 1e-9) * lengths).astype(np.float32)


def _scale(best: float) -> Callable[[Floats], Floats]:
    factor, zero, one = np.float32(1 / best if best > 0 else 0), np.float32(0), np.float32(1)
    return lambda values: np.asarray(np.minimum(np.fmax(values, zero) * factor, one), np.float32)


def _once(parts: Sequence[Numbers], n: int) -> NDArray[np.int64]:
    """Return the numbers (below *n*) that are in any of *parts*, ascending, each once; not -1, which is nobody's."""
    if sum(map(len, parts)) * _FAR < n:
        numbers = np.concatenate(parts)
        numbers.sort()
        return numbers[np.flatnonzero(np.diff(numbers, prepend=-1))]
    there = np.zeros(n + 1, np.bool_)  # the last place is that of -1
    for some in parts:
        there[some] = True
    return np.flatnonzero(there[:-1])


def among(numbers: Numbers, known: Numbers) -> NDArray[np.int64]:
    """Return the place of each of *numbers* among the *known* (ascending, each once), -1 for those not there."""
    if not len(known):
        return np.full(len(numbers), -1)
    at = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
    return np.where(known[at] == numbers, at, -1)


def _top(values: Floats, pool: int) -> Numbers:
    """Return the places of the *pool* greatest of *values*, and of all that equal the last of them."""
    if len(values) <= pool:
        return np.arange(len(values))
    places = None
    if len(values) > _LARGE:
        # What twice as many of a sample reach as need be, enough of all reach, as a rule.
        sample, rank = values[::_SPARSE], 2 * pool // _SPARSE + _SPARSE
        if rank < len(sample):
            some = np.flatnonzero(values >= np.partition(sample, len(sample) - rank)[len(sample) - rank])
            if len(some) >= pool:
                places, values = some, values[some]
    least = np.partition(values, len(values) - pool)[len(values) - pool]
    best = np.flatnonzero(values >= least)
    return best if places is None else places[best]
