"""Connections to SQLite: how they are opened, what a fork does with them, and what their errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import struct
from typing import TYPE_CHECKING

from ..errors import GraphClosed, LockTimeout, MissingDependency, StoreCorrupt, StoreError
from ..mutex import FORK_WAIT, Loans, immortal
from ._files import write_failed

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Connection", "connect", "open_connections", "readers_of", "translated"]

open_connections = Loans()
_SHARED = 0x4000_0002, 510  # from which byte on SQLite locks how many to read a database (sqlite.org/src, os.h)


class Connection(sqlite3.Connection):
    """A connection that a fork waits for.

    SQLite keeps the locks of all connections of a process in one place. A child would find those of its parent there,
    hold none of them, and rely on them: another process could then remove the -wal file that it writes to
    (sqlite.org/howtocorrupt.html, section 2.6). A connection that was in use would keep it waiting for ever.

    It also knows when it has gone `astray`. Its locks are gone as soon as this process opens and closes the database by
    other means, to copy it for instance (section 2.2 there). Then another process may take itself for the last one, and
    remove the -wal file. What is written to that afterwards is lost, and closing would write old pages over new ones.
    """

    path = wal = ""
    file: tuple[int, int] | None = None
    log: tuple[int, int] | None = None

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

    def opened(self, path: str) -> None:
        """Note that it has read from the database at *path*, so that the -wal file which is there now is its own."""
        self.path, self.wal = path, path + "-wal"
        self.file, self.log = _which(path), _which(self.wal)

    def log_gone(self) -> bool:
        """Tell whether there is no -wal file any more where its own was, or another one."""
        return self.log is not None and _which(self.wal) != self.log

    def astray(self) -> bool:
        """Tell whether that is so while the database is still in its place."""
        return self.log_gone() and _which(self.path) == self.file

    def close(self) -> None:
        """Close it, and let forks go on; one that has gone astray leaves the database to others."""
        if self.astray():
            if not os.path.exists(self.wal):
                # Whoever removed it has carried all of it over before. Somebody's `rm` has not.
                with contextlib.suppress(sqlite3.Error):
                    self.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not self._close_apart():
                immortal(self)
                return
        else:
            self.log = None  # what closing removes is not gone astray
            super().close()
        self.log = None
        open_connections.give_back(self)

    def _close_apart(self) -> bool:
        """Close it without a checkpoint, if that can be had."""
        if hasattr(self, "setconfig"):
            self.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)  # type: ignore[attr-defined,unused-ignore]
            super().close()
            return True
        try:
            from fcntl import F_OFD_SETLKW, F_RDLCK, fcntl  # type: ignore[attr-defined,unused-ignore]
        except ImportError:
            return False
        # SQLite leaves the checkpoint out where it cannot lock the database for itself. A lock of an open file, unlike
        # those of SQLite, keeps out the very process that holds it.
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except OSError as exc:
            raise write_failed("open", self.path, exc) from exc
        try:
            fcntl(fd, F_OFD_SETLKW, struct.pack("hhqqi0q", F_RDLCK, os.SEEK_SET, *_SHARED, 0))
            super().close()
        finally:
            os.close(fd)
        return True

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be ending
            if self.astray():
                self.close()


def _which(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: str, mode: str, timeout: float, *, synced: bool = True) -> Connection:
    """Open the database at *path* (*mode*: ro or rw) so that nothing checkpoints by itself.

    Commits are synced; without *synced* only checkpoints are, before and after them, which keeps commits in order.

    Raises:
        StoreError: This process was forked while its parent used SQLite, or has another connection to the database
            that has gone astray.
    """
    if sqlite3.sqlite_version_info < (3, 35):  # RETURNING
        raise MissingDependency(
            f"Python's SQLite is {sqlite3.sqlite_version}, and 3.35 is needed. Use a newer Python, or a path that "
            f"ends in .json."
        )
    from urllib.parse import quote

    file = _which(path)
    if any(other.file == file and other.astray() for other in open_connections):
        raise StoreError(
            f"{path!r} was open here when another program removed its log {path + '-wal'!r}, as happens after this one "
            f"has opened and closed the file by other means, for instance to copy it. Close every memory at this path, "
            f"or use each once more; if that does not help, start this program again. To copy a memory, use backup()."
        )
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
