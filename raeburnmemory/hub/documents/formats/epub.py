"""Electronic books: their chapters in the order of reading, each a page of XHTML."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..encoding import decode
from ..errors import EncryptedDocument, LoaderError
from ..source import Builder
from .archive import attribute, children, local
from .tree import parse
from .web import blocks_of, without_hidden

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from ..source import Loaded, Source
    from .archive import Archive

__all__ = ["reader_of"]

_CONTAINER = "META-INF/container.xml"
_ENCRYPTED = "META-INF/encryption.xml"


def reader_of(archive: Archive) -> Callable[[Archive, Source], Loaded] | None:
    """Return what reads this archive, if it is a book."""
    return _read if _CONTAINER in archive else None


def _read(archive: Archive, source: Source) -> Loaded:
    package = next(
        (each.get("full-path", "") for each in archive.xml(_CONTAINER).iter() if local(each.tag) == "rootfile"), ""
    )
    root = archive.xml(package)
    chapters = _spine(root, posixpath.dirname(package))
    if encrypted := set(chapters) & _locked(archive):
        raise EncryptedDocument(
            f"The book is encrypted: {min(encrypted)!r} and others.", remedy="Its seller's program alone can read it."
        )
    builder = Builder()
    missing = []
    for chapter in chapters:
        if chapter in archive:
            text = decode(archive.read(chapter), markup=True, uri=source.uri)
            blocks_of(without_hidden(parse(text)), builder)
        else:
            missing.append(chapter)
    metadata: dict[str, object] = {**_properties(root)}
    if missing:
        metadata["missing_chapters"] = missing
    title = metadata.pop("title", None)
    return builder.loaded(title=title, metadata=metadata, mime="application/epub+zip")


def _spine(root: Element, folder: str) -> list[str]:
    """Return the chapters as members of the archive; the table of contents is none."""
    items = {
        each.get("id", ""): each
        for manifest in children(root, "manifest")
        for each in children(manifest, "item")
        if "nav" not in each.get("properties", "").split()
    }
    found = []
    for spine in children(root, "spine"):
        for reference in children(spine, "itemref"):
            item = items.get(reference.get("idref", ""))
            if item is not None and "html" in item.get("media-type", ""):
                path = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")).partition("#")[0]))
                found.append(path)
    if not found:
        raise LoaderError("The book has no chapters that could be read.")
    return list(dict.fromkeys(found))


def _locked(archive: Archive) -> set[str]:
    if _ENCRYPTED not in archive:
        return set()
    return {
        unquote(attribute(each, "URI") or "")
        for each in archive.xml(_ENCRYPTED).iter()
        if local(each.tag) == "CipherReference"
    }


def _properties(root: Element) -> dict[str, str]:
    names = {"title": "title", "creator": "author", "language": "language", "date": "created", "publisher": "publisher"}
    found: dict[str, str] = {}
    for metadata in children(root, "metadata"):
        for each in metadata.iter():
            if local(each.tag) in names and each.text and each.text.strip():
                found.setdefault(names[local(each.tag)], each.text.strip())
    return found
