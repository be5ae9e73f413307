"""Source code: functions and classes stay whole where they fit.

Python is read by its tokens, everything else by its indentation. The standard `ast` would do for Python, but can be
brought down by a source that nests deeply enough, and warns about what it reads; tokens come one after the other.
"""

from __future__ import annotations

import io
import re
import tokenize
from typing import TYPE_CHECKING, NamedTuple

from ..documents.detection import language_of
from .model import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..documents.model import Document

__all__ = ["definitions"]

_COMMENT = re.compile(r"[ \t]*(?:#|//|/\*|\*|--|;|%|\"\"\"|''')")
# After a sign that it does not know, the tokenizer before Python 3.12 goes over the blanks behind it again at each.
_BLANKS = re.compile(r"[ \t\f]{1000}")
_CLOSING = {"}", "};", "})", "});", "end", ")", ");", "]", "];"}


class _Line(NamedTuple):
    """A logical line of Python: where it begins, how deep it is, and its first word."""

    start: int
    depth: int
    word: str


def definitions(document: Document) -> Iterator[Part]:
    """Yield the definitions of a source file; those that fit together share a chunk.

    A piece of a long definition has its first line as context, and a method the first line of its class.
    """
    starts = None
    if language_of(document.mime) == "python":
        starts = _python(document.text)
    if starts is None:
        starts = _indented(document.text)
    text = document.text
    bounds = sorted({0: ("", ()), **starts}.items())
    for at, (start, (header, context)) in enumerate(bounds):
        end = bounds[at + 1][0] if at + 1 < len(bounds) else len(text)
        if start < end:
            yield Part(start, end, "code", (), context, header)


def _python(text: str) -> dict[int, tuple[str, tuple[str, ...]]] | None:
    """Return where definitions begin, and what stands before pieces of them; None if the source is broken."""
    if _BLANKS.search(text):
        return None
    try:
        lines = list(_logical(text))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return None
    found: dict[int, tuple[str, tuple[str, ...]]] = {}
    owner: str | None = None  # the class that we are in
    decorated: int | None = None  # where the decorators of what comes begin
    defining = False
    for line in lines:
        if line.depth > (owner is not None):
            continue
        if line.word == "@":
            decorated = line.start if decorated is None else decorated
        elif line.word in {"def", "class", "async"}:
            end = text.find("\n", line.start)
            head = text[line.start : end if end >= 0 else len(text)].strip()
            context = (owner,) if owner is not None and line.depth else ()
            found[_above(text, line.start if decorated is None else decorated)] = (head, context)
            decorated, defining = None, True
            if line.depth == 0:
                owner = head if line.word == "class" else None
        elif line.depth == 0:
            if defining:
                found.setdefault(_above(text, line.start), ("", ()))
            owner, defining = None, False
    return found


def _logical(text: str) -> Iterator[_Line]:
    offsets = [0]
    for line in text.split("\n"):
        offsets.append(offsets[-1] + len(line) + 1)
    depth, fresh = 0, True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            fresh = True
        elif fresh and token.type not in {tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER}:
            fresh = False
            yield _Line(offsets[token.start[0] - 1] + token.start[1], depth, token.string)


def _above(text: str, start: int) -> int:
    """Return where the line of *start* begins, or the comments right above it."""
    begin = text.rfind("\n", 0, start) + 1
    while begin:
        before = text.rfind("\n", 0, begin - 1) + 1
        if not re.match(r"[ \t]*#", text[before:begin]):
            break
        begin = before
    return begin


def _indented(text: str) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Return where blocks begin: at a line without indentation after an empty line."""
    found: dict[int, tuple[str, tuple[str, ...]]] = {}
    at = start = 0
    blank, headed = True, True
    for line in text.split("\n"):
        if line.strip() and not line[0].isspace():
            if blank and line.strip() not in _CLOSING:
                at, headed = start, False
                found[at] = ("", ())
            if not headed and not _COMMENT.match(line):
                found[at], headed = (line.strip(), ()), True
        blank = not line.strip()
        start += len(line) + 1
    return found
