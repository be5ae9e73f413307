"""Rich Text: its paragraphs, by striprtf (BSD, https://github.com/joshy/striprtf)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...._optional import extra
from ..source import Builder, tidy

if TYPE_CHECKING:
    from ..source import Loaded, Source

__all__ = ["rtf"]


def rtf(source: Source) -> Loaded:
    """Return the paragraphs of a Rich Text file."""
    with extra("hub", module="striprtf"):
        from striprtf.striprtf import rtf_to_text as to_text
    # The file itself is ASCII, more or less; it says how its other bytes are meant.
    raw = source.data.decode("latin-1")
    read: Any = to_text  # it has no annotations
    text: str = read(raw, errors="replace")
    builder = Builder()
    for paragraph in tidy(text).split("\n"):
        if "|" in paragraph and paragraph.rstrip().endswith("|"):
            paragraph = paragraph.rstrip().rstrip("|")  # noqa: PLW2901  (the end of a row)
        builder.add(paragraph)
    title = re.search(r"{\\title ([^{}\\]+)}", raw)
    return builder.loaded(title=title[1].strip() if title else None)
