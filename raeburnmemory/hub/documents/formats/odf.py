"""OpenDocument: texts, presentations (a page for each slide) and spreadsheets (a page for each sheet)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import EncryptedDocument, LoaderError
from ..source import Builder
from .archive import attribute, children, local

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from ..source import Loaded, Source
    from .archive import Archive

__all__ = ["reader_of"]

_PREFIX = "application/vnd.oasis.opendocument."
_BODIES = {"text": "text", "presentation": "presentation", "spreadsheet": "spreadsheet"}
_UNSEEN = {"tracked-changes", "annotation", "note", "hidden-text", "sequence-decls", "forms", "variable-decls"}
_WRAPPERS = {"section", "index-body", "frame", "text-box", "g", "a", "custom-shape", "rect", "ellipse"}
_COPIES = 100  # of a row or a cell that says how often it is repeated


def reader_of(archive: Archive) -> Callable[[Archive, Source], Loaded] | None:
    """Return what reads this archive, if it is an OpenDocument."""
    if "content.xml" not in archive:
        return None
    said = archive.read("mimetype").decode("ascii", "replace").strip() if "mimetype" in archive else ""
    return _read if said.startswith(_PREFIX) or not said else None


def _read(archive: Archive, source: Source) -> Loaded:  # noqa: ARG001  (one shape for all)
    if "META-INF/manifest.xml" in archive and any(
        local(each.tag) == "encryption-data" for each in archive.xml("META-INF/manifest.xml").iter()
    ):
        raise EncryptedDocument("The document is encrypted.", remedy="Save it without a password.")
    for body in (each for each in archive.xml("content.xml").iter() if local(each.tag) == "body"):
        for kind in _BODIES:
            for content in children(body, kind):
                writer = _Writer()
                getattr(writer, kind)(content)
                metadata = _properties(archive)
                title = metadata.pop("title", None) or writer.title
                return writer.builder.loaded(title=title, metadata=dict(metadata), mime=_PREFIX + kind)
    raise LoaderError("The document has no body that could be read.")


def _properties(archive: Archive) -> dict[str, str]:
    if "meta.xml" not in archive:
        return {}
    names = {
        "title": "title",
        "creator": "author",
        "creation-date": "created",
        "date": "modified",
        "language": "language",
    }
    return {
        names[local(each.tag)]: each.text.strip()
        for each in archive.xml("meta.xml").iter()
        if local(each.tag) in names and each.text and each.text.strip()
    }


class _Writer:
    def __init__(self) -> None:
        self.builder = Builder()
        self.title: str | None = None

    def text(self, content: Element) -> None:
        self._blocks(content)
        for note in (each for each in content.iter() if local(each.tag) == "note"):
            mark = "".join("".join(each.itertext()) for each in children(note, "note-citation"))
            body = " ".join(_text(p) for each in children(note, "note-body") for p in each.iter() if _is_text(p))
            if body.strip():
                self.builder.add(f"[{mark}] {body}")

    def presentation(self, content: Element) -> None:
        for number, page in enumerate(children(content, "page"), 1):
            self.builder.fresh()
            opened = self.builder.begin("slide", number)
            for frame in page:
                if local(frame.tag) == "notes":
                    notes = "\n".join(filter(None, (_text(each) for each in frame.iter() if _is_text(each))))
                    self.builder.add(f"Notes: {notes}" if notes.strip() else "")
                elif attribute(frame, "class") == "title":
                    self.builder.heading(" ".join(_text(each) for each in frame.iter() if _is_text(each)), 1)
                else:
                    self._blocks([frame])
            self.builder.end(opened)

    def spreadsheet(self, content: Element) -> None:
        for number, table in enumerate(children(content, "table"), 1):
            self.builder.fresh()
            name = attribute(table, "name") or f"Sheet {number}"
            opened = self.builder.begin("sheet", number, name=name)
            self.builder.table(_rows(table), name=name)
            self.builder.end(opened)

    def _blocks(self, parent: Element | list[Element]) -> None:
        for child in parent:
            name = local(child.tag)
            if name == "h":
                level = attribute(child, "outline-level") or "1"
                text = _text(child)
                self.builder.heading(text, int(level) if level.isdigit() else 1)
                self.title = self.title or text.strip() or None
            elif name == "p":
                self.builder.add(_text(child).strip())
                self._blocks([each for each in child if local(each.tag) in _WRAPPERS])
            elif name == "list":
                self.builder.add("\n".join(_items(child, 0)), "list")
            elif name == "table":
                self.builder.table(_rows(child))
            elif name not in _UNSEEN:
                self._blocks(child)


def _is_text(element: Element) -> bool:
    return local(element.tag) in {"p", "h"}


def _text(element: Element) -> str:
    """Return the text of a paragraph, in which blanks that count are elements."""
    parts: list[str] = []

    def gather(each: Element) -> None:
        parts.append(_collapsed(each.text))
        for child in each:
            name = local(child.tag)
            if name == "s":
                count = attribute(child, "c") or "1"
                parts.append(" " * min(int(count) if count.isdigit() else 1, 1000))
            elif name == "tab":
                parts.append("\t")
            elif name == "line-break":
                parts.append("\n")
            elif name == "note":
                parts.append("".join(f"[{''.join(mark.itertext())}]" for mark in children(child, "note-citation")))
            elif name not in _UNSEEN and name not in {"frame", "text-box", "custom-shape"}:
                gather(child)
            parts.append(_collapsed(child.tail))

    gather(element)
    return "".join(parts)


def _collapsed(text: str | None) -> str:
    if not text:
        return ""
    inner = " ".join(text.split())
    return (" " if text[0].isspace() else "") + inner + (" " if inner and text[-1].isspace() else "")


def _items(element: Element, depth: int) -> list[str]:
    lines = []
    for item in (each for each in element if local(each.tag) in {"list-item", "list-header"}):
        own = " ".join(_text(each).strip() for each in item if _is_text(each))
        if own.strip():
            lines.append("  " * depth + f"- {own}")
        for inner in children(item, "list"):
            lines += _items(inner, depth + 1)
    return lines


def _rows(table: Element) -> list[list[str]]:
    rows: list[list[str]] = []

    def gather(parent: Element) -> None:
        for child in parent:
            name = local(child.tag)
            if name == "table-row":
                cells = _cells(child)
                if any(cell.strip() for cell in cells):
                    rows.extend([cells] * _times(child, "number-rows-repeated"))
            elif name in {"table-header-rows", "table-rows", "table-row-group"}:
                gather(child)

    gather(table)
    used = [
        at for at in range(max(map(len, rows), default=0)) if any(at < len(row) and row[at].strip() for row in rows)
    ]
    return [[row[at] if at < len(row) else "" for at in used] for row in rows]


def _cells(row: Element) -> list[str]:
    cells: list[str] = []
    for cell in row:
        if local(cell.tag) in {"table-cell", "covered-table-cell"}:
            text = " ".join(_text(each).strip() for each in cell.iter() if _is_text(each))
            cells += [text] * _times(cell, "number-columns-repeated")
    return cells


def _times(element: Element, name: str) -> int:
    value = attribute(element, name) or "1"
    return min(int(value), _COPIES) if value.isdigit() and int(value) > 0 else 1
