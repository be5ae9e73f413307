"""Tables and records as text: CSV, TSV, JSON, lines of JSON. They stay as they are, so that lines can be cited."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..errors import LoaderError
from ..model import Block
from ..source import Loaded
from .text import text_of

if TYPE_CHECKING:
    from ..source import Source

__all__ = ["json_lines", "json_text", "separated"]


def separated(source: Source) -> Loaded:
    """Return a table whose first record is its header."""
    text = text_of(source)
    start = len(text) - len(text.lstrip())
    end = _record(text, start)
    header = text[start:end].strip()
    blocks = (Block("table", start, len(text.rstrip()), header=header),) if header else ()
    return Loaded(text, blocks, verbatim=True)


def _record(text: str, start: int) -> int:
    """Return where a record ends: at the first end of a line that stands in no quotes."""
    at = start
    while (end := text.find("\n", at)) >= 0:
        if text.count('"', start, end) % 2 == 0:
            return end
        at = end + 1
    return len(text)


def json_text(source: Source) -> Loaded:
    """Return a JSON text, if it is one."""
    text = text_of(source)
    try:
        json.loads(text)
    except ValueError as exc:
        raise LoaderError(f"The JSON is damaged: {exc}.", uri=source.uri) from exc
    except RecursionError as exc:
        raise LoaderError("The JSON is nested too deeply.", uri=source.uri) from exc
    return Loaded(text, (Block("code", 0, len(text), name="json"),) if text else (), verbatim=True)


def json_lines(source: Source) -> Loaded:
    """Return lines of JSON as they are; one that is torn is a line like others."""
    text = text_of(source)
    return Loaded(text, (Block("code", 0, len(text), name="json"),) if text else (), verbatim=True)
