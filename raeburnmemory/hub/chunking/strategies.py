"""Which parts of a document belong together, by what kind of document it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..documents.detection import language_of
from .model import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..documents.model import Block, Document

__all__ = ["conversation", "fitting", "pages", "sections", "tables", "whole"]

_PAGES = {"page", "slide", "sheet"}
_TURNS = {"turn", "cue", "message"}


def fitting(document: Document) -> str:
    """Return the name of the chunker that suits *document*."""
    kinds = {block.kind for block in document.blocks}
    if kinds & _TURNS:
        return "conversation"
    if language_of(document.mime) is not None:
        return "code"
    if "slide" in kinds:
        return "page"
    if "table" in kinds and kinds <= {"table", "sheet"}:
        return "table"
    return "markdown" if "heading" in kinds else "recursive"


def whole(document: Document) -> list[Part]:
    """Return the whole text as one part."""
    return [Part(0, len(document.text))] if document.text else []


def sections(document: Document) -> Iterator[Part]:
    """Yield what stands under each heading: its text, its tables, its code.

    A heading is in the text of the first chunk of its section, where its context are the headings above it; the chunks
    after that have it as context. One under which nothing stands shares a chunk with the next.
    """
    headings = [block for block in document.blocks if block.kind == "heading"]
    first = headings[0].start if headings else len(document.text)
    yield from _inner(document, 0, first, (), 0)
    group, bare = 1, []  # headings so far under which nothing stands
    for at, block in enumerate(headings):
        end = headings[at + 1].start if at + 1 < len(headings) else len(document.text)
        bare.append(block)
        if document.text[block.end : end].strip() or at + 1 == len(headings):
            for above in bare:
                path = block.heading_path
                yield Part(above.start, above.end, "text", path, above.heading_path[:-1], group=group)
            yield from _inner(document, block.end, end, block.heading_path, group)
            group, bare = group + 1, []


def _inner(document: Document, start: int, end: int, path: tuple[str, ...], group: int) -> Iterator[Part]:
    """Yield the parts of a stretch of text: its tables and its code, and what is between them."""
    at = start
    for block in _special(document, start, end):
        if at < block.start:
            yield Part(at, block.start, "text", path, group=group)
        yield Part(block.start, block.end, block.kind, path, header=block.header or "", group=group)
        at = block.end
    if at < end:
        yield Part(at, end, "text", path, group=group)


def _special(document: Document, start: int, end: int) -> Iterator[Block]:
    reached = start
    for block in document.between(start, end):
        if block.kind in {"table", "code"} and block.start >= reached and block.start < block.end <= end:
            yield block
            reached = block.end


def tables(document: Document) -> Iterator[Part]:
    """Yield the tables of a document; rows after the first chunk have the header as context."""
    for group, block in enumerate(_special(document, 0, len(document.text))):
        named = (block.name,) if block.name else ()
        if block.kind == "table":
            yield Part(block.start, block.end, "table", (), named, header=block.header or "", group=group)


def pages(document: Document) -> Iterator[Part]:
    """Yield the pages of a document, none of which shares a chunk with another; without pages, the whole."""
    paged = [block for block in document.blocks if block.kind in _PAGES and block.start < block.end]
    for group, block in enumerate(paged):
        path = document.headings_at(block.start) if block.kind == "slide" else ()
        for part in _inner(document, block.start, block.end, path, group):
            yield Part(part.start, part.end, part.kind, path, (), part.header or "".join(path[-1:]), group)


def conversation(document: Document) -> Iterator[Part]:
    """Yield what each one said; turns share chunks, messages do not.

    A piece of a long turn has the name of its speaker as context, that of subtitles its time.
    """
    turns = [block for block in document.blocks if block.kind in _TURNS and block.start < block.end]
    for at, block in enumerate(turns):
        group = at if block.kind == "message" else 0
        name = block.name or ""
        if block.kind == "cue":
            yield Part(block.start, block.end, "conversation", context=(name,) if name else (), group=group)
        else:
            path = document.headings_at(block.start) if block.kind == "message" else ()
            yield Part(block.start, block.end, "conversation", path, (), name, group)
