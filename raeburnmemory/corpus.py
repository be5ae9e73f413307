"""What recall knows of a namespace: its words, who spoke when in which session, and what is linked to what.

A cache in memory, brought up to date from the store's changes, which may begin with what was saved of it (see
`saved_words`). Every node has a number here, in the order of rows; everything else refers to nodes by these numbers.
"""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_left, insort
from collections import deque
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._collector import no_collections
from .index._arrays import grown
from .index._names import Names
from .index.lexical import LexicalIndex
from .nodes import (
    AGENT,
    BELONGS_TO,
    GENERATED_BY,
    PROMPT,
    RESPONDED_WITH,
    RESPONSE,
    SESSION,
    SUPERSEDES,
    Changes,
    Where,
    collection_of,
)
from .passages import prefix
from .records import time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from .nodes import Link, Node
    from .store import Store

__all__ = ["ANSWER", "ASKS", "DATED", "LINKED", "NAMED", "STANDING", "TEXT", "Before", "Corpus", "made_by", "seconds"]

# What is known of a node without reading it again, one bit each.
TEXT, NAMED, ANSWER, ASKS, DATED, STANDING = (1 << bit for bit in range(6))
_DATE, _NEAR, _ALWAYS = (1 << bit for bit in range(3))  # and what of a chunk of text
_PASSED_ON = 1 << 6  # its session is that of what it answers
LINKED = 1 << 7  # it is among `Corpus.linked`

_COLUMNS: dict[str, tuple[type[np.generic], float]] = {
    "rows": (np.int64, -1),
    "kinds": (np.int32, -1),  # numbers of names, see `Corpus.code`
    "speakers": (np.int32, -1),
    "sessions": (np.int32, -1),  # numbers of nodes, like all below
    "agents": (np.int32, -1),
    "previous": (np.int32, -1),
    "following": (np.int32, -1),
    "asked": (np.int32, -1),  # of a response, the prompt
    "answer": (np.int32, -1),  # of a prompt, its first response
    "newer": (np.int32, -1),  # what supersedes it, of several the latest
    "flags": (np.int32, 0),
    "times": (np.float64, math.nan),  # seconds since 1970
    "expires": (np.float64, math.inf),
}
# Words with which people speak of their conversations, not of what was said in them.
_ABOUT_MEMORY = """
across ask aspects bring chat conversation different discuss discussion list mention message order overview recommend
say session suggest summarise summarize summary talk tell throughout various walk
"""
_RULES = 5  # to be raised whenever anything here, or a word, is made in another way
_AT_ONCE = 8192  # nodes
_WASTED = 8192  # numbers that nodes had which are gone, or as many as there are others; then all get new ones
_RECALLED = 1000  # nodes that changed or went of which it is known what they were
_SPOKE = 100  # sessions up to which what was said is added up for each
_CLOSE = 8192  # nodes between the first and the last of a session up to which all of them are looked through
_SOME, _SPARSE = 8, 16  # from a share of 1 in 8 on, a table is faster than a search; none for rows that lie far apart
_STRUCTURE = {BELONGS_TO, RESPONDED_WITH, GENERATED_BY}
_QUESTION = re.compile("[?\uff1f][\"')\\]\u201d\u2019]*\\s*(?:\\[[^\\]]*\\]\\s*)?$")  # a note in brackets may follow
# What every text is looked through for; where none of a few words is there, no pattern is tried.
_WORD, _DIGIT = re.compile(r"\w+"), re.compile(r"\d")
_DATE_WORDS = """
january february march april may june july august september october november december monday tuesday wednesday thursday
friday saturday sunday yesterday tomorrow today tonight ago last since recently once twice one two three four five six
seven eight nine ten
"""
_NEAR_DATE = re.compile(
    r"\b(?:this|next) (?:week|month|year|weekend|morning|fall|spring|summer|winter)\b", re.IGNORECASE
)
_STANDING_WORDS = "always never sure remember now future forward please"
_TOLD = {
    **dict.fromkeys(_DATE_WORDS.split(), _DATE),
    **dict.fromkeys(["this", "next"], _NEAR),
    **dict.fromkeys(_STANDING_WORDS.split(), _ALWAYS),
}
_STANDING = re.compile(
    r"\b(?:always|never|make sure (?:to|you)|remember to|from now on|in (?:the )?future|going forward|"
    r"please (?:use|keep|include|avoid|don't))\b.*\b(?:when(?:ever)? (?:i|we) (?:ask|mention|talk|request|say|discuss)|"
    r"from now on|going forward|in (?:the )?future|every time|each time)\b|\bfrom now on\b|"
    r"\bgoing forward, (?:please|always|never)\b",
    re.IGNORECASE | re.DOTALL,
)
_ALL = slice(None)
_BEGINNING = 400  # characters in which somebody says that something holds for all times


class Before(NamedTuple):
    """What a node was before it changed or went: the code of its kind, and its time."""

    kind: int
    time: float


class Corpus:
    """The columns and words of one namespace of a store. For one thread at a time."""

    rows: NDArray[np.int64]
    kinds: NDArray[np.int32]
    speakers: NDArray[np.int32]
    sessions: NDArray[np.int32]
    agents: NDArray[np.int32]
    previous: NDArray[np.int32]
    following: NDArray[np.int32]
    asked: NDArray[np.int32]
    answer: NDArray[np.int32]
    newer: NDArray[np.int32]
    flags: NDArray[np.int32]
    times: NDArray[np.float64]
    expires: NDArray[np.float64]

    def __init__(self, store: Store, namespace: str, language: str = "english") -> None:
        self._store = store
        self._namespace = namespace
        self._language = language
        self.version = -1
        self.unsaved = 0  # nodes that came or changed since this was saved
        self.writes = 0  # how often nodes came or changed
        self.rewrites = 0  # how often a node changed or went that had been there
        self._clear()

    def _clear(self, parts: Mapping[str, Any] | None = None) -> None:
        """Begin with *parts*, or with nothing."""
        self.words = LexicalIndex(self._language, None if parts is None else _below("words", parts), _told_by)
        self.about_memory = frozenset(self.words.words.of(_ABOUT_MEMORY))
        self.ids = Names(None if parts is None else _below("ids", parts))
        self.names: list[str] = [] if parts is None else parts["names"]  # of kinds and speakers, by their codes
        self._codes = {name: code for code, name in enumerate(self.names)}
        self._members: dict[int, list[int]] = {}  # of sessions, in order, once somebody asked
        # Sessions as they were when this began, ascending, with what was said first and last in each.
        self._ends: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]] | None = None
        self._several: dict[int, list[int]] = {}  # of each prompt with several, the responses that answered it first
        self.linked: dict[int, dict[tuple[int, str], None]] = {}  # declared links, from either end
        self._table, self._table_of = np.empty(0, np.int64), -1  # the number at every row, and the version it fits
        self._said: NDArray[np.float32] | None = None
        self._spoke: set[int] = set()  # sessions of which something else was said since
        self._earliest = -1, 0, math.nan  # after so many rewrites, of so many nodes, the time
        # By the last rewrites, which node, and what it was; plain, so that the garbage collector passes over them.
        self._rewritten: deque[tuple[int, int, float]] = deque(maxlen=_RECALLED)
        self._collected = np.empty(0, np.int32)  # the collection of every node, as a number, once somebody asked
        self._collections: dict[str, int] = {}
        self._n = self._begun = len(self.ids)
        self._gone = 0 if parts is None else int(np.count_nonzero(parts["kinds"] < 0))  # numbers of nobody
        self.writes += 1
        self.rewrites += 1
        self._written = np.full(
            self._n, self.writes, np.int32
        )  # of every node, at which of the writes it came or changed
        if parts is None:
            self._room = {name: np.empty(16, kind) for name, (kind, _) in _COLUMNS.items()}
        else:
            self._room = {name: parts[name] for name in _COLUMNS}
            for prompt, answer in parts["several"].reshape(-1, 2).tolist():
                self._several.setdefault(prompt, []).append(answer)
            for number, other, code in parts["links"].reshape(-1, 3).tolist():
                self.linked.setdefault(number, {})[other, parts["relations"][code]] = None
        self._cut()
        self._next_end = float(self.expires.min(initial=math.inf))  # when the next node expires, at the earliest
        self._last_end = -math.inf  # when the last of those expired that were taken out for it

    def _cut(self) -> None:
        for name, room in self._room.items():
            setattr(self, name, room[: self._n])

    def __len__(self) -> int:
        return self._n

    @property
    def written(self) -> NDArray[np.int32]:
        """Of every node, at which of the `writes` it came or changed; not to be changed."""
        return self._written[: self._n]

    # --- saved --------------------------------------------------------------------------------------------------

    def to_parts(self) -> dict[str, NDArray[Any] | list[str]]:
        """Return all of it as arrays and lists, with which another corpus can `begin`."""
        several = [(prompt, answer) for prompt, some in self._several.items() for answer in some]
        links = [(number, other, relation) for number, some in self.linked.items() for other, relation in some]
        relations = {relation: code for code, relation in enumerate(dict.fromkeys(link[2] for link in links))}
        return {
            **{name: getattr(self, name) for name in _COLUMNS},
            **{f"ids.{name}": part for name, part in self.ids.to_parts().items()},
            "names": self.names,
            "several": np.array(several, np.int32).reshape(-1),
            "relations": list(relations),
            "links": np.array([(one, two, relations[by]) for one, two, by in links], np.int32).reshape(-1),
            **{f"words.{name}": part for name, part in self.words.to_parts().items()},
        }

    def begin(self, parts: Mapping[str, Any], version: int) -> None:
        """Begin with what was saved at *version*; the columns among *parts* are changed from now on.

        Raises:
            KeyError, ValueError: They are not what `to_parts` gives; nothing was changed.
        """
        try:
            self._clear(parts)
        except (KeyError, ValueError):
            self._clear()
            raise
        self.version = version

    # --- names and numbers --------------------------------------------------------------------------------------

    def code(self, name: str, *, new: bool = False) -> int:
        """Return the number of the name of a kind or speaker; -1 for one that is not known, unless it is *new*."""
        found = self._codes.get(name, -1)
        if found < 0 and new:
            found = self._codes[name] = len(self.names)
            self.names.append(name)
        return found

    def number(self, node_id: str) -> int:
        """Return the number of a node, -1 if there is none."""
        for number in self.ids.find(node_id):
            if self.kinds[number] >= 0:
                return number
        return -1

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the node at each of *rows*, -1 where this namespace has none."""
        if not self._n or not len(rows):
            return np.full(len(rows), -1)
        if len(rows) * _SOME < self._n or self.rows[-1] > _SPARSE * self._n:
            at = np.minimum(np.searchsorted(self.rows, rows), self._n - 1)
            return np.where((self.rows[at] == rows) & (self.kinds[at] >= 0), at, -1)
        if self._table_of != self.version:
            self._table = np.full(int(self.rows[-1]) + 2, -1)  # the last place is for rows beyond
            there = np.flatnonzero(self.kinds >= 0)
            self._table[self.rows[there]] = there
            self._table_of = self.version
        return self._table[np.minimum(rows, len(self._table) - 1)]

    def in_collections(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell of every node whether it is in one of these collections, which its id says."""
        known = len(self._collected)
        if known < self._n:
            codes = self._collections
            named = (collection_of(self.ids[number]) for number in range(known, self._n))
            fresh = [-1 if name is None else codes.setdefault(name, len(codes)) for name in named]
            self._collected = np.concatenate([self._collected, np.array(fresh, np.int32)])
        return np.isin(self._collected, [self._collections[name] for name in names if name in self._collections])

    def members(self, session: int) -> NDArray[np.int64]:
        """Return what was said in a session, in order."""
        if session not in self._members and session < self._begun:
            first, last = self._ends_of(session)
            if last - first < _CLOSE:  # faster than from one to the next, and nothing to remember
                inside: NDArray[np.int64] = (self.sessions[first : last + 1] == session).nonzero()[0] + first
                return inside
        return np.array(self._members_of(session), np.int64)

    def _members_of(self, session: int) -> list[int]:
        found = self._members.get(session)
        if found is None:
            # Of a session that is newer than what was saved, all members are known.
            last, number = -1, -1 if session >= self._begun else self._ends_of(session)[0]
            found = self._members[session] = []
            while number > last:
                found.append(number)
                last, number = number, self.following.item(number)
        return found

    def _ends_of(self, session: int) -> tuple[int, int]:
        """Return what was said first and last in a session that nobody joined or left since this began; else -1."""
        if self._ends is None:
            inside = self.sessions >= 0
            ends = [np.flatnonzero(inside & (beyond < 0)) for beyond in (self.previous, self.following)]
            firsts, lasts = (some[np.argsort(self.sessions[some], kind="stable")].astype(np.int32) for some in ends)
            self._ends = self.sessions[firsts], firsts, lasts
        sessions, firsts, lasts = self._ends
        at = bisect_left(sessions, session)
        return (firsts.item(at), lasts.item(at)) if at < len(sessions) and sessions[at] == session else (-1, -1)

    def answers_to(self, prompt: int) -> Sequence[int]:
        """Return the responses that answered a prompt first, in order."""
        several = self._several.get(prompt)
        if several is not None:
            return several
        answer = int(self.answer[prompt])
        return (answer,) if answer >= 0 else ()

    def said(self) -> NDArray[np.float32]:
        """Return, at the number of each session, how many words were said there; not to be changed."""
        if self._said is None or len(self._spoke) > _SPOKE:
            inside = self.sessions >= 0
            counted = np.bincount(self.sessions[inside], self.words.lengths()[inside], self._n)
            self._said = counted.astype(np.float32)
        elif self._spoke or len(self._said) < self._n:
            said, lengths = np.zeros(self._n, np.float32), self.words.lengths()
            said[: len(self._said)] = self._said
            for session in self._spoke:
                said[session] = lengths[self._members_of(session)].sum()
            self._said = said
        self._spoke.clear()
        return self._said

    def earliest(self) -> float:
        """Return the time of the oldest node that carries one, NaN if none does."""
        rewrites, known, earliest = self._earliest
        if (rewrites, known) != (self.rewrites, self._n):
            rewritten = self.rewritten(rewrites)
            if rewritten is None or any(before.time <= earliest for before in rewritten.values()):
                rewritten, known, earliest = {}, 0, math.nan
            for times in (self.times[list(rewritten)], self.times[known:]):
                earliest = float(np.fmin.reduce(times, initial=earliest))  # NaN if there is nothing else
            self._earliest = self.rewrites, self._n, earliest
        return self._earliest[2]

    def rewritten(self, rewrites: int) -> dict[int, Before] | None:
        """Return who changed or went after so many *rewrites*, and what it was then; None if that is long ago."""
        since = self.rewrites - rewrites
        if since > len(self._rewritten):
            return None
        return {number: Before(kind, time) for number, kind, time in islice(reversed(self._rewritten), since)}

    def alive(self, now: float, at: slice | NDArray[np.int64] = _ALL) -> NDArray[np.bool_]:
        """Tell of every node, or of those *at* some numbers, whether it is there, has a text and has not expired."""
        return np.asarray(((self.flags[at] & TEXT) != 0) & (self.expires[at] > now))

    # --- keeping up ---------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Bring everything to the version of the store, and take out what has expired, as the store hides it."""
        now = time.time()
        if now < self._last_end:  # the clock was set back: some of it may be there again
            self.version = -1
        elif now < self._next_end and self._store.version() == self.version:
            return
        with self._store.snapshot():
            changes = self._store.changes(self.version)
            if changes.reset or not self._apply(changes) or not self._take_out(now):
                self._clear()
                with no_collections():
                    self._take(self._store.nodes(Where(self._namespace)), self._store.links(None, self._namespace))
                self.unsaved = self._n
        self.version = changes.version

    def _take_out(self, now: float) -> bool:
        """Take out what has expired; False where `_apply` is."""
        if now < self._next_end:
            return True
        ended = np.flatnonzero(self.expires <= now).tolist()
        if ended:
            last = float(self.expires[ended].max())
            if not self._apply(Changes(self.version, removed_nodes=[(self._namespace, self.ids[n]) for n in ended])):
                return False
            self._last_end = max(self._last_end, last)
            self._table_of = -1  # made anew without them, at the same version
        self._next_end = float(self.expires.min(initial=math.inf))
        return True

    def _apply(self, changes: Changes) -> bool:
        """Apply changes; False, which is rare, if a node would be put between others, or most numbers are nobody's."""
        mine = self._namespace
        if self._gone > max(_WASTED, self._n - self._gone):
            return False
        nodes = sorted((node for node in changes.nodes if node.namespace == mine), key=lambda node: node.row)
        known = [self.number(node.id) for node in nodes]
        if self._n and any(node.row <= self.rows[-1] for node, number in zip(nodes, known, strict=True) if number < 0):
            return False  # it had expired, and is there again
        gone = {self.number(node_id) for space, node_id in changes.removed_nodes if space == mine} - {-1}
        cut = [link[1:] for link in changes.removed_links if link[0] == mine and self._stand(link[1:3], gone)]
        # An agent may have another name now, under which its responses are to be found.
        renamed = [
            number for number, node in zip(known, nodes, strict=True) if number >= 0 and self._renames(number, node)
        ]
        superseded = {
            other for one in gone for other, relation in self.linked.get(one, ()) if relation == SUPERSEDES
        } - gone
        left, instead = self._let_go(gone, cut)
        for number in gone:
            self._remove(number)
        for source, target, relation in cut:
            if relation not in _STRUCTURE:
                superseded |= self._unlink(source, target, relation)
        for number in superseded:
            newer = self._store.links([self.ids[number]], mine, direction="in", relation=SUPERSEDES)
            self.newer[number] = max({self.number(link.source) for link in newer} - {number}, default=-1)
        self._take(nodes, [*(link for link in changes.links if link.namespace == mine), *instead])
        if renamed:  # what they said may be half of the memory
            theirs = np.isin(self.agents, renamed).nonzero()[0]
            silent = theirs[~self._name_themselves(theirs)]
            by = self.agents[silent]
            self.speakers[silent] = np.where(self._name_themselves(by), self.speakers[by], -1)
        for number in left:
            self._follow_prompt(number)
        for prompt in {self.number(link.source) for link in instead if link.relation == RESPONDED_WITH} - {-1}:
            links = self._store.links([self.ids[prompt]], mine, relation=RESPONDED_WITH)
            self._answer(
                prompt, [n for link in links if (n := self.number(link.target)) >= 0 and self.asked[n] == prompt]
            )
        return True

    def _stand(self, ids: Sequence[str], gone: set[int]) -> bool:
        """Tell whether all of these nodes are there, and stay."""
        return all((number := self.number(node_id)) >= 0 and number not in gone for node_id in ids)

    def _renames(self, number: int, node: Node) -> bool:
        """Tell whether *node* gives another name to what is said through it."""
        name, known = _named(node), int(self.speakers[number]) if self._names_itself(number) else -1
        return known != (-1 if name is None else self._codes.get(name, -2))

    def _let_go(self, gone: set[int], cut: Sequence[tuple[str, str, str]]) -> tuple[set[int], list[Link]]:
        """Part what stays from the agents, prompts and sessions that go, or to which its link was *cut*.

        Returns what left its session, and the links to others of what was parted: the next of them counts now.
        """
        answers = {answer for number in gone for answer in self.answers_to(number)}
        sessions = [number for number in gone if self.kinds[number] == self.code(SESSION)]
        members = {member for session in sessions for member in self._members_of(session)}
        led = set(np.isin(self.agents, [*gone]).nonzero()[0].tolist()) if gone else set()
        for source, target, relation in cut:
            one, two = self.number(source), self.number(target)
            if relation == RESPONDED_WITH and self.asked[two] == one:
                answers.add(two)
            elif relation == GENERATED_BY and self.agents[one] == two:
                led.add(one)
            elif relation == BELONGS_TO and self.sessions[one] == two:
                members.add(one)
        answers, led, members = answers - gone, led - gone, members - gone
        for number in led:
            self.agents[number] = -1
            self._speak_through_agent(number)
        along = {*answers, *(answer for number in members for answer in self.answers_to(number))} - gone
        for number in {*members, *(answer for answer in along if self.flags[answer] & _PASSED_ON)}:
            if (session := int(self.sessions[number])) >= 0:
                self._leave(number, session)
            self.flags[number] &= ~_PASSED_ON
        for answer in answers:
            self._unask(answer)
        instead: list[Link] = []
        for relation, numbers in ((RESPONDED_WITH, answers), (GENERATED_BY, led), (BELONGS_TO, members)):
            if numbers:
                ids, direction = [self.ids[number] for number in numbers], "in" if numbers is answers else "out"
                instead += self._store.links(ids, self._namespace, direction=direction, relation=relation)
        return members, instead

    def _unask(self, answer: int) -> None:
        """Let an answer answer nobody."""
        prompt, self.asked[answer] = int(self.asked[answer]), -1
        self._answer(prompt, [other for other in self.answers_to(prompt) if other != answer])

    def _answer(self, prompt: int, answers: list[int]) -> None:
        """Let *answers* be what answered a prompt first, in order."""
        self.answer[prompt] = answers[0] if answers else -1
        self._several.pop(prompt, None)
        if len(answers) > 1:
            self._several[prompt] = answers

    def _unlink(self, source: str, target: str, relation: str) -> set[int]:
        """Take a declared link out; return what it superseded."""
        one, two = self.number(source), self.number(target)
        around = self._store.links([source, target], self._namespace, relation=relation)
        leads_back = any({link.source, link.target} == {source, target} for link in around)
        if not leads_back:
            for number, other in ((one, two), (two, one)):
                self._part(number, other, relation)
        return {two} if relation == SUPERSEDES and one != two else set()

    def _part(self, number: int, other: int, relation: str) -> None:
        """Let *number* know of no link with *other* any more."""
        there = self.linked.get(number, {})
        there.pop((other, relation), None)
        if not there:
            self.linked.pop(number, None)
            self.flags[number] &= ~LINKED

    def _take(self, nodes: Iterable[Node], links: Iterable[Link]) -> None:
        rest = iter(nodes)
        while some := list(islice(rest, _AT_ONCE)):
            fresh: dict[str, int] = {}
            numbers = [
                number if (number := self.number(node.id)) >= 0 else fresh.setdefault(node.id, self._n + len(fresh))
                for node in some
            ]
            self._make_room(list(fresh))
            self._put(numbers, some, len(fresh))
            self.unsaved += len(some)
        links = sorted(links, key=lambda link: link.row)
        for relation in (RESPONDED_WITH, GENERATED_BY, BELONGS_TO, None):  # a session passes on over answers
            for link in links:
                if link.relation == relation or (relation is None and link.relation not in _STRUCTURE):
                    self._connect(link)

    def _put(self, numbers: Sequence[int], nodes: Sequence[Node], fresh: int) -> None:
        """Write *nodes* under *numbers*, of which the last *fresh* of the corpus are new."""
        begun = self._n - fresh
        latest = dict(zip(numbers, nodes, strict=True))
        for number in latest:
            if number < begun:
                self._note(number)
        told = {
            number: self.words.put(number, node.text, prefix(node)) for number, node in latest.items() if number < begun
        }
        new = [latest[number] for number in range(begun, self._n)]
        more = self.words.extend([node.text for node in new], [*map(prefix, new)])
        self._spoke.update(session for session in self.sessions[list(told)].tolist() if session >= 0)
        told.update(zip(range(begun, self._n), more.tolist(), strict=True))
        at = np.array(numbers)
        self.writes += 1
        self._written[at] = self.writes
        flags = self.flags[at] & (_PASSED_ON | LINKED)
        self.rows[at] = [node.row for node in nodes]
        self.kinds[at] = [self.code(node.kind, new=True) for node in nodes]
        self.times[at] = [_time_of(node) for node in nodes]
        self.expires[at] = ends = [math.inf if node.expires_at is None else node.expires_at for node in nodes]
        self._next_end = min(self._next_end, *ends)
        names = [_named(node) for node in nodes]
        self.speakers[at] = [-1 if name is None else self.code(name, new=True) for name in names]
        self.flags[at] = flags | [
            _flags_of(node, told[number]) | (NAMED if name is not None and node.kind != AGENT else 0)
            for number, node, name in zip(numbers, nodes, names, strict=True)
        ]
        for number in numbers:
            if number < begun:
                self._speak_through_agent(number)

    def _speak_through_agent(self, number: int) -> None:
        """Let what has no name of its own be said by the agent that gave it."""
        agent = int(self.agents[number])
        if not self._names_itself(number):
            self.speakers[number] = self.speakers[agent] if agent >= 0 and self._names_itself(agent) else -1

    def _names_itself(self, number: int) -> bool:
        return bool(self.kinds[number] == self.code(AGENT) or self.flags[number] & NAMED)

    def _name_themselves(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        return np.asarray(((self.flags[numbers] & NAMED) != 0) | (self.kinds[numbers] == self.code(AGENT)))

    def _make_room(self, ids: Sequence[str]) -> None:
        """Let new nodes have the next numbers."""
        begun, self._n = self._n, self._n + len(ids)
        for name, (_, empty) in _COLUMNS.items():
            self._room[name] = grown(self._room[name], begun, len(ids))
            self._room[name][begun : self._n] = empty
        self._written = grown(self._written, begun, len(ids))
        self._cut()
        for node_id in ids:
            self.ids.append(node_id)

    def _note(self, number: int) -> None:
        """Note what a node is, which is about to change or go."""
        self.rewrites += 1
        self._rewritten.append((number, self.kinds.item(number), self.times.item(number)))

    def _remove(self, number: int) -> None:
        self._note(number)
        self._gone += 1
        self.words.put(number, None)
        for other, relation in self.linked.pop(number, ()):
            if other != number:
                self._part(other, number, relation)
        session = int(self.sessions[number])
        if session >= 0:
            self._leave(number, session)
        if self.asked[number] >= 0:
            self._unask(number)
        self._several.pop(number, None)
        row = self.rows[number]
        for name, (_, empty) in _COLUMNS.items():
            self._room[name][number] = empty
        self.rows[number] = row  # keeps the column sorted; no kind says that nobody is there

    def _leave(self, number: int, session: int) -> None:
        self._spoke.add(session)
        members = self._members_of(session)
        del members[bisect_left(members, number)]
        before, after = int(self.previous[number]), int(self.following[number])
        if before >= 0:
            self.following[before] = after
        if after >= 0:
            self.previous[after] = before
        self.sessions[number] = self.previous[number] = self.following[number] = -1

    def _join(self, number: int, session: int, *, passed_on: bool = False) -> None:
        """Put a node into a session: the first of its own, or else that of what it answers."""
        if self.sessions[number] >= 0:
            if passed_on or not self.flags[number] & _PASSED_ON:
                return
            self._leave(number, int(self.sessions[number]))
        self.flags[number] = (self.flags[number] & ~_PASSED_ON) | (_PASSED_ON if passed_on else 0)
        self._spoke.add(session)
        members = self._members_of(session)
        insort(members, number)
        at = bisect_left(members, number)
        before = members[at - 1] if at else -1
        after = members[at + 1] if at + 1 < len(members) else -1
        self.sessions[number], self.previous[number], self.following[number] = session, before, after
        if before >= 0:
            self.following[before] = number
        if after >= 0:
            self.previous[after] = number

    def _follow_prompt(self, number: int) -> None:
        """Let what is in no session of its own be in that of what it answers, if that has one of its own."""
        prompt = int(self.asked[number])
        if prompt >= 0 and self.sessions[prompt] >= 0 and not self.flags[prompt] & _PASSED_ON:
            self._join(number, int(self.sessions[prompt]), passed_on=True)

    def _connect(self, link: Link) -> None:
        source, target = self.number(link.source), self.number(link.target)
        if source < 0 or target < 0:
            return
        if link.relation == RESPONDED_WITH:
            if self.asked[target] < 0:
                self.asked[target] = source
                if self.answer[source] < 0:
                    self.answer[source] = target
                else:
                    self._several.setdefault(source, [int(self.answer[source])]).append(target)
                self._follow_prompt(target)
        elif link.relation == GENERATED_BY:
            if self.agents[source] < 0:
                self.agents[source] = target
                self._speak_through_agent(source)
        elif link.relation == BELONGS_TO:
            if self.kinds[target] == self.code(SESSION):
                self._join(source, target)
                for answer in self.answers_to(source):
                    self._join(answer, int(self.sessions[source]), passed_on=True)
        else:
            self.linked.setdefault(source, {})[target, link.relation] = None
            self.linked.setdefault(target, {})[source, link.relation] = None
            self.flags[[source, target]] |= LINKED
            if link.relation == SUPERSEDES and source != target:
                self.newer[target] = max(source, int(self.newer[target]))


def _below(name: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of *parts* that belong to *name*, without it."""
    return {part[len(name) + 1 :]: values for part, values in parts.items() if part.startswith(f"{name}.")}


def _named(node: Node) -> str | None:
    """Return the name that a node has itself, an agent's too, as it is looked for."""
    name = node.attributes.get("name")
    return name.casefold() if isinstance(name, str) and name else None


def _flags_of(node: Node, told: int) -> int:
    """Return what the text of a node says of itself; of its pieces, `_told_by` has *told*."""
    text = node.text
    if not text:
        return ANSWER if node.kind == RESPONSE else 0
    dated = told & _DATE or (told & _NEAR and _NEAR_DATE.search(text) is not None)
    stands = told & _ALWAYS and node.kind == PROMPT and _STANDING.search(text[:_BEGINNING])
    return (
        TEXT
        | (ANSWER if node.kind == RESPONSE else 0)
        | (ASKS if ("?" in text or "\uff1f" in text) and _QUESTION.search(text) else 0)
        | (DATED if dated else 0)
        | (STANDING if stands else 0)
    )


def _told_by(chunk: str) -> int:
    """Return what a piece of text between two white spaces says of times and of what holds for all times."""
    told = _DATE if not chunk.isalpha() and _DIGIT.search(chunk) else 0
    for word in _WORD.findall(chunk.lower()):
        told |= _TOLD.get(word, 0)
    return told


def made_by(index: LexicalIndex) -> dict[str, str | int | None]:
    """Return what decides how texts become words and columns."""
    return {"rules": _RULES, **index.words.rules}


def _time_of(node: Node) -> float:
    stamp = node.attributes.get("timestamp")
    if isinstance(stamp, str) and stamp.endswith("+00:00"):  # as we write it
        try:
            return datetime.fromisoformat(stamp).timestamp()
        except ValueError:
            pass
    return seconds(time_of(node))


def seconds(stamp: str | None) -> float:
    """Return a time as `records.utc` writes it in seconds since 1970; NaN for None."""
    return math.nan if stamp is None else datetime.fromisoformat(stamp).timestamp()
