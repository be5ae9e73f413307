"""The other end of `worker`: starts processes that parse, asks them, and ends those that do not answer in time.

A process is kept and asked again, because starting one costs more than most documents do. What comes back is JSON,
checked like anything from outside: a process that a document has taken over can say nothing that is not a text.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ...errors import MissingDependency
from . import errors
from .model import Block
from .source import Loaded
from .worker import ANSWER, ARGUMENT, READY, request

if TYPE_CHECKING:
    from .source import Source

__all__ = ["parse"]

_KEPT = 2  # processes that wait for more
_TIMES = 500  # documents after which a process is replaced: parsers leak
_START = 60.0  # seconds that starting one may take, on a busy machine
# What the child needs to run; our keys and addresses stay here.
_ENVIRONMENT = {
    "PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "WINDIR", "TEMP", "TMP", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONUTF8", "APPDATA", "LOCALAPPDATA",
}  # fmt: skip
_OUT_OF_TIME = -24  # ended by SIGXCPU
_BEGIN = "import sys; sys.path[:] = {paths!r}; from {module} import main; main()"


def parse(source: Source) -> Loaded:
    """Return what a process of its own reads in *source*.

    Raises:
        DocumentError: It could not be read, not within its limits, or the process did not survive it.
        MissingDependency: A package is missing.
    """
    while True:
        process, fresh = _take()
        try:
            answer = process.ask(source)
        except BaseException:  # interrupted: it is busy with what nobody waits for
            process.end()
            raise
        if answer is not None:
            _give_back(process)
            return _checked(answer, source)
        process.end()
        if process.timed_out or process.code == _OUT_OF_TIME:
            raise errors.ParseTimeout(
                f"Reading the document took longer than {source.limits.seconds:g} s.",
                uri=source.uri,
                remedy="Raise the limit if you trust the document: Limits(seconds=…).",
            )
        if process.too_much:
            _too_much(source)
        # One that had waited may have ended for other reasons: only a fresh one shows that it is the document.
        if fresh:
            raise errors.LoaderError(
                f"The process that read the document ended ({_how(process.code)}).",
                uri=source.uri,
                remedy="The document is damaged, or made to break the program that reads it.",
            )


class _Process:
    """A child that parses. It is asked by one thread at a time."""

    def __init__(self) -> None:
        if not sys.executable:
            raise errors.LoaderError(
                "This program does not know its Python (sys.executable is empty), so it cannot start one to parse in.",
                remedy="Set sys.executable.",
            )
        self.timed_out = self.too_much = False
        self.asked = 0
        self.code: int | None = None
        environment = {name: value for name, value in os.environ.items() if _needed(name)}
        self._child = subprocess.Popen(  # noqa: S603  (our own interpreter)
            _command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        with self._deadline(_START):
            ready = self._read(1)
        if ready != READY:
            self.end()
            raise errors.LoaderError(
                f"The process that parses documents did not start ({_how(self.code)}).",
                remedy="In a frozen program, call raeburnmemory.hub.documents.freeze_support() first of all.",
            )

    def alive(self) -> bool:
        return self._child.poll() is None

    def ask(self, source: Source) -> dict[str, Any] | None:
        """Return the answer; None if the process ended, which `timed_out` and `too_much` explain."""
        self.asked += 1
        most = 8 * source.limits.characters + (1 << 26)  # UTF-8, with the blocks
        header, data = request(source)
        assert self._child.stdin is not None
        with self._deadline(source.limits.seconds):
            try:
                self._child.stdin.write(header)
                self._child.stdin.write(data)
                self._child.stdin.flush()
            except OSError:
                return None
            head = self._read(ANSWER.size)
            if len(head) < ANSWER.size:
                return None
            (length,) = ANSWER.unpack(head)
            if length > most:
                self.too_much = True
                return None
            body = self._read(length)
        if len(body) < length:
            return None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return {}
        return answer if isinstance(answer, dict) else {}

    def end(self) -> None:
        """End the process, if it has not ended yet, and close its pipes."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(OSError):  # what it did not read
            self._child.stdin.close()
        self._child.stdout.close()
        try:
            self.code = self._child.wait(0.5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self.code = self._child.wait()

    def forget(self) -> None:
        """Leave the process to the one that we were forked from."""
        self._child.returncode = 0
        with contextlib.suppress(OSError):
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    os.close(pipe.fileno())

    @contextlib.contextmanager
    def _deadline(self, seconds: float) -> Any:
        def stop() -> None:
            self.timed_out = True
            self._child.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _read(self, length: int) -> bytes:
        assert self._child.stdout is not None
        return self._child.stdout.read(length)


_waiting: list[_Process] = []
_guard = threading.Lock()


def _take() -> tuple[_Process, bool]:
    """Return a process that waits, or a new one, and whether it is new."""
    while True:
        with _guard:
            process = _waiting.pop() if _waiting else None
        if process is None:
            return _Process(), True
        if process.alive():
            return process, False
        process.end()


def _give_back(process: _Process) -> None:
    with _guard:
        if process.asked < _TIMES and len(_waiting) < _KEPT:
            _waiting.append(process)
            return
    process.end()


@atexit.register
def close() -> None:
    """End the processes that wait."""
    with _guard:
        ending, _waiting[:] = list(_waiting), []
    for process in ending:
        process.end()


def _after_fork() -> None:
    global _guard  # noqa: PLW0603  (another thread may have held it)
    _guard = threading.Lock()
    for process in _waiting:
        process.forget()
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _needed(name: str) -> bool:
    return name.upper() in _ENVIRONMENT or name.startswith("_PYI_")  # what PyInstaller's programs tell each other


def _command() -> list[str]:
    if getattr(sys, "frozen", False):
        return [sys.executable, ARGUMENT]
    # Not `-m`, which looks for modules in the working folder first: that may be one full of downloaded files. The
    # modules are looked for where this process finds them, and where it found this package.
    home = Path(__file__).resolve().parents[__name__.count(".")]
    paths = [path for path in sys.path if path and os.path.isabs(path)]
    module = f"{__package__}.worker"
    if str(home) not in paths:
        paths.insert(0, str(home))
    return [sys.executable, "-X", "utf8", "-c", _BEGIN.format(paths=paths, module=module)]


def _checked(answer: dict[str, Any], source: Source) -> Loaded:
    """Return the text in an answer, or raise the error in it."""
    if "error" in answer:
        _raise(answer, source)
    try:
        loaded = answer["loaded"]
        text, title, mime = _a(str, loaded["text"]), loaded["title"], loaded["mime"]
        blocks = tuple(_block(fields, len(text)) for fields in loaded["blocks"])
        return Loaded(
            text,
            blocks,
            None if title is None else _a(str, title),
            _a(dict, loaded["metadata"]),
            bool(loaded["verbatim"]),
            None if mime is None else _a(str, mime),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise errors.LoaderError(
            "The process that read the document gave an answer that makes no sense.", uri=source.uri
        ) from exc


def _block(fields: list[Any], length: int) -> Block:
    kind, start, end, page, path, level, name, header = fields
    if not 0 <= _a(int, start) <= _a(int, end) <= length:
        raise ValueError("a block lies outside of its text")
    page, level = (None if value is None else _a(int, value) for value in (page, level))
    name, header = (None if value is None else _a(str, value) for value in (name, header))
    return Block(_a(str, kind), start, end, page, tuple(_a(str, heading) for heading in path), level, name, header)


_T = TypeVar("_T")


def _a(kind: type[_T], value: Any) -> _T:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} was expected")
    return value


def _raise(answer: dict[str, Any], source: Source) -> NoReturn:
    name, message, remedy = answer["error"], str(answer.get("message", "")), str(answer.get("remedy", ""))
    if name == "memory":
        _too_much(source)
    if name == "MissingDependency":
        raise MissingDependency(message)
    if name == "NoText":
        raise errors.NoText(message, uri=source.uri, remedy=remedy, pages=tuple(answer["pages"]))
    if name == "UnsupportedType":
        raise errors.UnsupportedType(message, uri=source.uri, remedy=remedy, mime=answer["mime"])
    if name in {"TooLarge", "ArchiveBomb", "EncryptedDocument", "DecodeError", "LoaderError"}:
        raise getattr(errors, name)(message, uri=source.uri, remedy=remedy)
    raise errors.LoaderError(
        f"The document could not be read: {message}.",
        uri=source.uri,
        remedy="It may be damaged: open it in the program that made it, and save it anew.",
    )


def _too_much(source: Source) -> NoReturn:
    raise errors.TooLarge(
        f"Reading the document takes more than {source.limits.memory / 1e9:g} GB of memory.",
        uri=source.uri,
        remedy="Raise the limit if you trust the document: Limits(memory=…).",
    )


def _how(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
