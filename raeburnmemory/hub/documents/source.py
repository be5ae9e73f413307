"""What a loader is given, what it gives back, and how it puts a text together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .model import Block, Limits

__all__ = ["DEFAULT_LIMITS", "Builder", "Loaded", "Source", "named", "tidy"]

DEFAULT_LIMITS = Limits()

# What no text needs: halves of surrogate pairs, which UTF-8 cannot hold, and control characters but tab and newline.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SPACES = re.compile(r"[^\S\n]+")
_LONGEST_HEADING = 500  # characters


@dataclass(frozen=True)
class Source:
    """The bytes of a document and what is known of them: its name, its type, the encoding that was declared."""

    data: bytes
    name: str | None = None
    mime: str = "application/octet-stream"
    uri: str | None = None
    charset: str | None = None
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Loaded:
    """The text of a document, its blocks, and what else it says of itself; `verbatim` as in `Document`."""

    text: str
    blocks: tuple[Block, ...] = ()
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    verbatim: bool = False
    mime: str | None = None


def tidy(text: str) -> str:
    """Return *text* with newlines as one character, without control characters and halves of characters."""
    return _UNPRINTABLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def named(heading: str) -> str:
    """Return what a heading is called by what stands under it, all of which keeps it: one far too long is cut."""
    return heading if len(heading) <= _LONGEST_HEADING else heading[: _LONGEST_HEADING - 1] + "\u2026"


class Builder:
    """Puts a text together from parts, remembering where each lies and under which headings."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[tuple[int, str]] = []  # (level, text), the outermost first
        self.blocks: list[Block] = []
        self.page: int | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The headings above what comes next."""
        return tuple(text for _, text in self._headings)

    @property
    def length(self) -> int:
        """The number of characters so far."""
        return self._length

    def text(self) -> str:
        """Return the whole text."""
        return "".join(self._parts)

    def add(self, text: str, kind: str = "paragraph", *, separator: str = "\n\n", **more: Any) -> None:
        """Append a part after an empty line, unless it is blank; `more` are further fields of its `Block`."""
        text = tidy(text).strip("\n")
        if not text.strip():
            return
        start = self._append(text, separator)
        self.blocks.append(Block(kind, start, self._length, self.page, self.path, **more))

    def heading(self, text: str, level: int) -> None:
        """Append a heading; it stands above what follows until one of its level or above comes."""
        text = _SPACES.sub(" ", tidy(text).replace("\n", " ")).strip()
        if text:
            while self._headings and self._headings[-1][0] >= level:
                self._headings.pop()
            self._headings.append((level, named(text)))
            self.add(text, "heading", level=level)

    def fresh(self) -> None:
        """Let what follows stand under no heading."""
        self._headings.clear()

    def table(self, rows: list[list[str]], **more: Any) -> None:
        """Append a table, a line for each row; its first row is the header."""
        lines = [" | ".join(_SPACES.sub(" ", tidy(cell).replace("\n", " ")).strip() for cell in row) for row in rows]
        lines = [line for line in lines if line.strip(" |")]
        if lines:
            self.add("\n".join(lines), "table", header=lines[0], **more)

    def begin(self, kind: str, page: int | None = None, **more: Any) -> int:
        """Open a block that holds others, and return what `end` wants."""
        if page is not None:
            self.page = page
        self.blocks.append(Block(kind, self._length, -1, self.page, self.path, **more))
        return len(self.blocks) - 1

    def end(self, opened: int) -> None:
        """Close a block that `begin` opened; one in which nothing was added is dropped."""
        block = self.blocks[opened]
        if opened == len(self.blocks) - 1 and self._length == block.start:
            del self.blocks[opened]
            return
        # What separates it from the text before belongs to neither.
        start = self.blocks[opened + 1].start if opened + 1 < len(self.blocks) else block.start
        fields = {**vars(block), "start": start, "end": self._length}
        self.blocks[opened] = Block(**fields)

    def loaded(self, **more: Any) -> Loaded:
        """Return what was put together."""
        return Loaded(self.text(), tuple(self.blocks), **more)

    def _append(self, text: str, separator: str) -> int:
        if self._length:
            self._parts.append(separator)
            self._length += len(separator)
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        return start
