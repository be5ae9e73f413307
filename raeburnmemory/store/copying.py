"""All that one store holds, into another one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ..errors import MemoryGraphError
from ..nodes import Batch, Vector, Where
from .contract import COPYING_META, SOURCE

if TYPE_CHECKING:
    from pathlib import Path

    from ..nodes import Node
    from .contract import Store

__all__ = ["copy_store", "migrate_json"]


def migrate_json(source: Path, target: Path, timeout: float, vector_format: str | None = None) -> None:
    """Copy the JSON store at *source* into a SQLite store at *target*, which appears whole or not at all."""
    import logging

    from ..lock import StoreLock
    from ._files import discard, sync_folder, write_failed
    from .json import JsonStore
    from .sqlite import SqliteStore

    log = logging.getLogger("raeburnmemory")
    with contextlib.closing(StoreLock(target, timeout)) as lock, lock():
        if target.exists():
            return  # somebody else was faster
        with contextlib.suppress(OSError):
            for leftover in target.parent.glob(f"{target.name}.tmp-*"):
                discard(str(leftover))  # of an attempt that was killed: the lock is held
        temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
        try:
            with contextlib.closing(JsonStore(source, read_only=True)) as old:
                if (lost := old.vectors_lost()) is not None:
                    log.warning("Vectors are lost (%s); run reindex.", lost)
                with contextlib.closing(SqliteStore(temporary, timeout=timeout, vector_format=vector_format)) as new:
                    copy_store(old, new)
                    new.write(Batch(meta={SOURCE: {"name": source.name, "store": old.id}}))
            sync_folder(str(target.parent))  # a power cut must not bring back a log that nobody would sweep up
            temporary.rename(target)
            sync_folder(str(target.parent))
        except MemoryGraphError:
            raise  # some of ours are OSErrors, too
        except OSError as exc:
            raise write_failed("make", str(target), exc) from exc
        finally:
            for ending in ("", "-wal", "-shm", "-journal", ".lock", ".lock.gate"):
                discard(f"{temporary}{ending}")
    log.info("%r was copied into %r.", str(source), str(target))


def copy_store(source: Store, target: Store, *, block: int = 1000) -> None:
    """Copy everything that *source* holds into the empty *target*: every namespace, history, edge and vector."""
    with source.snapshot():
        _copy(source, target, block)


def _copy(source: Store, target: Store, block: int) -> None:
    page: list[Node] = []
    there: dict[str, set[str]] = {}
    for node in source.nodes(Where(None)):
        if past := source.history(node.id, node.namespace):
            target.write(Batch(nodes=page))  # before it, so that the order stays
            page = []
            for old in past:
                target.write(Batch(nodes=[old]))
        page.append(node)
        there.setdefault(node.namespace, set()).add(node.id)
        if len(page) == block:
            target.write(Batch(nodes=page))
            page = []
    target.write(Batch(nodes=page))
    # A node that expired is not copied, and so neither are its edges.
    links = [e for e in source.links(None, None) if {e.source, e.target} <= there.get(e.namespace, set())]
    for start in range(0, len(links), block):
        target.write(Batch(links=links[start : start + block]))
    for field in source.counts(None)["vectors"]:
        for found in source.vectors(field, -1).blocks:
            nodes = source.at_rows(found.rows.tolist())
            target.write(
                Batch(
                    vectors=[
                        Vector(nodes[row].id, field, values, part, start, end, nodes[row].namespace)
                        for row, values, (part, start, end) in zip(
                            found.rows.tolist(), found.values, found.spans.tolist(), strict=True
                        )
                        if row in nodes
                    ]
                )
            )
    meta = {key: value for key in COPYING_META if (value := source.meta(key)) is not None}
    target.write(Batch(meta=meta))
