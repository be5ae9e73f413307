"""Putting a whole new store in the place of another: all of its files or none, whoever kills us in between.

What is to be done is written down first, in `<name>.switching`, and whoever comes next finishes it. While that
file is there nobody opens the store: its files may belong to two stores. A file that is replaced is linked to the
name under which it is kept before the new one takes its place, so that there is no moment without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidInput, MemoryGraphError, StoreWriteFailed
from ..store._files import SWITCHING, now, sync_folder, write_all, write_failed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Move", "pending", "resume", "switch", "unfinished"]

_FORMAT = 1


class Move(NamedTuple):
    """One file: *new* takes the place of *final*, or nothing does; what was there is called *kept* from then on."""

    new: str | None
    final: str
    kept: str | None


def switch(path: str, moves: Sequence[Move], *, fresh: bool = False) -> None:
    """Make *moves*, all in the folder of *path*; the lock of the store is held, unless it is *fresh*.

    Raises:
        InvalidInput: The store should be *fresh*, and somebody else made one there.
        StoreWriteFailed: The disk refused. If it did so half way, the next `repair` or `restore` goes on.
    """
    plan = {
        "format": _FORMAT,
        "moves": [[None if name is None else os.path.basename(name) for name in move] for move in moves],
        "before": {os.path.basename(move.final): _stamp(move.final) for move in moves},
    }
    temporary = f"{path}{SWITCHING}.tmp-{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(fd, json.dumps(plan).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        _claim(temporary, path)
        if fresh and any(os.path.lexists(move.final) for move in moves):
            os.unlink(path + SWITCHING)
            raise InvalidInput(f"Somebody else just wrote to {path!r}. Choose another name.")
        sync_folder(os.path.dirname(path))
        _carry_out(path, moves)
    except MemoryGraphError:
        raise
    except OSError as exc:
        raise write_failed("put in place", path, exc) from exc
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _claim(temporary: str, path: str) -> None:
    """Put the plan in its place, if there is none yet."""
    try:
        os.link(temporary, path + SWITCHING)
    except FileExistsError as exc:
        raise StoreWriteFailed(
            exc.errno, f"The files at {path!r} are being exchanged by somebody else. Try again, or finish that with: "
            f"raeburnmemory --db {path} repair"
        ) from exc  # fmt: skip
    except OSError:  # a file system without links
        os.replace(temporary, path + SWITCHING)


def pending(path: str) -> list[Move] | None:
    """Return what is left of a switch that was cut short, None if there is none; nothing if it cannot be read."""
    if not os.path.lexists(path + SWITCHING):
        return None
    plan = _plan(path)
    return [] if plan is None else _moves(path, plan)


def unfinished(path: str) -> bool:
    """Tell whether a store was being put where there was none before, and that was cut short."""
    plan = _plan(path)
    return plan is not None and all(stamp is None for stamp in plan["before"].values())


def resume(path: str) -> bool:
    """Finish a switch that was cut short; the lock is held. Return whether there was one to be finished.

    One that somebody interfered with since is given up: the files stay as they are, for `repair` to judge.
    """
    if not os.path.lexists(path + SWITCHING):
        return False
    plan = _plan(path)
    try:
        moves = [] if plan is None else _moves(path, plan)
        if plan is None or not all(_still(move, plan["before"]) for move in moves):
            os.replace(path + SWITCHING, f"{path}{SWITCHING}.damaged-{now(path, 'damaged')}")
            return False
        _carry_out(path, moves)
    except OSError as exc:
        if isinstance(exc, StoreWriteFailed):
            raise
        raise write_failed("put in place", path, exc) from exc
    return True


def _plan(path: str) -> dict[str, Any] | None:
    try:
        with open(path + SWITCHING, "rb") as file:
            plan = json.load(file)
        names = [name for move in plan["moves"] for name in move if name is not None]
        whole = plan["format"] == _FORMAT and all(len(move) == 3 for move in plan["moves"])
        # A plan moves files beside the store and no others, whoever wrote it.
        if whole and all(name == os.path.basename(name) and name not in {"", ".", ".."} for name in names):
            return dict(plan) if isinstance(plan["before"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _moves(path: str, plan: dict[str, Any]) -> list[Move]:
    folder = os.path.dirname(path)
    return [
        Move(*(None if name is None else os.path.join(folder, name) for name in move))  # type: ignore[arg-type]
        for move in plan["moves"]
    ]


def _still(move: Move, before: dict[str, Any]) -> bool:
    """Tell whether a move was made already, or can be made as it was meant."""
    if move.new is not None and not os.path.lexists(move.new):
        return os.path.lexists(move.final)  # it was made
    now, then = _stamp(move.final), before.get(os.path.basename(move.final))
    return now == then or (move.kept is not None and now is None and os.path.lexists(move.kept))


def _stamp(path: str) -> list[int] | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_size]


def _carry_out(path: str, moves: Sequence[Move]) -> None:
    folder = os.path.dirname(path)
    for move in moves:
        _make(move)
        sync_folder(folder)  # each on disk before the next: a power cut must not reorder them
    os.unlink(path + SWITCHING)
    sync_folder(folder)


def _make(move: Move) -> None:
    """Make one move; nothing happens if it was made before."""
    if move.new is None:
        if os.path.lexists(move.final):
            if move.kept is None:
                os.unlink(move.final)
            else:
                os.rename(move.final, move.kept)
        return
    if not os.path.lexists(move.new):
        return
    if os.path.lexists(move.final):
        mode = os.lstat(move.final).st_mode
        if stat.S_ISREG(mode):
            os.chmod(move.new, stat.S_IMODE(mode))  # whoever shares a file goes on sharing it
        if move.kept is not None and not os.path.lexists(move.kept):
            _keep(move.final, move.kept, regular=stat.S_ISREG(mode))
        elif not stat.S_ISREG(mode):
            os.rename(move.final, f"{move.kept or move.final}.old")
    os.replace(move.new, move.final)


def _keep(path: str, kept: str, *, regular: bool) -> None:
    """Give the file at *path* the name *kept* as well; what is no file gets it instead."""
    if not regular:
        os.rename(path, kept)
        return
    try:
        os.link(path, kept, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(path, kept + ".tmp")
        with open(kept + ".tmp", "rb+") as file:
            os.fsync(file.fileno())
        os.replace(kept + ".tmp", kept)
