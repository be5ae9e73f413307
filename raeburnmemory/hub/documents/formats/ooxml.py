"""Office documents since 2007: Word, PowerPoint, Excel. What a reader sees of them, in the order of reading.

The format is ISO/IEC 29500; elements are told by their names, whatever namespace, as the strict variant has others.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from .archive import attribute, local

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from ..source import Loaded, Source
    from .archive import Archive

__all__ = ["Relations", "properties", "reader_of"]


class Relations(dict[str, tuple[str, str]]):
    """What a part refers to, by the name of the reference: the end of its type, and a member of the archive."""

    def __init__(self, archive: Archive, part: str) -> None:
        super().__init__()
        folder, name = posixpath.split(part)
        where = posixpath.join(folder, "_rels", f"{name}.rels")
        if where not in archive:
            return
        for relation in archive.xml(where):
            target, kind = relation.get("Target", ""), relation.get("Type", "").rpartition("/")[2]
            if relation.get("TargetMode") != "External":
                self[relation.get("Id", "")] = (kind, posixpath.normpath(posixpath.join("/", folder, target))[1:])

    def of(self, kind: str) -> list[str]:
        """Return the members that are referred to with this type."""
        return [target for each, target in self.values() if each == kind]


def reader_of(archive: Archive) -> Callable[[Archive, Source], Loaded] | None:
    """Return what reads this archive, if it is an Office document."""
    main = _main(archive)
    if main is None:
        return None
    from . import docx, pptx, xlsx

    readers: dict[str, Callable[[Archive, Source, str, Element], Loaded]] = {
        "document": docx.read,
        "presentation": pptx.read,
        "workbook": xlsx.read,
    }
    root = archive.xml(main)
    reader = readers.get(local(root.tag))
    return None if reader is None else lambda archive, source: reader(archive, source, main, root)


def _main(archive: Archive) -> str | None:
    if "[Content_Types].xml" not in archive:
        return None
    return next((part for part in Relations(archive, "").of("officeDocument") if part in archive), None)


def properties(archive: Archive) -> dict[str, str]:
    """Return the title, the author and the dates that a document states of itself."""
    part = next((part for part in Relations(archive, "").of("core-properties") if part in archive), None)
    if part is None:
        return {}
    names = {
        "title": "title",
        "creator": "author",
        "created": "created",
        "modified": "modified",
        "language": "language",
    }
    return {
        names[local(each.tag)]: each.text.strip()
        for each in archive.xml(part)
        if local(each.tag) in names and each.text and each.text.strip()
    }


def on(element: Element | None) -> bool:
    """Tell whether an element that stands for a switch is there, and not switched off."""
    return element is not None and (attribute(element, "val") or "true").lower() not in {"0", "false", "off"}
