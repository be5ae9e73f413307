"""What the legs of a search say about the nodes of a corpus, and which nodes are worth comparing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .passages import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from .corpus import Corpus
    from .index.lexical import Question
    from .related import RelatedWords
    from .when import Span

    Floats = NDArray[np.float32]
    Numbers = NDArray[Any]

__all__ = ["DENSE", "FORM", "GRAPH", "LEGS", "LEXICAL", "TIME", "Evidence"]

DENSE, LEXICAL, GRAPH, TIME, FORM = "dense", "lexical", "graph", "time", "form"
LEGS = (DENSE, LEXICAL, GRAPH, TIME, FORM)

_TOP = 50  # candidates whose links are followed
_SHORT, _LONG, _SESSION = (0.9, 0.4), (1.2, 0.95), (1.2, 0.75)  # k1 and b of BM25
_META = 0.5  # the weight of words that speak of the memory itself
_WEEK = 7 * 86_400.0


class Evidence:
    """What the legs say about the nodes of a corpus, for one question. Arrays have one entry per node."""

    def __init__(
        self,
        corpus: Corpus,
        query: str,
        question: Question | None,
        related: RelatedWords,
        allowed: NDArray[np.bool_],
        spans: Sequence[Span],
        legs: frozenset[str],
        pool: int,
    ) -> None:
        self.corpus, self.query, self.question = corpus, query, question
        self.allowed, self.spans, self.legs, self.pool = allowed, spans, legs, pool
        self._everybody = bool(allowed.all())
        n = len(corpus)
        self.similar = np.full(n, np.nan, np.float32)  # cosines with the question itself, for hits
        self.whole = np.full(n, np.nan, np.float32)  # cosines with what sets the question apart, for the ranking
        self.passage = np.full(n, np.nan, np.float32)
        self.nearest: Numbers = np.empty(0, np.int64)  # by meaning
        self._candidates: NDArray[np.int64] | None = None
        self.words = self.exact_words = self.held = self.session = np.zeros(n, np.float32)
        self.texts: Numbers = np.empty(0, np.int64)  # that hold words of the question
        self.counts = np.empty((0, 0), np.float32)  # how often each of its words stands in each of these
        if question is not None:
            self._look_for(question, related)

    @property
    def cosines(self) -> Floats:
        """The cosine of the nearest passage or of the whole; NaN where there is no vector, or nobody looked."""
        return np.fmax(self.whole, self.passage)

    def _look_for(self, question: Question, related: RelatedWords) -> None:
        """Fill in what the words say; all words at once, because numpy costs by the call."""
        corpus, index = self.corpus, self.corpus.words
        mean = index.total / max(index.held, 1)
        lengths = index.lengths()
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
        numbers, place = _joined(texts, len(corpus))
        rows = np.repeat(np.array([at for at, *_ in (*own, *near)], np.int64), sizes)
        cells = rows * len(numbers) + place[texts]  # of a table (words, texts): how often each stands in each
        counts = np.zeros(len(weights) * len(numbers), np.float32)
        mine = int(sizes[: len(own)].sum())
        counts[cells[:mine]] = often[:mine]
        table = counts.reshape(len(weights), len(numbers))
        held = np.flatnonzero(table.any(axis=0))
        self.texts, self.counts = numbers[held], table[:, held]
        self.exact_words = self._bm25(self.counts, self.texts, weights, lengths, mean, _LONG)
        self.held = np.zeros(len(corpus), np.float32)
        self.held[self.texts] = weights @ (self.counts > 0) / max(float(weights.sum()), 1e-9)
        self._look_in_sessions(self.counts, self.texts, share)

        # Of a text that holds several words related to one of the question's, the best one counts.
        closeness = np.repeat(np.array([close for *_, close in near], np.float32), sizes[len(own) :])
        np.maximum.at(counts, cells[mine:], closeness * often[mine:])
        self.words = self._bm25(table, numbers, weights, lengths, mean, _SHORT)

    def _bm25(
        self,
        counts: Floats,
        texts: Numbers,
        weights: Floats,
        lengths: Numbers,
        mean: float,
        parameters: tuple[float, float],
    ) -> Floats:
        """Return BM25 of every node, from how often each word stands in each of *texts* (words, texts)."""
        k1, b = parameters
        slow = (k1 * (1 - b) + k1 * b / max(mean, 1e-9) * lengths[texts].astype(np.float32)).astype(np.float32)
        found = np.zeros(len(self.corpus), np.float32)
        found[texts] = (weights * np.float32(k1 + 1)) @ (counts / (counts + slow))
        return found

    def _look_in_sessions(self, counts: Floats, texts: Numbers, share: Floats) -> None:
        """Fill in BM25 of every session as one text, from how often each word stands in each of *texts*."""
        sessions, n = self.corpus.sessions, len(self.corpus)
        said = self.corpus.said()
        held = int(np.count_nonzero(said))
        numbers, at = _joined(sessions[texts], n)
        if not len(numbers):
            return
        word, text = np.nonzero(counts * (sessions[texts] >= 0))
        cells = word * len(numbers) + at[sessions[texts[text]]]
        often = np.bincount(cells, counts[word, text], len(share) * len(numbers)).astype(np.float32)
        often = often.reshape(len(share), len(numbers))
        spread = np.count_nonzero(often, axis=1)  # sessions that hold the word
        rarity = np.log1p((held - spread + 0.5) / (spread + 0.5)).astype(np.float32) * share
        # The mean is that of the sessions, not of all texts.
        self.session = self._bm25(often, numbers, rarity, said, float(said.sum(dtype=np.float64)) / held, _SESSION)

    # --- who is compared ----------------------------------------------------------------------------------------

    def candidates(self) -> NDArray[np.int64]:
        """Return the numbers of the nodes worth comparing, ascending: chosen once, when all legs have found theirs."""
        if self._candidates is None:
            self._candidates = self._choose()
        return self._candidates

    def find_nearest(self) -> None:
        """Note the nearest texts of each kind, as wholes and by their passages."""
        there = np.zeros(len(self.corpus), np.bool_)
        codes = [code for kind in EMBEDDED if (code := self.corpus.code(kind)) >= 0]
        for cosines in (self.whole, self.passage):
            known = np.flatnonzero(self.allowed & ~np.isnan(cosines))
            if not len(known):
                continue
            values, kinds = cosines[known], self.corpus.kinds[known]
            for code in codes:
                some = np.flatnonzero(kinds == code)
                there[_top(known[some], values[some], self.pool)] = True
        self.nearest = np.flatnonzero(there)

    def _choose(self) -> NDArray[np.int64]:
        corpus = self.corpus
        there = np.zeros(len(corpus) + 1, np.bool_)  # the last place is that of -1, nobody
        there[self.nearest] = True
        for scores in (self.words, self.exact_words):
            some = np.flatnonzero((scores > 0) & self.allowed)
            there[_top(some, scores[some], self.pool)] = True
        if self.spans:
            there[np.flatnonzero((self.timely() > 0) & self.allowed)[-self.pool :]] = True
        if GRAPH in self.legs:
            numbers = np.flatnonzero(there[:-1])
            if corpus.linked:
                there[[other for number in self._best(numbers) for other, _ in corpus.linked.get(number, ())]] = True
            for column in (corpus.previous, corpus.following, corpus.asked, corpus.answer, corpus.newer):
                there[column[numbers]] = True
            there[-1] = False
            newest: Numbers = np.flatnonzero(there)
            while len(newest):  # along chains of what supersedes
                newer = corpus.newer[newest]
                newest = newer[~there[newer] & (newer >= 0)]
                there[newest] = True
        return np.flatnonzero(there[:-1] & self.allowed)

    def _best(self, numbers: Numbers) -> list[int]:
        scores = self.scaled(self.words)(numbers) + np.nan_to_num(self.cosines[numbers])
        return [int(number) for number in numbers[np.argsort(-scores, kind="stable")[:_TOP]]]

    def to_compare(self) -> NDArray[np.int64]:
        """Return the nodes whose cosines the ranking asks for, ascending."""
        numbers, corpus = self.candidates(), self.corpus
        wanted = np.zeros(len(corpus) + 1, np.bool_)  # the last place is that of -1, nobody
        for some in (numbers, corpus.previous[numbers], corpus.following[numbers], corpus.answer[numbers]):
            wanted[some] = True
        return np.flatnonzero(wanted[:-1])

    def timely(self) -> Floats:
        """Return how well the time of each node fits the times that the question names."""
        fit = np.zeros(len(self.corpus), np.float32)
        times = self.corpus.times
        for start, end, _ in self.spans:
            # People speak of a thing soon after it happened: the week after a time fits half as well.
            with np.errstate(invalid="ignore"):
                fit = np.maximum(fit, np.where((times >= start) & (times < end), 1.0, 0.0).astype(np.float32))
                fit = np.maximum(fit, np.where((times >= end) & (times < end + _WEEK), 0.5, 0.0).astype(np.float32))
        return fit

    # --- on one scale -------------------------------------------------------------------------------------------

    def scaled(self, values: Floats) -> Callable[[Numbers], Floats]:
        """Return a function from numbers of nodes to their *values* over the best of those allowed, from 0 to 1.

        Nobody, -1, has 0. Of a large memory only what is asked for is computed.
        """
        best = float(np.fmax.reduce(values if self._everybody else values[self.allowed], initial=np.float32(0)))
        factor, zero, one = np.float32(1 / best if best > 0 else 0), np.float32(0), np.float32(1)

        def of(numbers: Numbers) -> Floats:
            found: Floats = np.minimum(np.fmax(values[numbers], zero) * factor, one)
            found[numbers < 0] = 0
            return found

        return of

    def near(self) -> Callable[[Numbers], Floats]:
        """Return a function that tells how near nodes are: half as wholes, half by the nearest passage, each scaled."""
        whole, passage = self.scaled(self.whole), self.scaled(self.cosines)
        return lambda numbers: np.asarray((whole(numbers) + passage(numbers)) * np.float32(0.5), np.float32)

    # --- for hits -----------------------------------------------------------------------------------------------

    def shares(self, numbers: Numbers) -> list[float | None]:
        """Return the share of the question's words that each of some nodes holds, by idf."""
        if self.question is None:
            return [None] * len(numbers)
        return np.minimum(self.held[numbers].astype(np.float64), 1).round(6).tolist()  # type: ignore[no-any-return]


def _joined(some: Numbers, n: int) -> tuple[Numbers, Numbers]:
    """Return all numbers (below *n*, none below 0) among *some*, ascending and once, and at each its place there."""
    there = np.zeros(n + 1, np.bool_)  # the last place is that of -1, nobody
    there[some] = True
    numbers = np.flatnonzero(there[:n])
    place = np.zeros(n, np.int32)
    place[numbers] = np.arange(len(numbers), dtype=np.int32)
    return numbers, place


def _top(numbers: Numbers, values: Floats, pool: int) -> Numbers:
    """Return those of *numbers* with the *pool* greatest values, and all that equal the last of them."""
    if len(numbers) <= pool:
        return numbers
    return np.asarray(numbers[values >= np.partition(values, len(values) - pool)[len(values) - pool]])
