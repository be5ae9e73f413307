"""What must hold in any memory, however it is stored: edges have ends, times are times, vectors fit their texts."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embed import checked_embed
from ..errors import InvalidInput
from ..index.lexical import LexicalIndex
from ..nodes import AGENT, FACT, FRAGMENT, MEMORY, PROMPT, RESPONSE, SESSION
from ..passages import EMBEDDED, PASSAGES, pieces
from ..records import utc
from ..store import ERASING
from .model import FIELDS, SAMPLE, known_record, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..embed import Embedder
    from ..nodes import Link, Node
    from ..store import VectorBlock
    from .report import Report

__all__ = ["Content", "bad_times", "bad_vectors", "check_content", "named", "object_of", "some"]

_TIMES = ("timestamp", "start_time", "valid_from", "valid_to")
_TIMED = {PROMPT, RESPONSE, AGENT, SESSION, FACT, FRAGMENT, MEMORY}
_UNIT = 1e-3  # how far the length of a vector may be from 1
_NEXT = ".next"
_SHOWN = 5


def some(items: Iterable[Any]) -> str:
    """Return the first of *items*, and how many more there are."""
    listed = [repr(item) if isinstance(item, str) else str(item) for item in items]
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def object_of(text: Any) -> dict[str, Any] | None:
    """Return the object that *text* is the JSON of, None if it is anything else."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def named(key: tuple[str, str]) -> str:
    """Return how a node is called in messages: by its id, and by its namespace where that is not the usual one."""
    return key[1] if key[0] == "default" else f"{key[0]}/{key[1]}"


@dataclass
class Content:
    """Everything a memory holds. `blocks` yields the vectors of all fields afresh each time it is called."""

    nodes: dict[int, Node]
    links: list[Link]
    past: list[tuple[int, Node]]
    meta: dict[str, Any]
    blocks: Callable[[], Iterator[tuple[str, int, VectorBlock]]]
    marks: dict[int, Any] = field(default_factory=dict)  # what each version that is remembered was marked with
    keys: dict[tuple[str, str], int] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = {(node.namespace, node.id): row for row, node in self.nodes.items()}


def check_content(content: Content, report: Report, embedder: Embedder | None) -> None:
    """Add what is wrong with *content*, and its counts and digests, to *report*.

    *embedder* tells texts that cannot have a vector, because the model knows no word of them, from those that lack
    one; None: they count as lacking it.
    """
    _check_nodes(content, report)
    _check_links(content, report)
    record = content.meta.get("embedder")
    if (record is not None and width_of(record) is None) or _wrongly_recorded(content, record):
        report.add("error", "embedder-record", "What is recorded about the embedding model is not what was recorded.")
    there, count = _check_vectors(content, report, width_of(record))
    _check_missing(content, report, there, embedder)
    if content.meta.get(ERASING) is not None:
        report.add(
            "warning", "erasure-pending", f"What was forgotten for good may still stand in the files of "
            f"{report.path!r}: erasing it was begun and not finished, or somebody is at it right now. Finish it with "
            f"repair, or by opening the memory for writing."
        )  # fmt: skip
    kinds = Counter(node.kind for node in content.nodes.values())
    report.counts = {
        "nodes": dict(sorted(kinds.items())),
        "edges": dict(sorted(Counter(link.relation for link in content.links).items())),
        "vectors": dict(sorted(count.items())),
        "history": len(content.past),
    }
    words, digest = _words(content)
    report.counts["words"] = words
    report.digests = {
        "nodes": _sum(_node_item(node) for node in content.nodes.values()),
        "edges": _sum([e.namespace, e.source, e.target, e.relation, e.data] for e in content.links),
        "history": _sum(_node_item(node) for _, node in content.past),
        "vectors": _vector_sum(content),
        "words": digest,
    }


# --- nodes and edges --------------------------------------------------------------------------------------------


def bad_times(node: Node) -> list[str]:
    """Return the names of the attributes that should hold a time, and hold none."""
    found = []
    for name in _TIMES if node.kind in _TIMED else ():
        try:
            if node.attributes.get(name) is not None:
                utc(node.attributes[name])
        except InvalidInput:
            found.append(name)
    return found


def _check_nodes(content: Content, report: Report) -> None:
    bad: list[str] = []
    shown: list[str] = []
    for node in content.nodes.values():
        for name in bad_times(node):
            bad.append(node.id)
            shown.append(f"{name} {str(node.attributes[name])[:40]!r} of {named((node.namespace, node.id))!r}")
    if bad:
        report.add("warning", "time", f"Attributes that should be times are none: {'; '.join(shown[:5])}.", tuple(bad))
    orphans = [node.id for row, node in content.past if row not in content.nodes]
    if orphans:
        message = f"{len(orphans)} earlier versions belong to nodes that are not there: rows of {some(orphans)}."
        report.add("warning", "history-of-nobody", message)


def _check_links(content: Content, report: Report) -> None:
    lost: dict[str, None] = {}
    dangling = []
    for link in content.links:
        missing = [end for end in (link.source, link.target) if (link.namespace, end) not in content.keys]
        lost.update(dict.fromkeys(missing))
        if missing:
            dangling.append(f"{link.source} -{link.relation}-> {link.target}")
    if dangling:
        report.add(
            "error",
            "dangling-edges",
            f"{len(dangling)} edges lead to nodes that are not there: {some(dangling)}.",
            tuple(lost),
        )


# --- vectors ----------------------------------------------------------------------------------------------------


def _wrongly_recorded(content: Content, record: Any) -> bool:
    """Tell whether the vectors are of another model than the record says, as far as that can be told."""
    sample: list[Any] = []
    widths = set()
    for name, width, block in content.blocks():
        if not name.endswith(_NEXT):
            widths.add(width)
        if name in FIELDS and len(sample) < SAMPLE:
            pairs = zip(block.rows.tolist(), block.values, bad_vectors(block.values).tolist(), strict=True)
            sample += [(content.nodes[row], values) for row, values, bad in pairs if row in content.nodes and not bad]
        if len(sample) >= SAMPLE:
            break
    return known_record(record, widths, sample[:SAMPLE]) is not None


def bad_vectors(values: Any) -> Any:
    """Return which rows of *values* are no unit vectors."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    return ~(np.abs(lengths - 1) <= _UNIT)  # NaN is not within anything


def _check_vectors(content: Content, report: Report, dim: int | None) -> tuple[dict[str, set[int]], Counter[str]]:
    """Check every vector; return the rows that have a sound one in each field, and how many there are."""
    there: dict[str, set[int]] = {}
    parts: set[tuple[str, int, int]] = set()
    count: Counter[str] = Counter()
    wrong: dict[str, list[int]] = {}
    strangers: list[int] = []
    for name, width, block in content.blocks():
        count[name] += len(block.rows)
        if dim is not None and width != dim and not name.endswith(_NEXT):
            report.add("error", "vector-dim", f"The vectors of {name!r} have {width} numbers, the model's have {dim}.")
        bad = bad_vectors(block.values)
        seen = there.setdefault(name, set())
        for row, span, is_bad in zip(block.rows.tolist(), block.spans.tolist(), bad.tolist(), strict=True):
            node = content.nodes.get(row)
            if node is None:
                strangers.append(row)
            elif is_bad:
                wrong.setdefault(f"vectors of {name!r} that are not of length 1", []).append(row)
            elif not _fits(span, node.text or ""):
                wrong.setdefault(f"vectors of {name!r} with impossible spans", []).append(row)
            elif (name, row, span[0]) in parts:
                wrong.setdefault(f"vectors of {name!r} that are there twice", []).append(row)
            else:
                seen.add(row)
                parts.add((name, row, span[0]))
    if strangers:
        report.add(
            "error", "vector-of-nobody", f"{len(strangers)} vectors belong to nodes that are not there (rows "
            f"{some(strangers)})."
        )  # fmt: skip
    for what, rows in wrong.items():
        ids = tuple(content.nodes[row].id for row in rows)
        report.add("error", "vector-damaged", f"{len(rows)} {what}: {some(ids)}.", ids)
    return there, count


def _fits(span: list[int], text: str) -> bool:
    part, start, end = span
    return part >= 0 and ((start, end) == (0, -1) or 0 <= start < end <= len(text))


def _check_missing(content: Content, report: Report, there: dict[str, set[int]], embedder: Embedder | None) -> None:
    """Find texts that should have a vector and have none."""
    now = time.time()
    missing: list[tuple[str, str]] = []  # id, text
    for row, node in content.nodes.items():
        if node.kind not in EMBEDDED or not node.text or (node.expires_at is not None and node.expires_at <= now):
            continue
        if row not in there.get(node.kind, ()):
            missing.append((node.id, pieces(node)[0].text))
        elif row not in there.get(node.kind + PASSAGES, ()):
            missing += [(node.id, piece.text) for piece in pieces(node)[1:]]
    if missing and embedder is not None:
        # A model may know no word of a text, which then has no vector, and is found by words.
        rows = checked_embed(embedder, [text for _, text in missing])
        missing = [pair for pair, row in zip(missing, rows, strict=True) if row.any()]
    ids = tuple(dict.fromkeys(node_id for node_id, _ in missing))
    if ids:
        report.add("warning", "vectors-missing", f"{len(ids)} texts have no vector: {some(ids)}.", ids)


# --- digests ----------------------------------------------------------------------------------------------------


def _node_item(node: Node) -> list[Any]:
    return [node.namespace, node.id, node.kind, node.text, node.attributes, node.expires_at]


def _sum(items: Iterable[Any]) -> str:
    """Return the sum of the SHA-256 of each item, modulo 2**256: the same in any order."""
    total = 0
    for item in items:
        raw = item if isinstance(item, bytes) else json.dumps(item, sort_keys=True, default=dict).encode()
        total += int.from_bytes(hashlib.sha256(raw).digest(), "big")
    return f"{total % (1 << 256):064x}"


def _vector_sum(content: Content) -> str:
    def items() -> Iterator[bytes]:
        for name, _, block in content.blocks():
            for row, values, span in zip(block.rows.tolist(), block.values, block.spans.tolist(), strict=True):
                node = content.nodes.get(row)
                key = [name, *([] if node is None else [node.namespace, node.id]), *span]
                yield json.dumps(key).encode() + np.ascontiguousarray(values, "<f4").tobytes()

    return _sum(items())


def _words(content: Content) -> tuple[int, str]:
    """Return how many different words the texts have, and a digest of how often each stands in how many texts."""
    texts: Counter[str] = Counter()
    split = LexicalIndex("none").words.of
    for node in content.nodes.values():
        if node.kind in EMBEDDED and node.text:
            texts.update(set(split(node.text)))
    return len(texts), _sum([word, n] for word, n in texts.items())
