"""One document on its way into a memory: read, cut, written, or noted as one that could not be read."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..documents import Fragment
from ..errors import InvalidInput, MissingDependency
from ..records import utc
from .chunking import chunk
from .documents import Document, DocumentError, Limits, NoText, TooLarge, UnsupportedType, load
from .documents.source import tidy
from .reports import IngestItem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..documents import Documents, Entry, Written
    from .reports import IngestReport

__all__ = ["Intake", "Settings", "read_file"]

VERSION = 1  # of how documents are read and cut; raised, everything is read again at the next sync

_SETTLED = 2_000_000_000  # nanoseconds: a file changed so lately may change again without its time telling
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 86_400.0  # seconds before a failure is tried again, doubling each time


@dataclass(frozen=True)
class Settings:
    """How documents are read and cut; see `Ingestor`."""

    chunker: Any = "auto"
    size: int = 350
    overlap: int = 40
    count: Any = None
    ocr: Any = None
    limits: Limits = field(default_factory=Limits)

    def fingerprint(self, model: str) -> str:
        """Return a text that is another one whenever documents would be read or cut in another way."""
        parts = [VERSION, _named(self.chunker), self.size, self.overlap, _named(self.count), _named(self.ocr), model]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _named(value: Any) -> str:
    """Return a name for something that was passed in: what it is called, and the settings that it shows."""
    if value is None or isinstance(value, (str, int, float)):
        return repr(value)
    kind = value if hasattr(value, "__qualname__") else type(value)
    simple = {key: one for key, one in sorted(getattr(value, "__dict__", {}).items()) if type(one) in {str, int, float}}
    return f"{kind.__module__}.{kind.__qualname__} {json.dumps(simple)}"


class Bytes(NamedTuple):
    """What was read of a file, and the time at which it was changed; None if it may change again at that time."""

    data: bytes
    mtime_ns: int | None


def read_file(path: str, limit: int) -> Bytes:
    """Return the bytes of a plain file.

    Raises:
        OSError: It is gone, may not be read, or is a link or device now.
        TooLarge: It has more than *limit* bytes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        now, about = time.time_ns(), os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(f"{path!r} is no file any more, but a device, pipe or socket.")
        if about.st_size > limit:
            raise TooLarge(
                f"The file has {about.st_size:,} bytes; the limit is {limit:,}.",
                remedy="Raise it if you trust the file: Limits(size=…).",
            )
        data = file.read(limit + 1)
    settled = now - about.st_mtime_ns > _SETTLED
    return Bytes(data, about.st_mtime_ns if settled else None)


class Intake:
    """Writes documents into one collection, and into a report what became of them."""

    def __init__(self, documents: Documents, settings: Settings, report: IngestReport, *, force: bool = False) -> None:
        self.documents, self.settings, self.report, self.force = documents, settings, report, force
        self.config = settings.fingerprint(documents.model)

    # --- what is known ------------------------------------------------------------------------------------------

    def current(self, entry: Entry, content_hash: str | None = None) -> bool:
        """Tell whether a document was read as it would be now, from the bytes with that hash if one is given."""
        known = entry.attributes
        return (
            not self.force
            and known.get("config") == self.config
            and known.get("status") in {"ok", "empty"}
            and content_hash in {None, known.get("content_hash")}
        )

    def waits(self, entry: Entry, **about: Any) -> bool:
        """Tell whether reading what *about* says failed before, and it is not time yet to try again."""
        failed = entry.attributes.get("failed")
        if self.force or not isinstance(failed, dict) or failed.get("config") != self.config:
            return False
        due = failed.get("retry_at")
        return all(failed.get(key) == value for key, value in about.items()) and (
            not isinstance(due, (int, float)) or time.time() < due
        )

    def as_before(self, entry: Entry, name: str) -> IngestItem:
        """Return the item of a document that is as it was."""
        known = entry.attributes
        outcome, reason, code = "unchanged", "", None
        if isinstance(failed := known.get("failed"), dict):
            tried = "once" if failed.get("attempts") == 1 else f"{failed.get('attempts')} times"
            again = utc(failed["retry_at"])[:19] if isinstance(failed.get("retry_at"), (int, float)) else "its change"
            outcome, code = "failed", failed.get("code")
            reason = f"{failed.get('reason')} (tried {tried}, not again before {again})"
        elif known.get("status") == "empty":
            outcome, reason, code = "empty", str(known.get("reason") or ""), known.get("code")
        count = known.get("fragments", 0)
        self.report.chunks_kept += count
        return self._item(entry.uri, outcome, reason, code, entry.id, name, count)

    # --- reading and writing ------------------------------------------------------------------------------------

    def take(
        self,
        uri: str,
        data: bytes,
        about: Mapping[str, Any],
        *,
        name: str,
        mime: str | None = None,
        moved: Entry | None = None,
    ) -> IngestItem:
        """Read *data* and write what it says; *about* are attributes of the document.

        Raises:
            DocumentError: It cannot be read; nothing was written.
            MissingDependency: A package that reads it is not installed.
        """
        try:
            document = self.read(data, name=name, mime=mime, uri=uri)
        except NoText as exc:
            document = Document(uri, name, mime or "", "", content_hash=_digest(data))
            return self.put(uri, document, about, moved=moved, why=exc)
        return self.put(uri, document, about, moved=moved)

    def read(self, data: bytes, *, name: str, mime: str | None = None, uri: str) -> Document:
        """Return the document that *data* is, read as the settings say; see `raeburnmemory.hub.documents.load`."""
        return load(data, name=name, mime=mime, uri=uri, limits=self.settings.limits, ocr=self.settings.ocr)

    def put(
        self,
        uri: str,
        document: Document,
        about: Mapping[str, Any],
        *,
        moved: Entry | None = None,
        why: NoText | None = None,
    ) -> IngestItem:
        """Cut a document that was read, and write it; *why* says why it is empty."""
        fragments = self._fragments(document)
        known = self.documents.at(uri)
        reason = "" if fragments else (str(why) if why is not None else "it holds no text")
        attributes = {
            **about,
            "title": tidy(str(about.get("title") or document.title)),
            "mime": document.mime,
            "content_hash": document.content_hash,
            "config": self.config,
            "status": "ok" if fragments else "empty",
            "reason": reason or None,
            "code": None if fragments else NoText.code,
            "characters": len(document.text),
            "metadata": {**document.metadata, **about.get("metadata", {})} or None,
            "failed": None,
        }
        if (date := _date(document.metadata)) is not None:
            attributes["timestamp"] = date
        name = str(about.get("name") or "")
        if self.report.dry_run:
            outcome = "renamed" if moved is not None else "added" if known is None else "updated"
            if known is not None and known.attributes.get("content_hash") == document.content_hash:
                outcome = "unchanged"
            self.report.chunks_added += 0 if known is not None or moved is not None else len(fragments)
            number = len(fragments)
            return self._item(uri, outcome if fragments else "empty", reason, attributes["code"], None, name, number)
        written = self.documents.write(
            uri,
            attributes,
            fragments,
            moved=moved,
            unless=None if self.force else lambda entry: self.current(entry, document.content_hash),
        )
        self._count(written)
        outcome = "unchanged"
        if written.changed:
            outcome = "updated" if written.existed else "added"
            if written.existed and known is None and moved is not None:
                outcome = "renamed"
        number = written.added + written.kept
        if fragments and self.documents.same(document.content_hash)[1:]:
            self.report.duplicates += 1
        return self._item(uri, outcome if fragments else "empty", reason, attributes["code"], written.id, name, number)

    def touch(
        self, entry: Entry, uri: str, about: Mapping[str, Any], *, outcome: str = "unchanged"
    ) -> IngestItem | None:
        """Write attributes of a document whose text is as it was; None if it is gone, or elsewhere, by now."""
        known = entry.attributes
        name, count = str(about.get("name") or known.get("name") or ""), known.get("fragments", 0)
        reason, code = "", None
        if known.get("status") == "empty" and outcome == "unchanged":
            outcome, reason, code = "empty", str(known.get("reason") or ""), known.get("code")
        if self.report.dry_run:
            self.report.chunks_kept += count
            return self._item(uri, outcome, reason, code, entry.id, name, count)
        written = self.documents.write(uri, about, None, moved=entry if entry.uri != uri else None)
        if not written.id:
            return None
        self._count(written)
        return self._item(uri, outcome, reason, code, written.id, name, written.kept)

    def fail(self, uri: str, error: Exception, about: Mapping[str, Any], *, name: str, **seen: Any) -> IngestItem:
        """Note that something could not be read; *seen* is by what its next change shows. Its old text stays."""
        code = _code(error)
        entry = self.documents.at(uri)
        if isinstance(error, UnsupportedType) and entry is None:
            return self._item(uri, "skipped", str(error), code, None, name)
        before = {} if entry is None else entry.attributes.get("failed") or {}
        same = before.get("config") == self.config and all(before.get(key) == value for key, value in seen.items())
        attempts = before.get("attempts", 0) + 1 if same else 1
        pause = min(_FIRST_PAUSE * 2 ** (attempts - 1), _LONGEST_PAUSE)
        failed = {
            **seen,
            "config": self.config,
            "code": code,
            "reason": tidy(str(error)),
            "attempts": attempts,
            "retry_at": time.time() + pause,
        }
        count = 0 if entry is None else entry.attributes.get("fragments", 0)
        if self.report.dry_run:
            return self._item(uri, "failed", str(error), code, None, name, count)
        attributes = {**about, "status": "failed", "failed": failed}
        written = self.documents.write(uri, attributes, [] if entry is None else None)
        if not written.id:  # somebody else removed it meanwhile
            written = self.documents.write(uri, attributes, [])
        return self._item(uri, "failed", str(error), code, written.id, name, count)

    # --- inside -------------------------------------------------------------------------------------------------

    def _fragments(self, document: Document) -> Sequence[Fragment]:
        settings = self.settings
        if not document.text.strip():
            return []
        chunks = chunk(
            document, chunker=settings.chunker, size=settings.size, overlap=settings.overlap, count=settings.count
        )
        return [
            Fragment(one.text, one.start, one.end, one.lines, one.pages, one.heading_path, one.context, one.kind)
            for one in chunks
        ]

    def _count(self, written: Written) -> None:
        self.report.chunks_added += written.added
        self.report.chunks_kept += written.kept
        self.report.chunks_removed += written.removed
        self.report.embeddings_computed += written.embedded

    def _item(
        self, uri: str, outcome: str, reason: str, code: str | None, node: str | None, name: str, fragments: int = 0
    ) -> IngestItem:
        return IngestItem(uri, outcome, " ".join(reason.split()), code, node, name, fragments)


def _code(error: Exception) -> str:
    if isinstance(error, DocumentError):
        return error.code
    if isinstance(error, MissingDependency):
        return "missing_dependency"
    return "unreadable" if isinstance(error, OSError) else "error"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _date(metadata: Mapping[str, Any]) -> str | None:
    """Return when a document says that it was written, if it does."""
    for key in ("date", "created"):
        value = metadata.get(key)
        if isinstance(value, str) and value:
            try:
                return utc(value)
            except InvalidInput:
                continue
    return None
