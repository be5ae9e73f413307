"""Repairing a memory from what is left of it."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Any

from ..dense import UNNAMED
from ..errors import MemoryGraphError, StoreCorrupt, StoreWriteFailed
from ..lock import StoreLock
from ..memory_graph import MemoryGraph
from ..store import finish_erasing, open_store
from ..store._files import now, write_failed
from .examine import examine, leftovers
from .generation import beside, moves, refused, write_json
from .json_rescue import rescue as rescue_files
from .place import Place, find
from .report import Report
from .sqlite_rescue import rebuild
from .sqlite_rescue import rescue as rescue_rows
from .switch import pending, resume, switch
from .upkeep import schema

if TYPE_CHECKING:
    from ..store.state import State

__all__ = ["repair"]

# What is mended without writing the whole store anew.
_ASIDE = {"leftover", "mode", "vectors-missing", "older", "hot-journal", "erasure-pending"}


def repair(path: Any, *, dry_run: bool = False, embedding_model: Any = UNNAMED, timeout: float = 30.0) -> Report:
    """Mend what `verify` finds, from what is left, and report what was done, what is lost and what remains.

    A damaged store is written anew beside the old one, from everything that can still be read; the new one is
    verified, and then takes its place. Every file that goes is kept as `<name>.damaged-<time>`: nothing is thrown
    away. Vectors that are missing are made again, if the model (*embedding_model*, or else the memory's own) can be
    loaded. An erasure (`forget(..., secure=True)`) that was begun and not finished is finished. Killed in the middle,
    run it again. With *dry_run* nothing is changed, and the report says what would be.

    Other processes may have the memory open; writers wait for up to *timeout* seconds.

    Raises:
        StoreMissing, NotAStore: There is nothing to repair.
        StoreTooNew: A newer version of this library wrote it.
        LockTimeout: Another process holds the memory.
        StoreWriteFailed: The disk refused; run it again when it does not.
    """
    place = find(path)
    if dry_run:
        report = examine(place, _model(embedding_model))
        report.dry_run = True
        if pending(place.name) is not None:
            report.done.append("finish the repair that was interrupted")
        elif not report.sound:
            _plan(place, report)
        return report
    lock = StoreLock(place.path, timeout)
    done: list[str] = []
    left: tuple[str, ...] = ()
    try:
        for again in (False, True):
            with lock():
                if resume(place.name):
                    done.append("finished what was interrupted")
                before = examine(place, _model(embedding_model))
                before.done += done
                if again or "erasure-pending" not in before.codes():
                    codes = set() if before.sound else _mend(place, before, _model(embedding_model))
                    break
            # First, where that can be done: else files that hold it are set aside because they are not up to date.
            with contextlib.suppress(StoreCorrupt):
                left += _finish_erasing(place, done, timeout)
    finally:
        lock.close()
    if before.sound and not left:
        return before
    _bring_up(place, before, timeout)
    if "erasure-pending" in codes:
        left += _finish_erasing(place, before.done, timeout)
        before.kept = [name for name in before.kept if os.path.lexists(name)]
    if codes & {"vectors-missing", "vectors-lost"}:
        _make_vectors(place, before, embedding_model)
    after = examine(place, _model(embedding_model))
    after.done, after.lost, after.kept = before.done, before.lost, before.kept
    for name in dict.fromkeys(left):
        after.add(
            "warning", "erasure-left", f"{name!r} may still hold what was forgotten for good: it cannot be read. "
            f"Delete it.", file=name
        )  # fmt: skip
    return after


def _model(given: Any) -> Any:
    return None if given is UNNAMED else given


def _needs_rewriting(report: Report) -> bool:
    return any(not code.startswith("index-") and code not in _ASIDE for code in report.codes())


def _plan(place: Place, report: Report) -> None:
    """Say what would be done, having read all that would be read."""
    if _needs_rewriting(report):
        if place.backend == "json":
            state, _ = rescue_files(place.path, report)
            _say_rebuilt(place, state, report)
        else:
            _rescue_rows(place, report)
    report.done += [f"remove {name!r}" for name in leftovers(place.name) if "leftover" in report.codes()]
    report.done += [f"set {name!r} aside" for name in _useless(report)]
    if "mode" in report.codes():
        report.done.append("let nobody but owner and group write the files")
    if "vectors-missing" in report.codes():
        report.done.append("make the vectors that are missing")
    if "older" in report.codes():
        report.done.append("bring the files up to date, keeping a copy")
    if "erasure-pending" in report.codes():
        report.done.append("finish erasing what was forgotten for good")


def _useless(report: Report) -> list[str]:
    """Return the saved indexes that are no use."""
    return [
        found.file
        for found in report.findings
        if found.file is not None and found.severity == "warning" and found.code.startswith("index-")
    ]


def _mend(place: Place, report: Report, model: Any) -> set[str]:
    """Mend the files, and return the codes of what is wrong now with what they hold; the lock is held."""
    stamp = now(place.name, "damaged")
    codes = report.codes()
    try:
        if "mode" in codes:
            for name in _parts(place):
                mode = stat.S_IMODE(os.stat(name).st_mode)
                if mode & stat.S_IWOTH:
                    os.chmod(name, mode & ~stat.S_IWOTH)
                    report.done.append(f"took the right to write {name!r} from everybody")
        for name in _useless(report):
            os.replace(name, f"{name}.damaged-{stamp}")
            report.kept.append(f"{name}.damaged-{stamp}")
            report.done.append(f"set {name!r} aside, which is made anew when it is needed")
        for name in leftovers(place.name):
            os.unlink(name)
            report.done.append(f"removed {name!r}")
    except OSError as exc:
        if isinstance(exc, StoreWriteFailed):
            raise
        raise write_failed("change", place.name, exc) from exc
    return _rewrite(place, report, stamp, model) if _needs_rewriting(report) else codes


def _bring_up(place: Place, report: Report, timeout: float) -> None:
    """Let the store itself do what it does at its first opening or writing."""
    if "hot-journal" in report.codes():
        open_store(place.name, timeout=timeout).close()
        report.done.append("let SQLite undo the change that was not finished")
    if "older" in report.codes():
        report.kept += schema(place.name, migrate=True, timeout=timeout).kept
        report.done.append("brought the files up to date")


def _finish_erasing(place: Place, done: list[str], timeout: float) -> tuple[str, ...]:
    """Finish an erasure that was cut short, and return the files that may still hold what was forgotten.

    What was set aside before is a copy like any other.
    """
    found = finish_erasing(place.name, timeout)
    if found is None:
        return ()
    done.append("finished erasing what was forgotten for good")
    return found.left


def _parts(place: Place) -> list[str]:
    from .generation import parts_of

    return [name for name in parts_of(place.name, place.backend) if os.path.isfile(name)]


def _rewrite(place: Place, report: Report, stamp: str, model: Any) -> set[str]:
    """Put a store made of what can be read in the place of the damaged one; return what it still lacks, as codes."""
    with refused("mend", place.name), beside(place.name) as stem:
        if place.backend == "json":
            state, store = rescue_files(place.path, report)
            state.version += 1
            _refuse_nothing(place, len(state.nodes), report)
            write_json(state, store, stem)
            _say_rebuilt(place, state, report)
        else:
            found = _rescue_rows(place, report)
            if "store" not in found.meta:
                report.lost.append("the id of the memory")
            _refuse_nothing(place, len(found.tables["nodes"]), report)
            rebuild(found, stem, report)
        made = examine(Place(place.path.with_name(os.path.basename(stem)), place.backend), model)
        wrong = [found for found in made.findings if found.severity == "error" and found.code != "vectors-lost"]
        if wrong:
            raise StoreCorrupt(
                f"What was made of {place.name!r} is not sound either: {wrong[0].message}. Nothing was changed. Put "
                f"back a backup with: raeburnmemory --db {place.name} restore BACKUP"
            )
        planned = moves(stem, place.name, place.backend, lambda name: f"{name}.damaged-{stamp}")
        there = {move.kept for move in planned if move.kept is not None and os.path.lexists(move.final)}
        switch(place.name, planned)
        report.kept += sorted(there)
        return made.codes()


def _refuse_nothing(place: Place, nodes: int, report: Report) -> None:
    """Leave a memory alone of which nothing can be read: an empty one in its place helps nobody."""
    if not nodes and report.lost:
        raise StoreCorrupt(
            f"Nothing can be read of {place.name!r} any more. Nothing was changed. Put back a backup with: "
            f"raeburnmemory --db {place.name} restore BACKUP"
        )


def _rescue_rows(place: Place, report: Report) -> Any:
    with_log = "wal-foreign" not in report.codes()
    found = rescue_rows(place.name, report, with_log=with_log)
    if not with_log:
        report.lost.append("what the -wal file of another database held, if any of it was meant for this one")
    tables = found.tables
    vectors = sum(row[1] is not None for row in tables["vectors"].values() if len(row) == 6)
    report.done.append(
        f"write {place.name!r} anew from what can be read: {len(tables['nodes'])} nodes, {len(tables['edges'])} edges, "
        f"{vectors} vectors"
    )
    return found


def _say_rebuilt(place: Place, state: State, report: Report) -> None:
    vectors = sum(len(found) for found in state.sets.values())
    report.done.append(
        f"write {place.name!r} anew from what can be read: {len(state.nodes)} nodes, {len(state.links.by_key)} edges, "
        f"{vectors} vectors"
    )


def _knows_model(place: Place) -> bool:
    """Tell whether the memory says which model its vectors are of: no other is fetched to mend it."""
    with contextlib.closing(open_store(place.name)) as store:
        return isinstance(store.meta("embedder"), dict)


def _make_vectors(place: Place, report: Report, embedding_model: Any) -> None:
    """Make the vectors that are missing; where the model cannot be had, they stay missing, and verify says so."""
    if embedding_model is UNNAMED and not _knows_model(place):
        report.lost.append("the model of the vectors, for now: run repair again and name it, or run reindex")
        return
    try:
        with contextlib.closing(MemoryGraph(place.name, embedding_model)) as memory:
            made = memory.reindex()
        report.done.append(f"made the vectors of {made.embedded} texts")
    except MemoryGraphError as exc:
        report.lost.append(f"vectors, for now: {exc}")
