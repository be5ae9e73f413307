"""The folder that models are kept in: what lies where, who may work on a model, small files that appear whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._optional import extra
from ...errors import InvalidInput, LockTimeout
from ...lock import StoreLock
from .errors import InsufficientDisk, StoreLocked, UnsafePath
from .spec import checked_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FULL", "ModelFolder", "default_folder", "sync_folder", "write_json"]

# What the system says when there is no room: on the disk, in a quota, for a file of that size.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def default_folder() -> Path:
    """Return where models are kept unless a folder is named: `LLAMAFILES_DIR`, or the user's data folder.

    Raises:
        MissingDependency: `platformdirs` is not installed, and `LLAMAFILES_DIR` not set.
    """
    if named := os.environ.get("LLAMAFILES_DIR"):
        return Path(named).expanduser()
    with extra("hub", module="platformdirs"):
        from platformdirs import user_data_path
    return user_data_path("raeburnmemory", appauthor=False) / "models"


class ModelFolder:
    """The paths of a folder of models.

    The models lie in the folder itself, under their file names, so that a folder filled by hand is one too. Everything
    else is in `.raeburn` below it, which only its owner may enter:

    - `catalogue.json`: what was added to the catalogue
    - `records/NAME.json`: digests of files, found out before
    - `runnable/NAME/`: the inode that was checked, to be run
    - `run/NAME.json`: the process of a model, and who it is
    - `logs/NAME.log`: what it printed
    - `locks/NAME.lock`: held by whoever works on the model's file
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        if folder is not None and not os.fspath(folder):
            raise InvalidInput("The folder of the models is ''. Name one, or leave it out for the usual one.")
        self.root = Path(default_folder() if folder is None else folder).expanduser().absolute()
        self.control = self.root / ".raeburn"
        self._locks: dict[str, StoreLock] = {}
        self._guard = threading.Lock()

    def __str__(self) -> str:
        return str(self.root)

    def make(self) -> None:
        """Make the folder if it is not there, for its owner alone.

        Raises:
            UnsafePath: It is there, and is something else than a folder of one's own.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.control.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(self.control)
        if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
            raise UnsafePath(
                f"{str(self.control)!r} is not a folder of yours.", remedy="Name another folder, or remove it."
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(self.control, 0o700)

    def part(self, part: str) -> Path:
        """Return the folder `.raeburn/PART`, made if it is not there."""
        self.make()
        path = self.control / part
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def file(self, filename: str) -> Path:
        """Return where the model with that file name lies once it is whole."""
        return self.root / checked_name(filename, "A file name")

    def partial(self, filename: str) -> Path:
        """Return where it grows while it is downloaded."""
        return self.root / f"{filename}.partial"

    def sidecar(self, filename: str) -> Path:
        """Return where it is written down what is being downloaded, and from where."""
        return self.root / f"{filename}.partial.json"

    def record(self, name: str) -> Path:
        """Return where it is written down what is known about a file that is there."""
        return self.control / "records" / f"{checked_name(name)}.json"

    def run_file(self, name: str) -> Path:
        """Return where it is written down which process runs a model."""
        return self.control / "run" / f"{checked_name(name)}.json"

    def log_file(self, name: str) -> Path:
        """Return where what a model prints is kept."""
        return self.control / "logs" / f"{checked_name(name)}.log"

    @contextlib.contextmanager
    def working_on(self, name: str, timeout: float = 0.5) -> Iterator[None]:
        """Be the only one, among all processes, who works on the file of the model *name*.

        Raises:
            StoreLocked: Somebody else does, and did not end within *timeout* seconds.
        """
        lock = self._lock(name)
        try:
            lock.enter(timeout)
        except LockTimeout as exc:
            raise self._locked(name, lock) from exc
        try:
            yield
        finally:
            lock.leave()

    def worked_on(self, name: str) -> bool:
        """Tell whether somebody works on the file of the model *name* at the moment."""
        if not (self.control / "locks" / f"{checked_name(name)}.lock").exists():
            return False
        for _ in range(2):  # somebody else may have asked the same in this very moment
            with contextlib.suppress(StoreLocked), self.working_on(name, 0.0):
                return False
            time.sleep(0.01)
        return True

    def _lock(self, name: str) -> StoreLock:
        path = self.part("locks") / checked_name(name)
        with self._guard:
            if name not in self._locks:
                self._locks[name] = StoreLock(path, 0.0)
            return self._locks[name]

    def _locked(self, name: str, lock: StoreLock) -> StoreLocked:
        pid = lock.holder()
        who = f"process {pid}" if pid else "another process"
        return StoreLocked(
            f"The file of model {name!r} in {str(self)!r} is being worked on by {who}.",
            model=name,
            pid=pid,
            remedy="Wait until it is done, or end that process.",
        )

    def close(self) -> None:
        """Give back the file descriptors."""
        with self._guard:
            for lock in self._locks.values():
                lock.close()
            self._locks.clear()


def write_json(path: Path, data: Any) -> None:
    """Write *data* to *path*, which has the old content or the new one whatever happens.

    Raises:
        InsufficientDisk: It is full.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{threading.get_ident()}")
    text = json.dumps(data, indent=2, ensure_ascii=False).encode()
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError as exc:
        if exc.errno in FULL:
            raise InsufficientDisk(
                f"Could not write {str(path)!r}: {exc.strerror}.", need=len(text), remedy="Free some space."
            ) from exc
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in *folder* durable."""
    if os.name == "nt":
        return  # folders cannot be opened there
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
