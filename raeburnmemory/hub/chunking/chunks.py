"""`chunk`: one document and a way to cut it in, chunks out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...tokens import counter
from . import code, strategies
from .cutting import Cutter
from .langchain import is_splitter, parts_of
from .model import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..documents.model import Document
    from .model import Chunk

    Chunker = Callable[[Document], Iterable[Part]]

__all__ = ["chosen", "chunk", "register_chunker"]

_CHUNKERS: dict[str, Chunker] = {
    "code": code.definitions,
    "conversation": strategies.conversation,
    "fixed": strategies.whole,
    "markdown": strategies.sections,
    "page": strategies.pages,
    "recursive": strategies.whole,
    "sentence": strategies.whole,
    "table": strategies.tables,
}
_LEVELS = {"fixed": "words", "sentence": "sentences"}


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
    *overlap* tokens of the one before, or half of *size* if that is less.

    *chunker* is one of

    - `"recursive"`: paragraphs, then lines and sentences, then words;
    - `"markdown"`: by headings, whatever format they are in; `"page"`: none across pages; `"sentence"`, `"fixed"`: as
      many whole sentences, or words, as fit;
    - `"code"`: by definitions; `"table"`: by rows, with the header as context; `"conversation"`: by turns;
    - `"auto"`: what suits the document: one of these, by its blocks and its type;
    - a name given to `register_chunker`, or a text splitter of LangChain: what it leaves out is added, and what is too
      large is cut.

    *count* says how many tokens a text has: a tokenizer or a function, as `raeburnmemory.tokens.counter` takes them;
    without one, an estimate that is rather too high.

    Raises:
        InvalidInput: *chunker* is none, or a number is too small.
    """
    for name, value, least in (("size", size, 1), ("overlap", overlap, 0), ("limit", limit, 1)):
        if (value is not None or name != "limit") and (type(value) is not int or value < least):
            raise InvalidInput(f"{name} is {value!r}. It must be a whole number, {least} or more.")
    overlap = min(overlap, size // 2)
    name = strategies.fitting(document) if isinstance(chunker, str) and chunker == "auto" else chunker
    levels = _LEVELS.get(name, "paragraphs") if isinstance(name, str) else "paragraphs"
    cutter = Cutter(document, counter(count), size=size, overlap=overlap, limit=limit, levels=levels)
    return list(cutter.chunks(_complete(document, _parts(document, name))))


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


def chosen(document: Document) -> list[Part]:
    """Return the parts of *document* that `"auto"` makes of it."""
    return _parts(document, strategies.fitting(document))


def _parts(document: Document, chunker: Any) -> list[Part]:
    if is_splitter(chunker):
        return parts_of(chunker, document)
    if not isinstance(chunker, str) or chunker not in _CHUNKERS:
        names = ", ".join(sorted(_CHUNKERS))
        raise InvalidInput(f"No chunker is called {chunker!r}. Choose one of: auto, {names}; or pass a text splitter.")
    return list(_CHUNKERS[chunker](document))


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
