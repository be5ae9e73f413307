"""Looking at a memory in a PostgreSQL server. The server checks its files itself; this looks at what is in them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..nodes import Link
from ..store.postgres import PostgresStore
from .content import Content, check_content
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..embed import Embedder
    from ..store import VectorBlock

__all__ = ["examine_server", "no_files"]

# What one query each can tell: the code of the finding, what it says, and the query.
_KEYS = """
SELECT id FROM nodes WHERE decode(replace(key::text, '-', ''), 'hex') <>
    substring(sha256(convert_to(namespace, 'UTF8') || '\\x00' || convert_to(id, 'UTF8')) for 16) LIMIT 100"""
_EDGES = """
SELECT e."row"::text FROM edges e LEFT JOIN nodes s ON s."row" = e.source LEFT JOIN nodes t ON t."row" = e.target
WHERE s.namespace IS DISTINCT FROM e.namespace OR t.namespace IS DISTINCT FROM e.namespace LIMIT 100"""
_HISTORY = """
SELECT h.number::text FROM history h LEFT JOIN nodes n USING ("row") WHERE n."row" IS NULL LIMIT 100"""
_SLOTS = """
SELECT v."set" || ':' || v.slot FROM vectors v LEFT JOIN sets s ON s.number = v."set"
WHERE s.number IS NULL OR v.slot >= s.next_slot OR v.slot < 0 LIMIT 100"""
_STATE = """
SELECT 'state' FROM state WHERE version <> (SELECT coalesce(max(version), 0) FROM log)
    OR next_row <= (SELECT coalesce(max("row"), -1) FROM nodes)
    OR next_edge <= (SELECT coalesce(max("row"), -1) FROM edges)"""
_WRONG = (
    ("key", "nodes are not to be found by their names", _KEYS),
    ("dangling-edges", "edges lead to nodes that are not there, or into another namespace", _EDGES),
    ("history-of-nobody", "earlier versions belong to nodes that are not there", _HISTORY),
    ("vector-slots", "vectors are of no field, or at slots that were not given yet", _SLOTS),
    ("version", "numbers that the store counts by are behind what it holds", _STATE),
)


def examine_server(location: str, embedder: Callable[[Content, Report], Embedder | None]) -> Report:
    """Report what is wrong with the memory at the URL *location*, and what it holds, as of one moment."""
    with contextlib.closing(PostgresStore(location, read_only=True)) as store, store.snapshot():
        report = Report(store.location, store.name)
        report.version = store.version()
        for code, what, sql in _WRONG:
            found = [str(name) for (name,) in store.query(sql)]
            if found:
                more = " or more" if len(found) == 100 else ""
                report.add("error", code, f"{len(found)}{more} {what}: {', '.join(found[:5])}.")
        if (broken := store.query(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = "
            "to_regclass('vectors') AND NOT i.indisvalid"
        )):  # fmt: skip
            report.add("warning", "index", f"{broken[0][0]!r} was not made to its end. Make it again with reindex.")
        content = _content(store)
        check_content(content, report, embedder(content, report))
        return report


def _content(store: PostgresStore) -> Content:
    def blocks() -> Iterator[tuple[str, int, VectorBlock]]:
        for field in sorted(store.counts(None)["vectors"]):
            for block in store.vectors(field, -1).blocks:
                yield field, block.values.shape[1], block

    nodes = {node.row: node for node in store.all_nodes()}
    links: list[Link] = list(store.all_links(None))
    return Content(nodes, links, list(store.all_history()), store.all_meta(), blocks)


def no_files(location: str) -> InvalidInput:
    """Return the error for a command that is about files."""
    from ..store.postgres_url import parse

    address = parse(location)
    return InvalidInput(
        f"{address.shown!r} is in a PostgreSQL server, which looks after its own files. Back it up with pg_dump "
        f"--format=custom --schema={address.schema}, bring that back with pg_restore, or move the memory to "
        f"a file: raeburnmemory --db {address.shown} copy memory.db"
    )
