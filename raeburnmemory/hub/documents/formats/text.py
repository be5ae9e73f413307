"""Texts that stay as they are, line by line: plain ones, Markdown, reStructuredText, Org, tables, JSON, source code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..detection import language_of
from ..encoding import decode
from ..model import Block
from ..source import Loaded, named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..source import Source

__all__ = ["code", "headed", "markdown", "org", "plain", "rst", "text_of"]


def plain(source: Source) -> Loaded:
    """Return a text as it is."""
    return Loaded(text_of(source), verbatim=True)


def text_of(source: Source) -> str:
    """Return the decoded text of a file, with newlines as one character and nothing else changed."""
    text = decode(source.data, source.charset, uri=source.uri)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def code(source: Source) -> Loaded:
    """Return source code as one block, in its language."""
    text = text_of(source)
    language = language_of(source.mime)
    blocks = (Block("code", 0, len(text), name=language),) if text else ()
    return Loaded(text, blocks, None, {"language": language}, verbatim=True)


# What stands at the end of such lines is taken off afterwards: a pattern that does it goes over long blanks many times.
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)")
_RULE = re.compile(r"\s*\|?(?:\s*:?-+:?\s*\|)+\s*(?::?-+:?)?\s*")


def markdown(source: Source) -> Loaded:
    """Return a Markdown text with its headings, blocks of code and tables."""
    text = text_of(source)
    outline = _markdown(text)
    return Loaded(text, tuple(outline.blocks), outline.title, verbatim=True)


def _markdown(text: str) -> Outline:
    outline = Outline()
    lines = list(_lines(text))
    at = _front_matter(lines)
    while at < len(lines):
        start, end, line = lines[at]
        if fence := _FENCE.fullmatch(line):
            last = _closing(lines, at, fence[1])
            outline.block("code", start, lines[last][1], name="".join(fence[2].split()[:1]) or None)
            at = last + 1
        elif heading := _ATX.fullmatch(line):
            outline.heading(start, end, _unclosed(heading[2] or ""), len(heading[1]))
            at += 1
        elif "|" in line and at + 1 < len(lines) and "-" in lines[at + 1][2] and _RULE.fullmatch(lines[at + 1][2]):
            last = at + 1
            while last + 1 < len(lines) and "|" in lines[last + 1][2]:
                last += 1
            outline.block("table", start, lines[last][1], header=line.strip())
            at = last + 1
        elif line.strip() and at + 1 < len(lines) and _underlined(lines, at):
            under = lines[at + 1]
            outline.heading(start, under[1], line, 1 if under[2].strip()[0] == "=" else 2)
            at += 2
        else:
            at += 1
    return outline


def _unclosed(heading: str) -> str:
    """Return a heading without the signs that may close it: `## like this ##`."""
    heading = heading.rstrip(" \t")
    bare = heading.rstrip("#")
    return bare if bare.endswith((" ", "\t")) else heading


def _underlined(lines: list[tuple[int, int, str]], at: int) -> bool:
    """Tell whether a line is a heading by the line below it; below a paragraph of several lines it is none here."""
    if not _SETEXT.fullmatch(lines[at + 1][2]) or re.match(r"\s*(?:[-*+>|]|\d+[.)]|    )", lines[at][2]):
        return False
    return at == 0 or not lines[at - 1][2].strip()


def _front_matter(lines: list[tuple[int, int, str]]) -> int:
    """Return the first line after a block of settings between two lines of dashes at the very beginning."""
    if lines and lines[0][2].rstrip() == "---":
        for at in range(1, len(lines)):
            if lines[at][2].rstrip() in {"---", "..."}:
                return at + 1
    return 0


def _closing(lines: list[tuple[int, int, str]], at: int, fence: str) -> int:
    """Return the line that closes a block of code, or the last one, as Markdown has it."""
    for after in range(at + 1, len(lines)):
        line = lines[after][2].strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return after
    return len(lines) - 1


def headed(text: str) -> Iterator[tuple[str, int]]:
    """Yield the parts of a Markdown text in their order: a heading with its level, other text with level 0."""
    at = 0
    outline = _markdown(text)
    headings = iter(outline.headings)
    for block in outline.blocks:
        if block.kind == "heading":
            yield text[at : block.start], 0
            yield next(headings), block.level or 1
            at = block.end
    yield text[at:], 0


_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*")
_STARS = re.compile(r"(\*+)[ \t]+(.*)")
_TAGS = re.compile(r":[\w:@#%]+:")
_ORG_BLOCK = re.compile(r"[ \t]*#\+begin_(src|example)\b[ \t]*(\S*).*", re.IGNORECASE)


def rst(source: Source) -> Loaded:
    """Return a reStructuredText with its headings; their levels come in the order in which their lines appear."""
    text = text_of(source)
    outline = Outline()
    lines = list(_lines(text))
    styles: list[str] = []
    at = 0
    while at < len(lines):
        over = at + 2 < len(lines) and _is_adorned(lines, at + 1, lines[at][2])
        first = at + 1 if over else at
        if (over or (at + 1 < len(lines) and _is_adorned(lines, at, None))) and lines[first][2].strip():
            style = lines[first + 1][2].strip()[0] * (2 if over else 1)
            if style not in styles:
                styles.append(style)
            outline.heading(lines[at][0], lines[first + 1][1], lines[first][2].strip(), styles.index(style) + 1)
            at = first + 2
        else:
            at += 1
    return Loaded(text, tuple(outline.blocks), outline.title, verbatim=True)


def _is_adorned(lines: list[tuple[int, int, str]], at: int, over: str | None) -> bool:
    """Tell whether a line is a title: below it is one of signs, at least as long, and *over* it the same or none."""
    title, under = lines[at][2], lines[at + 1][2]
    if not title.strip() or not _ADORNMENT.fullmatch(under) or len(under.rstrip()) < len(title.strip()):
        return False
    if over is not None:
        return over.rstrip() == under.rstrip()
    return not title[0].isspace() and not _ADORNMENT.fullmatch(title) and (at == 0 or not lines[at - 1][2].strip())


def org(source: Source) -> Loaded:
    """Return an Org text with its headings and blocks of code."""
    text = text_of(source)
    outline = Outline()
    lines = list(_lines(text))
    at = 0
    unclosed: set[str] = set()  # ends that do not come any more
    while at < len(lines):
        start, end, line = lines[at]
        if stars := _STARS.fullmatch(line):
            outline.heading(start, end, _untagged(stars[2]), len(stars[1]))
        elif block := _ORG_BLOCK.fullmatch(line):
            close = f"#+end_{block[1]}".lower()
            last = at
            if close not in unclosed:
                following = range(at + 1, len(lines))
                last = next((after for after in following if lines[after][2].strip().lower() == close), at)
            if last == at:
                unclosed.add(close)
            outline.block("code", start, lines[last][1], name=block[2] or None)
            at = last
        elif outline.title is None and line.lower().startswith("#+title:"):
            outline.title = line[8:].strip() or None
        at += 1
    return Loaded(text, tuple(outline.blocks), outline.title, verbatim=True)


def _untagged(heading: str) -> str:
    """Return a heading of Org without the tags at its end: `Bread :food:home:`."""
    words = heading.rsplit(None, 1)
    return words[0] if len(words) > 1 and _TAGS.fullmatch(words[1]) else heading


class Outline:
    """Blocks of a text that stays as it is: headings, and what stands under them."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.title: str | None = None
        self.headings: list[str] = []  # all of them, as they stand there
        self._above: list[tuple[int, str]] = []

    def heading(self, start: int, end: int, text: str, level: int) -> None:
        """Note a heading, which ends those of its level and below."""
        text = re.sub(r"\s+", " ", text).strip()
        if not text:
            return
        while self._above and self._above[-1][0] >= level:
            self._above.pop()
        self._above.append((level, named(text)))
        self.headings.append(text)
        self.title = self.title or text
        self.block("heading", start, end, level=level)

    def block(
        self,
        kind: str,
        start: int,
        end: int,
        *,
        level: int | None = None,
        name: str | None = None,
        header: str | None = None,
    ) -> None:
        """Note a block under the headings so far."""
        path = tuple(text for _, text in self._above)
        self.blocks.append(Block(kind, start, end, None, path, level, name, header))


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield where each line begins and ends, without its newline, and what it says."""
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line), line
        start += len(line) + 1
