"""`chunk`: one document and a way to cut it in, chunks out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...tokens import counter
from . import strategies
from .cutting import Cutter
from .model import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..documents.model import Document
    from .model import Chunk

    Chunker = Callable[[Document], Iterable[Part]]

__all__ = ["chunk", "register_chunker"]

_CHUNKERS: dict[str, Chunker] = {"recursive": strategies.whole}


def chunk(
    document: Document,
    *,
    chunker: Any = "auto",
    size: int = 350,
    overlap: int = 40,
    count: Any = None,
    limit: int | None = None,
) -> list[Chunk]:
    """Return the chunks of *document*, in the order of its text, the same for the same input.

    Every character that is no blank is in at least one of them. None has more than *size* tokens, nor with its context
    (`Chunk.indexed`) more than *limit*, which is what the embedder reads. Within a running text, a chunk repeats up to
    *overlap* tokens of the one before.

    *chunker* is `"auto"` (by what the document is), `"recursive"`, or a name given to `register_chunker`. *count* says
    how many tokens a text has: a tokenizer or a function, as `raeburnmemory.tokens.counter` takes them; without one, an
    estimate that is rather too high.

    Raises:
        InvalidInput: *chunker* is none, or a number is too small.
    """
    for name, value, least in (("size", size, 1), ("overlap", overlap, 0), ("limit", limit, 1)):
        if (value is not None or name != "limit") and (type(value) is not int or value < least):
            raise InvalidInput(f"{name} is {value!r}. It must be a whole number, {least} or more.")
    if overlap * 2 > size:
        raise InvalidInput(
            f"An overlap of {overlap} tokens is more than half of the size of {size}. Pass a smaller one."
        )
    cutter = Cutter(document, counter(count), size=size, overlap=overlap, limit=limit)
    return list(cutter.chunks(_complete(document, _parts(document, chunker))))


def register_chunker(name: str, function: Chunker) -> None:
    """Let `chunk(document, chunker=name)` cut documents into the parts that *function* returns for them.

    Raises:
        InvalidInput: *name* is no word, or *function* cannot be called.
    """
    if not isinstance(name, str) or not name.strip() or name == "auto" or not callable(function):
        raise InvalidInput(
            f"A chunker is registered as register_chunker('name', function), not {name!r}, {function!r}."
        )
    _CHUNKERS[name] = function


def _parts(document: Document, chunker: Any) -> list[Part]:
    name = strategies.fitting(document) if chunker == "auto" else chunker
    if name not in _CHUNKERS:
        raise InvalidInput(f"No chunker is called {chunker!r}. Choose one of: auto, {', '.join(sorted(_CHUNKERS))}.")
    return list(_CHUNKERS[name](document))


def _complete(document: Document, parts: list[Part]) -> list[Part]:
    """Return *parts* in order, with a part for whatever text they leave out."""
    found: list[Part] = []
    reached = 0
    for part in sorted(parts, key=lambda part: (part.start, part.end)):
        if not 0 <= part.start < part.end <= len(document.text):
            raise InvalidInput(
                f"A chunker returned {part!r}, which is no part of a text of {len(document.text)} characters."
            )
        if document.text[reached : part.start].strip():
            found.append(Part(reached, part.start, group=-1 - len(found)))
        found.append(part)
        reached = max(reached, part.end)
    if document.text[reached:].strip():
        found.append(Part(reached, len(document.text), group=-1 - len(found)))
    return found
