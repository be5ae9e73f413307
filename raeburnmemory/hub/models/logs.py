"""What a model prints: read at once whatever it is, kept in memory and in files that do not grow for ever.

A pipe that nobody reads fills up, and whoever writes to it then waits. So a thread does nothing but read, and keeps the
last lines for `tail`, `follow` and error messages, and the last megabytes in `NAME.log` and `NAME.log.1`. Keys and
escape sequences are taken out before anything is kept.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["HIDDEN", "ModelLog", "follow_file", "read_tail"]

HIDDEN = "[hidden]"
_LONGEST_LINE = 8 * 1024  # bytes; a longer one is cut into several
_PIECE = 64 * 1024  # bytes read at once: what a pipe holds
_FILE = 4 * 1024 * 1024  # bytes of the log file before it is put aside
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Keys that are not ours, as llama.cpp, proxies and model hubs write them.
_SECRETS = re.compile(
    r"(?i)(\bbearer\s+|\bapi[_-]?key['\"]?\s*[=:]\s*['\"]?|--api-key[= ])[^\s'\",;]+|\b(?:sk|hf)[-_][A-Za-z0-9_-]{16,}"
)


class ModelLog:
    """The last *lines* lines that a model printed, and a file of at most twice *file_bytes* with what came before.

    *secrets* never appear in either.
    """

    def __init__(
        self, path: Path | None, *, lines: int = 2000, secrets: Iterable[str] = (), file_bytes: int = _FILE
    ) -> None:
        self.path = path
        self.bytes = 0  # read so far; its growth is a sign of life
        self._lines: collections.deque[str] = collections.deque(maxlen=lines)
        self._count = 0  # lines that ever came
        self._mark = 0
        self._news = threading.Condition()
        self._ended = False
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._file_bytes = file_bytes
        self._thread: threading.Thread | None = None
        self._fd = -1
        self._fd_size = 0

    # --- what comes in

    def drain(self, fd: int) -> None:
        """Read *fd* in a thread until all who could write to it are gone, and close it."""
        with self._news:
            self._ended = False
        self._thread = threading.Thread(target=self._read, args=(fd,), name="raeburnmemory-model-log", daemon=True)
        self._thread.start()

    def note(self, line: str) -> None:
        """Add a line of our own, marked as such."""
        self._keep([f"[raeburnmemory] {self._clean(line.encode('utf-8', 'replace'))}".replace("\n", " ")])

    def hide(self, secret: str) -> None:
        """Take *secret* out of all that comes from now on."""
        self._secrets = sorted({*self._secrets, secret} - {""}, key=len, reverse=True)

    def join(self, timeout: float) -> bool:
        """Wait until everything was read; tell whether it was within *timeout* seconds."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _read(self, fd: int) -> None:
        rest = b""
        try:
            while True:
                piece = os.read(fd, _PIECE)
                if not piece:
                    break
                self.bytes += len(piece)
                *whole, rest = re.split(rb"\r?\n|\r", rest + piece)
                if len(rest) > 2 * _LONGEST_LINE:  # cut where no key can lie across: it would be hidden by then
                    for secret in self._secrets:
                        rest = rest.replace(secret.encode(), HIDDEN.encode())
                    whole, rest = [*whole, rest[:_LONGEST_LINE]], rest[_LONGEST_LINE:]
                if whole:
                    self._keep(self._clean(b"\n".join(whole)).split("\n"))
            if rest:
                self._keep([self._clean(rest)])
        except OSError as exc:
            self.note(f"The log could not be read any further: {exc.strerror}.")
        finally:
            os.close(fd)
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _clean(self, lines: bytes) -> str:
        text = _CONTROLS.sub("", _ESCAPES.sub("", lines.decode("utf-8", "replace")))
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _SECRETS.sub(lambda found: (found.group(1) or "") + HIDDEN, text)

    def _keep(self, lines: Iterable[str]) -> None:
        new = list(lines)
        if not new:
            return
        with self._news:
            self._lines.extend(new)
            self._count += len(new)
            self._write("".join(f"{line}\n" for line in new).encode("utf-8", "replace"))
            self._news.notify_all()

    def _write(self, data: bytes) -> None:
        if self.path is None:
            return
        try:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
                self._fd = os.open(self.path, flags, 0o600)
                self._fd_size = os.fstat(self._fd).st_size
            if self._fd_size and self._fd_size + len(data) > self._file_bytes:
                os.close(self._fd)
                self._fd = -1
                os.replace(self.path, f"{self.path}.1")
                self._write(data)
                return
            self._fd_size += os.write(self._fd, data)
        except OSError as exc:
            # A full disk must not stop the reading, or the model would wait for us; the lines are still in memory.
            self._lines.append(f"[raeburnmemory] The log is no longer written to {str(self.path)!r}: {exc.strerror}.")
            self.path = None

    # --- what goes out

    def tail(self, count: int) -> list[str]:
        """Return the last *count* lines."""
        with self._news:
            return list(self._lines)[-count:] if count > 0 else []

    def mark(self) -> None:
        """From here on is what `recent` tells of: what came before is about an earlier process."""
        with self._news:
            self._mark = self._count

    def recent(self, count: int) -> list[str]:
        """Return the last *count* lines since the mark."""
        with self._news:
            return self.tail(min(count, self._count - self._mark))

    def follow(self, count: int) -> Iterator[str]:
        """Yield the last *count* lines, and then each that comes, until the model has ended.

        Whoever is so slow that lines are gone before they are read is told how many.
        """
        with self._news:
            at = self._count - min(max(count, 0), len(self._lines))
        while True:
            with self._news:
                while at >= self._count and not self._ended:
                    self._news.wait(1.0)
                missed = max(0, self._count - len(self._lines) - at)
                at += missed
                new = list(self._lines)[len(self._lines) - (self._count - at) :] if at < self._count else []
                at = self._count
                done = self._ended and not new
            if missed:
                yield f"[raeburnmemory] {missed} lines came too fast to be shown."
            yield from new
            if done:
                return

    def close(self) -> None:
        """Close the file; what is in memory stays."""
        with self._news:
            self._ended = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            self._news.notify_all()


def read_tail(path: Path, count: int) -> list[str]:
    """Return the last *count* lines of the log file at *path* and the one before it; none if there is no file."""
    lines: list[str] = []
    for name in (f"{path}.1", os.fspath(path)):
        with contextlib.suppress(FileNotFoundError), open(name, encoding="utf-8", errors="replace") as file:
            lines += collections.deque((line.rstrip("\n") for line in file), maxlen=max(count, 0))
    return lines[-count:] if count > 0 else []


def follow_file(path: Path, count: int, alive: Callable[[], bool], *, every: float = 0.2) -> Iterator[str]:
    """Yield the last *count* lines of the log file at *path*, and what is added to it while *alive* says so."""
    with contextlib.ExitStack() as stack:
        old = read_tail(path.with_name(f"{path.name}.1"), count)
        file, rest, inode = None, "", 0
        first = True
        while True:
            going_on = alive()  # asked before reading: what came before the end is still shown
            if file is not None:
                rest += file.read()
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino != inode:  # the first, or the next one after it was put aside
                    file = stack.enter_context(open(path, encoding="utf-8", errors="replace"))
                    inode = os.fstat(file.fileno()).st_ino
                    rest += file.read()
            *lines, rest = rest.split("\n")
            if first:
                lines = [*old, *lines][-count:] if count > 0 else []
                first = False
            yield from lines
            if not going_on:
                return
            time.sleep(every)
