"""A store in one SQLite file.

One transaction per batch, synced on commit (`synchronous=FULL`; NORMAL would lose the newest ones in a power cut).

SQLite before 3.51.3 can corrupt a database in WAL mode when two connections write or checkpoint at once, and the
last connection to close checkpoints too. So our own lock is held around every write, checkpoint and close, and
SQLite's automatic checkpoint, which runs inside a commit, is off.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

from ..errors import (
    GraphClosed,
    InvalidInput,
    LockTimeout,
    ReadOnly,
    StoreCorrupt,
    StoreMissing,
    StoreWriteFailed,
)
from ..lock import Mutex, StoreLock
from . import ERASING, SOURCE, Erased
from ._copies import Copies, asked, remove_rows
from ._files import discard, hold_database, let_go_of_database, settled, sync_folder, write_failed
from ._wal import check_log
from .sqlite_batch import CHECKPOINT, Transaction
from .sqlite_original import migrate
from .sqlite_reading import Reading
from .sqlite_schema import SCHEMA_VERSION, connect, create, readers_of, sniff, translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..nodes import Batch

__all__ = ["SqliteStore"]

log = logging.getLogger("raeburnmemory")

_WAL_LIMIT = 16 << 20  # bytes of the -wal file beyond which it is cut off as soon as no reader needs it
_PATIENCE = 1.0  # seconds that a write waits for readers when the -wal file is twice as large

_inherited: list[sqlite3.Connection] = []  # of a parent process: never to be used or closed in its child


class SqliteStore(Reading):
    """The `Store` contract over a SQLite database."""

    name = "sqlite"

    def __init__(self, path: Path, *, read_only: bool = False, timeout: float = 30.0) -> None:
        self.read_only = read_only
        self.location = self._path = str(path)
        self._timeout = timeout
        self._mutex = Mutex(over_fork=True)
        self._pid = os.getpid()
        self._closed = False
        self._wal_floor = 0  # a reader kept the -wal file from being cut off: try again only once it is larger
        self._broken = False  # the connection was given up; the next call makes another one
        self._lock = None if read_only else StoreLock(path, timeout)
        self._file = (0, 0)  # which file is open
        try:
            settled(self._path)
            self._db = self._open_read_only() if self._lock is None else self._open(self._lock)
            self.id = str(self.meta("store"))
        except BaseException:
            self._abandon()
            raise

    # --- opening ------------------------------------------------------------------------------------------------

    def _open(self, lock: StoreLock) -> sqlite3.Connection:
        with lock():
            self._prepare()
            return self._connect()

    def _open_read_only(self) -> sqlite3.Connection:
        if not os.path.exists(self._path):
            raise StoreMissing(
                2, f"There is no memory at {self._path!r}. Check the path, or create it by writing to it"
            )
        if sniff(self._path) != SCHEMA_VERSION:
            raise ReadOnly(
                f"{self._path!r} was written by an older version and has to be brought up to date first, which "
                f"read_only=True forbids. Open it once without."
            )
        return self._connect()

    def _abandon(self) -> None:
        """Give back what a failed opening got hold of."""
        if hasattr(self, "_db"):
            self._db.close()
        let_go_of_database(self)
        if self._lock is not None:
            self._lock.close()

    def _prepare(self) -> None:
        """Create the file or bring it up to date; the lock is held."""
        if os.path.exists(self._path):
            version = sniff(self._path, may_roll_back=True)
            if version != SCHEMA_VERSION:
                with self._translated(), contextlib.closing(connect(self._path, "rw", self._timeout)) as db:
                    migrate(db, self._path, version)
            return
        # Made beside its place and renamed, so that nobody ever sees a database without its tables.
        temporary = f"{self._path}.tmp-{os.getpid()}"
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # SQLite would obey the umask
            with self._translated(), contextlib.closing(connect(temporary, "rw", self._timeout)) as db:
                create(db, uuid.uuid4().hex)
                (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
                if mode != "wal":  # it says so instead of raising
                    raise sqlite3.OperationalError(f"disk I/O error: the journal stays in the mode {mode!r}")
            os.rename(temporary, self._path)
            sync_folder(os.path.dirname(self._path))
        except OSError as exc:
            if isinstance(exc, StoreWriteFailed):
                raise
            raise write_failed("make", self._path, exc) from exc
        finally:
            for name in (temporary, temporary + "-wal", temporary + "-shm", temporary + "-journal"):
                discard(name)

    def _connect(self) -> sqlite3.Connection:
        check_log(self._path)
        self._file = self._file_now() or self._file
        with contextlib.suppress(FileNotFoundError):
            hold_database(self, self._path)
        with self._translated():
            if not self.read_only:
                return connect(self._path, "rw", self._timeout)
            try:
                db = connect(self._path, "ro", self._timeout)
                try:
                    db.execute("SELECT count(*) FROM meta").fetchone()
                except BaseException:
                    db.close()
                    raise
            except sqlite3.OperationalError as exc:
                # Where the folder cannot be written, SQLite cannot make the -shm file that WAL mode needs. Nobody
                # else can write there either, so reading the file as it stands is safe, unless commits still wait
                # in a -wal file.
                wal = self._path + "-wal"
                if os.path.exists(wal) and os.path.getsize(wal):
                    raise StoreCorrupt(
                        f"{self._path!r} cannot be read here: {wal!r} holds commits, and its folder is not "
                        f"writable. Copy the folder to where you may write, and open it there."
                    ) from exc
                db = connect(self._path, "ro&immutable=1", self._timeout)
        return db

    def _ready(self) -> None:
        """See that the store is open, and in which process."""
        if self._closed:
            raise GraphClosed(f"The memory {self._path!r} was closed. Open it again.")
        if os.getpid() != self._pid:
            # SQLite forbids carrying a connection over a fork, even to close it.
            _inherited.append(self._db)
            self._pid = os.getpid()
            if self._lock is not None:
                from pathlib import Path

                self._lock = StoreLock(Path(self._path), self._timeout)
            self._db, self._broken = self._connect(), False

    def _connection(self) -> sqlite3.Connection:
        """Return the connection; the mutex is held."""
        self._ready()
        if self._broken:
            self._db, self._broken = self._connect(), False
        elif self._file_now() not in {self._file, None} and not self._db.in_transaction:
            settled(self._path)  # another store took its place: what we have open has no name any more
            before, self._db = self._db, self._connect()
            before.close()
            self.id = str(self.meta("store"))
        return self._db

    def _file_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise translated(exc, self._path) from exc
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as exc:
            raise StoreCorrupt(
                f"{self._path!r} is damaged: {exc!r}. Nothing was changed. Put back a copy of it."
            ) from exc
        except UnicodeEncodeError as exc:
            raise InvalidInput(
                f"{exc.object[:40]!r} holds half of a surrogate pair, which SQLite cannot store."
            ) from exc

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._ready()
        with self._mutex, self._translated():
            yield self._connection()

    # --- writing ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other writers, in any thread or process, out of the block."""
        if self._lock is None:
            raise ReadOnly(f"{self._path!r} was opened with read_only=True. Open it without to change it.")
        self._ready()
        with self._lock():
            yield

    def write(self, batch: Batch) -> int:
        """Apply *batch* in one transaction and return the new version."""
        with self.exclusive(), self._reading() as db:
            if not batch:
                return self._version(db)
            with self._renewing():
                db.execute("BEGIN IMMEDIATE")
                try:
                    version = self._version(db) + 1
                    Transaction(db).apply(batch, version)
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
            self._tidy(db, version)
            return version

    def _tidy(self, db: sqlite3.Connection, version: int) -> None:
        """Carry the -wal file over into the database now and then, and cut it off once it is large."""
        try:
            size = os.path.getsize(self._path + "-wal")
        except OSError:
            size = 0
        large = size > max(_WAL_LIMIT, self._wal_floor)
        if not large and version % CHECKPOINT:
            return
        try:
            with self._renewing():
                # A reader at work: then the next time, until it has become too much. It can only be one that began
                # before everything was carried over, so that waiting for it ends.
                patience = min(_PATIENCE, self._timeout) if size > 2 * _WAL_LIMIT else 0
                db.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
                busy, *_ = db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if large else 'PASSIVE'})").fetchone()
                db.execute(f"PRAGMA busy_timeout={int(min(self._timeout * 1000, 1 << 30))}")
                self._wal_floor = size + _WAL_LIMIT // 4 if busy else 0
        except sqlite3.Error as exc:
            # What was written is committed; only its tidying has to wait.
            log.warning("%s (the changes are safe in %r)", translated(exc, self._path), self._path + "-wal")

    @contextlib.contextmanager
    def _renewing(self) -> Iterator[None]:
        """Go on with another connection when the disk refused something in the block; the locks are held.

        After a failed sync the system may take for clean what never reached the disk, so that the next sync of the
        same file handle proves nothing. And where a file could not be opened for writing, SQLite has opened it for
        reading alone, for good.
        """
        try:
            yield
        except sqlite3.Error as exc:
            if isinstance(translated(exc, self._path), StoreWriteFailed):
                self._broken = True
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
            raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads in the block see one version."""
        with self._mutex:
            db = self._connection()
            outermost = not db.in_transaction
            with self._translated():
                if outermost:
                    db.execute("BEGIN")
                self._version(db)  # the first read is what fixes the version
            try:
                yield  # not under _translated: what goes wrong in the block is not this file's fault
            finally:
                if outermost:
                    with self._translated():
                        db.execute("COMMIT")

    def cache_path(self, field: str) -> str | None:
        """Return where an index of *field* may be saved as a cache."""
        return f"{self._path}.{field}.index"

    def erase(self, batch: Batch, *, backups: bool = False, timeout: float | None = None) -> Erased:
        """Apply *batch*, and leave nothing in any file of the nodes that it, or an older batch, removes."""
        # With a connection of its own, so that other threads go on reading while it waits for those who still read
        # what was there before.
        with self.exclusive(), self._translated(), contextlib.closing(connect(self._path, "rw", self._timeout)) as db:
            db.execute("PRAGMA secure_delete=ON")
            mark = asked(self.meta(ERASING), batch, backups=backups)
            with _transaction(db):
                if batch:
                    Transaction(db).apply(batch, self._version(db) + 1)
                remove_rows(db, mark["nodes"])
                _set_mark(db, mark)
            gone = [tuple(key) for key in mark["nodes"]]
            copies = Copies(self._path, self.id, gone, backups=mark["backups"], timeout=self._timeout, export=True)
            copies.sweep(indexes=True)
            copies.clean()
            copies.source(self.meta(SOURCE))
            copies.sync()
            # From here on nothing needs to know any more what it was; what follows is done again if it is cut short.
            with _transaction(db):
                _set_mark(db, {"nodes": [], "backups": False})
            patience = self._timeout if timeout is None else min(timeout, self._timeout)
            self._truncate(db, patience)  # before, too: while somebody reads, each try would make the -wal file longer
            db.execute("VACUUM")  # for what older transactions left in free pages and between the rows of others
            self._truncate(db, patience)
            with _transaction(db):
                _set_mark(db, None)
            found = copies.found()
            return found._replace(rewritten=(self._path, *found.rewritten))

    def _truncate(self, db: sqlite3.Connection, patience: float) -> None:
        """Bring all of the -wal file into the database and make it empty, once nobody reads from it any more."""
        db.execute(f"PRAGMA busy_timeout={min(int(patience * 1000), 1 << 30)}")
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            pids = readers_of(self._path)
            who = f"process {', '.join(map(str, pids))}" if pids else "somebody"
            own = " (this process, in another thread or another object)" if os.getpid() in pids else ""
            raise LockTimeout(
                f"{self._path!r} is being read by {who}{own}, who did not let go for {patience:g} s. What was to "
                f"be forgotten is gone from the memory, but still stands in its files until that reader is done. End "
                f"it, or pass a larger timeout=, and forget again."
            )

    def checkpoint(self, *, mended: bool = False) -> None:  # noqa: ARG002
        """Bring the -wal file into the database."""
        with self.exclusive(), self._reading() as db, self._renewing():
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def size(self) -> int:
        """Return the bytes of the database and its -wal file."""
        return sum(os.path.getsize(p) for p in (self._path, self._path + "-wal") if os.path.exists(p))

    def close(self) -> None:
        """Bring everything into the one file, and close it."""
        if self._closed or os.getpid() != self._pid:
            self._closed = True
            return
        with contextlib.ExitStack() as stack:
            if self._lock is not None:
                try:
                    stack.enter_context(self._lock())
                except LockTimeout as exc:
                    # Closing checkpoints, which must not happen beside a writer. Everything is committed; whoever
                    # opens the store next brings it into the file.
                    log.warning("%s", exc)
                    if hasattr(self._db, "setconfig") and not self._broken:
                        self._db.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)  # type: ignore[attr-defined,unused-ignore]
            with self._mutex, self._translated():
                if self._lock is not None and self._lock.held and not self._broken:
                    with contextlib.suppress(sqlite3.OperationalError):  # a reader is at work; the -wal file stays
                        self._db.execute("PRAGMA busy_timeout=0")
                        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._closed = True
                self._db.close()
                let_go_of_database(self)
        if self._lock is not None:
            self._lock.close()


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _set_mark(db: sqlite3.Connection, mark: Any) -> None:
    if mark is None:
        db.execute("DELETE FROM meta WHERE key = ?", (ERASING,))
    else:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (ERASING, json.dumps(mark)))
