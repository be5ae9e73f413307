"""Connections to SQLite: how they are opened, what a fork does with them, and what their errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import TYPE_CHECKING

from ..errors import GraphClosed, LockTimeout, MissingDependency, StoreCorrupt, StoreError
from ..mutex import FORK_WAIT, Loans
from ._files import write_failed

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Connection", "connect", "open_connections", "readers_of", "translated"]

open_connections = Loans()


class Connection(sqlite3.Connection):
    """A connection that a fork waits for.

    SQLite keeps the locks of all connections of a process in one place. A child would find those of its parent there,
    hold none of them, and rely on them: another process could then remove the -wal file that it writes to
    (sqlite.org/howtocorrupt.html, section 2.6). A connection that was in use would keep it waiting for ever.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        if open_connections.inherited:
            raise StoreError(
                f"This process was forked in the middle of a snapshot of a SQLite memory, or while other threads used "
                f"one for {FORK_WAIT:.0f} s without a pause. SQLite cannot be used in it. Fork at another time, or "
                f"start processes by 'spawn' (multiprocessing.get_context('spawn'))."
            )
        open_connections.add(self)
        try:
            super().__init__(*args, **options)
        except BaseException:
            open_connections.give_back(self)
            raise

    def close(self) -> None:
        """Close it, and let forks go on."""
        super().close()
        open_connections.give_back(self)


def connect(path: str, mode: str, timeout: float, *, synced: bool = True) -> sqlite3.Connection:
    """Open the database at *path* (*mode*: ro or rw) so that nothing checkpoints by itself.

    Commits are synced; without *synced* only checkpoints are, before and after them, which keeps commits in order.

    Raises:
        StoreError: This process was forked while its parent used SQLite.
    """
    if sqlite3.sqlite_version_info < (3, 35):  # RETURNING
        raise MissingDependency(
            f"Python's SQLite is {sqlite3.sqlite_version}, and 3.35 is needed. Use a newer Python, or a path that "
            f"ends in .json."
        )
    from urllib.parse import quote

    db = sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=Connection,
    )
    try:
        db.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint=0")
    except BaseException:
        db.close()
        raise
    return db


_READ_LOCKS = range(123, 128)  # bytes of the -shm file that readers lock (sqlite.org/walformat.html)


def readers_of(path: str) -> list[int]:
    """Return the processes that are reading from the -wal file of the database at *path*, where the system tells."""
    pids = set()
    with contextlib.suppress(OSError, ValueError):
        inode = os.stat(path + "-shm").st_ino
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:  # "1: POSIX  ADVISORY  READ 4711 fe:01:1234 123 123"
                words = line.split()
                if words[1] == "POSIX" and words[3] == "READ" and int(words[5].rpartition(":")[2]) == inode:
                    first, last = int(words[6]), int(words[7])
                    if first <= _READ_LOCKS[-1] and last >= _READ_LOCKS[0] and int(words[4]) > 0:
                        pids.add(int(words[4]))
    return sorted(pids)


def _refusal(path: str) -> int:
    """Return the number of the error behind one that SQLite does not tell: EIO where nothing else is to be found."""
    folder = os.path.dirname(path)
    files = [name for name in (path, path + "-wal", path + "-shm") if os.path.exists(name)]
    if not all(os.access(name, os.R_OK | os.W_OK) for name in [folder, *files]):
        return errno.EACCES
    with contextlib.ExitStack() as stack:
        try:  # not these files themselves: see `database_is_free`
            for _ in range(4):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as exc:
            return exc.errno or errno.EIO
    with contextlib.suppress(ImportError, OSError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY and max(map(os.path.getsize, files), default=0) > limit - _NEAR:
            return errno.EFBIG
    with contextlib.suppress(AttributeError, OSError):
        if os.statvfs(folder).f_favail == 0:
            return errno.ENOSPC
    # A quota that is used up says so to nobody but who writes.
    probe = f"{path}.tmp-{os.getpid()}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, bytes(_PROBE))
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        return errno.EIO if isinstance(exc, FileExistsError) else exc.errno or errno.EIO
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
    return errno.EIO


_PROBE = 1 << 16  # bytes for which there is no room where one page was refused
_NEAR = 1 << 17  # bytes below the limit on file sizes: more than one transaction of a few rows


def translated(exc: sqlite3.Error, path: str) -> Exception:
    """Return our error for what SQLite said about the database at *path*."""
    text = str(exc)
    if "disk is full" in text:
        return write_failed("write", path, OSError(28, text))
    if "readonly" in text or "read-only" in text:
        return write_failed("write", path, OSError(30, text))
    if "locked" in text or "busy" in text:
        return LockTimeout(
            f"{path!r} is in use by another program ({text}). Close it there, or pass a larger timeout=."
        )
    if "disk I/O error" in text or "unable to open" in text:
        return write_failed("read or write", path, OSError(_refusal(path), text))
    if "closed database" in text:
        return GraphClosed(f"The memory {path!r} was closed. Open it again.")
    if isinstance(exc, (sqlite3.DatabaseError, sqlite3.OperationalError)) and not isinstance(
        exc, (sqlite3.IntegrityError, sqlite3.ProgrammingError)
    ):
        return StoreCorrupt(f"{path!r} is damaged: {text}. Nothing was changed. Run repair, or put back a copy of it.")
    return exc
