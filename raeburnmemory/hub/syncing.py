"""Files and folders brought up to date in a memory: what is new, changed, moved, gone, and what is as it was.

Each file is one transaction, and what is known of it stands in the document's own node: killed at any moment, the next
run goes on where this one was. What others write meanwhile is seen at each step.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from ..errors import MissingDependency
from .documents import DocumentError
from .documents.model import digest
from .intake import read_file
from .reports import IngestItem
from .scanning import file_uri, scan, shown_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..documents import Entry
    from .intake import Intake
    from .scanning import Found, Scan

__all__ = ["Folders", "path_of"]

_MOST = 0.5  # the share of a folder's documents that may go at once without being forced


def path_of(uri: str) -> str | None:
    """Return the path of a file from its address, None for any other address."""
    return os.fsdecode(unquote_to_bytes(uri[len("file://") :])) if uri.startswith("file://") else None


class Folders:
    """One run over some folders and files."""

    def __init__(
        self,
        intake: Intake,
        own: Callable[[str], bool],
        *,
        prune: bool,
        progress: Callable[[str, int, int, str], Any] | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self._intake, self._documents, self._report = intake, intake.documents, intake.report
        self._own, self._prune, self._progress, self._cancelled = own, prune, progress, cancelled

    def sync(self, root: str) -> None:
        """Bring one folder or file, a real path, up to date."""
        # Before the scan: whoever adds a file after it was looked for must not see it go.
        known = self._known(root)
        self._tell("scan", 0, 0, shown_name(root))
        found = scan(root, self._own, self._cancelled)
        if self._cancelled():
            self._report.cancelled = True
            return
        if self._gone(root):
            entry = known.get(file_uri(root))
            if entry is not None and os.path.isdir(os.path.dirname(root)):
                found.errors.clear()
                self._let_go(found, {entry.id: entry}, 1)
                return
            self._note(root, "failed", "There is nothing at this path. Check it; what is known of it stays.", "missing")
            return
        for path, reason in found.errors:
            self._note(path, "failed", f"It cannot be looked at: {reason}. What is known of it stays.", "unreadable")
        for path, reason in found.skipped:
            self._note(path, "skipped", reason, "ignored" if path in found.ignored else "not_read")
        vanished = {
            entry.id: entry
            for uri, entry in known.items()
            if uri not in found.files and self._vanished(found, root, entry)
        }
        by_hash: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in vanished.values():
            by_hash[str(entry.attributes.get("content_hash"))].append(entry)
        total = len(found.files)
        for done, (uri, file) in enumerate(found.files.items()):
            if self._cancelled():
                self._report.cancelled = True
                return
            self._tell("read", done, total, file.name)
            before = known.get(uri)
            if before is not None and self._as_known(before, file):  # most files, at no cost
                item = self._intake.as_before(before, file.name)
            else:
                item = self._file(root, uri, file, vanished, by_hash)
            self._report.items.append(item)
        self._tell("read", total, total, "")
        self._let_go(found, vanished, len(known))

    # --- one file -----------------------------------------------------------------------------------------------

    def _file(
        self,
        root: str,
        uri: str,
        file: Found,
        vanished: dict[str, Entry],
        by_hash: dict[str, list[Entry]],
    ) -> IngestItem:
        intake = self._intake
        entry = self._documents.at(uri)
        if entry is not None and self._as_known(entry, file):  # somebody else was faster
            return intake.as_before(entry, file.name)
        seen = {"size": file.size, "mtime_ns": file.mtime_ns}
        about: dict[str, Any] = {"name": file.name, "source": "file"}
        if entry is None or entry.attributes.get("root") is None:
            about["root"] = file_uri(root)
        try:
            read = read_file(file.path, intake.settings.limits.size)
        except (OSError, DocumentError) as exc:
            if not os.path.lexists(file.path):
                return IngestItem(uri, "skipped", "It went while the folder was read.", "missing", None, file.name)
            return intake.fail(uri, exc, about, name=file.name, **seen)
        self._report.bytes += len(read.data)
        content_hash = digest(read.data)
        now = {"size": len(read.data), "mtime_ns": read.mtime_ns}
        about |= now
        if (
            entry is not None
            and intake.current(entry, content_hash)
            and (item := intake.touch(entry, uri, about)) is not None
        ):
            return item
        if entry is not None and intake.waits(entry, content_hash=content_hash):
            return intake.as_before(entry, file.name)
        moved = None
        if entry is None and (moved := self._moved(file, content_hash, vanished, by_hash)) is not None:
            about["root"] = file_uri(root)
            if intake.current(moved):
                # A document that has no title of its own goes by the name of its file.
                title = moved.attributes.get("title")
                old = os.path.basename(str(moved.attributes.get("name") or ""))
                new = {"title": os.path.basename(file.name)} if title == old else {}
                if (item := intake.touch(moved, uri, {**about, **new}, outcome="renamed")) is not None:
                    return item
        try:
            return intake.take(uri, read.data, about, name=os.path.basename(file.name), moved=moved)
        except (DocumentError, MissingDependency) as exc:
            return intake.fail(uri, exc, about, name=file.name, **seen, content_hash=content_hash)

    def _as_known(self, entry: Entry, file: Found) -> bool:
        """Tell whether a file need not be read: nothing of it has changed, or it failed not long ago as it is."""
        known, intake = entry.attributes, self._intake
        if known.get("failed") is not None:
            return intake.waits(entry, size=file.size, mtime_ns=file.mtime_ns)
        return known.get("size") == file.size and known.get("mtime_ns") == file.mtime_ns and intake.current(entry)

    def _moved(
        self, file: Found, content_hash: str, vanished: dict[str, Entry], by_hash: dict[str, list[Entry]]
    ) -> Entry | None:
        """Return a document that was elsewhere with these bytes and is gone from there, one of that name first."""
        folder, name = os.path.split(file.path)
        some = [entry for entry in by_hash.get(content_hash, ()) if entry.id in vanished]
        some = [entry for entry in some if self._gone(path_of(entry.uri) or "")]
        if not some:
            return None
        paths = {entry.id: os.path.split(path_of(entry.uri) or "") for entry in some}
        found = min(some, key=lambda entry: (paths[entry.id][1] != name, paths[entry.id][0] != folder))
        del vanished[found.id]
        return found

    # --- what is gone -------------------------------------------------------------------------------------------

    def _known(self, root: str) -> dict[str, Entry]:
        """Return the documents that came from *root* or lie in it, by their URIs."""
        own, inside = file_uri(root), file_uri(root).rstrip("/") + "/"
        return {
            entry.uri: entry
            for entry in self._documents.all()
            if entry.attributes.get("source") == "file"
            and (entry.uri == own or entry.uri.startswith(inside) or entry.attributes.get("root") == own)
        }

    def _vanished(self, found: Scan, root: str, entry: Entry) -> bool:
        """Tell whether a document's file is gone, or left alone now by the folder that it came from."""
        path = path_of(entry.uri) or ""
        return self._gone(path) or (entry.attributes.get("root") == file_uri(root) and found.leaves_alone(path))

    @staticmethod
    def _gone(path: str) -> bool:
        """Tell whether there is nothing at *path*, and that it could be looked at."""
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def _let_go(self, found: Scan, vanished: dict[str, Entry], known: int) -> None:
        """Remove documents whose files are gone, unless something speaks against it."""
        if not vanished or self._cancelled():
            return
        kept = None
        if not self._prune:
            kept = "Its file is gone; it is kept, because nothing is to be pruned."
        elif found.errors:
            kept = "Its file is gone; it is kept, because not all of the folder could be looked at."
        elif len(vanished) > _MOST * known and not self._intake.force:
            kept = (
                f"Its file is gone; it is kept, because {len(vanished):,} of {known:,} documents would go at once. "
                f"If that is right, use force."
            )
        for done, entry in enumerate(vanished.values()):
            name = str(entry.attributes.get("name") or "")
            self._tell("prune", done, len(vanished), name)
            if kept is not None:
                item = IngestItem(entry.uri, "skipped", kept, "kept", entry.id, name, _count(entry))
            elif self._report.dry_run:
                item = IngestItem(entry.uri, "pruned", "Its file is gone.", None, entry.id, name)
            else:
                uri = entry.uri
                gone = self._documents.remove([entry.id], only_if=_still_at(uri))
                if entry.id not in gone:
                    continue  # somebody else removed it, or found it elsewhere
                self._report.chunks_removed += gone[entry.id]
                item = IngestItem(uri, "pruned", "Its file is gone.", None, entry.id, name)
            self._report.items.append(item)

    # --- what is told -------------------------------------------------------------------------------------------

    def _note(self, path: str, outcome: str, reason: str, code: str) -> None:
        self._report.items.append(IngestItem(file_uri(path), outcome, reason, code, None, shown_name(path)))

    def _tell(self, phase: str, done: int, total: int, current: str) -> None:
        if self._progress is not None:
            self._progress(phase, done, total, current)


def _still_at(uri: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.uri == uri


def _count(entry: Entry) -> int:
    count = entry.attributes.get("fragments")
    return count if type(count) is int else 0
