"""Citations held against their sources: still there, somewhere else in it, or gone."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, NodeNotFound
from ..hits import Hit, Place
from ..nodes import FRAGMENT
from ..places import place
from ..records import checked_id, shown
from .intake import read_file
from .syncing import path_of
from .web_pages import fetched

if TYPE_CHECKING:
    from ..documents import Documents
    from ..memory_graph import MemoryGraph
    from .documents import Document
    from .intake import Intake
    from .web_pages import UrlPolicy

__all__ = ["Verified", "verify"]


@dataclass(frozen=True)
class Verified:
    """What became of a citation: `status` is `"valid"`, `"moved"` or `"gone"`, and `reason` says why.

    `place` is where the words stand now; None if they are gone.
    """

    status: str
    place: Place | None
    reason: str = ""

    def __bool__(self) -> bool:
        return self.status != "gone"

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "status": self.status,
            "place": None if self.place is None else self.place.to_dict(),
            "reason": self.reason,
        }


def verify(
    memory: MemoryGraph, documents: Documents, intake: Intake, policy: UrlPolicy, citation: Hit | Place | str
) -> Verified:
    """Read the source of *citation* again; see `Ingestor.verify_citation`."""
    cited = _cited(memory, documents, citation)
    entry = documents.get(cited.document)
    if entry is None:
        return Verified("gone", None, f"The document {cited.document!r} is not in the memory any more.")
    if entry.uri != cited.uri:
        cited = replace(cited, uri=entry.uri, name=str(entry.attributes.get("name") or cited.name))
    source, path = entry.attributes.get("source"), path_of(entry.uri)
    if source == "file" and path is not None:
        if not os.path.lexists(path):
            return Verified("gone", None, f"There is no file {path!r} any more.")
        data = read_file(path, intake.settings.limits.size).data
        document = intake.read(data, name=os.path.basename(path), uri=entry.uri)
    elif source == "url":
        answer = fetched(entry.uri, policy)
        if answer is None:
            return Verified("gone", None, f"There is nothing at {entry.uri!r} any more.")
        document = intake.read(answer.data, name=answer.name or entry.uri, mime=answer.mime, uri=entry.uri)
    else:
        return _in_memory(memory, documents, cited)
    return _in_text(document, cited)


def _cited(memory: MemoryGraph, documents: Documents, citation: Hit | Place | str) -> Place:
    if isinstance(citation, Hit):
        if citation.place is None:
            raise InvalidInput(f"{citation.id!r} is no fragment of a document, so there is no source to read.")
        return citation.place
    if isinstance(citation, Place):
        return citation
    if not isinstance(citation, str):
        raise InvalidInput(f"A citation is a hit, its place or the id of a fragment, not {shown(citation)}.")
    node = memory.get(checked_id(citation, "the id of a fragment"))
    document = node.attributes.get("document")
    if node.kind != FRAGMENT or not isinstance(document, str):
        raise InvalidInput(f"{citation!r} is a {node.kind}, and no fragment of a document.")
    for fragment, link in documents.fragments(document):
        if fragment.id == citation:
            return place(fragment, link.data, memory.get(document))
    raise NodeNotFound(f"{citation!r} is no fragment of {document!r} in this collection.")


def _in_text(document: Document, cited: Place) -> Verified:
    text, quote = document.text, cited.quote
    if text[cited.start : cited.end] == quote:
        return Verified("valid", cited)
    # Of several, the one that is nearest to where it was.
    found, at = -1, text.find(quote) if quote else -1
    while at >= 0:
        if found < 0 or abs(at - cited.start) < abs(found - cited.start):
            found = at
        at = text.find(quote, at + 1)
    if found < 0:
        return Verified("gone", None, f"{cited.name} does not hold these words any more.")
    start, end = found, found + len(quote)
    now = replace(cited, start=start, end=end, lines=document.lines(start, end), pages=document.pages(start, end))
    return Verified("moved", now, f"It stands at {now} now.")


def _in_memory(memory: MemoryGraph, documents: Documents, cited: Place) -> Verified:
    """Compare with what is stored: there is nothing else left of what somebody passed in."""
    for fragment, link in documents.fragments(cited.document):
        if (fragment.text or "") != cited.quote:
            continue
        now = place(fragment, link.data, memory.get(cited.document))
        if (now.start, now.end) == (cited.start, cited.end):
            return Verified("valid", now)
        return Verified("moved", now, f"It stands at {now} now.")
    return Verified("gone", None, f"{cited.name} does not hold these words any more.")
