"""A lock on a file, among the processes of one host.

`fcntl.flock` where it exists. Elsewhere `filelock`, or `msvcrt` alone when that is not installed; these poll. The
lock belongs to the kernel and is freed when its holder dies; the files stay, because deleting a lock file lets
two processes hold two locks of one name.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from ._optional import installed
from .errors import StoreWriteFailed

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl as _fcntl
except ImportError:  # not a POSIX system
    fcntl: Any = None
else:
    fcntl = _fcntl

__all__ = ["FileLock", "file_lock", "owner_of"]

_POLL = 0.001  # seconds between two tries where the system cannot wake us
_STAY = 1.0  # seconds that a thread that has waited stays in case somebody has to wait again


def owner_of(path: str) -> str:
    """Say, in a sentence for an error message, who owns *path*, or else its folder, and what the mode allows."""
    for name in (path, os.path.dirname(path)):
        with contextlib.suppress(OSError):
            found = os.stat(name)
            return f" {name!r} belongs to user {found.st_uid} and has the mode {stat.S_IMODE(found.st_mode):04o}."
    return ""


class FileLock(Protocol):
    """A lock on the file at *path*: one holder, until that lets go or dies."""

    path: str

    def acquire(self, deadline: float) -> bool:
        """Take it, if it becomes free before *deadline*, a time of `time.monotonic`."""

    def release(self) -> None:
        """Let go of it."""

    def sign(self) -> None:
        """Leave in the file which process holds it."""

    def holder(self) -> str:
        """Return who signed last, as far as that can be read, else an empty string."""

    def close(self) -> None:
        """Give back the file descriptor."""


def file_lock(path: Path) -> FileLock:
    """Return the lock that this system has for the file at *path*."""
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
        fd, self._fd = self._fd, -1  # first: whoever closes again after an interruption closes no other file
        if fd >= 0:
            os.close(fd)


_descriptors: weakref.WeakSet[_Descriptor] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A child inherits the descriptors and with them its parent's locks: it would keep them taken after the parent
    # died. Closing (not unlocking, which would free the parent's) is what lets go of them here alone.
    for descriptor in list(_descriptors):
        descriptor.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


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
        old, self._fd, self._file = self._fd, fd, waiter._file  # noqa: SLF001
        if old >= 0:
            os.close(old)
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
            with self._state:
                if self._waiting:
                    self._wanted = False
                else:
                    if not rung:
                        self._bell.acquire()  # it rang just now
                    fd, self._fd = self._fd, -1
        except BaseException:
            if fd >= 0:
                os.close(fd)
            else:
                self._give_up()
            raise
        return fd

    def _give_up(self) -> None:
        with self._state:
            self._wanted = False
            if not self._waiting:
                self._bell.acquire(blocking=False)
                self.close()


class _Msvcrt(_Descriptor):
    """One locked byte far into the file, for systems without `fcntl` and without `filelock`."""

    def sign(self) -> None:
        """Leave no signature: there is no `pwrite` there, and the position in the file says what is locked."""

    def holder(self) -> str:
        return ""

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

        if self._fd < 0:
            return
        os.lseek(self._fd, 1 << 20, os.SEEK_SET)
        with contextlib.suppress(OSError):  # not locked: who was interrupted while taking it lets go in any case
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
