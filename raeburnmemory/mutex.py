"""What a fork leaves whole: locks among threads, and things that must not come along with it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FORK_WAIT", "Loans", "Mutex", "immortal"]

FORK_WAIT = 10.0  # seconds; a fork that waited longer goes ahead without
_PATIENCE = 0.05  # seconds at a time that it waits for one lock while it holds others
_GLANCE = 0.002  # and seconds in which it holds none, before it tries again


class Mutex:
    """A reentrant lock among threads that is free in a child after a fork, whoever held it in the parent.

    With *over_fork* a fork waits until no other thread holds it, for what must not be copied half done. `before_fork`
    is called then, to bring to an end what is open.
    """

    def __init__(self, *, over_fork: bool = False) -> None:
        self.lock = threading.RLock()  # `with mutex.lock` is `with mutex`, without two calls, for who does it often
        self.over_fork = over_fork
        self.before_fork: Callable[[], None] | None = None
        _mutexes.add(self)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    @property
    def mine(self) -> bool:
        """Whether this thread holds it."""
        return self.lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 - Condition asks so, too

    def take(self, timeout: float) -> bool:
        """Take it if it becomes free within *timeout* seconds."""
        return self.lock.acquire(timeout=timeout)

    def renew(self) -> None:
        """Become free: the threads that could hold it did not come along."""
        self.lock = threading.RLock()


class Loans:
    """Things that must not come along with a fork: it waits until all that were added are given back.

    What came along all the same is in `inherited`, for good: it is never to be used, and as little to be freed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: weakref.WeakSet[Any] = weakref.WeakSet()
        self._kept: weakref.WeakSet[Any] = weakref.WeakSet()
        self.inherited: list[Any] = []
        _loans.append(self)

    def add(self, thing: Any) -> None:
        """Note *thing*, which is about to be made, and wait while a fork is under way."""
        with self._lock:
            self._things.add(thing)

    def give_back(self, thing: Any) -> None:
        """Note that *thing* has come to its end."""
        self._things.discard(thing)

    def keep(self, thing: Any) -> None:
        """Let the next fork not wait for *thing*: the thread that forks is in the middle of using it itself."""
        self._kept.add(thing)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._things))

    def rest(self, *, anyhow: bool) -> bool:
        """Let nothing be added until `go_on`, and return True, if all is given back, or *anyhow*."""
        self._lock.acquire()
        if anyhow or self._things <= self._kept:
            return True
        self._lock.release()
        return False

    def go_on(self) -> None:
        """Let things be added again."""
        self._kept.clear()
        self._lock.release()

    def renew(self) -> None:
        """Begin anew in a child."""
        self._lock = threading.Lock()
        self.inherited += map(immortal, self._things)
        self._things, self._kept = weakref.WeakSet(), weakref.WeakSet()


def immortal(thing: Any) -> Any:
    """Return *thing*, which is never freed from now on, not even when the interpreter ends."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


_mutexes: weakref.WeakSet[Mutex] = weakref.WeakSet()
_loans: list[Loans] = []
_fork = threading.local()  # two threads may fork at once: each lets go of what it took itself


def _hold_before_fork() -> None:
    # What SQLite keeps of a transaction in another thread would be copied, and its end would never come.
    taken: list[Mutex | Loans] = []
    _fork.taken = taken
    end = time.monotonic() + FORK_WAIT
    while not _at_rest(taken, anyhow=time.monotonic() >= end):
        _release_in_parent()  # who holds one thing may need another to come to its end
        time.sleep(_GLANCE)


def _at_rest(taken: list[Mutex | Loans], *, anyhow: bool) -> bool:
    """Take what a fork waits for, as long as others have none of it, or *anyhow* what can be had."""
    mutexes = []
    for mutex in list(_mutexes):
        if mutex.over_fork and mutex.take(_PATIENCE):
            taken.append(mutex)
            mutexes.append(mutex)
        elif mutex.over_fork and not anyhow:
            return False
    for mutex in mutexes:
        if mutex.before_fork is not None:
            mutex.before_fork()
    for loans in _loans:  # last: who holds a mutex may be about to add something
        if not loans.rest(anyhow=anyhow):
            return False
        taken.append(loans)
    return True


def _release_in_parent() -> None:
    taken: list[Mutex | Loans] = getattr(_fork, "taken", [])
    while taken:
        one = taken.pop()
        if isinstance(one, Loans):
            one.go_on()
        else:
            one.__exit__()


def _renew_in_child() -> None:
    _fork.taken = []
    for mutex in list(_mutexes):
        mutex.renew()
    for loans in _loans:
        loans.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_before_fork, after_in_parent=_release_in_parent, after_in_child=_renew_in_child)
