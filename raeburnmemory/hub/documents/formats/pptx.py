"""PowerPoint presentations: a page for each slide, with its notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..source import Builder
from .archive import children, local
from .ooxml import Relations, properties

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from ..source import Loaded, Source
    from .archive import Archive

__all__ = ["read"]

_MIME = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_AROUND = {"sldNum", "dt", "ftr", "hdr", "sldImg"}  # numbers and dates that stand on every slide
_SHAPES = {"sp", "cxnSp", "grpSp", "graphicFrame", "AlternateContent", "Choice"}


def read(archive: Archive, source: Source, main: str, root: Element) -> Loaded:  # noqa: ARG001  (one shape for all)
    """Return the text of a presentation."""
    relations = Relations(archive, main)
    found = properties(archive)
    builder = Builder()
    slides = [
        relations[identity][1]
        for listed in children(root, "sldIdLst")
        for each in children(listed, "sldId")
        if (identity := _reference(each)) in relations
    ]
    without = []
    for number, part in enumerate(slides, 1):
        before = builder.length
        builder.fresh()
        opened = builder.begin("slide", number)
        if part in archive:
            _slide(archive, part, builder)
        builder.end(opened)
        if builder.length == before:
            without.append(number)
    metadata: dict[str, object] = {**found, "slides": len(slides)}
    if without:
        metadata["pages_without_text"] = without
    title = metadata.pop("title", None)
    return builder.loaded(title=title, metadata=metadata, mime=_MIME)


def _reference(element: Element) -> str:
    """Return the reference of a slide; its number is an attribute of the same name without a namespace."""
    return next((value for key, value in element.attrib.items() if key.startswith("{") and local(key) == "id"), "")


def _slide(archive: Archive, part: str, builder: Builder) -> None:
    for tree in (each for each in archive.xml(part).iter() if local(each.tag) == "spTree"):
        _shapes(tree, builder)
        break
    for notes in Relations(archive, part).of("notesSlide"):
        if notes in archive:
            shapes = [each for each in archive.xml(notes).iter() if local(each.tag) == "sp"]
            text = "\n".join(filter(None, (_text(shape) for shape in shapes if _place(shape) not in _AROUND)))
            if text.strip():
                builder.add(f"Notes: {text.strip()}")


def _shapes(tree: Element, builder: Builder) -> None:
    for shape in tree:
        name = local(shape.tag)
        if name not in _SHAPES:
            continue
        if name in {"grpSp", "AlternateContent", "Choice"}:
            _shapes(shape, builder)
        elif name == "graphicFrame":
            for table in (each for each in shape.iter() if local(each.tag) == "tbl"):
                builder.table([[_text(cell) for cell in children(row, "tc")] for row in children(table, "tr")])
        elif (place := _place(shape)) in {"title", "ctrTitle"}:
            builder.heading(_text(shape), 1)
        elif place not in _AROUND:
            builder.add(_text(shape))


def _place(shape: Element) -> str:
    """Return what a shape is for: title, body, number of the slide."""
    return next((each.get("type", "") for each in shape.iter() if local(each.tag) == "ph"), "")


def _text(shape: Element) -> str:
    lines = []
    for paragraph in (each for each in shape.iter() if local(each.tag) == "p"):
        parts = []
        for each in paragraph.iter():
            if local(each.tag) == "t":
                parts.append(each.text or "")
            elif local(each.tag) == "br":
                parts.append("\n")
        lines.append("".join(parts))
    return "\n".join(line for line in lines if line.strip())
