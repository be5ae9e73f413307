"""Parts of a text become chunks of at most so many tokens, cut where it hurts least.

A part that fits is left whole, and neighbours of one group share a chunk while they fit together. One that does not is
taken apart into paragraphs, those that do not fit into lines and sentences, those into words, those into characters. A
chunk takes as many of these units as fit, and ends at the strongest boundary in its second half.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ...errors import InvalidInput
from .model import Chunk, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..documents.model import Document

__all__ = ["Cutter"]

# How strong the boundary before a unit is; 0 is the strongest.
_PART, _PARAGRAPH, _LINE_OF_SENTENCE, _SENTENCE, _LINE, _WORD, _SIGN, _CHARACTER = range(8)

_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n\s*")
_LINES = re.compile(r"\n")
# Ends of sentences, also of those that no space follows (Chinese, Japanese), and ends of lines.
_SENTENCES = re.compile("(?<=[.!?\u2026])[\"')\\]\u201d\u2019]*\\s+|\n\\s*|(?<=[\u3002\uff01\uff1f])")
_SIGNS = re.compile(r"[,;:})\]>|/&]+")
_SPACES = re.compile(r"\s+")
_ENDS = (*'.!?:")', "\u2026", "\u3002", "\uff01", "\uff1f", "\u201d")
_ITEM = re.compile(r"[ \t]*(?:[-*+•]|\d+[.)])[ \t]")
_MANY = 16  # characters that hardly any token has on average: a text that much longer need not be counted
_CONTEXT = 4  # the context may take one in so many tokens


class _Unit(NamedTuple):
    start: int
    end: int
    tokens: int
    rank: int  # of the boundary before it
    part: int


class Cutter:
    """Cuts one document; `count` says how many tokens a text has."""

    def __init__(
        self,
        document: Document,
        count: Callable[[str], int],
        *,
        size: int,
        overlap: int,
        limit: int | None,
        levels: str = "paragraphs",
    ) -> None:
        self._document, self._text = document, document.text
        self._count, self._size, self._overlap, self._limit = count, size, overlap, limit
        self._levels = levels

    def chunks(self, parts: Sequence[Part]) -> Iterator[Chunk]:
        """Yield the chunks of *parts*, which come in order."""
        at = 0
        while at < len(parts):
            after = at + 1
            while after < len(parts) and parts[after].group == parts[at].group:
                after += 1
            yield from self._group(parts[at:after])
            at = after

    def _group(self, parts: Sequence[Part]) -> Iterator[Chunk]:
        contexts = [(self._context(part, 0), self._context(part, 1)) for part in parts]
        begins = [self._trimmed(part.start, part.end)[0] for part in parts]
        room = min(self._room(context) for both in contexts for context in set(both))
        units = [unit for index, part in enumerate(parts) for unit in self._units(part, index, room)]
        at, begin, lead = 0, units[0].start if units else 0, 0  # lead: the tokens repeated from the chunk before
        while at < len(units):
            if begin == units[at].start:
                lead = 0
            after = self._fill(units, at, room - lead)
            part = parts[units[at].part]
            while True:
                after = self._best(units, at, after)
                start, end = self._trimmed(begin, units[after - 1].end)
                context = contexts[units[at].part][start > begins[units[at].part]]
                if self._fits(indented := self._indented(start, part), end, context):
                    start = indented
                    break
                if after == at + 1 or self._fits(start, end, context):
                    break
                after -= 1
            if begin < units[at].start and not self._fits(start, end, context):
                begin = units[at].start  # without what was repeated
                continue
            if context and not self._fits(start, end, context):
                context = ""  # for a tokenizer that makes more of two texts together than of each
            yield self._chunk(start, end, part, context, mixed={parts[unit.part].kind for unit in units[at:after]})
            begin = units[after].start if after < len(units) else 0
            lead = 0
            if after < len(units) and self._may_repeat(parts, units, after):
                begin, lead = self._back(start, units[after].start)
            at = after

    def _fill(self, units: list[_Unit], at: int, room: int) -> int:
        """Return the unit after the last that fits, with those from *at* on; one is taken in any case."""
        total, after = units[at].tokens, at + 1
        while after < len(units) and total + units[after].tokens <= room:
            total += units[after].tokens
            after += 1
        return after

    def _best(self, units: list[_Unit], at: int, after: int) -> int:
        """Return where to end a chunk that could end before *after*: at the strongest boundary of its second half.

        Between parts it may end after a quarter: the next is then whole, or at least begins a chunk.
        """
        if after == len(units):
            return after
        half = sum(unit.tokens for unit in units[at:after]) / 2
        total, best = 0, after
        for index in range(at + 1, after + 1):
            total += units[index - 1].tokens
            if total >= (half / 2 if units[index].rank == _PART else half) and units[index].rank <= units[best].rank:
                best = index if units[index].rank < units[best].rank else max(best, index)
        return best

    def _may_repeat(self, parts: Sequence[Part], units: list[_Unit], at: int) -> bool:
        """Tell whether a chunk may repeat the end of the one before: within a running text it may."""
        return (
            self._overlap > 0
            and units[at].part == units[at - 1].part
            and parts[units[at].part].kind in {"text", "conversation"}
        )

    def _back(self, lowest: int, end: int) -> tuple[int, int]:
        """Return where the last `overlap` tokens before *end* begin, at a sentence or else a word, and their number."""
        low = max(lowest + 1, end - self._overlap * _MANY)
        for pattern in (_SENTENCES, _SPACES):
            starts = [match.end() for match in pattern.finditer(self._text, low, end) if match.end() < end]
            first, last = 0, len(starts)
            while first < last:  # the earliest from which on they are few enough
                middle = (first + last) // 2
                if self._tokens(starts[middle], end) <= self._overlap:
                    last = middle
                else:
                    first = middle + 1
            if first < len(starts):
                return starts[first], self._tokens(starts[first], end)
        return end, 0

    def _units(self, part: Part, index: int, room: int) -> Iterator[_Unit]:
        start, end = self._trimmed(part.start, part.end)
        if start == end:
            return
        rank = _PART
        for low, high, tokens, strength in self._apart(start, end, part.kind, room):
            yield _Unit(low, high, tokens, rank, index)
            rank = strength

    def _apart(self, start: int, end: int, kind: str, room: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield units that fit, each with its tokens and the strength of the boundary after it."""
        levels = [_paragraphs, _lines if kind in {"code", "table"} else _sentences, _words, _signs]
        if self._levels == "sentences":
            levels = levels[1:]
        elif self._levels == "words":
            levels = levels[2:]
        if kind == "table":
            levels = [_lines, _words, _signs]
        yield from self._level(start, end, levels, room, _PART)

    def _level(
        self, start: int, end: int, levels: Sequence[_Level], room: int, after: int
    ) -> Iterator[tuple[int, int, int, int]]:
        tokens = self._tokens(start, end) if end - start <= room * _MANY or not levels else room + 1
        if tokens <= room and (self._levels != "words" or not levels):
            yield start, end, tokens, after
        elif not levels:
            yield from self._letters(start, end, room, after)
        else:
            low = start
            for at, rank in levels[0](self._text, start, end):
                if low < at < end:
                    yield from self._level(low, at, levels[1:], room, rank)
                    low = at
            yield from self._level(low, end, levels[1:], room, after)

    def _letters(self, start: int, end: int, room: int, after: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield pieces of a word that does not fit, as texts without spaces are."""
        at = start
        while at < end:
            step = min(room, end - at)
            while (tokens := self._tokens(at, at + step)) > room and step > 1:
                step //= 2
            if tokens > room:
                raise InvalidInput(
                    f"The character {self._text[at]!r} alone has more than the {room} tokens that a chunk may have. "
                    f"Pass a larger size= or limit=."
                )
            at += step
            yield at - step, at, tokens, _CHARACTER if at < end else after

    def _tokens(self, start: int, end: int) -> int:
        return self._count(self._text[start:end].strip())

    def _room(self, context: str) -> int:
        """Return how many tokens the text of a chunk may have."""
        if self._limit is None:
            return self._size
        return min(self._size, max(self._limit - (self._count(context + "\n") if context else 0), 1))

    def _fits(self, start: int, end: int, context: str) -> bool:
        if (
            end - start > self._size * _MANY
        ):  # blanks between units, as before lines far indented, are in no unit's count
            return False
        text = self._text[start:end]
        if self._count(text) > self._size:
            return False
        return self._limit is None or self._count(f"{context}\n{text}" if context else text) <= self._limit

    def _context(self, part: Part, inside: int) -> str:
        """Return what stands before a chunk, cut to what it may take: the nearest headings matter most."""
        most = (self._size if self._limit is None else min(self._size, self._limit)) // _CONTEXT
        header = _shortened(part.header, most, self._count) if inside else ""
        left = most - (self._count(header) if header else 0)
        path: list[str] = []
        for heading in reversed(part.heading_path if part.context is None else part.context):
            if self._count(" > ".join([heading, *path])) > left:
                break
            path.insert(0, heading)
        return "\n".join(filter(None, [" > ".join(path), header]))

    def _trimmed(self, start: int, end: int) -> tuple[int, int]:
        """Return a span without the blanks at its ends."""
        piece = self._text[start:end]
        begin = start + len(piece) - len(piece.lstrip())
        return begin, max(begin, end - len(piece) + len(piece.rstrip()))

    def _indented(self, start: int, part: Part) -> int:
        """Return *start*, or the beginning of its line if nothing but the indentation of code is before it."""
        begin = max(self._text.rfind("\n", 0, start) + 1, part.start)
        return begin if part.kind == "code" and self._text[begin:start].isspace() else start

    def _chunk(self, start: int, end: int, part: Part, context: str, *, mixed: set[str]) -> Chunk:
        return Chunk(
            start,
            end,
            self._text[start:end],
            self._document.pages(start, end),
            self._document.lines(start, end),
            part.heading_path or self._document.headings_at(start),
            part.kind if len(mixed) == 1 else "text",
            context,
        )


if TYPE_CHECKING:
    _Level = Callable[[str, int, int], Iterator[tuple[int, int]]]


def _paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _PARAGRAPHS.finditer(text, start, end):
        yield match.end(), _PARAGRAPH


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _LINES.finditer(text, start, end):
        yield match.end(), _LINE_OF_SENTENCE


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _SENTENCES.finditer(text, start, end):
        if not match.group().startswith("\n") and "\n" not in match.group():
            yield match.end(), _SENTENCE
        elif text[match.start() - 1] in _ENDS or _ITEM.match(text, match.end()):
            yield match.end(), _LINE_OF_SENTENCE
        else:
            yield match.end(), _LINE


def _words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _SPACES.finditer(text, start, end):
        yield match.end(), _WORD


def _signs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield ends of what has no blanks, as JSON in one line and addresses have none."""
    for match in _SIGNS.finditer(text, start, end):
        yield match.end(), _SIGN


def _shortened(text: str, most: int, count: Callable[[str], int]) -> str:
    """Return as much of the beginning of *text* as has at most so many tokens."""
    if not text or count(text) <= most:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(text[:middle] + "…") <= most:
            low = middle
        else:
            high = middle - 1
    return text[:low] + "…" if low else ""
