"""A store in a schema of a PostgreSQL database, for many hosts at once.

Whoever writes holds an advisory lock of the server, from before it reads which version is the last until its commit is
visible: so versions become visible in their order, and a reader who has seen one has seen all before it. A section
(`exclusive`) holds the same lock for a session. When a session is lost in the middle, what was committed is found out
by the mark in the log, so that nothing is written twice and nothing that was acknowledged is missing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from ..errors import GraphClosed, InvalidInput, LockTimeout, MemoryGraphError, ReadOnly, StoreMissing, StoreUnreachable
from ..mutex import Mutex
from ._copies import asked
from .contract import ERASING, Erased
from .postgres_batch import apply
from .postgres_erasing import erase
from .postgres_reading import GRAPH, Reading
from .postgres_schema import check_version, is_lost, lock_of, prepare, schema_version, translated
from .postgres_sessions import Sessions, drop, pipeline, roll_back
from .postgres_url import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from ..nodes import Batch
    from .postgres_sessions import Session

__all__ = ["PostgresStore", "postgres_exists"]

Found = TypeVar("Found")

_GRAPH_MEMORY = 1 << 30  # bytes that the server may use to make a graph; with less it takes far longer
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TRIES = 5  # of a transaction that others got in the way of


class PostgresStore(Reading):
    """The `Store` contract over a PostgreSQL server. `location` is the URL without what is secret in it."""

    name = "postgres"

    def __init__(
        self,
        location: str,
        *,
        read_only: bool = False,
        timeout: float = 30.0,
        durability: str = "full",
        language: str = "english",
    ) -> None:
        self._address = parse(location)
        self.location = self._address.shown
        self.read_only = read_only
        self.durability = durability
        self._timeout = timeout
        self._lock = lock_of(self._address.schema)
        self._sessions = Sessions(self._address, timeout, durability=durability)
        self._own = _Own()
        self._section = _Section(self)
        with self._translated():
            db = self._sessions.connect()
            try:
                self._expect_store(db, language)
                self._sessions.set_up(db)
            except BaseException:
                drop(db)
                raise
            self._sessions.give(db)
        try:
            self.id = str(self.meta("store"))
        except BaseException:
            self._sessions.close()
            raise

    def _expect_store(self, db: Session, language: str) -> None:
        """See that there is a store, and make one unless this only reads."""
        found = schema_version(db, self._address)
        check_version(found, self._address)
        if found is not None:
            return
        if self.read_only:
            raise StoreMissing(
                2, f"There is no memory in {self.location!r}. Check the URL, or create it by writing to it"
            )
        prepare(db, self._address, language)

    # --- sessions -----------------------------------------------------------------------------------------------

    def _meant(self, exc: BaseException) -> BaseException:
        """Return our error for one of the driver, *exc* itself if it is another one."""
        if isinstance(exc, psycopg.Error):
            waited = exc.sqlstate in {"55P03", "57014"}  # lock_timeout, statement_timeout
            return translated(exc, self._address, self._sessions.holder() if waited else "")
        if isinstance(exc, UnicodeEncodeError):
            return InvalidInput(f"{exc.object[:40]!r} holds half of a surrogate pair, which PostgreSQL cannot store.")
        return exc

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            if (meant := self._meant(exc)) is exc:
                raise
            raise meant from exc

    def _read(self, work: Callable[[Session], Found]) -> Found:
        if self._sessions.closed:
            raise GraphClosed(f"The memory {self.location!r} was closed. Open it again.")
        if self._section.mine:
            return self._section.read(work)
        frozen = self._own.snapshot
        if frozen is None:
            return self._sessions.read(work, self._meant)
        with self._translated():
            return work(frozen)

    def _read_at_once(self, ask: Callable[[Session], Any], work: Callable[[Session, Any], Found]) -> Found:
        def at_once(db: Session) -> Found:
            alone = db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            with pipeline(db):  # the beginning goes along with the first questions
                if alone:
                    db.execute(_SNAPSHOT)
                asked = ask(db)
            found = work(db, asked)
            if alone:
                db.execute("COMMIT")
            return found

        return self._read(at_once)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads in the block see one version. It holds up nobody but who erases for good."""
        if self._own.snapshot is not None or self._section.mine:  # nobody else writes in a section
            self._read(lambda _: None)  # for its errors
            yield
            return

        def begin(db: Session) -> int:
            # The first read is what fixes the version. In one message, since a pipeline ends in one (Flush) after which
            # the server ends no session for idling in its transaction.
            state = db.execute(f"{_SNAPSHOT}; SELECT version FROM state", prepare=False)
            state.nextset()
            found = state.fetchone()
            assert found is not None
            return int(found[0])

        db, version = self._sessions.read_and_keep(begin, self._meant)
        self._own.snapshot, self._own.version = db, version
        try:
            yield
        finally:
            self._own.snapshot = None
            roll_back(db)
            self._sessions.give(db)

    def version(self) -> int:
        """Return the number of the last committed batch; in a snapshot that of its own, without asking again."""
        return super().version() if self._own.snapshot is None or self._section.mine else self._own.version

    # --- writing ------------------------------------------------------------------------------------------------

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other writers, in any thread, process or host, out of the block.

        If the session is lost in it, the block goes on with another one where nobody else wrote meanwhile, else the
        next call raises StoreUnreachable.
        """
        if self.read_only:
            raise ReadOnly(f"{self.location!r} was opened with read_only=True. Open it without to change it.")
        if self._sessions.closed:
            raise GraphClosed(f"The memory {self.location!r} was closed. Open it again.")
        return self._section

    def write(self, batch: Batch) -> int:
        """Apply *batch* in one transaction, and return the new version."""
        section = self.exclusive()
        if not batch:
            return self.version()
        with section, self._translated():
            return self._section.write(batch)

    def erase(self, batch: Batch, *, backups: bool = False, timeout: float | None = None) -> Erased:
        """Apply *batch*, and leave nothing in the tables of the nodes that it, or an older batch, removes.

        The tables are written anew (VACUUM FULL), which needs room for a copy of the largest, and waits for who reads
        an older version, in any table of the database. What the server keeps elsewhere is named: archived logs, and
        those held back for a replica. Copies that others made (pg_dump, base backups) it cannot know.
        """
        patience = self._timeout if timeout is None else min(timeout, self._timeout)
        with self.exclusive(), self._translated():
            mark = asked(self.meta(ERASING), batch, backups=backups)
            if batch:  # with the mark, so that whoever comes after a kill knows what is left to do
                self._section.write(replace(batch, meta={**batch.meta, ERASING: mark}))
            return self._section.read(lambda db: erase(db, self.location, mark, self._lock, patience))

    @property
    def may_build(self) -> bool:
        """Whether a graph may be made now.

        That waits for every snapshot that is open, and so for this thread's own, and for who waits for its section.
        """
        return not (self.read_only or self._own.snapshot is not None or self._section.mine)

    def make_graph(
        self, number: int, expression: str, options: str, *, bytes_needed: int, patience: float | None = None
    ) -> bool:
        """Make an HNSW graph over the vectors of set *number*, while others read and write.

        One does it at a time; tell whether there is one now. Graphs over sets that are gone are removed. Whoever began
        before and still reads or writes is waited for, each for *patience* seconds, or the `timeout` of the store.
        """
        name = GRAPH + str(number)
        with self._translated(), contextlib.closing(self._sessions.take()) as db:
            found = db.execute("SELECT pg_try_advisory_lock(%s, %s)", (self._lock[0] + 1, self._lock[1])).fetchone()
            if found != (True,):
                return self.graph_of(number)
            if patience is not None:
                wait = f"{max(1, int(min(patience, self._timeout) * 1000))}ms"
                db.execute("SELECT set_config('lock_timeout', %s, false)", (wait,))
            kilobytes = min(max(bytes_needed, 64 << 20), _GRAPH_MEMORY) >> 10
            db.execute("SELECT set_config('maintenance_work_mem', %s, false)", (f"{kilobytes}kB",))
            there = db.execute(
                "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
                "WHERE i.indrelid = to_regclass('vectors') AND starts_with(c.relname, %s)",
                (GRAPH,),
            ).fetchall()
            kept = {f"{GRAPH}{n}" for (n,) in db.execute("SELECT number FROM sets")}
            for each, valid in there:
                if each not in kept or not valid:  # or what somebody was killed over
                    db.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {each}")
            if (name, True) not in there:
                db.execute(
                    f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON vectors USING hnsw ({expression}) "
                    f'WITH ({options}) WHERE "set" = {number:d}'
                )
        return self.graph_of(number)

    # --- the rest -----------------------------------------------------------------------------------------------

    def cache_path(self, field: str) -> str | None:  # noqa: ARG002
        """Return None: a file on this host would hold what others forget for good in the server."""
        return None

    def checkpoint(self, *, mended: bool = False) -> None:  # noqa: ARG002
        """Do nothing: what is committed is where it belongs, and the server's own checkpoints are its business."""
        self.exclusive()

    def close(self) -> None:
        """Close the sessions."""
        self._sessions.close()


def postgres_exists(location: str) -> bool:
    """Tell whether there is a store at the URL *location*."""
    address = parse(location)
    sessions = Sessions(address, 30.0, durability="full")
    try:
        with contextlib.closing(sessions.connect()) as db:
            return schema_version(db, address) is not None
    except psycopg.Error as exc:
        raise translated(exc, address) from exc


class _Own(threading.local):
    """What a thread has: the session of the snapshot that it is in, and the version that it sees there."""

    snapshot: Session | None = None
    version = -1


class _Section:
    """What `exclusive()` gives: one per store, reentrant, and one thread's at a time."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._mutex = Mutex()
        self._owner, self._depth, self._pid = 0, 0, os.getpid()
        self._db: Session | None = None
        self._version = -1  # the last that this section read or wrote, with nobody else's after it

    @property
    def mine(self) -> bool:
        """Whether this thread is in it."""
        return self._owner == threading.get_ident() and self._pid == os.getpid()

    def __enter__(self) -> None:
        store = self._store
        timeout = store._timeout  # noqa: SLF001
        if not self._mutex.take(min(timeout, threading.TIMEOUT_MAX)):
            raise LockTimeout(
                f"{store.location!r} is held by another thread of this process (for more than {timeout:g} s). Try "
                f"again later, or pass a larger timeout=."
            )
        if self._depth and self._pid == os.getpid():
            self._depth += 1
            return
        try:
            with store._translated():  # noqa: SLF001
                self._db, self._version = self._hold()
            self._owner, self._depth, self._pid = threading.get_ident(), 1, os.getpid()
        except BaseException:
            self._mutex.__exit__()
            raise

    def _hold(self, lost: BaseException | None = None) -> tuple[Session, int]:
        """Return a session that holds the lock, and the version then."""
        sessions = self._store._sessions  # noqa: SLF001
        for last in (False, True):
            db = sessions.again(lost)
            try:
                with pipeline(db):
                    db.execute("SELECT pg_advisory_lock(%s, %s)", self._store._lock)  # noqa: SLF001
                    state = db.execute("SELECT version FROM state")
                found = state.fetchone()
                assert found is not None
                return db, int(found[0])
            except BaseException as exc:
                if is_lost(exc, db):
                    sessions.lost(db)
                    if not last:
                        lost = exc
                        continue
                drop(db)
                raise
        raise AssertionError("unreachable")

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            db, self._db, self._owner = self._db, None, 0
            if db is not None:
                roll_back(db)
                try:
                    db.execute("SELECT pg_advisory_unlock(%s, %s)", self._store._lock)  # noqa: SLF001
                except psycopg.Error:
                    drop(db)  # with the session goes the lock
                else:
                    self._store._sessions.give(db)  # noqa: SLF001
        self._mutex.__exit__()

    def read(self, work: Callable[[Session], Found]) -> Found:
        """Do *work* with the session of this section; see `exclusive`."""
        with self._store._translated():  # noqa: SLF001
            while True:
                db = self._session()
                try:
                    return work(db)
                except BaseException as exc:
                    roll_back(db)
                    if not is_lost(exc, db):
                        raise
                    self._lose(exc)

    def write(self, batch: Batch) -> int:
        """Write *batch*; called in the section."""
        mark, store = os.urandom(8).hex(), self._store
        for attempt in range(_TRIES):
            db = self._session()
            before = self._version
            try:
                self._version = apply(db, batch, mark, store._lock, store._sessions.token)  # noqa: SLF001
            except BaseException as exc:
                roll_back(db)
                if is_lost(exc, db):
                    self._lose(exc, mark)
                    if self._version > before:
                        return self._version  # it was committed, and only the answer was lost
                elif not _gets_better(exc) or attempt == _TRIES - 1:
                    raise
                else:
                    time.sleep(0.01 * 2**attempt)
            else:
                return self._version
        raise StoreUnreachable(
            104, f"The session with the server of {self._store.location!r} was lost {_TRIES} times while writing. "
            f"Nothing was written. Try again"
        )  # fmt: skip

    def _session(self) -> Session:
        if self._db is None:
            raise StoreUnreachable(
                104, f"The session with the server of {self._store.location!r} was lost, and others wrote meanwhile. "
                f"What was acknowledged is written, and nothing else. Try again"
            )  # fmt: skip
        return self._db

    def _lose(self, exc: BaseException, mark: str | None = None) -> None:
        """Go on with another session, if nobody wrote but, perhaps, this section what is marked with *mark*.

        The lock is free only once the server has ended the session that was lost: then what was under way is either
        committed, or will never be.
        """
        store, before = self._store, self._version
        lost, self._db = self._db, None
        if lost is not None:
            store._sessions.lost(lost)  # noqa: SLF001
        if not isinstance(exc, psycopg.Error):
            raise exc
        try:
            db, version = self._hold(exc)
        except MemoryGraphError as failed:
            told = (
                "" if mark is None else " Whether the last change was written cannot be told; it is whole, or absent."
            )
            raise StoreUnreachable(
                104, f"The session with the server of {store.location!r} was lost.{told} {failed}"
            ) from exc
        ours = before + 1 if mark is not None and _marked(db, before + 1) == mark else before
        if version != ours:
            with contextlib.suppress(psycopg.Error):
                db.execute("SELECT pg_advisory_unlock(%s, %s)", store._lock)  # noqa: SLF001
            store._sessions.give(db)  # noqa: SLF001
            if ours == before:
                self._session()  # raises: others wrote
            self._version = ours  # acknowledged; what comes next in this section raises
            return
        self._db, self._version = db, version


def _marked(db: Session, version: int) -> str | None:
    found = db.execute("SELECT mark FROM log WHERE version = %s", (version,)).fetchone()
    return None if found is None else str(found[0])


def _gets_better(exc: BaseException) -> bool:
    """Tell whether *exc* says that a transaction should be tried again: serialization failure, deadlock."""
    return isinstance(exc, psycopg.Error) and exc.sqlstate in {"40001", "40P01"}
