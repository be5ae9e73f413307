"""What every store on disk needs of the operating system, and what it says when that refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
import weakref
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InvalidInput, StoreCorrupt, StoreWriteFailed
from ..file_lock import owner_of
from ..mutex import Mutex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "SWITCHING",
    "SupersededError",
    "alive",
    "at_once",
    "beginning",
    "copy_file",
    "database_is_free",
    "discard",
    "encoder",
    "hold_database",
    "let_go_of_database",
    "now",
    "open_regular",
    "read_database",
    "settled",
    "sweep",
    "sync_folder",
    "to_json",
    "write_all",
    "write_failed",
]

SWITCHING = ".switching"  # beside a store whose files are just being exchanged for those of another
_EXCHANGE = 5.0  # seconds that an exchange may take before it counts as interrupted


def encoder(between: str, after_key: str) -> Callable[[Any], str]:
    """Return what writes JSON with these separators. `json.dumps` makes an encoder at every call, this does once."""
    plain = json.JSONEncoder(allow_nan=False, separators=(between, after_key))
    own = getattr(json.encoder, "c_make_encoder", None)
    if own is None:  # not CPython
        return plain.encode
    text = json.encoder.encode_basestring_ascii
    chunks = own(None, plain.default, text, None, after_key, between, False, False, False)
    return lambda value: text(value) if isinstance(value, str) else "".join(chunks(value, 0))


_compact = encoder(",", ":")

_guard = Mutex()
_databases: weakref.WeakKeyDictionary[Any, tuple[int, int]] = weakref.WeakKeyDictionary()


def hold_database(owner: Any, path: str) -> None:
    """Note that *owner* is about to open the SQLite database at *path*, for as long as it lives or until it lets go."""
    with _guard.lock:
        found = os.stat(path)
        _databases[owner] = (found.st_dev, found.st_ino)


def let_go_of_database(owner: Any) -> None:
    """Note that *owner* has closed its database."""
    with _guard.lock:
        _databases.pop(owner, None)


@contextlib.contextmanager
def database_is_free(path: str) -> Iterator[bool]:
    """Yield whether the file at *path* may be opened in the block by other means than SQLite: nobody here has it open.

    When a process closes any descriptor of a file, POSIX drops all locks that the process has on that file, SQLite's
    too (sqlite.org/howtocorrupt.html, section 2.2). Another process would then take itself for the last one, and
    remove the -wal file that this one goes on writing to.
    """
    with _guard.lock:
        try:
            found = os.stat(path)
        except OSError:
            yield True
        else:
            yield (found.st_dev, found.st_ino) not in _databases.values()


def read_database(path: str) -> bytes:
    """Return the bytes of the file at *path*, without costing this process its locks on it.

    Where this process has the database open, another one reads it: see `database_is_free`.
    """
    with database_is_free(path) as free:
        if free or os.name == "nt":
            with open(path, "rb") as file:
                return file.read()
    import subprocess

    done = subprocess.run(["/bin/cat", "--", path], capture_output=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise OSError(5, done.stderr.decode("utf-8", "replace").strip() or "it cannot be read", path)
    return done.stdout


def open_regular(path: str, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a plain file for reading, unbuffered if *flags* allow writing.

    Raises:
        StoreCorrupt: It is a pipe, a folder or a device, which could keep us waiting for ever.
    """
    fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreCorrupt(f"{path!r} is a pipe, a folder or a device, no file. Move it away.")
    return os.fdopen(fd, "rb")


def to_json(value: Any) -> str:
    """Return *value* as compact JSON.

    Raises:
        InvalidInput: JSON cannot hold it.
    """
    try:
        return _compact(value)
    except (ValueError, TypeError, RecursionError) as exc:
        raise InvalidInput(f"JSON cannot hold an attribute: {exc}.") from exc


def write_all(fd: int, data: bytes) -> None:
    """Write all of *data*, however often the system takes only a part."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def at_once() -> None:
    """Begin to write a file without asking anybody."""


class SupersededError(Exception):
    """Somebody else wrote a newer file meanwhile: this one is not wanted any more."""


_NOT_OURS = "Check its owner and its permissions, or open the memory with read_only=True"


def write_failed(verb: str, path: str, exc: OSError, size: int | None = None) -> StoreWriteFailed:
    """Translate what the operating system said about *path*."""
    needed = f" {size} bytes were needed." if size else ""
    if exc.errno in {1, 13}:
        needed += owner_of(path)
    cure = {
        1: _NOT_OURS,  # EPERM
        13: _NOT_OURS,  # EACCES
        30: _NOT_OURS,  # EROFS
        28: "Free some space on its disk, then try again",  # ENOSPC
        122: "Free some of your quota, then try again",  # EDQUOT
        27: "Raise the limit on file sizes, then try again",  # EFBIG
        24: "Raise the limit on open files, then try again",  # EMFILE
    }.get(exc.errno or 0, "Check its disk, its owner and its permissions, then try again")
    return StoreWriteFailed(exc.errno, f"Could not {verb} {path!r}: {exc.strerror}.{needed} {cure}")


def copy_file(source: str, target: str) -> None:
    """Copy *source* with its mode and times to *target*, which appears whole or not at all, synced.

    Raises:
        OSError: The system refused.
    """
    import shutil  # with all that it imports, for who copies something

    temporary = f"{target}.tmp-{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(source, "rb") as old, open(fd, "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(fd)
        shutil.copystat(source, temporary)
        os.replace(temporary, target)
        sync_folder(os.path.dirname(target))
    finally:
        discard(temporary)


def discard(path: str) -> None:
    """Remove a temporary file if it is there; one that cannot be removed is for a later `sweep`."""
    with contextlib.suppress(OSError):
        os.unlink(path)


_ABANDONED = 3600.0  # seconds after which a temporary file of a process that is gone is nobody's any more


def sweep(path: str) -> None:
    """Remove what killed processes left beside the store at *path*: `<path>….tmp-<pid>…`, old, and of no live pid."""
    folder, name = os.path.split(path)
    for entry in os.scandir(folder):
        found = re.match(r".*\.tmp-(\d+)", entry.name) if entry.name.startswith(name) else None
        with contextlib.suppress(OSError):
            if found and time.time() - entry.stat().st_mtime > _ABANDONED and not alive(int(found[1])):
                os.unlink(entry.path)


def alive(pid: int) -> bool:
    """Tell whether there is a process with that number, as far as it can be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's, or nothing that can be asked
    return True


def sync_folder(folder: str) -> None:
    """Make the renames in *folder* durable."""
    if os.name == "nt":
        return  # folders cannot be opened there
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def beginning(stem: str) -> list[str]:
    """Return the paths of all that begin with *stem*, sorted.

    `glob` finds nothing where a folder may not be read just now, and what nobody sees is lost.

    Raises:
        StoreWriteFailed: The folder is there and cannot be read.
    """
    folder, name = os.path.split(stem)
    try:
        found = os.listdir(folder or os.curdir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise write_failed("read", folder or os.curdir, exc) from exc
    return sorted(os.path.join(folder, other) for other in found if other.startswith(name))


def now(path: str, *names: str) -> str:
    """Return the time in UTC as it stands in names of files, one that none of *path*'s set-aside files has yet."""
    stamp = when = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    number = 1
    there = beginning(path)
    while any(f".{name}-{stamp}" in other[len(path) :] for name in names for other in there):
        number += 1
        stamp = f"{when}-{number}"
    return stamp


def settled(path: str, patience: float = _EXCHANGE) -> None:
    """Wait until `repair` or `restore` have exchanged the files of the store at *path*, if they are at it.

    Raises:
        StoreCorrupt: They were interrupted: the files may belong to two stores.
    """
    deadline = time.monotonic() + patience
    while os.path.lexists(path + SWITCHING):
        if time.monotonic() > deadline:
            raise StoreCorrupt(
                f"{path!r} was being repaired or restored, and that was interrupted. Nothing is lost. Finish it with: "
                f"raeburnmemory --db {path} repair"
            )
        time.sleep(0.005)
