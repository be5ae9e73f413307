"""Group commit: what threads of one process change at about the same time shares one sync.

A thread changes something in a *section*, between entering and leaving the store's lock. What it wrote there is not
synced yet when it leaves: if others of its process wait for the lock, it goes to the next of them, and the last one
syncs for all (DeWitt and others, "Implementation techniques for main memory database systems", 1984, section 5.2).
Each waits at the end of its section until its own changes are on disk.

Nobody else sees them before: whoever reads syncs them first, and then need not wait for anybody. So a thread that is
held up in its section, by a lock that a reader holds perhaps, holds up nobody.

A sync that fails fails for all that shared it. The store is then as it was before, and a section that has read what
is gone now fails, too.
"""

from __future__ import annotations

import copy
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Protocol

from ..errors import LockTimeout, StoreWriteFailed

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from ..lock import StoreLock
    from ..mutex import Mutex

__all__ = ["Section", "refuse_within_a_call", "runs"]

_IMPATIENCE = 0.005  # seconds that a thread lets others add to what it waits for


class _Group:
    """Changes that share one sync."""

    __slots__ = ("bells", "error", "settled")

    def __init__(self) -> None:
        self.settled = False
        self.error: Exception | None = None
        self.bells: list[threading.Lock] = []


class _Committing(Protocol):
    """What a store does for its sections; the mutex is held, where nothing else is said."""

    def _begin_section(self) -> None:
        """Become current."""

    def _after_section(self) -> None:
        """Tidy up; the lock is free, and the mutex too."""

    def _sync_pending(self) -> None:
        """Bring to disk what was written since the last time; if that fails, be as before all of it, and raise.

        Do nothing where that is done already, and only the note of it was interrupted.
        """

    def _start_anew(self) -> None:
        """Go by what is on disk alone: an interruption fell between two steps that belong together."""


class Section:
    """What `exclusive()` gives: one per store, reentrant, and one thread's at a time."""

    def __init__(self, store: _Committing, mutex: Mutex) -> None:
        self._store = store
        self._mutex = mutex
        self._owner = 0
        self._again = 0  # how often the owner has entered it once more
        self._moving: dict[int, FrameType] = {}  # by threads: their calls that are about to enter or to leave
        self._frame: FrameType | None = None  # of the function that entered it, if that cannot end without leaving
        self.pending: _Group | None = None  # changes that wait for their sync
        self._seen: _Group | None = None  # what was waiting when this section began
        self._wrote: _Group | None = None  # the last that this section added to
        self.lock: StoreLock

    @property
    def mine(self) -> bool:
        """Whether this thread is in it."""
        return self._owner == threading.get_ident()

    @property
    def busy(self) -> bool:
        """Whether some thread of this process is in it."""
        return self._owner != 0

    def renew(self) -> None:
        """Forget what a parent process was doing."""
        self._owner, self._again, self.pending, self._seen, self._wrote = 0, 0, None, None, None
        self._frame, self._moving = None, {}

    def __enter__(self) -> None:
        frame, me = sys._getframe(1), threading.get_ident()  # noqa: SLF001 - nothing else tells which function this is
        if self._mutex.mine or me in self._moving:
            refuse_within_a_call(frame, self._moving.get(me))
        if self._owner == me and (self._frame is None or runs(self._frame, frame)):
            self._again += 1
        else:
            self._enter(me, frame)

    def _enter(self, me: int, frame: FrameType) -> None:
        if self._owner == me:  # Ctrl-C came before the first line of `__exit__` could catch it
            self._again = 0
            self._give_back(0)
        before = self.lock.own
        if before:
            refuse_within_a_call(frame)
        try:
            self._moving[me] = sys._getframe()  # noqa: SLF001
            if self.lock.enter() == 1:
                with self._mutex.lock:
                    self._owner, self._frame = me, frame if _leaves(frame) else None
                    self._seen, self._wrote = self.pending, None
                    self._store._begin_section()  # noqa: SLF001
            del self._moving[me]
        except BaseException:
            self._give_back(before)
            self._moving.pop(me, None)
            raise

    def _give_back(self, depth: int) -> None:
        if not depth and self._owner == threading.get_ident():
            self._owner, self._frame, self._seen, self._wrote = 0, None, None, None
        self.lock.go_back(depth)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._again:
            self._again -= 1
            return
        try:
            groups: tuple[_Group | None, ...] = ()
            me = threading.get_ident()
            self._moving[me] = sys._getframe()  # noqa: SLF001
            if self._owner == me:  # else it had the lock when it entered, and goes on having it
                groups, self._owner, self._frame = (self._seen, self._wrote), 0, None
                self._seen = self._wrote = None
            self.lock.leave()
            del self._moving[me]
        except BaseException:  # KeyboardInterrupt may come at any line
            self._give_back(max(self.lock.own - 1, 0))
            self._moving.pop(threading.get_ident(), None)
            raise
        if not groups or (kind is not None and not issubclass(kind, Exception)):
            return  # Ctrl-C is not to wait, and nothing is to hide it
        for group in groups:
            if group is not None:
                if not group.settled:
                    self._wait(group)
                if group.error is not None:
                    _see(group)
        if kind is None:
            self._store._after_section()  # noqa: SLF001

    def may_write(self) -> None:
        """Refuse to go on after a sync failed: this section has read, or written, what is not there any more."""
        for group in (self._seen, self._wrote):
            if group is not None and group.error is not None:
                _see(group)

    def wrote(self) -> None:
        """Note that something waits to be synced; the mutex is held."""
        if self.pending is None:
            self.pending = _Group()
        self._wrote = self.pending

    def settle(self) -> None:
        """Sync what waits for it. Those who wrote it learn whether it failed, at the end of their sections."""
        with self._mutex.lock:
            group = self.pending
            if group is None:
                return
            try:
                self._store._sync_pending()  # noqa: SLF001
            except Exception as exc:  # noqa: BLE001 - it is theirs who wrote, and is raised there
                group.error = exc
            except BaseException:
                group.error = StoreWriteFailed(4, "Interrupted before it was on disk. Try again")
                self._store._start_anew()  # noqa: SLF001
                raise
            finally:
                self._close(group)

    def interrupted(self) -> None:
        """Start anew after an interruption within a write; the mutex is held."""
        self._store._start_anew()  # noqa: SLF001
        self.fail(StoreWriteFailed(4, "Interrupted before it was on disk. Try again"))

    def sync(self) -> None:
        """Go on in this section only once what it wrote and read is on disk."""
        self.settle()
        self.may_write()

    def fail(self, error: Exception) -> None:
        """Let those fail whose changes went with what just failed; the mutex is held."""
        if self.pending is not None:
            self.pending.error = error
            self._close(self.pending)

    def _close(self, group: _Group) -> None:
        if group.settled:
            return
        self.pending, group.settled = None, True
        for bell in group.bells:
            bell.release()

    def _wait(self, group: _Group) -> None:
        """Wait until others have synced what this thread wrote, too, or do it."""
        bell = threading.Lock()
        bell.acquire()
        with self._mutex.lock:
            if group.settled:
                return
            group.bells.append(bell)
        if not bell.acquire(timeout=_IMPATIENCE):
            self.settle()


def refuse_within_a_call(frame: FrameType | None, moving: FrameType | None = None) -> None:
    """Refuse a change that begins, in *frame*, in the middle of another call of the same thread to a store.

    A signal handler may come at any line, and so may a destructor. Locks that are reentrant, as they have to be, would
    let it in to what is half changed. Asked where this thread holds one: a snapshot holds it, too, and no function of a
    store runs there. *moving* is a call that took the lock on the files, or gave it back; it may have been interrupted.
    """
    if moving is None or not runs(moving, frame):
        while frame is not None and _of_a_store(frame):  # what is called now
            frame = frame.f_back
        while frame is not None and not _of_a_store(frame):
            frame = frame.f_back
        if frame is None:
            return
    raise LockTimeout(
        "This thread is in the middle of another call to the same memory, which a signal handler or a destructor has "
        "interrupted. Nothing was changed. Let the handler only note what came, and write after the call, or in "
        "another thread."
    )


_PACKAGE = __name__.partition(".")[0] + "."
_STORES = __name__.rpartition(".")[0] + "."
_SUSPENDED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def _leaves(frame: FrameType) -> bool:
    """Tell whether the function leaves what it enters before it ends, as those do here that can not be suspended."""
    return frame.f_globals.get("__name__", "").startswith(_PACKAGE) and not frame.f_code.co_flags & _SUSPENDED


def _of_a_store(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").startswith(_STORES)  # type: ignore[no-any-return]


def runs(wanted: FrameType | None, frame: FrameType | None) -> bool:
    """Tell whether the call of *wanted* is *frame*, or one of those that led to it."""
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is not None


def _see(group: _Group) -> None:
    error = group.error
    if error is not None:
        group.error = copy.copy(error)  # for the next thread: each raises one of its own
        group.error.__cause__ = error.__cause__
        raise error
