"""The journal of a JSON store: one line per committed batch, appended and synced.

A line is eight hexadecimal digits, a space and a JSON object. The digits are the CRC-32 of the object, started
from the digits of the line before, so that a line that replaced another one cannot pass for its continuation. The
first line names the format, the store, the version of the `graph.json` it continues, that file's SHA-256 and the mark
of that version: the CRC of its line in the journal before, or chance. Caches of a version go by its mark.

A line without its end, or with zeros in place of whole sectors, is what a crash leaves: the batch was never
acknowledged, and whoever holds the lock cuts it off. Several such lines may stand there where all after the first say
that they were to be synced together with the one before (`"joined"`). A whole line with a wrong CRC, or with another
byte in the place of its line end, is damage, and is never skipped.

Writers who need no more than to survive their process do not sync their lines, and say so in each: `"unsynced"` is the
boot of the system under which it was written. The first of such lines after others is synced, and so is what they wrote
before a line is synced that does not say so. So where one of them is followed by what cannot be read, and the system
was started anew since, a power cut has taken the rest of the journal, unless a line of a later time stands there.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import zlib
from array import array
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StoreCorrupt, StoreTooNew
from ..file_lock import fcntl
from ..nodes import Batch, Link, Node, Vector
from ._files import open_regular, to_json, write_all, write_failed

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FORMAT", "Journal", "boot", "decode_batch", "encode_batch", "gone", "version_of"]

FORMAT = 1
_FLOAT32 = np.dtype("<f4")
_KIND = "raeburnmemory journal"
_SECTOR = 512  # bytes that a disk writes as one, or a part of these
_BEGINNING = 80  # bytes of a line in which it says how it was written
_HEAD = re.compile(rb'[0-9a-f]{8} \{"version":\d+(?:,"unsynced":"([0-9a-f]*)")?(,"joined":true)?[,}]')


def encode_batch(batch: Batch, version: int, *, unsynced: str | None = None, joined: bool = False) -> bytes:
    """Return *batch* as the JSON of one line; vectors as little-endian float32 in base64.

    *unsynced* is `boot` if that line is not going to be synced. A *joined* line is written with the one before it.
    """
    fields: dict[str, Any] = {"version": version}
    if unsynced is not None:
        fields["unsynced"] = unsynced
    if joined:
        fields["joined"] = True
    if batch.removed_links:
        fields["removed_links"] = batch.removed_links
    if batch.removed_nodes:
        fields["removed_nodes"] = batch.removed_nodes
    if batch.nodes:
        fields["nodes"] = [[n.namespace, n.id, n.kind, n.text, n.attributes, n.expires_at] for n in batch.nodes]
    if batch.links:
        fields["links"] = [[e.namespace, e.source, e.target, e.relation, e.data] for e in batch.links]
    if batch.meta:
        fields["meta"] = batch.meta
    if batch.staged:
        fields["staged"] = batch.staged
    line = to_json(fields).encode("ascii")
    if batch.vectors:  # their base64 is nearly all of it, and nothing in that is to be escaped
        parts, before = [line[:-1]], b',"vectors":['
        for v in batch.vectors:
            head = to_json([v.namespace, v.node, v.field, v.part, v.start, v.end])[:-1].encode("ascii")
            parts += before, head, b',"', _pack(v.values), b'"]'
            before = b","
        line = b"".join([*parts, b"]}"])
    return line


def decode_batch(fields: dict[str, Any]) -> Batch:
    """Return the batch of a line; the inverse of `encode_batch`."""
    return Batch(
        nodes=[Node(i, kind, text, attrs, ns, exp) for ns, i, kind, text, attrs, exp in fields.get("nodes", ())],
        links=[Link(s, t, relation, data, ns) for ns, s, t, relation, data in fields.get("links", ())],
        vectors=[
            Vector(node, field, _unpack(packed), part, start, end, ns)
            for ns, node, field, part, start, end, packed in fields.get("vectors", ())
        ],
        removed_nodes=[(ns, i) for ns, i in fields.get("removed_nodes", ())],
        removed_links=[(ns, s, t, r) for ns, s, t, r in fields.get("removed_links", ())],
        meta=fields.get("meta", {}),
        staged=fields.get("staged"),
    )


def version_of(payload: bytes) -> int:
    """Return the version of a line, which is the first thing that it says."""
    found = re.match(rb'\{"version":(\d+)[,}]', payload)
    return int(json.loads(payload)["version"] if found is None else found[1])


def _boot_of(line: bytes) -> str | None:
    """Return the boot under which *line* was written, if it says that it was not synced."""
    found = _HEAD.match(line)
    return found[1].decode() if found is not None and found[1] is not None else None


def gone(then: str | None) -> bool:
    """Tell whether *then* is a `boot` that is over, as far as can be told."""
    return then is not None and (not then or then != boot())


@cache
def boot() -> str:
    """Return what tells this start of the system from others, as far as the system says; else an empty string."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(8)
    except (OSError, ValueError):
        return ""


def _pack(values: Any) -> bytes:
    return binascii.b2a_base64(np.ascontiguousarray(values, _FLOAT32).data, newline=False)


def _unpack(packed: str) -> Any:
    return np.frombuffer(base64.b64decode(packed, validate=True), "<f4").astype(np.float32, copy=False)


@dataclass
class Journal:
    """An open journal, read up to `offset`."""

    path: str
    store: str
    base: int
    digest: str
    fd: int
    offset: int
    crc: int
    inode: int
    read_only: bool
    _waiting: list[bytes] = field(default_factory=list)  # lines
    _waiting_crcs: list[int] = field(default_factory=list)  # their CRCs
    _last: bytes = b""  # the beginning of the last line
    _start: int = 0  # where that stands
    _changed: int = 0  # when the file was, as far as it was looked at
    _doubtful: bool = False  # a sync of lines that stay has failed
    _mark: str | None = None  # of the version that it continues
    _crcs: array[int] = field(default_factory=lambda: array("I"))  # of the lines, from the first on

    @classmethod
    def open(cls, path: str, *, read_only: bool) -> Journal | None:
        """Open the journal at *path* and read its first line; None if there is no file.

        Raises:
            StoreCorrupt: The first line is damaged.
            StoreTooNew: A newer version of this library wrote it.
        """
        try:
            with open_regular(path, os.O_RDONLY if read_only else os.O_RDWR | os.O_APPEND) as file:
                fd = os.dup(file.fileno())
        except FileNotFoundError as exc:
            if os.path.islink(path):
                raise StoreCorrupt(
                    f"{path!r} is a link to what is not there. Put that back, or remove the link."
                ) from exc
            return None
        except OSError as exc:
            raise write_failed("open", path, exc) from exc
        journal = cls(path, "", 0, "", fd, 0, 0, os.fstat(fd).st_ino, read_only)
        try:
            head = next(iter(journal.lines()), None)
            if head is None or head.get("kind") != _KIND:
                raise journal._damaged("its first line is not that of a journal")
            if head["format"] > FORMAT:
                raise StoreTooNew(
                    f"{path!r} has format {head['format']}, this version of raeburnmemory knows up to {FORMAT}. "
                    f"Install a newer one: pip install -U raeburnmemory"
                )
            journal.store, journal.base, journal.digest = head["store"], head["base"], head["sha256"]
            journal._mark = head.get("mark")
        except BaseException:
            os.close(fd)
            raise
        return journal

    @staticmethod
    def write_new(
        path: str, store: str, base: int, digest: str, payloads: list[bytes], mark: str | None = None
    ) -> None:
        """Write a whole journal to *path*, synced; the caller renames it into place. *mark* is that of *base*."""
        mark = os.urandom(4).hex() if mark is None else mark
        head = {"kind": _KIND, "format": FORMAT, "store": store, "base": base, "sha256": digest, "mark": mark}
        crc, parts = 0, []
        for payload in [json.dumps(head, separators=(",", ":")).encode(), *payloads]:
            crc = zlib.crc32(payload, crc)
            parts.append(b"%08x %b\n" % (crc, payload))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(fd, b"".join(parts))
            os.fsync(fd)
        finally:
            os.close(fd)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what stands between the offset and the end, and move the offset along."""
        for payload in self.payloads():
            try:
                yield json.loads(payload)
            except (ValueError, RecursionError) as exc:
                raise self._damaged(f"a line with a right checksum is no JSON: {exc}") from exc

    def payloads(self) -> Iterator[bytes]:
        """Yield the unparsed lines between the offset and the end, and move the offset along."""
        blocks: list[bytes] = []  # put together once a line ends: that of a large batch has many
        size = 0
        while True:
            block = os.pread(self.fd, 1 << 20, self.offset + size)
            if block and b"\n" not in block:
                blocks.append(block)
                size += len(block)
                continue
            pending = b"".join([*blocks, block])
            if not block:
                if pending[-1:].strip(b"\0") and pending[:9] == b"%08x " % zlib.crc32(pending[9:-1], self.crc):
                    raise self._damaged(f"the line at byte {self.offset} is whole, but for its line end")
                return  # a rest without a line end is torn, or being written right now
            whole = pending.rfind(b"\n") + 1
            for line in pending[:whole].splitlines(keepends=True):
                crc = zlib.crc32(line[9:-1], self.crc)
                if line[:9] != b"%08x " % crc:
                    if self._torn():
                        return
                    raise self._damaged(f"the line at byte {self.offset} has a wrong checksum")
                self.crc = crc
                self._crcs.append(crc)
                self._start = self.offset
                self.offset += len(line)
                self._last = line[:_BEGINNING]
                yield line[9:-1]
            blocks, size = [pending[whole:]], len(pending) - whole

    def power_failed(self) -> bool:
        """Tell whether what follows the last line may be what a power cut has left of lines that were not synced."""
        return gone(_boot_of(self._last))

    def _torn(self) -> bool:
        """Tell whether what stands at the offset, and is no line, is what a crash may leave.

        Then no line follows before which all of it was on disk: none but those that were to be synced with it, and,
        where nothing was synced any more, those of the same start of the system.
        """
        rest, at = [], self.offset
        while block := os.pread(self.fd, 1 << 20, at):
            rest.append(block)
            at += len(block)
        first, *others = b"".join(rest).split(b"\n")
        unsynced = _boot_of(self._last) if self.power_failed() else None
        if unsynced is None and not self._never_written(first, self.offset):
            return False
        at = self.offset + len(first) + 1
        for number, line in enumerate(others, 1):
            end, beginning = number == len(others), line[:_BEGINNING]
            told = b"\0" not in beginning and not (end and len(beginning) < _BEGINNING)
            head = _HEAD.match(beginning) if told else None
            if head is not None and not head[2] and (unsynced is None or _boot_of(line) != unsynced):
                return False
            if unsynced is None and not end and (head is None or b"\0" in line) and not self._never_written(line, at):
                return False
            at += len(line) + 1
        return True

    def _never_written(self, line: bytes, start: int) -> bool:
        """Tell whether *line*, at the byte *start*, lacks sectors: zeros from one's start, or the offset, to an end."""
        zeros = [(start + found.start(), start + found.end()) for found in re.finditer(rb"\0+", line)]
        return bool(zeros) and all(
            (low == self.offset or low % _SECTOR == 0) and high % _SECTOR == 0 for low, high in zeros
        )

    def add(self, payload: bytes) -> None:
        """Let *payload* be the next line that `flush` writes."""
        crc = zlib.crc32(payload, self._waiting_crcs[-1] if self._waiting else self.crc)
        self._waiting.append(b"%08x %b\n" % (crc, payload))
        self._waiting_crcs.append(crc)

    def flush(self, *, sync: bool = True) -> None:
        """Append the lines that wait, and sync them; on failure the journal is as it was before, without them.

        Without *sync* they are only synced where the last line does not say that those after it may not be.

        Raises:
            StoreWriteFailed: The disk refused.
        """
        waiting, crcs, self._waiting, self._waiting_crcs = self._waiting, self._waiting_crcs, [], []
        if not waiting:
            return
        lines = b"".join(waiting)
        try:
            before = _boot_of(self._last)
            if sync and before is not None:
                self._sync_lines()  # so that a synced line stands only behind what is on disk
            write_all(self.fd, lines)
            if sync or before != boot():
                self._sync()
        except BaseException as exc:
            # After a failed sync nobody knows which pages are clean, so it is not tried again: the lines are cut off
            # and the file opened afresh, so that nothing is acknowledged that may not be there.
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, self.offset)
            self._reopen()
            if isinstance(exc, OSError):
                raise write_failed("write", self.path, exc, len(lines)) from exc
            raise
        self.crc, self._last = crcs[-1], waiting[-1][:_BEGINNING]
        self._crcs.extend(crcs)
        self.offset += len(lines)
        self._start = self.offset - len(waiting[-1])

    def mark(self, version: int) -> str | None:
        """Return what tells *version* from one of the same number in another past; None if it is not known here."""
        if version == self.base:
            return self._mark
        line = version - self.base  # the first line is about the journal
        return f"{self._crcs[line]:08x}" if 0 < line < len(self._crcs) else None

    def sync(self) -> None:
        """Bring to disk what may not be.

        Raises:
            StoreWriteFailed: The disk refused. What was written since the last sync may be lost in a power cut.
        """
        if _boot_of(self._last) is not None:
            try:
                self._sync_lines()
            except OSError as exc:
                raise write_failed("sync", self.path, exc) from exc

    def _sync_lines(self) -> None:
        """Sync lines that were written before; after that failed, write them anew first.

        The system may take for clean what never reached the disk, so that another sync alone proves nothing.
        """
        doubtful, self._doubtful = self._doubtful, True
        if doubtful:
            self._write_again()
        self._sync()
        self._doubtful = False

    def _write_again(self) -> None:
        """Write every line in its place once more, which changes nothing for those who read."""
        with contextlib.closing(os.fdopen(os.open(self.path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0)), "r+b")) as file:
            if os.fstat(file.fileno()).st_ino != self.inode:
                return  # another journal took its place, and was synced as a whole
            crc = 0
            lines = file.read(self.offset)
            for line in lines.splitlines(keepends=True):
                crc = zlib.crc32(line[9:-1], crc)
            if len(lines) < self.offset or crc != self.crc:
                raise self._damaged("what could not be synced cannot be read any more")
            file.seek(0)
            file.write(lines)

    def _sync(self) -> None:
        os.fdatasync(self.fd) if hasattr(os, "fdatasync") else os.fsync(self.fd)

    def intact(self) -> bool:
        """Tell whether the file still has its name, and ends where it was read or written up to."""
        now = os.fstat(self.fd)
        return now.st_nlink > 0 and now.st_size == self.offset

    def stands(self) -> bool:
        """Tell whether the last line is still the one that was read; one whose sync failed is taken back."""
        return os.pread(self.fd, len(self._last), self._start) == self._last

    def as_read(self, changed: int) -> bool:
        """Tell whether the file, of the same length as ever and *changed* then, is what was read.

        A copy of another past may be put over it, with the time at which that was written.
        """
        if changed != self._changed:
            if not self.stands():
                return False
            self._changed = changed
        return True

    def rest(self) -> int:
        """Return how many bytes follow the last whole line."""
        return os.fstat(self.fd).st_size - self.offset

    def cut(self) -> None:
        """Cut off what a crash left behind the last whole line; only for the holder of the lock."""
        try:
            os.ftruncate(self.fd, self.offset)
            os.fsync(self.fd)
        except OSError as exc:
            self._reopen()
            raise write_failed("write", self.path, exc) from exc

    def _reopen(self) -> None:
        with contextlib.suppress(OSError):
            old, self.fd = self.fd, os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0))
            os.close(old)  # afterwards: an interruption is to leave no number here that will be another file's

    def claim(self) -> bool:
        """Be the one process that folds this journal, until `release` or `close`; False where another one is at it."""
        if fcntl is not None:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:  # a file system without locks: each folds for itself
                return True
        return True

    def release(self) -> None:
        """Let others fold this journal."""
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give back the file descriptor."""
        fd, self.fd = self.fd, -1  # first: whoever closes again after an interruption closes no other file
        if fd >= 0:
            os.close(fd)

    def _damaged(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self.path!r} is damaged: {what}. Nothing was changed. Run repair, or put back a copy of "
            f"it with its graph."
        )
