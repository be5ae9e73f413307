"""How a PostgreSQL store forgets for good: rows deleted, tables written anew, and a look at what the server keeps."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import psycopg

from ..errors import LockTimeout
from .contract import ERASING, Erased
from .postgres_batch import sets_of
from .postgres_schema import NAMES, escaped, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .postgres_sessions import Session

__all__ = ["erase"]

_PAUSE = 0.05  # seconds between two looks at whether somebody still reads


def erase(db: Session, location: str, mark: dict[str, Any], lock: tuple[int, int], patience: float) -> Erased:
    """Remove what *mark* names, rewrite all tables without it, and say what may still hold it.

    The session holds the lock of the store. *patience* is in seconds.

    Raises:
        LockTimeout: Somebody goes on reading what was there before.
    """
    since = _remove(db, mark, lock)
    mine = [name for name in NAMES if _is_mine(db, name)]
    until = time.monotonic() + patience
    while mine:
        # A row that some open transaction could still see would be copied along. Writing out a table of a few rows
        # tells how far back those transactions reach: its oldest row number moves up to the oldest of them.
        db.execute("VACUUM (FREEZE) state")
        if _is_behind(db, "state", since):
            break
        if time.monotonic() > until:
            raise _held(location, patience)
        time.sleep(_PAUSE)
    with _waiting(db, patience):
        for name in mine:
            db.execute(f"VACUUM (FULL, FREEZE, ANALYZE) {name}")
    left = [f"{location} ({name}, which another user owns)" for name in NAMES if name not in mine]
    left += [
        f"{location} ({name}, because somebody reads what was there before)"
        for name in mine
        if not _is_behind(db, name, since)
    ]
    left += _kept_elsewhere(db, location)
    if not any(name in line for name in NAMES for line in left):
        _set(db, None)
    return Erased((location,), (), tuple(left))


@contextlib.contextmanager
def _waiting(db: Session, patience: float) -> Iterator[None]:
    """Wait for the locks of readers as long as that in the block."""
    found = db.execute("SELECT current_setting('lock_timeout')").fetchone()
    db.execute("SELECT set_config('lock_timeout', %s, false)", (f"{max(1, int(patience * 1000))}ms",))
    try:
        yield
    finally:
        with contextlib.suppress(psycopg.Error):  # of a session that is lost
            db.execute("SELECT set_config('lock_timeout', %s, false)", found)


def _remove(db: Session, mark: dict[str, Any], lock: tuple[int, int]) -> int:
    """Delete the rows in one transaction, and return its number."""
    keys = [key_of(namespace, node_id) for namespace, node_id in mark["nodes"]]
    db.execute("BEGIN")
    db.execute("SELECT pg_advisory_xact_lock(%s, %s)", lock)
    rows = [row for (row,) in db.execute('SELECT "row" FROM nodes WHERE key = ANY(%s::uuid[])', (keys,))]
    db.execute("DELETE FROM edges WHERE source = ANY(%s::bigint[]) OR target = ANY(%s::bigint[])", (rows, rows))
    for table in ("vectors", "history", "nodes"):
        db.execute(f'DELETE FROM {table} WHERE "row" = ANY(%s::bigint[])', (rows,))
    # Two versions on, with nothing in between: whoever asks what changed has to read everything again.
    found = db.execute("UPDATE state SET version = version + 2 RETURNING version").fetchone()
    assert found is not None
    db.execute("DELETE FROM log")
    db.execute("INSERT INTO log VALUES (%s, md5(random()::text), '{}')", found)
    for each in sets_of(db).values():
        db.execute("UPDATE sets SET reset_at = %s WHERE number = %s", (found[0], each.number))
    _set(db, {"nodes": [], "backups": mark["backups"]})
    number = db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    db.execute("COMMIT")
    assert number is not None
    return int(number[0])


def _set(db: Session, mark: Any) -> None:
    if mark is None:
        db.execute("DELETE FROM meta WHERE key = %s", (escaped(ERASING),))
    else:
        db.execute(
            "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (escaped(ERASING), json.dumps(mark)),
        )


def _is_mine(db: Session, table: str) -> bool:
    """Tell whether this user may rewrite a table; VACUUM itself would only warn and go on."""
    found = db.execute(
        "SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = to_regclass(%s)", (table,)
    ).fetchone()
    return bool(found and found[0])


def _is_behind(db: Session, table: str, since: int) -> bool:
    """Tell whether transaction *since* lies behind everybody who could be reading, once *table* was frozen."""
    found = db.execute(
        "SELECT relfrozenxid::text::bigint FROM pg_class WHERE oid = to_regclass(%s)", (table,)
    ).fetchone()
    assert found is not None
    return 0 < (int(found[0]) - since) % (1 << 32) < 1 << 31  # numbers of transactions go round


def _kept_elsewhere(db: Session, location: str) -> list[str]:
    """Name the logs of the server that outlive its own use for them."""
    left = []
    archive = db.execute("SELECT current_setting('archive_mode')").fetchone()
    if archive is not None and archive[0] != "off":
        left.append(f"{location} (the server's archived logs)")
    for name, plugin in db.execute("SELECT slot_name, plugin FROM pg_replication_slots WHERE NOT active"):
        left.append(f"{location} (the log kept for the replication slot {name!r}{' of ' + plugin if plugin else ''})")
    return left


def _held(location: str, patience: float) -> LockTimeout:
    return LockTimeout(
        f"{location!r} is being read by somebody who began before and did not let go for {patience:g} s. What was to "
        f"be forgotten is gone from the memory, but still stands in its tables until that transaction ends. End it "
        f"(SELECT * FROM pg_stat_activity WHERE backend_xmin IS NOT NULL), or pass a larger timeout=, and forget again."
    )
