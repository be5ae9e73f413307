"""What can be wrong with a memory in JSON files: the graph, its journal, the vectors beside them."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from ..errors import MemoryGraphError, StoreCorrupt, StoreError, StoreTooNew
from ..nodes import DEFAULT_NAMESPACE, PROMPT
from ..store._packed import ROW, node_of
from ..store.journal import Journal
from ..store.json import JsonStore
from ..store.snapshot import GraphFile
from ..store.vector_files import VectorFiles
from .content import Content

if TYPE_CHECKING:
    from pathlib import Path

    from ..store.state import State
    from .report import Report

__all__ = ["check_files", "content_of", "files_of", "state_of"]


def files_of(path: str) -> list[str]:
    """Return the files of the JSON store at *path* that are there, without locks, copies and what was set aside."""
    found = [path, path + ".journal", path + ".vectors.json", path + ".map.json"]
    found += VectorFiles(path).beside()
    return [name for name in dict.fromkeys(found) if os.path.lexists(name)]


def state_of(store: JsonStore) -> State:
    """Return what a store that was just opened holds, without a copy."""
    return store._state  # noqa: SLF001 - nobody else has it


def content_of(state: State, owner: str) -> Content:
    """Return the content of a state of the store called *owner*, whose name is not among what a state remembers."""
    return Content(
        {node[ROW]: node_of(node) for node in state.nodes.all_packed()},
        list(state.links.values()),
        [(state.nodes.row(key), node_of(old)) for key, several in state.past.items() for old in several],
        {**state.meta, "store": owner},
        lambda: ((name, vectors.dim, vectors.alive()) for name, vectors in sorted(state.sets.items())),
    )


def check_files(path: Path, report: Report) -> Content | None:
    """Add what is wrong with the files to *report*; return what they hold, None where they cannot be read.

    Raises:
        StoreTooNew: A newer version of this library wrote one of them.
    """
    name = str(path)
    try:
        with contextlib.closing(JsonStore(path, read_only=True)) as store:
            lost, owner = store.vectors_lost(), store.id
            # The store is asked nothing from here on: it would first read what others have added, and its vectors
            # would be of another moment than its nodes.
            state, journal, foreign = state_of(store), store._journal, store._foreign  # noqa: SLF001
            report.version = state.version
            content = content_of(state, owner)
            if journal is not None and not foreign:
                content.marks = {version: journal.mark(version) for version in range(journal.base, state.version + 1)}
    except StoreTooNew:
        raise
    except (MemoryGraphError, OSError, RecursionError) as exc:
        for each in sorted(_each_file(name)):
            report.add("error", *each)
        if report.sound:
            report.add("error", "store", str(exc) or type(exc).__name__)
        return None
    if lost is not None:
        report.add("error", "vectors-lost", f"Vectors are lost: {lost}.")
    if foreign:
        report.add(
            "warning", "older", f"{name!r} was written by the original library or by another program. The first write "
            f"brings it up to date and keeps a copy, or: raeburnmemory --db {name} schema --migrate"
        )  # fmt: skip
    elif not os.path.exists(name + ".journal"):
        report.add(
            "error", "journal-missing", f"{name + '.journal'!r} is not there: changes after version "
            f"{state.version}, if there were any, are lost."
        )  # fmt: skip
    else:
        _check_journal(name, report)
    if not foreign:
        _check_map(name, owner, state, report)
        _check_stale(name, owner, state, report)
    return content


def _check_journal(path: str, report: Report) -> None:
    name = path + ".journal"
    journal = Journal.open(name, read_only=True)
    assert journal is not None
    try:
        for _ in journal.payloads():
            pass
        torn = os.path.getsize(name) - journal.offset
        if torn > 0 and journal.power_failed():
            message = (
                f"{name!r} ends with {torn} bytes that a power cut has left of changes which were not synced; the next "
                f"writer sets them aside."
            )
            report.add("warning", "journal-torn", message)
        elif torn > 0:
            message = f"{name!r} ends with {torn} bytes of a change that was never acknowledged; the next writer cuts."
            report.add("note", "journal-torn", message)
        report.add("note", "journal", f"{name!r} has {journal.offset} bytes of changes.")
    except StoreError as exc:  # somebody is folding
        report.add("error", "journal", str(exc))
    finally:
        journal.close()


def _check_map(path: str, owner: str, state: State, report: Report) -> None:
    """Compare the map of the prompts, which is for other programs, with the description of the vectors."""
    files = VectorFiles(path)
    try:
        newest = files.header(owner).fields[PROMPT][0]
        rows = list(newest["rows"])
    except (StoreError, KeyError, IndexError, TypeError):
        return  # said already; or nothing was folded yet
    expected: dict[str, int] = {}
    try:
        with open(files.map_path, "rb") as file:
            found = json.load(file)
        if not isinstance(found, dict):
            raise TypeError("it is no object")
    except FileNotFoundError:
        report.add("warning", "map", f"{files.map_path!r}, which other programs read, is not there.")
        return
    except (OSError, ValueError, TypeError, RecursionError) as exc:
        report.add("warning", "map", f"{files.map_path!r}, which other programs read, is damaged: {exc}.")
        return
    for at, row in enumerate(rows):
        key = state.rows.get(row)
        if key is not None and key[0] == DEFAULT_NAMESPACE:
            expected.setdefault(key[1], at)
    # Prompts that were forgotten since the fold are in the map still.
    if any(found.get(node) != at for node, at in expected.items()):
        report.add("warning", "map", f"{files.map_path!r}, which other programs read, names other rows than it should.")


def _check_stale(path: str, owner: str, state: State, report: Report) -> None:
    """Find files of vectors that nothing describes."""
    files = VectorFiles(path)
    try:
        described = files.header(owner).fields
    except StoreError:
        return
    known = {files.file_of(field, faiss=faiss) for field in {*described, *state.sets} for faiss in (True, False)}
    for name in files_of(path)[1:]:
        if name not in {*known, path + ".journal", files.header_path, files.map_path}:
            report.add("warning", "stray-file", f"{name!r} looks like vectors, but nothing says what they are.")


def _each_file(path: str) -> set[tuple[str, str]]:
    """Look at each file by itself, where the whole cannot be opened; return codes and messages."""
    found: set[tuple[str, str]] = set()
    odd = {name for name in files_of(path) if not _is_regular(name)}
    found |= {("not-a-file", f"{name!r} is no file.") for name in odd}
    if not os.path.lexists(path):
        found.add(("graph-missing", f"{path!r} is not there, though other files of it are."))
    graph: Any = None
    if path not in odd and os.path.lexists(path):
        try:
            graph = GraphFile.read(path)
        except (MemoryGraphError, OSError, RecursionError) as exc:
            if isinstance(exc, StoreTooNew):
                raise
            found.add(("graph", str(exc)))
    name = path + ".journal"
    if name not in odd and os.path.lexists(name):
        try:
            journal = Journal.open(name, read_only=True)
            assert journal is not None
            with contextlib.closing(journal):
                for _ in journal.lines():
                    pass
        except StoreTooNew:
            raise
        except MemoryGraphError as exc:
            found.add(("journal", str(exc)))
    if graph is not None and graph.store is not None:
        with contextlib.suppress(StoreTooNew):
            found |= _each_vectors(path, graph)
    return found


def _each_vectors(path: str, graph: GraphFile) -> set[tuple[str, str]]:
    files = VectorFiles(path)
    try:
        described = files.header(str(graph.store)).fields
    except (StoreCorrupt, OSError) as exc:
        return {("vectors-lost", f"{exc}.")}
    found = set()
    for field in graph.expected_vectors:
        try:
            files.read(field, described.get(field, []), range(1 << 62), cut_short=False)
        except (StoreError, OSError) as exc:
            found.add(("vectors-lost", f"Vectors are lost: {exc}."))
    return found


def _is_regular(name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return False
