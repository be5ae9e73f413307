"""Found text made fit to be quoted in a prompt: without what nobody sees, and without what poses as a role.

Every character knows where it stood, so that what is cited can be found again in what is stored.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Clean", "cleaned", "find"]

# Letters and signs of other kinds that show nothing, and marks that change what stands before them: joiners of
# graphemes, fillers of Hangul, vowels of Khmer, an empty pattern of Braille, and variation selectors, of which a row
# can spell any text.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_BREAKS = {"\x0b", "\x0c", "\r", "\x85", "\u2028", "\u2029"}
_KEPT = {"\n", "\t"}
_GONE = {"Cc", "Cf", "Cs", "Cn"}  # controls, formats (also those that turn the direction), halves, unassigned
# What chat templates make of roles and turns. llama.cpp reads them as such wherever they stand in a chat.
_TEMPLATE = re.compile(
    r"<(?=\s*[|\uff5c])"
    r"|<(?=/?(?:s|bos|eos|pad|unk|think|tool_call|tool_response|start_of_turn|end_of_turn)>)"
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\])",
    re.IGNORECASE,
)


class Clean(NamedTuple):
    """A text fit to be quoted; `origins` are the places of its characters in the text that it was made of."""

    text: str
    origins: Sequence[int]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return where characters *start* to *end* stood."""
        if start >= end:
            at = self.origins[start] if start < len(self.origins) else 0
            return at, at
        return self.origins[start], self.origins[end - 1] + 1


def cleaned(text: str) -> Clean:
    """Return *text* without characters that cannot be seen, and with marks of roles broken by a space."""
    kept: list[str] = []
    origins: Sequence[int]
    if text.isascii() and all(char.isprintable() or char in _KEPT for char in text):
        seen, origins = text, range(len(text))
    else:
        places: list[int] = []
        for place, char in enumerate(text):
            plain = _plain(char, text, place)
            if plain:
                kept.append(plain)
                places.append(place)
        seen, origins = "".join(kept), places
    marks = [match.end() for match in _TEMPLATE.finditer(seen)]
    if not marks:
        return Clean(seen, origins)
    parts, places, done = [], [], 0
    for mark in [*marks, len(seen)]:
        parts.append(seen[done:mark])
        places += origins[done:mark]
        if mark < len(seen) or mark in marks:
            parts.append(" ")
            places.append(origins[mark - 1])
        done = mark
    return Clean("".join(parts), places)


def _plain(char: str, text: str, place: int) -> str:
    """Return what stands for a character: itself, a line break, or nothing."""
    if char in _KEPT:
        return char
    if char in _BREAKS:
        return "" if char == "\r" and text[place + 1 : place + 2] == "\n" else "\n"
    if unicodedata.category(char) in _GONE or _INVISIBLE.match(char):
        return ""
    return char


def find(passage: str, text: str) -> tuple[int, int] | None:
    """Return where the words of *passage* stand in *text*, whatever stands between them; None if they do not.

    An ellipsis in *passage* stands for anything up to 300 characters.
    """
    parts = [re.findall(r"\w+", part) for part in re.split(r"\u2026|\.\.\.|\[\s*\]", passage)]
    patterns = [r"(?<!\w)" + r"\W+".join(map(re.escape, words)) + r"(?!\w)" for words in parts if words]
    if not patterns:
        return None
    match = re.search(r".{0,300}?".join(patterns), text, re.IGNORECASE | re.DOTALL)
    return None if match is None else match.span()
