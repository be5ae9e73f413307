"""Excel workbooks: a page and a table for each sheet, with the values that were last computed."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..source import Builder
from .archive import attribute, children, local
from .ooxml import Relations, properties

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from ..source import Loaded, Source
    from .archive import Archive

__all__ = ["read"]

_MIME = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}  # formats that need no definition
_LITERAL = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.|\*.')


def read(archive: Archive, source: Source, main: str, root: Element) -> Loaded:  # noqa: ARG001  (one shape for all)
    """Return the text of a workbook."""
    relations = Relations(archive, main)
    metadata: dict[str, object] = {**properties(archive)}
    values = _Values(archive, relations, root)
    builder = Builder()
    listed = [sheet for sheets in children(root, "sheets") for sheet in children(sheets, "sheet")]
    for number, sheet in enumerate(listed, 1):
        identity = next(
            (value for key, value in sheet.attrib.items() if key.startswith("{") and local(key) == "id"), ""
        )
        part = relations.get(identity, ("", ""))[1]
        name = sheet.get("name") or f"Sheet {number}"
        builder.fresh()
        opened = builder.begin("sheet", number, name=name)
        if part in archive:
            builder.table(_rows(archive.xml(part), values), name=name)
        builder.end(opened)
    metadata["sheets"] = [sheet.get("name") or "" for sheet in listed]
    title = metadata.pop("title", None)
    return builder.loaded(title=title, metadata=metadata, mime=_MIME)


class _Values:
    """What the cells of a workbook refer to: its texts, which formats show dates, and where its calendar begins."""

    def __init__(self, archive: Archive, relations: Relations, root: Element) -> None:
        self.texts = [
            _string(item)
            for part in relations.of("sharedStrings")
            if part in archive
            for item in children(archive.xml(part), "si")
        ]
        self.dates = [date for part in relations.of("styles") if part in archive for date in _dated(archive.xml(part))]
        early = any(_from_1904(each) for each in children(root, "workbookPr"))
        # Day 60 of the other calendar is the 29th of February 1900, which never was.
        self.first = datetime(1904, 1, 1) if early else datetime(1899, 12, 30)  # noqa: DTZ001  (a calendar has no zone)

    def text(self, cell: Element) -> str:
        """Return what a cell shows."""
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            return "".join(_string(each) for each in children(cell, "is"))
        value = next((each.text or "" for each in children(cell, "v")), "").strip()
        if not value:
            return ""
        if kind == "s":
            return self.texts[int(value)] if value.isdigit() and int(value) < len(self.texts) else ""
        if kind == "b":
            return "TRUE" if value == "1" else "FALSE"
        return self._number(value, cell.get("s", "0")) if kind == "n" else value

    def _number(self, value: str, style: str) -> str:
        try:
            number = float(value)
        except ValueError:
            return value
        if style.isdigit() and int(style) < len(self.dates) and self.dates[int(style)] and 0 <= number < 3_000_000:
            when = self.first + timedelta(seconds=round(number * 86400))
            if number < 1:
                return when.strftime("%H:%M:%S")
            return when.strftime("%Y-%m-%d" if number.is_integer() else "%Y-%m-%d %H:%M:%S")
        return f"{number:.15g}"  # as precise as the program itself


def _from_1904(element: Element) -> bool:
    """Tell whether a workbook counts its days from 1904."""
    return (attribute(element, "date1904") or "0").lower() in {"1", "true"}


def _dated(styles: Element) -> list[bool]:
    """Return for each style of cells whether it shows numbers as dates."""
    own = {
        int(each.get("numFmtId", "0")): each.get("formatCode", "")
        for formats in children(styles, "numFmts")
        for each in children(formats, "numFmt")
        if each.get("numFmtId", "0").isdigit()
    }
    found = []
    for each in (each for cells in children(styles, "cellXfs") for each in children(cells, "xf")):
        number = each.get("numFmtId", "0")
        code = own.get(int(number), "") if number.isdigit() else ""
        plain = _LITERAL.sub("", code.partition(";")[0]).lower()
        found.append(bool(re.search("[ymdhs]", plain)) if code else number.isdigit() and int(number) in _DATES)
    return found


def _string(item: Element) -> str:
    """Return a text that may be in several runs; how it is pronounced is left out."""
    parts = []
    for child in item:
        if local(child.tag) == "t":
            parts.append(child.text or "")
        elif local(child.tag) == "r":
            parts += [each.text or "" for each in children(child, "t")]
    return "".join(parts)


def _rows(sheet: Element, values: _Values) -> list[list[str]]:
    """Return the rows of a sheet; columns in which nothing stands are left out."""
    found: list[dict[int, str]] = []
    for row in (row for data in children(sheet, "sheetData") for row in children(data, "row")):
        cells: dict[int, str] = {}
        at = 0
        for cell in children(row, "c"):
            at = _column(cell.get("r", "")) or at + 1
            text = values.text(cell)
            if text.strip():
                cells[at] = text
        if cells:
            found.append(cells)
    used = sorted({at for cells in found for at in cells})
    return [[cells.get(at, "") for at in used] for cells in found]


def _column(reference: str) -> int:
    number = 0
    for letter in reference:
        if not "A" <= letter <= "Z":
            break
        number = number * 26 + ord(letter) - 64
    return number
