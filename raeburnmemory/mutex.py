"""A lock among threads that a fork leaves whole."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Mutex"]

_FORK_WAIT = 10.0  # seconds; a fork that waited longer for a lock goes ahead without


class Mutex:
    """A reentrant lock among threads that is free in a child after a fork, whoever held it in the parent.

    With *over_fork* a fork waits until no other thread holds it, for what must not be copied half done. That is only
    for locks under which nobody waits for another one. `before_fork` is called then, to bring to an end what is open.
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

    def take(self, timeout: float) -> bool:
        """Take it if it becomes free within *timeout* seconds."""
        return self.lock.acquire(timeout=timeout)

    def renew(self) -> None:
        """Become free: the threads that could hold it did not come along."""
        self.lock = threading.RLock()


_mutexes: weakref.WeakSet[Mutex] = weakref.WeakSet()
_fork = threading.local()  # two threads may fork at once: each lets go of what it took itself


def _hold_before_fork() -> None:
    # SQLite's bookkeeping of a transaction in another thread would be copied, and its end would never come.
    taken: list[Mutex] = []
    _fork.taken = taken
    taken.extend(mutex for mutex in list(_mutexes) if mutex.over_fork and mutex.take(_FORK_WAIT))
    for mutex in taken:
        if mutex.before_fork is not None:
            mutex.before_fork()


def _release_in_parent() -> None:
    taken: list[Mutex] = getattr(_fork, "taken", [])
    while taken:
        taken.pop().__exit__()


def _renew_in_child() -> None:
    _fork.taken = []
    for mutex in list(_mutexes):
        mutex.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_before_fork, after_in_parent=_release_in_parent, after_in_child=_renew_in_child)
