"""What recall knows of a namespace: its words, who spoke when in which session, and what is linked to what.

A cache in memory, brought up to date from the store's changes. Every node has a number here, in the order of rows;
everything else refers to nodes by these numbers.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, insort
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from .index._parts_file import read_parts, write_parts
from .index.lexical import LexicalIndex
from .nodes import (
    AGENT,
    BELONGS_TO,
    DEFAULT_NAMESPACE,
    GENERATED_BY,
    PROMPT,
    RESPONDED_WITH,
    RESPONSE,
    SESSION,
    SUPERSEDES,
    Where,
)
from .passages import indexed_text, speaker
from .records import time_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .nodes import Changes, Link, Node
    from .store import Store

__all__ = ["ANSWER", "ASKS", "DATED", "NAMED", "STANDING", "TEXT", "Corpus", "made_by", "saved_as", "seconds"]

# What is known of a node without reading it again, one bit each.
TEXT, NAMED, ANSWER, ASKS, DATED, STANDING = (1 << bit for bit in range(6))
_PASSED_ON = 1 << 6  # its session is that of what it answers

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
_RULES = 1  # to be raised whenever anything here, or a word, is made in another way
_SAVE_AFTER = 1000  # nodes after which it is worth saving
_SOME, _SPARSE = 8, 16  # from a share of 1 in 8 on, a table is faster than a search; none for rows that lie far apart
_STRUCTURE = {BELONGS_TO, RESPONDED_WITH, GENERATED_BY}
_QUESTION = re.compile("[?\uff1f][\"')\\]\u201d\u2019]*\\s*(?:\\[[^\\]]*\\]\\s*)?$")  # a note in brackets may follow
_DATE = re.compile(
    r"\d|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|"
    r"wednesday|thursday|friday|saturday|sunday|yesterday|tomorrow|today|tonight|ago|last|since|recently|once|twice|"
    r"(?:this|next) (?:week|month|year|weekend|morning|fall|spring|summer|winter)|one|two|three|four|five|six|seven|"
    r"eight|nine|ten)\b",
    re.IGNORECASE,
)
_STANDING = re.compile(
    r"\b(?:always|never|make sure (?:to|you)|remember to|from now on|in (?:the )?future|going forward|"
    r"please (?:use|keep|include|avoid|don't))\b.*\b(?:when(?:ever)? (?:i|we) (?:ask|mention|talk|request|say|discuss)|"
    r"from now on|going forward|in (?:the )?future|every time|each time)\b|\bfrom now on\b|"
    r"\bgoing forward, (?:please|always|never)\b",
    re.IGNORECASE | re.DOTALL,
)
_BEGINNING = 400  # characters in which somebody says that something holds for all times


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
        self._unsaved = 0  # nodes that came or changed since this was saved
        self._clear()

    def _clear(self) -> None:
        self.words = LexicalIndex(self._language)
        self.about_memory = frozenset(self.words.words.of(_ABOUT_MEMORY))
        self.ids: list[str] = []
        self.names: list[str] = []  # of kinds and speakers, by their codes
        self._codes: dict[str, int] = {}
        self._number: dict[str, int] = {}
        self._members: dict[int, list[int]] = {}  # of each session, in order
        self.answers: dict[int, list[int]] = {}  # of each prompt, the responses that answered it first
        self.linked: dict[int, dict[tuple[int, str], None]] = {}  # declared links, from either end
        self._table, self._table_of = np.empty(0, np.int64), -1  # the number at every row, and the version it fits
        self._said, self._said_at = np.empty(0, np.float32), -1
        self._earliest, self._earliest_at = math.nan, -1
        self._n = 0
        self._room = {name: np.full(16, empty, kind) for name, (kind, empty) in _COLUMNS.items()}
        self._cut()

    def _cut(self) -> None:
        for name, room in self._room.items():
            setattr(self, name, room[: self._n])

    def __len__(self) -> int:
        return self._n

    # --- saved --------------------------------------------------------------------------------------------------

    def _path(self) -> str | None:
        return self._store.cache_path(saved_as(self._namespace))

    def _stamp(self) -> dict[str, object]:
        return {"store": self._store.id, "namespace": self._namespace, "made by": made_by(self.words)}

    def worth_saving(self) -> bool:
        """Tell whether enough came since it was saved."""
        return self._unsaved > max(_SAVE_AFTER, self._n // 10)

    def save(self) -> None:
        """Save it, unless what it holds may have been erased since it caught up."""
        path, mark = self._path(), self._store.mark(self.version)
        if path is not None and mark is not None:
            write_parts(path, {**self._stamp(), "version": self.version, "mark": mark}, self._parts())
            self._unsaved = 0

    def _parts(self) -> dict[str, NDArray[Any] | list[str]]:
        answers = [(prompt, answer) for prompt, some in self.answers.items() for answer in some]
        links = [(number, other, relation) for number, some in self.linked.items() for other, relation in some]
        relations = {relation: code for code, relation in enumerate(dict.fromkeys(link[2] for link in links))}
        return {
            **{name: getattr(self, name) for name in _COLUMNS},
            "ids": self.ids,
            "names": self.names,
            "answers": np.array(answers, np.int32).reshape(-1),
            "relations": list(relations),
            "links": np.array([(one, two, relations[by]) for one, two, by in links], np.int32).reshape(-1),
            **{f"words.{name}": part for name, part in self.words.to_parts().items()},
        }

    def _load(self) -> None:
        """Begin with what was saved, if it is of this store's past."""
        path = self._path()
        found = None if path is None else read_parts(path, self._stamp())
        if found is None:
            return
        stamp, parts = found
        version = stamp.get("version")
        if not isinstance(version, int) or stamp.get("mark") != self._store.mark(version) or not stamp.get("mark"):
            return
        own = {name.removeprefix("words."): part for name, part in parts.items() if name.startswith("words.")}
        self.words = LexicalIndex.from_parts(self._language, own)
        self.ids, self.names = parts["ids"], parts["names"]
        self._codes = {name: code for code, name in enumerate(self.names)}
        self._n = len(self.ids)
        self._room = {name: parts[name].astype(kind, copy=False) for name, (kind, _) in _COLUMNS.items()}
        self._cut()
        there = np.flatnonzero(self.kinds >= 0).tolist()
        self._number = {self.ids[number]: number for number in there}
        for prompt, answer in parts["answers"].reshape(-1, 2).tolist():
            self.answers.setdefault(prompt, []).append(answer)
        for number, other, code in parts["links"].reshape(-1, 3).tolist():
            self.linked.setdefault(number, {})[other, parts["relations"][code]] = None
        inside = np.flatnonzero(self.sessions >= 0)
        for number, session in zip(inside.tolist(), self.sessions[inside].tolist(), strict=True):
            self._members.setdefault(session, []).append(number)
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
        return self._number.get(node_id, -1)

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

    def members(self, session: int) -> list[int]:
        """Return what was said in a session, in order."""
        return self._members.get(session, [])

    def said(self) -> NDArray[np.float32]:
        """Return, at the number of each session, how many words were said there."""
        if self._said_at != self.version:
            inside = self.sessions >= 0
            said = np.bincount(self.sessions[inside], self.words.lengths()[inside], self._n)
            self._said, self._said_at = said.astype(np.float32), self.version
        return self._said

    def earliest(self) -> float:
        """Return the time of the oldest node that carries one, NaN if none does."""
        if self._earliest_at != self.version:
            known = self.times[np.isfinite(self.times)]
            self._earliest, self._earliest_at = float(known.min()) if len(known) else math.nan, self.version
        return self._earliest

    def alive(self, now: float) -> NDArray[np.bool_]:
        """Tell of every node whether it is there, has a text and has not expired."""
        return np.asarray(((self.flags & TEXT) != 0) & (self.expires > now))

    # --- keeping up ---------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Bring everything to the version of the store."""
        if self._store.version() == self.version:
            return
        if self.version < 0:
            self._load()
        with self._store.snapshot():
            changes = self._store.changes(self.version)
            if changes.reset or not self._apply(changes):
                self._clear()
                self._take(self._store.nodes(Where(self._namespace)), self._store.links(None, self._namespace))
                self._unsaved = self._n
        self.version = changes.version

    def _apply(self, changes: Changes) -> bool:
        """Apply changes; False if they undo connections, which is rare and not worth code of its own."""
        mine = self._namespace
        gone = {self._number[key[1]] for key in changes.removed_nodes if key[0] == mine and key[1] in self._number}
        # Of a node that goes, its links go with it.
        ends = [
            (self.number(source), self.number(target))
            for space, source, target, _ in changes.removed_links
            if space == mine
        ]
        if any(one >= 0 and two >= 0 and not {one, two} & gone for one, two in ends):
            return False
        if any(self._holds_together(number) for number in gone):
            return False
        nodes = sorted((node for node in changes.nodes if node.namespace == mine), key=lambda node: node.row)
        changed = [self._number[node.id] for node in nodes if node.id in self._number]
        # An agent may have another name now, under which its responses are to be found.
        if (changed or gone) and np.isin(self.agents, [*changed, *gone]).any():
            return False
        if any(node.row < self.rows[-1] for node in nodes if self._n and node.id not in self._number):
            return False  # it had expired, and is there again
        for number in gone:
            self._remove(number)
        self._take(nodes, (link for link in changes.links if link.namespace == mine))
        return True

    def _holds_together(self, number: int) -> bool:
        """Tell whether others are told apart by this node: a session, a prompt with responses, one end of a link."""
        return bool(number in self._members or self.answers.get(number) or self.linked.get(number))

    def _take(self, nodes: Iterable[Node], links: Iterable[Link]) -> None:
        for node in nodes:
            self._put(node)
            self._unsaved += 1
        links = sorted(links, key=lambda link: link.row)
        for relation in (RESPONDED_WITH, GENERATED_BY, BELONGS_TO, None):  # a session passes on over answers
            for link in links:
                if link.relation == relation or (relation is None and link.relation not in _STRUCTURE):
                    self._connect(link)

    def _put(self, node: Node) -> None:
        number = self._number.get(node.id, -1)
        if number < 0:
            number = self._new(node.id)
        self.words.put(number, indexed_text(node))
        name = node.attributes.get("name") if node.kind == AGENT else speaker(node)
        self.rows[number] = node.row
        self.kinds[number] = self.code(node.kind, new=True)
        self.speakers[number] = self.code(name.casefold(), new=True) if isinstance(name, str) and name else -1
        self.times[number] = seconds(time_of(node))
        self.expires[number] = math.inf if node.expires_at is None else node.expires_at
        text = node.text or ""
        self.flags[number] = (
            (int(self.flags[number]) & _PASSED_ON)
            | (TEXT if text else 0)
            | (NAMED if speaker(node) else 0)
            | (ANSWER if node.kind == RESPONSE else 0)
            | (ASKS if _QUESTION.search(text) else 0)
            | (DATED if _DATE.search(text) else 0)
            | (STANDING if node.kind == PROMPT and _STANDING.search(text[:_BEGINNING]) else 0)
        )
        self._speak_through_agent(number)

    def _speak_through_agent(self, number: int) -> None:
        """Let what has no name of its own be said by the agent that gave it."""
        agent = int(self.agents[number])
        if agent >= 0 and not self._names_itself(number):
            self.speakers[number] = self.speakers[agent] if self._names_itself(agent) else -1

    def _names_itself(self, number: int) -> bool:
        return bool(self.kinds[number] == self.code(AGENT) or self.flags[number] & NAMED)

    def _new(self, node_id: str) -> int:
        number = self._n
        if number == len(self._room["rows"]):
            for name, (kind, empty) in _COLUMNS.items():
                self._room[name] = np.concatenate([self._room[name], np.full(max(number, 16), empty, kind)])
        self._n += 1
        self._cut()
        self.ids.append(node_id)
        self._number[node_id] = number
        return number

    def _remove(self, number: int) -> None:
        self.words.put(number, None)
        session = int(self.sessions[number])
        if session >= 0:
            self._leave(number, session)
        asked = int(self.asked[number])
        if asked >= 0:
            self.answers[asked].remove(number)
            self.answer[asked] = next(iter(self.answers[asked]), -1)
        del self._number[self.ids[number]]
        row = self.rows[number]
        for name, (_, empty) in _COLUMNS.items():
            self._room[name][number] = empty
        self.rows[number] = row  # keeps the column sorted; no kind says that nobody is there

    def _leave(self, number: int, session: int) -> None:
        members = self._members[session]
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
        members = self._members.setdefault(session, [])
        insort(members, number)
        at = bisect_left(members, number)
        before = members[at - 1] if at else -1
        after = members[at + 1] if at + 1 < len(members) else -1
        self.sessions[number], self.previous[number], self.following[number] = session, before, after
        if before >= 0:
            self.following[before] = number
        if after >= 0:
            self.previous[after] = number

    def _connect(self, link: Link) -> None:
        source, target = self.number(link.source), self.number(link.target)
        if source < 0 or target < 0:
            return
        if link.relation == RESPONDED_WITH:
            if self.asked[target] < 0:
                self.asked[target] = source
                self.answers.setdefault(source, []).append(target)
                self.answer[source] = self.answers[source][0]
                if self.sessions[source] >= 0 and not self.flags[source] & _PASSED_ON:
                    self._join(target, int(self.sessions[source]), passed_on=True)
        elif link.relation == GENERATED_BY:
            if self.agents[source] < 0:
                self.agents[source] = target
                self._speak_through_agent(source)
        elif link.relation == BELONGS_TO:
            if self.kinds[target] == self.code(SESSION):
                self._join(source, target)
                for answer in self.answers.get(source, ()):
                    self._join(answer, int(self.sessions[source]), passed_on=True)
        else:
            self.linked.setdefault(source, {})[target, link.relation] = None
            self.linked.setdefault(target, {})[source, link.relation] = None
            if link.relation == SUPERSEDES and source != target:
                self.newer[target] = max(source, int(self.newer[target]))


def saved_as(namespace: str) -> str:
    """Return the name under which the words of *namespace* are saved: it may be called anything, a file may not."""
    if namespace == DEFAULT_NAMESPACE:
        return "words"
    return f"words-{sha256(namespace.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def made_by(index: LexicalIndex) -> dict[str, str | int | None]:
    """Return what decides how texts become words and columns."""
    return {"rules": _RULES, **index.words.rules}


def seconds(stamp: str | None) -> float:
    """Return a time as `records.utc` writes it in seconds since 1970; NaN for None."""
    return math.nan if stamp is None else datetime.fromisoformat(stamp).timestamp()
