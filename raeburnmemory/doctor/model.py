"""Which model a memory's vectors are of, where the record of it cannot be trusted."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dense import describe, record_crc
from ..embed import BUILTIN, PROBE, checked_embed, open_embedder, same_model
from ..nodes import PROMPT, RESPONSE
from ..passages import indexed_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ..embed import Embedder
    from ..nodes import Node

__all__ = ["FIELDS", "SAMPLE", "fits", "known_record", "width_of"]

FIELDS = (PROMPT, RESPONSE)  # of whose vectors a sample tells the model
SAMPLE = 3
_SAME = 0.99  # the cosine at which vectors of unknown origin count as a model's


def width_of(record: Any) -> int | None:
    """Return the length of the vectors that a record tells, None if it is no sound record."""
    try:
        probe = np.frombuffer(base64.b64decode(record["probe"], validate=True), "<f4")
        whole = isinstance(record["name"], str) and isinstance(record["named"], bool)
        whole = whole and record["dim"] == len(probe) and bool(np.isfinite(probe).all())
        whole = whole and record.get("crc", record_crc(record)) == record_crc(record)  # older ones have none
    except (KeyError, TypeError, ValueError):
        return None
    return len(probe) if whole else None


def fits(record: Any, embedder: Embedder) -> bool:
    """Tell whether *embedder* is the model of a sound *record*."""
    known = np.frombuffer(base64.b64decode(record["probe"]), "<f4")
    probe = checked_embed(embedder, [PROBE])[0]
    return len(probe) == len(known) and (same_model(probe, known) or not (probe.any() or known.any()))


def known_record(
    record: Any, widths: Iterable[int], sample: list[tuple[Node, NDArray[np.float32]]]
) -> dict[str, Any] | None:
    """Return the record that belongs in the place of *record*, None if that may be right or nobody can tell.

    Only the model that is always here is tried: *sample*, some nodes and their vectors, shows whether it made them.
    """
    width = width_of(record)
    others = set(widths)
    named = record.get("name") if isinstance(record, dict) else None
    sound = width is not None and (not others or width in others)
    if (sound and named != BUILTIN) or (record is None and not others):
        return None  # a memory without a vector needs no record
    builtin = open_embedder(BUILTIN)
    if sound and fits(record, builtin):
        return None
    made = checked_embed(builtin, [indexed_text(node) or "" for node, _ in sample])
    alike = [len(a) == len(b) and float(a @ b) >= _SAME for a, (_, b) in zip(made, sample, strict=True)]
    if all(alike) and (alike or named == BUILTIN):
        return describe(builtin, named=True)
    return None
