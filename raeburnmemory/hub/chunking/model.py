"""What chunkers speak of: parts of a document that belong together, and the chunks that are made of them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Chunk", "Part"]


@dataclass(frozen=True)
class Chunk:
    """A piece of a document, small enough for a model: `document.text[start:end] == text`.

    `pages` and `lines` are the first and the last, counted from 1; None where the document has no pages, or where lines
    of its text are not those of the file. `heading_path` are the headings above it, the outermost first. `kind` is
    text, code, table or conversation. `context` is what somebody who reads the chunk alone lacks: the headings above
    it, the header of its table, the first line of its function; it is no part of the text.
    """

    start: int
    end: int
    text: str
    pages: tuple[int, int] | None = None
    lines: tuple[int, int] | None = None
    heading_path: tuple[str, ...] = ()
    kind: str = "text"
    context: str = ""

    @property
    def indexed(self) -> str:
        """What an embedder should see: the context in a line of its own, then the text."""
        return f"{self.context}\n{self.text}" if self.context else self.text


@dataclass(frozen=True)
class Part:
    """Characters `start` to `end` of a document, which a chunker wants to keep together if they fit.

    Parts that follow each other and have the same `group` may share a chunk. `context`, or else the `heading_path`,
    stands before every chunk that begins in the part, `header` besides before those that begin after its start.
    """

    start: int
    end: int
    kind: str = "text"
    heading_path: tuple[str, ...] = ()
    context: tuple[str, ...] | None = None
    header: str = ""
    group: int = 0
