"""Word documents: headings, paragraphs, lists, tables and notes, without what was deleted or is hidden."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..source import Builder
from .archive import attribute, children, local
from .ooxml import Relations, on, properties

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from ..source import Loaded, Source
    from .archive import Archive

__all__ = ["read"]

_MIME = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_DELETED = {"del", "moveFrom", "instrText", "delText", "delInstrText", "rPr", "pPr", "Fallback", "annotationRef"}
_MARKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}
_HEADING = re.compile(r"heading\s*([1-9])", re.IGNORECASE)


def read(archive: Archive, source: Source, main: str, root: Element) -> Loaded:  # noqa: ARG001  (one shape for all)
    """Return the text of a Word document."""
    relations = Relations(archive, main)
    found = properties(archive)
    writer = _Writer(*_styles(archive, relations))
    for body in children(root, "body"):
        writer.write(body)
    for kind in ("footnotes", "endnotes"):
        for part in relations.of(kind):
            if part in archive:
                writer.notes(archive.xml(part))
    return writer.builder.loaded(title=found.pop("title", None) or writer.title, metadata=dict(found), mime=_MIME)


class _Writer:
    def __init__(self, levels: dict[str, int], listed: set[str]) -> None:
        self.builder = Builder()
        self.title: str | None = None
        self._levels, self._listed = levels, listed
        self._items: list[str] = []

    def write(self, body: Element) -> None:
        self._blocks(body)
        self._flush()

    def notes(self, root: Element) -> None:
        for note in root:
            if (attribute(note, "type") or "normal") == "normal":
                text = " ".join(filter(None, (_text(each).strip() for each in children(note, "p"))))
                if text:
                    self.builder.add(f"[{attribute(note, 'id') or ''}] {text}")

    def _blocks(self, parent: Element) -> None:
        for child in parent:
            name = local(child.tag)
            if name == "p":
                self._paragraph(child)
            elif name == "tbl":
                self._flush()
                self.builder.table(_rows(child))
            elif name in {"sdt", "sdtContent", "customXml", "ins", "moveTo", "txbxContent"}:
                self._blocks(child)

    def _paragraph(self, paragraph: Element) -> None:
        settings = next(children(paragraph, "pPr"), None)
        text = _text(paragraph)
        level = self._level(settings)
        if level is not None and text.strip():
            self._flush()
            self.builder.heading(text, level)
            self.title = self.title or text.strip()
        elif text.strip() and self._is_item(settings):
            self._items.append(f"- {text.strip()}")
        elif text.strip():
            self._flush()
            self.builder.add(text.strip())
        for box in _boxes(paragraph):
            self._flush()
            self._blocks(box)

    def _is_item(self, settings: Element | None) -> bool:
        if settings is None:
            return False
        style = next(children(settings, "pStyle"), None)
        named = style is not None and attribute(style, "val") in self._listed
        return named or next(children(settings, "numPr"), None) is not None

    def _level(self, settings: Element | None) -> int | None:
        if settings is None:
            return None
        outline = next(children(settings, "outlineLvl"), None)
        value = attribute(outline, "val") if outline is not None else None
        if value is not None and value.isdigit():
            return int(value) + 1 if int(value) < 9 else None
        style = next(children(settings, "pStyle"), None)
        return self._levels.get(attribute(style, "val") or "") if style is not None else None

    def _flush(self) -> None:
        self.builder.add("\n".join(self._items), "list")
        self._items.clear()


def _styles(archive: Archive, relations: Relations) -> tuple[dict[str, int], set[str]]:
    """Return the level of heading that each style stands for, and which stand for lists; styles inherit both."""
    stated: dict[str, int | None] = {}
    based: dict[str, str] = {}
    listed: set[str] = set()
    for style in _defined(archive, relations):
        identity = attribute(style, "styleId") or ""
        name = next((attribute(each, "val") or "" for each in children(style, "name")), "").strip()
        settings = [each for inner in children(style, "pPr") for each in inner]
        outline = next((attribute(each, "val") for each in settings if local(each.tag) == "outlineLvl"), None)
        if outline is not None and outline.isdigit():
            stated[identity] = int(outline) + 1 if int(outline) < 9 else None
        elif heading := _HEADING.fullmatch(name):
            stated[identity] = int(heading[1])
        elif name.lower() == "title":
            stated[identity] = 1
        elif any(local(each.tag) == "numPr" for each in settings):
            stated[identity] = None
            listed.add(identity)
        parent = next(children(style, "basedOn"), None)
        if parent is not None:
            based[identity] = attribute(parent, "val") or ""
    for identity in based:
        at, seen = identity, {identity}
        while at not in stated and based.get(at) and based[at] not in seen:
            at = based[at]
            seen.add(at)
        stated.setdefault(identity, stated.get(at))
        if at in listed:
            listed.add(identity)
    return {identity: level for identity, level in stated.items() if level is not None}, listed


def _defined(archive: Archive, relations: Relations) -> list[Element]:
    found: list[Element] = []
    for part in relations.of("styles"):
        if part in archive:
            found += children(archive.xml(part), "style")
    return found


def _text(element: Element) -> str:
    parts: list[str] = []

    def gather(each: Element) -> None:
        for child in each:
            name = local(child.tag)
            if name in _DELETED or name == "txbxContent":
                continue
            if name == "t":
                parts.append(child.text or "")
            elif name in _MARKS:
                parts.append(_MARKS[name])
            elif name in {"footnoteReference", "endnoteReference"}:
                parts.append(f"[{attribute(child, 'id') or ''}]")
            elif name == "r" and _hidden(child):
                continue
            else:
                gather(child)

    gather(element)
    return "".join(parts)


def _hidden(run: Element) -> bool:
    settings = next(children(run, "rPr"), None)
    return settings is not None and on(next(children(settings, "vanish"), None))


def _boxes(paragraph: Element) -> list[Element]:
    """Return the boxes of text that are anchored in a paragraph; each is written twice, for old and new programs."""
    found: list[Element] = []

    def gather(each: Element) -> None:
        for child in each:
            if local(child.tag) == "txbxContent":
                found.append(child)
            elif local(child.tag) not in _DELETED:
                gather(child)

    gather(paragraph)
    return found


def _rows(table: Element) -> list[list[str]]:
    rows = []
    for row in (each for child in table for each in _unwrapped(child, "tr")):
        cells = [each for child in row for each in _unwrapped(child, "tc")]
        rows.append([" ".join(_cell(cell)) for cell in cells])
    return rows


def _unwrapped(element: Element, name: str) -> list[Element]:
    if local(element.tag) == name:
        return [element]
    if local(element.tag) in {"sdt", "sdtContent", "customXml", "ins"}:
        return [found for child in element for found in _unwrapped(child, name)]
    return []


def _cell(cell: Element) -> list[str]:
    parts: list[str] = []
    for child in cell:
        if local(child.tag) == "tbl":
            parts += [" ".join(row) for row in _rows(child)]
        else:
            parts += [_text(each).strip() for each in _unwrapped(child, "p")]
    return [part for part in parts if part]
