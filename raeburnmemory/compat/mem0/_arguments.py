"""The arguments that both versions of mem0 have, checked, with the defaults of the one that was called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...memory_graph import MemoryGraph

if TYPE_CHECKING:
    from ...hits import Hit

__all__ = ["THRESHOLD", "TOP_K", "checked_count", "checked_threshold", "number_of", "opened", "score_details"]


class _Count(int):
    """A default argument, told from the same number by identity."""


class _Share(float):
    """A default argument, told from the same number by identity."""


TOP_K, _TOP_K_1, THRESHOLD = _Count(20), 100, _Share(0.1)


def opened(memory: Any, namespace: str | None, options: Mapping[str, Any]) -> tuple[MemoryGraph, bool]:
    """Return a memory, and whether it was opened here."""
    if isinstance(memory, MemoryGraph):
        if options:
            raise InvalidInput(
                f"{next(iter(options))!r} is for opening a memory, and {memory!r} is open. Leave it out."
            )
        if namespace is not None and namespace != memory.namespace:
            raise InvalidInput(
                f"{memory!r} is of the namespace {memory.namespace!r}, not {namespace!r}. Open another: "
                f"MemoryGraph(path, namespace={namespace!r})."
            )
        return memory, False
    if isinstance(memory, Mapping):
        raise InvalidInput("memory must be a MemoryGraph or the path of one. A configuration is for from_config().")
    if memory is not None and not isinstance(memory, (str, os.PathLike)):
        raise InvalidInput(f"memory must be a MemoryGraph or the path of one, not a {type(memory).__name__}.")
    named: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
    return MemoryGraph(memory, **options, **named), True


def number_of(top_k: Any, limit: Any, *, older: bool) -> Any:
    if limit is not None:
        return limit
    return _TOP_K_1 if older and top_k is TOP_K else top_k


def checked_count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"Invalid top_k: {value!r}. Must be a non-negative integer.")
    return value


def checked_threshold(value: Any, *, older: bool) -> float | None:
    if value is THRESHOLD or value is None:
        return None if older else float(THRESHOLD)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidInput(f"Invalid threshold: {value!r}. Must be between 0 and 1 (inclusive).")
    return float(value)


def score_details(hit: Hit, least: float | None) -> dict[str, Any]:
    """Return what a score is made of, under mem0's names, and all of it under `why`."""
    legs = hit.why.legs
    return {
        "semantic_score": hit.similarity,
        "bm25_score": legs.get("lexical", 0.0),
        "entity_boost": legs.get("graph", 0.0),
        "raw_score": hit.score,
        "max_possible_score": 1.0,
        "final_score": min(max(float(hit.score), 0.0), 1.0),
        "threshold": least,
        "why": hit.why.to_dict(),
    }
