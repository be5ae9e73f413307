"""The state of a damaged JSON memory, as far as its files still tell it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidInput, StoreError
from ..nodes import DEFAULT_NAMESPACE, Batch, Link, Node
from ..store._files import beginning
from ..store._waiting import Links
from ..store.journal import decode_batch
from ..store.json import JsonStore
from ..store.state import NEXT, State
from ..store.vector_files import VectorFiles, text_checksum
from .content import bad_times, bad_vectors
from .json_document import Document, read_document
from .json_files import state_of
from .model import FIELDS, SAMPLE, known_record, width_of

if TYPE_CHECKING:
    from pathlib import Path

    from .report import Report

__all__ = ["highest_version", "rescue"]

_DIGITS = re.compile(rb"[0-9a-f]{8} ")


class _Journal(NamedTuple):
    """What can be read of a journal: its first line, the changes by version, and what is lost."""

    head: dict[str, Any]
    changes: list[tuple[int, Batch]]
    lost: list[str]


def rescue(path: Path, report: Report) -> tuple[State, str]:
    """Return the state of the memory at *path* and its id, and note in *report* what is lost.

    What opens is taken as it opens; the rest is read file by file.
    """
    try:
        with contextlib.closing(JsonStore(path, read_only=True)) as store:
            state, name = state_of(store), store.id
    except (StoreError, OSError, RecursionError):
        state, name = _from_files(str(path), report)
    _clean(state, report)
    _know_model(state, report)
    return state, name


def _from_files(path: str, report: Report) -> tuple[State, str]:
    journal = _read_journal(path + ".journal")
    report.lost += journal.lost
    raw = _bytes(path)
    base, digest = journal.head.get("base"), journal.head.get("sha256")
    whole = hashlib.sha256(raw).hexdigest() == digest if raw is not None and digest else False
    if not whole and digest and (twin := _twin(path, digest)) is not None:
        report.done.append(f"take the graph from {twin!r}, which is the one that the journal continues")
        raw, whole = _bytes(twin), True
    document = read_document(raw or b"")
    if not whole and base == 0 and (not journal.lost or document.lost or not document.version):
        # The journal goes back to the beginning, so nothing of the graph is needed.
        report.done.append("make the graph from the journal, which holds everything since the memory was made")
        document = Document(ours={"version": 0, "meta": {}})
        document.numbered = True
    else:
        report.lost += document.lost
        if raw is None:
            report.lost.append(f"the graph at version {base}, which was in {path!r}")
        elif not whole and digest and not document.lost and document.version == base:
            report.lost.append(
                f"how {path!r} was written: it was changed since, in places that cannot be told, and is taken as it is"
            )
    foreign = document.ours.get("store") if document.ours else None
    owner = foreign if isinstance(foreign, str) else journal.head.get("store")
    if isinstance(foreign, str) and journal.head.get("store", foreign) != foreign:
        report.lost.append("the journal, which belongs to another memory")
        journal = _Journal({}, [], [])
    state = _state(document)
    name = owner if isinstance(owner, str) and owner else uuid.uuid4().hex
    at = _load_vectors(path, name, state, report, numbered=document.numbered)
    _replay(state, journal, at, document.version, report)
    return state, name


def _know_model(state: State, report: Report) -> None:
    """Where the record of the model is lost or wrong, write down which one it was, if that can be told."""
    sample = []
    for field in FIELDS:
        if field in state.sets:
            block = state.sets[field].alive()
            pairs = zip(block.rows.tolist(), block.values, strict=True)
            sample += [(state.nodes[state.rows[row]], values) for row, values in pairs if row in state.rows][:SAMPLE]
    widths = [vectors.dim for name, vectors in state.sets.items() if len(vectors) and not name.endswith(NEXT)]
    record = known_record(state.meta.get("embedder"), widths, sample[:SAMPLE])
    if record is not None:
        state.meta["embedder"] = record
        report.done.append(f"note again that the vectors are those of {record['name']!r}")
    elif "embedder" in state.meta and width_of(state.meta["embedder"]) is None:
        del state.meta["embedder"]  # a memory that does not know its model compares before it takes one for it
        report.lost.append("which model the vectors are of")


def _bytes(path: str) -> bytes | None:
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def _twin(path: str, digest: str) -> str | None:
    """Find a copy of the graph among the files beside it, such as one that was set aside."""
    for name in beginning(f"{path}."):
        raw = _bytes(name) if re.search(r"\.(tmp|damaged|before-restore)-", name) else None
        if raw is not None and hashlib.sha256(raw).hexdigest() == digest:
            return name
    return None


# --- the journal ------------------------------------------------------------------------------------------------


def _read_journal(path: str) -> _Journal:
    """Read the lines that are whole. Each vouches for itself together with the digits of the one before it."""
    raw = _bytes(path) or b""
    head: dict[str, Any] = {}
    changes: list[tuple[int, Batch]] = []
    lost: list[str] = []
    digits = 0
    for number, line in enumerate(raw.split(b"\n")[:-1]):
        payload = line[9:]
        whole = _DIGITS.match(line) is not None and zlib.crc32(payload, digits) == int(line[:8], 16)
        digits = int(line[:8], 16) if _DIGITS.match(line) else 0
        try:
            fields = json.loads(payload) if whole else None
            if number == 0:
                head = dict(fields) if isinstance(fields, dict) else {}
            elif fields is not None:
                changes.append((int(fields["version"]), decode_batch(fields)))
                continue
        except (ValueError, KeyError, TypeError, RecursionError):
            fields = None
        if fields is None and line.strip(b"\0"):
            lost.append(_name_line(number, line))
    return _Journal(head, changes, lost)


def _name_line(number: int, line: bytes) -> str:
    if number == 0:
        return "the first line of the journal, which says what it belongs to"
    found = re.search(rb'"version": ?(\d+)', line)
    ids = re.findall(rb'\["[^"\\]*", ?"([^"\\]*)", ?"[^"\\]*", ?(?:"|null)', line)
    names = ", ".join(repr(name.decode("utf-8", "replace")) for name in dict.fromkeys(ids[:5]))
    version = f"change {int(found[1])}" if found else f"a change, line {number + 1} of the journal"
    return f"{version}{f', which wrote {names}' if names else ''}"


def _replay(state: State, journal: _Journal, at: dict[str, int], version: int, report: Report) -> None:
    """Apply the changes after *version*, and of those before it what the vectors lack."""
    last = version
    for number, batch in sorted(journal.changes, key=lambda pair: pair[0]):
        if number <= version:
            with contextlib.suppress(InvalidInput):
                state.apply_vectors(batch, number, at)
            continue
        if number == last and number > version:
            continue  # the same line twice
        if number > last + 1 and version:
            missing = f"change {last + 1}" if number == last + 2 else f"changes {last + 1} to {number - 1}"
            if not any(text.startswith(missing) for text in report.lost):
                report.lost.append(missing)
        last = number
        fitting = _fitting(state, batch, report)
        try:
            state.check(fitting)
        except InvalidInput as exc:
            report.lost.append(f"the vectors of change {number}: {exc}")
            fitting = Batch(
                fitting.nodes, fitting.links, (), fitting.removed_nodes, fitting.removed_links, fitting.meta, None
            )
        state.apply(fitting, number)
    state.version = max(state.version, last)


def _fitting(state: State, batch: Batch, report: Report) -> Batch:
    """Return *batch* without edges and vectors whose nodes were lost."""
    gone = set(batch.removed_nodes)
    there = ({*state.nodes} - gone) | {(node.namespace, node.id) for node in batch.nodes}

    def fits(link: Link) -> bool:
        for end in (link.source, link.target):
            if (link.namespace, end) not in there:
                report.lost.append(f"the edge {link.source} -{link.relation}-> {link.target}: {end!r} is not there")
                return False
        return True

    links = [link for link in batch.links if fits(link)]
    vectors = [vector for vector in batch.vectors if (vector.namespace, vector.node) in there]
    return Batch(batch.nodes, links, vectors, batch.removed_nodes, batch.removed_links, batch.meta, batch.staged)


# --- the state --------------------------------------------------------------------------------------------------


def _state(document: Document) -> State:
    ours = document.ours or {}
    rows = [node.row for node in document.nodes]
    link_rows = [link.row for link in document.links]
    if min(link_rows, default=0) < 0 or len(set(link_rows)) < len(link_rows):
        document.links = [
            Link(e.source, e.target, e.relation, e.data, e.namespace, row) for row, e in enumerate(document.links)
        ]
        link_rows = [link.row for link in document.links]
    state = State(
        document.version,
        max([_number(ours.get("next_row")), *(row + 1 for row in rows)]),
        links=Links(max([_number(ours.get("next_link_row")), *(row + 1 for row in link_rows)])),
    )
    state.meta = dict(ours["meta"]) if isinstance(ours.get("meta"), dict) else {}
    if document.graph:
        state.meta["graph"] = document.graph
    if document.top:
        state.meta["top"] = document.top
    if isinstance(ours.get("next_slots"), dict):
        state.next_slots = {str(name): _number(value) for name, value in ours["next_slots"].items()}
    for node in sorted(document.nodes, key=lambda node: node.row):
        state.nodes[node.namespace, node.id] = node
        state.rows[node.row] = (node.namespace, node.id)
    for link in sorted(document.links, key=lambda link: link.row):
        state.links.insert(link)
    for key, old in document.history:
        state.remember(key, old)
    return state


def _number(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _load_vectors(path: str, store: str, state: State, report: Report, *, numbered: bool) -> dict[str, int]:
    """Give *state* the vectors whose files are whole and whose texts are still the same."""
    files = VectorFiles(path)
    at: dict[str, int] = {}

    def row_of(prompt: str) -> int:
        return state.nodes.row((DEFAULT_NAMESPACE, prompt))

    def crc(row: int) -> int | None:
        return text_checksum(state.nodes[state.rows[row]].text) if numbered and row in state.rows else None

    try:
        fields = files.header(store).fields
    except (StoreError, OSError) as exc:
        report.lost.append(f"vectors, which can be made again: {exc}")
        return at
    if not numbered and fields:
        report.lost.append("vectors, which can be made again: the numbers of the nodes are lost")
        models = (each.get("model") for several in fields.values() for each in several)
        model = next((found for found in models if isinstance(found, dict)), None)
        if model is not None:
            state.meta.setdefault("embedder", model)
        return at
    for name, several in fields.items():
        try:
            vectors, description = files.read(name, several, range(1 << 62), cut_short=False)
        except (StoreError, OSError) as exc:
            report.lost.append(f"vectors of {name!r}, which can be made again: {exc}")
            continue
        if width_of(state.meta.get("embedder")) is None and width_of(description.get("model")) is not None:
            state.meta["embedder"] = description["model"]
        if vectors is not None:
            state.sets[name] = files.of_other_rows(name, vectors, description, row_of, crc)
            at[name] = int(description["version"])
    return at


def _clean(state: State, report: Report) -> None:
    """Take out what no reader should meet: vectors that are none, times that are none."""
    for name, vectors in list(state.sets.items()):
        block = vectors.alive()
        bad = set(block.rows[bad_vectors(block.values)].tolist()) if len(block.rows) else set()
        for row, (part, start, end) in zip(block.rows.tolist(), block.spans.tolist(), strict=True):
            key = state.rows.get(row)
            length = len(state.nodes[key].text or "") if key is not None else -1
            whole = (start, end) == (0, -1) or 0 <= start < end <= length
            if key is None or part < 0 or not whole:
                bad.add(row)
        for row in sorted(bad):
            vectors.drop(row, state.version)
        if bad:
            report.done.append(f"take out {len(bad)} vectors of {name!r} that are none")
    for key, node in list(state.nodes.items()):
        names = bad_times(node)
        if names:
            attributes = dict(node.attributes)
            for name in names:
                attributes[f"unreadable_{name}"] = attributes.pop(name)
            report.done.append(
                f"rename times of {node.id!r} that are none: {', '.join(f'unreadable_{name}' for name in names)}"
            )
            state.nodes[key] = Node(
                node.id, node.kind, node.text, attributes, node.namespace, node.expires_at, node.row
            )


def highest_version(path: Path) -> int:
    """Return the highest version that the files at *path* speak of."""
    document = read_document(_bytes(str(path)) or b"")
    journal = _read_journal(f"{path}.journal")
    base = journal.head.get("base")
    return max([document.version, base if isinstance(base, int) else 0, *(number for number, _ in journal.changes)])
