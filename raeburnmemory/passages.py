"""What of a node is indexed: its text with the speaker's name before it, and for a long text its passages.

A model reads only the beginning of a long text, and one vector of many sentences is like none of them. So a long text
gets a vector as a whole, in the field of its kind, and one for each of its passages, in a field of their own: the
fields of whole texts hold one vector per node.

The text of an item may be several texts, which have nothing to do with each other: then its attribute `parts` says
where each begins and ends, and each gets a vector of its own, the first one in the field of its kind.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from .embed.builtin import wordpiece
from .nodes import AGENT, ENTITY, FACT, FRAGMENT, ITEM, MEMORY, OBSERVATION, PROMPT, RESPONSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .nodes import Node

__all__ = ["EMBEDDED", "PASSAGES", "Piece", "indexed_text", "parts", "pieces", "prefix", "spans", "speaker"]

# The kinds of nodes whose text gets vectors.
EMBEDDED = (PROMPT, RESPONSE, FACT, FRAGMENT, MEMORY, ENTITY, OBSERVATION, ITEM)
PASSAGES = ".passages"  # after the name of a field: that of the passages of its texts

WINDOW = 128  # WordPieces of a passage at most; all-MiniLM-L6-v2 was trained on texts of that length
# The ends of sentences, also those of Chinese and Japanese, which no space follows.
_SENTENCE = re.compile("(?<=[.!?\u2026])[\"')\\]\u201d\u2019]*\\s+|\n+|(?<=[\u3002\uff01\uff1f])")
_WORD = re.compile(r"\s*\S+")
_MOST = 3  # WordPieces of one character: a Korean syllable is taken apart into its letters


class Piece(NamedTuple):
    """A text to be embedded, and where its vector belongs: part 0 is the whole, `start` and `end` are characters."""

    field: str
    text: str
    part: int
    start: int
    end: int


def speaker(node: Node) -> str | None:
    """Return the name of whoever said it, if the node itself has one."""
    name = node.attributes.get("name")
    return name if isinstance(name, str) and name and node.kind != AGENT else None


def indexed_text(node: Node) -> str | None:
    """Return the text under which a node is found.

    What a named person says is found by the name as well, and a fragment of a document by what stands above it.
    """
    return prefix(node) + node.text if node.text else node.text


def prefix(node: Node) -> str:
    """Return what stands before the text of a node where it is looked for: a name, or headings."""
    if node.kind == FRAGMENT and isinstance(node.attributes.get("document"), str):
        context = node.attributes.get("context")
        return f"{context}\n" if isinstance(context, str) and context else ""
    name = speaker(node)
    return f"{name}: " if name else ""


def pieces(node: Node) -> list[Piece]:
    """Return what of *node* is embedded: nothing, its text, or its text and the passages of that."""
    if node.kind not in EMBEDDED or not node.text:
        return []
    above = prefix(node)
    if len(several := parts(node)) > 1:
        (start, end), *others = several
        found = [Piece(node.kind, above + node.text[start:end], 0, start, end)]
        inner = [(begin + low, begin + high) for begin, stop in several for low, high in spans(node.text[begin:stop])]
        cut = [*others, *inner]
    else:
        found, cut = [Piece(node.kind, above + node.text, 0, 0, -1)], spans(node.text)
    for part, (start, end) in enumerate(cut, 1):
        found.append(Piece(node.kind + PASSAGES, above + node.text[start:end], part, start, end))
    return found


def parts(node: Node) -> tuple[tuple[int, int], ...]:
    """Return where the texts of an item begin and end in its text, in characters; nothing where that is one text."""
    given = node.attributes.get("parts") if node.kind == ITEM and node.text else None
    if not isinstance(given, (list, tuple)) or not all(map(_is_span, given)):
        return ()
    found = tuple((start, end) for start, end in given)
    return found if all(0 <= start < end <= len(node.text or "") for start, end in found) else ()


def _is_span(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(type(number) is int for number in value)


def spans(text: str, window: int = WINDOW) -> list[tuple[int, int]]:
    """Return where the passages of *text* begin and end, in characters; nothing if it is short enough as a whole.

    They follow each other, end with a sentence where they can, and are of at most *window* WordPieces.
    """
    if len(text) * (1 if text.isascii() else _MOST) <= window or _size(text) <= window:
        return []
    found: list[tuple[int, int]] = []
    start = end = size = 0
    for at, until, count in _units(text, window):
        # Two ends of one word may have fewer WordPieces than the whole of it.
        total = _size(text[start:until]) if at == end and not text[at].isspace() else size + count
        if size and total > window:
            found.append((start, end))
            start, total = at, count
        end, size = until, total
    if size:
        found.append((start, end))
    return found


def _units(text: str, window: int) -> Iterator[tuple[int, int, int]]:
    """Yield sentences, the words of those that are too long, and parts of words that are, with their sizes."""
    start = 0
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    for stop in dict.fromkeys([*ends, len(text)]):
        if (size := _size(text[start:stop])) <= window:
            yield start, stop, size
        else:
            for word in _WORD.finditer(text, start, stop):
                if (size := _size(word.group())) <= window:
                    yield word.start(), word.end(), size
                else:  # as texts without spaces are
                    step = max(window // _MOST, 1)
                    for at in range(word.start(), word.end(), step):
                        until = min(at + step, word.end())
                        yield at, until, _size(text[at:until])
        start = stop


def _size(text: str) -> int:
    return len(wordpiece(text))
