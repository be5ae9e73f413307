"""PDF files, by pypdf (BSD, https://github.com/py-pdf/pypdf): a page for each of theirs."""

from __future__ import annotations

import io
import logging
import re
from typing import TYPE_CHECKING, Any

from ...._optional import extra
from ..errors import EncryptedDocument, LoaderError, NoText, TooLarge
from ..source import Builder, tidy

if TYPE_CHECKING:
    from ..model import Limits
    from ..source import Loaded, Source

__all__ = ["pages"]

# Letters that are printed together, which nobody types when searching.
_TOGETHER = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)


def pages(source: Source) -> Loaded:
    """Return the text of a PDF; pages that have none are named, and one without any text at all is refused."""
    with extra("hub", module="pypdf"):
        from pypdf import PdfReader
        from pypdf.errors import DependencyError, PyPdfError
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    start = source.data.find(b"%PDF-")
    try:
        reader = PdfReader(io.BytesIO(source.data[start:]), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise EncryptedDocument("The PDF opens with a password only.", remedy="Save it without one.")
        count = len(reader.pages)
    except DependencyError as exc:
        raise EncryptedDocument(
            "The PDF is encrypted, in a way that needs a further package.", remedy="pip install cryptography"
        ) from exc
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as exc:
        if isinstance(exc, EncryptedDocument):
            raise
        raise LoaderError(f"The PDF is damaged: {exc}.", remedy="Open it in a reader and save it anew.") from exc
    return _read(reader, count, source.limits)


def _read(reader: Any, count: int, limits: Limits) -> Loaded:
    if count > limits.pages:
        raise TooLarge(
            f"The PDF has {count:,} pages; the limit is {limits.pages:,}.",
            remedy="Raise it if you trust the document: Limits(pages=…).",
        )
    builder = Builder()
    without: list[int] = []
    damaged: list[int] = []
    for number in range(1, count + 1):
        try:
            text = reader.pages[number - 1].extract_text().translate(_TOGETHER)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001  (one page of many; a parser of PDF meets everything)
            damaged.append(number)
            continue
        before = builder.length
        opened = builder.begin("page", number)
        for paragraph in re.split(r"\n[^\S\n]*\n\s*", tidy(text)):
            builder.add("\n".join(line.rstrip() for line in paragraph.split("\n")))
        builder.end(opened)
        if builder.length == before:
            without.append(number)
    if not builder.length:
        if len(damaged) == count:
            raise LoaderError("No page of the PDF could be read.", remedy="Open it in a reader and save it anew.")
        raise NoText(
            f"The PDF has no text on its pages {_ranges(without)}: it is a scan, or a drawing.",
            remedy="Read it by optical character recognition: load(…, ocr=…).",
            pages=tuple(without),
        )
    metadata: dict[str, Any] = {**_properties(reader), "pages": count}
    if without:
        metadata["pages_without_text"] = without
    if damaged:
        metadata["damaged_pages"] = damaged
    title = metadata.pop("title", None)
    return builder.loaded(title=title, metadata=metadata)


def _properties(reader: Any) -> dict[str, str]:
    try:
        stated = reader.metadata
        made = stated.creation_date
        found = {
            "title": tidy(stated.title or "").strip(),
            "author": tidy(stated.author or "").strip(),
            "created": made.isoformat() if made else "",
        }
    except Exception:  # noqa: BLE001  (what it says of itself is not worth losing its text)
        return {}
    return {name: value for name, value in found.items() if value}


def _ranges(numbers: list[int]) -> str:
    """Return numbers as people write them: 1-3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
