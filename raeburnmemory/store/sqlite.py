"""A store in one SQLite file.

One transaction per batch, or for several that come together, synced on commit (`synchronous=FULL`). Who asks for no
more than that changes survive the process gets NORMAL, with which a power cut takes the newest commits.

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
from ..lock import StoreLock
from ..mutex import Mutex
from ..nodes import copied
from ._copies import Copies, asked, remove_rows
from ._files import copy_file, discard, hold_database, let_go_of_database, now, settled, sync_folder, write_failed
from ._wal import check_log, last_change, unsynced
from .contract import ERASING, SOURCE, Erased
from .group_commit import Section
from .journal import boot
from .sqlite_batch import CHECKPOINT, Known, Transaction
from .sqlite_connection import Connection, connect, open_connections, readers_of, translated
from .sqlite_original import migrate
from .sqlite_reading import DamagedRowError, Reading
from .sqlite_schema import SCHEMA_VERSION, create, sniff
from .sqlite_vectors import FORMAT, register_functions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from ..nodes import Batch, Changes, Node
    from .contract import VectorChanges

__all__ = ["SqliteStore"]

log = logging.getLogger("raeburnmemory")

_WAL_LIMIT = 16 << 20  # bytes of the -wal file beyond which it is cut off as soon as no reader needs it
_PATIENCE = 1.0  # seconds that a write waits for readers when the -wal file is twice as large


class SqliteStore(Reading):
    """The `Store` contract over a SQLite database."""

    name = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        timeout: float = 30.0,
        durability: str = "full",
        vector_format: str | None = None,
    ) -> None:
        self.read_only = read_only
        self._wanted_format = vector_format
        self.durability = durability
        self._boot = None if durability == "full" else boot()
        self._syncs = True  # so does every commit of the connection
        self._doubtful = False  # a sync of the -wal file has failed, and commits in it were perhaps not synced before
        self._said: dict[str, str | int] = {}  # what the log of changes says of how they were written
        self.location = self._path = str(path)
        self._wal_path = self._path + "-wal"
        self._timeout = timeout
        self._mutex = Mutex(over_fork=True)
        self._pid = os.getpid()
        self._closed = False
        self._wal_floor = 0  # a reader kept the -wal file from being cut off: try again only once it is larger
        self._broken = False  # the connection was given up; the next call makes another one
        self._section = Section(self, self._mutex)
        self._begun = False  # a transaction of a section is open
        self._aside = False  # this section works with another connection
        self._written: int | None = None  # the last version in that transaction, once something is written in it
        self._checkpointed = -1  # how often CHECKPOINT had gone into the version then
        self._known = Known()  # for this section, if it has a transaction
        self._read = _Read(self._connection, self._meant)
        self._renewing = _Renewing(self._refused)
        self._lock = None if read_only else self._new_lock()
        self._file = (0, 0)  # which file is open
        try:
            settled(self._path)
            self._db = self._open_read_only() if self._lock is None else self._open(self._lock)
            self.id = str(self.meta("store"))
            self._expect_format()
        except BaseException:
            self._abandon()
            raise
        self._mutex.before_fork = self._close_over_fork

    def _expect_format(self) -> None:
        found = self.meta(FORMAT) or "float32"
        if self._wanted_format not in {found, None}:
            raise InvalidInput(
                f"{self._path!r} holds vectors as {found}, but vector_format={self._wanted_format!r} was asked for. "
                f"Leave it out: the form is chosen when a memory is made."
            )

    # --- opening ------------------------------------------------------------------------------------------------

    def _open(self, lock: StoreLock) -> Connection:
        with lock():
            self._prepare()
            return self._connect()

    def _open_read_only(self) -> Connection:
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
        form = self._wanted_format or "float32"
        # Made beside its place and renamed, so that nobody ever sees a database without its tables.
        temporary = f"{self._path}.tmp-{os.getpid()}"
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # SQLite would obey the umask
            with self._translated(), contextlib.closing(connect(temporary, "rw", self._timeout)) as db:
                create(db, uuid.uuid4().hex, {FORMAT: form} if form != "float32" else None)
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

    def _connect(self) -> Connection:
        self._set_aside(check_log(self._path))
        self._syncs = self.durability == "full"
        self._known = Known()  # another file may have the same entries in its log of changes, and other sets
        self._file = self._file_now() or self._file
        with contextlib.suppress(FileNotFoundError):
            hold_database(self, self._path)
        with self._translated():
            if not self.read_only:
                return _ready_to_read(connect(self._path, "rw", self._timeout, synced=self._syncs), self._path)
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
                wal = self._wal_path
                if os.path.exists(wal) and os.path.getsize(wal):
                    raise StoreCorrupt(
                        f"{self._path!r} cannot be read here: {wal!r} holds commits, and its folder is not "
                        f"writable. Copy the folder to where you may write, and open it there."
                    ) from exc
                db = connect(self._path, "ro&immutable=1", self._timeout)
            return _ready_to_read(db, self._path)

    def _set_aside(self, left: tuple[int, int] | None) -> None:
        """Keep a log of which SQLite will overwrite what a power cut has left."""
        if left is None or self.read_only:
            return
        name = f"{self._path}-wal"
        aside = f"{name}.damaged-{now(self._path, 'damaged')}"
        try:
            copy_file(name, aside)
        except OSError as exc:
            raise write_failed("write", aside, exc) from exc
        log.warning(
            "A power cut took the newest changes of %r, which were written with durability='process': %d or more from "
            "byte %d of its log on cannot be read. They are kept in %r",
            self._path,
            left[1],
            left[0],
            aside,
        )

    def _ready(self) -> None:
        """See that the store is open, and in which process."""
        if self._closed:
            raise GraphClosed(f"The memory {self._path!r} was closed. Open it again.")
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._section.renew()
            if self._lock is not None:
                self._lock = self._new_lock()
            self._db, self._broken = self._connect(), False

    def _new_lock(self) -> StoreLock:
        from pathlib import Path

        self._section.lock = StoreLock(Path(self._path), self._timeout, self._before_others)
        return self._section.lock

    def _connection(self) -> Connection:
        """Return the connection with nothing in it that others must not see yet; the mutex is held."""
        if self._closed or os.getpid() != self._pid:
            self._ready()
        if self._section.mine and not self._aside:
            return self._in_transaction()
        if self._section.pending:
            self._section.settle()
        return self._present()

    def _present(self) -> Connection:
        if self._broken:
            self._db, self._broken = self._connect(), False
        elif self._db.in_transaction:
            pass
        elif (found := self._file_now()) not in {self._file, None}:
            settled(self._path)  # another store took its place: what we have open has no name any more
            before, self._db = self._db, self._connect()
            before.close()
            self.id = str(self.meta("store"))
        elif found is not None and self._db.log_gone():
            self._db.close()
            self._broken = True
            self._db, self._broken = self._connect(), False
        return self._db

    def _in_transaction(self) -> Connection:
        """Return the connection in the one transaction in which this section reads and writes."""
        if self._broken:
            self._db, self._broken, self._begun = self._connect(), False, False
        if not self._db.in_transaction:
            if self._begun and self._section.pending:
                # SQLite took it back, as it does after some errors, and all that was written in it.
                self._section.fail(
                    StoreWriteFailed(5, f"{self._path!r} was not written: an error came before. Try again")
                )
            self._written = None
            known, self._known = self._known, Known()  # nothing, where the log cannot be read
            known.rows.clear()
            self._begun = True
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except BaseException:
                self._start_anew()
                raise
            last = last_change(self._db)
            self._known = known if known.last == last else Known(last)
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
        except Exception as exc:
            if (meant := self._meant(exc)) is exc:
                raise
            raise meant from exc

    def _meant(self, exc: Exception) -> Exception:
        """Return our error for one of SQLite, or of what is read from it; *exc* itself if it is another one."""
        if isinstance(exc, sqlite3.Error):
            return translated(exc, self._path)
        if isinstance(exc, (json.JSONDecodeError, DamagedRowError, UnicodeDecodeError, KeyError)):
            return StoreCorrupt(f"{self._path!r} is damaged: {exc!r}. Nothing was changed. Put back a copy of it.")
        if isinstance(exc, UnicodeEncodeError):
            return InvalidInput(f"{exc.object[:40]!r} holds half of a surrogate pair, which SQLite cannot store.")
        return exc

    def _reading(self) -> _Read:
        return self._read

    def lend(self) -> Connection:
        """Return the connection for longer than a call; forks wait for it from now on until the store is closed."""
        with self._mutex.lock:
            self._mutex.before_fork = None
            return self._connection()

    # --- writing ------------------------------------------------------------------------------------------------

    def exclusive(self) -> Section:
        """Keep other writers, in any thread or process, out of the block."""
        if self._lock is None:
            raise ReadOnly(f"{self._path!r} was opened with read_only=True. Open it without to change it.")
        if self._closed or os.getpid() != self._pid:
            self._ready()
        return self._section

    def write(self, batch: Batch) -> int:
        """Apply *batch*, in one transaction with what shares its sync, and return the new version."""
        with self.exclusive():
            self._section.may_write()
            self._aside = False
            with self._mutex.lock, self._read as db:
                if self._written is None:
                    if not batch:
                        return self._version(db)
                    self._written = self._before_first(db)
                elif not batch:
                    return self._written
                alone = not self._section.pending
                with self._renewing:
                    if not alone:
                        db.execute("SAVEPOINT batch")
                    try:
                        Transaction(db, self._said, self._known).apply(batch, self._written + 1)
                        if not alone:
                            db.execute("RELEASE batch")
                        self._written += 1
                        self._section.wrote()
                    except Exception:
                        self._take_back(db, alone=alone)
                        raise
                    except BaseException:
                        self._section.interrupted()
                        raise
                return self._written

    def _before_first(self, db: Connection) -> int:
        """Let what is written now be told from damage after a power cut, see `_wal`; return the last version."""
        version, said = self._known.last or last_change(db)
        then = unsynced(said)
        if then is not None and (self._boot is None or self._doubtful):
            self._sync_log()
        if self._boot is None:
            self._said = {} if then is None else {"synced": version + 1}
            return version
        self._said = {"unsynced": self._boot}
        if self._syncs != (then != self._boot):
            with self._renewing:  # nothing is written in the transaction yet, and it forbids this
                try:
                    db.execute("COMMIT")
                    db.execute(f"PRAGMA synchronous={'NORMAL' if self._syncs else 'FULL'}")
                    self._syncs = not self._syncs
                    db.execute("BEGIN IMMEDIATE")
                finally:
                    self._begun = db.in_transaction
        return version

    def _take_back(self, db: Connection, *, alone: bool) -> None:
        """Take back what a batch has written that failed, and unless it was *alone* nothing that came before."""
        self._known = Known()
        if alone:
            self._begun, self._written = False, None
            if db.in_transaction:
                db.execute("ROLLBACK")
        elif db.in_transaction:
            db.execute("ROLLBACK TO batch")
            db.execute("RELEASE batch")

    def _begin_section(self) -> None:
        self._aside = False
        self._ready()
        if not self._section.pending:
            self._present()

    def _after_section(self) -> None:
        """Do nothing: there is nothing to tidy up that does not need the lock."""

    def _sync_pending(self) -> None:
        if not self._begun:
            return
        try:
            with self._renewing:
                try:
                    self._db.execute("COMMIT")
                    self._begun = False
                    if self._db.log_gone():
                        self._expect_log()
                except Exception:
                    self._start_anew()
                    raise
        except sqlite3.Error as exc:
            raise self._meant(exc) from exc

    def _expect_log(self) -> None:
        """Refuse to have written to a log that another program has removed, where it has put another one."""
        if self._db.astray():
            self._broken = True
            kept = not os.path.exists(self._wal_path)  # then closing carries it over
            self._db.close()
            if not kept:
                raise StoreWriteFailed(
                    5, f"{self._path!r} was not written: another program removed its log meanwhile. Try again"
                )

    def _start_anew(self) -> None:
        self._known, self._written = Known(), None
        try:
            if self._begun and not self._broken and self._db.in_transaction:
                self._db.execute("ROLLBACK")
        finally:
            self._begun = False

    def _end_transaction(self) -> None:
        """Let no transaction of a section be open, not even one in which nothing was written."""
        with self._mutex.lock:
            self._section.settle()
            if self._begun and not self._broken and self._pid == os.getpid():
                try:
                    if self._db.in_transaction:
                        self._db.execute("COMMIT")
                finally:  # whatever interrupts this
                    self._begun = self._db.in_transaction

    def _close_over_fork(self) -> None:
        """Have nothing open, whichever process goes on: each opens the file anew at its next call."""
        if self._closed or self._pid != os.getpid():
            return
        try:
            self._end_transaction()
        finally:
            if not self._broken and self._db.in_transaction:  # in a snapshot, which goes on
                open_connections.keep(self._db)
            else:
                self._broken, self._begun = True, False
                self._db.close()

    def _before_others(self) -> None:
        """Bring to an end what is open: another process comes next."""
        with self._mutex.lock:
            self._end_transaction()
            version, self._written = self._written, None
            if version is not None and not self._broken:
                self._tidy(self._db, version)

    @contextlib.contextmanager
    def _with_another(self) -> Iterator[None]:
        """Stay out of the way of another connection in the block; the lock is held."""
        self._section.sync()
        self._end_transaction()
        self._aside, self._known = True, Known()
        try:
            yield
        finally:
            self._aside = False

    def _tidy(self, db: Connection, version: int) -> None:
        """Carry the -wal file over into the database now and then, and cut it off once it is large."""
        try:
            size = os.stat(self._wal_path).st_size
        except OSError:
            size = 0
        large = size > _WAL_LIMIT and size > self._wal_floor
        before, self._checkpointed = self._checkpointed, version // CHECKPOINT
        if not large and before in {-1, self._checkpointed} and version % CHECKPOINT:
            return
        try:
            with self._renewing:
                # A reader at work: then the next time, until it has become too much. It can only be one that began
                # before everything was carried over, so that waiting for it ends.
                patience = min(_PATIENCE, self._timeout) if size > 2 * _WAL_LIMIT else 0
                try:
                    db.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
                    busy, *_ = db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if large else 'PASSIVE'})").fetchone()
                finally:
                    db.execute(f"PRAGMA busy_timeout={int(min(self._timeout * 1000, 1 << 30))}")
                self._wal_floor = size + _WAL_LIMIT // 4 if busy else 0
        except sqlite3.Error as exc:
            # What was written is committed; only its tidying has to wait.
            log.warning("%s (the changes are safe in %r)", translated(exc, self._path), self._wal_path)

    def _refused(self, exc: sqlite3.Error) -> None:
        """Go on with another connection if the disk refused something; the locks are held.

        After a failed sync the system may take for clean what never reached the disk, so that the next sync of the
        same file handle proves nothing. And where a file could not be opened for writing, SQLite has opened it for
        reading alone, for good.
        """
        if isinstance(translated(exc, self._path), StoreWriteFailed):
            self._broken, self._begun, self._written, self._doubtful = True, False, None, True
            self._section.fail(translated(exc, self._path))
            with contextlib.suppress(sqlite3.Error):
                self._db.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads in the block see one version."""
        with self._mutex.lock:
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

    # Caches go by these. None may learn of what is not on disk: it would have it still after the sync failed.

    def version(self) -> int:
        """Return the number of the last committed batch."""
        self._settle_own()
        return super().version()

    def changes(self, since: int) -> Changes:
        """Return what happened to nodes and edges after version *since*."""
        self._settle_own()
        return super().changes(since)

    def vectors(self, field: str, since: int) -> VectorChanges:
        """Return what happened to the vectors of *field* after version *since*."""
        self._settle_own()
        return super().vectors(field, since)

    # What has been read where nobody else writes need not be read again.

    def _transacting(self) -> bool:
        return self._begun and self._section.mine and not self._aside

    def _note(self, ids: Sequence[str], namespace: str, nodes: Sequence[Node]) -> None:
        if self._transacting():
            rows = self._known.rows
            for node_id in ids:
                rows[namespace, node_id] = None
            for node in nodes:
                rows[namespace, node.id] = node.row

    def meta(self, key: str) -> Any:
        """Return the JSON value kept under *key*, or None."""
        with self._mutex.lock, self._read as db:
            if key == ERASING or not self._transacting():  # that one is written without an entry in the log
                return self._meta(db, key)
            known = self._known.meta
            if key not in known:
                known[key] = self._meta(db, key)
            return copied(known[key])

    def _settle_own(self) -> None:
        if self._section.pending and self._section.mine:
            self._section.sync()

    def cache_path(self, field: str) -> str | None:
        """Return where an index of *field* may be saved as a cache."""
        return f"{self._path}.{field}.index"

    def erase(self, batch: Batch, *, backups: bool = False, timeout: float | None = None) -> Erased:
        """Apply *batch*, and leave nothing in any file of the nodes that it, or an older batch, removes."""
        # With a connection of its own, so that other threads go on reading while it waits for those who still read
        # what was there before.
        with (
            self.exclusive(),
            self._with_another(),
            self._translated(),
            contextlib.closing(connect(self._path, "rw", self._timeout)) as db,
        ):
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
            copies.sweep()  # backups that were begun before: free pages are copied, too
            copies.sync()
            with _transaction(db):
                _set_mark(db, None)
            found = copies.found()
            return found._replace(rewritten=(self._path, *found.rewritten))

    def _truncate(self, db: Connection, patience: float) -> None:
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
        with self.exclusive(), self._with_another(), self._mutex.lock, self._reading() as db, self._renewing:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if self._boot is not None:
                self._sync_log()

    def _sync_log(self) -> None:
        """Bring to disk what commits left in the -wal file unsynced, and a checkpoint too, because of a reader.

        After that failed, the system may take for clean what never reached the disk, so that another sync alone proves
        nothing: all is written once more first, in its place, by the holder of the lock.
        """
        doubtful, self._doubtful = self._doubtful and self._lock is not None and self._lock.held, True
        try:
            # No lock of SQLite's is on this file, so that closing it drops none.
            fd = os.open(self._wal_path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            self._doubtful = False
            return
        try:
            at = 0
            while doubtful and (block := os.read(fd, 1 << 20)):  # no pread: not every system has it
                os.lseek(fd, at, os.SEEK_SET)
                at = os.lseek(fd, at + os.write(fd, block), os.SEEK_SET)
            os.fsync(fd)
            self._doubtful = False
        except OSError as exc:
            raise write_failed("sync", self._wal_path, exc) from exc
        finally:
            os.close(fd)

    def size(self) -> int:
        """Return the bytes of the database and its -wal file."""
        return sum(os.path.getsize(p) for p in (self._path, self._wal_path) if os.path.exists(p))

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
            with self._mutex.lock, self._translated():
                self._end_transaction()
                self._broken |= self._db.astray()
                if self._lock is not None and self._lock.held and not self._broken:
                    try:
                        self._db.execute("PRAGMA busy_timeout=0")
                        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    except sqlite3.OperationalError as exc:  # a reader is at work, perhaps; the -wal file stays
                        self._doubtful |= isinstance(translated(exc, self._path), StoreWriteFailed)
                if self._lock is not None and not self._broken and self._boot is not None:
                    self._sync_log()
                self._closed = True
                self._db.close()
                let_go_of_database(self)
        if self._lock is not None:
            self._lock.close()


class _Read:
    """The connection for the length of a block, in which its mutex is held. Quicker than a generator."""

    def __init__(self, connection: Callable[[], Connection], meant: Callable[[Exception], Exception]) -> None:
        self._connection, self._meant = connection, meant

    def __enter__(self) -> Connection:
        try:
            return self._connection()
        except Exception as exc:
            self.__exit__(type(exc), exc, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and (meant := self._meant(error)) is not error:
            raise meant from error


class _Renewing:
    """A block in which SQLite may say that the disk refused something, which *refused* is told."""

    def __init__(self, refused: Callable[[sqlite3.Error], None]) -> None:
        self._refused = refused

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            self._refused(error)


def _ready_to_read(db: Connection, path: str) -> Connection:
    try:
        if db.execute("SELECT 1 FROM meta WHERE key = ?", (FORMAT,)).fetchone():
            register_functions(db)
        db.opened(path)
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def _transaction(db: Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _set_mark(db: Connection, mark: Any) -> None:
    if mark is None:
        db.execute("DELETE FROM meta WHERE key = ?", (ERASING,))
    else:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (ERASING, json.dumps(mark)))
