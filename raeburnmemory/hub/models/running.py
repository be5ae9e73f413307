"""A model that runs, as whoever talks to it sees it; and what is written down about it for other processes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import LockTimeout
from ...file_lock import fcntl
from ...lock import StoreLock
from .dialect import Settings
from .errors import ModelInUse, PlatformUnsupported, StoreLocked
from .spec import Dialect, Kind, ModelSpec, ProcessState, RunnableFile
from .store import write_json
from .system import Identity, same

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .store import ModelFolder

__all__ = ["Launch", "Record", "Records", "RunningModel"]

_VERSION = 1


@dataclass(frozen=True)
class RunningModel:
    """A model that is ready: where it answers, and what to show it.

    `key` is the API key that its server asks for, None where its dialect has none. `alias` is what the server calls the
    model in its answers. `detached` models live on when their manager ends. `started_at` is UTC, ISO 8601.
    """

    name: str
    kind: Kind
    dialect: Dialect
    base_url: str
    port: int
    pid: int
    alias: str
    started_at: str
    key: str | None = field(default=None, repr=False)
    detached: bool = False


@dataclass(frozen=True)
class Launch:
    """Everything that it takes to start a model again: the checked file, the settings, the runtime of bare weights."""

    file: RunnableFile
    settings: Settings = field(default_factory=Settings)
    port: int = 0
    key: str | None = field(default="auto", repr=False)
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    runtime: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return dataclasses.asdict(self) | {"file": dataclasses.asdict(self.file) | {"spec": self.file.spec.to_dict()}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Launch:
        """Make one of what `to_dict` gave."""
        file = RunnableFile(**(data["file"] | {"spec": ModelSpec.from_dict(data["file"]["spec"])}))
        settings = data["settings"] | {"args": tuple(data["settings"]["args"])}
        return cls(**(data | {"file": file, "settings": Settings(**settings)}))


@dataclass(frozen=True)
class Record:
    """What is written down about the process of a model, in a file that its owner alone may read.

    `stopping` says that somebody asked it to stop: what ends then did not crash.
    """

    name: str
    state: ProcessState
    process: Identity | None
    owner: Identity
    launch: Launch
    running: RunningModel | None = None
    detached: bool = False
    stopping: bool = False
    restarts: int = 0
    exit_code: int | None = None
    last_error: str | None = None
    last_lines: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether the very process that was written down still runs."""
        return self.process is not None and same(self.process)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return dataclasses.asdict(self) | {"launch": self.launch.to_dict(), "version": _VERSION}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Make one of what `to_dict` gave; ValueError, TypeError or KeyError if it is none."""
        data = dict(data)
        if data.pop("version") != _VERSION:
            raise ValueError("written by another version")
        return cls(
            **(
                data
                | {
                    "process": data["process"] and Identity(**data["process"]),
                    "owner": Identity(**data["owner"]),
                    "launch": Launch.from_dict(data["launch"]),
                    "running": data["running"] and RunningModel(**data["running"]),
                    "last_lines": tuple(data["last_lines"]),
                }
            )
        )


class Records:
    """The files in `.raeburn/run`: who runs which model, who is starting one, who is using one."""

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the models that something is written down about."""
        try:
            found = os.listdir(self.folder.control / "run")
        except FileNotFoundError:
            return []
        return sorted(name[: -len(".json")] for name in found if name.endswith(".json"))

    def read(self, name: str) -> Record | None:
        """Return what is written down about a model; None if nothing is, or nothing that can be understood."""
        try:
            return Record.from_dict(json.loads(self.folder.run_file(name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def write(self, record: Record) -> None:
        """Write a record down."""
        self.folder.part("run")
        write_json(self.folder.run_file(record.name), record.to_dict())

    def remove(self, name: str) -> None:
        """Forget about the process of a model."""
        with contextlib.suppress(FileNotFoundError):
            self.folder.run_file(name).unlink()

    def file(self, name: str, ending: str) -> str:
        """Return the path of another file about the process of a model."""
        return str(self.folder.part("run") / f"{name}.{ending}")

    @contextlib.contextmanager
    def starting(self, name: str, timeout: float) -> Iterator[None]:
        """Be the only one, among all processes and threads, who starts the model.

        Raises:
            StoreLocked: Somebody else does, and took longer than *timeout* seconds.
        """
        with contextlib.closing(StoreLock(self.folder.part("run") / name, timeout)) as lock:
            try:
                lock.enter()
            except LockTimeout as exc:
                pid = lock.holder()
                raise StoreLocked(
                    f"Model {name!r} is being started by {f'process {pid}' if pid else 'another process'}.",
                    model=name,
                    pid=pid,
                    remedy="Wait until it is ready, or end that process.",
                ) from exc
            try:
                yield
            finally:
                lock.leave()

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Keep others from ending an idle model, in whichever process they are, for the length of the block."""
        fd = self._open_use(name)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            try:
                yield
            finally:
                # The system's own clock since its start: the same in every process, and nobody sets it.
                os.ftruncate(fd, 0)
                os.pwrite(fd, repr(time.monotonic()).encode(), 0)  # never rounded into what is yet to come
        finally:
            self._close_use(fd)

    @contextlib.contextmanager
    def unused(self, name: str) -> Iterator[float]:
        """Yield when the model was last used, in seconds of `time.monotonic`, and let nobody use it meanwhile.

        Raises:
            ModelInUse: Somebody is using it.
        """
        fd = self._open_use(name)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ModelInUse(
                    f"Model {name!r} is answering somebody.", model=name, remedy="Wait, or stop it by its name."
                ) from None
            try:
                last = float(os.pread(fd, 40, 0) or 0.0)
            except ValueError:
                last = 0.0
            yield last
        finally:
            self._close_use(fd)

    def _open_use(self, name: str) -> int:
        if fcntl is None:
            raise PlatformUnsupported("Models can be run on Linux, macOS and other POSIX systems only.", model=name)
        return os.open(self.file(name, "use"), os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)

    def _close_use(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a fork of ours has a copy, whose closing would otherwise be waited for
        os.close(fd)
