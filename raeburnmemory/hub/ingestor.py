"""Documents become part of a memory: `Ingestor` reads them, cuts them, keeps them up to date and cites them.

Each document is a node of the kind `document`, each piece of its text a node of the kind `fragment` with a link
`part_of` to it. What `recall` finds in fragments carries a `place` (see `raeburnmemory.hits.Place`), and its `citation`
says something like `docs/guide.md:12-18`.

Attributes of a document's node, where they are known:

- `uri`, `name` (what it goes by in citations), `title`, `mime`, `source` (`file`, `url`, `html`, `text`, `bytes`,
  `note`, `conversation` or `documents`), `root` (the folder or file that was asked for);
- `status`: `ok`, `empty` (with `reason` and `code`) or `failed`; `failed` then says what was tried, how often, when
  again and why it failed, while what was read before stays;
- `content_hash` (SHA-256 of the bytes), `size`, `mtime_ns`, `etag`, `last_modified`, and `config`, which is another one
  whenever it would be read or cut in another way: that is all a sync needs to know;
- `characters`, `fragments` (how many there are), `metadata` (what the document says of itself, or you of it),
  `timestamp` (when it was written, if it says so, else when it came) and `updated_at`.

Those of a fragment's node: `document`, `content_hash`, `headings`, `context`, `block`; see `raeburnmemory.documents`.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, NodeNotFound
from ..records import checked_data, checked_text, new_id, shown
from .citations import Verified, verify
from .documents import Limits, conversation, from_langchain
from .intake import Intake, Settings, read_file
from .reports import IngestItem, IngestReport
from .scanning import file_uri, shown_name
from .syncing import Folders, path_of
from .web_pages import UrlPolicy, WebPages, is_url, normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..documents import Entry
    from ..hits import Hit, Place
    from ..memory_graph import MemoryGraph

__all__ = ["DocumentInfo", "IngestItem", "IngestReport", "Ingestor"]

COLLECTION = "documents"  # where documents are kept when nobody says where

_UNSAID = Limits()


@dataclass(frozen=True)
class DocumentInfo:
    """What is known of a document that was taken in; the attributes of its node, see `raeburnmemory.hub.ingestor`."""

    id: str
    uri: str
    name: str
    title: str
    mime: str
    source: str
    status: str
    reason: str = ""
    root: str | None = None
    fragments: int = 0
    characters: int = 0
    size: int | None = None
    content_hash: str = ""
    attempts: int = 0
    timestamp: str | None = None
    updated_at: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class Ingestor:
    """Takes documents into a memory, as fragments that `recall` finds and cites.

    *chunker*, *size*, *overlap* (in tokens) and *count* (which counts them) are those of
    `raeburnmemory.hub.chunking.chunk`; *chunker* may also be a text splitter of LangChain's. *limits* is what reading
    one document may cost, *url_policy* which addresses may be asked, *ocr* what reads pages without a text layer: see
    `raeburnmemory.hub.documents.load`. Documents are kept in
    *collection*, and nothing outside of it is touched; *namespace* is another than that of *memory*.

    An ingestor holds no state of its own: what it knows stands in the memory. Several may work on one memory at once,
    in threads and processes; each document is written in one transaction, and the old text is found until the new one
    is in.

    >>> from raeburnmemory import MemoryGraph
    >>> with MemoryGraph(":memory:", embedding_model="builtin") as memory:
    ...     _ = Ingestor(memory).add_text("The key is under the mat.", title="House")
    ...     memory.recall("where is the key?", kinds="fragment")[0].citation
    'House:1'
    """

    def __init__(
        self,
        memory: MemoryGraph,
        *,
        chunker: Any = "auto",
        size: int = 350,
        overlap: int = 40,
        count: Any = None,
        ocr: Callable[[bytes, tuple[int, ...]], Mapping[int, str]] | None = None,
        limits: Limits = _UNSAID,
        url_policy: UrlPolicy | None = None,
        collection: str | None = None,
        namespace: str | None = None,
    ) -> None:
        self.memory = memory if namespace is None else memory.within(namespace)
        self.collection = COLLECTION if collection is None else collection
        self.settings = Settings(chunker, size, overlap, count, ocr, limits)
        self.url_policy = UrlPolicy() if url_policy is None else url_policy
        is_file = self.memory.storage_backend in {"json", "sqlite"}
        self._store = os.path.realpath(self.memory.db_path) if is_file else None
        self._documents = self.memory._documents(self.collection)  # noqa: SLF001 - its door for such

    # --- single documents ---------------------------------------------------------------------------------------

    def add_text(
        self,
        text: str,
        *,
        title: str | None = None,
        uri: str | None = None,
        mime: str = "text/plain",
        metadata: Mapping[str, Any] | None = None,
    ) -> IngestItem:
        """Take in a text, and say what became of it.

        The same *uri* again replaces it; without one, the same words are the same document.

        Raises:
            InvalidInput: Something cannot be stored.
        """
        data = checked_text(text, "a text").encode()
        uri = f"text:{hashlib.sha256(data).hexdigest()[:32]}" if uri is None else uri
        return self._take(uri, data, "text", title or uri, mime, title, metadata)

    def add_note(
        self,
        markdown: str,
        *,
        title: str | None = None,
        uri: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> IngestItem:
        """Take in a note in Markdown; pass the *uri* of the item returned to write it anew.

        Raises:
            InvalidInput: Something cannot be stored.
        """
        data = checked_text(markdown, "a note").encode()
        uri = f"note:{new_id()}" if uri is None else uri
        return self._take(uri, data, "note", title or uri, "text/markdown", title, metadata)

    def add_bytes(
        self,
        data: bytes,
        name: str,
        mime: str | None = None,
        *,
        uri: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> IngestItem:
        """Take in the bytes of a file called *name*; the same name, or *uri*, again replaces it.

        Raises:
            DocumentError: It cannot be read; see `raeburnmemory.hub.documents.errors`.
            MissingDependency: A package that reads it is not installed.
        """
        checked_text(name, "the name of a file")
        uri = f"bytes:{name}" if uri is None else uri
        return self._take(uri, bytes(data), "bytes", name, mime, title, metadata)

    def add_file(self, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None) -> IngestItem:
        """Take in a file; links are followed. `sync` later finds whether it changed.

        Raises:
            DocumentError: It cannot be read; see `raeburnmemory.hub.documents.errors`.
            MissingDependency: A package that reads it is not installed.
            OSError: There is no such file, or it may not be read.
        """
        real = os.path.realpath(os.path.expanduser(path))
        read = read_file(real, self.settings.limits.size)
        name, uri = shown_name(os.path.basename(real)), file_uri(real)
        about = {"size": len(read.data), "mtime_ns": read.mtime_ns, "root": uri}
        return self._take(uri, read.data, "file", name, None, None, metadata, **about)

    def add_html(
        self, url: str, html: str | bytes, *, title: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> IngestItem:
        """Take in a page with its address, as a browser extension sends it; nothing is fetched.

        Raises:
            DocumentError: It cannot be read.
            InvalidInput: *url* is no address of a page.
        """
        data = checked_text(html, "a page").encode() if isinstance(html, str) else bytes(html)
        mime = "text/html; charset=utf-8" if isinstance(html, str) else "text/html"
        uri = normalised(url)
        return self._take(uri, data, "html", uri, mime, title, metadata)

    def add_url(self, url: str, *, force: bool = False, metadata: Mapping[str, Any] | None = None) -> IngestItem:
        """Fetch a page or document and take it in; if it is known already, only if the server says that it changed.

        Raises:
            BlockedUrl: The policy refuses the address, or one that it leads to.
            DocumentError: It cannot be had, or not be read.
            MissingDependency: A package that fetches or reads it is not installed.
        """
        intake = self._intake(IngestReport(), force=force)
        pages = WebPages(intake, self.url_policy)
        return pages.add(normalised(url), _metadata(metadata))

    def add_conversation(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        title: str | None = None,
        uri: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> IngestItem:
        """Take in a conversation as a document, cut by its turns; each message has a `role` and a `content` or `text`.

        To remember a conversation message by message, use `MemoryGraph.add_messages`.

        Raises:
            InvalidInput: A message is no such dict, or something cannot be stored.
        """
        document = conversation(messages, title=title or "Conversation")
        uri = f"conversation:{document.content_hash[:32]}" if uri is None else uri
        about = {"name": title or uri, "source": "conversation", **_metadata(metadata)}
        return self._intake(IngestReport()).put(uri, replace(document, uri=uri), about)

    def add_documents(self, documents: Any) -> IngestReport:
        """Take in documents of LangChain's, or all that one of its loaders gives.

        Those that follow each other and have the same `source` in their metadata are pages of one document; that source
        again replaces it.

        Raises:
            InvalidInput: One of them is no such document.
        """
        report, begun = IngestReport(), time.monotonic()
        intake = self._intake(report)
        for document in from_langchain(documents):
            source = document.uri or document.content_hash[:32]
            about = {"name": source, "source": "documents"}
            report.items.append(intake.put(f"documents:{source}", document, about))
        report.seconds = time.monotonic() - begun
        return report

    # --- folders and lists of addresses -------------------------------------------------------------------------

    def sync(
        self,
        sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        *,
        prune: bool = True,
        force: bool = False,
        dry_run: bool = False,
        progress: Callable[[str, int, int, str], Any] | None = None,
        cancel: threading.Event | Callable[[], bool] | None = None,
    ) -> IngestReport:
        """Bring folders, files and addresses up to date, and report what became of each document.

        Without *sources* these are all that were asked for before. A file is read again if its size or time differ and
        its bytes do, or if it would be read or cut otherwise now. One that moved keeps its nodes. One that is gone is
        removed with *prune*, if all of its folder could be looked at, and not more than half of what is known of that
        would go; *force* does it all the same, and reads everything again. What `.gitignore` and `.raeburnignore` name
        is left alone, and links are not followed. What failed is tried again when it changes, or after a pause.

        *progress* is called with a phase (`"scan"`, `"read"`, `"prune"`), how many are done, of how many, and the name
        of the next. *cancel*, an event or a function, ends it between two files; what is done stays. With *dry_run*
        nothing is written.

        Raises:
            InvalidInput: *sources* are none.
            MissingDependency: The memory's model cannot be loaded.
        """
        cancelled = _canceller(cancel)
        report, begun = IngestReport(dry_run=dry_run), time.monotonic()
        intake = self._intake(report, force=force)
        wanted = self._known() if sources is None else _several(sources)
        folders = Folders(intake, self._is_own, prune=prune, progress=progress, cancelled=cancelled)
        pages = WebPages(intake, self.url_policy)
        for number, source in enumerate(wanted):
            if cancelled():
                report.cancelled = True
                break
            if is_url(source):
                if progress is not None:
                    progress("read", number, len(wanted), source)
                report.items.append(pages.sync(normalised(source), prune=prune))
            else:
                folders.sync(os.path.realpath(os.path.expanduser(path_of(source) or source)))
        if progress is not None and not report.cancelled:
            progress("done", len(wanted), len(wanted), "")
        report.seconds = time.monotonic() - begun
        return report

    def watch(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        stop: threading.Event | None = None,
        on_report: Callable[[IngestReport], Any] | None = None,
        prune: bool = True,
        quiet: float = 1.0,
    ) -> None:
        """Bring folders up to date, and again whenever something in them changed, until *stop* is set.

        It waits until nothing has changed for *quiet* seconds. *on_report* is called after each run that did anything.

        Raises:
            InvalidInput: *paths* are none, or one is not there.
            MissingDependency: watchfiles is not installed.
        """
        from .watching import watch

        watch(self, [os.fspath(path) for path in _several(paths)], stop, on_report, prune=prune, quiet=quiet)

    # --- what there is ------------------------------------------------------------------------------------------

    def list(self, status: str | None = None) -> builtins.list[DocumentInfo]:
        """Return all documents of the collection, or those with a *status* (`ok`, `empty`, `failed`), oldest first."""
        return [info for entry in self._documents.all() if (info := _info(entry)).status == (status or info.status)]

    def get(self, source: str) -> DocumentInfo:
        """Return the document with an id, a URI, or that lies at a path.

        Raises:
            NodeNotFound: There is none.
        """
        return _info(self._entry(source))

    def text(self, source: str) -> str:
        """Return the text of a document as it was read, by its id, URI or path; runs of blank lines may be shorter.

        Raises:
            NodeNotFound: There is no such document.
        """
        return self._documents.text(self._entry(source).id)

    def remove(self, source: str) -> int:
        """Remove a document with its fragments, and nothing else; return how many fragments there were.

        Its file is not touched, and comes back with the next sync of its folder.

        Raises:
            NodeNotFound: There is no such document.
        """
        entry = self._entry(source)
        return self._documents.remove([entry.id]).get(entry.id, 0)

    def verify_citation(self, citation: Hit | Place | str) -> Verified:
        """Read the source of a citation again: it is `valid`, has `moved` within it, or is `gone`.

        *citation* is a hit, its place, or the id of a fragment. What was given as text, bytes, note, conversation or
        page is compared with what is stored; an address is fetched.

        Raises:
            DocumentError: The source cannot be had, or not be read.
            InvalidInput: It is no citation of a document.
            NodeNotFound: There is no fragment with that id.
        """
        return verify(self.memory, self._documents, self._intake(IngestReport()), self.url_policy, citation)

    # --- in a thread --------------------------------------------------------------------------------------------

    async def add_text_async(self, *args: Any, **kwargs: Any) -> IngestItem:
        """Do what `add_text` does in a thread."""
        return await asyncio.to_thread(self.add_text, *args, **kwargs)

    async def add_note_async(self, *args: Any, **kwargs: Any) -> IngestItem:
        """Do what `add_note` does in a thread."""
        return await asyncio.to_thread(self.add_note, *args, **kwargs)

    async def add_bytes_async(self, *args: Any, **kwargs: Any) -> IngestItem:
        """Do what `add_bytes` does in a thread."""
        return await asyncio.to_thread(self.add_bytes, *args, **kwargs)

    async def add_file_async(self, *args: Any, **kwargs: Any) -> IngestItem:
        """Do what `add_file` does in a thread."""
        return await asyncio.to_thread(self.add_file, *args, **kwargs)

    async def add_html_async(self, *args: Any, **kwargs: Any) -> IngestItem:
        """Do what `add_html` does in a thread."""
        return await asyncio.to_thread(self.add_html, *args, **kwargs)

    async def add_url_async(self, *args: Any, **kwargs: Any) -> IngestItem:
        """Do what `add_url` does in a thread."""
        return await asyncio.to_thread(self.add_url, *args, **kwargs)

    async def add_conversation_async(self, *args: Any, **kwargs: Any) -> IngestItem:
        """Do what `add_conversation` does in a thread."""
        return await asyncio.to_thread(self.add_conversation, *args, **kwargs)

    async def sync_async(self, *args: Any, **kwargs: Any) -> IngestReport:
        """Do what `sync` does in a thread. When the task is cancelled, so is the sync, between two files."""
        stop, given = threading.Event(), _canceller(kwargs.pop("cancel", None))
        try:
            return await asyncio.to_thread(self.sync, *args, cancel=lambda: stop.is_set() or given(), **kwargs)
        finally:
            stop.set()

    # --- inside -------------------------------------------------------------------------------------------------

    def _intake(self, report: IngestReport, *, force: bool = False) -> Intake:
        return Intake(self._documents, self.settings, report, force=force)

    def _take(
        self,
        uri: str,
        data: bytes,
        source: str,
        name: str,
        mime: str | None,
        title: str | None,
        metadata: Mapping[str, Any] | None,
        **about: Any,
    ) -> IngestItem:
        known: dict[str, Any] = {"name": name, "source": source, **about, **_metadata(metadata)}
        if title is not None:
            known["title"] = title
        return self._intake(IngestReport()).take(uri, data, known, name=name, mime=mime)

    def _entry(self, source: str) -> Entry:
        known = self._documents
        entry = known.get(source) or known.at(source)
        if entry is None and "://" not in source:
            entry = known.at(file_uri(os.path.realpath(os.path.expanduser(source))))
        if entry is None:
            raise NodeNotFound(
                f"No document of the collection {self.collection!r} has the id, URI or path {source!r}. "
                f"list() returns those that there are."
            )
        return entry

    def _known(self) -> builtins.list[str]:
        """Return what was asked for before: folders and files, then addresses."""
        entries = [entry.attributes for entry in self._documents.all()]
        roots = dict.fromkeys(str(one["root"]) for one in entries if one.get("root"))
        return [*sorted(roots), *dict.fromkeys(str(one["uri"]) for one in entries if one.get("source") == "url")]

    def _is_own(self, path: str) -> bool:
        """Tell whether a file is one of the memory itself."""
        if self._store is None:
            return False
        return path == self._store or path.startswith((f"{self._store}.", f"{self._store}-"))


def _several(sources: Any) -> Sequence[str]:
    if isinstance(sources, (str, os.PathLike)):
        return [os.fspath(sources)]
    if isinstance(sources, (bytes, Mapping)) or not isinstance(sources, Iterable):
        raise InvalidInput(f"The sources must be paths or addresses, not {shown(sources)}.")
    found = []
    for one in sources:
        if not isinstance(one, (str, os.PathLike)) or not str(one):
            raise InvalidInput(f"A source is a path or an address, not {shown(one)}.")
        found.append(os.fspath(one))
    return list(dict.fromkeys(found))


def _canceller(cancel: Any) -> Callable[[], bool]:
    if cancel is None:
        return lambda: False
    check = getattr(cancel, "is_set", cancel)
    if not callable(check):
        raise InvalidInput(f"cancel is an event or a function, not {shown(cancel)}.")
    return lambda: bool(check())


def _metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if metadata is None else {"metadata": checked_data(metadata, "metadata")}


def _info(entry: Entry) -> DocumentInfo:
    known = entry.attributes
    failed = known.get("failed") if isinstance(known.get("failed"), Mapping) else {}
    texts = {key: str(known.get(key) or "") for key in ("uri", "name", "title", "mime", "source", "status")}
    return DocumentInfo(
        id=entry.id,
        **texts,
        reason=str((failed or known).get("reason") or ""),
        root=known.get("root"),
        fragments=known.get("fragments", 0),
        characters=known.get("characters", 0),
        size=known.get("size"),
        content_hash=str(known.get("content_hash") or ""),
        attempts=(failed or {}).get("attempts", 0),
        timestamp=known.get("timestamp"),
        updated_at=known.get("updated_at"),
        metadata=known.get("metadata") or {},
    )
