"""A file that grows: what is here of a model that is being downloaded, and what must be known to go on with it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UnsafePath
from .inspect_file import digest_of
from .store import write_json

if TYPE_CHECKING:
    from .files import ModelFiles
    from .spec import ModelSpec

__all__ = ["Partial"]

_SYNC_BYTES = 64 << 20  # how much may be lost by a power cut
_SYNC_SECONDS = 5.0


def _boot() -> str | None:
    """Return what tells one start of this machine from another, where it can be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


class Partial:
    """The beginning of a file, with its digest, and beside it what was known of the whole when it was fetched.

    After a process died, everything that it wrote is there; after the machine died, only what was synced is.
    """

    def __init__(self, files: ModelFiles, spec: ModelSpec, *, resume: bool) -> None:
        self.path = files.folder.partial(spec.filename)
        self._sidecar_path = files.folder.sidecar(spec.filename)
        self._spec = spec
        self.about: dict[str, Any] = files.sidecar(spec)
        self._file = self._opened()
        self.length = 0
        self.digest = hashlib.sha256()
        self.resumed = False  # some of it came with another answer than the rest
        self._unsynced = 0
        self._synced_at = time.monotonic()
        usable = self._usable() if resume else 0
        if usable:
            self._file.seek(0)
            self.digest = digest_of(self._file, usable)
            self.length = usable
            self.resumed = True
            os.ftruncate(self._file.fileno(), usable)
            self._file.seek(usable)
        else:
            self.restart()

    def _opened(self) -> io.FileIO:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            fd = os.open(self.path, flags, 0o600)
        except OSError as exc:
            if os.path.islink(self.path):
                raise UnsafePath(
                    f"{str(self.path)!r} is a link to elsewhere.", model=self._spec.name, remedy="Remove it."
                ) from exc
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UnsafePath(f"{str(self.path)!r} is no file.", model=self._spec.name, remedy="Put it aside.")
        return open(fd, "r+b", buffering=0)

    def reopen(self) -> None:
        """Begin again with another file, after somebody took this one away."""
        self._file.close()
        self._file = self._opened()
        self.restart()

    def discard(self, error: str) -> None:
        """Remove what is here, and write down why."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.about = {"format": 1, "url": self._spec.url, "error": error}
        self.note()

    def _usable(self) -> int:
        """Return how many bytes of what is there may be gone on with."""
        about, length = self.about, os.fstat(self._file.fileno()).st_size
        if about.get("url") != self._spec.url:
            return 0
        if about.get("boot") is None or about.get("boot") != _boot():
            length = min(length, about.get("done") or 0)
        size = about.get("size")
        provable = about.get("etag") or about.get("last_modified") or about.get("sha256") or self._spec.sha256
        return 0 if not provable or (size is not None and length > size) else length

    def restart(self) -> None:
        """Throw away what is there."""
        os.ftruncate(self._file.fileno(), 0)
        self._file.seek(0)
        self.length, self.digest, self.resumed = 0, hashlib.sha256(), False
        self.about = {"format": 1, "url": self._spec.url, "boot": _boot(), "done": 0}

    def note(self, **known: Any) -> None:
        """Write down what is known, beside the file."""
        self.about |= known
        write_json(self._sidecar_path, self.about)

    def write(self, data: bytes) -> None:
        """Add to the end; what is not synced yet stays within bounds.

        Raises:
            OSError: The disk refused; what was there before is kept.
        """
        view = memoryview(data)
        while view:
            written = self._file.write(view) or 0
            self.digest.update(view[:written])
            self.length += written
            self._unsynced += written
            view = view[written:]
        if self._unsynced >= _SYNC_BYTES or time.monotonic() - self._synced_at >= _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Make what is there durable, and write down how much that is."""
        os.fsync(self._file.fileno())
        self._unsynced, self._synced_at = 0, time.monotonic()
        self.note(done=self.length)

    def still_there(self) -> bool:
        """Whether nobody removed the file or put another in its place."""
        try:
            there, ours = os.lstat(self.path), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def chmod(self, mode: int) -> os.stat_result:
        """Give the file its mode, sync it, and return what the system knows of it."""
        os.chmod(self.path, mode)
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno())

    def beginning(self) -> bytes:
        """Return the first bytes."""
        self._file.seek(0)
        try:
            return self._file.read(16) or b""
        finally:
            self._file.seek(self.length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remove(self) -> None:
        """Remove it, and what is written down about it."""
        self.close()
        for path in (self.path, self._sidecar_path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
