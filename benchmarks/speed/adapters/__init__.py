"""One system each, all with the same methods; nothing is imported here but what every environment has.

A `System(folder, dim, **options)` has

- `open()`, `close()`: make or open the store in *folder*
- `add(rows)`: one message, on disk on return as far as the system's durability goes
- `bulk(rows)`, `ready()`: many messages, and what has to be built before questions
- `vector(vector, k)`, `session(vector, session, k)`, `time(vector, since, until, k)`: the nearest by cosine
- `text(words, k)`: the best by any of the words; `hybrid(vector, words, k)`: by both at once
- `count(ids)`: how many of them are stored

Hits are pairs of id and text, best first. What a system does not have raises `NotOffered` with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Base", "Hits", "NotOffered"]

Hits = list[tuple[int, str]]


class NotOffered(Exception):
    """The system has no such thing; the message says what is missing."""


class Base:
    """What systems have in common: a folder, and no answer to what they do not know."""

    def __init__(self, folder: str, dim: int) -> None:
        self.folder, self.dim = folder, dim

    def ready(self) -> None:
        """Build nothing: questions can be asked at once."""

    def text(self, _words: Sequence[str], _k: int) -> Hits:
        raise NotOffered("it does not rank texts by words")

    def hybrid(self, _vector: Any, _words: Sequence[str], _k: int) -> Hits:
        raise NotOffered("it has no search by words and vectors in one call")
