"""Bringing in what other programs hold: exports of chat services, logs of agents, memories, tables.

>>> from raeburnmemory.importers import import_file
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..records import checked_id, shown
from ..store import checked_path
from ._files import Source
from ._report import Imported, Issue, Log
from ._writing import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..memory_graph import MemoryGraph
    from ._chat import Group

__all__ = ["KINDS", "Imported", "Issue", "import_file"]

# What can be imported, and the module that reads it.
KINDS = {
    "chatgpt": "chatgpt",
    "claude": "claude",
    "claude-code": "claude_code",
    "codex": "codex",
    "csv": "csv_rows",
    "jsonl": "jsonl",
    "langchain": "langchain",
    "llm": "llm_logs",
    "mcp": "mcp_memory",
    "mem0": "mem0",
    "node-link": "node_link",
    "openai": "openai_messages",
}
_OPTIONS = {
    "session": {"csv", "langchain", "openai"},
    "collection": {"mcp", "mem0"},
    "columns": {"csv"},
    "all_namespaces": {"jsonl", "node-link"},
}


def import_file(
    memory: MemoryGraph,
    kind: str,
    path: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    session: str | None = None,
    collection: str | None = None,
    columns: Mapping[str, str] | None = None,
    all_namespaces: bool = False,
    progress: Callable[[int, int], Any] | None = None,
    allow_unembedded: bool = False,
) -> Imported:
    """Bring what stands at *path* into *memory*, and report what was read, what was new, what was left out and why.

    *kind* is one of `KINDS`; *path* a file, or for some kinds a folder or zip archive. All of it is read before
    anything is written: a file that is damaged changes nothing. Entries that cannot be used are left out and counted in
    the report. Ids follow from the source, so that importing again adds only what is new. With *dry_run* nothing is
    written.

    *session* is the session of messages whose source names none, *collection* that of memories and entities. *columns*
    maps `text`, `response`, `role`, `session`, `time` and `id` to the titles of columns of a CSV file. *all_namespaces*
    takes those of a file of ours that holds several; else all goes to the namespace of *memory*. *progress* is called
    with how much was written, and of how much. *allow_unembedded* is as in `MemoryGraph.put`.

    Raises:
        FileNotFoundError: There is nothing at *path*.
        InvalidInput: It is something else, or damaged, or an option is not for this kind.
        EmbedderMismatch: A file of ours holds vectors of another model than that of *memory*.
    """
    if kind not in KINDS:
        raise InvalidInput(f"{shown(kind)} is nothing that can be imported. Choose one of: {', '.join(KINDS)}.")
    given = {"session": session, "collection": collection, "columns": columns, "all_namespaces": all_namespaces}
    for name, value in given.items():
        if value and kind not in _OPTIONS[name]:
            raise InvalidInput(
                f"{name} is not for {kind!r}, but for: {', '.join(sorted(_OPTIONS[name]))}. Leave it out."
            )
    for name, value in (("a session's id", session), ("the name of a collection", collection)):
        if value is not None:
            checked_id(value, name)
    place = checked_path(path)
    reader: Any = import_module(f".{KINDS[kind]}", __name__)
    if kind in {"jsonl", "node-link"}:
        restored: Imported = reader.restore(
            memory,
            place,
            dry_run=dry_run,
            all_namespaces=all_namespaces,
            progress=progress,
            allow_unembedded=allow_unembedded,
        )
        return restored

    def source() -> Source:
        return Source(place, Log(), session, collection, dict(columns or {}))

    # Once without writing, which shows whether it can be read to its end, and how much there is.
    whole = sum(1 for _ in reader.read(source()))
    final = source()
    groups: Iterator[Group] = reader.read(final)
    tally = write(
        memory,
        groups,
        final.log,
        dry_run=dry_run,
        progress=lambda done: None if progress is None else progress(min(done, whole), max(whole, 1)),
        allow_unembedded=allow_unembedded,
    )
    kinds = dict(sorted(tally.kinds.items()))
    return Imported(kind, place, dry_run, kinds, tally.links, tally.new, final.log.issues())
