"""The sessions of one store with its server: a few that are kept for reading, and one that is written in.

psycopg's own pool was turned down: it keeps threads that make and check sessions in the background, which outlive a
fork and an interpreter's end badly. What is needed here is a list of idle sessions and to know when one was lost.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg import pq
from psycopg.adapt import Dumper, Loader
from psycopg.types.string import TextLoader

from ..errors import GraphClosed, InvalidInput, StoreMissing, StoreUnreachable
from .postgres_schema import POOLED, SEARCH_PATH, SESSION, check_pgvector, is_lost, lock_of, unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from .postgres_url import Address

    Found = TypeVar("Found")

__all__ = ["Session", "Sessions", "VectorBytes", "alone", "drop", "pipeline", "roll_back"]

Session: TypeAlias = psycopg.Connection[Any]

_KEPT = 8  # idle sessions; more threads than that may read at once, and make their own
_PATIENCE = 10.0  # seconds that a statement goes on trying to reach a server that was there a moment ago
_PAUSE = 0.05  # seconds between two tries
_TURN = 2.0  # seconds for which a session may keep another one waiting

_inherited: list[Session] = []  # of a parent process: never to be used or closed in its child


class VectorBytes(bytes):
    """A vector as pgvector sends it: two bytes for its length, two of zeros, then float32, all big-endian."""


class _VectorDumper(Dumper):  # type: ignore[misc,unused-ignore]
    format = pq.Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


class _VectorLoader(Loader):  # type: ignore[misc,unused-ignore]
    format = pq.Format.BINARY

    def load(self, data: Any) -> bytes:
        return bytes(data)


@contextlib.contextmanager
def pipeline(db: Session) -> Any:
    """Send what is executed in the block without waiting for each answer, where the driver can."""
    if psycopg.Pipeline.is_supported():
        with db.pipeline():
            yield
    else:
        yield


@contextlib.contextmanager
def alone(db: Session) -> Iterator[None]:
    """Let settings that are made in the block hold in it alone."""
    if db.info.transaction_status == pq.TransactionStatus.IDLE:
        db.execute("BEGIN READ ONLY")
        yield
        db.execute("COMMIT")
    else:  # in a snapshot: at its end a savepoint forgets what was set since
        db.execute("SAVEPOINT settings")
        yield
        db.execute("ROLLBACK TO settings")
        db.execute("RELEASE settings")


class Sessions:
    """Opens, keeps and closes sessions; safe to share between threads, empty in a child after a fork."""

    def __init__(self, address: Address, timeout: float, *, durability: str) -> None:
        self.address = address
        self._timeout, self._durability = timeout, durability
        self._mutex = threading.Lock()
        self._idle: list[Session] = []
        self._pid = os.getpid()
        self._met = False  # the server was there once
        self.token = os.urandom(8).hex()  # by which our sessions are known from those of others
        self.closed = False

    def connect(self) -> Session:
        """Open a session that is not set up: no store need be there.

        Raises:
            StoreUnreachable: The server does not answer, or lets nobody in.
        """
        seconds = max(2, min(int(self._timeout), 30))
        try:
            return psycopg.connect(
                self.address.conninfo,
                autocommit=True,
                client_encoding="utf8",
                connect_timeout=seconds,
                fallback_application_name=f"raeburnmemory {socket.gethostname()}:{os.getpid()}"[:63],
            )
        except psycopg.Error as exc:
            raise unreachable(exc, self.address) from None  # which may repeat what it was given

    def set_up(self, db: Session) -> None:
        """Make a session ready for the statements of a store, in one journey."""
        milliseconds = max(1, min(int(self._timeout * 1000), 2**31 - 1))
        found = db.execute(
            "SELECT (SELECT t.oid FROM pg_type t JOIN pg_extension e ON e.extnamespace = t.typnamespace "
            "WHERE e.extname = 'vector' AND t.typname = 'vector'), "
            "(SELECT extversion FROM pg_extension WHERE extname = 'vector'), "
            f"pg_backend_pid(), set_config('{SESSION}', %s, false), "
            f"set_config('search_path', {SEARCH_PATH}, false), set_config('lock_timeout', %s, false), "
            "set_config('jit', 'off', false), set_config('default_transaction_isolation', 'read committed', false), "
            "set_config('synchronous_commit', CASE WHEN %s THEN 'off' WHEN current_setting('synchronous_commit') = "
            "'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)",
            (self.token, self.address.schema, f"{milliseconds}ms", self._durability == "process"),
        ).fetchone()
        if found is None or found[0] is None:
            raise StoreMissing(2, f"There is no memory in {self.address.shown!r}: it has no pgvector. Check the URL")
        if found[2] != db.info.backend_pid and not self._met:  # somebody stands between
            self._expect_own(db)
        check_pgvector(found[1], self.address)
        db.adapters.register_dumper(VectorBytes, type("VectorDumper", (_VectorDumper,), {"oid": found[0]}))
        db.adapters.register_loader(found[0], _VectorLoader)
        db.adapters.register_loader("json", TextLoader)
        self._met = True

    def _expect_own(self, db: Session) -> None:
        """See that whoever stands between us and the server keeps the session *db* for us.

        Another one says something that only *db* hears if both are one. Where it has to wait for its turn, it is not.

        Raises:
            InvalidInput: They are.
        """
        other = self.connect()
        try:
            other.pgconn.send_query(f"SET {SESSION} = 'other'".encode())
            with selectors.DefaultSelector() as selector:
                selector.register(other.pgconn.socket, selectors.EVENT_READ)
                selector.select(_TURN)
            heard = db.execute(f"SELECT current_setting('{SESSION}', true)").fetchone()
        finally:
            other.pgconn.finish()
        if heard != (self.token,):
            db.execute("RESET ALL")  # whoever has it next is not to look for tables in our schema
            raise InvalidInput(POOLED)

    def take(self) -> Session:
        """Return a session for the calling thread alone; give it back with `give`."""
        with self._mutex:
            if self.closed:
                raise GraphClosed(f"The memory {self.address.shown!r} was closed. Open it again.")
            if os.getpid() != self._pid:
                _inherited.extend(self._idle)
                self._idle, self._pid = [], os.getpid()
            if self._idle:
                return self._idle.pop()
        db = self.connect()
        try:
            self.set_up(db)
        except BaseException as exc:
            db.close()
            if is_lost(exc, db):
                raise unreachable(exc, self.address) from None
            raise
        return db

    def give(self, db: Session) -> None:
        """Take a session back, and keep it if it is as it was."""
        usable = not db.closed and db.info.transaction_status == pq.TransactionStatus.IDLE
        if usable:
            with self._mutex:
                if not self.closed and len(self._idle) < _KEPT and os.getpid() == self._pid:
                    self._idle.append(db)
                    return
        drop(db)

    def lost(self, db: Session) -> None:
        """Throw a session away, and with it the idle ones: what took one took them all, most likely."""
        with self._mutex:
            idle, self._idle = self._idle, []
        for each in (db, *idle):
            drop(each)

    def again(self, first_failure: BaseException | None = None) -> Session:
        """Return a session with a server that was there before, and may be starting again just now.

        Raises:
            StoreUnreachable: It did not come back in time.
        """
        until = time.monotonic() + (min(self._timeout, _PATIENCE) if self._met else 0)
        while True:
            try:
                return self.take()
            except StoreUnreachable as exc:
                if time.monotonic() > until:
                    raise exc from first_failure
            time.sleep(_PAUSE)

    def read(self, work: Callable[[Session], Found], translate: Callable[[BaseException], BaseException]) -> Found:
        """Do *work*, which only reads, with a session, and once more with another if that one was lost."""
        db, found = self.read_and_keep(work, translate)
        self.give(db)
        return found

    def read_and_keep(
        self, work: Callable[[Session], Found], translate: Callable[[BaseException], BaseException]
    ) -> tuple[Session, Found]:
        """Do likewise, and return the session too, which is to be given back."""
        lost: BaseException | None = None
        for last in (False, False, True):
            db = self.again(lost)
            try:
                found = work(db)
            except BaseException as exc:  # noqa: BLE001 - raised again, in our words
                if isinstance(exc, psycopg.Error) and is_lost(exc, db):
                    self.lost(db)
                    lost = exc
                    if not last:
                        continue
                else:
                    roll_back(db)
                    self.give(db)
                    if isinstance(exc, psycopg.errors.UndefinedTable) and not last:
                        continue  # it was there when this began: somebody made the store anew
                raise translate(exc) from (exc if isinstance(exc, Exception) else None)
            return db, found
        raise AssertionError("unreachable")

    def holder(self) -> str:
        """Say who holds the lock of the store, as far as the server tells."""
        try:
            with contextlib.closing(self.connect()) as db:
                found = db.execute(
                    "SELECT a.application_name, a.client_addr::text, a.pid FROM pg_locks l JOIN pg_stat_activity a "
                    "USING (pid) WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid::bigint "
                    "= %s AND l.objid::bigint = %s AND l.database = (SELECT oid FROM pg_database WHERE datname = "
                    "current_database())",
                    (lock_of(self.address.schema)[0], lock_of(self.address.schema)[1] & 0xFFFF_FFFF),
                ).fetchone()
        except (psycopg.Error, OSError):
            return ""
        if found is None:
            return ""
        name, host, pid = found
        return f"{name or 'another program'}{f' at {host}' if host else ''} (session {pid} of the server)"

    def close(self) -> None:
        """Close the idle sessions; those in use go when they are given back."""
        with self._mutex:
            idle, self._idle = self._idle, []
            self.closed = True
            if os.getpid() != self._pid:
                _inherited.extend(idle)
                return
        for db in idle:
            drop(db)


def roll_back(db: Session) -> None:
    """End a transaction that failed, if the session is still there."""
    with contextlib.suppress(psycopg.Error):
        if not db.closed and db.info.transaction_status != pq.TransactionStatus.IDLE:
            db.execute("ROLLBACK")


def drop(db: Session) -> None:
    """Close a session, whatever state it is in."""
    with contextlib.suppress(psycopg.Error):
        db.close()
