"""What the legs of a search say about the nodes of a corpus, and which nodes are worth comparing.

A question has to do with some of the nodes. What is said of these is held in lists as long as there are such nodes,
so that a question to a large memory does not pay for all of it.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

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

__all__ = ["DENSE", "FORM", "GRAPH", "LEGS", "LEXICAL", "TIME", "Board", "Evidence", "Listed"]

DENSE, LEXICAL, GRAPH, TIME, FORM = "dense", "lexical", "graph", "time", "form"
LEGS = (DENSE, LEXICAL, GRAPH, TIME, FORM)

_TOP = 50  # candidates whose links are followed
_SHORT, _LONG, _SESSION = (0.9, 0.4), (1.2, 0.95), (1.2, 0.75)  # k1 and b of BM25
_META = 0.5  # the weight of words that speak of the memory itself
_WEEK = 7 * 86_400.0


class Places:
    """The places of some numbers in a list, looked up without a search. Used again for the next list."""

    def __init__(self) -> None:
        self._at = np.full(1, -1, np.int32)  # the last place is that of -1, nobody
        self._numbers: Numbers = np.empty(0, np.int64)

    def put(self, numbers: Numbers, n: int) -> None:
        """Take *numbers* (below *n*, none below 0) instead of those before."""
        if n >= len(self._at):
            self._at = np.full(n + n // 8 + 2, -1, np.int32)
        else:
            self._at[self._numbers] = -1
        self._at[numbers] = np.arange(len(numbers), dtype=np.int32)
        self._numbers = numbers

    def of(self, numbers: Numbers) -> NDArray[np.int32]:
        """Return the place of each of *numbers*, -1 for those that are not there, and for -1."""
        return self._at[numbers]


class Board:
    """What evidence is written on: arrays as long as the corpus, made once for many questions. For one at a time."""

    def __init__(self) -> None:
        self.texts, self.sessions, self.compared = Places(), Places(), Places()
        self._said: Floats = np.empty(0, np.float32)
        self._spoken = (0, 0.0)

    def spoken(self, said: Floats) -> tuple[int, float]:
        """Return how many sessions have words, and how many in the mean, from how many each has."""
        if said is not self._said:
            held = int(np.count_nonzero(said))
            self._said, self._spoken = said, (held, float(said.sum(dtype=np.float64)) / max(held, 1))
        return self._spoken


class Values:
    """A value for each of some nodes; for all others, and for nobody (-1), the last one."""

    def __init__(self, values: Floats, places: Places | None = None) -> None:
        self.values, self._places = values, places

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
        self._board = board
        nothing, unknown = _Nothing(0.0), _Nothing(np.nan)
        self.similar: Values = unknown  # cosines with the question itself, for hits
        # Cosines with what sets the question apart, for the ranking: of whole texts, and of their nearest passages.
        self.whole: Values = unknown
        self.passage: Values = unknown
        self._best_whole = self._best_passage = 0.0  # of those that may be found
        self.nearest: Numbers = np.empty(0, np.int64)  # by meaning
        self.found: Numbers = np.empty(0, np.int64)  # texts that hold words of the question, or related ones
        self.words: Values = nothing
        self.exact_words: Values = nothing
        self.held: Values = nothing
        self.session: Values = nothing
        self.counts = np.empty((0, 0), np.float32)  # how often each word of the question stands in each of these
        self._compare: Compare | None = None
        if question is not None:
            self._look_for(question, related)
        self._may = self.allowed[self.found]

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
        self.found = _once(texts, len(corpus))
        place = self._put(self._board.texts, self.found)
        rows = np.repeat(np.array([at for at, *_ in (*own, *near)], np.int64), sizes)
        cells = rows * len(self.found) + place.of(texts)  # of a table (words, texts): how often each stands in each
        counts = np.zeros(len(weights) * len(self.found), np.float32)
        mine = int(sizes[: len(own)].sum())
        counts[cells[:mine]] = often[:mine]
        table = counts.reshape(len(weights), len(self.found))
        self.counts = table.copy()
        lengths = index.lengths()[self.found].astype(np.float32)
        self.exact_words = Values(_bm25(self.counts, lengths, weights, mean, _LONG), place)
        self.held = Values(_with_nothing(weights @ (self.counts > 0) / max(float(weights.sum()), 1e-9)), place)
        if GRAPH in self.legs:
            self._look_in_sessions(rows[:mine], corpus.sessions[texts[:mine]], often[:mine], share)

        # Of a text that holds several words related to one of the question's, the best one counts.
        closeness = np.repeat(np.array([close for *_, close in near], np.float32), sizes[len(own) :])
        np.maximum.at(counts, cells[mine:], closeness * often[mine:].astype(np.float32))
        self.words = Values(_bm25(table, lengths, weights, mean, _SHORT), place)

    def _put(self, places: Places, numbers: Numbers) -> Places:
        places.put(numbers, len(self.corpus))
        return places

    def _look_in_sessions(self, words: Numbers, sessions: Numbers, often: Numbers, share: Floats) -> None:
        """Fill in BM25 of every session as one text, from which word stands how often in a text of which session."""
        inside = sessions >= 0
        if not inside.all():
            words, sessions, often = words[inside], sessions[inside], often[inside]
        if not len(sessions):
            return
        said = self.corpus.said()
        held, mean = self._board.spoken(said)
        numbers = _once(sessions, len(self.corpus))
        place = self._put(self._board.sessions, numbers)
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
        theirs = self.corpus.sessions[self.found]
        some = np.flatnonzero(wanted[theirs] & (values.values[:-1] > 0))
        names, at = np.unique(sessions, return_inverse=True)
        best = np.zeros(len(names), np.float32)
        np.maximum.at(best, np.searchsorted(names, theirs[some]), self._scale(self._best(values))(values.values[some]))
        return best[at.ravel()]

    # --- meaning ------------------------------------------------------------------------------------------------

    @property
    def cosines(self) -> Callable[[Numbers], Floats]:
        """The cosine of the nearest passage or of the whole; NaN where there is no vector, or nobody looked."""
        return lambda numbers: np.fmax(self.whole(numbers), self.passage(numbers))

    def know(self, whole: Floats, passage: Floats) -> None:
        """Take the cosines of all nodes, and of nobody at the end, NaN for those without a vector."""
        self.whole, self.passage = Values(whole), Values(passage)
        at = [np.flatnonzero(self.allowed & ~np.isnan(values[:-1])) for values in (whole, passage)]
        self._note_nearest(*((numbers, values[numbers]) for numbers, values in zip(at, (whole, passage), strict=True)))

    def know_nearest(self, whole: tuple[Numbers, Floats], passage: tuple[Numbers, Floats], compare: Compare) -> None:
        """Take the nearest, their numbers and cosines, and a function that compares further nodes (ascending)."""
        self._note_nearest(whole, passage)
        self._compare = compare
        self._fill(self.to_compare())

    def _note_nearest(self, whole: tuple[Numbers, Floats], passage: tuple[Numbers, Floats]) -> None:
        """Note the nearest texts of each kind, as wholes and by their passages."""
        codes = [code for kind in EMBEDDED if (code := self.corpus.code(kind)) >= 0]
        parts = [self.nearest]
        for numbers, values in (whole, passage):
            kinds = self.corpus.kinds[numbers]
            for code in codes:
                some = np.flatnonzero(kinds == code)
                if len(some):
                    parts.append(_top(numbers[some], values[some], self.pool))
        self.nearest = np.unique(np.concatenate(parts))
        self._best_whole, self._best_passage = (
            float(values.max(initial=np.float32(0))) for _, values in (whole, passage)
        )

    def _fill(self, numbers: Numbers) -> None:
        """Compare the nodes with these *numbers* (ascending)."""
        if self._compare is not None:
            places = self._put(self._board.compared, numbers)
            nobody = np.full(1, np.nan, np.float32)
            whole, passage = self._compare(numbers)
            self.whole = Values(np.concatenate([whole, nobody]), places)
            self.passage = Values(np.concatenate([passage, nobody]), places)

    # --- who is compared ----------------------------------------------------------------------------------------

    def candidates(self) -> NDArray[np.int64]:
        """Return the numbers of the nodes worth comparing, ascending: chosen once, when all legs have found theirs."""
        return self._candidates

    @cached_property
    def _candidates(self) -> NDArray[np.int64]:
        corpus = self.corpus
        there = np.zeros(len(corpus) + 1, np.bool_)  # the last place is that of -1, nobody
        there[self.nearest] = True
        for scores in (self.words, self.exact_words):
            some = np.flatnonzero((scores.values[:-1] > 0) & self._may)
            there[_top(self.found[some], scores.values[some], self.pool)] = True
        if self.spans:
            there[np.flatnonzero((self.timely > 0) & self.allowed)[-self.pool :]] = True
        if GRAPH in self.legs:
            numbers = np.flatnonzero(there[:-1])
            if corpus.linked:
                self._fill(numbers)
                there[[other for number in self._first(numbers) for other, _ in corpus.linked.get(number, ())]] = True
            for column in (corpus.previous, corpus.following, corpus.asked, corpus.answer, corpus.newer):
                there[column[numbers]] = True
            there[-1] = False
            newest: Numbers = np.flatnonzero(there)
            while len(newest):  # along chains of what supersedes
                newer = corpus.newer[newest]
                newest = newer[~there[newer] & (newer >= 0)]
                there[newest] = True
        found = np.flatnonzero(there[:-1])
        return found[self.allowed[found]]

    def _first(self, numbers: Numbers) -> list[int]:
        """Return those of *numbers* whose links are followed: the best by words and meaning."""
        scores = self.scaled(self.words)(numbers) + np.nan_to_num(self.cosines(numbers))
        return [int(number) for number in numbers[np.argsort(-scores, kind="stable")[:_TOP]]]

    def to_compare(self) -> NDArray[np.int64]:
        """Return the nodes whose cosines the ranking asks for, ascending."""
        numbers, corpus = self.candidates(), self.corpus
        wanted = np.zeros(len(corpus) + 1, np.bool_)  # the last place is that of -1, nobody
        for some in (numbers, corpus.previous[numbers], corpus.following[numbers], corpus.answer[numbers]):
            wanted[some] = True
        if corpus.linked:
            links = [corpus.linked[number] for number in numbers.tolist() if number in corpus.linked]
            wanted[[other for other, _ in chain.from_iterable(links)]] = True
        return np.flatnonzero(wanted[:-1])

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

    def _best(self, values: Values) -> float:
        """Return the best of the texts that hold words, of those that may be found."""
        return float(values.values[:-1][self._may].max(initial=np.float32(0)))

    def scaled(self, values: Values) -> Callable[[Numbers], Floats]:
        """Return a function from numbers of nodes to `words` or `exact_words` over the best allowed, from 0 to 1.

        Nobody, -1, has 0.
        """
        scale = self._scale(self._best(values))
        return lambda numbers: scale(values(numbers))

    @staticmethod
    def _scale(best: float) -> Callable[[Floats], Floats]:
        factor, zero, one = np.float32(1 / best if best > 0 else 0), np.float32(0), np.float32(1)
        return lambda values: np.asarray(np.minimum(np.fmax(values, zero) * factor, one), np.float32)

    def near(self) -> Callable[[Numbers], Floats]:
        """Return a function that tells how near nodes are: half as wholes, half by the nearest passage, each scaled."""
        whole, passage = self._scale(self._best_whole), self._scale(max(self._best_whole, self._best_passage))

        def of(numbers: Numbers) -> Floats:
            mine = self.whole(numbers)
            together = whole(mine) + passage(np.fmax(mine, self.passage(numbers)))
            return np.asarray(together * np.float32(0.5), np.float32)

        return of

    def where(self, numbers: Numbers) -> tuple[NDArray[np.bool_], Numbers]:
        """Tell which of some nodes hold words of the question or related ones, and where they are in `found`."""
        if not len(self.found):
            return np.zeros(len(numbers), np.bool_), np.zeros(0, np.int64)
        places = self._board.texts.of(numbers)
        return places >= 0, places

    # --- for hits -----------------------------------------------------------------------------------------------

    def shares(self, numbers: Numbers) -> list[float | None]:
        """Return the share of the question's words that each of some nodes holds, by idf."""
        if self.question is None:
            return [None] * len(numbers)
        return np.minimum(self.held(numbers).astype(np.float64), 1).round(6).tolist()  # type: ignore[no-any-return]


def _bm25(counts: Floats, lengths: Numbers, weights: Floats, mean: float, parameters: tuple[float, float]) -> Floats:
    """Return BM25 of texts of some *lengths*, and of nobody, from how often each word stands in each (words, texts)."""
    k1, b = parameters
    slow = (k1 * (1 - b) + k1 * b / max(mean, 1e-9) * lengths.astype(np.float32)).astype(np.float32)
    return _with_nothing((weights * np.float32(k1 + 1)) @ (counts / (counts + slow)))


def _with_nothing(values: Floats) -> Floats:
    """Return *values* and a 0 for nobody."""
    longer = np.zeros(len(values) + 1, np.float32)
    longer[:-1] = values
    return longer


def _once(some: Numbers, n: int) -> NDArray[np.int64]:
    """Return all numbers (below *n*, none below 0) among *some*, ascending and once."""
    there = np.zeros(n, np.bool_)
    there[some] = True
    return np.flatnonzero(there)


def _top(numbers: Numbers, values: Floats, pool: int) -> Numbers:
    """Return those of *numbers* with the *pool* greatest values, and all that equal the last of them."""
    if len(numbers) <= pool:
        return numbers
    return np.asarray(numbers[values >= np.partition(values, len(values) - pool)[len(values) - pool]])
