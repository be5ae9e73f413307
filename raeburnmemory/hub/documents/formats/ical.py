"""Calendars (RFC 5545): each event, task and note as a paragraph that can be read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..encoding import decode
from ..source import Builder

if TYPE_CHECKING:
    from ..source import Loaded, Source

__all__ = ["events"]

_KINDS = {"VEVENT": "event", "VTODO": "task", "VJOURNAL": "note"}
_LABELS = {
    "DTSTART": "From",
    "DTEND": "To",
    "DUE": "Due",
    "LOCATION": "Where",
    "ORGANIZER": "Organiser",
    "ATTENDEE": "With",
    "RRULE": "Repeats",
    "STATUS": "Status",
    "CATEGORIES": "About",
    "URL": "Address",
    "DESCRIPTION": "",
    "COMMENT": "",
}
_LINE = re.compile(r"([A-Za-z0-9-]+)((?:;[^=:;]+=(?:\"[^\"]*\"|[^:;\"]*))*):(.*)", re.DOTALL)
_WHEN = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?")
_ESCAPED = re.compile(r"\\([nN,;\\])")


def events(source: Source) -> Loaded:
    """Return the entries of a calendar in the order of the file."""
    text = decode(source.data, source.charset, uri=source.uri).replace("\r\n", "\n")
    text = re.sub(r"\n[ \t]", "", text)  # long lines are folded
    builder = Builder()
    title, kind, count = None, None, 0
    fields: list[tuple[str, str, str]] = []
    alarms = 0
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if not found:
            continue
        name, settings, value = found[1].upper(), found[2], found[3]
        if name == "BEGIN":
            if value.upper() in _KINDS:
                kind, fields = _KINDS[value.upper()], []
            elif kind:
                alarms += 1
        elif name == "END" and kind and alarms:
            alarms -= 1
        elif name == "END" and kind:
            _write(builder, kind, fields)
            kind, count = None, count + 1
        elif kind and not alarms:
            fields.append((name, settings, value))
        elif name == "X-WR-CALNAME":
            title = _plain(value)
    return builder.loaded(title=title, metadata={"entries": count})


def _write(builder: Builder, kind: str, fields: list[tuple[str, str, str]]) -> None:
    lines = [_plain(value) for name, _, value in fields if name == "SUMMARY"] or [kind.capitalize()]
    for field, label in _LABELS.items():
        if shown := [_shown(name, settings, value) for name, settings, value in fields if name == field]:
            lines.append(f"{label}: {', '.join(shown)}".removeprefix(": "))
    begins = next((_shown(*field) for field in fields if field[0] == "DTSTART"), None)
    builder.add("\n".join(lines), "event", name=begins)


def _shown(name: str, settings: str, value: str) -> str:
    if name in {"DTSTART", "DTEND", "DUE"} and (when := _WHEN.fullmatch(value.strip())):
        day = f"{when[1]}-{when[2]}-{when[3]}"
        zone = re.search(r";TZID=\"?([^\";:]+)", settings, re.IGNORECASE)
        named = " UTC" if when[7] else f" {zone[1]}" if zone else ""
        return f"{day} {when[4]}:{when[5]}{named}" if when[4] else day
    if name in {"ORGANIZER", "ATTENDEE"}:
        called = re.search(r";CN=(\"[^\"]*\"|[^;:]*)", settings, re.IGNORECASE)
        address = re.sub("^mailto:", "", value.strip(), flags=re.IGNORECASE)
        return f"{called[1].strip(chr(34))} <{address}>" if called else address
    return _plain(value)


def _plain(value: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] in "nN" else match[1], value).strip()
