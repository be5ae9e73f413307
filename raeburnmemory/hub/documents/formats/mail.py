"""Mails: who wrote what to whom, with the text of the message; attachments are named, not read."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

from ..encoding import decode
from ..errors import DecodeError
from ..source import Builder, tidy
from .tree import parse
from .web import blocks_of, without_hidden

if TYPE_CHECKING:
    from email.message import EmailMessage, Message

    from ..source import Loaded, Source

__all__ = ["mailbox", "message"]

_SHOWN = ("From", "To", "Cc", "Date")
_BETWEEN = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\r\n]*\r?\n")


def message(source: Source) -> Loaded:
    """Return one mail."""
    builder = Builder()
    mail = message_from_bytes(source.data, policy=policy.default)
    attachments = _write(mail, builder)
    metadata: dict[str, Any] = {
        name.lower(): value for name in ("From", "To", "Cc", "Date", "Message-ID") if (value := _header(mail, name))
    }
    if attachments:
        metadata["attachments"] = attachments
    return builder.loaded(title=_header(mail, "Subject") or None, metadata=metadata)


def mailbox(source: Source) -> Loaded:
    """Return all mails of a mailbox, one after the other, each under its subject."""
    builder = Builder()
    starts = [match.end() for match in _BETWEEN.finditer(source.data)]
    begins = [match.start() for match in _BETWEEN.finditer(source.data)]
    attachments: list[str] = []
    for start, end in zip(starts, [*begins[1:], len(source.data)], strict=True):
        raw = re.sub(rb"(?m)^>(>*From )", rb"\1", source.data[start:end])
        attachments += _write(message_from_bytes(raw, policy=policy.default), builder)
    metadata: dict[str, Any] = {"messages": len(starts)}
    if attachments:
        metadata["attachments"] = attachments
    return builder.loaded(metadata=metadata)


def _write(mail: EmailMessage | Message[str, str], builder: Builder) -> list[str]:
    """Append one mail, and return the names of what is attached to it."""
    builder.fresh()
    opened = builder.begin("message", name=_header(mail, "From") or None)
    builder.heading(_header(mail, "Subject"), 1)
    lines = [f"{name}: {value}" for name in _SHOWN if (value := _header(mail, name))]
    builder.add("\n".join(lines))
    plain: list[str] = []
    marked: list[str] = []
    attachments: list[str] = []
    for part in mail.walk():
        if part.is_multipart():
            continue
        name = part.get_filename()
        kind = part.get_content_type()
        if name or part.get_content_disposition() == "attachment" or not kind.startswith("text/"):
            attachments.append(tidy(name or kind))
        elif kind == "text/html":
            marked.append(_body(part))
        else:
            plain.append(_body(part))
    # Both are the same text, mostly; the plain one is what its writer meant.
    if any(text.strip() for text in plain):
        for text in plain:
            for paragraph in re.split(r"\n[^\S\n]*\n\s*", tidy(text)):
                builder.add(paragraph)
    else:
        for text in marked:
            blocks_of(without_hidden(parse(text)), builder)
    builder.end(opened)
    return attachments


def _body(part: Message[str, str]) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return str(part.get_payload())
    charset = part.get_content_charset()
    try:
        return decode(data, charset, markup=part.get_content_type() == "text/html")
    except DecodeError:
        return data.decode("latin-1")  # one part among others: its signs may be wrong, its words are not lost


def _header(mail: EmailMessage | Message[str, str], name: str) -> str:
    try:
        value = mail.get(name)
    except Exception:  # noqa: BLE001  (headers that nobody should write raise this and that)
        value = dict(mail.raw_items()).get(name)
    return " ".join(tidy(str(value)).split()) if value is not None else ""
