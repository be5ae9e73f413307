"""Forgetting for good: what goes along with what is forgotten, and what is said when copies remain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .errors import ErasureIncomplete, IndexUnavailable
from .facts import undeclared
from .nodes import CITES, DERIVED_FROM, PART_OF, Batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .dense import Dense
    from .nodes import Forgotten
    from .store import Store
    from .writer import Chosen, Writer

__all__ = ["forget_for_good"]

_MADE_OF = (DERIVED_FROM, CITES, PART_OF)  # edges that lead from what was made to what it was made of


def forget_for_good(
    store: Store, writer: Writer, dense: Dense, namespace: str, chosen: Chosen, *, backups: bool
) -> Forgotten:
    """Remove what *chosen* means and all that was made of it, and every trace of it in the store's files.

    Raises:
        ErasureIncomplete: All that is done, but copies beside the store may still hold it, or an index elsewhere.
        LockTimeout: Somebody goes on writing or reading.
    """
    with store.exclusive():
        ids = writer.chosen(chosen)
        if set(chosen.given()) == {"ids"}:
            ids |= set(chosen.ids or ())  # gone from the store already, or expired, but perhaps not from its files
        report, all_of_it = writer.leaving(ids | _made_of(store, namespace, ids))
        while all_of_it != ids:  # sessions that are left empty may be what something else was made of
            ids = all_of_it
            report, all_of_it = writer.leaving(ids | _made_of(store, namespace, ids))
        declared = undeclared(store, namespace, ids)
        gone = Batch(removed_nodes=[(namespace, node_id) for node_id in sorted(ids)], meta=declared)
        erased = store.erase(gone, backups=backups)
    report = replace(report, rewritten=erased.rewritten, deleted=erased.deleted)
    try:
        dense.catch_up_elsewhere()
    except IndexUnavailable as exc:
        raise ErasureIncomplete(
            f"{len(report.ids)} nodes are forgotten, and gone from the memory and its files, but not from its index: "
            f"{exc} It goes with the next search, or call this again.",
            report,
            erased.left,
        ) from exc
    if erased.left:
        raise ErasureIncomplete(_left(report, erased.left), report, erased.left)
    return report


def _made_of(store: Store, namespace: str, ids: Iterable[str]) -> set[str]:
    """Return what was derived from *ids*, cites them or is a part of them, and what was made of that."""
    known = set(ids)
    found: set[str] = set()
    frontier = known
    while frontier:
        made = {
            link.source
            for relation in _MADE_OF
            for link in store.links(list(frontier), namespace, direction="in", relation=relation)
        }
        frontier = made - known
        known |= frontier
        found |= frontier
    return found


def _left(report: Forgotten, files: Iterable[str]) -> str:
    names = ", ".join(map(repr, files))
    return (
        f"{len(report.ids)} nodes are forgotten, and gone from the memory and its files, but they may still stand in "
        f"{names}: damaged, or not to be changed by you, or a memory of its own. Delete it or forget there, or let "
        f"what is damaged be deleted: forget(..., secure=True, backups=True), or --secure --backups."
    )
