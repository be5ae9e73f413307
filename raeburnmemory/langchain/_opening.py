"""What the faces towards LangChain share: a memory that is given, or opened and closed again."""

from __future__ import annotations

import os
from typing import Any

from ..errors import EmbedderMismatch, InvalidInput
from ..memory_graph import MemoryGraph

__all__ = ["checked_embedding", "opened"]

_PROBE = "The quick brown fox jumps over the lazy dog."
_SAME = 0.999  # cosine from which two models are one, as when a memory is opened


def opened(memory: Any, embedding: Any = None, namespace: str | None = None) -> tuple[MemoryGraph, bool]:
    """Return a memory, and whether it was opened here, from a path.

    Raises:
        EmbedderMismatch: *embedding* is another model than that of the memory given.
        InvalidInput: It is neither, or of another namespace.
    """
    if isinstance(memory, MemoryGraph):
        if namespace is not None and namespace != memory.namespace:
            raise InvalidInput(
                f"{memory!r} is of the namespace {memory.namespace!r}, not {namespace!r}. Open another: "
                f"MemoryGraph(path, namespace={namespace!r})."
            )
        if embedding is not None:
            checked_embedding(memory, embedding)
        return memory, False
    if not isinstance(memory, (str, os.PathLike)):
        raise InvalidInput(f"memory must be a MemoryGraph or the path of one, not a {type(memory).__name__}.")
    options: dict[str, Any] = {} if embedding is None else {"embedding_model": embedding}
    if namespace is not None:
        options["namespace"] = namespace
    return MemoryGraph(memory, **options), True


def checked_embedding(memory: MemoryGraph, embedding: Any) -> None:
    """Refuse an embedding that gives other vectors than the model of *memory*: they could not be compared."""
    model = memory.model
    own, other = model.embed([_PROBE])[0].tolist(), embedding.embed_query(_PROBE)
    lengths = [sum(value * value for value in vector) ** 0.5 for vector in (own, other)]
    alike = sum(one * two for one, two in zip(own, other, strict=False))
    if len(own) != len(other) or alike < _SAME * lengths[0] * lengths[1]:
        raise EmbedderMismatch(
            f"{memory!r} embeds with {model.name!r} ({len(own)} numbers), which is another model than the "
            f"{type(embedding).__name__} given ({len(other)} numbers). Leave it out, or open the memory with it: "
            f"MemoryGraph(path, embedding_model=…)."
        )
