"""The lock around every write: one holder at a time, among the threads and processes of one host.

A turnstile: whoever wants in takes the *gate*, then the *main* lock, and lets go of the gate. The next in line
already holds the gate while the present holder writes, so that a tight loop of one process cannot starve another.

Who came through the gate may take the main lock again without it for some milliseconds, and the next in line gives it
that time: who writes right after another process has to read again what that wrote, which takes longer than the write.
Two processes that write in a loop so take turns of several writes each.

`fcntl.flock` where it exists. Elsewhere `filelock`, or `msvcrt` alone when that is not installed; these poll. The
lock belongs to the kernel and is freed when its holder dies; the files stay, because deleting a lock file lets
two processes hold two locks of one name.
"""

from __future__ import annotations

import collections
import contextlib
import os
import stat
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from ._optional import installed
from .errors import LockTimeout, StoreWriteFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

try:
    import fcntl as _fcntl
except ImportError:  # not a POSIX system
    fcntl: Any = None
else:
    fcntl = _fcntl

__all__ = ["Mutex", "StoreLock", "owner_of"]

_POLL = 0.001  # seconds between two tries where the system cannot wake us
_STAY = 1.0  # seconds that a thread that has waited stays in case somebody has to wait again
_TENURE = 0.004  # seconds for which a process may write again and again while another one waits
_PAUSE = 0.0001  # seconds after which that one looks for the first time whether the lock is free
_PASSES = 64  # threads of one process that may come after one another before another process gets in
_PASSING = 0.02  # seconds; likewise


def _rest(seconds: float) -> None:
    """Wait a moment. `time.sleep` fails where libfaketime sets the clock meanwhile."""
    nobody = threading.Lock()  # a new one: a fork in another thread must not copy one that is in use
    nobody.acquire()
    nobody.acquire(timeout=seconds)


def owner_of(path: str) -> str:
    """Say, in a sentence for an error message, who owns *path*, or else its folder, and what the mode allows."""
    for name in (path, os.path.dirname(path)):
        with contextlib.suppress(OSError):
            found = os.stat(name)
            return f" {name!r} belongs to user {found.st_uid} and has the mode {stat.S_IMODE(found.st_mode):04o}."
    return ""


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
        self._main = _file_lock(path.with_name(path.name + ".lock"))
        self._gate = _file_lock(path.with_name(path.name + ".lock.gate"))

    @contextlib.contextmanager
    def __call__(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock for the length of the block.

        Raises:
            LockTimeout: It stayed taken for *timeout* seconds (default: the lock's own).
        """
        self.enter(timeout)
        try:
            yield
        finally:
            self.leave()

    def enter(self, timeout: float | None = None) -> int:
        """Take the lock, as `with` does; return how often this thread has it now.

        Raises:
            LockTimeout: It stayed taken for *timeout* seconds (default: the lock's own).
        """
        if self._turn.again():
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
            if self._turn.mine:
                self.leave()
            raise
        return 1

    def leave(self) -> None:
        """Give back what `enter` took."""
        if self._turn.depth > 1:
            self._turn.depth -= 1
            return
        settle = self._settle if self._taken else None
        if settle is not None and self._turn.line and self._may_pass_on() and self._turn.pass_on():
            return
        try:
            if settle is not None:
                settle()
        finally:
            if self._taken:
                self._taken = False
                self._main.release()
            self._turn.give_back()

    def _may_pass_on(self) -> bool:
        self._passed += 1
        return self._passed < _PASSES and time.monotonic() - self._since < _PASSING

    @property
    def depth(self) -> int:
        """How often the thread whose turn it is has taken it."""
        return self._turn.depth

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
        now = time.monotonic()
        if now < self._stays and self._main.acquire(0.0):
            self._taken, self._since = True, now
        else:
            self._come_in(deadline, limit)
            self._since = time.monotonic()
        self._main.sign()
        self._passed = 0

    def _come_in(self, deadline: float, limit: float) -> None:
        if not self._gate.acquire(deadline):
            raise self._timed_out(limit)
        try:
            if not self._wait(deadline):
                raise self._timed_out(limit)
            self._taken = True
            self._stays = time.monotonic() + _TENURE
        finally:
            self._gate.release()

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

    def again(self) -> bool:
        """Take it once more if this thread has it already."""
        if self._owner != threading.get_ident():
            return False
        self.depth += 1
        return True

    def take(self, timeout: float) -> bool:
        """Wait for it, at most *timeout* seconds."""
        me = threading.get_ident()
        with self._guard:
            if not self._owner:
                self._owner, self.depth = me, 1
                return True
            bell = threading.Lock()
            bell.acquire()
            self.line.append((me, bell))
        try:
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
            self._owner, bell = self.line.popleft()
            self.depth = 1
            bell.release()
            return True

    def give_back(self) -> None:
        """Give it to the next in the line, or to nobody."""
        with self._guard:
            if self.line:
                self._owner, bell = self.line.popleft()
                self.depth = 1
                bell.release()
            else:
                self._owner = self.depth = 0


class _FileLock(Protocol):
    path: str

    def acquire(self, deadline: float) -> bool: ...
    def release(self) -> None: ...
    def sign(self) -> None: ...
    def holder(self) -> str: ...
    def close(self) -> None: ...


def _file_lock(path: Path) -> _FileLock:
    if fcntl is not None:
        return _Flock(str(path))
    return _Filelock(str(path)) if installed("filelock") else _Msvcrt(str(path))


class _Descriptor:
    """A lock file opened once, reopened when somebody deleted or replaced it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._file = (0, 0)  # which file that is
        _descriptors.add(self)

    def open(self) -> int:
        if self._fd < 0:
            # No O_TRUNC: the holder's signature is in there. No link is followed: whoever can write to the folder
            # could otherwise have us create files elsewhere.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
            try:
                self._fd = os.open(self.path, flags, 0o600)
            except OSError as exc:
                raise StoreWriteFailed(
                    exc.errno,
                    f"The lock file {self.path!r} cannot be opened: {exc.strerror}.{owner_of(self.path)} Make its "
                    f"folder writable, or open the memory with read_only=True",
                ) from exc
            found = os.fstat(self._fd)
            self._file = found.st_ino, found.st_dev
            self._signature = b"%-20d" % os.getpid()
        return self._fd

    def still_there(self) -> bool:
        """Whether the path still names the file that is open here."""
        try:
            now = os.lstat(self.path)
        except OSError:
            return False
        return (now.st_ino, now.st_dev) == self._file

    def sign(self) -> None:
        try:
            os.pwrite(self._fd, self._signature, 0)
        except OSError:  # a courtesy to those who wait; a full disk must not stop a writer here
            return

    def holder(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            return os.pread(self.open(), 20, 0).decode("ascii").strip()
        return ""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_descriptors: weakref.WeakSet[_Descriptor] = weakref.WeakSet()
_mutexes: weakref.WeakSet[Mutex] = weakref.WeakSet()


_taken_over_fork: list[Mutex] = []
_FORK_WAIT = 10.0  # seconds; a fork that waited longer for a lock goes ahead without


def _hold_before_fork() -> None:
    # SQLite's bookkeeping of a transaction in another thread would be copied, and its end would never come.
    _taken_over_fork.extend(mutex for mutex in list(_mutexes) if mutex.over_fork and mutex.take(_FORK_WAIT))
    for mutex in _taken_over_fork:
        if mutex.before_fork is not None:
            mutex.before_fork()


def _release_in_parent() -> None:
    while _taken_over_fork:
        _taken_over_fork.pop().__exit__()


def _let_go_in_child() -> None:
    _taken_over_fork.clear()
    # A child inherits the descriptors and with them its parent's locks: it would keep them taken after the parent
    # died. Closing (not unlocking, which would free the parent's) is what lets go of them here alone.
    for descriptor in list(_descriptors):
        descriptor.close()
    for mutex in list(_mutexes):
        mutex.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_before_fork, after_in_parent=_release_in_parent, after_in_child=_let_go_in_child)


class _Flock(_Descriptor):
    """`flock` on a file of its own; waiting is the kernel's."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._waiter: _Waiter | None = None

    def acquire(self, deadline: float) -> bool:
        while True:
            try:
                fcntl.flock(self._fd if self._fd >= 0 else self.open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Without time to wait, no waiter: one that was given up takes the lock for a moment once it is free,
                # and who does not wait would fail on it.
                if time.monotonic() >= deadline or not self._wait(deadline):
                    return False
            except StoreWriteFailed:  # from opening
                raise
            except OSError as exc:  # ENOLCK, ENOSYS, EOPNOTSUPP: never a softer lock instead, which would be none
                raise StoreWriteFailed(
                    exc.errno,
                    f"{self.path!r} cannot be locked: {exc.strerror}. Its file system knows no locks. Keep the memory "
                    f"on a local disk, or open it with read_only=True",
                ) from exc
            # Between our open and our lock somebody may have deleted the file and locked a new one of its name.
            if self.still_there():
                return True
            self.close()

    def _wait(self, deadline: float) -> bool:
        # Who gave up once and tries again takes the old waiter's place in the line, and no thread is added per try.
        waiter = self._waiter
        if waiter is None or not waiter.ask():
            waiter = self._waiter = _Waiter(self.path)
            waiter.ask()
        fd = waiter.wait(deadline)
        if fd < 0:
            return False
        self.close()
        self._fd, self._file = fd, waiter._file  # noqa: SLF001
        return True

    def release(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


class _Waiter(_Descriptor):
    """A thread that waits in `flock`, which knows no time-out; a signal would need the main thread.

    It has a descriptor of its own: when nobody wants the lock any more by the time the kernel grants it, closing that
    gives it back without touching anything that is in use by then. It stays for a while: where two processes
    write in turn, they wait for each other at every write, and a thread takes longer to start than most writes.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._state = threading.Lock()
        self._asked, self._bell = threading.Lock(), threading.Lock()
        self._asked.acquire()
        self._bell.acquire()
        self._here = self._waiting = self._wanted = False

    def ask(self) -> bool:
        """Begin to wait, or want the lock again; False where it waits for that of a file that was replaced."""
        with self._state:
            if self._waiting:
                self._wanted = self.still_there()
                return self._wanted
            self.open()
            if self._here:
                self._asked.release()
            else:
                threading.Thread(target=self._run, name="raeburnmemory-lock", daemon=True).start()
            self._here = self._waiting = self._wanted = True
            return True

    def _run(self) -> None:
        while True:
            granted = True
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            except OSError:
                granted = False
            with self._state:
                self._waiting = False
                if not (granted and self._wanted):
                    self.close()
                if self._wanted:
                    self._bell.release()
            if not self._asked.acquire(timeout=_STAY):
                with self._state:
                    if not self._waiting:
                        self._here = False
                        return
                self._asked.acquire()  # somebody did just now

    def wait(self, deadline: float) -> int:
        """Give the locked descriptor, or -1 where that is not granted by *deadline*: it is not wanted then."""
        rung, fd = False, -1
        try:
            rung = self._bell.acquire(timeout=min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX))
        except BaseException:
            self._give_up()
            raise
        with self._state:
            if self._waiting:
                self._wanted = False
            else:
                if not rung:
                    self._bell.acquire()  # it rang just now
                fd, self._fd = self._fd, -1
        return fd

    def _give_up(self) -> None:
        with self._state:
            self._wanted = False
            if not self._waiting:
                self._bell.acquire(blocking=False)
                self.close()


class _Msvcrt(_Descriptor):
    """One locked byte far behind the signature, for systems without `fcntl` and without `filelock`."""

    def acquire(self, deadline: float) -> bool:
        import msvcrt

        fd = self.open()
        while True:
            os.lseek(fd, 1 << 20, os.SEEK_SET)
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            except OSError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL)
            else:
                return True

    def release(self) -> None:
        import msvcrt

        os.lseek(self._fd, 1 << 20, os.SEEK_SET)
        msvcrt.locking(self._fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]


class _Filelock:
    """The `filelock` package, for systems without `fcntl`."""

    def __init__(self, path: str) -> None:
        from filelock import FileLock

        self.path = path
        self._lock = FileLock(path, thread_local=False)

    def acquire(self, deadline: float) -> bool:
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=max(deadline - time.monotonic(), 0.0), poll_interval=_POLL)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        self._lock.release()

    def sign(self) -> None:
        """Leave no signature: the file cannot be read by others while it is locked there."""

    def holder(self) -> str:
        return ""

    def close(self) -> None:
        self._lock.release(force=True)
