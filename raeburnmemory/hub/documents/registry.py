"""Which function reads which type, and whether it does so in a process of its own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .detection import EXTENSIONS, language_of
from .errors import UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Callable

    from .source import Loaded, Source

    Loader = Callable[[Source], Loaded]

__all__ = ["is_text", "loader_of"]

# Texts that stay as they are: reading them is decoding, so that they are read where they are asked for.
_TEXTS = {
    "text/plain": "text.plain",
    "text/markdown": "text.markdown",
    "text/x-rst": "text.rst",
    "text/org": "text.org",
    "text/csv": "tables.separated",
    "text/tab-separated-values": "tables.separated",
    "application/json": "tables.json_text",
    "application/x-ndjson": "tables.json_lines",
}
_PARSED = {
    "text/html": "web.html",
    "application/xhtml+xml": "web.html",
    "application/xml": "markup.xml",
    "image/svg+xml": "markup.xml",
    "message/rfc822": "mail.message",
    "application/mbox": "mail.mailbox",
    "text/calendar": "ical.events",
    "application/x-subrip": "subtitles.cues",
    "text/vtt": "subtitles.cues",
    "application/x-ipynb+json": "notebook.cells",
    "application/pdf": "pdf.pages",
    "application/rtf": "rtf.rtf",
    "application/zip": "archive.packed",
    **{EXTENSIONS[extension]: "archive.packed" for extension in ("docx", "pptx", "xlsx", "odt", "odp", "ods", "epub")},
}


def is_text(mime: str) -> bool:
    """Tell whether documents of this type are texts that stay as they are."""
    return mime in _TEXTS or language_of(mime) is not None


def loader_of(mime: str) -> Loader:
    """Return the function that reads documents of this type.

    Raises:
        UnsupportedType: There is none.
    """
    where = _TEXTS.get(mime) or _PARSED.get(mime) or ("text.code" if language_of(mime) else None)
    if where is None:
        raise UnsupportedType(
            f"Nothing here reads documents of the type {mime!r}.",
            mime=mime,
            remedy="Convert it to another format, or register a loader for its type: register_loader().",
        )
    module, _, function = where.partition(".")
    loader: Loader = getattr(import_module(f".formats.{module}", __package__), function)
    return loader
