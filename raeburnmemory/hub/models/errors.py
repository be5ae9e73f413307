"""Every error about local models that is raised on purpose.

    LlamafileError (RuntimeError)
    ├── UnknownModel (LookupError)               no model has that name
    ├── InvalidSpec (InvalidInput)               a description of a model that makes no sense
    │   └── UnsafePath                           a name or a file that leads out of the store
    ├── InsufficientDisk (OSError)               the file does not fit
    ├── InsufficientMemory (MemoryError)         the model does not fit
    ├── DownloadError (ConnectionError)          the server refused, or sent something else
    │   ├── DownloadStalled (TimeoutError)       nothing came for too long
    │   └── UnsafeRedirect                       it leads to where nobody should be sent
    ├── DownloadCancelled                        somebody stopped it
    ├── SizeMismatch (ValueError)                a file of another length
    ├── ChecksumMismatch (ValueError)            a file with another digest
    ├── NotDownloaded (FileNotFoundError)        the file is not in the store
    ├── ModelInUse                               it runs, or is being loaded
    ├── StoreLocked (LockTimeout)                another manager works on this model
    ├── ExecFormatError (OSError)                the system cannot run the file
    ├── PlatformUnsupported (NotImplementedError)  this machine cannot run the model
    ├── PortUnavailable (OSError)                no port to listen on
    ├── StartTimeout (TimeoutError)              it did not become ready
    ├── ProcessExited (ChildProcessError)        it ended by itself
    ├── ModelLoadFailed                          it could not load its weights
    ├── NotRunning (ConnectionError)             it does not run
    ├── WrongKind (ValueError)                   a chat model was asked for vectors, or the reverse
    └── ClientError (ConnectionError)            it answered with an error
        ├── ClientTimeout (TimeoutError)         it said nothing for too long
        └── ContextExceeded (ValueError)         the prompt is longer than it takes

Each has a `code` for programs, `model`, `remedy` and `log_tail`, and is the builtin in brackets as well.
"""

from __future__ import annotations

import errno

from ...errors import InvalidInput, LockTimeout
from ..errors import LlamafileError

__all__ = [
    "ChecksumMismatch",
    "ClientError",
    "ClientTimeout",
    "ContextExceeded",
    "DownloadCancelled",
    "DownloadError",
    "DownloadStalled",
    "ExecFormatError",
    "InsufficientDisk",
    "InsufficientMemory",
    "InvalidSpec",
    "ModelInUse",
    "ModelLoadFailed",
    "NotDownloaded",
    "NotRunning",
    "PlatformUnsupported",
    "PortUnavailable",
    "ProcessExited",
    "SizeMismatch",
    "StartTimeout",
    "StoreLocked",
    "UnknownModel",
    "UnsafePath",
    "UnsafeRedirect",
    "WrongKind",
]

_Tail = tuple[str, ...]


class UnknownModel(LlamafileError, LookupError):
    """No model has that name, in the catalogue or in the store."""

    code = "unknown_model"

    def __str__(self) -> str:  # KeyError's way of quoting its message is not for people
        return str(self.args[0])


class InvalidSpec(LlamafileError, InvalidInput):
    """A description of a model that makes no sense; nothing was changed."""

    code = "invalid_spec"


class UnsafePath(InvalidSpec):
    """A name that is no single part of a path, or a file that somebody else could have put there."""

    code = "unsafe_path"


class InsufficientDisk(LlamafileError, OSError):
    """The file does not fit on the disk: `need` bytes, of which `free` are there. What was loaded is kept."""

    code = "insufficient_disk"

    def __init__(
        self, message: str, *, need: int = 0, free: int = 0, model: str | None = None, remedy: str = "",
        log_tail: _Tail = (),
    ) -> None:  # fmt: skip
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.errno = errno.ENOSPC
        self.need = need
        self.free = free


class InsufficientMemory(LlamafileError, MemoryError):
    """The model does not fit into memory: `need` bytes are estimated, `free` are there."""

    code = "insufficient_memory"

    def __init__(
        self, message: str, *, need: int = 0, free: int = 0, model: str | None = None, remedy: str = "",
        log_tail: _Tail = (),
    ) -> None:  # fmt: skip
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.need = need
        self.free = free


class DownloadError(LlamafileError, ConnectionError):
    """The server refused, broke off, or sent something else. `status` is that of its answer, 0 without one."""

    code = "download_failed"

    def __init__(
        self, message: str, *, status: int = 0, model: str | None = None, remedy: str = "", log_tail: _Tail = ()
    ) -> None:
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.status = status


class DownloadStalled(DownloadError, TimeoutError):
    """Nothing came for as long as was allowed. What was loaded is kept."""

    code = "download_stalled"


class UnsafeRedirect(DownloadError):
    """The server leads to a place that is not asked: without encryption, or outside the public internet."""

    code = "unsafe_redirect"


class DownloadCancelled(LlamafileError):
    """Somebody cancelled or paused the download; of a paused one what was loaded is kept."""

    code = "download_cancelled"


class SizeMismatch(LlamafileError, ValueError):
    """A file has another length, `actual`, than it should have, `expected`; both in bytes."""

    code = "size_mismatch"

    def __init__(
        self, message: str, *, expected: int = 0, actual: int = 0, model: str | None = None, remedy: str = "",
        log_tail: _Tail = (),
    ) -> None:  # fmt: skip
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.expected = expected
        self.actual = actual


class ChecksumMismatch(LlamafileError, ValueError):
    """A file has another SHA-256, `actual`, than it should have, `expected`; both in hexadecimal."""

    code = "checksum_mismatch"

    def __init__(
        self, message: str, *, expected: str = "", actual: str = "", model: str | None = None, remedy: str = "",
        log_tail: _Tail = (),
    ) -> None:  # fmt: skip
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.expected = expected
        self.actual = actual


class NotDownloaded(LlamafileError, FileNotFoundError):
    """The file of the model is not in the store, or not whole yet."""

    code = "not_downloaded"

    def __init__(self, message: str, *, model: str | None = None, remedy: str = "", log_tail: _Tail = ()) -> None:
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.errno = errno.ENOENT


class ModelInUse(LlamafileError):
    """The model runs, or is being loaded, and what was asked for would pull its file away."""

    code = "model_in_use"


class StoreLocked(LlamafileError, LockTimeout):
    """Another manager, of this process or of another, works on this model. `pid` is its process, 0 if unknown."""

    code = "store_locked"

    def __init__(
        self, message: str, *, pid: int = 0, model: str | None = None, remedy: str = "", log_tail: _Tail = ()
    ) -> None:
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.pid = pid


class ExecFormatError(LlamafileError, OSError):
    """The system cannot run the file, neither by itself nor through `/bin/sh`."""

    code = "exec_format"


class PlatformUnsupported(LlamafileError, NotImplementedError):
    """The model cannot run on this machine: its system, its processor, or a program that is missing."""

    code = "platform_unsupported"


class PortUnavailable(LlamafileError, OSError):
    """No port could be had for the model to listen on."""

    code = "port_unavailable"


class StartTimeout(LlamafileError, TimeoutError):
    """The model did not become ready in time, and was ended."""

    code = "start_timeout"


class ProcessExited(LlamafileError, ChildProcessError):
    """The process of the model ended by itself: with `exit_code`, or by the signal number `signal`."""

    code = "process_exited"

    def __init__(
        self, message: str, *, exit_code: int | None = None, signal: int | None = None, model: str | None = None,
        remedy: str = "", log_tail: _Tail = (),
    ) -> None:  # fmt: skip
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.exit_code = exit_code
        self.signal = signal


class ModelLoadFailed(LlamafileError):
    """The server started, and could not load the model; the message has the cause where it is known."""

    code = "model_load_failed"


class NotRunning(LlamafileError, ConnectionError):
    """The model does not run, or ended during the call."""

    code = "not_running"


class WrongKind(LlamafileError, ValueError):
    """A chat model was asked for vectors, or an embedding model for text."""

    code = "wrong_kind"


class ClientError(LlamafileError, ConnectionError):
    """The model answered with an error, or with something that is none of its answers. `status` is that of HTTP."""

    code = "client_error"

    def __init__(
        self, message: str, *, status: int = 0, model: str | None = None, remedy: str = "", log_tail: _Tail = ()
    ) -> None:
        super().__init__(message, model=model, remedy=remedy, log_tail=log_tail)
        self.status = status


class ClientTimeout(ClientError, TimeoutError):
    """The model said nothing for as long as was allowed."""

    code = "client_timeout"


class ContextExceeded(ClientError, ValueError):
    """The prompt has more tokens, `need`, than the model takes, `room`; each 0 where nobody tells."""

    code = "context_exceeded"

    def __init__(
        self, message: str, *, need: int = 0, room: int = 0, model: str | None = None, remedy: str = "",
        log_tail: _Tail = (),
    ) -> None:  # fmt: skip
        super().__init__(message, status=400, model=model, remedy=remedy, log_tail=log_tail)
        self.need = need
        self.room = room
