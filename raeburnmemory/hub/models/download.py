"""Downloads: one at a time of each model, gone on with after any interruption, whole or not there at all."""

from __future__ import annotations

import collections
import os
import random
import shutil
import threading
import time
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

from ..errors import LlamafileError
from .errors import (
    ChecksumMismatch,
    DownloadCancelled,
    DownloadError,
    DownloadStalled,
    InsufficientDisk,
    InvalidSpec,
    SizeMismatch,
    StoreLocked,
    UnsafeRedirect,
)
from .fetch import Facts, Fetcher, number_of, range_of
from .files import mismatch, mode_for
from .inspect_file import checked_beginning
from .partial import Partial
from .spec import ModelStatus
from .store import FULL, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from .files import ModelFiles
    from .spec import FileState, ModelSpec

__all__ = ["DownloadJob", "Verify", "checked_room", "merged", "room_for"]

Verify = Literal["if-known", "require", "none"]

_CHUNK = 256 << 10  # bytes that are written at once
_HOLD = 0.5  # seconds that bytes wait for others at most
_PROGRESS = 1 << 20  # bytes after which earlier failures no longer count
_LONGEST_WAIT = 60.0  # seconds between two tries
_TRICKLE = 1024  # bytes that must come within the time after which a server counts as stalled
_MARGIN = 256 << 20  # bytes that stay free at least
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


def room_for(missing: int) -> int:
    """Return how much must be free on the disk for *missing* more bytes: a twentieth more, at least 256 MiB."""
    return missing + max(missing // 20, _MARGIN)


def checked_room(files: ModelFiles, spec: ModelSpec, missing: int) -> None:
    """Refuse what would not fit.

    Raises:
        InsufficientDisk: Less is free than `room_for(missing)`.
    """
    free, need = shutil.disk_usage(files.folder.root).free, room_for(missing)
    if free < need:
        raise InsufficientDisk(
            f"Model {spec.name!r} needs {need} free bytes in {str(files.folder)!r}, where {free} are free.",
            need=need, free=free, model=spec.name, remedy="Free some space, or choose another folder.",
        )  # fmt: skip


class _Foreign(DownloadError):
    """What came is no file of a model."""


class _Again(Exception):
    """A failure after which another try may help, at once if it is not the server's."""

    def __init__(self, error: LlamafileError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


class DownloadJob:
    """One download, in a thread of its own.

    `wait` waits for its end, `pause` stops it and keeps what is here, `cancel` stops it and removes that.
    """

    def __init__(
        self,
        files: ModelFiles,
        spec: ModelSpec,
        *,
        resume: bool = True,
        verify: Verify = "if-known",
        progress: Callable[[ModelStatus], None] | None = None,
        stall: float = 30.0,
        retries: int = 6,
        retry_delay: float = 0.5,
    ) -> None:
        if verify not in {"if-known", "require", "none"}:
            raise InvalidSpec(f"verify is {verify!r}. It is one of: if-known, require, none.", model=spec.name)
        if verify == "require" and spec.sha256 is None:
            raise InvalidSpec(
                f"No SHA-256 of model {spec.name!r} is known, and verify='require' asks for one.",
                model=spec.name, remedy="Add a description with it, or use verify='if-known'.",
            )  # fmt: skip
        if spec.url is None:
            raise InvalidSpec(
                f"No URL of model {spec.name!r} is known.", model=spec.name, remedy="Bring it in with import_file()."
            )
        self.name = spec.name
        self._files, self._spec = files, spec
        self._resume, self._verify = resume, verify
        self._progress = progress
        self._retries, self._retry_delay = retries, retry_delay
        self._fetcher = Fetcher(spec.name, spec.url, stall=stall)
        self._stall = stall
        self._facts: Facts | None = None
        self._state: FileState = "queued"
        self._total: int | None = spec.size
        self._done_bytes = 0
        self._error: BaseException | None = None
        self._speeds: collections.deque[tuple[float, int]] = collections.deque(maxlen=64)
        self._told = 0.0
        self._refetched = False
        self._stop = threading.Event()
        self._discard = False  # stopped for good
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"raeburnmemory-download-{spec.name}", daemon=True)

    def start(self) -> DownloadJob:
        """Begin."""
        self._thread.start()
        return self

    @property
    def done(self) -> bool:
        """Whether it ended, in whatever way."""
        return self._ended.is_set()

    def wait(self, timeout: float | None = None) -> ModelStatus:
        """Wait until the file is there.

        Raises:
            DownloadCancelled: Somebody paused or cancelled it.
            LlamafileError: What kept it from becoming whole; see `DownloadError`, `InsufficientDisk`,
                `ChecksumMismatch` and `SizeMismatch`.
            TimeoutError: It did not end within *timeout* seconds, and goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        # In slices: a wait without an end cannot be interrupted everywhere.
        while not self._ended.wait(0.5 if deadline is None else max(0.0, min(0.5, deadline - time.monotonic()))):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"The download of model {self.name!r} did not end within {timeout:g} s; it goes on.")
        if self._error is not None:
            raise self._error
        return self.status()

    def pause(self) -> None:
        """Stop, and keep what is here for the next download."""
        self._halt()

    def cancel(self) -> None:
        """Stop, and remove what is here."""
        self._discard = True
        self._halt()
        if self._ended.wait(self._stall + 5.0) and self._state != "ready":
            self._files.discard_partial(self._spec)

    def _halt(self) -> None:
        self._stop.set()
        self._fetcher.abort()
        self._ended.wait(5.0)

    def status(self) -> ModelStatus:
        """Say how far it is."""
        if self._state in {"ready", "absent"}:
            return self._files.status(self.name)
        speed = self._speed()
        left = None if self._total is None else self._total - self._done_bytes
        eta = left / speed if speed and left is not None and self._state == "downloading" else None
        error = None if self._error is None else str(self._error)
        return ModelStatus(
            self.name, file_state=self._state, bytes_done=self._done_bytes, bytes_total=self._total,
            speed=speed if self._state == "downloading" else None, eta=eta, last_error=error,
        )  # fmt: skip

    def _speed(self) -> float | None:
        """Return bytes per second, of the last seconds."""
        points = [each for each in tuple(self._speeds) if time.monotonic() - each[0] < 10.0]
        if len(points) < 2 or points[-1][0] - points[0][0] < 0.05:
            return None
        return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])

    # --- in its own thread

    def _run(self) -> None:
        try:
            self._files.folder.make()
            while True:
                try:
                    with self._files.folder.working_on(self.name, 0.0):
                        self._work()
                    break
                except StoreLocked:  # somebody else downloads it, perhaps: then it is here afterwards
                    if self._stop.wait(0.1):
                        raise self._stopped() from None
        except BaseException as exc:  # noqa: BLE001  # whoever waits for it gets it
            self._fail(exc)
        finally:
            self._ended.set()

    def _fail(self, exc: BaseException) -> None:
        if self._stop.is_set() and not isinstance(exc, DownloadCancelled):
            exc = self._stopped()
        self._error = exc
        if not isinstance(exc, DownloadCancelled):
            self._state = "failed"
        elif self._discard:
            self._state = "absent"
        else:
            self._state = "paused"

    def _stopped(self) -> DownloadCancelled:
        word, rest = ("cancelled", "") if self._discard else ("paused", "Call download() again to go on.")
        return DownloadCancelled(f"The download of model {self.name!r} was {word}.", model=self.name, remedy=rest)

    def _work(self) -> None:
        if self._is_whole():
            self._set("ready")
            return
        partial = Partial(self._files, self._spec, resume=self._resume)
        try:
            self._done_bytes = partial.length
            self._fetch(partial)
        except DownloadCancelled:
            _kept(partial, None)
            raise
        except (ChecksumMismatch, SizeMismatch, _Foreign) as exc:
            partial.discard(str(exc))
            raise
        except LlamafileError as exc:
            _kept(partial, str(exc))
            raise
        except OSError as exc:
            raise self._not_written(partial, exc) from exc
        finally:
            partial.close()
        self._set("ready")

    def _is_whole(self) -> bool:
        """Tell whether the file is there already, and nothing is wrong with it."""
        status = self._files.status(self.name)
        if status.file_state != "ready":
            return False
        wanted = self._spec.sha256 is not None and self._verify != "none"
        if self._spec.size not in {None, status.bytes_done}:
            return False
        if wanted and status.sha256_verified is None:
            self._set("verifying")
            try:
                self._files.verify(self.name)
            except LlamafileError:
                return False
        return True

    def _fetch(self, partial: Partial) -> None:
        failed = 0
        reached = partial.length
        while True:
            if self._stop.is_set():
                raise self._stopped()
            try:
                return self._try(partial)
            except _Again as again:
                error, pause = again.error, again.wait
            except DownloadError as exc:
                if exc.status not in _AGAIN | {0} or isinstance(exc, (_Foreign, UnsafeRedirect)):
                    raise
                error, pause = exc, None
            if self._stop.is_set():
                raise self._stopped()
            if partial.length - reached >= _PROGRESS:
                failed = 0
            reached = partial.length
            failed += 1
            if failed > self._retries:
                raise error
            if pause is None:
                # Each wait is twice the one before, and not the same for all who failed together.
                pause = self._retry_delay * 2 ** (failed - 1) * random.uniform(0.5, 1.5)  # noqa: S311
            if self._stop.wait(min(pause, _LONGEST_WAIT)):
                raise self._stopped()

    def _try(self, partial: Partial) -> None:
        if self._facts is None:
            self._facts = self._fetcher.facts()
            self._compare(self._facts.size)
            known = partial.about
            if partial.length and (
                (known.get("size") is not None and self._facts.size not in {None, known["size"]})
                or (known.get("sha256") is not None and self._facts.sha256 not in {None, known["sha256"]})
            ):
                partial.restart()
        self._total = self._spec.size or self._facts.size or partial.about.get("size")
        if self._total is not None:
            if partial.length > self._total:
                partial.restart()
            checked_room(self._files, self._spec, self._total - partial.length)
        self._done_bytes = partial.length
        partial.note(error=None, verifying=False, sha256=self._facts.sha256, size=self._total)
        self._set("downloading")
        if self._total is None or partial.length < self._total:
            self._get(partial)
        self._finish(partial)

    def _compare(self, size: int | None) -> None:
        """Refuse a file of another length than the catalogue tells."""
        if size is not None and self._spec.size is not None and size != self._spec.size:
            raise SizeMismatch(
                f"The server has {size} bytes for model {self.name!r} instead of {self._spec.size}.",
                expected=self._spec.size, actual=size, model=self.name, remedy="Check the URL and the catalogue.",
            )  # fmt: skip

    def _get(self, partial: Partial) -> None:
        offset = partial.length
        headers = {}
        if offset:
            partial.resumed = True
            headers["range"] = f"bytes={offset}-"
            validator = partial.about.get("etag") or partial.about.get("last_modified")
            if validator:
                headers["if-range"] = validator
        with self._fetcher.get(headers) as answer:
            if answer.status_code == 416 and offset:
                whole = range_of(answer.headers.get("content-range"))[2]
                if whole == offset and self._total in {None, whole}:
                    self._total = whole
                    return
                raise self._restarted(partial, f"it has {whole} bytes, of which {offset} were here already")
            if answer.status_code == 206 and offset:
                self._check_part(partial, answer, offset)
            elif answer.status_code == 200:
                if offset:
                    partial.restart()  # it sends all of it, whatever was asked for
                self._whole(partial, number_of(answer.headers.get("content-length")))
            else:
                self._refuse(answer)
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise DownloadError(
                    f"The server packed the file of model {self.name!r}, which it was asked not to.",
                    status=answer.status_code, model=self.name, remedy="Use another URL.",
                )  # fmt: skip
            etag = answer.headers.get("etag")
            partial.note(
                etag=None if etag is None or etag.startswith("W/") else etag,
                last_modified=answer.headers.get("last-modified"),
                size=self._total,
            )
            self._read(partial, answer)
        if self._total is not None and partial.length < self._total:
            raise _Again(
                DownloadError(
                    f"The server sent {partial.length} of {self._total} bytes of model {self.name!r}.",
                    status=answer.status_code,
                    model=self.name,
                    remedy="Try again: what is here already is kept.",
                )
            )

    def _refuse(self, answer: httpx.Response) -> None:
        error = self._fetcher.refused(answer)
        if answer.status_code in _AGAIN:
            raise _Again(error, _float(answer.headers.get("retry-after")))
        raise error

    def _check_part(self, partial: Partial, answer: httpx.Response, offset: int) -> None:
        first, last, whole = range_of(answer.headers.get("content-range"))
        etag = answer.headers.get("etag")
        before = partial.about.get("etag")
        if first != offset:
            raise self._restarted(partial, f"it sent the part from byte {first} instead of {offset}")
        if etag is not None and before is not None and etag != before:
            raise self._restarted(partial, "the file has changed")
        if whole is not None and self._total not in {None, whole}:
            self._compare(whole)
            raise self._restarted(partial, f"it has {whole} bytes instead of {self._total}")
        if whole is not None and last != whole - 1:
            raise self._restarted(partial, f"it sent the part up to byte {last} of {whole}")
        self._whole(partial, whole)

    def _whole(self, partial: Partial, size: int | None) -> None:
        """Take note of the length that the answer tells."""
        if size is None:
            return
        self._compare(size)
        if self._total is not None and size != self._total:
            self._facts = None
            raise self._restarted(partial, f"it has {size} bytes instead of {self._total}")
        self._total = size
        checked_room(self._files, self._spec, size - partial.length)

    def _restarted(self, partial: Partial, why: str) -> _Again:
        """Begin again with nothing, for whoever cannot go on where it was."""
        partial.restart()
        self._done_bytes = 0
        error = DownloadError(
            f"The download of model {self.name!r} had to begin anew: {why}.", model=self.name, remedy="Try again."
        )
        return _Again(error)

    def _read(self, partial: Partial, answer: httpx.Response) -> None:
        held: list[bytes] = []
        size, since = 0, time.monotonic()
        window, came = since, 0
        try:
            for piece in answer.iter_raw():
                if self._stop.is_set():
                    raise self._stopped()
                held.append(piece)
                size += len(piece)
                came += len(piece)
                now = time.monotonic()
                if now - window >= self._stall:
                    if came < _TRICKLE:
                        raise DownloadStalled(
                            f"Only {came} bytes of model {self.name!r} came within {self._stall:g} s.",
                            model=self.name,
                            remedy="Try again: what is here already is kept.",
                        )
                    window, came = now, 0
                if size >= _CHUNK or now - since >= _HOLD:
                    data, held, size, since = b"".join(held), [], 0, now
                    self._add(partial, data)
        finally:
            self._add(partial, b"".join(held))  # what came before the connection broke counts, too

    def _add(self, partial: Partial, data: bytes) -> None:
        """Write *data*; of the first bytes look first whether they are those of a model."""
        if not data:
            return
        if partial.length == 0:
            self._magic(data[:16])
        if self._total is not None and partial.length + len(data) > self._total:
            raise SizeMismatch(
                f"The server sent more than the {self._total} bytes of model {self.name!r}.",
                expected=self._total, actual=partial.length + len(data), model=self.name, remedy="Check the URL.",
            )  # fmt: skip
        partial.write(data)
        self._done_bytes = partial.length
        self._speeds.append((time.monotonic(), partial.length))
        self._tell()

    def _magic(self, beginning: bytes) -> str:
        try:
            return checked_beginning(self.name, self._spec.format, beginning)
        except InvalidSpec as exc:
            raise _Foreign(
                f"The server sent something else. {exc}", status=200, model=self.name, remedy=exc.remedy
            ) from exc

    # --- the end

    def _finish(self, partial: Partial) -> None:
        self._set("verifying")
        partial.note(verifying=True)
        expected = self._spec.sha256 or (self._facts.sha256 if self._facts is not None else None)
        actual = partial.digest.hexdigest()
        if not partial.still_there():
            partial.reopen()
            raise self._restarted(partial, "somebody removed what was here")
        if expected is not None and self._verify != "none" and actual != expected:
            if partial.resumed and not self._refetched:  # it may be the older part that is wrong
                self._refetched = True
                raise self._restarted(partial, f"what was here has the SHA-256 {actual} instead of {expected}")
            raise mismatch(self._spec, expected, actual)
        magic = self._magic(partial.beginning())
        found = partial.chmod(mode_for(self._spec))
        compared = expected is not None and self._verify != "none"
        self._files.write_record(
            self._spec,
            {
                "inode": found.st_ino, "size": found.st_size, "mtime_ns": found.st_mtime_ns, "linked": False,
                "expected": expected if compared else None, "magic": magic, "sha256": actual,
                "verified": True if compared else None, "error": None, "url": self._spec.url,
                "checked_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            },
        )  # fmt: skip
        target = self._files.folder.file(self._spec.filename)
        os.replace(partial.path, target)
        sync_folder(target.parent)
        partial.remove()  # what is written down about it

    def _not_written(self, partial: Partial, exc: OSError) -> LlamafileError:
        if exc.errno not in FULL:
            error = f"The file of model {self.name!r} could not be written: {exc.strerror}."
            return DownloadError(error, model=self.name, remedy="Check the disk and the folder.")
        free = shutil.disk_usage(self._files.folder.root).free
        need = max((self._total or 0) - partial.length, 1)
        return InsufficientDisk(
            f"{exc.strerror} after {partial.length} bytes of model {self.name!r}; {need} are missing, {free} free.",
            need=need, free=free, model=self.name, remedy="Free some space, then download again: it goes on.",
        )  # fmt: skip

    # --- saying how far it is

    def _set(self, state: FileState) -> None:
        self._state = state
        self._tell(at_once=True)

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._progress is not None and (at_once or now - self._told >= 0.1):
            self._told = now
            self._progress(self.status())


def _kept(partial: Partial, error: str | None) -> None:
    """Keep what is here, with the reason why it is not more, as far as the disk lets us."""
    try:
        partial.note(error=error, verifying=False)
        partial.sync()
    except (OSError, LlamafileError):
        return


def _float(text: str | None) -> float | None:
    """Return the seconds of a `Retry-After`; a date is not worth reading."""
    seconds = number_of(text)
    return None if seconds is None else float(seconds)


def merged(status: ModelStatus, job: DownloadJob | None) -> ModelStatus:
    """Return what is known of a file, with what its download here knows better."""
    if job is None or job.done:
        return status
    told = job.status()
    return replace(
        status, file_state=told.file_state, bytes_done=told.bytes_done, bytes_total=told.bytes_total,
        speed=told.speed, eta=told.eta, last_error=told.last_error,
    )  # fmt: skip
