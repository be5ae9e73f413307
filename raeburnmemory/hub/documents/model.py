"""What a document is once it is read: one text, and where in it the pages, headings and tables are."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Block", "Document", "Limits", "digest"]


@dataclass(frozen=True)
class Limits:
    """What reading one document may cost; whatever passes one of these is refused, and said so.

    `size` and `unpacked` are bytes, `seconds` both of the clock and of the processor, `memory` bytes of address space
    of the process that parses; `members` counts what is in an archive, `ratio` is how many times larger than packed a
    member of more than 1 MB may be, `pages` counts those of a PDF, `characters` those of the text.
    """

    size: int = 100_000_000
    seconds: float = 60.0
    memory: int = 2_000_000_000
    members: int = 10_000
    unpacked: int = 200_000_000
    ratio: float = 100.0
    pages: int = 2_000
    characters: int = 50_000_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise InvalidInput(f"The limit {name} is {value!r}. It must be a number above 0.")


@dataclass(frozen=True)
class Block:
    """A part of a document: characters `start` to `end` of its text.

    `kind` is heading, paragraph, list, table, code, output, page, slide, sheet, message, turn, cue or event. `page`
    counts from 1 (pages of a PDF, slides, sheets). `heading_path` are the headings above it, the outermost first, and
    for a heading itself as well, each cut to 500 characters; `level` is that of a heading, from 1. `name` is what the
    document calls it: a speaker, a sheet, a time, a language. `header` is the first row of a table.
    """

    kind: str
    start: int
    end: int
    page: int | None = None
    heading_path: tuple[str, ...] = ()
    level: int | None = None
    name: str | None = None
    header: str | None = None


@dataclass(frozen=True)
class Document:
    """One text with its parts.

    `uri` is where it came from, `mime` what it was, `content_hash` the SHA-256 of the bytes that it was read from, in
    hexadecimal. `blocks` come in the order of their starts, larger ones first; they may lie within each other.
    `verbatim` says that lines of `text` are lines of the file, so that they can be cited. `metadata` holds plain JSON
    values.
    """

    uri: str | None
    title: str
    mime: str
    text: str
    blocks: tuple[Block, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str = ""
    verbatim: bool = False

    @cached_property
    def _breaks(self) -> list[int]:
        return [at for at, character in enumerate(self.text) if character == "\n"]

    @cached_property
    def _pages(self) -> tuple[list[int], list[Block]]:
        paged = [block for block in self.blocks if block.kind in {"page", "slide", "sheet"} and block.page is not None]
        return [block.start for block in paged], paged

    @cached_property
    def _headings(self) -> tuple[list[int], list[Block]]:
        found = [block for block in self.blocks if block.kind == "heading"]
        return [block.start for block in found], found

    @cached_property
    def _starts(self) -> list[int]:
        return [block.start for block in self.blocks]

    def between(self, start: int, end: int) -> tuple[Block, ...]:
        """Return the blocks that begin from *start* on and before *end*."""
        return self.blocks[bisect_left(self._starts, start) : bisect_left(self._starts, end)]

    def headings_at(self, offset: int) -> tuple[str, ...]:
        """Return the headings above the character at *offset*, the outermost first."""
        starts, found = self._headings
        at = bisect_right(starts, offset)
        return found[at - 1].heading_path if at else ()

    def line_at(self, offset: int) -> int:
        """Return the line of `text`, counted from 1, that the character at *offset* is on."""
        return bisect_left(self._breaks, offset) + 1

    def lines(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the first and the last line of a part of the text; None where its lines are not those of the file."""
        return (self.line_at(start), self.line_at(max(start, end - 1))) if self.verbatim else None

    def page_at(self, offset: int) -> int | None:
        """Return the page, slide or sheet that the character at *offset* is on, if the document has any."""
        starts, paged = self._pages
        at = bisect_right(starts, offset)
        return paged[max(at - 1, 0)].page if paged else None

    def pages(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the first and the last page of a part of the text, if the document has pages."""
        first, last = self.page_at(start), self.page_at(max(start, end - 1))
        return None if first is None or last is None else (first, last)


def digest(data: bytes) -> str:
    """Return the SHA-256 of *data* in hexadecimal, as `Document.content_hash` has it."""
    return hashlib.sha256(data).hexdigest()
