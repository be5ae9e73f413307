"""Finding what matters: the legs of a search, who may be found, and hits with their reasons.

`Recall` reads: which nodes are wanted (filters), what each leg says about them, and what belongs to the best of them.
How the legs become one score is the business of `ranking`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from .answers import Answers, around, named
from .corpus import Corpus, seconds
from .errors import EmbedderMismatch, EmbeddingError, IndexUnavailable, InvalidInput, MissingDependency
from .evidence import DENSE, LEGS, LEXICAL, TIME, Board, Evidence, Listed
from .filters import condition
from .hits import Hit, Hits, Why
from .matching import looked_for, matches
from .mutex import Mutex
from .nodes import FRAGMENT
from .passages import EMBEDDED
from .places import places_of
from .ranking import observe, rank, resemblance
from .records import checked_count, checked_ids, checked_text, shown, utc
from .related import RelatedWords
from .saved_words import SavedWords
from .wanted import Selection, Wanted, scope_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .dense import Dense
    from .hits import Place
    from .index import Scope
    from .nodes import Node
    from .ranking import Observations, Ranking, Weights
    from .store import Store
    from .wanted import Allowed

__all__ = ["Recall", "Wanted"]

_POOL = 200  # candidates by meaning, for each kind of text, and by words; more hardly change who comes first
_DAY = 86_400.0
_AGES = 1_000_000_000  # days; longer than anything lasted
_SELECTIVE = 16  # where no more than one in so many may be found, they are compared alone
_ANYTHING = Wanted()
_SAME = 0.9  # resemblance from which two texts are near-copies


class Recall:
    """The search over one namespace of a store; safe to share between threads."""

    def __init__(self, store: Store, dense: Dense, namespace: str, language: str) -> None:
        self._store = store
        self._dense = dense
        self._namespace = namespace
        self._lock = Mutex()
        self._corpus = Corpus(store, namespace, language)
        self._saved = SavedWords(store, namespace)
        self._selection = Selection(self._corpus, store)
        self._related: RelatedWords | None = None
        self._board = Board()

    def __call__(self, query: str, k: int, wanted: Wanted, weights: Weights) -> Hits:
        """Return the *k* best hits for *query* among the nodes *wanted*."""
        checked_text(query, "a question")
        checked_count(k, "the number of hits")
        legs = _checked_legs(wanted.legs)
        for name in ("recency", "diversity", "min_similarity", "min_coverage"):
            _checked_share(getattr(wanted, name), name)
        if (
            isinstance(wanted.half_life, bool)
            or not isinstance(wanted.half_life, (int, float))
            or not 0 < wanted.half_life <= _AGES
        ):
            raise InvalidInput(
                f"half_life must be a number of days above 0, at most {_AGES:,}, not {shown(wanted.half_life)}."
            )
        for name, leg in (("min_similarity", DENSE), ("min_coverage", LEXICAL)):
            if getattr(wanted, name) is not None and leg not in legs:
                raise InvalidInput(f"{name} compares what the leg {leg!r} finds. Add it to legs, or leave {name} out.")
        now = _moment(wanted)
        skipped: dict[str, str] = {}
        vector = self._vector(query, skipped) if DENSE in legs else None  # outside the lock: a model may be slow
        with self._lock.lock:
            self._catch_up()
            try:
                hits, timed = self._hits(query, k, wanted, weights, vector, legs, skipped, now)
            except IndexUnavailable as exc:
                skipped[DENSE] = str(exc)
                hits, timed = self._hits(query, k, wanted, weights, None, legs, skipped, now)
        ran = [leg for leg in LEGS if leg in legs and leg not in skipped and (leg != TIME or timed)]
        return Hits(hits, skipped, ran)

    def _hits(
        self,
        query: str,
        k: int,
        wanted: Wanted,
        weights: Weights,
        vector: NDArray[np.float32] | None,
        legs: frozenset[str],
        skipped: dict[str, str],
        now: float,
    ) -> tuple[Sequence[Hit], bool]:
        """Return the best hits, and whether the question speaks of a time."""
        allowed, pool = self._selection.allowed(wanted), max(_POOL, k)
        scope = scope_of(wanted, self._namespace)
        picky = wanted.fold or wanted.min_similarity is not None or wanted.min_coverage is not None
        while True:
            evidence = self._evidence(query, pool, vector, allowed, legs, skipped, now, scope)
            ranking = rank(observe(evidence), weights)
            if wanted.recency:
                ranking.renew(self._corpus.times, now, wanted.recency, wanted.half_life * _DAY)
            if vector is not None and wanted.min_similarity is not None:
                self._compare(evidence, vector, ranking.numbers)
            ranking.cut(evidence, wanted.min_similarity, wanted.min_coverage)
            chosen, folded = self._chosen(ranking, k, wanted)
            if len(chosen) >= k or not picky or pool >= len(self._corpus):
                break
            pool *= 4  # too many were copies, or below a threshold
        if vector is not None and wanted.min_similarity is None:
            self._compare(evidence, vector, ranking.numbers[chosen])
        hits = Answers(self._corpus, ranking, evidence, chosen, folded, self._store.at_rows, self._placed)
        return hits, bool(evidence.spans)

    def similar(self, question: Any, k: int, kinds: str | Sequence[str] | None, wanted: Wanted) -> Hits:
        """Return the *k* texts of *kinds* (None: of all) that are nearest to *question*, a text or a vector.

        What is *wanted* besides says nothing of kinds.
        """
        fields = checked_ids(kinds, "a kind of node") if kinds is not None else list(EMBEDDED)
        for field in fields:
            if field not in EMBEDDED:
                raise InvalidInput(
                    f"Nothing of the kind {field!r} has a vector. Choose some of: {', '.join(EMBEDDED)}; or use recall."
                )
        among = None
        if wanted != _ANYTHING:
            with self._lock.lock:
                self._catch_up()
                among = self._corpus.version, self._corpus.rows[self._selection.numbers(wanted)]
        scope = scope_of(wanted, self._namespace)
        return self._dense.search(question, k, self._namespace, list(dict.fromkeys(fields)), among, scope)

    def matching(self, words: str, k: int, wanted: Wanted, *, every: bool) -> Hits:
        """Return the *k* nodes *wanted* whose texts match *words* best: that hold any of them, or *every* one."""
        checked_text(words, "what to look for")
        checked_count(k, "the number of hits")
        if not isinstance(every, bool):
            raise InvalidInput(f"every must be True or False, not {shown(every)}.")
        with self._lock.lock:
            self._catch_up()
            corpus = self._corpus
            skipped: dict[str, str] = {}
            asked = looked_for(corpus.words, words)
            if not asked:
                return Hits(skipped={LEXICAL: "there are no words to look for"})
            if corpus.words.words.missing is not None:
                skipped["stemming"] = corpus.words.words.missing
            allowed = self._selection.allowed(wanted)
            may = None if allowed.numbers is None else allowed.mask
            found = matches(corpus.words, asked, k, may, self._board.texts, every=every)
            rows = corpus.rows[found.numbers].tolist()
            nodes = self._store.at_rows(rows)
            fragments = [node for node in nodes.values() if node.kind == FRAGMENT]
            placed = self._placed(fragments) if fragments else {}
        idf, written = np.array([word.idf for word in asked]), [word.written for word in asked]
        shares = (idf @ found.held / max(float(idf.sum()), 1e-9)).round(6).tolist()
        hits = [
            Hit(
                node,
                score,
                coverage=share,
                why=Why({LEXICAL: score}, tuple(compress(written, held))),
                place=placed.get(node.id),
            )
            for row, score, share, held in zip(
                rows, found.scores.round(6).tolist(), shares, found.held.T.tolist(), strict=True
            )
            if (node := nodes.get(row)) is not None
        ]
        return Hits(hits, skipped, [LEXICAL])

    def observe(self, query: str, wanted: Wanted) -> tuple[list[str], Observations]:
        """Return the ids of the candidates for *query* among the nodes *wanted*, and what is observed of each."""
        legs, now = _checked_legs(wanted.legs), _moment(wanted)
        skipped: dict[str, str] = {}
        vector = self._vector(checked_text(query, "a question"), skipped) if DENSE in legs else None
        with self._lock.lock:
            self._catch_up()
            observed = observe(
                self._evidence(
                    query,
                    _POOL,
                    vector,
                    self._selection.allowed(wanted),
                    legs,
                    skipped,
                    now,
                    scope_of(wanted, self._namespace),
                )
            )
            return [self._corpus.ids[number] for number in observed.numbers.tolist()], observed

    def close(self) -> None:
        """Save what it knows of the store, if that changed enough to be worth it."""
        with self._lock.lock:
            if self._saved.worth_saving(self._corpus):
                self._saved.save(self._corpus, self._related)

    def _catch_up(self) -> None:
        if self._corpus.version < 0:
            self._related = self._saved.load(self._corpus)
        self._corpus.catch_up()

    def near(self, wanted: Wanted) -> Callable[[Hit, int], list[Hit]]:
        """Return a function from a hit and a distance to what is said there: at 0 in exchange, at n the n-th turns.

        What *wanted* keeps out is not brought in by what stands beside it. These hits have no score and no reasons.
        """
        fits = (lambda _: True) if wanted.where is None else condition(wanted.where)
        others = wanted._replace(where=None)
        with self._lock.lock:
            self._catch_up()
        allowed, known = np.zeros(0, np.bool_), (-1, -1)

        def near(hit: Hit, distance: int) -> list[Hit]:
            nonlocal allowed, known
            with self._lock.lock:
                corpus = self._corpus
                if known != (corpus.writes, corpus.rewrites):
                    allowed, known = self._selection.allowed(others).mask, (corpus.writes, corpus.rewrites)
                number = corpus.number(hit.id)
                if number < 0:  # forgotten since the search
                    return []
                ((prompt, answers),) = around(corpus, np.array([number]))
                at = [prompt, *answers] if distance == 0 else self._turns(number, distance)
                return [
                    said
                    for said in self._said([one for one in at if one >= 0 and one != number and allowed[one]])
                    if fits(said.node.attributes)
                ]

        return near

    def _turns(self, number: int, distance: int) -> list[int]:
        """Return what stands *distance* turns after and before in its session, -1 for nothing."""
        after = before = number
        for _ in range(distance):
            after = int(self._corpus.following[after]) if after >= 0 else -1
            before = int(self._corpus.previous[before]) if before >= 0 else -1
        return [after, before]

    def _said(self, numbers: Sequence[int]) -> list[Hit]:
        """Return nodes as hits without a score: who said it, and where."""
        corpus = self._corpus
        agents = {number: int(corpus.agents[number]) for number in numbers}
        nodes = self._store.at_rows([int(corpus.rows[one]) for one in {*numbers, *agents.values()} if one >= 0])
        found = {number: nodes.get(int(corpus.rows[number])) for number in {*numbers, *agents.values()} if number >= 0}
        places = self._placed([node for node in found.values() if node is not None])
        return [
            Hit(
                node,
                0.0,
                speaker=named(node, found.get(agents[number])),
                session=corpus.ids[corpus.sessions[number]] if corpus.sessions[number] >= 0 else None,
                place=places.get(node.id),
            )
            for number in numbers
            if (node := found[number]) is not None
        ]

    def _placed(self, nodes: Sequence[Node]) -> dict[str, Place]:
        return places_of(self._store, self._namespace, nodes)

    # --- what the legs say --------------------------------------------------------------------------------------

    def _vector(self, query: str, skipped: dict[str, str]) -> NDArray[np.float32] | None:
        """Return the vector of the question, or None and the reason in *skipped*: words are found without a model."""
        if (lost := self._dense.lost()) is not None:
            skipped[DENSE] = lost
            return None
        try:
            if not self._dense.size():
                skipped[DENSE] = "no text here has a vector"
                return None
            vector = self._dense.embed([query], queries=True)[0]
        except (MissingDependency, EmbedderMismatch, EmbeddingError, IndexUnavailable) as exc:
            skipped[DENSE] = str(exc)
            return None
        if not vector.any():
            skipped[DENSE] = self._dense.unknown_words("the question")
            return None
        return vector  # type: ignore[no-any-return]

    def _evidence(
        self,
        query: str,
        pool: int,
        vector: NDArray[np.float32] | None,
        allowed: Allowed,
        legs: frozenset[str],
        skipped: dict[str, str],
        now: float,
        scope: Scope,
    ) -> Evidence:
        corpus = self._corpus
        question = corpus.words.question(query) if LEXICAL in legs else None
        if question is not None:
            if not question.terms:
                skipped[LEXICAL] = "the question has no words to look for"
                question = None
            elif corpus.words.words.missing is not None:
                skipped["stemming"] = corpus.words.words.missing
        spans = []
        if TIME in legs:
            from .when import spans_in  # its patterns take their time, and nearest vectors need none

            first = corpus.earliest()
            spans = spans_in(query, now, now if math.isnan(first) else first)
        if self._related is None or self._related.index is not corpus.words:
            self._related = RelatedWords(corpus.words)  # the corpus was read anew
        evidence = Evidence(corpus, query, question, self._related, allowed, spans, legs, pool, self._board)
        if vector is not None:
            lean = self._dense.contrasted(vector, self._namespace, corpus.version)
            self._look(evidence, lean, allowed, skipped, scope)
        return evidence

    def _look(
        self,
        evidence: Evidence,
        vector: NDArray[np.float32],
        allowed: Allowed,
        skipped: dict[str, str],
        scope: Scope,
    ) -> None:
        """Fill in the cosines: of all texts, or of the nearest and of those that the ranking is going to compare."""
        corpus, version = self._corpus, self._corpus.version
        scanned = None
        if allowed.numbers is None or len(allowed.numbers) * _SELECTIVE > len(corpus):
            scanned = [self._scanned(vector, passages=passages) for passages in (False, True)]
        if scanned is not None and scanned[0] is not None and scanned[1] is not None:
            evidence.know(scanned[0], scanned[1])
        else:
            among = None if allowed.numbers is None else corpus.rows[allowed.numbers]
            whole, passage = (
                self._numbered(
                    *self._dense.nearest(
                        vector,
                        evidence.pool,
                        self._namespace,
                        version=version,
                        passages=passages,
                        among=among,
                        scope=scope,
                        rough=True,
                    )
                )
                for passages in (False, True)
            )
            evidence.know_nearest(
                whole, passage, lambda numbers: self._dense.cosines(vector, corpus.rows[numbers], version, exact=False)
            )
        having = np.bincount(corpus.kinds[evidence.nearest], minlength=len(corpus.names))
        codes = {kind: corpus.code(kind) for kind in EMBEDDED}
        lacking = [kind for kind, code in codes.items() if code >= 0 and allowed.kinds[code] and not having[code]]
        if lacking and len(lacking) < len(EMBEDDED):
            skipped.update({f"{DENSE} ({kind})": f"no {kind} has a vector; reindex makes them" for kind in lacking})

    def _scanned(self, vector: NDArray[np.float32], *, passages: bool) -> NDArray[np.float32] | None:
        """Return the cosine of every node and of nobody, NaN without a vector; None where searching is faster."""
        found = self._dense.scan(vector, self._namespace, self._corpus.version, passages=passages)
        if found is None:
            return None
        cosines = np.full(len(self._corpus) + 1, np.nan, np.float32)
        for some in found:
            numbers, scores = self._numbered(*some)
            if passages:
                np.fmax.at(cosines, numbers, scores)  # of several, the best
            else:
                cosines[numbers] = scores
        return cosines

    def _numbered(
        self, rows: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the numbers of nodes at *rows*, with their scores, of those that are known."""
        numbers = self._corpus.numbers(rows)
        known = numbers >= 0  # not of another namespace, nor newer than the corpus
        return (numbers, scores) if known.all() else (numbers[known], scores[known])

    def _compare(self, evidence: Evidence, vector: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """Note the cosines of some nodes with the question itself."""
        numbers = np.sort(numbers)
        corpus = self._corpus
        cosines = np.fmax(*self._dense.cosines(vector, corpus.rows[numbers], corpus.version))
        evidence.similar = Listed(numbers, cosines)

    # --- the best of them ---------------------------------------------------------------------------------------

    def _chosen(self, ranking: Ranking, k: int, wanted: Wanted) -> tuple[list[int], dict[int, list[int]]]:
        """Return the places in the ranking to show, best first, and the near-copies folded into each."""
        if not wanted.fold and not wanted.diversity:
            return ranking.best(k), {}
        order = ranking.best(len(ranking.numbers))
        size = max(4 * k, 50)
        while True:
            pool = order[:size]
            alike = resemblance(self._corpus, ranking.numbers[pool])
            left, folded = _folded(alike) if wanted.fold else (list(range(len(pool))), {})
            if len(left) >= k or size >= len(order):
                break
            size *= 4  # hardly anything but copies of each other
        if wanted.diversity:
            # Carbonell and Goldstein, "The Use of MMR" (1998).
            scores = ranking.scores[pool]
            picked: list[int] = []
            while left and len(picked) < k:
                nearest = alike[:, picked].max(axis=1) if picked else np.zeros(len(pool))
                worth = (1 - wanted.diversity) * scores - wanted.diversity * nearest
                best = max(left, key=lambda place: (worth[place], -place))
                picked.append(best)
                left.remove(best)
            left = picked
        copies = {pool[place]: [pool[other] for other in others] for place, others in folded.items()}
        return [pool[place] for place in left[:k]], copies


def _folded(alike: NDArray[np.float64]) -> tuple[list[int], dict[int, list[int]]]:
    """Return the first of each group of near-copies, and which are the copies of each."""
    kept: list[int] = []
    folded: dict[int, list[int]] = {}
    for place in range(len(alike)):
        copies = np.flatnonzero(alike[place, kept] >= _SAME).tolist()
        if copies:
            folded.setdefault(kept[copies[0]], []).append(place)
        else:
            kept.append(place)
    return kept, folded


def _moment(wanted: Wanted) -> float:
    """Return the moment from which a question is seen."""
    return time.time() if wanted.now is None else seconds(utc(wanted.now))


def _checked_legs(legs: Any) -> frozenset[str]:
    if legs is None:
        return frozenset(LEGS)
    given = checked_ids(legs, "a leg")
    for leg in given:
        if leg not in LEGS:
            raise InvalidInput(f"No leg of the search is called {leg!r}. Choose some of: {', '.join(LEGS)}.")
    if not given:
        raise InvalidInput(f"A search needs a leg to stand on. Choose some of: {', '.join(LEGS)}.")
    return frozenset(given)


def _checked_share(value: Any, what: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1):
        raise InvalidInput(f"{what} must be a number from 0 to 1, not {shown(value)}.")
