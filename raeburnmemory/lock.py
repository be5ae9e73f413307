"""The lock around every write: one holder at a time, among the threads and processes of one host.

A turnstile: whoever wants in takes the *gate*, then the *main* lock, and lets go of the gate. The next in line
already holds the gate while the present holder writes, so that a tight loop of one process cannot starve another.

Who came through the gate may take the main lock again without it for some milliseconds, and the next in line gives it
that time: who writes right after another process has to read again what that wrote, which takes longer than the write.
Two processes that write in a loop so take turns of several writes each.

The locks themselves are those of `file_lock`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from .errors import LockTimeout
from .file_lock import file_lock, owner_of
from .mutex import Mutex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Mutex", "StoreLock", "owner_of"]

_TENURE = 0.004  # seconds for which a process may write again and again while another one waits
_PAUSE = 0.0001  # seconds after which that one looks for the first time whether the lock is free
_PASSES = 64  # threads of one process that may come after one another before another process gets in
_PASSING = 0.02  # seconds; likewise


def _rest(seconds: float) -> None:
    """Wait a moment. `time.sleep` fails where libfaketime sets the clock meanwhile."""
    nobody = threading.Lock()  # a new one: a fork in another thread must not copy one that is in use
    nobody.acquire()
    nobody.acquire(timeout=seconds)


class StoreLock:
    """A reentrant lock on the store at *path*, kept in `<path>.lock` and `<path>.lock.gate`.

    *timeout* is in seconds and covers the whole wait. The lock is the thread's: another thread of the same
    process waits like another process. After a fork, make a new one: a child would share its parent's lock.

    With *settle* it may go from one thread of this process to the next without being free in between: *settle* is
    called in the last of them, before other processes get in. So what several threads did can be synced at once.

    *follow* is called now and then while another process holds it, to take in what that writes: that need not be done
    inside the lock then.
    """

    def __init__(
        self,
        path: Path,
        timeout: float,
        settle: Callable[[], None] | None = None,
        follow: Callable[[], None] | None = None,
    ) -> None:
        self.timeout = timeout
        self._name = path.name
        self._turn = _Turn()
        self._settle = settle
        self._follow = follow
        self._taken = False  # this process holds the main lock
        self._passed, self._since = 0, 0.0
        self._stays = 0.0  # until when this process may take the main lock without the gate
        self._main = file_lock(path.with_name(path.name + ".lock"))
        self._gate = file_lock(path.with_name(path.name + ".lock.gate"))

    @contextlib.contextmanager
    def __call__(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock for the length of the block.

        Raises:
            LockTimeout: It stayed taken for *timeout* seconds (default: the lock's own).
        """
        before = self.own
        try:
            self.enter(timeout)
            yield
        finally:
            self.go_back(before)

    def enter(self, timeout: float | None = None) -> int:
        """Take the lock, as `with` does; return how often this thread has it now.

        Raises:
            LockTimeout: It stayed taken for *timeout* seconds (default: the lock's own).
        """
        if self._turn.mine:
            self._turn.depth += 1
            return self._turn.depth
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        try:
            if not self._turn.take(limit):
                raise LockTimeout(
                    f"{self._name!r} is held by another thread of this process (pid {os.getpid()}), which did not "
                    f"let go for {limit:g} s. Wait, or pass a larger timeout=."
                )
            if not self._taken:
                self._take(deadline, limit)
        except BaseException:
            self.go_back(0)
            raise
        return 1

    def leave(self) -> None:
        """Give back what `enter` took."""
        if self._turn.depth > 1:
            self._turn.depth -= 1
        else:
            self._let_go()

    def go_back(self, depth: int) -> None:
        """Let this thread have it as often as it had before, if it still has it: after an interruption, for one."""
        if self._turn.mine:
            if depth:
                self._turn.depth = depth
            else:
                self._let_go()

    def _let_go(self) -> None:
        settle = self._settle if self._taken else None
        try:
            if settle is not None:
                if self._turn.line and self._may_pass_on() and self._turn.pass_on():
                    return
                settle()
            self._free()
        except BaseException as exc:  # KeyboardInterrupt may come at any line; what was done does nothing again
            if self._turn.mine:
                try:
                    if settle is not None and not isinstance(exc, Exception):
                        settle()
                finally:
                    self._free()
            raise

    def _free(self) -> None:
        try:
            if self._taken:
                self._main.release()
        finally:
            self._taken = False
            self._turn.give_back()

    def _may_pass_on(self) -> bool:
        self._passed += 1
        return self._passed < _PASSES and time.monotonic() - self._since < _PASSING

    @property
    def depth(self) -> int:
        """How often the thread whose turn it is has taken it."""
        return self._turn.depth

    @property
    def own(self) -> int:
        """How often this thread has it."""
        return self._turn.depth if self._turn.mine else 0

    @property
    def held(self) -> bool:
        """Whether somebody in this process holds it, which inside the lock means: this thread."""
        return self._turn.depth > 0

    def holder(self) -> int:
        """Return the number of the process that has it or had it last, as far as that is known, else 0."""
        return int(self._main.holder() or 0)

    def close(self) -> None:
        """Give back the file descriptors."""
        self._main.close()
        self._gate.close()

    def _take(self, deadline: float, limit: float) -> None:
        try:
            now = time.monotonic()
            if now < self._stays and self._main.acquire(0.0):
                self._taken, self._since = True, now
            else:
                self._come_in(deadline, limit)
                self._since = time.monotonic()
            self._main.sign()
            self._passed = 0
        except BaseException:
            if not self._taken:  # interrupted just after it was taken, perhaps
                with contextlib.suppress(OSError):  # what the error is about, where nothing can be locked
                    self._main.release()
            raise

    def _come_in(self, deadline: float, limit: float) -> None:
        try:
            if not self._gate.acquire(deadline):
                raise self._timed_out(limit)
            if not self._wait(deadline):
                raise self._timed_out(limit)
            self._taken = True
            self._stays = time.monotonic() + _TENURE
            self._gate.release()
        except BaseException:
            with contextlib.suppress(OSError):
                self._gate.release()
            raise

    def _wait(self, deadline: float) -> bool:
        """Take the main lock, after its holder had time for some more writes."""
        pause, until = _PAUSE, min(time.monotonic() + _TENURE, deadline)
        while time.monotonic() + pause < until:
            if self._main.acquire(0.0):
                return True
            _rest(pause)
            pause *= 2
            if self._follow is not None:
                self._follow()
        return self._main.acquire(deadline)

    def _timed_out(self, limit: float) -> LockTimeout:
        holder = self._main.holder()
        who = f"process {holder}" if holder else "another process"
        return LockTimeout(
            f"{self._name!r} is locked by {who}, which did not let go for {limit:g} s. "
            f"Wait, end that process, or pass a larger timeout=. The lock is {self._main.path}."
        )


class _Turn:
    """Whose turn it is among the threads of this process: first come, first served, and reentrant.

    Not `threading.RLock`, which goes to whoever is quickest, and cannot be handed to somebody who is known to wait.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._owner = 0
        self._guard = threading.Lock()
        self.line: collections.deque[tuple[int, threading.Lock]] = collections.deque()  # who waits

    @property
    def mine(self) -> bool:
        """Whether it is the turn of this thread."""
        return self._owner == threading.get_ident()

    def take(self, timeout: float) -> bool:
        """Wait for it, at most *timeout* seconds."""
        me = threading.get_ident()
        with self._guard:
            if not self._owner:
                self._owner, self.depth = me, 1
                return True
        bell = threading.Lock()
        bell.acquire()
        try:
            with self._guard:
                if not self._owner:
                    self._owner, self.depth = me, 1
                    return True
                self.line.append((me, bell))
            return bell.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX)) or not self._gave_up(bell)
        except BaseException:
            self._gave_up(bell)  # if it is this thread's turn by now, whoever catches this sees to it
            raise

    def _gave_up(self, bell: threading.Lock) -> bool:
        """Leave the line; False if it was this thread's turn a moment before."""
        with self._guard:
            for entry in self.line:
                if entry[1] is bell:
                    self.line.remove(entry)
                    return True
        return False

    def pass_on(self) -> bool:
        """Give it to the next in the line, if anybody waits."""
        with self._guard:
            if not self.line:
                return False
            self._next()
            return True

    def give_back(self) -> None:
        """Give it to the next in the line, or to nobody."""
        with self._guard:
            if self.line:
                self._next()
            else:
                self._owner = self.depth = 0

    def _next(self) -> None:
        # No call before the bell rings: after one KeyboardInterrupt may come, and nobody would know whose turn it is.
        self._owner, bell = self.line[0]
        self.depth = 1
        del self.line[0]
        bell.release()
