"""Saved indexes: caches of the vectors, which are never believed before they were compared with the store."""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ..index._file import examine

if TYPE_CHECKING:
    from .content import Content
    from .report import Report

__all__ = ["check_indexes", "index_files"]

# What happens to an index that does not fit, whatever is wrong with it.
_FATE = "It is not used, and made anew"


def index_files(path: str) -> dict[str, str]:
    """Return the saved indexes beside the store at *path*, by their fields."""
    found = glob.glob(glob.escape(path) + ".*.index")
    fields = {name[len(path) + 1 : -len(".index")]: name for name in sorted(found)}
    return {field: name for field, name in fields.items() if not re.match("(tmp|damaged|before-restore)-", field)}


def check_indexes(path: str, content: Content | None, report: Report) -> None:
    """Add what is wrong with the saved indexes to *report*."""
    for field, name in index_files(path).items():
        problem = _problem(field, name, content, report)
        if problem is not None:
            code, why = problem
            report.add("warning", code, f"The saved index {name!r} {why}. {_FATE}.", file=name)


def _problem(field: str, name: str, content: Content | None, report: Report) -> tuple[str, str] | None:
    if os.path.islink(name) or not os.path.isfile(name):
        return "index-damaged", "is no file"
    found = examine(name)
    if isinstance(found, str):
        return "index-damaged", f"is damaged: {found}"
    if content is None:
        return None
    stamp, slots, rows = found
    if stamp.get("store") != content.meta.get("store") or stamp.get("field") != field:
        return "index-foreign", "belongs to another memory, or another field"
    version, now = stamp.get("version"), report.version or 0
    if not isinstance(version, int) or version > now:
        return (
            "index-newer",
            f"is of version {version}, the memory of {now}: an older copy of it was put back, or its -wal file lost",
        )
    if content.marks.get(version) != stamp.get("mark"):
        return "index-other-past", f"is of a version {version} that this memory does not remember"
    if version < now:
        report.add("note", "index-older", f"The saved index {name!r} is of version {version}; it will be caught up.")
        return None
    there: dict[int, Any] = {}
    for other, _, block in content.blocks():
        if other == field:
            there.update(zip(block.slots.tolist(), block.values, strict=True))
    ghosts = [slot for slot in slots.tolist() if slot not in there]
    if ghosts:
        return "index-ghosts", f"holds {len(ghosts)} vectors that the memory does not"
    if len(slots) != len(there):
        return "index-short", f"lacks {len(there) - len(slots)} vectors of the memory"
    if len(slots) and not np.array_equal(rows, np.array([there[slot] for slot in slots.tolist()])):
        return "index-differs", "holds other vectors than the memory"
    return None
