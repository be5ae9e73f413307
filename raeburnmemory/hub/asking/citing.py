"""Citations: the numbers in brackets that a model writes, taken apart as they come, and held against what is stored."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..models.interface import joined
from .quoting import find
from .sources import Source, within

if TYPE_CHECKING:
    from ...hits import Place
    from ...index._words import Words

__all__ = ["Citation", "Marker", "Markers", "verified"]

_LONGEST = 40  # characters between two brackets that may be numbers of sources
_INSIDE = re.compile(
    r"\s*(?:sources?|fragments?|documents?|docs?|refs?|items?)?[\s.:#^]*"
    r"\d{1,3}(?:\s*(?:,|;|-|\u2013|&|and)\s*(?:source)?[\s#^]*\d{1,3})*\s*",
    re.IGNORECASE,
)
_CLOSING = {"[": "]", "\u3010": "\u3011"}
# A line that goes on with a small letter goes on with the sentence: texts are wrapped.
_SENTENCE_END = re.compile(
    r"""[.!?\u2026\u3002\uff01\uff1f]["')\]\u201d\u2019\xbb]*(?=\s|$)"""
    r"|\n\s*\n|\n(?!\s*[^\W\d_A-Z])"
)
_QUOTED = re.compile('"([^"\n]{8,400})"|\u201c([^\u201d\n]{8,400})\u201d|\u201e([^\u201c\u201d\n]{8,400})[\u201c\u201d]'
                     "|\xab([^\xbb\n]{8,400})\xbb")  # fmt: skip
_CLAIM = 1000  # characters that a claim has at most
_ENOUGH = 1 / 3  # of the words of a claim: what a sentence must have to be what the claim rests on


@dataclass(frozen=True)
class Citation:
    """One source that one statement of an answer rests on.

    `number` is the one in brackets, `id` that of the node, None for a text that is not in the memory. `claim` is the
    statement, `quote` the part of the stored text that it rests on, word for word, and `place` where that stands.
    `support` is `"quote"` where the statement quotes it, `"words"` where it shares its words and numbers, and empty
    where nothing in the source was found that does. `verified` says that there is such support, and that the text is
    stored now as the model saw it.
    """

    number: int
    id: str | None
    kind: str
    claim: str
    quote: str
    place: Place | None
    support: str
    verified: bool
    said: str = ""

    @property
    def uri(self) -> str | None:
        """Where the document came from."""
        return None if self.place is None else self.place.uri or None

    @property
    def title(self) -> str | None:
        """What the document is called."""
        return None if self.place is None else self.place.title or self.place.name

    @property
    def lines(self) -> tuple[int, int] | None:
        """The first and the last line of the quote in the file, counted from 1."""
        return None if self.place is None else self.place.lines

    @property
    def pages(self) -> tuple[int, int] | None:
        """The first and the last page of what was found."""
        return None if self.place is None else self.place.pages

    @property
    def start(self) -> int | None:
        """The character of the document's text at which the quote begins."""
        return None if self.place is None or self.place.start < 0 else self.place.start

    @property
    def end(self) -> int | None:
        """The character of the document's text at which the quote ends."""
        return None if self.place is None or self.place.end < 0 else self.place.end

    def __str__(self) -> str:
        return str(self.place) if self.place is not None else self.said or self.kind

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "number": self.number,
            "id": self.id,
            "kind": self.kind,
            "uri": self.uri,
            "title": self.title,
            "document": None if self.place is None else self.place.document or None,
            "lines": None if self.lines is None else list(self.lines),
            "pages": None if self.pages is None else list(self.pages),
            "start": self.start,
            "end": self.end,
            "claim": self.claim,
            "quote": self.quote,
            "support": self.support,
            "verified": self.verified,
            "said": self.said,
        }


# --- as they come -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marker:
    """A number in brackets: `at` is where it stands in the text."""

    number: int
    at: int


class Markers:
    """Takes the pieces of an answer, and gives them back without numbers of sources that there are not.

    `[1, 3]` becomes `[1][3]`. What is code stays as it is. A piece may be held back until its bracket is closed.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = frozenset(numbers)
        self._waiting = ""
        self._fence = ""  # the backticks that began a piece of code
        self._ticks = ""
        self._half = ""  # of a character that is torn apart
        self.found: list[Marker] = []
        self.invented: list[int] = []
        self._parts: list[str] = []
        self._length = 0

    @property
    def text(self) -> str:
        """What was given back so far."""
        return "".join(self._parts)

    def feed(self, piece: str) -> str:
        """Return what of the answer is settled now."""
        before = len(self._parts)
        piece, self._half = self._half + piece, ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        for char in joined(piece):
            self._take(char)
        return "".join(self._parts[before:])

    def end(self) -> str:
        """Return what was held back."""
        before = len(self._parts)
        for char in joined(self._half):
            self._take(char)
        self._release()
        return "".join(self._parts[before:])

    def _take(self, char: str) -> None:
        if char == "`":
            self._ticks += char
        elif self._ticks:
            if not self._fence:
                self._fence = self._ticks
            elif self._ticks == self._fence:
                self._fence = ""
            self._ticks = ""
        opened = self._waiting.strip(" ")
        if opened:
            self._waiting += char
            if char == _CLOSING[opened[0]]:
                self._close()
            elif char == "\n" or len(self._waiting) > _LONGEST or char in _CLOSING:
                waiting, self._waiting = self._waiting, ""
                if char in _CLOSING:  # another bracket within this one: that may be one
                    self._emit(waiting[:-1])
                    self._waiting = char
                else:
                    self._emit(waiting)
        elif char == " " or (char in _CLOSING and not self._fence and not self._ticks):
            self._waiting += char  # a space before a number that goes, goes with it
        else:
            self._release()
            self._emit(char)

    def _close(self) -> None:
        waiting, self._waiting = self._waiting, ""
        inside = waiting.strip(" ")[1:-1]
        if _INSIDE.fullmatch(inside) is None:
            self._emit(waiting)
            return
        numbers = list(dict.fromkeys(_numbers(inside)))
        kept = [number for number in numbers if number in self._numbers]
        self.invented += [number for number in numbers if number not in self._numbers]
        if kept:
            self._emit(waiting[: len(waiting) - len(waiting.lstrip(" "))])
            for number in kept:
                self.found.append(Marker(number, self._length))
                self._emit(f"[{number}]")

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, ""
        self._emit(waiting)

    def _emit(self, text: str) -> None:
        if text:
            self._parts.append(text)
            self._length += len(text)


def _numbers(inside: str) -> Iterator[int]:
    for match in re.finditer(r"(\d{1,3})(?:\s*[-\u2013]\s*(\d{1,3}))?", inside):
        first, last = int(match[1]), int(match[2] or match[1])
        yield from range(first, last + 1) if first <= last <= first + 20 else (first, last)


# --- held against what is stored --------------------------------------------------------------------------------


def verified(
    text: str, markers: Sequence[Marker], sources: Sequence[Source], stored: Mapping[str, str | None], words: Words
) -> tuple[list[Citation], list[str], list[Marker]]:
    """Return the citations of an answer, what is wrong with any of them, and the markers of those that are none.

    *stored* has the texts of nodes as they are now, None for those that are gone. A statement that quotes what its
    source does not hold is no citation of it: the number is among the problems.
    """
    by_number = {source.number: source for source in sources}
    citations: list[Citation] = []
    problems: list[str] = []
    false: list[Marker] = []
    seen: dict[tuple[int, str], str] = {}  # models that are lost say the same for as long as they may
    for marker, claim in _claims(text, markers):
        source = by_number[marker.number]
        if (known := (marker.number, claim)) in seen:
            if seen[known] == "misquoted":
                false.append(marker)
            continue
        support, start, end = _support(claim, source, words)
        seen[known] = support
        if support == "misquoted":
            problems.append(f"[{marker.number}] does not hold what the answer quotes: {claim}")
            false.append(marker)
            continue
        there = source.id is None or stored.get(source.id) == source.text
        if not there:
            state = "gone" if stored.get(source.id or "") is None else "changed"
            problems.append(f"[{marker.number}] is {state} since it was read.")
        elif not support:
            problems.append(f"[{marker.number}] has nothing that the statement rests on: {claim}")
        low, high = source.clean.original(start, end)
        place = source.place
        if support and place is not None:
            place = within(place, source.text, low, high)
        citations.append(
            Citation(
                marker.number,
                source.id,
                source.kind,
                claim,
                source.text[low:high] if support else "",
                place,
                support,
                bool(support) and there,
                source.said,
            )
        )
    return citations, problems, false


def _claims(text: str, markers: Sequence[Marker]) -> Iterator[tuple[Marker, str]]:
    """Yield with each marker the sentence that it stands in or right after, without markers, of a long one its end."""
    plain, places = _without(text, markers)
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(plain))]
    for marker, place in zip(markers, places, strict=True):
        end = place
        while end and plain[end - 1].isspace():
            end -= 1
        begin = ends[max(bisect_left(ends, end) - 1, 0)]
        yield marker, plain[max(begin, end - _CLAIM) : end].strip()


def _without(text: str, markers: Sequence[Marker]) -> tuple[str, list[int]]:
    """Return *text* without markers, and where each stood in what is left."""
    parts: list[str] = []
    places: list[int] = []
    done = length = 0
    for marker in markers:
        parts.append(text[done : marker.at])
        length += marker.at - done
        places.append(length)
        done = marker.at + len(f"[{marker.number}]")
    return "".join([*parts, text[done:]]), places


def _support(claim: str, source: Source, words: Words) -> tuple[str, int, int]:
    """Return what in a source a claim rests on: how, and from which character to which of what is quoted."""
    shown = source.clean.text[: source.shown]
    quotes = [next(filter(None, match.groups())) for match in _QUOTED.finditer(claim)]
    quotes = [quote for quote in quotes if len(quote.split()) > 2 or len(quote) > 20]
    spans = [span for span in (find(quote, shown) for quote in quotes) if span is not None]
    if quotes and len(spans) < len(quotes):
        return "misquoted", 0, 0
    if spans:
        return "quote", *spans[0]
    asked = set(words.of(claim))
    if not asked or not _figures(claim) <= _figures(shown):
        return "", 0, 0
    best, start, end = 0.0, 0, 0
    for low, high in _sentences(shown):
        share = len(asked & set(words.of(shown[low:high]))) / len(asked)
        if share > best:
            best, start, end = share, low, high
    if best < _ENOUGH and len(asked & set(words.of(shown))) / len(asked) < 2 * _ENOUGH:
        return "", 0, 0
    return "words", start, end


def _figures(text: str) -> set[str]:
    return {figure.strip(".,") for figure in re.findall(r"\d[\d.,]*", text)}


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        piece = text[start:end]
        if piece.strip():
            low = start + len(piece) - len(piece.lstrip())
            yield low, low + len(piece.strip())
        start = end
