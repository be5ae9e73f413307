"""Saved indexes: caches of vectors and words, which are never believed before they were compared with the store."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..corpus import made_by
from ..index._file import examine
from ..index._names import Names
from ..index._parts_file import MAGIC, examine_parts
from ..index.lexical import LexicalIndex
from ..passages import indexed_text
from ..saved_words import saved_as
from ..store._files import beginning
from ..store.state import visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .content import Content
    from .report import Report

__all__ = ["check_indexes", "index_files", "is_of_words"]

_NAMES = ("bytes", "ends", "hashes", "order")
# What happens to an index that does not fit, whatever is wrong with it.
_FATE = "It is not used, and made anew"


def index_files(path: str) -> dict[str, str]:
    """Return the saved indexes beside the store at *path*, by their fields."""
    found = [name for name in beginning(f"{path}.") if name.endswith(".index")]
    fields = {name[len(path) + 1 : -len(".index")]: name for name in found}
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
    try:
        of_words = is_of_words(name)
    except OSError as exc:
        return "index-damaged", f"cannot be read: {exc.strerror}"
    found: Any = examine_parts(name) if of_words else examine(name)
    if isinstance(found, str):
        return "index-damaged", f"is damaged: {found}"
    if content is None:
        return None
    stamp = found[0]
    whose = saved_as(str(stamp.get("namespace"))) if of_words else stamp.get("field")
    if stamp.get("store") != content.meta.get("store") or whose != field:
        return "index-foreign", "belongs to another memory, or another field"
    if (problem := _past_problem(name, stamp, content, report)) or stamp.get("version") != report.version:
        return problem
    return (
        _words_problem(stamp, found[1], content) if of_words else _vectors_problem(field, found[1], found[2], content)
    )


def is_of_words(name: str) -> bool:
    """Tell whether the saved index in the file *name* is one of words."""
    with open(name, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _past_problem(name: str, stamp: dict[str, Any], content: Content, report: Report) -> tuple[str, str] | None:
    """Say what is wrong with the version at which something was saved."""
    version, now = stamp.get("version"), report.version or 0
    if not isinstance(version, int) or version > now:
        return (
            "index-newer",
            f"is of version {version}, the memory of {now}: an older copy of it was put back, or its -wal file lost",
        )
    if version < min(content.marks, default=0):
        report.add(
            "note",
            "index-forgotten",
            f"The saved index {name!r} is of version {version}, which the memory does not remember. {_FATE}.",
        )
        return None
    if content.marks.get(version) != stamp.get("mark"):
        return "index-other-past", f"is of a version {version} that this memory does not remember so"
    if version < now:
        report.add("note", "index-older", f"The saved index {name!r} is of version {version}; it will be caught up.")
    return None


def _words_problem(stamp: dict[str, Any], parts: dict[str, Any], content: Content) -> tuple[str, str] | None:
    """Compare saved words with those of the texts, unless another stemmer made them: then they are not used."""
    space, rules = stamp["namespace"], stamp.get("made by")
    there = {row: node for row, node in content.nodes.items() if node.namespace == space}
    saved = {
        int(row): number
        for number, (row, kind) in enumerate(zip(parts["rows"], parts["kinds"], strict=True))
        if kind >= 0
    }
    if ghosts := sorted(set(saved) - set(there)):
        return "index-ghosts", f"holds {len(ghosts)} nodes that the memory does not"
    now = time.time()  # what expires is taken out at the next question
    if short := sum(row not in saved and visible(node, now) for row, node in there.items()):
        return "index-short", f"lacks {short} nodes of the memory"
    index = LexicalIndex(str(rules["language"]) if isinstance(rules, dict) else "none")
    if rules != made_by(index):
        return None
    ids, vocabulary = (Names({key: parts[f"{of}.{key}"] for key in _NAMES}) for of in ("ids", "words.vocabulary"))
    written, stream = vocabulary[:], parts["words.stream"].tolist()
    for row, number in saved.items():
        start, length = int(parts["words.starts"][number]), int(parts["words.lengths"][number])
        words = [written[term] for term in stream[start : start + length]]
        if ids[number] != there[row].id or words != index.words.of(indexed_text(there[row]) or ""):
            return "index-differs", f"holds other words than the memory, of {there[row].id!r} for one"
    return None


def _vectors_problem(
    field: str, slots: NDArray[np.int64], rows: NDArray[np.float32], content: Content
) -> tuple[str, str] | None:
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
