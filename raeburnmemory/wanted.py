"""Who may be found: the filters of a search, over the columns of a corpus."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .corpus import TEXT, seconds
from .filters import condition
from .index import Scope
from .nodes import PROMPT, RESPONSE
from .records import checked_data, checked_ids, utc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .corpus import Corpus
    from .store import Store

__all__ = ["Allowed", "Selection", "Wanted", "scope_of"]

_READ = 1000  # nodes read at a time
_CONDITIONS = 16  # remembered, as a byte for each node
_UNKNOWN = -1
_FEW = 4  # values up to which comparing with each is faster than looking all up


class Wanted(NamedTuple):
    """Which nodes may be found, and how; see `MemoryGraph.recall` for what each means."""

    kinds: str | Sequence[str] | None = None
    session: str | Sequence[str] | None = None
    agent: str | Sequence[str] | None = None
    speaker: str | Sequence[str] | None = None
    collection: str | Sequence[str] | None = None
    since: Any = None
    until: Any = None
    where: Mapping[str, Any] | None = None
    legs: str | Sequence[str] | None = None
    min_similarity: float | None = None
    min_coverage: float | None = None
    recency: float = 0.0
    half_life: float = 30.0
    diversity: float = 0.0
    fold: bool = False
    now: Any = None


def scope_of(wanted: Wanted, namespace: str) -> Scope:
    """Return what is true of everything *wanted* that an index may be able to look for by itself."""
    return Scope(
        (namespace,),
        None if wanted.session is None else tuple(checked_ids(wanted.session, "a session's id")),
        None if wanted.agent is None else tuple(checked_ids(wanted.agent, "an agent's id")),
        None if wanted.since is None else seconds(utc(wanted.since)),
        None if wanted.until is None else seconds(utc(wanted.until)),
    )


class Allowed(NamedTuple):
    """Who may be found: of every node whether it may, and the numbers of those who may (None: all with a text)."""

    mask: NDArray[np.bool_]
    numbers: NDArray[np.int64] | None
    kinds: NDArray[np.int64]
    """How many there are of each kind, by its code."""


_NOBODY = Allowed(np.zeros(0, np.bool_), None, np.zeros(0, np.int64))


class Selection:
    """Chooses from a corpus. What no filter changes is remembered. For one thread at a time."""

    def __init__(self, corpus: Corpus, store: Store) -> None:
        self._corpus, self._store = corpus, store
        # Who is there: after so many rewrites of the corpus, from one time until before another.
        self._alive = _NOBODY
        self._when = -1, 0.0, 0.0
        self._judged: dict[str, tuple[NDArray[np.int8], int]] = {}  # by conditions on attributes, at a write

    def allowed(self, wanted: Wanted) -> Allowed:
        """Tell who may be found; not to be changed."""
        alive, numbers = self.alive(), self.numbers(wanted)
        if numbers is None:
            return alive
        allowed = np.zeros(len(self._corpus), np.bool_)
        allowed[numbers] = True
        return Allowed(allowed, numbers, self._counted(self._corpus.kinds[numbers]))

    def _counted(self, kinds: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        return np.bincount(kinds, minlength=len(self._corpus.names)).astype(np.int64, copy=False)

    def alive(self) -> Allowed:
        """Tell who is there, with a text; not to be changed."""
        corpus, now = self._corpus, time.time()  # what expired is gone, whenever the question is asked from
        rewrites, since, until = self._when
        rewritten = corpus.rewritten(rewrites) if since <= now < until else None
        if rewritten is None:
            self._alive, until, rewritten = _NOBODY, math.inf, {}
        mask, numbers, kinds = self._alive
        known = len(mask)
        if self._alive is _NOBODY or known < len(corpus) or rewritten:  # those that came or changed since, or all
            changed = sorted(number for number in rewritten if number < known)
            gone = np.array([rewritten[number].kind for number in changed if mask[number]], np.int64)
            at = np.array([*changed, *range(known, len(corpus))], np.int64) if changed else slice(known, None)
            new, expires = corpus.alive(now, at), corpus.expires[at]
            mask = np.concatenate([mask, np.zeros(len(corpus) - known, np.bool_)])
            mask[at] = new
            if numbers is not None or np.count_nonzero(new) < np.count_nonzero(corpus.flags[at] & TEXT):
                numbers = np.flatnonzero(mask)
            counted = self._counted(corpus.kinds[at][new]) - self._counted(gone)
            counted[: len(kinds)] += kinds
            self._alive = Allowed(mask, numbers, counted)
            later = expires[expires > now]
            self._when = corpus.rewrites, now, min(until, float(later.min(initial=math.inf)))
        return self._alive

    def numbers(self, wanted: Wanted) -> NDArray[np.int64] | None:
        """Return the numbers of the nodes that may be found, ascending; None if that is everybody who is alive.

        Where sessions are named, nobody outside of them is looked at.
        """
        corpus, alive, inside = self._corpus, self.alive().mask, None
        if wanted.session is not None:
            sessions = {corpus.number(one) for one in checked_ids(wanted.session, "a session's id")}
            said = [corpus.members(session) for session in sessions if session >= 0]
            inside = said[0] if len(said) == 1 else np.sort(np.concatenate([np.empty(0, np.int64), *said]))
            alive = alive[inside]
        tests = self._tests(wanted, slice(None) if inside is None else inside)
        if inside is None and not tests and wanted.where is None:
            return None
        for test in tests:
            alive = alive & test
        numbers = np.flatnonzero(alive) if inside is None else inside[alive]
        return numbers if wanted.where is None else numbers[self._fulfil(wanted.where, numbers)]

    def _tests(self, wanted: Wanted, at: slice | NDArray[np.int64]) -> list[NDArray[np.bool_]]:
        """Return what each filter but those by session and attributes says about the nodes *at* some numbers."""
        corpus, found = self._corpus, []
        if wanted.kinds is not None:
            codes = [corpus.code(kind) for kind in checked_ids(wanted.kinds, "a kind of node")]
            found.append(_one_of(corpus.kinds[at], codes))
        if wanted.agent is not None:
            given = _one_of(corpus.agents, [corpus.number(one) for one in checked_ids(wanted.agent, "an agent's id")])
            prompts = corpus.asked[given]  # what an agent was asked belongs to what it said
            given[prompts[prompts >= 0]] = True
            found.append(given[at])
        if wanted.speaker is not None:
            found.append(self._spoken_by(checked_ids(wanted.speaker, "a speaker"), at))
        if wanted.collection is not None:
            found.append(corpus.in_collections(checked_ids(wanted.collection, "a collection"))[at])
        for bound, below in ((wanted.since, False), (wanted.until, True)):
            if bound is not None:
                limit, times = seconds(utc(bound)), corpus.times[at]
                found.append(times < limit if below else times >= limit)
        return found

    def _spoken_by(self, speakers: list[str], at: slice | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell who was said by one of *speakers*: a name, the id of an agent, or a role, `user` or `assistant`."""
        corpus = self._corpus
        found = _one_of(corpus.speakers[at], [corpus.code(name.casefold()) for name in speakers])
        found |= _one_of(corpus.agents[at], [corpus.number(name) for name in speakers])
        for role, kind in (("user", PROMPT), ("assistant", RESPONSE)):
            if role in speakers:
                found |= corpus.kinds[at] == corpus.code(kind)
        return found

    def _fulfil(self, where: Mapping[str, Any], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        test = condition(where)
        judged = self._judged_by(json.dumps(checked_data(where, "where"), sort_keys=True))
        todo = numbers[judged[numbers] == _UNKNOWN]
        for start in range(0, len(todo), _READ):
            some = todo[start : start + _READ]
            rows = self._corpus.rows[some].tolist()
            nodes = self._store.at_rows(rows)
            judged[some] = [row in nodes and test(nodes[row].attributes) for row in rows]
        return np.asarray(judged[numbers] == 1)

    def _judged_by(self, where: str) -> NDArray[np.int8]:
        """Return what is known of a condition: of every node 1 or 0, or that nobody has read it since it changed."""
        corpus = self._corpus
        known, at = self._judged.pop(where, (np.zeros(0, np.int8), -1))
        if at != corpus.writes:
            before = known[: len(corpus)]
            known = np.full(len(corpus), _UNKNOWN, np.int8)
            known[: len(before)] = before
            known[corpus.written > at] = _UNKNOWN
            if len(self._judged) >= _CONDITIONS:
                del self._judged[next(iter(self._judged))]  # the one that was not asked for longest
        self._judged[where] = known, corpus.writes
        return known


def _one_of(column: NDArray[Any], values: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which of *column* are among *values*, of which those below 0 stand for nobody."""
    known = [value for value in values if value >= 0]
    if len(known) > _FEW:
        return np.isin(column, known)
    found = np.zeros(len(column), np.bool_)
    for value in known:
        found |= column == value
    return found
