"""How a graph, its vectors and its journal become one state again, whichever of them is newer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, StoreCorrupt
from ..nodes import DEFAULT_NAMESPACE, PROMPT
from ._packed import ID, KIND, NAMESPACE, ROW
from .journal import decode_batch
from .vector_files import text_checksum

if TYPE_CHECKING:
    from .journal import Journal
    from .snapshot import GraphFile
    from .state import State
    from .vector_files import VectorFiles

__all__ = ["Assembled", "assembled", "expect"]


def expect(path: str, found: int, expected: int) -> None:
    """Refuse a version in the journal at *path* that does not follow the one before.

    Raises:
        StoreCorrupt: A line is missing.
    """
    if found != expected:
        raise StoreCorrupt(
            f"{path!r} is damaged: version {found} follows where {expected} was expected. Nothing "
            f"was changed. Put back a copy of it with its graph, or move it away to go on with the graph alone."
        )


@dataclass
class Assembled:
    """The state of a graph, its vectors and its journal, and what is the matter with them."""

    state: State
    store: str | None
    foreign: bool  # graph.json was written by something else
    lost: str | None = None  # a clause that says which vectors are lost
    marked: bool = False  # the files say themselves that vectors are lost
    fields: set[str] = field(default_factory=set)  # those that the files said there are vectors of, lost ones too
    since: int = 0  # the journal tells all changes of nodes and edges after that version


def assembled(graph: GraphFile, journal: Journal | None, files: VectorFiles) -> Assembled:
    """Make one state of a graph, its vectors and its journal.

    Raises:
        StoreCorrupt: They do not belong together, or something between them is missing.
    """
    beside = f"{graph.path}.journal"
    state, ours = graph.state, graph.store is not None
    if journal and ours and journal.store != graph.store:
        raise StoreCorrupt(
            f"{beside!r} belongs to another memory than {graph.path!r}. Put back the right one, or "
            f"move the journal away."
        )
    if journal and ours and journal.base > graph.version:
        # A fold puts the graph in place before the journal, and the journal was opened before the graph was read.
        raise StoreCorrupt(
            f"{graph.path!r} is older than {beside!r} beside it: changes between them are missing. Put "
            f"back the graph that belongs to the journal, or move the journal away to go on without it."
        )
    entries = list(journal.lines()) if journal else []
    last = max([journal.base if journal else 0, graph.version, *(e["version"] for e in entries)])
    edited = journal is not None and (not ours or (graph.version == journal.base and graph.digest != journal.digest))
    if edited and ours:
        raise StoreCorrupt(
            f"{graph.path!r} was changed by something else, or is damaged: it is not what was written, and "
            f"{beside!r} holds {len(entries)} changes since. Put back a copy of it, or, to take it "
            f"over as it is with those changes, remove the entry 'raeburnmemory' under 'graph' in it."
        )
    if journal and ours and (entries[-1]["version"] if entries else journal.base) < graph.version:
        raise StoreCorrupt(f"{beside!r} is older than {graph.path!r}. Move the journal away: the graph has it all.")
    at: dict[str, int] = {}
    foreign = edited or not ours
    made = Assembled(state, graph.store or (journal.store if journal else None), foreign)
    _load_vectors(made, files, graph, journal, at)
    behind = [fields for fields in entries if ours and fields["version"] <= graph.version]
    if behind:
        _catch_up(state, behind, at)
    for fields in entries[len(behind) :]:
        version, batch = fields["version"], decode_batch(fields)
        if foreign:
            try:
                state.check(batch)
            except InvalidInput as exc:
                raise StoreCorrupt(
                    f"{graph.path!r} was written by something else and does not fit its journal: {exc} Nothing was "
                    f"changed. Put back a copy of it, or move the journal away."
                ) from exc
            state.apply(batch, version)
        else:
            expect(beside, version, state.version + 1)
            state.apply(batch, version)
    if foreign:
        state.version = last + 1  # what others changed is one change of ours
    made.since = max(graph.version, state.known_since)
    # Slots and rows may have been numbered anew: caches of an earlier reading start over.
    state.known_since = state.known_vectors_since = state.version
    for vectors in state.sets.values():
        vectors.reset_at = state.version
    return made


def _catch_up(state: State, entries: list[dict[str, Any]], at: dict[str, int]) -> None:
    """Apply the vectors of entries that the graph holds already: somebody folds right now, or was killed over it.

    The next slots that the graph tells are those after these entries. Numbered on from there, the vectors would have
    other slots than in a process that did not read anew just now, and than the next time.
    """
    after = {name: slot for name, slot in state.next_slots.items() if name not in state.sets}
    for name in after:
        del state.next_slots[name]
    for fields in entries:
        state.apply_vectors(decode_batch(fields), fields["version"], at)
    for name, slot in after.items():
        if (vectors := state.sets.get(name)) is None:
            state.next_slots[name] = slot
        else:
            vectors.number_up_to(slot)


def _load_vectors(
    made: Assembled, files: VectorFiles, graph: GraphFile, journal: Journal | None, at: dict[str, int]
) -> None:
    """Fill in the vectors, and say which are lost."""
    state, foreign, store = made.state, made.foreign, made.store

    @cache  # a long text has many vectors
    def crc(row: int) -> int | None:
        return text_checksum(state.nodes[state.rows[row]].text) if row in state.rows else None

    def row_of(prompt: str) -> int:
        return state.nodes.row((DEFAULT_NAMESPACE, prompt))

    made.fields = set(graph.expected_vectors)
    try:
        described, mark = files.header(store) if store else ({}, None)
    except StoreCorrupt as exc:
        made.lost = str(exc)
        return
    made.fields |= set(described)
    lost = [] if mark is None else [mark]
    made.marked = mark is not None
    wanted = graph.expected_vectors if graph.store else dict.fromkeys(described, 1)
    # Fields that the graph does not count any more matter only where a fold was cut short: there the files are
    # older than the graph, and the journal says what became of them.
    cut_short = journal is not None and journal.base < graph.version
    first = journal.base if journal else graph.version
    versions = range(1 << 62) if foreign else range(first, graph.version + 1)
    for name in sorted({*wanted, *described} if cut_short else wanted):
        try:
            vectors, description = files.read(name, described.get(name, []), versions, cut_short=cut_short)
        except StoreCorrupt as exc:
            if name in wanted:
                lost.append(str(exc))
            continue
        at[name] = description["version"]
        if vectors is None:
            continue
        if foreign or journal is None:  # then nothing else tells whether the graph was edited
            vectors = files.of_other_rows(name, vectors, description, row_of, crc)
        for row in set(vectors.alive().rows.tolist()) - set(state.rows):
            vectors.drop(row, at[name])
        state.sets[name] = vectors
    if foreign and PROMPT not in state.sets:
        try:
            mine = (node for node in state.nodes.all_packed() if node[NAMESPACE] == DEFAULT_NAMESPACE)
            rows = {node[ID]: node[ROW] for node in mine if node[KIND] == PROMPT}
            original = files.read_original(rows)
        except StoreCorrupt as exc:
            lost.append(str(exc))
        else:
            if original is not None:
                lost = []
                if len(original[0]):
                    state.sets[PROMPT] = original[0]
    made.lost = "; ".join(dict.fromkeys(lost)) or None
